//! How a history ends, and how long one call waits in it.

use std::time::Duration;

use super::{Class, Event, Health, How, Outcome, Readiness, Stage, TENANTS, World, name};

impl World {
    /// Everything turns good: whatever waits comes to its end, and the scheduler serves again.
    pub(in super::super) fn turn_good(&mut self) {
        self.apply(Event::Pause(false));
        self.answer_claims();
        for n in 0..TENANTS {
            self.apply(Event::Tenant(n, Some(Readiness::Ready), false, 1));
        }
        while self.nth(0, &[Stage::Preparing]).is_some() {
            self.apply(Event::Prepared(0));
        }
        while self.nth(0, &[Stage::InFlight]).is_some() {
            self.apply(Event::End(0, Outcome::Answered(Health::Good)));
        }
        self.serve(Duration::from_secs(120));
        assert!(self.calls.is_empty(), "left behind: {:?}", self.calls);
        assert!(self.scheduler.deadlines.is_empty() && self.scheduler.calls.len() == 0);
        // the next day
        self.serve(Duration::from_secs(90_000));
        let before = self.departed;
        self.apply(Event::Arrive {
            tenant: 0,
            class: Class::Interactive,
            how: How::Back,
            wait: 60_000,
        });
        self.serve(Duration::from_secs(60));
        assert_eq!(self.departed, before + 1, "a call of the next day does not leave");
    }

    /// The wait that the scheduler foresees for a new call.
    pub(in super::super) fn foreseen(&self, tenant: usize, class: Class) -> Duration {
        let ix = self.scheduler.tenants.ix(&name(tenant));
        self.scheduler.estimate(ix, class, self.now.mono)
    }

    /// Lets a new call arrive and serves until it leaves; how long that takes.
    pub(in super::super) fn departure(&mut self, tenant: usize, class: Class) -> Duration {
        let (arrived, departed) = (self.now.mono, self.log.len());
        let id = self.next;
        self.apply(Event::Arrive { tenant, class, how: How::Back, wait: 600_000 });
        self.serve(Duration::from_secs(120));
        let of = |left: &&super::Departure| left.call.number() == id;
        let left = self.log[departed..].iter().find(of).expect("it leaves");
        left.at.since(arrived)
    }
}
