//! The form of every refusal: status, error key, `Proxy-Status`, when to come back.

use std::time::Duration;

use futures_util::future::join_all;
use http::Method;

use ctct_proxy::config::settings;
use ctct_proxy::sandbox::{Fault, FaultKind, Target};

use crate::support::{Call, Reply, Rig, judge};

const PATH: &str = "/v3/contacts?limit=1";

/// What a refusal must be.
struct Form {
    reason: &'static str,
    status: u16,
    error_key: &'static str,
    /// Least and most of `Retry-After`; none means that the header must not be there.
    retry_after: Option<(u64, u64)>,
}

const BACK_SOON: Option<(u64, u64)> = Some((1, 30));

#[track_caller]
fn check(reply: &Reply, form: &Form) {
    assert_eq!((reply.status, reply.reason()), (form.status, form.reason), "{reply:?}");
    assert_eq!(reply.header("content-type"), "application/json");
    assert!(reply.header("proxy-status").starts_with("ctct-proxy; error="), "{reply:?}");
    let body = reply.json();
    let body = body.as_object().expect("one object");
    assert_eq!(body["error_key"], form.error_key);
    assert!(body["error_message"].as_str().is_some_and(|text| text.len() > 10), "{body:?}");
    assert_eq!(body.len(), 2);
    let wait = reply.retry_after();
    let fits = match (wait, form.retry_after) {
        (Some(secs), Some((least, most))) => (least..=most).contains(&secs),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    };
    assert!(fits, "{}: Retry-After {wait:?}", form.reason);
    assert_eq!(reply.headers.contains_key("www-authenticate"), form.status == 401);
    if form.status == 401 {
        assert_eq!(reply.header("www-authenticate"), r#"Bearer realm="ctct-proxy""#);
    }
    assert!(reply.headers.contains_key("x-request-id"));
    assert!(reply.headers.contains_key("server-timing"));
}

fn form(reason: &'static str, status: u16, error_key: &'static str) -> Form {
    Form { reason, status, error_key, retry_after: None }
}

fn soon(reason: &'static str, status: u16, error_key: &'static str) -> Form {
    Form { reason, status, error_key, retry_after: BACK_SOON }
}

#[tokio::test]
async fn refusals_of_requests_have_the_form_of_the_contract() {
    let rig = Rig::build().tenants(1).start().await;
    let some = rig.client("some", &["t0"]).await;
    let get = |path: &str| Call::get(rig.url(path)).bearer(&rig.key);
    let upgrade = get("/t/t0/v3/x").header("upgrade", "h2c").header("connection", "upgrade");
    let import = "/t/t0/v3/activities/contacts_json_import";
    let post = |path: &str, len: usize| Call::post(rig.url(path), vec![b'x'; len]).bearer(&rig.key);
    let cases = [
        (get("/t/t0/v3/../x"), form("bad_request", 400, "proxy.bad_request")),
        (upgrade, form("bad_request", 400, "proxy.bad_request")),
        (Call::get(rig.url(PATH)), form("client_unauthenticated", 401, "unauthorized")),
        (
            Call::get(rig.url("/t/x/v3/y")).bearer(&some),
            form("tenant_forbidden", 403, "proxy.tenant_forbidden"),
        ),
        (get("/t/x/v3/y"), form("tenant_unknown", 404, "proxy.tenant_unknown")),
        (get("/v2/contacts"), form("not_found", 404, "proxy.not_found")),
        (
            post("/t/t0/v3/contacts", 10 * 1_024 * 1_024 + 1),
            form("request_too_large", 413, "proxy.request_too_large"),
        ),
        (post(import, 4_000_001), form("import_too_large", 413, "proxy.import_too_large")),
    ];
    for (call, form) in cases {
        check(&rig.http.send(call).await, &form);
    }
    assert_eq!(judge::arrivals(&rig.sandbox), 0);
}

#[tokio::test]
async fn refusals_of_a_full_or_hopeless_queue_say_when_to_come_back() {
    let rig = Rig::build()
        .tenants(2)
        .per_second(50)
        .set(&settings::QUEUE_CAPACITY, "5")
        .set(&settings::QUEUE_CAPACITY_PER_TENANT, "3")
        .set(&settings::MAX_WAIT, "60s")
        .start()
        .await;
    let call = |tenant: &str| rig.call(Method::GET, tenant, PATH);
    let hopeless = rig.http.send(call("t0").header("prefer", "wait=0")).await;
    check(&hopeless, &soon("wait_too_long", 429, "throttled"));
    rig.admin(Method::POST, "/v1/api-keys/default/pause").await.expect(204);
    let waiting = async |tenant: &str, count: usize| {
        let calls = (0..count).map(|_| rig.http.send(call(tenant).header("prefer", "wait=3")));
        join_all(calls).await
    };
    let asking = async {
        rig.until_queued(5).await;
        let own_full = rig.http.send(call("t0")).await;
        check(&own_full, &soon("queue_full", 429, "throttled"));
        let all_full = rig.http.send(call("t1")).await;
        check(&all_full, &soon("queue_full", 429, "throttled"));
    };
    let waiters = futures_util::future::join(waiting("t0", 3), waiting("t1", 2));
    let ((one, other), ()) = futures_util::future::join(waiters, asking).await;
    for reply in one.iter().chain(&other) {
        check(reply, &soon("wait_expired", 429, "throttled"));
    }
    assert_eq!(judge::arrivals(&rig.sandbox), 0);
}

#[tokio::test]
async fn a_spent_day_is_refused_at_once_without_retry_after() {
    let rig = Rig::build().set(&settings::PER_DAY, "3").start().await;
    for _ in 0..3 {
        rig.get("t0", PATH).await.expect(200);
    }
    let refused = rig.get("t0", PATH).await;
    check(&refused, &form("day_quota_spent", 429, "quota_exceeded"));
    assert!(refused.header("ratelimit").starts_with(r#""day";r=0;t="#), "{refused:?}");
    assert_eq!(judge::arrivals(&rig.sandbox), 3);
}

#[tokio::test]
async fn refusals_for_want_of_a_token_tell_a_dead_grant_from_a_failing_endpoint() {
    let rig = Rig::build()
        .tenants(0)
        .expired(2)
        .sandbox(|options| options.token_interval = Duration::from_millis(10))
        .set(&settings::REFRESH_INTERVAL, "20ms")
        .start()
        .await;
    rig.sandbox.revoke("t0");
    let dead = rig.get("t0", PATH).await;
    check(&dead, &form("tenant_needs_authorization", 401, "unauthorized"));
    let down = FaultKind::Status { status: 503, retry_after: None, body: None };
    rig.sandbox.add_fault(Fault::new(Target::Token, down).times(1_000));
    let call = rig.call(Method::GET, "t1", PATH).header("prefer", "wait=3");
    check(&rig.http.send(call).await, &soon("token_unavailable", 503, "proxy.token_unavailable"));
    assert_eq!(judge::arrivals(&rig.sandbox), 0);
}

#[tokio::test]
async fn refusals_for_the_upstreams_sake_are_502_and_504() {
    let rig = Rig::build().set(&settings::UPSTREAM_TIMEOUT, "300ms").start().await;
    rig.sandbox.add_fault(Fault::new(Target::Api, FaultKind::Close));
    let lost = rig.http.send(rig.call(Method::POST, "t0", PATH).body("{}")).await;
    check(&lost, &form("upstream_unreachable", 502, "proxy.upstream_unreachable"));
    rig.sandbox.add_fault(Fault::new(Target::Api, FaultKind::Hang));
    let late = rig.get("t0", PATH).await;
    check(&late, &form("upstream_timeout", 504, "proxy.upstream_timeout"));
    assert_eq!(judge::arrivals(&rig.sandbox), 2);
}
