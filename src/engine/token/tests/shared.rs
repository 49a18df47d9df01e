//! The lane is shared with other instances: it may be occupied, or be lost, and what was begun in
//! it may have been left open by somebody else.

use super::*;

impl World {
    fn begin(&mut self) -> (TenantName, u64) {
        let Command::Begin { tenant, version } = self.order() else { panic!("no intent") };
        (tenant, version)
    }

    fn occupied(&mut self, retry: Duration) {
        let (name, version) = self.begin();
        self.keeper.occupied(&name, version, retry, self.now);
    }
}

#[test]
fn an_occupied_lane_is_asked_for_again_without_alarm_and_without_growing_waits() {
    let mut world = World::with_life(secs(0));
    world.demand(0, secs(60));
    for _ in 0..20 {
        world.occupied(Duration::from_millis(300));
        assert_eq!(world.orders(), []);
        assert_eq!(world.readiness(0), Readiness::Waiting, "no trouble");
        world.pass(Duration::from_millis(299));
        assert_eq!(world.orders(), []);
        world.pass(Duration::from_millis(1));
    }
    assert_eq!(world.alarms, []);
    world.receive(0, 1);
    assert!(world.is_ready(0));
}

#[test]
fn a_retry_is_neither_at_once_nor_far() {
    let mut world = World::with_life(secs(0));
    world.demand(0, secs(600));
    world.occupied(Duration::ZERO);
    assert_eq!(world.orders(), [], "a store that says zero is not asked without end");
    world.pass(Duration::from_millis(20));
    world.occupied(secs(500));
    world.pass(secs(1));
    assert!(matches!(world.order(), Command::Begin { .. }), "it may be left early");
}

#[test]
fn at_each_try_the_most_urgent_goes_first() {
    let mut world = World::with_life(secs(0));
    world.load(1, None);
    world.keeper.refresh_now(&tenant(0), world.now);
    world.occupied(secs(1));
    world.demand(1, secs(30));
    world.pass(secs(1));
    world.receive(1, 1);
    world.pass(secs(1));
    world.receive(0, 1);
}

#[test]
fn somebody_who_was_served_elsewhere_meanwhile_asks_no_more() {
    let mut world = World::with_life(secs(0));
    world.demand(0, secs(30));
    world.occupied(secs(1));
    let known = Known { version: 2, ..world.known(Some(DAY)) };
    assert!(world.keeper.reserve(&tenant(0), world.now));
    world.keeper.put(&tenant(0), known, world.now);
    assert!(world.is_ready(0));
    world.pass(secs(60));
    assert_eq!(world.orders(), []);
}

#[test]
fn what_another_left_open_is_tried_once_and_its_end_is_told() {
    let mut world = World::with_life(secs(0));
    world.demand(0, secs(60));
    let (name, version) = world.begin();
    world.keeper.left_open(&name, version);
    world.keeper.begun(&name, version, Write::Done(()), world.now);
    assert!(matches!(world.order(), Command::Refresh { .. }));
    world.keeper.refreshed(&name, version, RefreshResult::InvalidGrant, world.now);
    assert!(matches!(world.order(), Command::Reread { .. }));
    let known = world.known(None);
    world.keeper.reread(&name, version, Read::Found(known), world.now);
    let Command::Fail { reason, .. } = world.order() else { panic!("no verdict") };
    assert!(reason.starts_with("the process stopped between"), "{reason}");
}

#[test]
fn tokens_over_whose_grant_the_store_had_lost_are_stored_at_once_when_it_is_there_again() {
    let mut world = World::with_life(secs(0));
    world.demand(0, secs(60));
    let access_expires_at = Some(world.now.unix.plus(DAY));
    world.exchange(0, RefreshResult::Received { access_expires_at });
    assert!(world.keeper.is_open(&tenant(0)), "the request is out and its end is not stored");
    let persist = Command::Persist { tenant: tenant(0), version: 1 };
    assert_eq!(world.order(), persist);
    for order in [Some(&persist), None] {
        world.keeper.persisted(&tenant(0), 1, Write::Conflict, world.now);
        assert!(matches!(world.order(), Command::Reread { .. }));
        let known = world.known(None);
        world.keeper.reread(&tenant(0), 1, Read::Found(known), world.now);
        assert_eq!(world.orders().first(), order, "at once, but once");
    }
    world.pass(secs(1));
    assert_eq!(world.order(), persist);
    world.keeper.persisted(&tenant(0), 1, Write::Done(2), world.now);
    assert!(world.is_ready(0) && !world.keeper.is_open(&tenant(0)));
}

#[test]
fn a_damaged_grant_is_left_alone_and_does_not_hold_the_others_up() {
    let mut world = World::with_life(secs(0));
    world.load(1, None);
    world.demand(0, secs(300));
    world.demand(1, secs(400));
    world.keeper.refresh_now(&tenant(0), world.now);
    let (name, version) = world.begin();
    assert_eq!(name, tenant(0));
    world.keeper.damaged(&name, version, world.now);
    world.receive(1, 1);
    assert_eq!(world.alarms, [Alarm::GrantNotRead]);
    assert!(matches!(world.readiness(0), Readiness::Failing { cause: Cause::Store, .. }));
    world.pass(secs(59));
    assert_eq!(world.orders(), []);
    world.pass(secs(1));
    world.receive(0, 1);
    assert!(world.is_ready(0), "somebody has put it right");
}

#[test]
fn a_lost_lane_sends_nothing_and_takes_the_intent_back() {
    let mut world = World::with_life(secs(0));
    world.demand(0, secs(60));
    world.exchange(0, RefreshResult::LaneLost);
    assert_eq!(world.order(), Command::Abort { tenant: tenant(0), version: 1 });
    world.keeper.aborted(&tenant(0), 1, Write::Done(()), world.now);
    assert_eq!((world.readiness(0), world.alarms.len()), (Readiness::Waiting, 0));
    world.pass(Duration::from_millis(999));
    assert_eq!(world.orders(), []);
    world.pass(Duration::from_millis(1));
    world.receive(0, 1);
}

#[test]
fn an_errand_that_finds_the_lane_occupied_waits_on_in_its_place() {
    let mut world = World::with_life(secs(0));
    let deadline = world.now.mono.plus(secs(60));
    assert!(world.keeper.errand(&key(), 1, deadline, world.now));
    let turn = |id| Command::Errand { api_key: key(), id };
    assert_eq!(world.order(), turn(1));
    world.demand(0, secs(30));
    world.keeper.errand_occupied(&key(), 1, Duration::from_millis(500), world.now);
    assert_eq!(world.orders(), []);
    assert_eq!(world.keeper.lane(&key(), world.now).depth, 2);
    world.pass(Duration::from_millis(500));
    world.receive(0, 1);
    world.pass(secs(1));
    assert_eq!(world.order(), turn(1));
    world.keeper.errand_occupied(&key(), 7, secs(1), world.now);
    assert!(!world.keeper.is_settled(), "another errand's word does not free the lane");
    world.keeper.drain();
    world.keeper.errand_occupied(&key(), 1, secs(1), world.now);
    world.pass(secs(60));
    assert_eq!(world.orders(), [], "nothing is begun any more");
    assert!(world.keeper.is_settled());
}
