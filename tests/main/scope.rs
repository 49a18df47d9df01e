//! Refusals of the upstream hold what they concern: one tenant's bulk calls, one tenant, the key
//! for a moment, or the key's day; and refusals that our own calls do not explain are told.

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::future::join_all;
use http::{Method, Response};
use serde_json::Value;

use ctct_proxy::config::settings;
use ctct_proxy::sandbox::{Fault, FaultKind, LogEntry, Target};

use crate::support::{Call, Mirror, Reply, Rig, Watch, judge};

const PATH: &str = "/v3/contacts?limit=1";
const IMPORT: &str = "/v3/activities/contacts_json_import";
const LIST: &str = "5f3c2b1a-0d4e-4c6f-8a7b-9c0d1e2f3a4b";
const QUEUED: &str = r#"{"error_key":"activities.queue.full","error_message":"1,000 are queued"}"#;

fn of_account(account: &str, kind: FaultKind) -> Fault {
    Fault { account: Some(account.to_owned()), ..Fault::new(Target::Api, kind) }
}

fn status(status: u16, body: Option<&str>) -> FaultKind {
    FaultKind::Status { status, retry_after: None, body: body.map(str::to_owned) }
}

async fn import(rig: &Rig, tenant: &str) -> Reply {
    let body = serde_json::json!({
        "import_data": [{ "email": "a@example.com" }], "list_ids": [LIST],
    });
    let call = rig.call(Method::POST, tenant, IMPORT).header("priority", "u=5").json(&body);
    rig.http.send(call).await
}

async fn api_key(rig: &Rig) -> Value {
    rig.admin(Method::GET, "/v1/api-keys/default").await.json()
}

async fn tenant(rig: &Rig, name: &str) -> Value {
    rig.admin(Method::GET, &format!("/v1/tenants/{name}")).await.json()
}

async fn metric(rig: &Rig, line: &str) -> u64 {
    let page = rig.admin(Method::GET, "/metrics").await;
    let page = String::from_utf8(page.body.to_vec()).unwrap();
    let value = page.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{line} is not in {page}")).parse().unwrap()
}

#[tokio::test]
async fn throttled_is_followed_by_a_window_without_any_call_of_the_key() {
    let rig = Rig::build().tenants(4).start().await;
    for _ in 0..8 {
        rig.get("t0", PATH).await.expect(200);
    }
    rig.sandbox.add_fault(Fault::new(Target::Api, FaultKind::Throttled));
    join_all((0..40).map(async |number: usize| {
        rig.get(&format!("t{}", number % 4), PATH).await.expect(200);
    }))
    .await;
    let calls = judge::api_calls(&rig.sandbox);
    assert_eq!(calls.len(), 49);
    let refused = calls.iter().position(|call| call.status == 429).unwrap();
    // what was under way when the refusal came had left before
    let silent = |pair: &[LogEntry]| judge::gap(&pair[0], &pair[1]) >= Duration::from_millis(950);
    assert_eq!(calls[refused..].windows(2).filter(|pair| silent(pair)).count(), 1);
}

#[tokio::test]
async fn a_limit_of_queued_activities_holds_the_bulk_calls_of_one_tenant() {
    let rig = Rig::build().tenants(2).start().await;
    rig.sandbox.add_fault(of_account("t0", status(429, Some(QUEUED))));
    let refused = import(&rig, "t0").await.expect(429);
    assert_eq!((refused.reason(), &refused.body[..]), ("", QUEUED.as_bytes()));
    let held = import(&rig, "t0").await.expect_refusal(429, "wait_too_long");
    assert_eq!(held.retry_after(), Some(30));
    rig.get("t0", PATH).await.expect(200);
    rig.get("t0", "/v3/activities?limit=1").await;
    import(&rig, "t1").await.expect(201);
    let arrived = judge::arrivals(&rig.sandbox);
    assert_eq!(arrived, 4, "what is held did not leave");
    let line = r#"ctct_proxy_upstream_throttled_total{api_key="default",scope="other"}"#;
    assert_eq!(metric(&rig, line).await, 1);
    let view = tenant(&rig, "t0").await;
    assert_eq!(view["state"], "ready");
    assert!(view["state_reason"].as_str().unwrap().contains("only bulk calls"), "{view}");
    rig.admin(Method::POST, "/v1/tenants/t0/resume").await.expect(204);
    import(&rig, "t0").await.expect(201);
    assert_eq!(tenant(&rig, "t0").await["state_reason"], Value::Null);
}

#[tokio::test]
async fn a_page_of_html_pauses_the_key_and_is_passed_on() {
    for code in [429, 403, 503] {
        let rig = Rig::build().tenants(2).start().await;
        rig.get("t0", PATH).await.expect(200);
        rig.sandbox.add_fault(Fault::new(Target::Api, FaultKind::Html { status: code }));
        let call = rig.call(Method::POST, "t0", "/v3/contacts").body("{}");
        assert_eq!(rig.http.send(call).await.expect(code).reason(), "");
        let watch = Watch::start();
        rig.get("t1", PATH).await.expect(200);
        let took = watch.elapsed();
        assert!(took >= Duration::from_millis(900), "{code}: {took:?}");
        assert_eq!(judge::arrivals(&rig.sandbox), 3);
    }
}

#[tokio::test]
async fn a_row_of_403_pauses_its_tenant_until_an_operator_says_otherwise() {
    let rig = Rig::build().tenants(2).start().await;
    rig.sandbox.add_fault(of_account("t0", status(403, None)).times(11));
    for _ in 0..10 {
        assert_eq!(rig.get("t0", PATH).await.expect(403).reason(), "");
    }
    rig.get("t0", PATH).await.expect_refusal(429, "wait_too_long");
    rig.get("t1", PATH).await.expect(200);
    assert_eq!(judge::arrivals(&rig.sandbox), 11);
    let view = tenant(&rig, "t0").await;
    assert!(view["state_reason"].as_str().unwrap().contains("ten calls in a row"), "{view}");
    assert_eq!(tenant(&rig, "t1").await["state_reason"], Value::Null);
    rig.admin(Method::POST, "/v1/tenants/t0/resume").await.expect(204);
    rig.get("t0", PATH).await.expect(403);
    rig.get("t0", PATH).await.expect(200);
}

#[tokio::test]
async fn a_tenant_whose_every_token_is_refused_pauses_and_its_refreshes_end() {
    let rig = Rig::build()
        .tenants(2)
        .sandbox(|options| options.token_interval = Duration::from_millis(5))
        .set(&settings::REFRESH_INTERVAL, "10ms")
        .start()
        .await;
    rig.sandbox.add_fault(of_account("t0", FaultKind::Unauthorized).times(1_000));
    let mut replies = 0;
    while rig.get("t0", PATH).await.status == 401 {
        replies += 1;
        assert!(replies < 30, "it never pauses");
    }
    rig.get("t0", PATH).await.expect_refusal(429, "wait_too_long");
    assert!(judge::token_requests(&rig.sandbox).len() <= 11);
    rig.get("t1", PATH).await.expect(200);
    rig.sandbox.clear_faults();
    rig.admin(Method::POST, "/v1/tenants/t0/refresh").await.expect(202);
    rig.get("t0", PATH).await.expect(200);
}

#[tokio::test]
async fn a_compressed_refusal_of_the_day_is_understood() {
    let mirror = Mirror::start(|_| {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(br#"{"error_key":"quota_exceeded","error_message":"x"}"#).unwrap();
        let head = Response::builder().status(429).header("content-encoding", "gzip");
        let body = Bytes::from(gzip.finish().unwrap());
        head.header("content-type", "application/json").body(body).unwrap()
    })
    .await;
    let rig = Rig::build().upstream(mirror.url.clone()).start().await;
    let call = rig.call(Method::GET, "t0", PATH).header("accept-encoding", "gzip");
    rig.http.send(call).await.expect_refusal(429, "day_quota_spent");
    rig.get("t0", PATH).await.expect_refusal(429, "day_quota_spent");
    assert_eq!(mirror.seen().len(), 1);
}

#[tokio::test]
async fn calls_that_others_make_with_the_key_are_told_and_end_the_day_once() {
    let rig = Rig::build()
        .per_second(400)
        .sandbox(|options| options.per_day = 500)
        .set(&settings::PER_DAY, "500")
        .start()
        .await;
    let quiet = &api_key(&rig).await["foreign_use"];
    assert_eq!(*quiet, serde_json::json!({"suspected": false, "calls_today": 0, "since": null}));
    let other = rig.sandbox.connect_tenant("app", "other").access_token;
    for _ in 0..10 {
        let calls = (0..30).map(|_| {
            let call = Call::get(format!("{}{PATH}", rig.sandbox.url())).bearer(&other);
            rig.http.send(call)
        });
        for reply in join_all(calls).await {
            reply.expect(200);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let replies = join_all((0..300).map(|_| rig.get("t0", PATH))).await;
    let served = replies.iter().filter(|reply| reply.status == 200).count();
    assert!((195..=200).contains(&served), "{served}");
    for reply in replies.into_iter().filter(|reply| reply.status != 200) {
        reply.expect_refusal(429, "day_quota_spent");
    }
    let refused = judge::api_calls(&rig.sandbox).iter().filter(|call| call.status == 429).count();
    for _ in 0..20 {
        rig.get("t0", PATH).await.expect_refusal(429, "day_quota_spent");
    }
    let after = judge::api_calls(&rig.sandbox).iter().filter(|call| call.status == 429).count();
    assert_eq!(after, refused, "a loop of refusals");
    let view = &api_key(&rig).await["foreign_use"];
    assert_eq!(view["suspected"], true, "{view}");
    let calls = view["calls_today"].as_u64().unwrap();
    assert!((250..=300).contains(&calls), "{view}");
    assert!(view["since"].is_string());
    let line = r#"ctct_proxy_foreign_use_calls{api_key="default"}"#;
    assert_eq!(metric(&rig, line).await, calls);
}
