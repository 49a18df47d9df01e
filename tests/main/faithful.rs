//! What passes, in both directions: bytes of targets and bodies, headers, protocols.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::{HeaderMap, Method, Response, StatusCode, Version};

use crate::support::{Call, Dice, Http, Mirror, Rig};

/// An upstream that gives every body back.
async fn echo() -> Mirror {
    Mirror::start(|seen| Response::new(seen.body.clone())).await
}

async fn before(mirror: &Mirror) -> Rig {
    Rig::build().upstream(mirror.url.clone()).start().await
}

#[tokio::test]
async fn bodies_of_every_size_pass_unchanged_in_both_directions() {
    let mirror = echo().await;
    let rig = before(&mirror).await;
    let mut dice = Dice::new(7);
    // around the buffers on the way, the replay buffer (1 MiB) and far above it
    let sizes = [0, 1, 8_191, 8_193, 65_536, 1 << 20, (1 << 20) + 1, 9_000_000];
    for size in sizes {
        let body = Bytes::from(dice.bytes(size));
        let call = rig.call(Method::POST, "t0", "/v3/contacts").body(body.clone());
        let reply = rig.http.send(call).await.expect(200);
        let seen = mirror.seen().pop().unwrap();
        assert!(seen.body == body, "{size} bytes up");
        assert!(reply.body == body, "{size} bytes down");
        assert_eq!(seen.head.method, Method::POST);
    }
}

#[tokio::test]
async fn targets_pass_byte_for_byte() {
    let mirror = echo().await;
    let rig = before(&mirror).await;
    let targets = [
        "/v3",
        "/v3/",
        "/v3/contacts?cursor=bGltaXQ9MSZuZXh0PTI%3D",
        "/v3//contacts///x?a=b&&c=%2F..%2f&d=%zz",
        "/v3/contacts/a%20b+c;d=e,f?q=%C3%A9+'()*!~|",
        "/v3/contacts?",
        "/v3/contacts?redirect=http://other.example/?x=y",
    ];
    for target in targets {
        rig.get("t0", target).await.expect(200);
        let seen = mirror.seen().pop().unwrap();
        assert_eq!(seen.head.uri.to_string(), target);
        let url = format!("/t/t0{target}");
        rig.http.send(Call::get(rig.url(&url)).bearer(&rig.key)).await.expect(200);
        assert_eq!(mirror.seen().pop().unwrap().head.uri.to_string(), target, "with its tenant");
    }
}

#[tokio::test]
async fn what_is_the_callers_own_ends_at_the_proxy_and_the_rest_passes() {
    let mirror = echo().await;
    let rig = before(&mirror).await;
    let own = [
        ("cookie", "session=1"),
        ("forwarded", "for=192.0.2.1"),
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-anything", "1"),
        ("x-api-key", "mine"),
        ("proxy-authorization", "Basic eDp5"),
        ("priority", "u=1"),
        ("prefer", "wait=20"),
        ("request-id", "r-1"),
        ("x-request-id", "r-2"),
        ("te", "trailers"),
        ("keep-alive", "timeout=5"),
        ("x-named", "hop"),
        ("connection", "x-named, keep-alive, te"),
    ];
    let theirs = [
        ("accept", "application/json"),
        ("accept-encoding", "gzip, br"),
        ("accept-language", "de"),
        ("user-agent", "own/1.0"),
        ("content-type", "application/json; charset=utf-8"),
        ("if-none-match", "\"abc\""),
        ("x-custom", "one"),
        ("x-custom", "two"),
    ];
    let mut call = rig.call(Method::POST, "t0", "/v3/contacts").body("{}");
    for (name, value) in own.into_iter().chain(theirs) {
        call = call.header(name, value);
    }
    rig.http.send(call).await.expect(200);
    let seen = mirror.seen().pop().unwrap();
    for (name, _) in own {
        assert!(!seen.head.headers.contains_key(name), "{name} passed");
    }
    for name in ["ctct-tenant", "ctct-proxy-key"] {
        assert!(!seen.head.headers.contains_key(name), "{name} passed");
    }
    for (name, value) in theirs {
        let values: Vec<_> = seen.head.headers.get_all(name).iter().collect();
        assert!(values.iter().any(|seen| *seen == value), "{name}: {values:?}");
    }
    assert_eq!(seen.head.headers.get_all("x-custom").iter().count(), 2);
    assert_eq!(seen.head.headers["via"], "1.1 ctct-proxy");
    assert_eq!(seen.head.headers["host"], mirror.url.trim_start_matches("http://"));
    let authorization = seen.head.headers["authorization"].to_str().unwrap();
    assert!(authorization.starts_with("Bearer ey"), "the tenant's own token");
    assert!(!authorization.contains(&rig.key));
}

#[tokio::test]
async fn an_api_key_header_passes_below_the_partner_paths_only() {
    let mirror = echo().await;
    let rig = before(&mirror).await;
    for (path, passes) in [("/v3/partner/accounts", true), ("/v3/partners", false)] {
        let call = rig.call(Method::GET, "t0", path).header("x-api-key", "k");
        rig.http.send(call).await.expect(200);
        let seen = mirror.seen().pop().unwrap();
        assert_eq!(seen.head.headers.contains_key("x-api-key"), passes, "{path}");
    }
}

#[tokio::test]
async fn answers_come_back_with_their_status_headers_and_bytes() {
    let squeezed = Bytes::from(Dice::new(3).bytes(5_000));
    let body = squeezed.clone();
    let mirror = Mirror::start(move |seen| {
        let status: u16 = seen.head.uri.query().unwrap().parse().unwrap();
        let mut answer = Response::new(if status == 204 { Bytes::new() } else { body.clone() });
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        let headers = answer.headers_mut();
        headers.insert(CONTENT_ENCODING, "gzip".parse().unwrap());
        headers.insert("location", "https://api.cc.email/v3/x".parse().unwrap());
        headers.append("set-cookie", "a=1".parse().unwrap());
        headers.append("set-cookie", "b=2".parse().unwrap());
        headers.insert("proxy-status", "other; details=\"x\"".parse().unwrap());
        headers.insert("connection", "x-hop".parse().unwrap());
        headers.insert("x-hop", "1".parse().unwrap());
        headers.insert("server-timing", "app;dur=3".parse().unwrap());
        answer
    })
    .await;
    let rig = before(&mirror).await;
    for status in [200, 201, 204, 302, 400, 403, 404, 409, 418, 500] {
        let reply = rig.get("t0", &format!("/v3/contacts?{status}")).await.expect(status);
        let expected = if status == 204 { Bytes::new() } else { squeezed.clone() };
        assert!(reply.body == expected, "{status}");
        assert_eq!(reply.header("content-encoding"), "gzip");
        assert_eq!(reply.header("location"), "https://api.cc.email/v3/x");
        assert_eq!(reply.headers.get_all("set-cookie").iter().count(), 2);
        assert_eq!(reply.header("proxy-status"), "other; details=\"x\"");
        assert!(!reply.headers.contains_key("x-hop"), "a hop-by-hop header passed");
        let timings: Vec<_> = reply.headers.get_all("server-timing").iter().collect();
        assert!(timings.iter().any(|timing| *timing == "app;dur=3"), "{timings:?}");
        carries_what_every_answer_carries(&reply.headers, true);
    }
}

#[tokio::test]
async fn an_upstream_cannot_pretend_to_be_the_proxy() {
    let mirror = Mirror::start(|_| {
        let mut answer = Response::new(Bytes::new());
        let ours = r#"ctct-proxy; error=http_request_denied; details="queue_full""#;
        answer.headers_mut().insert("proxy-status", ours.parse().unwrap());
        answer
    })
    .await;
    let rig = before(&mirror).await;
    assert_eq!(rig.get("t0", "/v3/contacts").await.expect(200).reason(), "");
}

/// `X-Request-Id`, `Server-Timing` and, once the API key is known, the limits.
#[track_caller]
fn carries_what_every_answer_carries(headers: &HeaderMap, key_known: bool) {
    assert!(headers.contains_key("x-request-id"), "{headers:?}");
    let timings = headers.get_all("server-timing").iter();
    let own =
        timings.filter_map(|timing| timing.to_str().ok()).find(|t| t.starts_with("queue;dur"));
    let own = own.expect("our own timing");
    assert!(own.contains("token;dur=") && own.contains("upstream;dur="), "{own}");
    assert_eq!(headers.contains_key("ratelimit"), key_known);
    assert_eq!(headers.contains_key("ratelimit-policy"), key_known);
}

#[tokio::test]
async fn every_answer_says_its_request_id_timing_and_limits() {
    let rig = Rig::build().per_second(50).start().await;
    let served = rig.get("t0", "/v3/contacts?limit=1").await.expect(200);
    carries_what_every_answer_carries(&served.headers, true);
    let policy = r#""second";q=50;w=1, "day";q=1000000;w=86400"#;
    assert_eq!(served.header("ratelimit-policy"), policy);
    let left: Vec<_> = served.header("ratelimit").split(';').collect();
    assert_eq!(left[0], r#""day""#);
    let calls: u64 = left[1].trim_start_matches("r=").parse().unwrap();
    assert!((999_900..1_000_000).contains(&calls), "{left:?}");
    let secs: u64 = left[2].trim_start_matches("t=").parse().unwrap();
    assert!((1..=86_400).contains(&secs), "{left:?}");
    let stranger = rig.http.send(Call::get(rig.url("/v3/contacts"))).await.expect(401);
    carries_what_every_answer_carries(&stranger.headers, false);
    let lost = rig.http.send(Call::get(rig.url("/other"))).await.expect(404);
    carries_what_every_answer_carries(&lost.headers, false);
    for name in ["request-id", "x-request-id"] {
        let call = rig.call(Method::GET, "t0", "/v3/contacts").header(name, "given-1");
        assert_eq!(rig.http.send(call).await.header("x-request-id"), "given-1", "{name}");
    }
}

#[tokio::test]
async fn heads_and_empty_answers_pass() {
    let mirror = Mirror::start(|seen| {
        let mut answer = Response::new(Bytes::new());
        if seen.head.method == Method::HEAD {
            answer.headers_mut().insert(CONTENT_LENGTH, "1234".parse().unwrap());
        }
        answer
    })
    .await;
    let rig = before(&mirror).await;
    let head = rig.http.send(rig.call(Method::HEAD, "t0", "/v3/contacts")).await.expect(200);
    assert_eq!((head.header("content-length"), head.body.len()), ("1234", 0));
    assert_eq!(mirror.seen().pop().unwrap().head.method, Method::HEAD);
    let empty = rig.get("t0", "/v3/contacts").await.expect(200);
    assert_eq!(empty.body.len(), 0);
    for method in [Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS] {
        rig.http.send(rig.call(method.clone(), "t0", "/v3/contacts/1")).await.expect(200);
        assert_eq!(mirror.seen().pop().unwrap().head.method, method);
    }
}

#[tokio::test]
async fn http2_with_prior_knowledge_serves_many_calls_over_one_connection() {
    let mirror = echo().await;
    let rig = before(&mirror).await;
    let http = Http::h2();
    let calls = (0..40).map(async |number: usize| {
        let body = Bytes::from(vec![7_u8; number * 1_000]);
        let call = rig.call(Method::POST, "t0", "/v3/contacts").body(body.clone());
        let reply = http.send(call).await.expect(200);
        assert_eq!(reply.version, Version::HTTP_2);
        assert!(reply.body == body);
    });
    futures_util::future::join_all(calls).await;
    assert!(mirror.seen().iter().all(|seen| seen.head.version == Version::HTTP_11));
}
