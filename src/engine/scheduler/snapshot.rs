//! What an operator sees of a scheduler.

use std::time::Duration;

use super::tenants::{Readiness, Tenant};
use super::{Hold, Now, Outlook, Scheduler};
use crate::engine::foreign::ForeignUse;
use crate::engine::ids::TenantName;
use crate::engine::rate::Class;
use crate::engine::time::Unix;

/// An API key at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Whether an operator holds it.
    pub paused: bool,
    /// Calls waiting, by class in the order of [`Class::ALL`].
    pub depth: [usize; 3],
    /// How long the call has waited that has waited longest.
    pub oldest_wait: Duration,
    /// How long a new call of a new tenant would wait, by class in the order of [`Class::ALL`].
    pub estimated_wait: [Duration; 3],
    /// Calls granted and not ended.
    pub in_flight: usize,
    /// Refusals by the upstream for second or day since the start.
    pub throttled_total: u64,
    /// The margin that is now added to the window.
    pub guard: Duration,
    /// Calls of the day that left.
    pub day_used: u64,
    /// Calls left in the day.
    pub day_remaining: u64,
    /// The day's limit.
    pub day_limit: u64,
    /// When the day turns.
    pub day_resets_at: Unix,
    /// When the day will be used up.
    pub day_outlook: Outlook,
    /// What others seem to use of the key.
    pub foreign: ForeignUse,
}

/// A tenant at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantSnapshot {
    /// Its name.
    pub tenant: TenantName,
    /// Whether its calls may go.
    pub readiness: Readiness,
    /// Calls waiting.
    pub queue_depth: usize,
    /// Calls that left in this quota day.
    pub calls_today: u64,
    /// Of them, those that the upstream refused for its rate.
    pub throttled_today: u64,
    /// Of them, those answered with 400 or above, and those whose answer was lost.
    pub errors_today: u64,
    /// When a call last left, since the start of the process.
    pub last_used_at: Option<Unix>,
    /// Until when its calls are held after a row of 401 or 403.
    pub denied_until: Option<Unix>,
    /// Until when its bulk calls are held by a limit of the account.
    pub capped_until: Option<Unix>,
}

impl Scheduler {
    /// The API key now.
    pub fn snapshot(&mut self, now: Now) -> Snapshot {
        self.advance(now);
        Snapshot {
            paused: self.paused,
            depth: Class::ALL.map(|class| self.queue.depth(class)),
            oldest_wait: self.oldest_wait(now),
            estimated_wait: Class::ALL.map(|class| self.estimate(None, class, now.mono)),
            in_flight: self.in_flight,
            throttled_total: self.throttled_total,
            guard: self.guard_now(),
            day_used: self.budget.used(),
            day_remaining: self.budget.remaining(now.mono),
            day_limit: self.budget.limit(),
            day_resets_at: self.budget.resets_at(),
            day_outlook: self.outlook(now),
            foreign: self.foreign.seen(),
        }
    }

    fn oldest_wait(&self, now: Now) -> Duration {
        let waiting = self.deadlines.iter().filter_map(|(_, id)| self.calls.find(*id));
        waiting.map(|call| now.mono.since(call.arrived)).max().unwrap_or_default()
    }

    /// One tenant now, or `None` when the scheduler has not heard of it.
    pub fn tenant(&mut self, name: &TenantName, now: Now) -> Option<TenantSnapshot> {
        let ix = self.tenants.ix(name)?;
        self.today_mut(ix, now);
        self.tenants.find(ix).map(|tenant| self.tenant_snapshot(tenant, now))
    }

    /// All tenants, in no order that means anything.
    pub fn tenant_snapshots(&mut self, now: Now) -> Vec<TenantSnapshot> {
        let known: Vec<_> = self.tenants.iter().map(|tenant| tenant.ix).collect();
        for ix in known {
            self.today_mut(ix, now);
        }
        self.tenants.iter().map(|tenant| self.tenant_snapshot(tenant, now)).collect()
    }

    fn tenant_snapshot(&self, tenant: &Tenant, now: Now) -> TenantSnapshot {
        let until = |hold| {
            let left = tenant.holds.until_of(hold).since(now.mono);
            (!left.is_zero()).then(|| now.unix.plus(left))
        };
        TenantSnapshot {
            tenant: tenant.name.clone(),
            readiness: tenant.readiness.clone(),
            queue_depth: self.queue.tenant_depth(tenant.ix),
            calls_today: tenant.today.calls,
            throttled_today: tenant.today.throttled,
            errors_today: tenant.today.errors,
            last_used_at: tenant.last_used,
            denied_until: until(Hold::Denied),
            capped_until: until(Hold::Capped),
        }
    }

    /// What is left of the day and when it turns, for the `RateLimit` header.
    #[must_use]
    pub fn day(&self, now: Now) -> (u64, Unix) {
        (self.budget.remaining(now.mono), self.budget.resets_at())
    }
}
