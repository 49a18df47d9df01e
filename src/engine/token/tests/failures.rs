//! What the keeper does when the endpoint, the network or the store fails.

use super::*;

#[test]
fn endpoint_trouble_backs_off_and_lets_a_living_token_serve_to_its_end() {
    let mut world = World::with_life(secs(200));
    world.demand(0, secs(30));
    world.exchange(0, RefreshResult::Trouble(Trouble::Blocked));
    assert_eq!(world.order(), Command::Abort { tenant: tenant(0), version: 1 });
    world.keeper.aborted(&tenant(0), 1, Write::Done(()), world.now);
    assert!(world.is_ready(0), "200 s of life are enough while the endpoint fails");
    let mut waits = Vec::new();
    for _ in 0..9 {
        let begun = world.now.mono;
        for _ in 0..1_000 {
            world.pass(Duration::from_millis(100));
            let orders = world.orders();
            if orders.iter().any(|order| matches!(order, Command::Begin { .. })) {
                break;
            }
        }
        waits.push(world.now.mono.since(begun).as_secs());
        world.keeper.begun(&tenant(0), 1, Write::Done(()), world.now);
        world.orders();
        let result = RefreshResult::Trouble(Trouble::TooManyRequests);
        world.keeper.refreshed(&tenant(0), 1, result, world.now);
        world.orders();
        world.keeper.aborted(&tenant(0), 1, Write::Failed, world.now);
    }
    assert!(waits.is_sorted() && waits[0] <= 1 && (54..=60).contains(&waits[8]), "{waits:?}");
    let Readiness::Failing { cause, .. } = world.readiness(0) else { panic!("{waits:?}") };
    assert_eq!(cause, Cause::Endpoint(Trouble::TooManyRequests));
}

#[test]
fn a_refused_refresh_token_is_final() {
    let mut world = World::with_life(secs(0));
    world.demand(0, secs(30));
    let reason = world.refuse(0);
    assert!(reason.contains("no longer accepts"), "{reason}");
    world.keeper.failed(&tenant(0), 1, Write::Failed, world.now);
    assert_eq!(world.orders(), []);
    assert_eq!(world.alarms, [Alarm::VerdictNotStored]);
    world.pass(secs(1));
    assert!(matches!(world.order(), Command::Fail { .. }));
    world.keeper.failed(&tenant(0), 1, Write::Done(()), world.now);
    world.demand(0, secs(30));
    world.keeper.rejected(&tenant(0), 1, world.now);
    assert!(!world.keeper.refresh_now(&tenant(0), world.now));
    world.pass(secs(10_000));
    assert_eq!(world.orders(), []);
    assert!(matches!(world.readiness(0), Readiness::NeedsAuthorization { .. }));
}

#[test]
fn a_refused_token_is_forgiven_when_somebody_else_has_stored_a_newer_one() {
    let mut world = World::with_life(secs(0));
    world.demand(0, secs(30));
    world.exchange(0, RefreshResult::InvalidGrant);
    assert!(matches!(world.order(), Command::Reread { .. }));
    let newer = Known { version: 5, ..world.known(Some(DAY)) };
    world.keeper.reread(&tenant(0), 1, Read::Found(newer), world.now);
    assert_eq!(world.orders(), []);
    assert!(world.is_ready(0));
}

#[test]
fn a_lost_answer_is_repeated_once_and_promptly() {
    let mut world = World::with_life(secs(0));
    world.load(1, None);
    world.demand(0, secs(30));
    world.exchange(0, RefreshResult::Lost);
    world.demand(1, secs(1));
    assert_eq!(world.orders(), []);
    world.pass(secs(1));
    let reason = world.refuse(0);
    assert!(reason.starts_with("the answer to a refresh was lost"), "{reason}");
}

#[test]
fn two_lost_answers_leave_the_tenant_alone_until_the_next_answer_is_decisive() {
    let mut world = World::with_life(secs(0));
    world.demand(0, secs(30));
    world.exchange(0, RefreshResult::Lost);
    world.pass(secs(1));
    world.exchange(0, RefreshResult::Lost);
    world.demand(0, secs(5_000));
    world.pass(secs(59));
    assert_eq!(world.orders(), []);
    assert!(matches!(world.readiness(0), Readiness::Failing { cause: Cause::AnswerLost, .. }));
    world.pass(secs(1));
    world.receive(0, 1);
    assert!(world.is_ready(0));
}

#[test]
fn a_repeat_that_did_not_leave_keeps_the_journalled_intent() {
    let mut world = World::with_life(secs(0));
    world.demand(0, secs(30));
    world.exchange(0, RefreshResult::Lost);
    world.pass(secs(1));
    world.exchange(0, RefreshResult::NotSent);
    assert_eq!(world.orders(), [], "no abort: the first request is still in doubt");
    world.pass(secs(10));
    world.receive(0, 1);
}

#[test]
fn a_grant_found_in_doubt_at_the_start_is_tried_once_and_serves_meanwhile() {
    let mut world = World::new();
    let known = Known { refresh_begun: true, ..world.known(Some(secs(5_000))) };
    world.keeper.put(&tenant(0), known, world.now);
    assert!(world.is_ready(0));
    world.pass(secs(1));
    let reason = world.refuse(0);
    assert!(reason.starts_with("the process stopped between"), "{reason}");
}

#[test]
fn without_a_durable_intent_nothing_is_sent_and_living_tokens_serve() {
    let mut world = World::with_life(secs(200));
    world.load(1, None);
    for n in [1, 0] {
        world.demand(n, secs(30));
    }
    assert!(matches!(world.order(), Command::Begin { .. }));
    world.keeper.begun(&tenant(1), 1, Write::Failed, world.now);
    assert_eq!(world.orders(), []);
    assert!(world.is_ready(0));
    assert!(matches!(world.readiness(1), Readiness::Failing { cause: Cause::Store, .. }));
    world.pass(secs(1));
    assert!(matches!(world.order(), Command::Begin { .. }));
}

#[test]
fn received_tokens_are_written_again_until_the_store_takes_them() {
    let mut world = World::with_life(secs(0));
    world.demand(0, secs(30));
    let access_expires_at = Some(world.now.unix.plus(DAY));
    world.exchange(0, RefreshResult::Received { access_expires_at });
    for _ in 0..50 {
        assert_eq!(world.order(), Command::Persist { tenant: tenant(0), version: 1 });
        world.keeper.persisted(&tenant(0), 1, Write::Failed, world.now);
        assert_eq!(world.orders(), []);
        assert!(world.is_ready(0), "the access token serves meanwhile");
        world.pass(secs(1));
    }
    assert_eq!(world.alarms.len(), 6, "after 1, 2, 4, 8, 16 and 32 failures");
    assert_eq!(world.order(), Command::Persist { tenant: tenant(0), version: 1 });
    world.keeper.persisted(&tenant(0), 1, Write::Conflict, world.now);
    assert_eq!(world.order(), Command::Reread { tenant: tenant(0), version: 1 });
    let stored = Known { version: 2, ..world.known(Some(DAY)) };
    world.keeper.reread(&tenant(0), 1, Read::Found(stored), world.now);
    assert!(world.is_ready(0), "a write that failed may have happened");
}

#[test]
fn a_rejected_token_is_refreshed_once_and_an_old_rejection_is_no_news() {
    let mut world = World::with_life(DAY);
    world.keeper.rejected(&tenant(0), 1, world.now);
    assert_eq!(world.readiness(0), Readiness::Waiting);
    world.receive(0, 1);
    assert!(world.is_ready(0));
    for version in [1, 2] {
        world.keeper.rejected(&tenant(0), version, world.now);
    }
    assert_eq!(world.orders(), [], "a moment ago");
    assert!(world.is_ready(0));
    world.pass(secs(2));
    world.keeper.rejected(&tenant(0), 2, world.now);
    world.receive(0, 2);
    world.pass(secs(1));
    world.keeper.rejected(&tenant(0), 3, world.now);
    assert_eq!(world.orders(), [], "each rest is twice as long as the one before");
    world.pass(secs(2));
    world.keeper.rejected(&tenant(0), 3, world.now);
    assert!(matches!(world.order(), Command::Begin { .. }));
}

#[test]
fn a_refused_client_is_the_keys_trouble() {
    let mut world = World::with_life(secs(0));
    world.demand(0, secs(300));
    world.exchange(0, RefreshResult::InvalidClient);
    assert!(matches!(world.order(), Command::Abort { .. }));
    world.keeper.aborted(&tenant(0), 1, Write::Done(()), world.now);
    assert_eq!(world.alarms, [Alarm::ClientRefused]);
    assert!(matches!(world.readiness(0), Readiness::Failing { cause: Cause::ClientRefused, .. }));
    world.keeper.put_key(&key(), world.now);
    assert_eq!(world.readiness(0), Readiness::Waiting);
    world.pass(secs(1));
    world.receive(0, 1);
}

#[test]
fn one_bad_grant_does_not_hold_the_others() {
    let mut world = World::with_life(secs(0));
    world.load(1, None);
    world.demand(0, secs(10));
    world.demand(1, secs(300));
    world.exchange(0, RefreshResult::Trouble(Trouble::ServerError));
    assert_eq!(world.orders(), [], "a 5xx may hide a rotation: the intent stays");
    world.pass(secs(1));
    world.receive(1, 1);
}

/// A tenant whose token has `life` left and of whose refresh two answers were lost, after the time
/// in which it is left alone.
fn in_doubt(life: Duration) -> World {
    let mut world = World::with_life(life);
    world.keeper.refresh_now(&tenant(0), world.now);
    world.exchange(0, RefreshResult::Lost);
    world.pass(secs(1));
    world.exchange(0, RefreshResult::Lost);
    world.pass(secs(60));
    assert_eq!(world.orders(), []);
    world
}

#[test]
fn a_token_in_doubt_is_used_again_only_when_none_serves_and_somebody_waits() {
    let mut world = in_doubt(secs(1_000));
    world.demand(0, secs(30));
    assert!(world.is_ready(0), "the old token serves");
    assert_eq!(world.orders(), []);
    world.pass(secs(1_000));
    assert!(!world.is_ready(0));
    assert_eq!(world.orders(), [], "none serves, and nobody waits");
    world.demand(0, secs(30));
    assert_eq!(world.order(), Command::Begin { tenant: tenant(0), version: 1 });
}

#[test]
fn a_token_in_doubt_is_not_used_ahead_of_need() {
    let mut world = in_doubt(secs(20_000));
    let settings = Settings { refresh_ahead: Duration::from_hours(2), ..settings() };
    world.keeper.set_times(settings, world.now);
    world.keeper.used(&tenant(0), world.now.unix, world.now);
    world.pass(secs(20_000));
    assert_eq!(world.orders(), []);
}

#[test]
fn while_the_store_cannot_be_asked_about_a_refused_token_the_old_one_serves_to_its_floor() {
    let mut world = World::with_life(secs(200));
    world.keeper.refresh_now(&tenant(0), world.now);
    world.exchange(0, RefreshResult::InvalidGrant);
    assert!(matches!(world.order(), Command::Reread { .. }));
    assert!(!world.is_ready(0), "within its margin a token does not serve");
    world.keeper.reread(&tenant(0), 1, Read::Failed, world.now);
    assert!(world.is_ready(0), "200 s of life are enough while the store fails");
}
