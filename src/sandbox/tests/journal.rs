//! The log, the totals, the control calls, and the sandbox's life.
//!
//! Other tests judge the proxy by these, so that they are themselves held to what was sent.
//!
//! Other tests judge the proxy by these, so that they are themselves held to what was sent.

use serde_json::json;

use crate::sandbox::{Verdict, fingerprint};

use super::*;

const SUMMARY: &str = "/v3/account/summary";

#[tokio::test(start_paused = true)]
async fn the_log_tells_what_arrived_and_holds_no_token() {
    let bench = Bench::start(Options { per_second: 1, record_headers: true, ..quick() }).await;
    let tenant = bench.tenant();
    bench.pass(Duration::from_millis(250)).await;
    bench.get("/v3/contacts?limit=1&x=%2F", &tenant.access_token).await;
    bench.get(SUMMARY, &tenant.access_token).await;
    bench.get(SUMMARY, "nobody").await;
    bench.form(&refresh_form(&tenant.refresh_token)).await;
    let log = bench.sandbox.log();
    let verdicts: Vec<Verdict> = log.iter().map(|entry| entry.verdict).collect();
    let expected =
        [Verdict::Ok, Verdict::Throttled, Verdict::Unauthorized, Verdict::TokenOk].as_slice();
    assert_eq!(verdicts, expected);
    let first = &log[0];
    assert!(first.mono_ns >= 250_000_000 && first.unix_ns >= NOON * 1_000_000_000 + 250_000_000);
    assert_eq!((first.method.as_str(), &*first.path), ("GET", "/v3/contacts"));
    assert_eq!(first.query.as_deref(), Some("limit=1&x=%2F"));
    assert_eq!(first.client_id.as_deref(), Some(KEY));
    assert_eq!(first.account.as_deref(), Some("acme"));
    assert_eq!(first.status, 200);
    assert_eq!(first.headers.as_ref().unwrap()["authorization"], "***");
    let shown = fingerprint(&tenant.refresh_token);
    assert_eq!(log[3].fingerprint.as_deref(), Some(shown.as_str()));
    assert_eq!(log[3].account.as_deref(), Some("acme"));
    assert_eq!(log[2].account, None);
    let text = format!("{log:?}");
    assert!(!text.contains(&tenant.refresh_token) && !text.contains(&tenant.access_token));
}

#[tokio::test(start_paused = true)]
async fn the_log_and_the_summary_are_read_over_http() {
    let bench = Bench::start(unlimited()).await;
    let wish = json!({"client_id": KEY, "account": "acme", "expired": true});
    let tenant = bench.control(Method::POST, "/sandbox/tenants", &wish).await;
    assert_eq!(tenant.status, 201);
    let tenant = tenant.json();
    assert_eq!(bench.get(SUMMARY, tenant["access_token"].as_str().unwrap()).await.status, 401);
    assert_eq!(bench.refresh(tenant["refresh_token"].as_str().unwrap()).await.status, 200);
    let log = bench.control(Method::GET, "/sandbox/log?since=1", &Value::Null).await.json();
    assert_eq!((&log["next"], &log["items"][0]["index"]), (&json!(2), &json!(1)));
    assert_eq!(log["items"][0]["verdict"], "token_ok");
    let summary = bench.control(Method::GET, "/sandbox/summary", &Value::Null).await.json();
    assert_eq!(summary["arrivals"], 2);
    assert_eq!(summary["by_verdict"], json!({"unauthorized": 1, "token_ok": 1}));
    assert_eq!(summary["api_keys"][KEY]["days"]["2026-11-24"], 1);
    assert_eq!(summary["today"], "2026-11-24");
    assert_eq!(summary["token"][KEY]["requests"], 1);
}

#[tokio::test(start_paused = true)]
async fn the_most_calls_in_one_second_include_refused_ones() {
    let bench = Bench::start(Options { per_second: 2, ..quick() }).await;
    let token = bench.tenant().access_token;
    for _ in 0..5 {
        bench.get(SUMMARY, &token).await;
    }
    bench.pass(Duration::from_secs(1)).await;
    bench.get(SUMMARY, &token).await;
    assert_eq!(bench.sandbox.counts().most_in_one_second(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_reset_forgets_log_and_counts_but_no_tokens() {
    let bench = Bench::start(Options { per_day: 1, ..quick() }).await;
    let token = bench.tenant().access_token;
    bench.get(SUMMARY, &token).await;
    let reply = bench.control(Method::POST, "/sandbox/reset", &Value::Null).await;
    assert_eq!(reply.status, 204);
    assert!(bench.sandbox.log().is_empty());
    assert_eq!(bench.sandbox.counts().arrivals, 0);
    assert_eq!(bench.get(SUMMARY, &token).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn http_2_with_prior_knowledge_is_served() {
    let bench = Bench::start(unlimited()).await;
    let token = bench.tenant().access_token;
    let client: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let request = Request::get(bench.sandbox.url() + SUMMARY)
        .header("authorization", format!("Bearer {token}"))
        .body(Full::default())
        .unwrap();
    let response = client.request(request).await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_2);
    assert_eq!(response.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_was_shut_down_has_freed_its_port() {
    let bench = Bench::start(unlimited()).await;
    bench.get(SUMMARY, &bench.tenant().access_token).await;
    let listen = bench.sandbox.local_addr();
    bench.sandbox.shutdown().await;
    let again = Sandbox::start(Options { listen, ..quick() }, bench.clock.clone()).await;
    assert_eq!(again.unwrap().local_addr(), listen);
}
