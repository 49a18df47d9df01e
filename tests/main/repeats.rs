//! Calls that are sent again, and those that are not.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Method;

use ctct_proxy::config::settings;
use ctct_proxy::sandbox::{Fault, FaultKind, LogEntry, Target, Verdict};

use crate::support::{Dice, Reply, Rig, judge, until};

const PATH: &str = "/v3/contacts?limit=1";

fn status(status: u16) -> FaultKind {
    FaultKind::Status { status, retry_after: None, body: None }
}

fn body(status: u16, body: &str) -> FaultKind {
    FaultKind::Status { status, retry_after: None, body: Some(body.to_owned()) }
}

/// Sets faults for the next calls, one each.
fn faults(rig: &Rig, kinds: impl IntoIterator<Item = FaultKind>) {
    for kind in kinds {
        rig.sandbox.add_fault(Fault::new(Target::Api, kind));
    }
}

/// A contact that the sandbox takes.
fn contact(number: usize) -> Bytes {
    let email = format!("new{number}@example.com");
    let contact = serde_json::json!({
        "email_address": {"address": email, "permission_to_send": "implicit"},
        "create_source": "Account",
        "first_name": "x".repeat(100),
    });
    Bytes::from(contact.to_string())
}

async fn post(rig: &Rig, tenant: &str, number: usize) -> Reply {
    let call = rig.call(Method::POST, tenant, "/v3/contacts");
    let call = call.header("content-type", "application/json").body(contact(number));
    rig.http.send(call).await
}

fn statuses(calls: &[LogEntry]) -> Vec<u16> {
    calls.iter().map(|call| call.status).collect()
}

#[tokio::test]
async fn a_throttled_call_is_sent_again_and_its_caller_does_not_see_it() {
    let rig = Rig::start().await;
    faults(&rig, [FaultKind::Throttled]);
    rig.get("t0", PATH).await.expect(200);
    faults(&rig, [FaultKind::Throttled, FaultKind::Throttled]);
    let reply = post(&rig, "t0", 1).await.expect(201);
    assert_eq!(reply.json()["email_address"]["address"], "new1@example.com");
    let calls = judge::api_calls(&rig.sandbox);
    assert_eq!(statuses(&calls), [429, 200, 429, 429, 201]);
    let lengths: Vec<_> = calls[2..].iter().map(|call| call.body_bytes).collect();
    assert_eq!(lengths, [contact(1).len() as u64; 3], "the body was whole each time");
    for pair in calls.windows(2).filter(|pair| pair[0].status == 429) {
        let pause = judge::gap(&pair[0], &pair[1]);
        assert!(pause >= Duration::from_secs(1), "only {pause:?} after a refusal");
    }
    let key = rig.admin(Method::GET, "/v1/api-keys/default").await.json();
    assert_eq!(key["upstream"]["throttled_total"], 3);
    assert!(key["upstream"]["guard_ms"].as_u64().unwrap() >= 30, "{key}");
}

#[tokio::test]
async fn after_a_refusal_nothing_of_the_key_arrives_for_a_window() {
    let rig = Rig::build().tenants(4).start().await;
    faults(&rig, vec![FaultKind::Delay { ms: 0 }; 10]);
    faults(&rig, [FaultKind::Throttled]);
    let calls = (0..60).map(|number| {
        let tenant = format!("t{}", number % 4);
        let rig = &rig;
        async move { rig.get(&tenant, PATH).await.expect(200) }
    });
    join_all(calls).await;
    let calls = judge::api_calls(&rig.sandbox);
    let refused = calls.iter().position(|call| call.status == 429).unwrap();
    let refused_at = judge::at(&calls[refused]);
    // one or two may have been under way when the refusal was on its way back
    let early = calls[refused + 1..]
        .iter()
        .filter(|call| judge::at(call) < refused_at + Duration::from_secs(1))
        .count();
    assert!(early <= 2, "{early} arrived within a second of the refusal");
    assert_eq!(calls.len(), 61);
}

#[tokio::test]
async fn a_throttled_call_keeps_its_place_before_later_calls_of_its_tenant() {
    let rig = Rig::start().await;
    faults(&rig, [FaultKind::Throttled]);
    let paths: Vec<_> = (0..5).map(|number| format!("/v3/contacts?limit=1&n={number}")).collect();
    let mut calls = Vec::new();
    // the first is refused, and they gather in the second in which nothing is sent
    for path in &paths {
        calls.push(Box::pin(rig.get("t0", path)));
        let calls_made = calls.len();
        let all_wait = Box::pin(until("all wait", async || {
            let key = rig.admin(Method::GET, "/v1/api-keys/default").await.json();
            key["upstream"]["throttled_total"] == 1 && key["queue"]["depth"] == calls_made
        }));
        futures_util::future::select(join_all(calls.iter_mut()), all_wait).await;
    }
    for reply in join_all(calls).await {
        reply.expect(200);
    }
    let order: Vec<_> = judge::api_calls(&rig.sandbox)
        .iter()
        .map(|call| call.query.as_deref().unwrap().rsplit('=').next().unwrap().to_owned())
        .collect();
    assert_eq!(order, ["0", "0", "1", "2", "3", "4"]);
}

#[tokio::test]
async fn a_caller_whose_wait_ends_before_the_repeat_is_told_so() {
    let rig = Rig::start().await;
    rig.get("t0", PATH).await.expect(200);
    faults(&rig, vec![FaultKind::Throttled; 50]);
    let call = rig.call(Method::GET, "t0", PATH).header("prefer", "wait=2");
    let reply = rig.http.send(call).await.expect_refusal(429, "wait_expired");
    assert_eq!(reply.json()["error_key"], "throttled");
}

#[tokio::test]
async fn quota_exceeded_refuses_all_who_wait_and_nothing_more_arrives() {
    let rig = Rig::build().tenants(3).start().await;
    faults(&rig, [FaultKind::QuotaExceeded]);
    let calls = (0..30).map(|number| {
        let tenant = format!("t{}", number % 3);
        let rig = &rig;
        async move { rig.get(&tenant, PATH).await }
    });
    let replies = join_all(calls).await;
    let (refused, served): (Vec<_>, Vec<_>) = replies.iter().partition(|r| r.status == 429);
    assert!(refused.iter().all(|reply| reply.reason() == "day_quota_spent"), "{refused:?}");
    assert!(refused.iter().all(|reply| reply.retry_after().is_none()));
    let arrived = judge::arrivals(&rig.sandbox);
    assert!(arrived <= 4, "{arrived} arrived");
    assert_eq!(served.len() + 1, arrived, "every other one that arrived was served");
    for _ in 0..20 {
        let reply = rig.get("t1", PATH).await.expect_refusal(429, "day_quota_spent");
        assert!(reply.header("ratelimit").starts_with(r#""day";r=0;t="#), "{reply:?}");
    }
    assert_eq!(judge::arrivals(&rig.sandbox), arrived);
}

#[tokio::test]
async fn another_429_is_the_callers_business() {
    let rig = Rig::start().await;
    let text = r#"[{"error_key":"activities.too_many","error_message":"1,000 are queued"}]"#;
    faults(&rig, [body(429, text)]);
    let reply = rig.get("t0", PATH).await.expect(429);
    assert_eq!((reply.reason(), reply.body.as_ref()), ("", text.as_bytes()));
    rig.get("t0", PATH).await.expect(200);
    assert_eq!(judge::arrivals(&rig.sandbox), 2);
}

#[tokio::test]
async fn a_429_of_html_is_passed_on_and_pauses_the_key_longer_each_time() {
    let rig = Rig::build().tenants(2).start().await;
    rig.get("t0", PATH).await.expect(200);
    for _ in 0..2 {
        faults(&rig, [FaultKind::Html { status: 429 }]);
        let reply = rig.get("t0", PATH).await.expect(429);
        assert_eq!(reply.reason(), "");
        assert!(reply.header("content-type").starts_with("text/html"), "{reply:?}");
    }
    rig.get("t1", PATH).await.expect(200);
    let calls = judge::api_calls(&rig.sandbox);
    let gap = |number: usize| judge::gap(&calls[number], &calls[number + 1]);
    assert!(gap(1) >= Duration::from_secs(1), "{:?}", gap(1));
    assert!(gap(2) >= Duration::from_secs(2), "{:?}", gap(2));
}

#[tokio::test]
async fn answers_of_an_unwell_upstream_are_tried_once_more_for_safe_methods_only() {
    let rig = Rig::start().await;
    for code in [502, 503, 504] {
        faults(&rig, [status(code)]);
        rig.get("t0", PATH).await.expect(200);
        faults(&rig, [status(code), status(code)]);
        assert_eq!(rig.get("t0", PATH).await.expect(code).reason(), "");
        faults(&rig, [status(code)]);
        assert_eq!(post(&rig, "t0", 5).await.expect(code).reason(), "");
    }
    faults(&rig, [status(500)]);
    rig.get("t0", PATH).await.expect(500);
    let calls = judge::api_calls(&rig.sandbox);
    let each = |code| [code, 200, code, code, code];
    let expected: Vec<u16> = [502, 503, 504].into_iter().flat_map(each).chain([500]).collect();
    assert_eq!(statuses(&calls), expected);
}

#[tokio::test]
async fn a_broken_connection_is_tried_once_more_for_safe_methods_only() {
    let rig = Rig::start().await;
    faults(&rig, [FaultKind::Close]);
    rig.get("t0", PATH).await.expect(200);
    faults(&rig, [FaultKind::Close, FaultKind::Close]);
    rig.get("t0", PATH).await.expect_refusal(502, "upstream_unreachable");
    faults(&rig, [FaultKind::Close]);
    post(&rig, "t0", 6).await.expect_refusal(502, "upstream_unreachable");
    faults(&rig, [FaultKind::LostAnswer]);
    post(&rig, "t0", 7).await.expect_refusal(502, "upstream_unreachable");
    assert_eq!(judge::arrivals(&rig.sandbox), 6);
    post(&rig, "t0", 7).await.expect(409);
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off_for_the_caller_too() {
    let rig = Rig::start().await;
    faults(&rig, [FaultKind::Cut]);
    let error = rig.http.try_send(rig.call(Method::GET, "t0", "/v3/contacts?limit=20")).await;
    assert!(error.is_err(), "{error:?}");
    rig.get("t0", PATH).await.expect(200);
    assert_eq!(judge::arrivals(&rig.sandbox), 2);
}

#[tokio::test]
async fn a_body_over_the_replay_buffer_is_never_sent_twice() {
    let rig = Rig::build().set(&settings::REPLAY_BUFFER, "1KiB").start().await;
    let long = Bytes::from(Dice::new(1).bytes(20_000));
    let post = async || {
        let call = rig.call(Method::POST, "t0", "/v3/contacts").body(long.clone());
        rig.http.send(call).await
    };
    faults(&rig, [FaultKind::Throttled]);
    assert_eq!(post().await.expect(429).json()["error_key"], "throttled");
    faults(&rig, [FaultKind::Unauthorized]);
    assert_eq!(post().await.expect(401).reason(), "");
    faults(&rig, [FaultKind::Close]);
    post().await.expect_refusal(502, "upstream_unreachable");
    assert_eq!(judge::arrivals(&rig.sandbox), 3);
    // the 401 had the token renewed all the same
    rig.get("t0", PATH).await.expect(200);
    assert_eq!(rig.sandbox.counts().of(Verdict::TokenOk), 1);
}

#[tokio::test]
async fn every_repeat_takes_a_slot_and_a_count_of_its_own() {
    let rig = Rig::build()
        .tenants(5)
        .per_second(20)
        .sandbox(|options| {
            options.fail = vec![
                ctct_proxy::sandbox::Fail { rate: 0.1, status: 503 },
                ctct_proxy::sandbox::Fail { rate: 0.1, status: 401 },
            ];
            options.token_interval = Duration::from_millis(10);
        })
        .set(&settings::REFRESH_INTERVAL, "20ms")
        .start()
        .await;
    let calls = (0..80).map(|number| {
        let tenant = format!("t{}", number % 5);
        let rig = &rig;
        async move { rig.get(&tenant, PATH).await.status }
    });
    join_all(calls).await;
    judge::assert_no_429(&rig.sandbox);
    let counts = rig.sandbox.counts();
    let (_, today) = counts.api_keys["app"].days.first_key_value().unwrap();
    let key = rig.admin(Method::GET, "/v1/api-keys/default").await.json();
    assert_eq!(key["day"]["used"].as_u64(), Some(*today));
    assert!(*today > 80, "{today}: no repeat among them");
}
