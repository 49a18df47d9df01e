//! Exact edges: of time, of room, and of what is told to whom.

use super::*;

const MIN: Duration = Duration::from_secs(60);
const SPACING: Duration = Duration::from_millis(265);

impl World {
    fn unprepared(&mut self, tenant: &str, wait: Duration) -> Result<CallId, Refusal> {
        self.enqueue(&Arrival {
            tenant: name(tenant),
            class: Class::Normal,
            deadline: self.now.mono.plus(wait),
            entry: Entry::WhenPrepared,
        })
    }

    fn set(&mut self, tenant: &str, readiness: &Readiness) {
        self.scheduler.set_tenant(&name(tenant), readiness, false, 1, self.now);
        self.settle_commands();
    }

    fn wakes_after(&mut self) -> Option<Duration> {
        self.scheduler.poll_timeout().map(|at| at.since(self.now.mono))
    }
}

#[test]
fn a_call_may_go_at_the_very_end_of_its_wait() {
    let mut world = World::new(limits("4")).ready(&["a"]);
    world.call("a", 0).unwrap();
    let last = world.call("a", 265).unwrap();
    world.pass(SPACING);
    assert_eq!(world.granted.last(), Some(&(world.now.mono, last)));
    assert_eq!(world.refused, []);
}

#[test]
fn a_body_that_comes_too_late_for_its_turn_is_told() {
    let mut world = World::new(limits("4")).ready(&["a"]);
    let in_time = world.unprepared("a", MIN).unwrap();
    let late = world.unprepared("a", MIN + SPACING / 2).unwrap();
    world.step_to(world.now.mono.plus(MIN));
    world.scheduler.prepared(in_time, world.now);
    world.scheduler.prepared(late, world.now);
    world.settle_commands();
    assert_eq!(world.granted.pop().map(|(_, id)| id), Some(in_time), "at the end of its wait");
    let estimate = SPACING;
    assert_eq!(world.refused, [(late, Refusal::WaitTooLong { estimate })]);
}

#[test]
fn a_body_that_is_awaited_takes_its_tenants_room_until_it_is_there_or_given_up() {
    let mut world = World::new(Limits { capacity_per_tenant: 1, ..limits("4") }).ready(&["a", "b"]);
    let full =
        |world: &mut World| matches!(world.call("a", 60_000), Err(Refusal::TenantQueueFull { .. }));
    let given_up = world.unprepared("a", MIN).unwrap();
    assert!(full(&mut world));
    world.scheduler.cancel(given_up, world.now);
    let expires = world.unprepared("a", MIN).unwrap();
    assert!(full(&mut world));
    world.pass(MIN);
    assert_eq!(world.refused.pop().map(|(id, _)| id), Some(expires));
    let comes = world.unprepared("a", MIN).unwrap();
    assert!(full(&mut world));
    world.scheduler.prepared(comes, world.now);
    world.settle_commands();
    assert!(world.call("a", 60_000).is_ok());
}

#[test]
fn a_failing_endpoint_lets_those_wait_who_can_outlive_it() {
    let mut world = World::new(limits("4")).ready(&[]);
    let retry_at = world.now.mono.plus(MIN);
    world.set("a", &Readiness::Failing { retry_at });
    let why = Refusal::TokenUnavailable { retry: MIN };
    assert_eq!(world.call("a", 60_000), Err(why));
    assert!(world.call("a", 60_001).is_ok());
}

#[test]
fn a_repeat_waits_for_the_end_of_a_pause_when_it_may() {
    let mut world = World::new(limits("4")).ready(&["a"]);
    let first = world.call_of("a", Class::Bulk, 60_000).unwrap();
    world.send(first, Outcome::Capped);
    let ends = world.scheduler.poll_timeout().unwrap();
    let again = |deadline| Arrival {
        tenant: name("a"),
        class: Class::Bulk,
        deadline,
        entry: Entry::Again { first },
    };
    let short = again(ends.minus(Duration::from_nanos(1)));
    assert!(matches!(world.enqueue(&short), Err(Refusal::WaitTooLong { .. })));
    let again = world.enqueue(&again(ends)).unwrap();
    world.pass(ends.since(world.now.mono));
    assert_eq!(world.granted.last(), Some(&(ends, again)));
}

#[test]
fn no_more_calls_are_under_way_than_may_be() {
    let mut world = World::new(Limits { in_flight_max: 2, ..limits("4") }).ready(&["a"]);
    let first = world.call("a", 60_000).unwrap();
    for _ in 0..2 {
        world.call("a", 60_000).unwrap();
    }
    world.pass(SPACING * 4);
    assert_eq!(world.granted.len(), 2);
    assert_eq!(
        world.wakes_after(),
        Some(MIN.saturating_sub(SPACING * 4)),
        "for the end of its wait alone"
    );
    world.send(first, GOOD);
    world.pass(SPACING * 4);
    assert_eq!(world.granted.len(), 3);
}

#[test]
fn a_key_that_is_held_lets_nothing_go_and_sleeps() {
    let mut world = World::new(limits("4")).ready(&["a"]);
    world.scheduler.pause();
    assert!(world.scheduler.snapshot(world.now).paused);
    let call = world.call("a", 60_000).unwrap();
    assert_eq!((world.granted.len(), world.wakes_after()), (0, Some(MIN)));
    world.scheduler.stop(world.now.mono.plus(SPACING), world.now);
    assert_eq!(world.wakes_after(), Some(SPACING), "then its calls are refused");
    world.scheduler.resume(world.now);
    world.settle_commands();
    assert_eq!(world.granted, [(world.now.mono, call)]);
    assert_eq!(world.wakes_after(), None, "nobody waits for the stop");
}

#[test]
fn while_the_store_is_asked_nothing_is_due() {
    let now = Now { mono: Mono::default(), unix: Unix::from_secs(NOON) };
    let mut scheduler = Scheduler::new(limits("4"), now);
    scheduler.set_tenant(&name("a"), &Readiness::Ready, false, 1, now);
    let deadline = now.mono.plus(MIN);
    let arrival = Arrival { tenant: name("a"), class: Class::Normal, deadline, entry: Entry::Back };
    scheduler.enqueue(CallId::new(0), &arrival, now).unwrap();
    assert_eq!(scheduler.poll_timeout(), Some(deadline));
}

#[test]
fn a_call_that_is_given_back_stays_counted_while_there_is_room_for_it() {
    let mut world = World::new(limits("4")).ready(&["a"]);
    let call = world.call("a", 60_000).unwrap();
    world.scheduler.cancel(call, world.now);
    assert_eq!(world.scheduler.poll_command(), None);
    let calls = [(); 3].map(|()| world.call("a", 60_000).unwrap());
    world.pass(SPACING * 2);
    for call in calls {
        world.scheduler.cancel(call, world.now);
    }
    let day = DayReset::default().day_of(world.now.unix);
    assert_eq!(world.scheduler.poll_command(), Some(Command::Release { day, count: 1 }));
}

#[test]
fn an_unprepared_call_that_expires_repeats_no_demand() {
    let mut world = World::new(limits("4"));
    world.set("a", &Readiness::Waiting);
    world.call("a", 60_000).unwrap();
    world.unprepared("a", MIN / 2).unwrap();
    world.pass(MIN / 2);
    assert_eq!((world.refused.len(), world.demanded.len()), (1, 1));
}

#[test]
fn a_tenant_that_comes_back_is_a_new_one() {
    let mut world = World::new(limits("4")).ready(&["a"]);
    world.scheduler.remove_tenant(&name("a"), world.now);
    assert_eq!(world.scheduler.tenant(&name("a"), world.now), None);
    let call = world.call("a", 60_000).unwrap();
    assert_eq!((world.granted.len(), world.demanded.len()), (0, 1));
    world.set("a", &Readiness::Ready);
    assert_eq!(world.granted.pop().map(|(_, id)| id), Some(call));
}

#[test]
fn a_grant_tells_what_of_its_wait_was_for_the_token() {
    let mut world = World::new(limits("4"));
    world.set("a", &Readiness::Waiting);
    let call = world.call("a", 60_000).unwrap();
    world.pass(MIN / 2);
    world.scheduler.set_tenant(&name("a"), &Readiness::Ready, false, 1, world.now);
    let for_token = MIN / 2;
    let grant = Command::Grant { call, waited: MIN / 2, for_token, until: Mono::NEVER };
    assert_eq!(world.scheduler.poll_command(), Some(grant));
}

#[test]
fn an_operator_sees_the_key_and_each_tenant() {
    let mut world = World::new(limits("4")).ready(&["a", "b"]);
    for _ in 0..2 {
        world.call("a", 60_000).unwrap();
    }
    let first = world.granted[0].1;
    world.send(first, Outcome::Answered(Health::Error));
    world.scheduler.pause();
    world.pass(MIN / 2);
    let seen = world.scheduler.snapshot(world.now);
    assert_eq!((seen.depth, seen.oldest_wait), ([0, 1, 0], MIN / 2));
    let resets_at = Unix::from_secs(NOON + 43_200);
    assert_eq!(world.scheduler.day(world.now), (9_999, resets_at));
    let seen = world.scheduler.tenant_snapshots(world.now);
    let of = |tenant| seen.iter().find(|seen| seen.tenant == name(tenant)).unwrap();
    assert_eq!((seen.len(), of("a").calls_today, of("a").errors_today), (2, 1, 1));
    assert_eq!((of("a").queue_depth, of("b").calls_today), (1, 0));
    world.pass(Duration::from_secs(43_200));
    assert_eq!(world.scheduler.tenant(&name("a"), world.now).unwrap().calls_today, 0);
}

#[test]
fn proxies_that_are_refused_together_do_not_come_back_together() {
    let pause = |seed| {
        let mut world = World::new(limits("4"));
        world.scheduler = Scheduler::new(limits("4"), world.now).seeded(seed);
        world.settle_commands();
        let mut world = world.ready(&["a"]);
        world.pass(MIN);
        let call = world.call("a", 60_000).unwrap();
        world.send(call, Outcome::Edge);
        world.scheduler.edge.until()
    };
    assert_eq!(pause(1), pause(1));
    assert_ne!(pause(1), pause(2));
}

#[test]
fn the_forecast_is_looked_at_once_a_minute() {
    let mut world = World::new(limits("4")).ready(&["a"]);
    for _ in 0..300 {
        world.call_of("a", Class::Interactive, 120_000).unwrap();
    }
    let nearly = Mono::new(MIN).minus(Duration::from_nanos(1));
    world.serve(nearly.since(world.now.mono));
    world.scheduler.handle_timeout(world.now);
    world.settle_commands();
    assert_eq!(world.forecasts, []);
    world.pass(Duration::from_nanos(1));
    assert_eq!(world.forecasts.len(), 1);
}

#[test]
fn a_call_that_waited_in_vain_is_told_whether_the_day_held_it() {
    let mut world = World::new(Limits { per_day: 100, ..limits("4") }).ready(&["a"]);
    for _ in 0..60 {
        world.call_of("a", Class::Interactive, 60_000).unwrap();
    }
    world.serve(MIN);
    world.scheduler.pause();
    world.call("a", 60_000).unwrap();
    world.pass(MIN);
    let why = world.refused.pop().map(|(_, why)| why);
    assert!(matches!(why, Some(Refusal::WaitExpired { .. })), "{why:?}");
    world.call("a", 60_000).unwrap();
    let reserve = Reserve::from_percent(90).unwrap();
    world.scheduler.reconfigure(Limits { per_day: 100, reserve, ..limits("4") }, world.now);
    world.pass(MIN);
    assert_eq!(world.refused.pop().map(|(_, why)| why), Some(Refusal::DayKept));
}

#[test]
fn bulk_counts_the_normal_calls_that_wait_only_when_the_day_paces_both() {
    let mut world = World::new(Limits { per_day: 100, ..limits("4") }).ready(&["a"]);
    for _ in 0..60 {
        world.call_of("a", Class::Interactive, 60_000).unwrap();
    }
    world.serve(MIN);
    world.scheduler.pause();
    for (class, calls) in [(Class::Bulk, 10), (Class::Normal, 6)] {
        for _ in 0..calls {
            world.call_of("a", class, 86_400_000).unwrap();
        }
    }
    let ix = world.scheduler.tenants.ix(&name("a"));
    let wait = |world: &World| world.scheduler.day_wait(ix, Class::Bulk);
    assert_eq!(wait(&world), world.scheduler.ration.wait(Class::Bulk, 11));
    let reserve = Reserve::from_percent(90).unwrap();
    world.scheduler.reconfigure(Limits { per_day: 100, reserve, ..limits("4") }, world.now);
    assert_eq!(wait(&world), world.scheduler.ration.wait(Class::Bulk, 17));
    assert_ne!(wait(&world), world.scheduler.ration.wait(Class::Bulk, 11));
}

#[test]
fn an_acknowledged_call_lets_the_next_go_before_its_answer_is_there() {
    let mut world = World::new(Limits { guard: Guard::Auto, ..limits("1") }).ready(&["a"]);
    let first = world.call("a", 60_000).unwrap();
    world.scheduler.sent(first, world.now);
    world.call("a", 60_000).unwrap();
    assert_eq!(world.wakes_after(), Some(Duration::from_millis(1_401)));
    let at = world.now.mono.plus(Duration::from_millis(20));
    world.scheduler.acknowledged(first, at, world.now);
    assert_eq!(world.wakes_after(), Some(Duration::from_millis(1_021)));
}
