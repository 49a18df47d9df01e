//! The table that the data plane reads, and the wishes that it leaves for the keeper's task.
//!
//! Both sides are quick and never wait: a look-up clones values out, a wish is merged with those of
//! the same tenant and a bell is rung, so that ten thousand waiting calls are as many wishes as
//! there are tenants.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use dashmap::DashMap;
use http::HeaderValue;
use tokio::sync::Notify;
use zeroize::Zeroizing;

use super::{Bearer, TenantView};
use crate::clock::Clock;
use crate::engine::token::Readiness;
use crate::engine::{Mono, TenantName, Unix};
use crate::secret::Secret;

/// A tenant's row.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) view: TenantView,
    pub(super) usable: Option<Usable>,
    /// The minute in which the keeper was last told that a call took the token.
    pub(super) used_in: AtomicU64,
}

impl Row {
    pub(super) const fn new(view: TenantView, usable: Option<Usable>) -> Self {
        Self { view, usable, used_in: AtomicU64::new(0) }
    }
}

/// A stored access token, and when it may be sent.
#[derive(Debug)]
pub(super) struct Usable {
    bearer: Bearer,
    /// From here on its use asks for a new one.
    renew_from: Unix,
    /// From here on it is not sent.
    until: Unix,
    renewing: Arc<AtomicBool>,
}

impl Usable {
    /// `None` when the token does not fit a header.
    pub(super) fn new(
        token: &Secret<String>,
        version: u64,
        (renew_from, until): (Unix, Unix),
    ) -> Option<Self> {
        let text = Zeroizing::new(format!("Bearer {}", token.expose()).into_bytes());
        let mut header = HeaderValue::from_maybe_shared(Bytes::from_owner(text)).ok()?;
        header.set_sensitive(true);
        let bearer = Bearer { header, version };
        Some(Self { bearer, renew_from, until, renewing: Arc::default() })
    }
}

/// What callers want, merged by tenant.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    /// The earliest and the latest deadline of those who wait.
    pub(super) demands: BTreeMap<TenantName, (Mono, Mono)>,
    /// The newest version that the upstream rejected.
    pub(super) rejected: BTreeMap<TenantName, u64>,
    /// When calls last left.
    pub(super) used: BTreeMap<TenantName, Unix>,
}

#[derive(Debug)]
pub(super) struct Table {
    clock: Clock,
    rows: DashMap<TenantName, Row>,
    wishes: Mutex<Wishes>,
    /// Rung when there is a wish.
    pub(super) bell: Notify,
}

impl Table {
    pub(super) fn new(clock: Clock) -> Self {
        let (rows, wishes, bell) = (DashMap::new(), Mutex::default(), Notify::new());
        Self { clock, rows, wishes, bell }
    }

    pub(super) fn set(&self, tenant: &TenantName, row: Row) {
        self.rows.insert(tenant.clone(), row);
    }

    pub(super) fn remove(&self, tenant: &TenantName) {
        self.rows.remove(tenant);
    }

    pub(super) fn view(&self, tenant: &str) -> Option<TenantView> {
        self.rows.get(tenant).map(|row| row.view.clone())
    }

    pub(super) fn bearer(&self, tenant: &TenantName) -> Option<Bearer> {
        let now = self.clock.now();
        let (bearer, renew, used) = {
            let row = self.rows.get(tenant)?;
            let usable = row.usable.as_ref()?;
            if row.view.state != Readiness::Ready || now.unix >= usable.until {
                return None;
            }
            let late = now.unix >= usable.renew_from;
            let renew = late && !usable.renewing.swap(true, Ordering::Relaxed);
            let minute = now.unix.as_secs() / 60;
            let used = row.used_in.swap(minute, Ordering::Relaxed) != minute;
            (usable.bearer.clone(), renew, used)
        };
        if used {
            self.wish(tenant, |wishes, tenant| {
                wishes.used.insert(tenant, now.unix);
            });
        }
        if renew {
            // It serves only because no new one could be had: using it keeps the keeper trying.
            self.demand(tenant, now.mono);
        }
        Some(bearer)
    }

    pub(super) fn demand(&self, tenant: &TenantName, deadline: Mono) {
        self.wish(tenant, |wishes, tenant| {
            let (earliest, latest) = wishes.demands.entry(tenant).or_insert((deadline, deadline));
            *earliest = deadline.min(*earliest);
            *latest = deadline.max(*latest);
        });
    }

    pub(super) fn rejected(&self, tenant: &TenantName, version: u64) {
        self.wish(tenant, |wishes, tenant| {
            let newest = wishes.rejected.entry(tenant).or_insert(version);
            *newest = version.max(*newest);
        });
    }

    pub(super) fn take_wishes(&self) -> Wishes {
        std::mem::take(&mut *self.wishes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Leaves a wish for a tenant that exists, so that their number is bounded.
    fn wish(&self, tenant: &TenantName, merge: impl FnOnce(&mut Wishes, TenantName)) {
        if !self.rows.contains_key(tenant) {
            return;
        }
        merge(&mut self.wishes.lock().unwrap_or_else(PoisonError::into_inner), tenant.clone());
        self.bell.notify_one();
    }
}
