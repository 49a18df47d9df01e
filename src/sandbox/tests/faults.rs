//! Each kind of fault, at both endpoints.
//!
//! A fault strikes as many calls as it says, counts like any call, and is told apart in the log
//! from what the limits did.
//!
//! A fault strikes as many calls as it says, counts like any call, and is told apart in the log
//! from what the limits did.

use serde_json::json;

use crate::sandbox::{Fault, FaultKind, Target, Verdict};

use super::*;

const SUMMARY: &str = "/v3/account/summary";

async fn struck(bench: &Bench, token: &str, fault: Value) -> Option<Reply> {
    let mut body = json!({"target": "api"});
    body.as_object_mut().unwrap().extend(fault.as_object().unwrap().clone());
    let set = bench.control(Method::POST, "/sandbox/faults", &body).await;
    assert_eq!(set.status, 204, "{}", set.text());
    let bearer = format!("Bearer {token}");
    let reply = bench.call(Method::GET, SUMMARY, &[("authorization", &bearer)], "").await;
    assert_eq!(bench.sandbox.log().last().unwrap().verdict, Verdict::Fault);
    assert_eq!(bench.get(SUMMARY, token).await.status, 200, "one fault, one call");
    reply
}

#[tokio::test(start_paused = true)]
async fn api_calls_are_answered_as_the_fault_says() {
    let bench = Bench::start(unlimited()).await;
    let token = bench.tenant().access_token;
    let cases = [
        (json!({"kind": "status", "status": 503}), 503, "[{\"error_key\":\"sandbox.fault\""),
        (json!({"kind": "status", "status": 418, "body": "tea"}), 418, "tea"),
        (json!({"kind": "html", "status": 429}), 429, "<!DOCTYPE html>"),
        (json!({"kind": "empty"}), 200, ""),
        (json!({"kind": "throttled"}), 429, "{\"error_key\":\"throttled\""),
        (json!({"kind": "quota_exceeded"}), 429, "{\"error_key\":\"quota_exceeded\""),
        (json!({"kind": "unauthorized"}), 401, "{\"error_key\":\"unauthorized\""),
        (json!({"kind": "delay", "ms": 5}), 200, "{\"contact_email\""),
    ];
    for (fault, status, start) in cases {
        let reply = struck(&bench, &token, fault.clone()).await.unwrap();
        assert_eq!(reply.status, status, "{fault}");
        assert!(reply.text().starts_with(start), "{fault}: {}", reply.text());
        assert_eq!(reply.body.is_empty(), start.is_empty(), "{fault}");
    }
    let fault = json!({"kind": "status", "status": 429, "retry_after": 2});
    let reply = struck(&bench, &token, fault).await.unwrap();
    assert_eq!(reply.headers["retry-after"], "2");
}

#[tokio::test(start_paused = true)]
async fn connections_are_closed_before_amid_and_instead_of_an_answer() {
    let bench = Bench::start(unlimited()).await;
    let token = bench.tenant().access_token;
    for kind in ["close", "cut", "lost_answer"] {
        let reply = struck(&bench, &token, json!({"kind": kind})).await;
        assert!(reply.is_none(), "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_delayed_call_is_served_so_much_later() {
    let bench = Bench::start(unlimited()).await;
    let token = bench.tenant().access_token;
    bench.sandbox.add_fault(Fault::new(Target::Api, FaultKind::Delay { ms: 7_000 }));
    let before = bench.clock.now().mono;
    assert_eq!(bench.get(SUMMARY, &token).await.status, 200);
    assert!(bench.clock.now().mono.since(before) >= Duration::from_secs(7));
}

#[tokio::test(start_paused = true)]
async fn a_hanging_call_ends_with_its_caller_or_with_the_sandbox() {
    let bench = Bench::start(unlimited()).await;
    let token = bench.tenant().access_token;
    bench.sandbox.add_fault(Fault::new(Target::Api, FaultKind::Hang).times(2));
    let hour = Duration::from_hours(1);
    assert!(tokio::time::timeout(hour, bench.get(SUMMARY, &token)).await.is_err());
    let bearer = format!("Bearer {token}");
    let request = Request::get(bench.sandbox.url() + SUMMARY).header("authorization", bearer);
    let request = bench.client.request(request.body(Full::default()).unwrap());
    let stopped = async {
        while bench.sandbox.log().len() < 2 {
            tokio::task::yield_now().await;
        }
        bench.sandbox.shared.stop.cancel();
    };
    let (reply, ()) = tokio::join!(request, stopped);
    assert!(reply.is_err());
    bench.sandbox.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_token_answer_has_rotated_the_token() {
    let bench = Bench::start(unlimited()).await;
    let tenant = bench.tenant();
    bench.sandbox.add_fault(Fault::new(Target::Token, FaultKind::LostAnswer));
    assert!(bench.form(&refresh_form(&tenant.refresh_token)).await.is_none());
    let again = bench.refresh(&tenant.refresh_token).await;
    assert_eq!(again.json()["error"], "invalid_grant");
    assert_eq!(bench.get(SUMMARY, &tenant.access_token).await.status, 401);
}

#[tokio::test(start_paused = true)]
async fn other_token_faults_leave_the_token_as_it_was() {
    let bench = Bench::start(unlimited()).await;
    let tenant = bench.tenant();
    let kinds = [
        (FaultKind::Status { status: 500, retry_after: None, body: None }, Some(500)),
        (FaultKind::Html { status: 429 }, Some(429)),
        (FaultKind::Throttled, Some(429)),
        (FaultKind::Unauthorized, Some(401)),
        (FaultKind::Empty, Some(200)),
        (FaultKind::Close, None),
    ];
    for (kind, status) in kinds {
        bench.sandbox.add_fault(Fault::new(Target::Token, kind.clone()));
        bench.pass(Duration::from_secs(1)).await;
        let reply = bench.form(&refresh_form(&tenant.refresh_token)).await;
        assert_eq!(reply.map(|reply| reply.status), status, "{kind:?}");
        assert_eq!(bench.sandbox.log().last().unwrap().verdict, Verdict::TokenFault);
    }
    assert_eq!(bench.refresh(&tenant.refresh_token).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_fault_waits_for_a_call_that_would_be_served() {
    let bench = Bench::start(Options { per_second: 1, ..quick() }).await;
    let (tenant, other) = (bench.tenant(), bench.sandbox.connect_tenant(KEY, "globex"));
    assert_eq!(bench.get(SUMMARY, &tenant.access_token).await.status, 200);
    let status = FaultKind::Status { status: 502, retry_after: None, body: None };
    let account = Some("acme".to_owned());
    bench.sandbox.add_fault(Fault { account, ..Fault::new(Target::Api, status) });
    assert_eq!(bench.get(SUMMARY, &tenant.access_token).await.status, 429);
    for (token, status) in [(&other, 200), (&tenant, 502), (&tenant, 200)] {
        bench.pass(Duration::from_secs(1)).await;
        assert_eq!(bench.get(SUMMARY, &token.access_token).await.status, status);
    }
}

#[tokio::test(start_paused = true)]
async fn wrong_faults_are_refused_and_set_ones_can_be_cleared() {
    let bench = Bench::start(unlimited()).await;
    let token = bench.tenant().access_token;
    for wrong in [json!({}), json!({"target": "api", "kind": "status", "status": 99})] {
        assert_eq!(bench.control(Method::POST, "/sandbox/faults", &wrong).await.status, 400);
    }
    bench.sandbox.add_fault(Fault::new(Target::Api, FaultKind::Close).times(9));
    bench.control(Method::DELETE, "/sandbox/faults", &Value::Null).await;
    assert_eq!(bench.get(SUMMARY, &token).await.status, 200);
}
