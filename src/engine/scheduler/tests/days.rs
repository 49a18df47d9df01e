//! Whole days in virtual time: what is left for whom, restarts, the turn, steps of the clock, and
//! changed limits. The store's count and the moments of departure are the judges.

use std::collections::BTreeMap;

use super::*;

const MIDNIGHT: u64 = 20_000 * 86_400;
const HOUR: Duration = Duration::from_secs(3_600);
const DAY_MS: u64 = 86_400_000;
const SPACING: Duration = Duration::from_millis(265);

/// Limits under which 50,000 calls may wait.
fn roomy() -> Limits {
    Limits { capacity: 100_000, capacity_per_tenant: 100_000, ..limits("4") }
}

impl World {
    /// Lets minutes pass, each begun by an interactive call of `tenant`, and returns how long each
    /// of those waited.
    fn minutes_with_screens(&mut self, tenant: &str, minutes: u32) -> Vec<Duration> {
        let mut arrived = BTreeMap::new();
        let from = self.served.len();
        for _ in 0..minutes {
            let call = self.call_of(tenant, Class::Interactive, 50_000).unwrap();
            arrived.insert(call, self.now.mono);
            self.serve(Duration::from_secs(60));
        }
        let served = self.served[from..].iter();
        let waits: Vec<_> = served
            .filter_map(|(at, call)| arrived.get(call).map(|since| at.since(*since)))
            .collect();
        assert_eq!(waits.len(), arrived.len(), "every interactive call left");
        waits
    }

    fn offer(&mut self, tenant: &str, class: Class, calls: u32) {
        for _ in 0..calls {
            self.call_of(tenant, class, 3 * DAY_MS).unwrap();
        }
    }

    /// Offers so many bulk calls in thousands, each thousand by a tenant of its own.
    fn offer_imports(&mut self, thousands: u32) {
        for import in 0..thousands {
            let tenant = format!("import-{import}");
            self.scheduler.set_tenant(&name(&tenant), &Readiness::Ready, false, 1, self.now);
            self.offer(&tenant, Class::Bulk, 1_000);
        }
    }

    fn served_from(&self, from: usize) -> u64 {
        u64::try_from(self.served.len() - from).unwrap()
    }

    /// The process is killed and starts again; what it held counted is lost.
    fn restart(&mut self, limits: Limits) {
        self.scheduler = Scheduler::new(limits, self.now);
        self.granted.clear();
        self.settle_commands();
        self.pass(Duration::from_secs(2));
    }
}

#[test]
fn a_day_full_of_bulk_serves_every_screen_and_is_used_to_the_end() {
    let mut world = World::starting_at(roomy(), MIDNIGHT).ready(&["screen"]);
    world.offer_imports(50);
    // the first two seconds are over
    let waits = world.minutes_with_screens("screen", 1_439);
    let longest = waits.iter().max().unwrap();
    assert!(*longest <= 2 * SPACING, "{longest:?}");
    world.serve(Duration::from_secs(57));
    let (served, counted) = (world.served_from(0), world.counted);
    assert!((9_950..=10_000).contains(&served), "{served}");
    assert!(counted <= 10_000, "{counted}");
    assert_eq!(world.day, DayReset::default().day_of(Unix::from_secs(MIDNIGHT)));
}

#[test]
fn bulk_alone_is_spread_and_the_morning_keeps_its_share() {
    let mut world = World::starting_at(roomy(), MIDNIGHT).ready(&[]);
    world.offer_imports(20);
    for quarter in 1..=4_u64 {
        world.serve((6 * HOUR).saturating_sub(Duration::from_millis(600)));
        let even = 10_000 * quarter / 4;
        let served = world.served_from(0);
        assert!((even - 400..=even).contains(&served), "{served} after {} hours", quarter * 6);
    }
}

#[test]
fn three_full_days_leave_nothing_over_and_nothing_behind() {
    let mut world = World::starting_at(roomy(), MIDNIGHT).ready(&["screen"]);
    world.offer_imports(40);
    for day in 0..3 {
        let from = world.served.len();
        // the pause at the turn is the one time when a screen waits longer
        let waits = world.minutes_with_screens("screen", 1_440);
        assert!(waits[1..].iter().max().unwrap() <= &(2 * SPACING), "day {day}");
        let served = world.served_from(from);
        assert!((9_950..=10_000).contains(&served), "day {day}: {served}");
    }
    assert_eq!(world.scheduler.snapshot(world.now).in_flight, 0);
    assert_eq!(world.scheduler.snapshot(world.now).depth[0], 0);
}

#[test]
fn ten_kills_in_a_day_never_bring_more_than_the_day() {
    let mut world = World::starting_at(roomy(), MIDNIGHT).ready(&[]);
    for kill in 0..10 {
        world.offer_imports(3);
        world.serve(HOUR * 2 + HOUR / 6 * (kill % 3));
        world.restart(roomy());
    }
    world.offer_imports(5);
    let until = DayReset::default().end_of(world.day).since(world.now.unix);
    world.serve(until.saturating_sub(Duration::from_secs(1)));
    let served = world.served_from(0);
    assert!(served <= world.counted && world.counted <= 10_000, "{served} of {}", world.counted);
    assert!(served >= 10_000 - 50 - 10 * 4, "each kill loses at most a window: {served}");
}

#[test]
fn normal_calls_leave_the_reserve_to_interactive_ones() {
    let mut world = World::starting_at(roomy(), MIDNIGHT + 43_200).ready(&["app", "screen"]);
    world.offer("app", Class::Normal, 10_000);
    world.serve(HOUR);
    // half of a tenth is kept at noon, and an hour of it has melted
    let served = world.served_from(0);
    assert!((9_480..=9_560).contains(&served), "{served}");
    let call = world.call_of("app", Class::Normal, 60_000);
    assert_eq!(call, Err(Refusal::DayKept));
    let before = world.served.len();
    world.call_of("screen", Class::Interactive, 60_000).unwrap();
    world.serve(Duration::from_secs(1));
    assert_eq!(world.served_from(before), 1);
}

#[test]
fn a_bulk_call_that_would_wait_for_hours_is_told_at_once() {
    let mut world = World::starting_at(roomy(), MIDNIGHT).ready(&["import"]);
    world.offer("import", Class::Bulk, 2_000);
    world.serve(Duration::from_secs(600));
    let Err(Refusal::WaitTooLong { estimate }) = world.call_of("import", Class::Bulk, 600_000)
    else {
        panic!("an import of hours fits no ten minutes");
    };
    world.offer("import", Class::Bulk, 1);
    let (asked_at, own) = (world.now.mono, CallId::new(world.calls - 1));
    world.serve(HOUR * 10);
    let left_at = world.served.iter().find(|(_, call)| *call == own).map(|(at, _)| *at);
    let waited = left_at.unwrap().since(asked_at);
    assert!(estimate.abs_diff(waited) < waited / 10, "{estimate:?} against {waited:?}");
    assert!(world.call_of("import", Class::Interactive, 1_000).is_ok());
}

#[test]
fn at_the_turn_nothing_leaves_for_two_seconds_and_then_at_the_usual_pace() {
    let mut world = World::starting_at(roomy(), MIDNIGHT - 10).ready(&["a", "b"]);
    world.serve(Duration::from_millis(7_900));
    world.offer("a", Class::Normal, 2_500);
    world.offer("b", Class::Normal, 2_500);
    let turn = Mono::new(Duration::from_secs(10));
    let moments = world.serve(Duration::from_secs(60));
    let after = moments.iter().filter(|at| **at >= turn);
    assert!(after.clone().min().unwrap().since(turn) >= Duration::from_secs(2));
    assert!(after.count() > 180);
    for five in moments.windows(5) {
        assert!(five[4].since(five[0]) >= Duration::from_millis(1_060));
    }
}

#[test]
fn a_day_that_the_upstream_called_spent_reopens_after_a_spread_pause() {
    let pauses = (0..5).map(|spent_at| {
        let mut world = World::starting_at(roomy(), MIDNIGHT - 60).ready(&["a"]);
        world.pass(Duration::from_secs(spent_at));
        let call = world.call("a", 30_000).unwrap();
        world.send(call, Outcome::QuotaExceeded);
        world.granted.clear();
        world.pass(Duration::from_secs(58 - spent_at));
        world.offer("a", Class::Normal, 500);
        let moments = world.serve(Duration::from_secs(60));
        for five in moments.windows(5) {
            assert!(five[4].since(five[0]) >= Duration::from_millis(1_060));
        }
        moments[0].since(Mono::new(Duration::from_secs(60)))
    });
    let pauses: Vec<Duration> = pauses.collect();
    let (shortest, longest) = (*pauses.iter().min().unwrap(), *pauses.iter().max().unwrap());
    assert!(shortest >= Duration::from_secs(2) && longest <= Duration::from_secs(31));
    assert!(longest > shortest + Duration::from_secs(5), "{pauses:?}");
}

#[test]
fn a_clock_that_steps_an_hour_neither_reopens_nor_freezes_the_day() {
    let mut world = World::starting_at(roomy(), MIDNIGHT + 3_600).ready(&["screen"]);
    world.offer_imports(20);
    world.serve(HOUR * 2);
    let before = world.counted;
    world.now.unix = world.now.unix.minus(2 * HOUR + HOUR / 2);
    world.serve(Duration::from_secs(1_200));
    assert!(world.counted >= before, "an earlier hour, or day, has no count of its own");
    let waits = world.minutes_with_screens("screen", 60);
    assert!(waits.iter().max().unwrap() <= &(2 * SPACING));
    world.now.unix = world.now.unix.plus(HOUR);
    let before = world.served.len();
    let moments = world.serve(Duration::from_secs(600));
    assert!(moments.len() < 150, "no burst: {}", moments.len());
    assert!(world.served_from(before) > 10, "no freeze");
    assert!(world.counted <= 10_000);
}

#[test]
fn changed_limits_keep_what_was_used() {
    let mut world = World::starting_at(roomy(), MIDNIGHT + 43_200).ready(&["a"]);
    world.offer("a", Class::Interactive, 2_000);
    world.serve(Duration::from_secs(600));
    assert_eq!(world.scheduler.snapshot(world.now).day_used, 2_000);
    let partner = Limits { per_day: 250_000, rate: "10".parse().unwrap(), ..roomy() };
    world.scheduler.reconfigure(partner, world.now);
    world.settle_commands();
    let snapshot = world.scheduler.snapshot(world.now);
    assert_eq!((snapshot.day_used, snapshot.day_remaining), (2_000, 248_000));
    world.scheduler.reconfigure(Limits { per_day: 2_000, ..roomy() }, world.now);
    world.settle_commands();
    // what the partner's block had counted already may still go
    world.offer("a", Class::Interactive, 1);
    world.serve(Duration::from_secs(60));
    let kept = Limits { per_day: 2_000, reserve: Reserve::from_percent(90).unwrap(), ..roomy() };
    world.scheduler.reconfigure(kept, world.now);
    let used = world.scheduler.snapshot(world.now).day_used;
    assert_eq!(used, 2_001);
    assert!(world.counted >= used, "never behind what left");
}

#[test]
fn a_larger_reserve_holds_bulk_at_once() {
    let mut world = World::starting_at(roomy(), MIDNIGHT).ready(&["import"]);
    world.offer("import", Class::Bulk, 5_000);
    world.serve(HOUR);
    let large = Limits { reserve: Reserve::from_percent(90).unwrap(), ..roomy() };
    world.scheduler.reconfigure(large, world.now);
    let before = world.served.len();
    world.serve(HOUR);
    let served = world.served_from(before);
    // 24 hours of a tenth are 42 calls an hour; what the new line lacks has to melt first
    assert!(served < 60, "{served}");
}

#[test]
fn operators_are_warned_once_when_the_day_will_not_last() {
    let mut world = World::starting_at(roomy(), MIDNIGHT).ready(&["a"]);
    for _ in 0..120 {
        for _ in 0..30 {
            world.call_of("a", Class::Interactive, 60_000).unwrap();
        }
        world.serve(Duration::from_secs(60));
    }
    let forecasts = std::mem::take(&mut world.forecasts);
    assert_eq!(forecasts.len(), 1, "{forecasts:?}");
    // 0.5 a second: spent after 20,000 s
    let outlook = world.scheduler.snapshot(world.now).day_outlook;
    let likely = outlook.exhausted_at.unwrap().since(Unix::from_secs(MIDNIGHT)).as_secs();
    assert!((19_000..21_000).contains(&likely), "{likely}");
    world.pass(HOUR * 8);
    assert_eq!(world.forecasts, [None], "and told once that it lasts after all");
}

#[test]
fn what_was_used_before_a_start_is_no_trend() {
    let mut world = World::starting_at(roomy(), MIDNIGHT + 43_200).ready(&["a"]);
    world.counted = 5_000;
    world.restart(roomy());
    world.pass(Duration::from_secs(600));
    assert_eq!(world.forecasts, []);
}

#[test]
fn paced_work_never_warns() {
    let mut world = World::starting_at(roomy(), MIDNIGHT).ready(&["screen"]);
    world.offer_imports(20);
    world.minutes_with_screens("screen", 1_200);
    assert_eq!(world.forecasts, []);
}

#[test]
fn a_day_that_turns_while_calls_wait_opens_a_new_count() {
    let mut world = World::new(Limits { per_day: 6, ..limits("4") }).ready(&["a"]);
    world.pass(Duration::from_secs(43_190));
    for _ in 0..4 {
        world.call("a", 60_000).unwrap();
    }
    assert_eq!(world.serve(Duration::from_secs(20)).len(), 4);
    for _ in 0..6 {
        world.call("a", 60_000).unwrap();
    }
    assert_eq!(world.serve(Duration::from_secs(20)).len(), 6);
    assert_eq!(world.call("a", 60_000), Err(Refusal::DaySpent));
    let day = DayReset::default().day_of(Unix::from_secs(NOON));
    assert!(world.scheduler.surrender().0 > Day::new(day.number()));
}
