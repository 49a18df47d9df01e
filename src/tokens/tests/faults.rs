//! Stores that fail.

use super::store::Hang;
use super::upstream::Turn;
use super::*;

#[tokio::test(start_paused = true)]
async fn tokens_that_cannot_be_stored_are_kept_and_written_when_the_store_is_well() {
    let house = House::with_tenants(1).await;
    house.store.fail("finish");
    house.demand(0, secs(10));
    tokio::time::sleep(secs(3_600)).await;
    assert_eq!(house.upstream.seen().len(), 1, "the spent token is not sent again");
    assert_eq!(house.version(0), Some(2), "the access token serves meanwhile");
    assert_eq!(house.store.row(&name(0)).version, 1);
    assert_eq!(house.observer.alarms(), ["tokens_not_stored"]);
    assert!(house.store.count("finish") > 50);
    house.store.mend();
    tokio::time::sleep(secs(61)).await;
    house.assert_current(0);
}

#[tokio::test(start_paused = true)]
async fn tokens_that_could_not_be_stored_survive_crashes_in_the_journal() {
    let mut house = House::with_tenants(1).await;
    house.store.fail("finish");
    house.demand(0, secs(10));
    for _ in 0..3 {
        tokio::time::sleep(secs(10)).await;
        assert_eq!(house.version(0), Some(2));
        house = house.crash().await;
        house.store.fail("finish");
    }
    house.store.mend();
    tokio::time::sleep(secs(61)).await;
    assert_eq!(house.upstream.seen().len(), 1, "the spent token is not sent again");
    house.assert_current(0);
}

#[tokio::test(start_paused = true)]
async fn tokens_serve_and_are_kept_though_neither_store_nor_journal_takes_them() {
    let house = House::with_tenants(1).await;
    house.store.fail("finish");
    house.store.fail("receive");
    house.demand(0, secs(10));
    tokio::time::sleep(secs(600)).await;
    assert_eq!(house.version(0), Some(2));
    house.tokens.rejected(&name(0), 2);
    tokio::time::sleep(secs(1)).await;
    assert_eq!(house.version(0), None, "what the upstream does not accept is not sent again");
    house.store.mend();
    tokio::time::sleep(secs(120)).await;
    assert_eq!(house.version(0), Some(3), "and is renewed as soon as it is stored");
    house.assert_current(0);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_journalled_is_not_sent() {
    let house = House::with_tenants(1).await;
    house.store.fail("post");
    house.demand(0, secs(10));
    tokio::time::sleep(secs(600)).await;
    assert_eq!(house.upstream.seen().len(), 0);
    assert_eq!(house.observer.alarms(), ["intent_not_stored"]);
    house.store.mend();
    tokio::time::sleep(secs(61)).await;
    house.assert_current(0);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_failed_and_happened_all_the_same_is_found_again() {
    let house = House::with_tenants(1).await;
    house.store.lie_once("finish");
    house.demand(0, secs(10));
    tokio::time::sleep(secs(10)).await;
    assert_eq!(house.upstream.seen().len(), 1);
    assert_eq!(house.version(0), Some(2));
    house.assert_current(0);
}

#[tokio::test(start_paused = true)]
async fn without_a_journal_nothing_is_sent() {
    let house = House::with_tenants(1).await;
    house.store.fail("begin");
    house.demand(0, secs(10));
    tokio::time::sleep(secs(600)).await;
    assert_eq!(house.upstream.seen().len(), 0);
    house.store.mend();
    tokio::time::sleep(secs(61)).await;
    house.assert_current(0);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_for_one_tenant_stops_nobody_else() {
    let house = House::with_tenants(2).await;
    house.store.hang("pause", Hang::Before);
    let tokens = house.tokens.clone();
    let pause = house.tracker.spawn(async move { tokens.pause(&name(0), true).await });
    house.demand(1, secs(10));
    tokio::time::sleep(secs(5)).await;
    house.assert_current(1);
    assert!(!pause.is_finished());
    assert_eq!(house.tokens.list().await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_somebody_else_refreshed_is_adopted() {
    let house = House::with_tenants(1).await;
    let newer = house.upstream.connect(&name(0));
    house.store.hang("post", Hang::After);
    house.demand(0, secs(10));
    tokio::time::sleep(secs(2)).await;
    let house = house.crash().await;
    house.upstream.script([Turn::Good(secs(5))]);
    house.upstream.arrived.notified().await;
    house.store.change(&name(0), |grant| {
        (grant.version, grant.refresh_begun_at) = (7, None);
        grant.tokens.refresh = newer;
        grant.tokens.access = Some("access".into());
        grant.tokens.access_expires_at = Some(Unix::from_secs(START + 80_000));
    });
    tokio::time::sleep(secs(10)).await;
    assert_eq!(house.version(0), Some(7));
    house.assert_current(0);
}

#[tokio::test(start_paused = true)]
async fn a_drain_finishes_and_stores_what_is_under_way_and_begins_nothing() {
    let house = House::with_tenants(2).await;
    house.upstream.script([Turn::Good(secs(20))]);
    house.demand(0, secs(10));
    house.demand(1, secs(20));
    house.upstream.arrived.notified().await;
    house.tokens.drain().await;
    assert_eq!(house.store.row(&name(0)).version, 2);
    assert_eq!(house.upstream.seen().len(), 1);
    house.assert_current(0);
    assert!(matches!(house.tokens.refresh(&name(1)).await, Err(RefreshError::Stopped)));
    house.tracker.close();
    house.tracker.wait().await;
}
