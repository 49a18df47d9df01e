//! Who is let in, and the answers that belong to no route.

use std::io;

use axum::routing::get;

use super::*;

/// Each route, with a method that it has.
const ROUTES: [(&str, &str); 24] = [
    ("GET", "/v1/api-keys"),
    ("GET", "/v1/api-keys/main"),
    ("POST", "/v1/api-keys/main/pause"),
    ("POST", "/v1/api-keys/main/resume"),
    ("GET", "/v1/tenants"),
    ("GET", "/v1/tenants/acme"),
    ("PUT", "/v1/tenants/acme"),
    ("DELETE", "/v1/tenants/acme"),
    ("POST", "/v1/tenants/acme/refresh"),
    ("POST", "/v1/tenants/acme/pause"),
    ("POST", "/v1/tenants/acme/resume"),
    ("GET", "/v1/tenants/acme/connect"),
    ("POST", "/v1/tenants/acme/connect"),
    ("GET", "/v1/clients"),
    ("POST", "/v1/clients"),
    ("DELETE", "/v1/clients/crm"),
    ("POST", "/v1/clients/crm/rotate"),
    ("POST", "/v1/export"),
    ("GET", "/v1/key"),
    ("POST", "/v1/key/rotate"),
    ("GET", "/v1/events"),
    ("GET", "/openapi.json"),
    ("GET", "/v1/nothing"),
    ("GET", "/"),
];

impl Bench {
    async fn with(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::empty()).unwrap()).await
    }
}

#[tokio::test(start_paused = true)]
async fn every_route_but_the_monitors_wants_the_token() {
    let bench = Bench::with_token(Some(ADMIN_TOKEN)).await;
    for (method, path) in ROUTES {
        let answer = bench.ask(method, path, None).await;
        answer.assert_error(401, "admin.unauthorized", "Authorization: Bearer");
        assert_eq!(answer.headers["www-authenticate"], r#"Bearer realm="ctct-proxy-admin""#);
    }
    for path in ["/livez", "/metrics"] {
        assert_eq!(bench.get(path).await.status, 200, "{path}");
    }
    assert_eq!(bench.get("/readyz").await.json()["status"], "starting");
    assert_eq!(bench.ask("POST", "/livez", None).await.status, 405);
}

#[tokio::test(start_paused = true)]
async fn only_the_whole_token_alone_is_the_token() {
    let bench = Bench::with_token(Some(ADMIN_TOKEN)).await;
    let good = format!("Bearer {ADMIN_TOKEN}");
    for (value, status) in [
        (good.as_str(), 200),
        (&format!("bearer  {ADMIN_TOKEN}"), 200),
        (&format!("Bearer {ADMIN_TOKEN}x"), 401),
        (&good[..good.len() - 1], 401),
        ("Bearer ", 401),
        (ADMIN_TOKEN, 401),
        (&format!("Basic {ADMIN_TOKEN}"), 401),
    ] {
        tokio::time::sleep(Duration::from_secs(60)).await;
        // With a token the name of the host does not matter.
        let headers = [("authorization", value), ("host", "proxy.example")];
        assert_eq!(bench.with("GET", "/v1/clients", &headers).await.status, status, "{value}");
    }
    let twice = [("authorization", good.as_str()), ("authorization", "Bearer other")];
    assert_eq!(bench.with("GET", "/v1/clients", &twice).await.status, 401);
}

#[tokio::test(start_paused = true)]
async fn an_address_that_shows_wrong_tokens_must_wait() {
    let bench = Bench::with_token(Some(ADMIN_TOKEN)).await;
    let good = format!("Bearer {ADMIN_TOKEN}");
    let ask = async |from: &str, authorization: &str| {
        let request = request("GET", "/v1/clients").header("authorization", authorization);
        let mut request = request.body(Body::empty()).unwrap();
        request.extensions_mut().insert(Peer(from.parse().unwrap()));
        bench.send(request).await
    };
    for _ in 0..FAILED_LOGINS {
        assert_eq!(ask("192.0.2.1", "Bearer wrong").await.status, 401);
    }
    assert_eq!(ask("192.0.2.1", &good).await.status, 200, "not too often yet");
    ask("192.0.2.1", "Bearer wrong").await.assert_error(429, "admin.too_many_requests", "wait");
    let answer = ask("192.0.2.1", &good).await;
    answer.assert_error(429, "admin.too_many_requests", "Retry-After");
    assert_eq!(answer.headers["retry-after"], "6");
    assert_eq!(ask("192.0.2.2", &good).await.status, 200, "another address");
    let monitor = request("GET", "/livez").body(Body::empty()).unwrap();
    assert_eq!(bench.send(monitor).await.status, 200);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(ask("192.0.2.1", &good).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn without_a_token_a_name_that_is_not_ours_is_refused() {
    let bench = Bench::open().await;
    for host in ["localhost:9090", "127.0.0.1", "[::1]:9090", "LOCALHOST"] {
        let answer = bench.with("GET", "/v1/clients", &[("host", host)]).await;
        assert_eq!(answer.status, 200, "{host}");
    }
    for host in ["rebound.example:9090", "192.168.0.7:9090", "", "localhost.example", "a b"] {
        let answer = bench.with("GET", "/v1/clients", &[("host", host)]).await;
        answer.assert_error(403, "admin.forbidden", "admin.token_file");
    }
    let twice = [("host", "localhost"), ("host", "rebound.example")];
    assert_eq!(bench.with("GET", "/v1/clients", &twice).await.status, 403);
    assert_eq!(bench.with("GET", "/v1/clients", &[]).await.status, 403);
    let by_authority = "http://localhost:9090/v1/clients";
    assert_eq!(bench.with("GET", by_authority, &[]).await.status, 200);
    assert_eq!(bench.with("GET", "/livez", &[("host", "pod.example")]).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_page_of_another_site_changes_nothing() {
    for token in [None, Some(ADMIN_TOKEN)] {
        let bench = Bench::with_token(token).await;
        bench.put("acme").await;
        let authorization = format!("Bearer {ADMIN_TOKEN}");
        let shown = [("host", "localhost:9090"), ("authorization", authorization.as_str())];
        for foreign in [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("origin", "https://evil.example"),
            ("origin", "http://localhost:8080"),
            ("origin", "null"),
        ] {
            let headers = [shown[0], shown[1], foreign];
            for path in ["/v1/api-keys/main/pause", "/v1/clients"] {
                let answer = bench.with("POST", path, &headers).await;
                answer.assert_error(403, "admin.forbidden", "another site");
            }
            let answer = bench.with("DELETE", "/v1/tenants/acme", &headers).await;
            answer.assert_error(403, "admin.forbidden", "another site");
            assert_eq!(bench.with("GET", "/v1/clients", &headers).await.status, 200);
        }
        for own in [
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-site", "none"),
            ("origin", "http://LOCALHOST:9090"),
        ] {
            let headers = [shown[0], shown[1], own];
            let answer = bench.with("POST", "/v1/api-keys/main/pause", &headers).await;
            assert_eq!(answer.status, 204, "{own:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_not_found_and_what_has_other_methods_names_them() {
    let bench = Bench::open().await;
    for path in ["/", "/v1", "/v1/tenants/", "/v1/tenants/acme/nothing", "/v3"] {
        bench.get(path).await.assert_error(404, "admin.not_found", "/v1");
    }
    let answer = bench.ask("PATCH", "/v1/tenants/acme", None).await;
    answer.assert_error(405, "admin.method_not_allowed", "Allow");
    let allowed = answer.headers["allow"].to_str().unwrap();
    for method in ["GET", "PUT", "DELETE"] {
        assert!(allowed.contains(method), "{allowed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_long_or_no_json_by_its_type_is_refused() {
    let bench = Bench::open().await;
    let long = json!({ "name": "x".repeat(70_000), "tenants": "*" });
    let answer = bench.ask("POST", "/v1/clients", Some(long)).await;
    answer.assert_error(413, "admin.payload_too_large", "65536 bytes");
    for (media_type, status) in [
        ("application/x-www-form-urlencoded", 415),
        ("text/plain", 415),
        ("application/json; charset=utf-8", 400),
    ] {
        let post = request("POST", "/v1/clients").header("content-type", media_type);
        let answer = bench.send(post.body(Body::from("{}")).unwrap()).await;
        assert_eq!(answer.status, status, "{media_type}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_is_not_waited_for() {
    let bench = Bench::open().await;
    let endless = Body::from_stream(futures_util::stream::pending::<Result<Vec<u8>, io::Error>>());
    let post = request("POST", "/v1/clients").body(endless).unwrap();
    bench.send(post).await.assert_error(400, "admin.bad_request", "in time");
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_one_answer_and_not_the_end() {
    let bench = Bench::built(None, None, |parts| {
        let (routes, document) = routes().split_for_parts();
        dress(routes.route("/panic", get(panicking)), Shared::new(parts, document))
    })
    .await;
    bench.get("/panic").await.assert_error(500, "admin.internal", "log");
    assert_eq!(bench.get("/v1/clients").await.status, 200);
}

async fn panicking() -> StatusCode {
    panic!("{MARK}")
}
