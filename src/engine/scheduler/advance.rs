//! The life of a call in the scheduler, and the step that follows every input.
//!
//! `advance` turns the day, ends waits that are over, and grants for as long as a slot, a counted
//! call, a place in flight and a call whose turn it is are there together. It is the only place
//! that grants.

use std::time::Duration;

use super::calls::{Call, CallId, Held, Stage};
use super::tenants::Readiness;
use super::{Arrival, Command, Entry, Mono, Now, Refusal, Scheduler};
use crate::engine::budget::Stock;
use crate::engine::day::reopening_pause;
use crate::engine::queue::TenantIx;
use crate::engine::rate::Class;
use crate::engine::time::Day;

/// Nothing leaves for this long after the day has turned.
pub(super) const DAY_TURN_PAUSE: Duration = Duration::from_secs(2);

impl Scheduler {
    /// A call arrived.
    ///
    /// # Errors
    /// The reason why it cannot wait: the queue is full, the wait would be too long, the day is
    /// spent, the tenant's token is dead, or the process stops. A call that is sent again is
    /// refused only when its tenant's calls are held for longer than it may wait.
    pub fn enqueue(&mut self, id: CallId, arrival: &Arrival, now: Now) -> Result<(), Refusal> {
        self.advance(now);
        let ix = self.tenant_ix(&arrival.tenant);
        let order = match arrival.entry {
            Entry::Again { first } => {
                self.readmit(ix, arrival, now.mono)?;
                first.number()
            }
            Entry::Back | Entry::WhenPrepared => {
                self.admit(ix, arrival, now)?;
                id.number()
            }
        };
        let call = Call {
            tenant: ix,
            class: arrival.class,
            arrived: now.mono,
            deadline: arrival.deadline,
            order,
            stage: Stage::Preparing,
        };
        self.calls.insert(id, call);
        self.deadlines.insert((arrival.deadline, id));
        if arrival.entry == Entry::WhenPrepared {
            if let Some(tenant) = self.tenants.find_mut(ix) {
                tenant.preparing = tenant.preparing.saturating_add(1);
            }
        } else {
            self.wait(id, now.mono);
            self.advance(now);
        }
        Ok(())
    }

    /// The body of a call that entered with [`Entry::WhenPrepared`] is there.
    pub fn prepared(&mut self, id: CallId, now: Now) {
        let Some(call) = self.calls.find(id).copied() else { return };
        if !matches!(call.stage, Stage::Preparing) {
            return;
        }
        let estimate = self.estimate(Some(call.tenant), call.class, now.mono);
        if now.mono.plus(estimate) > call.deadline {
            self.refuse(id, Refusal::WaitTooLong { estimate });
            return;
        }
        self.one_less_preparing(call.tenant);
        self.wait(id, now.mono);
        self.advance(now);
    }

    fn one_less_preparing(&mut self, ix: TenantIx) {
        if let Some(tenant) = self.tenants.find_mut(ix) {
            tenant.preparing = tenant.preparing.saturating_sub(1);
        }
    }

    fn wait(&mut self, id: CallId, now: Mono) {
        let Some(call) = self.calls.find_mut(id) else { return };
        let (ix, deadline) = (call.tenant, call.deadline);
        call.stage = Stage::Waiting(self.queue.push(ix, call.class, call.order, id));
        let Some(tenant) = self.tenants.find_mut(ix) else { return };
        let has_token = matches!(tenant.readiness, Readiness::Ready);
        let news = tenant.demanded.is_none_or(|before| deadline < before || before <= now);
        if !has_token && news {
            tenant.demanded = Some(deadline);
            self.commands.push_back(Command::Demand { tenant: tenant.name.clone(), deadline });
        }
    }

    /// Whether a new call may wait.
    fn admit(&self, ix: TenantIx, arrival: &Arrival, now: Now) -> Result<(), Refusal> {
        if self.stop_at.is_some() {
            return Err(Refusal::Stopping);
        }
        match self.tenants.find(ix).map(|tenant| &tenant.readiness) {
            Some(Readiness::NeedsAuthorization { reason }) => {
                return Err(Refusal::NeedsAuthorization { reason: reason.clone() });
            }
            Some(Readiness::Failing { retry_at }) if *retry_at >= arrival.deadline => {
                return Err(Refusal::TokenUnavailable { retry: retry_at.since(now.mono) });
            }
            Some(Readiness::Failing { .. } | Readiness::Ready | Readiness::Waiting) | None => {}
        }
        match self.stock(now.mono) {
            Stock::Spent => return Err(Refusal::DaySpent),
            Stock::StoreFails => return Err(Refusal::StoreUnavailable),
            Stock::InHand | Stock::Awaited => {}
        }
        let estimate = self.estimate(Some(ix), arrival.class, now.mono);
        let preparing = self.tenants.find(ix).map_or(0, |tenant| tenant.preparing);
        let of_tenant = self.queue.tenant_depth(ix).saturating_add(preparing);
        if of_tenant >= self.limits.capacity_per_tenant {
            return Err(Refusal::TenantQueueFull { retry: estimate });
        }
        if self.calls.len().saturating_sub(self.in_flight) >= self.limits.capacity {
            return Err(Refusal::QueueFull { retry: self.pacer.pace() });
        }
        if now.mono.plus(estimate) > arrival.deadline {
            let kept = self.is_kept_from(arrival.class);
            return Err(if kept { Refusal::DayKept } else { Refusal::WaitTooLong { estimate } });
        }
        Ok(())
    }

    /// Whether a call that is sent again may wait: its caller has an answer in hand, which is
    /// better than a wait that will be in vain.
    fn readmit(&self, ix: TenantIx, arrival: &Arrival, now: Mono) -> Result<(), Refusal> {
        let held_until = self.tenants.find(ix).map(|tenant| tenant.holds.until(arrival.class));
        match held_until {
            Some(until) if until > arrival.deadline => {
                Err(Refusal::WaitTooLong { estimate: until.since(now) })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// How long a new call of this tenant and class, or of a new tenant, would wait, as things
    /// stand.
    pub(super) fn estimate(&self, ix: Option<TenantIx>, class: Class, now: Mono) -> Duration {
        let (slot, pace) = self.pace(now);
        let held_until = ix.and_then(|ix| self.tenants.find(ix)).map(|t| t.holds.until(class));
        let first = slot.max(held_until.unwrap_or_default().since(now));
        let ahead = u32::try_from(self.queue.ahead(ix, class)).unwrap_or(u32::MAX);
        first.saturating_add(pace.saturating_mul(ahead)).max(self.day_wait(ix, class))
    }

    /// The caller of a waiting or granted call has gone: nothing is spent on it.
    pub fn cancel(&mut self, id: CallId, now: Now) {
        let Some(call) = self.calls.remove(id) else { return };
        match call.stage {
            Stage::Preparing => self.one_less_preparing(call.tenant),
            Stage::Waiting(place) => {
                self.queue.remove(place);
            }
            Stage::Granted { held } => {
                self.held_released(held, now.mono);
                self.in_flight = self.in_flight.saturating_sub(1);
            }
            // what has left stays counted; its end is unknown
            Stage::InFlight { .. } => self.in_flight = self.in_flight.saturating_sub(1),
        }
        self.deadlines.remove(&(call.deadline, id));
        self.advance(now);
    }

    /// The bytes of a granted call leave now.
    pub fn sent(&mut self, id: CallId, now: Now) {
        let Some(call) = self.calls.find(id) else { return };
        let (ix, Stage::Granted { held }) = (call.tenant, call.stage) else { return };
        let held = self.held_sent(held, now.mono);
        self.set_stage(id, Stage::InFlight { held });
        if let Some(today) = self.today_mut(ix, now) {
            today.calls = today.calls.saturating_add(1);
        }
        if let Some(tenant) = self.tenants.find_mut(ix) {
            tenant.last_used = Some(now.unix);
        }
        self.advance(now);
    }

    /// The upstream's transport had the whole of a call at `at`, and its answer is not there yet.
    pub fn acknowledged(&mut self, id: CallId, at: Mono, now: Now) {
        let Some(call) = self.calls.find(id) else { return };
        let Stage::InFlight { held } = call.stage else { return };
        let held = self.held_acknowledged(held, at);
        self.set_stage(id, Stage::InFlight { held });
        self.advance(now);
    }

    pub(super) fn uncount(&mut self, day: Day, count: u32) {
        if count > 0 {
            self.commands.push_back(Command::Release { day, count });
        }
    }

    /// Refuses a call that waits or is being prepared.
    pub(super) fn refuse(&mut self, id: CallId, why: Refusal) {
        let Some(call) = self.calls.remove(id) else { return };
        match call.stage {
            Stage::Preparing => self.one_less_preparing(call.tenant),
            Stage::Waiting(place) => {
                self.queue.remove(place);
            }
            Stage::Granted { .. } | Stage::InFlight { .. } => return,
        }
        self.deadlines.remove(&(call.deadline, id));
        self.commands.push_back(Command::Refuse { call: id, why });
    }

    /// Does all that is due.
    pub(super) fn advance(&mut self, now: Now) {
        self.turn_day(now);
        self.end_holds(now.mono);
        self.look_alone(now);
        // one whose time is past is not granted; one whose time is now may be
        self.end_waits(|deadline| deadline < now.mono, now.mono);
        self.claim(now.mono);
        match self.stock(now.mono) {
            Stock::Spent => self.refuse_all(&Refusal::DaySpent),
            Stock::StoreFails => self.refuse_all(&Refusal::StoreUnavailable),
            Stock::InHand | Stock::Awaited => {}
        }
        if self.stop_at.is_some_and(|at| at <= now.mono) {
            self.refuse_all(&Refusal::Stopping);
        }
        self.look_at_day(now);
        while self.grant_one(now) {}
        self.end_waits(|deadline| deadline <= now.mono, now.mono);
        self.ask(now);
    }

    fn set_stage(&mut self, id: CallId, stage: Stage) {
        if let Some(call) = self.calls.find_mut(id) {
            call.stage = stage;
        }
    }

    /// Goes on to a new day. Calls under way may be counted by the upstream in either, and for a
    /// moment its clock and ours may differ on which it is.
    fn turn_day(&mut self, now: Now) {
        let refused_at = self.budget.refused_at();
        // with several instances the store's clock turns it
        if self.turnstile.is_none() && self.budget.roll(now.unix) {
            self.budget.owe(self.in_flight);
            let pause = refused_at.map_or(DAY_TURN_PAUSE, reopening_pause).max(DAY_TURN_PAUSE);
            self.pacer.close_until(now.mono.plus(pause));
        }
        let today = self.limits.day_reset.day_of(now.unix);
        if self.foreign.roll(today, self.limits.per_day) {
            self.tell_foreign_use();
        }
    }

    fn grant_one(&mut self, now: Now) -> bool {
        if self.grant_shared(now) {
            return true;
        }
        let may = self.may_send()
            && self.paces_itself()
            && self.pacer.ready_at() <= now.mono
            && self.opens_at().is_some_and(|at| at <= now.mono);
        if !may {
            return false;
        }
        let Some(day) = self.take_of_day(now.mono) else { return false };
        let open = self.ration.open(now.mono);
        let next = self.queue.pop(open);
        let Some((id, class)) = next.and_then(|id| Some((id, self.calls.find(id)?.class))) else {
            self.give_back(day, now.mono);
            return false;
        };
        self.ration.spend(class);
        self.look_at_day(now);
        let slot = self.pacer.take(now.mono);
        self.granted(id, Held::Slot { slot, day }, now);
        self.claim(now.mono);
        true
    }

    fn end_waits(&mut self, is_over: impl Fn(Mono) -> bool, now: Mono) {
        while let Some((deadline, id)) = self.deadlines.first().copied() {
            if !is_over(deadline) {
                break;
            }
            let Some(call) = self.calls.find(id).copied() else {
                self.deadlines.pop_first();
                continue;
            };
            let estimate = self.estimate(Some(call.tenant), call.class, now);
            self.refuse(id, self.expiry(call.tenant, call.class, estimate, now));
            // those that still wait for the token are to be heard in its stead
            if self.tenants.find(call.tenant).is_some_and(|t| t.readiness != Readiness::Ready) {
                self.demand(call.tenant, now);
            }
        }
    }

    fn refuse_all(&mut self, why: &Refusal) {
        let waiting: Vec<_> = self.deadlines.iter().map(|(_, id)| *id).collect();
        for id in waiting {
            self.refuse(id, why.clone());
        }
    }

    /// When [`Scheduler::handle_timeout`] is to be called, if ever.
    pub fn poll_timeout(&mut self) -> Option<Mono> {
        let expiry = self.deadlines.first().map(|(at, _)| *at);
        let stop = self.stop_at.filter(|_| !self.deadlines.is_empty());
        let grant = (self.may_send() && self.has_of_day())
            .then(|| self.opens_at())
            .flatten()
            .map(|opens_at| opens_at.max(self.pacer.ready_at()))
            .filter(|at| *at != Mono::NEVER);
        let retry = self.budget.retry_at();
        let held = self.held.first().map(|(until, _)| *until);
        [expiry, stop, grant, retry, held, self.ask_at()].into_iter().flatten().min()
    }
}
