//! Rates and tokens as they were promised from the beginning, in full size.

use std::time::Duration;

use futures_util::future::join_all;
use http::Method;

use ctct_proxy::config::settings;
use ctct_proxy::sandbox::{Verdict, Window};

use crate::pace::{Scene, keeps_the_limit};
use crate::support::{Http, Rig, judge};

const TENANTS: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_calls_keep_the_limit_and_lose_no_more_than_a_tenth_of_it() {
    let scene = |window, guard| {
        let takes = (Duration::from_millis(10), Duration::from_millis(5));
        Scene { window, guard, takes, callers_leave: false }
    };
    let all = [Window::Fixed, Window::Sliding, Window::Bucket]
        .map(|window| keeps_the_limit(scene(window, "auto"), 1_000, 0.9));
    // the guard alone costs 6 %, and each late timer what it is late by
    let fixed_guard = keeps_the_limit(scene(Window::Sliding, "60ms"), 300, 0.85);
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
