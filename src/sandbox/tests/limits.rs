//! The limits as a caller meets them.
//!
//! The edges of each window model are tested beside the models; here is what goes over the wire.
//!
//! The edges of each window model are tested beside the models; here is what goes over the wire.

use super::*;

const THROTTLED: &str = r#"{"error_key":"throttled","error_message":"Too Many Requests"}"#;
const QUOTA: &str = r#"{"error_key":"quota_exceeded","error_message":"Limit Exceeded"}"#;
const SUMMARY: &str = "/v3/account/summary";

#[tokio::test(start_paused = true)]
async fn the_fifth_call_of_a_second_is_throttled_with_the_exact_body() {
    let bench = Bench::start(quick()).await;
    let tenant = bench.tenant();
    for _ in 0..4 {
        assert_eq!(bench.get(SUMMARY, &tenant.access_token).await.status, 200);
    }
    let refused = bench.get(SUMMARY, &tenant.access_token).await;
    assert_eq!((refused.status, refused.text()), (429, THROTTLED));
    assert!(!refused.headers.contains_key("retry-after"));
    bench.pass(Duration::from_secs(1)).await;
    assert_eq!(bench.get(SUMMARY, &tenant.access_token).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_spent_day_is_refused_until_midnight_with_the_exact_body() {
    let bench = Bench::start(Options { per_day: 2, ..quick() }).await;
    let tenant = bench.tenant();
    for _ in 0..2 {
        assert_eq!(bench.get(SUMMARY, &tenant.access_token).await.status, 200);
    }
    bench.pass(Duration::from_secs(12 * 3_600 - 1)).await;
    let refused = bench.get(SUMMARY, &tenant.access_token).await;
    assert_eq!((refused.status, refused.text()), (429, QUOTA));
    bench.pass(Duration::from_secs(1)).await;
    assert_eq!(bench.get(SUMMARY, &tenant.access_token).await.status, 200);
    let days = &bench.sandbox.counts().api_keys[KEY].days;
    assert_eq!((days["2026-11-24"], days["2026-11-25"]), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn tenants_of_one_api_key_share_its_limits_and_other_keys_do_not() {
    let bench = Bench::start(Options { per_second: 1, ..quick() }).await;
    let (first, second) = (bench.tenant(), bench.sandbox.connect_tenant(KEY, "globex"));
    let other = bench.sandbox.connect_tenant("another-key", "initech");
    assert_eq!(bench.get(SUMMARY, &first.access_token).await.status, 200);
    assert_eq!(bench.get(SUMMARY, &second.access_token).await.status, 429);
    assert_eq!(bench.get(SUMMARY, &other.access_token).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn calls_count_at_arrival_and_are_answered_after_the_latency() {
    let latency = Duration::from_millis(80);
    let bench = Bench::start(Options { latency, ..quick() }).await;
    let tenant = bench.tenant();
    let before = bench.clock.now().mono;
    assert_eq!(bench.get(SUMMARY, &tenant.access_token).await.status, 200);
    let took = bench.clock.now().mono.since(before);
    assert!((80..90).contains(&took.as_millis()), "{took:?}");
    assert_eq!(bench.sandbox.log()[0].unix_ns / 1_000_000_000, NOON);
}

#[tokio::test(start_paused = true)]
async fn latency_stays_within_its_jitter() {
    let (latency, jitter) = (Duration::from_millis(80), Duration::from_millis(20));
    let bench = Bench::start(Options { latency, jitter, ..unlimited() }).await;
    let tenant = bench.tenant();
    let mut seen = Vec::new();
    for _ in 0..30 {
        let before = bench.clock.now().mono;
        bench.get(SUMMARY, &tenant.access_token).await;
        seen.push(bench.clock.now().mono.since(before).as_millis());
    }
    assert!(seen.iter().all(|ms| (60..=101).contains(ms)), "{seen:?}");
    assert!(seen.iter().max() > seen.iter().min());
}

#[tokio::test(start_paused = true)]
async fn a_share_of_calls_fails_by_chance() {
    let fail = vec!["0.5:503".parse().unwrap()];
    let bench = Bench::start(Options { fail, ..unlimited() }).await;
    let tenant = bench.tenant();
    for _ in 0..60 {
        bench.get(SUMMARY, &tenant.access_token).await;
    }
    let failed = bench.sandbox.log().iter().filter(|entry| entry.status == 503).count();
    assert!((15..=45).contains(&failed), "{failed}");
}
