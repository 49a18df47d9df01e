//! Clients, and the lines that changes leave in the log.

use std::io;
use std::sync::Mutex;

use tracing::{Dispatch, Level};
use tracing_subscriber::fmt::MakeWriter;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_client_is_added_with_its_key_listed_without_and_removed() {
    let bench = Bench::open().await;
    let body = json!({ "name": "crm", "tenants": ["b", "a", "b"] });
    let added = bench.ask("POST", "/v1/clients", Some(body)).await;
    assert_eq!(added.status, 201, "{}", added.text);
    let key = added.json()["key"].as_str().unwrap().to_owned();
    let shown = json!({
        "name": "crm", "tenants": ["a", "b"], "key": key,
        "expires_at": null, "previous_key_until": null,
    });
    assert_eq!(added.json(), shown);
    assert_eq!(bench.clients.holder(&key).unwrap().name.as_str(), "crm");

    let all = json!({ "name": "all", "tenants": "*" });
    assert_eq!(bench.ask("POST", "/v1/clients", Some(all)).await.json()["tenants"], "*");
    let at = "2026-11-24T06:00:00.000Z";
    let listed = json!({
        "items": [
            {
                "name": "all", "tenants": "*", "created_at": at,
                "expires_at": null, "previous_key_until": null, "last_used_at": null,
            },
            {
                "name": "crm", "tenants": ["a", "b"], "created_at": at,
                "expires_at": null, "previous_key_until": null, "last_used_at": at,
            },
        ],
        "next_cursor": null,
    });
    assert_eq!(bench.get("/v1/clients").await.json(), listed);

    assert_eq!(bench.ask("DELETE", "/v1/clients/crm", None).await.status, 204);
    assert!(bench.clients.holder(&key).is_err());
    let again = bench.ask("DELETE", "/v1/clients/crm", None).await;
    again.assert_error(404, "admin.not_found", "client crm");
    assert_eq!(bench.get("/v1/clients").await.names("name"), ["all"]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_makes_no_sense_is_refused() {
    let bench = Bench::open().await;
    for (body, words) in [
        (json!({ "tenants": "*" }), "the field name is missing"),
        (json!({ "name": "", "tenants": "*" }), "name is no name"),
        (json!({ "name": "x" }), "at least one tenant name"),
        (json!({ "name": "x", "tenants": [] }), "at least one tenant name"),
        (json!({ "name": "x", "tenants": "acme" }), "at least one tenant name"),
        (json!({ "name": "x", "tenants": [1] }), "at least one tenant name"),
        (json!({ "name": "x", "tenants": ["a/b"] }), "a name has 1 to 128"),
        (json!({ "name": "x", "tenants": "*", "key": MARK }), "key is unknown; known are name"),
        (json!({ "name": "x", "tenants": "*", "expires_in": 0 }), "seconds from 1 to"),
        (json!({ "name": "x", "tenants": "*", "expires_in": 1.5 }), "seconds from 1 to"),
        (json!({ "name": "x", "tenants": "*", "expires_in": "90d" }), "seconds from 1 to"),
    ] {
        let answer = bench.ask("POST", "/v1/clients", Some(body)).await;
        answer.assert_error(400, "admin.bad_request", words);
    }
    assert!(bench.clients.list().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_key_is_replaced_with_an_overlap_and_an_end_as_asked() {
    let bench = Bench::open().await;
    let body = json!({ "name": "crm", "tenants": ["a"], "expires_in": 3_600 });
    let first = bench.ask("POST", "/v1/clients", Some(body)).await.json();
    assert_eq!(first["expires_at"], "2026-11-24T07:00:00.000Z");
    let path = "/v1/clients/crm/rotate";
    let body = json!({ "overlap": 600, "expires_in": 86_400 });
    let second = bench.ask("POST", path, Some(body)).await;
    assert_eq!(second.status, 200, "{}", second.text);
    let second = second.json();
    assert_eq!(second["previous_key_until"], "2026-11-24T06:10:00.000Z");
    assert_eq!(second["expires_at"], "2026-11-25T06:00:00.000Z");
    assert_eq!((&second["name"], &second["tenants"]), (&json!("crm"), &json!(["a"])));
    let opens = |shown: &Value| bench.clients.holder(shown["key"].as_str().unwrap()).is_ok();
    assert!(opens(&first) && opens(&second));
    let listed = bench.get("/v1/clients").await.json();
    assert_eq!(listed["items"][0]["previous_key_until"], second["previous_key_until"]);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(!opens(&first) && opens(&second));

    let third = bench.ask("POST", path, None).await.json();
    assert_eq!(third["previous_key_until"], "2026-11-25T06:00:00.000Z", "not beyond its own end");
    assert_eq!(third["expires_at"], Value::Null);
    for (body, words) in [
        (json!({ "overlap": 7_776_001 }), "overlap must be a whole number of seconds from 0 to"),
        (json!({ "expires_in": 0 }), "expires_in must be a whole number of seconds from 1 to"),
        (json!({ "key": MARK }), "key is unknown; known are overlap, expires_in"),
    ] {
        bench.ask("POST", path, Some(body)).await.assert_error(400, "admin.bad_request", words);
    }
    let nobody = bench.ask("POST", "/v1/clients/nobody/rotate", None).await;
    nobody.assert_error(404, "admin.not_found", "client nobody");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_taken_is_a_conflict_and_the_first_key_stays_good() {
    let bench = Bench::open().await;
    let body = json!({ "name": "crm", "tenants": "*" });
    let first = bench.ask("POST", "/v1/clients", Some(body.clone())).await.json();
    let second = bench.ask("POST", "/v1/clients", Some(body)).await;
    second.assert_error(409, "admin.conflict", "exists already");
    assert!(bench.clients.holder(first["key"].as_str().unwrap()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_could_not_be_stored_is_not_there() {
    let bench = Bench::open().await;
    bench.store.close().await.unwrap();
    let body = json!({ "name": "crm", "tenants": "*" });
    let answer = bench.ask("POST", "/v1/clients", Some(body)).await;
    answer.assert_error(503, "admin.store_unavailable", "try again");
    assert!(bench.clients.list().is_empty());
    let answer = bench.ask("DELETE", "/v1/clients/crm", None).await;
    answer.assert_error(503, "admin.store_unavailable", "try again");
}

#[tokio::test(start_paused = true)]
async fn a_change_whose_operator_goes_away_is_made_whole() {
    let bench = Bench::open().await;
    let body = json!({ "name": "crm", "tenants": "*" }).to_string();
    let post = request("POST", "/v1/clients").body(Body::from(body)).unwrap();
    let mut answer = Box::pin(bench.router.clone().oneshot(post));
    // As far as it comes without waiting; then the operator is gone.
    assert!(futures_util::poll!(&mut answer).is_pending());
    drop(answer);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let stored = bench.store.clients().await.unwrap();
    assert_eq!(bench.clients.list().len(), 1);
    assert_eq!(stored.len(), 1);
}

/// Where log lines go.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn every_change_leaves_a_line_in_the_log_and_no_secret() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt().with_writer(lines.clone()).with_ansi(false);
    let subscriber = Dispatch::new(subscriber.with_max_level(Level::TRACE).finish());
    // While there is but one subscriber, a line that another test's thread comes by first is
    // switched off for all, since nobody listens on that thread.
    let _second = Dispatch::new(tracing_subscriber::registry());
    let listening = tracing::dispatcher::set_default(&subscriber);
    let bench = Bench::with_token(Some(ADMIN_TOKEN)).await;
    let authorization = format!("Bearer {ADMIN_TOKEN}");
    let mut key = String::new();
    for (method, path, body) in [
        ("PUT", "/v1/tenants/acme", Some(grant("main"))),
        ("PUT", "/v1/tenants/acme", Some(grant("main"))),
        ("POST", "/v1/tenants/acme/refresh", None),
        ("POST", "/v1/tenants/acme/pause", None),
        ("DELETE", "/v1/tenants/acme", None),
        ("POST", "/v1/api-keys/main/pause", None),
        ("POST", "/v1/clients", Some(json!({ "name": "crm", "tenants": "*" }))),
        ("POST", "/v1/clients/crm/rotate", None),
        ("DELETE", "/v1/clients/crm", None),
    ] {
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let change = request(method, path).header("authorization", &authorization);
        let mut change = change.body(body).unwrap();
        change.extensions_mut().insert(Peer("192.0.2.7".parse().unwrap()));
        let answer = bench.send(change).await;
        assert!(answer.status < 300, "{path}: {}", answer.text);
        if path == "/v1/clients" {
            answer.json()["key"].as_str().unwrap().clone_into(&mut key);
        }
    }
    drop(listening);
    let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    for (words, count) in [
        ("tenant put by an operator tenant=acme api_key=main change=\"added\"", 1),
        ("tenant put by an operator tenant=acme api_key=main change=\"replaced\"", 1),
        ("refresh ordered by an operator tenant=acme", 1),
        ("tenant held or released by an operator tenant=acme paused=true", 1),
        ("tenant removed by an operator tenant=acme", 1),
        ("API key held or released by an operator api_key=main paused=true", 1),
        ("client added by an operator client=crm", 1),
        ("client's key replaced by an operator client=crm", 1),
        ("client removed by an operator client=crm", 1),
        (" operator{from=192.0.2.7}: ctct_proxy::audit: ", 9),
    ] {
        assert_eq!(log.matches(words).count(), count, "{words} in {log}");
    }
    for secret in [MARK, ADMIN_TOKEN, &key] {
        assert!(!log.contains(secret), "{log}");
    }
}
