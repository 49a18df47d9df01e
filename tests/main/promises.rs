//! Rates and tokens as they were promised from the beginning, in full size.

use std::time::Duration;

use futures_util::future::join_all;
use http::Method;

use ctct_proxy::config::settings;
use ctct_proxy::sandbox::{Verdict, Window};

use crate::support::{Http, Metronome, Rig, judge};

const RATE: u32 = 20;
const TENANTS: usize = 20;

/// A machine whose timers are this late is busy with other things.
const BUSY: Duration = Duration::from_millis(15);

/// What came of a run.
#[derive(Debug)]
struct Run {
    rate: f64,
    refused: u64,
}

/// `calls` calls from 50 connections for 20 tenants; all are served.
async fn run(window: Window, calls: usize, guard: &str) -> Run {
    let rig = Rig::build()
        .tenants(TENANTS)
        .sandbox(|options| {
            options.window = window;
            options.latency = Duration::from_millis(10);
            options.jitter = Duration::from_millis(5);
        })
        .per_second(RATE)
        .set(&settings::GUARD, guard)
        .set(&settings::MAX_WAIT, "5m")
        .start()
        .await;
    let connections = 50;
    let each = calls / connections;
    let caller = async |number: usize| {
        let http = Http::h1();
        for call in 0..each {
            let tenant = format!("t{}", (number + call) % TENANTS);
            let call = rig.call(Method::GET, &tenant, "/v3/contacts?limit=1");
            http.send(call).await.expect(200);
        }
    };
    join_all((0..connections).map(caller)).await;
    let refused = rig.sandbox.counts().of(Verdict::Throttled);
    let arrived = judge::api_calls(&rig.sandbox);
    assert_eq!(arrived.len() as u64, calls as u64 + refused);
    Run { rate: judge::rate(&arrived), refused }
}

/// No call too early, and at least `share` of the limit. A machine that is busy with other things
/// gets two more chances: it can take time from the best of pacers, and hold up the sandbox's own
/// look at its clock for longer than a guard.
async fn keeps_the_limit(window: Window, calls: usize, guard: &str, share: f64) {
    let mut runs = Vec::new();
    for calls in [calls, 300, 300] {
        let metronome = Metronome::start();
        let run = run(window, calls, guard).await;
        let held_up = metronome.worst();
        if run.refused == 0 && run.rate >= f64::from(RATE) * share {
            return;
        }
        runs.push((run, held_up));
        if held_up < BUSY {
            break;
        }
    }
    panic!("{window:?}, guard {guard}: {runs:.2?} (with what the machine was held up by)");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_calls_keep_the_limit_and_lose_no_more_than_a_tenth_of_it() {
    let all = [Window::Fixed, Window::Sliding, Window::Bucket]
        .map(|window| keeps_the_limit(window, 1_000, "auto", 0.9));
    // the guard alone costs 6 %, and each late timer what it is late by
    let fixed_guard = keeps_the_limit(Window::Sliding, 300, "60ms", 0.85);
    futures_util::future::join(join_all(all), fixed_guard).await;
}

#[tokio::test]
async fn two_hundred_callers_of_twenty_expired_tenants_cost_twenty_token_requests() {
    let rig = Rig::build().tenants(0).expired(TENANTS).set(&settings::MAX_WAIT, "2m").start().await;
    let caller = async |number: usize| {
        let tenant = format!("t{}", number % TENANTS);
        let http = Http::h1();
        http.send(rig.call(Method::GET, &tenant, "/v3/contacts?limit=1")).await.status
    };
    let statuses = join_all((0..200).map(caller)).await;
    assert_eq!(statuses, vec![200; 200]);
    let counts = rig.sandbox.counts();
    let token = &counts.token["app"];
    assert_eq!(token.requests, 20);
    assert_eq!(token.most_at_once, 1);
    assert!(token.least_gap_ns.is_some_and(|gap| gap >= 1_000_000_000), "{token:?}");
    assert_eq!(counts.of(Verdict::TokenOk), 20);
    assert_eq!(counts.of(Verdict::Ok), 200);
    judge::assert_no_429(&rig.sandbox);
}
