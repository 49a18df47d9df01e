//! Tokens: renewed once however many wait, never sent dead, never lost with an answer.

use std::time::Duration;

use futures_util::future::join_all;
use http::Method;
use serde_json::json;

use ctct_proxy::config::settings;
use ctct_proxy::sandbox::{Fault, FaultKind, Target, Verdict};

use crate::support::{Call, Rig, RigBuilder, judge, until};

const PATH: &str = "/v3/contacts?limit=1";

/// A lane of tokens that is quick.
fn quick() -> RigBuilder {
    Rig::build()
        .sandbox(|options| options.token_interval = Duration::from_millis(20))
        .set(&settings::REFRESH_INTERVAL, "40ms")
}

async fn state(rig: &Rig, tenant: &str) -> (String, String) {
    let view = rig.admin(Method::GET, &format!("/v1/tenants/{tenant}")).await.expect(200).json();
    let text = |name: &str| view[name].as_str().unwrap_or_default().to_owned();
    (text("state"), text("state_reason"))
}

#[tokio::test]
async fn a_401_has_the_token_renewed_once_and_the_call_sent_again_once() {
    let rig = quick().start().await;
    rig.sandbox.add_fault(Fault::new(Target::Api, FaultKind::Unauthorized));
    rig.get("t0", PATH).await.expect(200);
    let calls = judge::api_calls(&rig.sandbox);
    assert_eq!(calls.iter().map(|call| call.status).collect::<Vec<_>>(), [401, 200]);
    assert_ne!(calls[0].fingerprint, calls[1].fingerprint, "the repeat has the new token");
    assert_eq!(rig.sandbox.counts().of(Verdict::TokenOk), 1);
}

#[tokio::test]
async fn a_second_401_is_passed_on_and_the_tenant_is_not_locked_out() {
    let rig = quick().start().await;
    let unauthorized = Fault::new(Target::Api, FaultKind::Unauthorized);
    rig.sandbox.add_fault(unauthorized.clone().times(2));
    let reply = rig.get("t0", PATH).await.expect(401);
    assert_eq!((reply.reason(), reply.json()["error_key"].as_str()), ("", Some("unauthorized")));
    assert_eq!(judge::arrivals(&rig.sandbox), 2);
    // what follows is served, although the new token was refused as well
    rig.get("t0", PATH).await.expect(200);
    rig.sandbox.add_fault(unauthorized.times(3));
    for _ in 0..3 {
        assert_eq!(rig.get("t0", PATH).await.reason(), "", "passed on, not refused");
    }
    rig.get("t0", PATH).await.expect(200);
    let renewed = rig.sandbox.counts().of(Verdict::TokenOk);
    assert_eq!(renewed, 1, "a fault that is not the token's is not answered by renewing it");
}

#[tokio::test]
async fn a_403_is_passed_on_and_costs_no_token_request() {
    let rig = quick().start().await;
    let forbidden = FaultKind::Status { status: 403, retry_after: None, body: None };
    rig.sandbox.add_fault(Fault::new(Target::Api, forbidden).times(3));
    for _ in 0..3 {
        assert_eq!(rig.get("t0", PATH).await.expect(403).reason(), "");
    }
    rig.get("t0", PATH).await.expect(200);
    assert_eq!(judge::token_requests(&rig.sandbox).len(), 0);
}

#[tokio::test]
async fn many_callers_with_a_refused_token_cost_one_token_request() {
    let rig = quick().start().await;
    rig.get("t0", PATH).await.expect(200);
    rig.sandbox.add_fault(Fault::new(Target::Api, FaultKind::Unauthorized).times(3));
    let replies = join_all((0..50).map(|_| rig.get("t0", PATH))).await;
    let served = replies.iter().filter(|reply| reply.status == 200).count();
    assert!(served >= 48, "{served} of 50");
    assert_eq!(judge::token_requests(&rig.sandbox).len(), 1);
}

#[tokio::test]
async fn a_lost_answer_of_the_token_endpoint_is_asked_for_once_more_and_then_given_up() {
    let rig = quick().tenants(0).expired(1).start().await;
    rig.sandbox.add_fault(Fault::new(Target::Token, FaultKind::LostAnswer));
    // the token has rotated and nobody has the new one
    let reply = rig.get("t0", PATH).await;
    assert_eq!(reply.status, 401, "{reply:?}");
    assert_eq!(reply.reason(), "tenant_needs_authorization");
    let requests = judge::token_requests(&rig.sandbox);
    assert!(requests.len() <= 2, "{requests:?}");
    let (name, reason) = state(&rig, "t0").await;
    assert_eq!(name, "needs_authorization");
    assert!(reason.len() > 20, "{reason}");
    for _ in 0..5 {
        rig.get("t0", PATH).await.expect_refusal(401, "tenant_needs_authorization");
    }
    assert_eq!(judge::token_requests(&rig.sandbox).len(), requests.len());
}

#[tokio::test]
async fn a_lost_answer_with_a_token_that_does_not_rotate_costs_nothing_but_time() {
    let rig =
        quick().tenants(0).expired(1).sandbox(|options| options.rotating = false).start().await;
    rig.sandbox.add_fault(Fault::new(Target::Token, FaultKind::LostAnswer));
    rig.get("t0", PATH).await.expect(200);
    assert_eq!(judge::token_requests(&rig.sandbox).len(), 2);
    assert_eq!(state(&rig, "t0").await.0, "ready");
}

#[tokio::test]
async fn a_dead_grant_is_asked_for_once_and_works_again_when_put_again() {
    let rig = quick().tenants(1).expired(1).start().await;
    rig.sandbox.revoke("t1");
    let replies = join_all((0..20).map(|_| rig.get("t1", PATH))).await;
    for reply in replies {
        reply.expect_refusal(401, "tenant_needs_authorization");
    }
    assert_eq!(judge::token_requests(&rig.sandbox).len(), 1);
    let arrived = judge::arrivals(&rig.sandbox);
    rig.get("t0", PATH).await.expect(200);
    assert_eq!(arrived, 0);
    let grant = rig.sandbox.connect_expired_tenant("app", "t1");
    let body = json!({
        "api_key": "default",
        "refresh_token": grant.refresh_token,
        "access_token": grant.access_token,
    });
    let put = Call::new(Method::PUT, rig.admin_url("/v1/tenants/t1")).json(&body);
    rig.http.send(put).await.expect(200);
    rig.get("t1", PATH).await.expect(200);
    assert_eq!(state(&rig, "t1").await.0, "ready");
}

#[tokio::test]
async fn while_the_token_endpoint_fails_good_tokens_serve_and_it_heals() {
    let rig = quick().tenants(1).expired(1).start().await;
    rig.get("t0", PATH).await.expect(200);
    let kinds = [
        FaultKind::Status { status: 500, retry_after: None, body: None },
        FaultKind::Html { status: 503 },
        FaultKind::Throttled,
        FaultKind::Empty,
        FaultKind::Status { status: 200, retry_after: None, body: Some("{\"a\":1}".into()) },
    ];
    for kind in kinds {
        rig.sandbox.add_fault(Fault::new(Target::Token, kind.clone()).times(100));
        let call = rig.call(Method::GET, "t1", PATH).header("prefer", "wait=1");
        let refused = rig.http.send(call).await;
        assert_eq!((refused.status, refused.reason()), (503, "token_unavailable"), "{kind:?}");
        rig.get("t0", PATH).await.expect(200);
        assert_ne!(state(&rig, "t1").await.0, "needs_authorization", "{kind:?}");
        rig.sandbox.clear_faults();
    }
    until("the tenant works again", async || {
        let call = rig.call(Method::GET, "t1", PATH).header("prefer", "wait=5");
        rig.http.send(call).await.status == 200
    })
    .await;
    // never two within the interval
    let counts = rig.sandbox.counts();
    assert_eq!(counts.token["app"].most_at_once, 1);
    assert_eq!(counts.of(Verdict::TokenThrottled), 0);
    // never a dead bearer
    assert_eq!(counts.of(Verdict::Unauthorized), 0);
}

#[tokio::test]
async fn callers_that_leave_do_not_lose_the_new_token() {
    let rig = quick().tenants(0).expired(1).start().await;
    rig.sandbox.add_fault(Fault::new(Target::Token, FaultKind::Delay { ms: 600 }));
    let leaving = rig.http.try_send(rig.call(Method::GET, "t0", PATH));
    let left = tokio::time::timeout(Duration::from_millis(400), leaving).await;
    assert!(left.is_err(), "the caller left before its answer");
    until("the token is renewed", async || state(&rig, "t0").await.0 == "ready").await;
    rig.get("t0", PATH).await.expect(200);
    assert_eq!(judge::token_requests(&rig.sandbox).len(), 1);
}

#[tokio::test]
async fn short_lived_tokens_are_renewed_in_time_and_never_sent_dead() {
    let rig = quick()
        .tenants(3)
        .sandbox(|options| options.access_token_life = Duration::from_secs(4))
        .set(&settings::REFRESH_MARGIN, "1s")
        .start()
        .await;
    let caller = async |number: usize| {
        for _ in 0..50 {
            rig.get(&format!("t{}", number % 3), PATH).await.expect(200);
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    };
    join_all((0..6).map(caller)).await;
    let counts = rig.sandbox.counts();
    assert_eq!(counts.of(Verdict::Unauthorized), 0);
    assert_eq!(counts.of(Verdict::TokenInvalidGrant), 0);
    assert!(counts.of(Verdict::TokenOk) >= 6, "{counts:?}");
}
