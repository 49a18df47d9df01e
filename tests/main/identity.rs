//! Who calls, and for which tenant.

use http::Method;
use serde_json::json;

use ctct_proxy::config::settings;

use crate::support::{Call, Rig, judge};

const PATH: &str = "/v3/contacts?limit=1";

/// Whose calls have arrived, in their order.
fn accounts(rig: &Rig) -> Vec<String> {
    let calls = judge::api_calls(&rig.sandbox);
    calls.iter().map(|call| call.account.as_deref().unwrap_or("nobody").to_owned()).collect()
}

#[tokio::test]
async fn a_tenant_is_named_by_path_by_header_or_by_being_the_only_one() {
    let rig = Rig::build().tenants(3).start().await;
    let only = rig.client("only", &["t2"]).await;
    let get = |path: &str| Call::get(rig.url(path));
    let calls = [
        get("/t/t0/v3/contacts").bearer(&rig.key),
        get(PATH).bearer(&rig.key).header("ctct-tenant", "t1"),
        get(PATH).bearer(&only),
        get(PATH).header("ctct-proxy-key", rig.key.as_str()).header("ctct-tenant", "t1"),
        get(PATH).header("ctct-proxy-key", only.as_str()).bearer("anything else"),
        get("/t/t0/v3/contacts").bearer(&rig.key).header("ctct-tenant", "t0"),
        get("/t/t%30/v3/contacts").bearer(&rig.key),
        get(PATH).header("authorization", format!("bearer {only}")),
    ];
    for call in calls {
        rig.http.send(call).await.expect(200);
    }
    assert_eq!(accounts(&rig), ["t0", "t1", "t2", "t1", "t2", "t0", "t0", "t2"]);
}

#[tokio::test]
async fn an_address_that_shows_too_many_wrong_keys_is_told_to_wait_and_good_keys_are_served() {
    let rig = Rig::build().set(&settings::FAILED_LOGINS, "3").start().await;
    let wrong = format!("ctp_{}", "A".repeat(43));
    let get = |key: &str| Call::get(rig.url("/t/t0/v3/contacts")).bearer(key);
    for _ in 0..3 {
        rig.http.send(get(&wrong)).await.expect_refusal(401, "client_unauthenticated");
    }
    let refused = rig.http.send(get(&wrong)).await.expect_refusal(429, "logins_limited");
    let wait = refused.retry_after().expect("it says when");
    assert!((1..=6).contains(&wait), "{wait}");
    rig.http.send(Call::get(rig.url(PATH))).await.expect_refusal(401, "client_unauthenticated");
    rig.http.send(get(&rig.key)).await.expect(200);
    assert_eq!(judge::api_calls(&rig.sandbox).len(), 1);
}

#[tokio::test]
async fn a_client_changes_its_key_without_a_gap() {
    let rig = Rig::start().await;
    let old = rig.client("crm", &["t0"]).await;
    let get = |key: &str| Call::get(rig.url(PATH)).bearer(key);
    let rotate = Call::new(Method::POST, rig.admin_url("/v1/clients/crm/rotate"));
    let answer = rig.http.send(rotate.json(&json!({ "overlap": 1_000 }))).await.expect(200);
    let new = answer.json()["key"].as_str().expect("a key").to_owned();
    rig.http.send(get(&old)).await.expect(200);
    rig.http.send(get(&new)).await.expect(200);
    let rotate = Call::new(Method::POST, rig.admin_url("/v1/clients/crm/rotate"));
    rig.http.send(rotate.json(&json!({ "overlap": 0 }))).await.expect(200);
    rig.http.send(get(&new)).await.expect_refusal(401, "client_unauthenticated");
    rig.http.send(get(&old)).await.expect_refusal(401, "client_unauthenticated");
    let clients = rig.admin(Method::GET, "/v1/clients").await.json();
    let crm = clients["items"].as_array().expect("items").iter().find(|c| c["name"] == "crm");
    assert!(crm.expect("listed")["last_used_at"].is_string());
}

#[tokio::test]
async fn callers_without_a_good_key_and_for_other_tenants_are_refused_unasked() {
    let rig = Rig::build().tenants(3).start().await;
    let some = rig.client("some", &["t0", "t1"]).await;
    let gone = rig.client("gone", &[]).await;
    rig.admin(Method::DELETE, "/v1/clients/gone").await.expect(204);
    let get = |path: &str| Call::get(rig.url(path));
    let unknown = format!("ctp_{}", "A".repeat(43));
    let for_t2 = |key: &str| get(PATH).bearer(key).header("ctct-tenant", "t2");
    let refused = [
        (get(PATH), 401, "client_unauthenticated"),
        (get(PATH).bearer("t0"), 401, "client_unauthenticated"),
        (get(PATH).bearer(&unknown), 401, "client_unauthenticated"),
        (for_t2(&gone), 401, "client_unauthenticated"),
        (get(PATH).header("authorization", "Basic eDp5"), 401, "client_unauthenticated"),
        (for_t2(&some), 403, "tenant_forbidden"),
        (get("/t/nobody/v3/contacts").bearer(&some), 403, "tenant_forbidden"),
        (get("/t/nobody/v3/contacts").bearer(&rig.key), 404, "tenant_unknown"),
        (get(PATH).bearer(&some), 400, "bad_request"),
        (get(PATH).bearer(&rig.key), 400, "bad_request"),
        (get("/t/t0/v3/contacts").bearer(&rig.key).header("ctct-tenant", "t1"), 400, "bad_request"),
        (for_t2(&rig.key).header("ctct-tenant", "t1"), 400, "bad_request"),
        (for_t2(&rig.key).bearer(&rig.key), 400, "bad_request"),
        (get(PATH).bearer(&rig.key).header("ctct-tenant", "no such name"), 400, "bad_request"),
    ];
    for (call, status, reason) in refused {
        rig.http.send(call).await.expect_refusal(status, reason);
    }
    assert_eq!(judge::arrivals(&rig.sandbox), 0);
}

#[tokio::test]
async fn without_a_key_the_bearer_may_name_the_tenant_when_that_is_allowed() {
    let rig = Rig::build().tenants(2).set(&settings::ALLOW_ANONYMOUS, "true").start().await;
    let only = rig.client("only", &["t1"]).await;
    let get = |path: &str| Call::get(rig.url(path));
    for call in [
        get(PATH).bearer("t0"),
        get("/t/t1/v3/contacts"),
        get(PATH).header("ctct-tenant", "t0"),
        get("/t/t1/v3/contacts").bearer("some token of the caller's own"),
        get(PATH).bearer(&only),
    ] {
        rig.http.send(call).await.expect(200);
    }
    assert_eq!(accounts(&rig), ["t0", "t1", "t0", "t1", "t1"]);
    let two = get("/t/t1/v3/contacts").bearer("t0");
    rig.http.send(two).await.expect_refusal(400, "bad_request");
    rig.http.send(get(PATH).bearer("nobody")).await.expect_refusal(404, "tenant_unknown");
    rig.http.send(get(PATH)).await.expect_refusal(400, "bad_request");
    let unknown = format!("ctp_{}", "A".repeat(43));
    let reply = rig.http.send(get(PATH).bearer(&unknown)).await;
    reply.expect_refusal(401, "client_unauthenticated");
}

#[tokio::test]
async fn web_pages_cannot_call_without_a_key() {
    let rig = Rig::build().tenants(1).set(&settings::ALLOW_ANONYMOUS, "true").start().await;
    let own = rig.app.data_address().to_string();
    let call = |method: &Method, host: &str| {
        let call = Call::new(method.clone(), rig.url("/t/t0/v3/contacts")).body("{}");
        call.header("host", host)
    };
    let post = |host: &str| call(&Method::POST, host);
    let refused = [
        call(&Method::GET, "evil.example"),
        post("evil.example").header("sec-fetch-site", "same-origin"),
        post(&own).header("origin", "http://evil.example"),
        post(&own).header("origin", "null"),
        post(&own).header("sec-fetch-site", "cross-site"),
    ];
    for call in refused {
        rig.http.send(call).await.expect_refusal(400, "bad_request");
    }
    assert_eq!(judge::arrivals(&rig.sandbox), 0);
    let served = [
        call(&Method::GET, &own),
        post(&own),
        post("localhost"),
        post("[::1]:8080"),
        post("10.1.2.3"),
        post(&own).header("origin", format!("http://{own}")),
        post("proxy.example").bearer(&rig.key).header("origin", "http://other.example"),
    ];
    for call in served {
        assert_eq!(rig.http.send(call).await.reason(), "");
    }
    assert_eq!(judge::arrivals(&rig.sandbox), 7);
}

#[tokio::test]
async fn tenants_and_clients_come_and_go_while_running() {
    let rig = Rig::build().tenants(1).start().await;
    let grant = rig.sandbox.connect_tenant("app", "new");
    let body = json!({"api_key": "default", "refresh_token": grant.refresh_token});
    let put = Call::new(Method::PUT, rig.admin_url("/v1/tenants/new")).json(&body);
    rig.http.send(put).await.expect(201);
    let add = Call::new(Method::POST, rig.admin_url("/v1/clients"))
        .json(&json!({"name": "new", "tenants": ["new"]}));
    let added = rig.http.send(add).await.expect(201);
    let key = added.json()["key"].as_str().unwrap().to_owned();
    let get = || Call::get(rig.url(PATH)).bearer(&key);
    rig.http.send(get()).await.expect(200);
    rig.admin(Method::DELETE, "/v1/tenants/new").await.expect(204);
    rig.http.send(get()).await.expect_refusal(403, "tenant_forbidden");
    rig.get("new", PATH).await.expect_refusal(404, "tenant_unknown");
    rig.admin(Method::DELETE, "/v1/clients/new").await.expect(204);
    rig.http.send(get()).await.expect_refusal(401, "client_unauthenticated");
}
