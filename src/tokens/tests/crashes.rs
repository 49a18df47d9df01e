//! The process dies between any two steps of a refresh, and another one starts on the same store.

use super::store::Hang;
use super::upstream::Turn;
use super::*;

/// Starts a refresh, dies after five seconds, and lets the next process work for five minutes.
async fn crash_during_refresh(prepare: impl FnOnce(&House)) -> House {
    let house = House::with_tenants(1).await;
    prepare(&house);
    house.demand(0, secs(60));
    tokio::time::sleep(secs(5)).await;
    let house = house.crash().await;
    house.demand(0, secs(60));
    tokio::time::sleep(secs(300)).await;
    house
}

#[tokio::test(start_paused = true)]
async fn before_the_intent_is_stored_nothing_is_lost() {
    let house = crash_during_refresh(|house| house.store.hang("begin", Hang::Before)).await;
    assert_eq!(house.upstream.seen().len(), 1);
    house.assert_current(0);
}

#[tokio::test(start_paused = true)]
async fn between_intent_and_request_nothing_is_lost() {
    let house = crash_during_refresh(|house| house.store.hang("begin", Hang::After)).await;
    assert_eq!(house.upstream.seen().len(), 1);
    house.assert_current(0);
}

#[tokio::test(start_paused = true)]
async fn between_journal_and_request_nothing_is_lost() {
    let house = crash_during_refresh(|house| house.store.hang("post", Hang::After)).await;
    assert_eq!(house.upstream.seen().len(), 1);
    house.assert_current(0);
}

#[tokio::test(start_paused = true)]
async fn between_request_and_answer_the_loss_is_told() {
    let house = crash_during_refresh(|house| house.upstream.script([Turn::Swallowed])).await;
    assert_eq!(house.upstream.seen().len(), 2, "tried once, never again");
    let Readiness::NeedsAuthorization { reason } = house.state(0) else { panic!("silent loss") };
    assert!(reason.starts_with("the process stopped between"), "{reason}");
    let status = house.tokens.status(&name(0)).await.unwrap();
    assert_eq!(status.state, TenantState::NeedsAuthorization);
    assert_eq!(status.state_reason.as_deref(), Some(&*reason));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_did_not_arrive_before_the_crash_is_made_again() {
    let house = crash_during_refresh(|house| house.upstream.script([Turn::Vanished])).await;
    assert_eq!(house.upstream.seen().len(), 2);
    house.assert_current(0);
}

#[tokio::test(start_paused = true)]
async fn between_answer_and_journal_the_loss_is_told() {
    let house = crash_during_refresh(|house| house.store.hang("receive", Hang::Before)).await;
    assert_eq!(house.upstream.seen().len(), 2);
    assert!(matches!(house.state(0), Readiness::NeedsAuthorization { .. }));
}

#[tokio::test(start_paused = true)]
async fn between_journal_and_store_nothing_is_lost() {
    let house = crash_during_refresh(|house| house.store.hang("finish", Hang::Before)).await;
    assert_eq!(house.upstream.seen().len(), 1, "what came is stored from the journal");
    house.assert_current(0);
}

#[tokio::test(start_paused = true)]
async fn after_the_store_nothing_is_lost() {
    let house = crash_during_refresh(|house| house.store.hang("finish", Hang::After)).await;
    assert_eq!(house.upstream.seen().len(), 1);
    house.assert_current(0);
}

#[tokio::test(start_paused = true)]
async fn a_verdict_that_was_not_stored_costs_one_more_request() {
    let house = crash_during_refresh(|house| {
        house.upstream.connect(&name(0));
        house.store.hang("fail", Hang::Before);
    })
    .await;
    assert_eq!(house.upstream.seen().len(), 2);
    assert!(matches!(house.state(0), Readiness::NeedsAuthorization { .. }));
    let house = house.crash().await;
    tokio::time::sleep(secs(300)).await;
    assert_eq!(house.upstream.seen().len(), 2);
}
