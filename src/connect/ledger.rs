//! How connecting each account stands, for whoever waits for it.
//!
//! Kept in memory, for a while: what counts is the tenant itself. A flow that is begun anew takes
//! the place of the one before, whose failure is then no news.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::engine::{TenantName, Unix};
use crate::secret::StateDigest;

/// How long an end is remembered.
const KEPT: Duration = Duration::from_hours(1);
/// Most tenants remembered; the store bounds what can be under way.
const TENANTS_MAX: usize = 4_096;

/// Which way an account is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// A link in a browser that comes back.
    Code,
    /// A code that is typed in elsewhere.
    Device,
}

impl Flow {
    /// Its public name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::Device => "device",
        }
    }
}

/// How far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The owner has not consented yet.
    Pending,
    /// The account is connected.
    Connected,
    /// It came to nothing.
    Failed {
        /// Why, in words for an operator.
        reason: String,
    },
}

/// How connecting an account stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Which way.
    pub flow: Flow,
    /// How far.
    pub progress: Progress,
    /// Until when the owner may consent.
    pub expires_at: Unix,
}

/// Tells flows of one tenant apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FlowId(u64);

impl FlowId {
    pub(super) const fn of_number(number: u64) -> Self {
        Self(number)
    }

    pub(super) fn of_state(state: &StateDigest) -> Self {
        let (number, _) = state.as_bytes().split_first_chunk().expect("a digest has 32 bytes");
        Self(u64::from_be_bytes(*number))
    }
}

struct Entry {
    id: FlowId,
    standing: Standing,
    forget_at: Unix,
}

#[derive(Default)]
pub(super) struct Ledger(Mutex<BTreeMap<TenantName, Entry>>);

impl Ledger {
    pub(super) fn begun(
        &self,
        tenant: &TenantName,
        id: FlowId,
        flow: Flow,
        expires_at: Unix,
        now: Unix,
    ) {
        let mut entries = self.entries();
        entries.retain(|_, entry| entry.forget_at > now);
        if entries.len() >= TENANTS_MAX {
            let oldest = entries.iter().min_by_key(|(_, entry)| entry.forget_at);
            if let Some(oldest) = oldest.map(|(tenant, _)| tenant.clone()) {
                entries.remove(&oldest);
            }
        }
        let standing = Standing { flow, progress: Progress::Pending, expires_at };
        let forget_at = expires_at.plus(KEPT);
        entries.insert(tenant.clone(), Entry { id, standing, forget_at });
    }

    pub(super) fn ended(&self, tenant: &TenantName, id: FlowId, failed: Option<String>, now: Unix) {
        let mut entries = self.entries();
        let progress = match failed {
            Some(reason) => Progress::Failed { reason },
            None => Progress::Connected,
        };
        match entries.get_mut(tenant) {
            Some(entry) if entry.id == id || progress == Progress::Connected => {
                entry.standing.progress = progress;
            }
            Some(_) => {}
            // begun before a restart
            None => {
                let standing = Standing { flow: Flow::Code, progress, expires_at: now };
                entries.insert(tenant.clone(), Entry { id, standing, forget_at: now.plus(KEPT) });
            }
        }
    }

    pub(super) fn standing(&self, tenant: &TenantName) -> Option<Standing> {
        self.entries().get(tenant).map(|entry| entry.standing.clone())
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<TenantName, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_flow_counts_and_a_connected_account_is_connected() {
        let ledger = Ledger::default();
        let acme = TenantName::new("acme").unwrap();
        let at = Unix::from_secs;
        let progress = || ledger.standing(&acme).unwrap().progress;
        ledger.begun(&acme, FlowId(1), Flow::Code, at(600), at(0));
        ledger.begun(&acme, FlowId(2), Flow::Code, at(700), at(100));
        ledger.ended(&acme, FlowId(1), Some("denied".into()), at(200));
        assert_eq!(progress(), Progress::Pending);
        ledger.ended(&acme, FlowId(2), Some("denied".into()), at(200));
        assert_eq!(progress(), Progress::Failed { reason: "denied".into() });
        ledger.ended(&acme, FlowId(1), None, at(200));
        assert_eq!(progress(), Progress::Connected);
        let other = TenantName::new("other").unwrap();
        ledger.begun(&other, FlowId(3), Flow::Device, at(9_000), at(8_000));
        assert_eq!(ledger.standing(&acme), None, "long ago");
    }
}
