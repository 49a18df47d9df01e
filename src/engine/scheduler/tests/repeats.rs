//! Repeats keep their place, and what happens at the edges: removed tenants, the turn of the day,
//! late answers.

use super::*;

impl World {
    fn again(&mut self, tenant: &str, first: CallId) -> CallId {
        let arrival = Arrival {
            tenant: name(tenant),
            class: Class::Normal,
            deadline: self.now.mono.plus(Duration::from_secs(60)),
            entry: Entry::Again { first },
        };
        self.enqueue(&arrival).unwrap()
    }

    fn grants(&self) -> Vec<CallId> {
        self.granted.iter().map(|(_, id)| *id).collect()
    }

    /// Takes the grants that come in `span`, without sending.
    fn granted_within(&mut self, span: Duration) -> Vec<CallId> {
        self.granted.clear();
        self.pass(span);
        self.grants()
    }
}

#[test]
fn repeats_leave_in_the_order_of_the_first_tries() {
    let mut world = World::new(limits("4")).ready(&["a"]);
    let calls: Vec<_> = (0..4).map(|_| world.call("a", 60_000).unwrap()).collect();
    assert_eq!(world.granted_within(Duration::from_secs(1)).len(), 3);
    world.scheduler.token_refused(&name("a"), world.now);
    let mut again = Vec::new();
    for call in &calls {
        world.send(*call, Outcome::Answered(Health::Error));
        again.push(world.again("a", *call));
    }
    world.scheduler.set_tenant(&name("a"), &Readiness::Ready, false, 1, world.now);
    assert_eq!(world.granted_within(Duration::from_secs(4)), again);
}

#[test]
fn a_removed_tenant_takes_its_unprepared_calls_along() {
    let mut world = World::new(limits("4")).ready(&["a"]);
    let slow = Arrival {
        tenant: name("a"),
        class: Class::Normal,
        deadline: world.now.mono.plus(Duration::from_secs(30)),
        entry: Entry::WhenPrepared,
    };
    let slow = world.enqueue(&slow).unwrap();
    world.scheduler.remove_tenant(&name("a"), world.now);
    world.settle_commands();
    assert_eq!(world.refused, [(slow, Refusal::TenantRemoved)]);
    let mut world = world.ready(&["b"]);
    world.scheduler.prepared(slow, world.now);
    assert_eq!(world.scheduler.tenant(&name("b"), world.now).unwrap().queue_depth, 0);
}

#[test]
fn an_answer_to_an_earlier_call_does_not_reopen_a_spent_day() {
    let mut world = World::new(limits("4")).ready(&["a"]);
    let (early, late) = (world.call("a", 60_000).unwrap(), world.call("a", 60_000).unwrap());
    world.scheduler.sent(early, world.now);
    world.pass(Duration::from_secs(1));
    world.send(late, Outcome::QuotaExceeded);
    world.scheduler.settle(early, GOOD, world.now);
    assert_eq!(world.call("a", 60_000), Err(Refusal::DaySpent));
}

#[test]
fn a_probe_whose_caller_leaves_asked_nobody() {
    let mut world = World::new(limits("4")).ready(&["a"]);
    let first = world.call("a", 60_000).unwrap();
    world.send(first, Outcome::QuotaExceeded);
    world.pass(Duration::from_secs(3_600));
    let probe = world.call("a", 60_000).unwrap();
    world.scheduler.cancel(probe, world.now);
    assert!(world.call("a", 60_000).is_ok(), "the next call may ask");
}

#[test]
fn a_spent_day_said_at_its_very_beginning_is_asked_again_soon() {
    let mut world = World::new(limits("4")).ready(&["a"]);
    world.pass(Duration::from_secs(43_200));
    let first = world.call("a", 60_000).unwrap();
    world.pass(Duration::from_secs(2));
    world.send(first, Outcome::QuotaExceeded);
    assert_eq!(world.call("a", 60_000), Err(Refusal::DaySpent));
    world.pass(Duration::from_secs(10));
    assert!(world.call("a", 60_000).is_ok());
}

#[test]
fn a_call_under_way_when_the_day_turns_counts_in_both() {
    let mut world = World::new(limits("4")).ready(&["a"]);
    world.pass(Duration::from_secs(43_190));
    let call = world.call("a", 60_000).unwrap();
    world.scheduler.sent(call, world.now);
    world.pass(Duration::from_secs(12));
    world.scheduler.settle(call, GOOD, world.now);
    assert_eq!(world.scheduler.snapshot(world.now).day_used, 1);
}

#[test]
fn when_the_first_waiter_gives_up_the_next_asks_for_the_token() {
    let mut world = World::new(limits("4"));
    world.scheduler.set_tenant(&name("a"), &Readiness::Waiting, false, 1, world.now);
    world.call("a", 5_000).unwrap();
    world.call("a", 30_000).unwrap();
    assert_eq!(world.demanded.len(), 1);
    world.pass(Duration::from_secs(6));
    assert_eq!(world.demanded.len(), 2, "the second call's wish is passed on");
}

#[test]
fn after_the_surrender_nothing_more_is_counted() {
    let mut world = World::new(limits("4")).ready(&["a"]);
    let (_, in_hand) = world.scheduler.surrender();
    assert_eq!((in_hand, world.counted), (4, 4));
    world.scheduler.snapshot(world.now);
    world.settle_commands();
    assert_eq!(world.counted, 4);
}

#[test]
fn an_edge_that_refuses_many_at_once_pauses_once() {
    let mut world = World::new(limits("10")).ready(&["a"]);
    let calls: Vec<_> = (0..6).map(|_| world.call("a", 60_000).unwrap()).collect();
    world.pass(Duration::from_secs(1));
    for call in calls {
        world.send(call, Outcome::Edge);
    }
    world.granted.clear();
    let next = world.call("a", 60_000).unwrap();
    assert_eq!(world.granted_within(Duration::from_millis(1_500)), [next]);
}
