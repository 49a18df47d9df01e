//! What must hold at every grant, and whenever the scheduler rests.

use super::{Call, CallId, Class, GUARD, Mono, Stage, Stock, WINDOW, World, name};

impl World {
    pub(super) fn granted(&mut self, id: CallId) {
        let now = self.now.mono;
        let call = *self.calls.get(&id).expect("a call that has gone is granted");
        assert_eq!(call.stage, Stage::Waiting, "granted twice, or before its body is there");
        assert!(now <= call.deadline, "granted after its time");
        assert!(self.open[call.tenant] && !self.paused, "granted though held");
        assert!(now >= self.closed_until, "granted while closed");
        let before = |other: &&Call| {
            (other.tenant, other.class) == (call.tenant, call.class) && other.order < call.order
        };
        let overtaken = self.calls.values().filter(before).find(|c| c.stage == Stage::Waiting);
        assert!(overtaken.is_none(), "{overtaken:?} was overtaken");
        let slots = self.slots();
        self.calls.insert(id, Call { stage: Stage::Granted, slots, ..call });
        let under_way = self.under_way();
        assert!(under_way <= self.limits.in_flight_max, "{under_way} in flight");
        let held = self.log.iter().filter(|left| left.free_at > now).count() + self.unsent();
        assert!(held <= self.slots(), "{held} slots are held of {}", self.slots());
        let unsent = u64::try_from(self.unsent()).unwrap();
        assert!(self.departed + unsent <= self.counted, "a call that the store did not count");
        let spacing = (WINDOW + GUARD + self.widened) / self.limits.rate.calls();
        self.spaced_until = now.plus(spacing);
    }

    pub(super) fn unsent(&self) -> usize {
        self.calls.values().filter(|call| call.stage == Stage::Granted).count()
    }

    fn under_way(&self) -> usize {
        let under_way = |call: &&Call| matches!(call.stage, Stage::Granted | Stage::InFlight);
        self.calls.values().filter(under_way).count()
    }

    /// Nothing waits that could go, and nobody waits whose time is past.
    pub(super) fn check(&mut self) {
        let now = self.now.mono;
        let waiting = self.calls.values().filter(|call| call.stage == Stage::Waiting);
        assert!(waiting.clone().all(|call| call.deadline > now), "one waits after its time");
        let held = |call: &Call| {
            let ix = self.scheduler.tenants.ix(&name(call.tenant));
            let tenant = ix.and_then(|ix| self.scheduler.tenants.find(ix));
            tenant.is_some_and(|tenant| tenant.holds.until(call.class) > now)
        };
        let shut = |call: &Call| self.scheduler.ration.opens_at(call.class) > now;
        let work = waiting.clone().any(|call| self.open[call.tenant] && !held(call) && !shut(call));
        let depth: usize = Class::ALL.map(|class| self.scheduler.queue.depth(class)).iter().sum();
        assert_eq!(depth, waiting.count(), "the queue holds what does not wait");
        assert_eq!(self.scheduler.in_flight, self.under_way(), "places in flight are lost");
        match self.scheduler.budget.stock(now) {
            Stock::InHand => {}
            Stock::Awaited => {
                let retries = self.scheduler.poll_timeout().is_some();
                assert!(retries || !self.claims.is_empty(), "the store is not asked");
                return;
            }
            Stock::StoreFails | Stock::Spent => return,
        }
        if !work || self.paused || self.under_way() >= self.limits.in_flight_max {
            return;
        }
        let Some(due) = self.due() else { return };
        assert!(now < due, "idle since {due:?}, now {now:?}");
        let wakes = self.scheduler.poll_timeout();
        assert!(wakes.is_some_and(|at| at <= due), "due {due:?}, wakes {wakes:?}");
    }

    /// When the next call can leave at the latest, if it waits for no other to leave.
    fn due(&self) -> Option<Mono> {
        let mut held: Vec<Mono> = self.log.iter().map(|left| left.free_at).collect();
        held.sort_unstable();
        let free = self.slots().checked_sub(self.unsent() + 1)?;
        let slot = held.iter().rev().nth(free).copied().unwrap_or_default();
        let closed = self.closed_until;
        Some(slot.max(closed).max(self.spaced_until))
    }
}
