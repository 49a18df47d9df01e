//! Errands keep the lane's pace and go before what nobody waits for.

use super::*;

impl World {
    fn errand(&mut self, id: u64, wait: Duration) {
        let deadline = self.now.mono.plus(wait);
        assert!(self.keeper.errand(&key(), id, deadline, self.now));
    }

    fn errand_ends(&mut self, id: u64, result: Option<RefreshResult>) {
        self.keeper.errand_ended(&key(), id, result, self.now);
    }
}

fn turn_of(id: u64) -> Command {
    Command::Errand { api_key: key(), id }
}

const RECEIVED: Option<RefreshResult> = Some(RefreshResult::Received { access_expires_at: None });

#[test]
fn an_errand_has_its_turn_without_any_tenant_and_rests_after_its_answer() {
    let mut world = World::new();
    world.errand(1, secs(60));
    world.errand(2, secs(50));
    assert_eq!(world.orders(), [], "what was before the start is not known: first a rest");
    assert_eq!(world.keeper.poll_timeout(), Some(Mono::new(secs(1))));
    world.pass(secs(1));
    assert_eq!(world.orders(), [turn_of(2)], "the one that can wait less long");
    world.pass(secs(5));
    assert_eq!(world.orders(), [], "one at a time");
    assert!(!world.keeper.is_settled());
    assert_eq!(world.keeper.lane(&key(), world.now).depth, 2);
    world.errand_ends(2, RECEIVED);
    world.pass(Duration::from_millis(999));
    assert_eq!(world.orders(), []);
    world.pass(Duration::from_millis(1));
    assert_eq!(world.orders(), [turn_of(1)]);
    world.errand_ends(1, None);
    assert!(world.keeper.is_settled());
    world.errand(3, secs(1));
    assert_eq!(world.orders(), [turn_of(3)], "nothing was asked, so there is no rest");
}

#[test]
fn a_person_goes_before_what_nobody_waits_for_and_among_callers_by_deadline() {
    let mut world = World::new();
    for n in 0..3 {
        world.load(n, None);
    }
    world.keeper.refresh_now(&tenant(0), world.now);
    world.demand(1, secs(30));
    world.demand(2, secs(90));
    world.errand(1, secs(60));
    let mut turns = Vec::new();
    for _ in 0..4 {
        world.pass(secs(1));
        match world.order() {
            Command::Begin { tenant, version } => {
                turns.push(tenant.as_str().to_owned());
                world.keeper.begun(&tenant, version, Write::Done(()), world.now);
                world.orders();
                let result = RefreshResult::Received { access_expires_at: None };
                world.keeper.refreshed(&tenant, version, result, world.now);
                world.orders();
            }
            Command::Errand { id, .. } => {
                turns.push("errand".to_owned());
                world.errand_ends(id, RECEIVED);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(turns, ["t1", "errand", "t2", "t0"]);
}

#[test]
fn trouble_that_an_errand_meets_is_the_lanes_and_a_refusal_of_it_is_not() {
    let mut world = World::new();
    world.pass(secs(1));
    world.errand(1, secs(60));
    assert_eq!(world.orders(), [turn_of(1)]);
    world.errand_ends(1, Some(RefreshResult::Trouble(Trouble::Unexpected)));
    world.errand(2, secs(60));
    world.pass(secs(1));
    assert_eq!(world.orders(), [turn_of(2)]);
    for n in 2..5 {
        world.errand_ends(n, Some(RefreshResult::Trouble(Trouble::TooManyRequests)));
        world.errand(n + 1, secs(60));
        world.pass(secs(60));
        assert_eq!(world.orders(), [turn_of(n + 1)]);
    }
    world.errand_ends(5, Some(RefreshResult::NotSent));
    world.errand(6, secs(60));
    world.pass(secs(5));
    assert_eq!(world.orders(), [], "the lane backs off");
    world.pass(secs(60));
    assert_eq!(world.orders(), [turn_of(6)]);
    world.errand_ends(6, Some(RefreshResult::InvalidGrant));
    world.errand(7, secs(60));
    world.pass(secs(1));
    assert_eq!(world.orders(), [turn_of(7)], "an answer heals the lane");
}

#[test]
fn errands_are_bounded_and_end_with_their_key_and_the_process() {
    let mut world = World::new();
    let deadline = world.now.mono.plus(secs(60));
    let taken = (0..1_000).filter(|id| world.keeper.errand(&key(), *id, deadline, world.now));
    assert_eq!(taken.count(), 256);
    world.keeper.remove_key(&key(), world.now);
    assert!(!world.keeper.errand(&key(), 2_000, deadline, world.now));
    world.keeper.put_key(&key(), world.now);
    world.pass(secs(60));
    assert_eq!(world.orders(), []);
    world.errand(2_001, secs(60));
    assert_eq!(world.orders(), [turn_of(2_001)]);
    world.errand(2_002, secs(60));
    world.keeper.drain();
    assert!(!world.keeper.errand(&key(), 2_003, deadline, world.now));
    world.errand_ends(2_001, RECEIVED);
    world.pass(secs(60));
    assert_eq!(world.orders(), []);
    assert!(world.keeper.is_settled());
}

#[test]
fn with_the_same_deadline_a_person_goes_before_a_caller() {
    let mut world = World::new();
    world.load(0, None);
    world.demand(0, secs(60));
    world.errand(1, secs(60));
    world.pass(secs(1));
    assert_eq!(world.order(), turn_of(1));
}

#[test]
fn an_errand_outlives_a_change_of_its_key_and_not_its_end() {
    let mut world = World::new();
    world.errand(1, secs(60));
    world.keeper.put_key(&key(), world.now);
    world.pass(secs(1));
    assert_eq!(world.order(), turn_of(1));
    world.errand_ends(1, RECEIVED);
    world.errand(2, secs(60));
    world.keeper.remove_key(&key(), world.now);
    assert_eq!(world.keeper.lane(&key(), world.now).depth, 0);
    world.keeper.put_key(&key(), world.now);
    world.pass(secs(5));
    assert_eq!(world.orders(), []);
}
