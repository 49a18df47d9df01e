//! Carries word between the token keeper and the gates, which do not know each other.
//!
//! What becomes of a tenant's token goes to the gate of its API key; a call that waits for a token
//! goes to the keeper. The last word on each tenant is kept, so that a gate that is opened later
//! hears of its tenants.

use std::collections::BTreeMap;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::engine::TenantName;
use crate::engine::scheduler::Readiness;
use crate::engine::token;
use crate::gate::{Demand, Gate};
use crate::tokens::{TenantChange, Tokens};

/// The handle of the task that carries word.
pub(super) struct Bridge {
    announce: mpsc::UnboundedSender<()>,
}

struct Carrier {
    gate: Gate,
    known: BTreeMap<TenantName, TenantChange>,
}

impl Bridge {
    pub(super) fn start(
        gate: &Gate,
        tokens: &Tokens,
        mut changes: mpsc::UnboundedReceiver<TenantChange>,
        mut demands: mpsc::UnboundedReceiver<Demand>,
        tracker: &TaskTracker,
        stopped: &CancellationToken,
    ) -> Self {
        let (announce, mut announced) = mpsc::unbounded_channel();
        let mut carrier = Carrier { gate: gate.clone(), known: BTreeMap::new() };
        // the tenants of the store are at the gates before the first call is
        while let Ok(change) = changes.try_recv() {
            carrier.changed(&change);
        }
        let (tokens, stopped) = (tokens.clone(), stopped.clone());
        tracker.spawn(async move {
            loop {
                tokio::select! {
                    Some(change) = changes.recv() => carrier.changed(&change),
                    Some(demand) = demands.recv() => carrier.demanded(&tokens, &demand),
                    Some(()) = announced.recv() => carrier.announce_all(),
                    () = stopped.cancelled() => return,
                }
            }
        });
        Self { announce }
    }

    /// Tells the gates of all tenants again.
    pub(super) fn announce_all(&self) {
        // the task ends with the process only
        let _ = self.announce.send(());
    }
}

impl Carrier {
    fn changed(&mut self, change: &TenantChange) {
        let before = match change.readiness {
            Some(_) => self.known.insert(change.tenant.clone(), change.clone()),
            None => self.known.remove(&change.tenant),
        };
        if let Some(before) = before.filter(|before| before.api_key != change.api_key) {
            self.gate.set_tenant(&before.api_key, &before.tenant, None, false, 1);
        }
        self.announce(change);
    }

    /// A call waits for a token. Of a tenant that is gone, or has gone to another API key, there
    /// will be none: the gate is told again, since the call may have entered just after it heard.
    fn demanded(&self, tokens: &Tokens, Demand { api_key, tenant, deadline }: &Demand) {
        match tokens.tenant(tenant.as_str()) {
            Some(view) if view.api_key == *api_key => tokens.demand(tenant, *deadline),
            Some(_) | None => self.gate.set_tenant(api_key, tenant, None, false, 1),
        }
    }

    fn announce_all(&self) {
        for change in self.known.values() {
            self.announce(change);
        }
    }

    fn announce(&self, change: &TenantChange) {
        let readiness = change.readiness.as_ref().map(for_scheduler);
        let TenantChange { tenant, api_key, paused, weight, .. } = change;
        self.gate.set_tenant(api_key, tenant, readiness, *paused, *weight);
    }
}

/// The keeper's word in the scheduler's language; the two machines do not know each other.
fn for_scheduler(readiness: &token::Readiness) -> Readiness {
    match readiness {
        token::Readiness::Ready => Readiness::Ready,
        token::Readiness::Waiting => Readiness::Waiting,
        token::Readiness::Failing { retry_at, .. } => Readiness::Failing { retry_at: *retry_at },
        token::Readiness::NeedsAuthorization { reason } => {
            Readiness::NeedsAuthorization { reason: reason.to_string() }
        }
    }
}
