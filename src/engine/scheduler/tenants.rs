//! What the scheduler knows of each tenant: whether its calls may go, and what they did today.
//!
//! A tenant's calls are held in the queue while it has no usable token, while an operator paused
//! it, and while it is unknown. The scheduler never asks for a token twice for the same deadline:
//! one demand, repeated only when a caller comes that can wait less long.

use std::collections::HashMap;
use std::time::Duration;

use super::settle::Holds;
use super::{Command, Mono, Now, Refusal, Scheduler};
use crate::engine::ids::TenantName;
use crate::engine::queue::TenantIx;
use crate::engine::rate::Class;
use crate::engine::time::{Day, Unix};

/// Whether a tenant has a good token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It has.
    Ready,
    /// It will have one when asked for.
    Waiting,
    /// The token endpoint fails; it is asked again at `retry_at`.
    Failing {
        /// When.
        retry_at: Mono,
    },
    /// Its refresh token is dead.
    NeedsAuthorization {
        /// Why.
        reason: String,
    },
}

#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) ix: TenantIx,
    pub(super) name: TenantName,
    pub(super) readiness: Readiness,
    pub(super) paused: bool,
    /// Since when it has a good token.
    pub(super) ready_since: Mono,
    pub(super) demanded: Option<Mono>,
    pub(super) holds: Holds,
    pub(super) preparing: usize,
    pub(super) today: Today,
    pub(super) last_used: Option<Unix>,
    /// When a visitor was last seen; `None` for a connected tenant.
    pub(super) visited: Option<Mono>,
}

/// What a tenant's calls did in a quota day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Today {
    pub(super) day: Day,
    pub(super) calls: u64,
    pub(super) throttled: u64,
    pub(super) errors: u64,
}

#[derive(Debug, Default)]
pub(super) struct Tenants {
    by_name: HashMap<TenantName, TenantIx>,
    /// Beside the queue's table, by the same index.
    table: Vec<Option<Tenant>>,
}

impl Tenants {
    pub(super) fn ix(&self, name: &TenantName) -> Option<TenantIx> {
        self.by_name.get(name).copied()
    }

    pub(super) fn find(&self, ix: TenantIx) -> Option<&Tenant> {
        self.table.get(ix.index())?.as_ref().filter(|tenant| tenant.ix == ix)
    }

    pub(super) fn find_mut(&mut self, ix: TenantIx) -> Option<&mut Tenant> {
        self.table.get_mut(ix.index())?.as_mut().filter(|tenant| tenant.ix == ix)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Tenant> {
        self.table.iter().filter_map(Option::as_ref)
    }

    fn insert(&mut self, ix: TenantIx, tenant: Tenant) {
        self.by_name.insert(tenant.name.clone(), ix);
        if self.table.len() <= ix.index() {
            self.table.resize_with(ix.index().saturating_add(1), || None);
        }
        if let Some(place) = self.table.get_mut(ix.index()) {
            *place = Some(tenant);
        }
    }

    fn remove(&mut self, name: &TenantName) -> Option<TenantIx> {
        let ix = self.by_name.remove(name)?;
        if let Some(place) = self.table.get_mut(ix.index()) {
            *place = None;
        }
        Some(ix)
    }
}

impl Scheduler {
    /// A tenant was added, or its token, pause or weight changed.
    pub fn set_tenant(
        &mut self,
        name: &TenantName,
        readiness: &Readiness,
        paused: bool,
        weight: u32,
        now: Now,
    ) {
        let ix = self.tenant_ix(name);
        self.queue.set_weight(ix, weight);
        let Some(tenant) = self.tenants.find_mut(ix) else { return };
        tenant.paused = paused;
        if tenant.readiness != Readiness::Ready {
            tenant.ready_since = now.mono;
            if *readiness == Readiness::Ready {
                tenant.holds.new_token(now.mono);
            }
        }
        tenant.readiness = readiness.clone();
        match readiness {
            Readiness::Ready => {
                tenant.demanded = None;
                self.set_held(ix, now.mono);
            }
            Readiness::Waiting | Readiness::Failing { .. } => {
                // a demand made while there was a token is forgotten by now
                tenant.demanded = None;
                self.set_held(ix, now.mono);
                self.demand(ix, now.mono);
            }
            Readiness::NeedsAuthorization { reason } => {
                tenant.demanded = None;
                self.set_held(ix, now.mono);
                self.refuse_tenant(ix, &Refusal::NeedsAuthorization { reason: reason.clone() });
            }
        }
        if let Readiness::Failing { retry_at } = readiness {
            self.refuse_hopeless(ix, *retry_at, now.mono);
        }
        self.advance(now);
    }

    /// Has the queue hold those calls of a tenant that may not go.
    pub(super) fn set_held(&mut self, ix: TenantIx, now: Mono) {
        let Some(tenant) = self.tenants.find(ix) else { return };
        let all = tenant.paused || tenant.readiness != Readiness::Ready;
        let held = Class::ALL.map(|class| all || tenant.holds.until(class) > now);
        self.queue.hold_classes(ix, held);
    }

    /// The upstream refused the tenant's token: its calls wait until its keeper says that it has
    /// another.
    pub fn token_refused(&mut self, name: &TenantName, now: Now) {
        let Some(ix) = self.tenants.ix(name) else { return };
        self.queue.hold(ix);
        if let Some(tenant) = self.tenants.find_mut(ix)
            && tenant.readiness == Readiness::Ready
        {
            tenant.readiness = Readiness::Waiting;
            self.demand(ix, now.mono);
        }
    }

    /// A tenant is gone: its waiting calls are refused.
    pub fn remove_tenant(&mut self, name: &TenantName, now: Now) {
        if let Some(ix) = self.tenants.ix(name) {
            self.refuse_tenant(ix, &Refusal::TenantRemoved);
            let preparing: Vec<_> = self.deadlines.iter().map(|(_, id)| *id).collect();
            for id in preparing {
                if self.calls.find(id).is_some_and(|call| call.tenant == ix) {
                    self.refuse(id, Refusal::TenantRemoved);
                }
            }
            self.tenants.remove(name);
            self.queue.remove_tenant(ix);
            if let Some(turnstile) = &mut self.turnstile {
                for class in Class::ALL {
                    turnstile.set_waiting(class, name, 1, 0);
                }
            }
        }
        self.advance(now);
    }

    /// The tenant's place, made when it is new; a new one waits for its token.
    pub(super) fn tenant_ix(&mut self, name: &TenantName) -> TenantIx {
        if let Some(ix) = self.tenants.ix(name) {
            return ix;
        }
        let ix = self.queue.add_tenant(1);
        let tenant = Tenant {
            ix,
            name: name.clone(),
            readiness: Readiness::Waiting,
            paused: false,
            ready_since: Mono::default(),
            demanded: None,
            holds: Holds::default(),
            preparing: 0,
            today: Today::default(),
            last_used: None,
            visited: None,
        };
        self.tenants.insert(ix, tenant);
        ix
    }

    /// Asks for the tenant's token when a call waits for it, unless one that can wait less long has
    /// asked and still waits.
    pub(super) fn demand(&mut self, ix: TenantIx, now: Mono) {
        let earliest = self
            .queue
            .waiting(ix)
            .filter_map(|id| self.calls.find(id))
            .map(|call| call.deadline)
            .min();
        let (Some(deadline), Some(tenant)) = (earliest, self.tenants.find_mut(ix)) else { return };
        if tenant.demanded.is_some_and(|before| before > now && before <= deadline) {
            return;
        }
        tenant.demanded = Some(deadline);
        self.commands.push_back(Command::Demand { tenant: tenant.name.clone(), deadline });
    }

    /// Refuses the calls that cannot live until the token endpoint is asked again.
    fn refuse_hopeless(&mut self, ix: TenantIx, retry_at: Mono, now: Mono) {
        let hopeless: Vec<_> = self
            .queue
            .waiting(ix)
            .filter(|id| self.calls.find(*id).is_some_and(|call| call.deadline <= retry_at))
            .collect();
        for id in hopeless {
            self.refuse(id, Refusal::TokenUnavailable { retry: retry_at.since(now) });
        }
    }

    fn refuse_tenant(&mut self, ix: TenantIx, why: &Refusal) {
        let waiting: Vec<_> = self.queue.waiting(ix).collect();
        for id in waiting {
            self.refuse(id, why.clone());
        }
    }

    /// The tenant's counts of the day of `now`, reset when that is a new one.
    pub(super) fn today_mut(&mut self, ix: TenantIx, now: Now) -> Option<&mut Today> {
        let day = self.limits.day_reset.day_of(now.unix);
        let tenant = self.tenants.find_mut(ix)?;
        if tenant.today.day < day {
            tenant.today = Today { day, ..Today::default() };
        }
        Some(&mut tenant.today)
    }

    /// Why a tenant's call that waited its whole time was not served.
    pub(super) fn expiry(
        &self,
        ix: TenantIx,
        class: Class,
        estimate: Duration,
        now: Mono,
    ) -> Refusal {
        match self.tenants.find(ix).map(|tenant| &tenant.readiness) {
            Some(Readiness::Failing { retry_at }) => {
                Refusal::TokenUnavailable { retry: retry_at.since(now) }
            }
            Some(Readiness::Waiting) => Refusal::TokenUnavailable { retry: Duration::ZERO },
            Some(Readiness::NeedsAuthorization { reason }) => {
                Refusal::NeedsAuthorization { reason: reason.clone() }
            }
            Some(Readiness::Ready) if self.is_kept_from(class) => Refusal::DayKept,
            Some(Readiness::Ready) => Refusal::WaitExpired { estimate },
            None => Refusal::TenantRemoved,
        }
    }
}
