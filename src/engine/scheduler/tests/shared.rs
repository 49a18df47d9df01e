//! The scheduler of one instance among several: what it says to the turnstile, and what it makes of
//! the slots that come.

use super::*;
use crate::engine::turnstile::{OnLoss, Report, Roll, Stamp, Told, Turn, Whose};

/// The store's clock when it first answers.
const START: u64 = 1_800_000_000_000_000;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl World {
    /// One of several instances, whose first question has been answered.
    fn sharing(tenants: &[&str]) -> Self {
        let limits = Limits { guard: Guard::Auto, ..limits("4") };
        let mut world = Self::new(limits);
        world.scheduler = Scheduler::new(limits, world.now).sharing(OnLoss::Refuse, world.now);
        world.settle_commands();
        let mut world = world.ready(tenants);
        world.settle_commands();
        world.answer(|_| {});
        world.read_roll();
        world
    }

    fn read_roll(&mut self) {
        self.scheduler.read_roll(Some(&Roll::default()), self.now);
        self.settle_commands();
    }

    /// The question under way.
    fn asked(&mut self) -> Ask {
        assert_eq!(self.asks.len(), 1, "one question at a time");
        self.asks.remove(0)
    }

    /// Answers the question under way.
    fn answer(&mut self, say: impl FnOnce(&mut Told)) -> Ask {
        let ask = self.asked();
        let at = u64::try_from(self.now.mono.since_start().as_micros()).unwrap();
        let mut told = Told {
            at: Stamp(START + at),
            begun: Stamp(START),
            ticket: 7,
            granted: None,
            day: Day::new(20_000),
            used: 100,
            spent: None,
            closed: Duration::ZERO,
            widened: Duration::ZERO,
            refused: 0,
            next: None,
            forgotten: false,
            sharers: 1,
        };
        say(&mut told);
        self.scheduler.told(Some(told), self.now);
        self.settle_commands();
        ask
    }

    fn answer_with_slot(&mut self, tenant: &str) -> Ask {
        let tenant = name(tenant);
        self.answer(|told| told.granted = Some((Class::Normal, tenant)))
    }

    fn no_answer(&mut self) {
        self.asked();
        self.scheduler.told(None, self.now);
        self.settle_commands();
    }

    fn line(ask: &Ask) -> Vec<(&str, u32)> {
        ask.line.iter().map(|place| (place.tenant.as_str(), place.count)).collect()
    }

    /// Answers all questions with nothing for a while; what was reported.
    fn reported(&mut self) -> Vec<Report> {
        let mut reports = Vec::new();
        while !self.asks.is_empty() {
            reports.extend(self.answer(|_| {}).reports);
        }
        reports
    }
}

#[test]
fn a_call_is_said_to_wait_at_once_and_others_of_its_tenant_with_the_next_question() {
    let mut world = World::sharing(&["a"]);
    let first = world.call("a", 30_000).unwrap();
    world.call("a", 30_000).unwrap();
    let ask = world.answer(|_| {});
    assert_eq!(World::line(&ask), [("a", 1)]);
    assert!(ask.wanted_until.is_some());
    assert!(world.asks.is_empty() && world.granted.is_empty(), "its turn has not come");
    world.scheduler.turn(Turn { whose: Whose::Mine, due: ms(20) }, world.now);
    world.pass(ms(20));
    let ask = world.answer_with_slot("a");
    assert_eq!(World::line(&ask), [("a", 2)]);
    assert_eq!(world.granted.len(), 1);
    assert_eq!(world.granted[0].1, first);
}

#[test]
fn a_slot_goes_to_the_tenant_that_it_is_for() {
    let mut world = World::sharing(&["a", "b"]);
    world.call("a", 30_000).unwrap();
    let second = world.call("b", 30_000).unwrap();
    world.answer(|_| {});
    world.answer_with_slot("b");
    assert_eq!(world.granted.last().unwrap().1, second);
}

#[test]
fn a_slot_for_a_tenant_that_left_serves_another_of_its_class_or_goes_back() {
    let mut world = World::sharing(&["a", "b"]);
    let left = world.call("a", 30_000).unwrap();
    world.answer(|_| {});
    let other = world.call("b", 30_000).unwrap();
    world.scheduler.cancel(left, world.now);
    world.settle_commands();
    world.answer_with_slot("a");
    assert_eq!(world.granted.last().unwrap().1, other);
    world.reported();

    let left = world.call("a", 30_000).unwrap();
    world.scheduler.cancel(left, world.now);
    world.settle_commands();
    world.answer_with_slot("a");
    assert_eq!(world.granted.len(), 1);
    let back = Report::Returned { ticket: 7, day: Day::new(20_000) };
    assert_eq!(world.reported(), [back]);
}

#[test]
fn a_slot_that_comes_late_goes_back() {
    let mut world = World::sharing(&["a"]);
    world.call("a", 30_000).unwrap();
    world.pass(ms(60));
    world.answer_with_slot("a");
    assert!(world.granted.is_empty());
    let back = Report::Returned { ticket: 7, day: Day::new(20_000) };
    assert_eq!(world.reported(), [back]);
}

#[test]
fn what_became_of_a_call_is_told_with_how_long_its_slot_is_held() {
    let mut world = World::sharing(&["a"]);
    let call = world.call("a", 30_000).unwrap();
    world.pass(ms(5));
    world.answer_with_slot("a");
    world.pass(ms(10));
    world.scheduler.sent(call, world.now);
    world.pass(ms(80));
    world.scheduler.settle(call, GOOD, world.now);
    world.settle_commands();
    let reports = world.reported();
    let [Report::Held { ticket: 7, hold, .. }, Report::Clean { .. }] = reports[..] else {
        panic!("{reports:?}");
    };
    // 15 ms from question to departure, the window, and 80 ms of which none is known to be normal
    assert_eq!(hold, ms(15 + 1_000 + 80 + 1));
}

#[test]
fn a_call_that_did_not_leave_gives_slot_and_count_back() {
    let mut world = World::sharing(&["a"]);
    let call = world.call("a", 30_000).unwrap();
    world.answer_with_slot("a");
    world.scheduler.cancel(call, world.now);
    world.settle_commands();
    let back = Report::Returned { ticket: 7, day: Day::new(20_000) };
    assert_eq!(world.reported(), [back]);
}

#[test]
fn a_refusal_is_told_to_all() {
    let mut world = World::sharing(&["a"]);
    let call = world.call("a", 30_000).unwrap();
    world.answer_with_slot("a");
    world.send(call, Outcome::Throttled);
    world.settle_commands();
    let reports = world.reported();
    assert!(reports.iter().any(|report| matches!(report, Report::Throttled { .. })), "{reports:?}");
}

#[test]
fn a_day_that_the_upstream_calls_spent_is_spent_for_all() {
    let mut world = World::sharing(&["a"]);
    world.call("a", 30_000).unwrap();
    world.answer(|told| told.spent = Some(Duration::from_secs(3_600)));
    assert_eq!(world.refused.last().unwrap().1, Refusal::DaySpent);
    assert_eq!(world.call("a", 30_000), Err(Refusal::DaySpent));
}

#[test]
fn calls_that_the_store_does_not_answer_for_are_refused_after_three_questions() {
    let mut world = World::sharing(&["a"]);
    world.call("a", 30_000).unwrap();
    for _ in 0..2 {
        world.no_answer();
        assert!(world.refused.is_empty());
        world.pass(ms(250));
    }
    world.no_answer();
    assert_eq!(world.refused.last().unwrap().1, Refusal::StoreUnavailable);
    world.pass(ms(250));
    world.answer(|_| {});
    world.call("a", 30_000).unwrap();
}

#[test]
fn what_was_said_is_said_again_to_a_store_that_did_not_answer() {
    let mut world = World::sharing(&["a"]);
    let call = world.call("a", 30_000).unwrap();
    world.answer_with_slot("a");
    world.scheduler.cancel(call, world.now);
    world.call("a", 30_000).unwrap();
    world.settle_commands();
    world.no_answer();
    world.pass(ms(250));
    let ask = world.answer(|_| {});
    assert_eq!((ask.again.len(), ask.reports.len()), (1, 0));
    assert!(ask.anew);
    assert_eq!(World::line(&ask), [("a", 1)]);
}

#[test]
fn an_instance_that_was_passed_over_says_anew_where_it_waits() {
    let mut world = World::sharing(&["a", "b"]);
    world.call("a", 30_000).unwrap();
    world.answer(|_| {});
    world.call("b", 30_000).unwrap();
    world.answer(|told| told.forgotten = true);
    let ask = world.answer(|_| {});
    assert!(ask.anew);
    assert_eq!(World::line(&ask), [("a", 1), ("b", 1)]);
}

#[test]
fn a_held_api_key_has_nobody_waiting() {
    let mut world = World::sharing(&["a"]);
    world.call("a", 30_000).unwrap();
    world.answer(|_| {});
    world.scheduler.pause();
    world.pass(ms(500));
    let ask = world.answer(|_| {});
    assert_eq!((World::line(&ask), ask.wanted_until), (vec![("a", 0)], None));
    world.scheduler.resume(world.now);
    world.settle_commands();
    assert_eq!(World::line(&world.answer(|_| {})), [("a", 1)]);
}

#[test]
fn a_removed_tenant_waits_nowhere() {
    let mut world = World::sharing(&["a"]);
    world.call("a", 30_000).unwrap();
    world.answer(|_| {});
    world.scheduler.remove_tenant(&name("a"), world.now);
    world.settle_commands();
    assert_eq!(World::line(&world.answer(|_| {})), [("a", 0)]);
}

#[test]
fn the_estimate_counts_the_instances_that_share() {
    let mut world = World::sharing(&["a"]);
    for _ in 0..8 {
        world.call("a", 60_000).unwrap();
    }
    world.answer(|told| told.sharers = 3);
    let alone = Duration::from_millis(250);
    let estimate = world.scheduler.snapshot(world.now).estimated_wait[1];
    assert!(estimate >= alone * 3 && estimate <= alone * 3 * 9, "{estimate:?}");
}
