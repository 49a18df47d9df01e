//! Refreshes that nobody waits for, by the whole keeper.

use super::upstream::Turn;
use super::*;

/// Two hours ahead.
fn eager() -> Settings {
    Settings { refresh_ahead: Duration::from_hours(2), ..settings() }
}

#[tokio::test(start_paused = true)]
async fn two_thousand_that_came_are_refreshed_one_a_second_after_those_with_callers() {
    const TENANTS: usize = 2_000;
    let house = House::with_tenants(TENANTS).await;
    house.upstream.script((0..TENANTS).map(|_| Turn::Good(Duration::from_millis(150))));
    let waiting = [1_203, 77, 1_999];
    for n in waiting {
        house.demand(n, secs(60 + n as u64));
    }
    house.tokens.reload_keys(vec![(key(), auth())], eager()).await;
    let mut said = Vec::new();
    for _ in 0..240 {
        tokio::time::sleep(secs(10)).await;
        let lanes = house.tokens.lanes().await;
        said.push((house.clock.now().unix, lanes[0].1));
    }
    let seen = house.upstream.seen();
    assert_eq!(seen.len(), TENANTS);
    let first: Vec<&str> = seen[..3].iter().map(|seen| seen.tenant.as_str()).collect();
    assert_eq!(first, ["t77", "t1203", "t1999"]);
    for pair in seen.windows(2) {
        assert!(pair[1].arrived.since(pair[0].answered) >= secs(1), "{pair:?}");
    }
    let ended = seen.last().unwrap().answered;
    let begun = house.clock.now();
    let done = begun.unix.minus(begun.mono.since(ended));
    for (at, lane) in said {
        let Some(done_at) = lane.done_at else { continue };
        let (left, told) = (done.since(at).as_secs_f64(), done_at.since(at).as_secs_f64());
        assert!((told - left).abs() <= 0.05 * left + 2.0, "{told} s said, {left} s left: {lane:?}");
    }
    for n in [0, 77, 100, 1_999] {
        house.assert_current(n);
    }
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_calls_is_refreshed_ahead_and_one_that_does_not_is_not() {
    let house = House::with_tenants(2).await;
    house.demand(0, secs(10));
    house.demand(1, secs(10));
    tokio::time::sleep(secs(10)).await;
    house.tokens.reload_keys(vec![(key(), auth())], eager()).await;
    assert_eq!(house.upstream.seen().len(), 2);
    tokio::time::sleep(Duration::from_hours(10)).await;
    assert!(house.tokens.bearer(&name(0)).is_some(), "a call of t0");
    tokio::time::sleep(Duration::from_hours(13) + secs(3_400)).await;
    let seen = house.upstream.seen();
    assert_eq!(seen.len(), 3);
    assert_eq!(seen[2].tenant, "t0");
    assert_eq!((house.version(0), house.version(1)), (Some(3), None));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_that_was_not_used_for_long_is_told_of_and_shown() {
    let days = |n: u64| Duration::from_hours(24 * n);
    let house = House::with_tenants(1).await;
    let refreshed_at = Unix::from_secs(START).minus(days(149));
    house.store.change(&name(0), |grant| grant.last_refreshed_at = Some(refreshed_at));
    let house = house.crash().await;
    let status = house.tokens.status(&name(0)).await.unwrap();
    assert_eq!(status.refresh_token_expires_at, Some(refreshed_at.plus(days(180))));
    assert_eq!(house.observer.alarms(), [""; 0]);
    tokio::time::sleep(days(1) + secs(1)).await;
    assert_eq!(house.observer.alarms(), ["refresh_token_ageing"]);
    let kept = Settings { keep_alive_after: days(150), ..settings() };
    house.tokens.reload_keys(vec![(key(), auth())], kept).await;
    tokio::time::sleep(secs(10)).await;
    assert_eq!(house.upstream.seen().len(), 1, "it is kept alive as soon as that is wanted");
    house.assert_current(0);
}

#[tokio::test(start_paused = true)]
async fn clocks_that_differ_by_five_minutes_cost_no_storm_and_no_ended_token_is_sent() {
    let skew = secs(299);
    let ours = Unix::from_secs(START);
    for theirs in [ours.plus(skew), ours.minus(skew)] {
        let upstream = Arc::new(Upstream::new(Clock::starting_at(theirs)));
        let store = Arc::new(FakeStore::default());
        store.add(&name(0), &upstream.connect(&name(0)), None);
        let house = House::open(store, upstream, Clock::starting_at(ours)).await;
        house.tokens.reload_keys(vec![(key(), auth())], eager()).await;
        let their_clock = Clock::starting_at(theirs);
        for _ in 0..3 * 24 * 12 {
            tokio::time::sleep(secs(300)).await;
            let bearer = house.tokens.bearer(&name(0)).expect("renewed before it is missed");
            let token = bearer.header.to_str().unwrap().trim_start_matches("Bearer ").to_owned();
            let end = claims::Claims::read(&token).unwrap().exp.unwrap();
            assert!(their_clock.now().unix < end, "an ended token is sent");
        }
        let asked = house.upstream.seen().len();
        assert!((3..=4).contains(&asked), "{asked} requests in three days");
    }
}
