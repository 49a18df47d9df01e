//! The ordinary life of tokens, and upstreams that answer late or never.

use super::upstream::Turn;
use super::*;
use crate::engine::token::Trouble;

#[tokio::test(start_paused = true)]
async fn fifty_callers_at_once_are_one_token_request() {
    let house = House::with_tenants(1).await;
    assert_eq!(house.state(0), Readiness::Waiting);
    for wait in 0..50 {
        house.demand(0, secs(10 + wait));
    }
    tokio::time::sleep(secs(100)).await;
    assert_eq!(house.upstream.seen().len(), 1);
    assert_eq!(house.version(0), Some(2));
    house.assert_current(0);
}

#[tokio::test(start_paused = true)]
async fn callers_that_leave_cancel_nothing() {
    let house = House::with_tenants(1).await;
    house.upstream.script([Turn::Good(secs(10))]);
    house.demand(0, secs(2));
    house.upstream.arrived.notified().await;
    let House { tokens, store, upstream, tracker, clock, changes, .. } = house;
    tokio::time::sleep(Duration::from_millis(1)).await;
    drop((tokens, changes));
    tracker.close();
    tracker.wait().await;
    assert_eq!(store.row(&name(0)).version, 2, "the answer is stored all the same");
    let house = House::open(store, upstream, clock).await;
    house.assert_current(0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_after_thirty_seconds_is_still_one_request() {
    let house = House::with_tenants(1).await;
    house.upstream.script([Turn::Good(secs(30))]);
    for _ in 0..30 {
        house.demand(0, secs(60));
        tokio::time::sleep(secs(1)).await;
    }
    tokio::time::sleep(secs(10)).await;
    assert_eq!(house.upstream.seen().len(), 1);
    house.assert_current(0);
}

#[tokio::test(start_paused = true)]
async fn twenty_tenants_keep_the_interval_from_each_answer() {
    let house = House::with_tenants(20).await;
    let delays = [0, 300, 1_700, 20];
    house.upstream.script((0..20).map(|n| Turn::Good(Duration::from_millis(delays[n % 4]))));
    for n in 0..20 {
        house.demand(n, secs(600 - n as u64));
    }
    tokio::time::sleep(secs(60)).await;
    let seen = house.upstream.seen();
    assert_eq!(seen.len(), 20);
    assert!(seen[0].arrived >= Mono::new(secs(1)), "the rest after the start");
    for pair in seen.windows(2) {
        assert!(pair[1].arrived.since(pair[0].answered) >= secs(1), "{pair:?}");
    }
    assert_eq!(seen[0].tenant, "t19", "the earliest deadline goes first");
    (0..20).for_each(|n| house.assert_current(n));
    let lanes = house.tokens.lanes().await;
    assert_eq!(lanes, [(key(), LaneOutlook { depth: 0, done_at: None })]);
}

#[tokio::test(start_paused = true)]
async fn the_endpoint_that_answers_nonsense_is_asked_again_and_nothing_is_lost() {
    let house = House::with_tenants(1).await;
    house.upstream.script([
        Turn::trouble(Trouble::NotTokens),
        Turn::trouble(Trouble::Blocked),
        Turn::trouble(Trouble::TooManyRequests),
        Turn::trouble(Trouble::ServerError),
        Turn::Answer(RefreshAnswer::InvalidClient { detail: String::new() }),
        Turn::Answer(RefreshAnswer::NotSent { detail: String::new() }),
    ]);
    house.demand(0, secs(10));
    tokio::time::sleep(secs(3)).await;
    assert!(matches!(house.state(0), Readiness::Failing { .. }));
    assert_eq!(house.observer.alarms(), ["not_tokens"]);
    let before = house.store.row(&name(0));
    assert_eq!((before.version, before.state), (1, crate::store::GrantState::Ready));
    tokio::time::sleep(secs(120)).await;
    assert_eq!(house.upstream.seen().len(), 7);
    house.assert_current(0);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_after_rotation_ends_in_words_not_in_a_loop() {
    let house = House::with_tenants(1).await;
    house.upstream.script([Turn::Swallowed]);
    house.demand(0, secs(10));
    tokio::time::sleep(secs(1_000)).await;
    assert_eq!(house.upstream.seen().len(), 2);
    let Readiness::NeedsAuthorization { reason } = house.state(0) else { panic!("not told") };
    assert!(reason.starts_with("the answer to a refresh was lost"), "{reason}");
    house.demand(0, secs(10));
    let house = house.crash().await;
    house.demand(0, secs(10));
    tokio::time::sleep(secs(1_000)).await;
    assert_eq!(house.upstream.seen().len(), 2, "not repeated after a restart");
    assert_eq!(house.version(0), None);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_vanished_is_repeated_and_good() {
    let house = House::with_tenants(1).await;
    house.upstream.script([Turn::Vanished]);
    house.demand(0, secs(10));
    tokio::time::sleep(secs(40)).await;
    assert_eq!(house.upstream.seen().len(), 2);
    house.assert_current(0);
}

#[tokio::test(start_paused = true)]
async fn a_long_lived_refresh_token_stays() {
    let house = House::with_tenants(1).await;
    house.upstream.long_lived();
    house.demand(0, secs(10));
    tokio::time::sleep(secs(2)).await;
    assert_eq!(house.version(0), Some(2));
    house.assert_current(0);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_not_sent_past_its_margin_but_serves_while_the_endpoint_fails() {
    let house = House::with_tenants(2).await;
    house.store.add(
        &name(2),
        &house.upstream.connect(&name(2)),
        Some(Unix::from_secs(START + 400)),
    );
    let house = house.crash().await;
    assert_eq!(house.version(2), Some(1));
    house.upstream.script((0..20).map(|_| Turn::trouble(Trouble::ServerError)));
    tokio::time::sleep(secs(90)).await;
    house.demand(0, secs(1_000));
    tokio::time::sleep(secs(30)).await;
    assert_eq!(house.version(2), Some(1), "280 s of life serve while the endpoint fails");
    tokio::time::sleep(secs(251)).await;
    assert_eq!(house.version(2), None, "29 s do not");
    assert!(matches!(house.state(2), Readiness::Failing { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_replaced_and_changes_are_told_in_order() {
    let mut house = House::with_tenants(1).await;
    house.demand(0, secs(10));
    tokio::time::sleep(secs(2)).await;
    house.tokens.rejected(&name(0), 1);
    house.tokens.rejected(&name(0), 2);
    tokio::time::sleep(secs(2)).await;
    assert_eq!(house.upstream.seen().len(), 2);
    assert_eq!(house.version(0), Some(3));
    let mut told = Vec::new();
    while let Ok(change) = house.changes.try_recv() {
        told.push(change.readiness.unwrap());
    }
    assert_eq!(told, [Readiness::Waiting, Readiness::Ready, Readiness::Waiting, Readiness::Ready]);
}
