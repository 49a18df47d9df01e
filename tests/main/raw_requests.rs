//! What no client library would send: broken heads, other kinds of proxying, slow heads.

use ctct_proxy::config::settings;

use crate::support::{Rig, Watch, judge, raw};

/// The head of a good call, without its end.
fn head(rig: &Rig, line: &str) -> String {
    format!(
        "{line}\r\nHost: {}\r\nAuthorization: Bearer {}\r\nCtct-Tenant: t0\r\n\
         Connection: close\r\n",
        rig.app.data_address(),
        rig.key
    )
}

#[tokio::test]
async fn requests_that_are_none_of_this_proxys_never_reach_the_upstream() {
    let rig = Rig::start().await;
    let post = head(&rig, "POST /v3/contacts HTTP/1.1");
    let get = |target: &str| head(&rig, &format!("GET {target} HTTP/1.1"));
    let bad = [
        ("a space in the target", format!("{}\r\n", get("/v3/a b"))),
        ("no version", format!("{}\r\n", head(&rig, "GET /v3/contacts"))),
        ("another host", format!("{}\r\n", get("http://other.example/v3/contacts"))),
        ("another scheme", format!("{}\r\n", get("https://api.cc.email/v3/contacts"))),
        ("a tunnel", format!("{}\r\n", head(&rig, "CONNECT api.cc.email:443 HTTP/1.1"))),
        ("an upgrade", format!("{}Upgrade: websocket\r\n\r\n", get("/v3/contacts"))),
        ("dots", format!("{}\r\n", get("/v3/../sandbox/log"))),
        ("encoded dots", format!("{}\r\n", get("/v3/%2e%2E/sandbox/log"))),
        ("encoded slashes", format!("{}\r\n", get("/v3/..%2fsandbox"))),
        ("dots in the tenant", format!("{}\r\n", get("/t/../v3/contacts"))),
        ("a long target", format!("{}\r\n", get(&format!("/v3/{}", "a".repeat(9_000))))),
        ("a long head", format!("{post}X-Long: {}\r\n\r\n", "a".repeat(20_000))),
        ("many headers", format!("{post}{}\r\n", "X-Many: 1\r\n".repeat(200))),
    ];
    for (what, request) in bad {
        let answer = raw::exchange(rig.app.data_address(), &request).await;
        let status = raw::status(&answer);
        assert!([400, 414, 431].contains(&status), "{what}: {answer}");
    }
    let star = raw::exchange(rig.app.data_address(), format!("{}\r\n", get("*"))).await;
    assert!([400, 404].contains(&raw::status(&star)), "{star}");
    assert_eq!(judge::arrivals(&rig.sandbox), 0);
    let good = raw::exchange(rig.app.data_address(), format!("{}\r\n", get("/v3/contacts"))).await;
    assert_eq!(raw::status(&good), 200);
}

#[tokio::test]
async fn a_target_with_this_proxys_own_address_is_a_call_like_any_other() {
    let rig = Rig::start().await;
    let line = format!("GET {} HTTP/1.1", rig.url("/v3/contacts?limit=1"));
    let answer = raw::exchange(rig.app.data_address(), format!("{}\r\n", head(&rig, &line))).await;
    assert_eq!(raw::status(&answer), 200, "{answer}");
    assert_eq!(&*judge::api_calls(&rig.sandbox)[0].path, "/v3/contacts");
}

#[tokio::test]
async fn heads_that_come_too_slowly_are_closed() {
    let rig = Rig::build().set(&settings::HEADER_TIMEOUT, "200ms").start().await;
    let watch = Watch::start();
    for (what, begin) in [
        ("nothing", ""),
        ("a line", "GET /v3/contacts HTTP/1.1\r\n"),
        ("half a preface", "PRI * HTTP/2.0\r\n"),
    ] {
        let mut stream = raw::connect(rig.app.data_address()).await;
        raw::send(&mut stream, begin).await;
        let answer = raw::read_to_end(&mut stream).await;
        assert!([0, 400, 408].contains(&raw::status(&answer)), "{what}: {answer}");
    }
    assert!(watch.elapsed().as_secs() < 15);
    assert_eq!(judge::arrivals(&rig.sandbox), 0);
    rig.get("t0", "/v3/contacts").await.expect(200);
}

#[tokio::test]
async fn one_connection_serves_calls_one_after_the_other() {
    let rig = Rig::start().await;
    let mut stream = raw::connect(rig.app.data_address()).await;
    let request = head(&rig, "HEAD /v3/contacts HTTP/1.1").replace("Connection: close\r\n", "");
    for _ in 0..3 {
        raw::send(&mut stream, format!("{request}\r\n")).await;
        let answer = raw::read_head(&mut stream).await;
        // the sandbox has no HEAD; what counts is that it is asked
        assert_eq!(raw::status(&answer), 405, "{answer}");
    }
    // two at once: answered in their order
    raw::send(&mut stream, format!("{request}X-Request-Id: one\r\n\r\n")).await;
    raw::send(
        &mut stream,
        format!("{}X-Request-Id: two\r\n\r\n", head(&rig, "HEAD /v3/x HTTP/1.1")),
    )
    .await;
    let answers = raw::read_to_end(&mut stream).await;
    let (one, two) = (answers.find("x-request-id: one"), answers.find("x-request-id: two"));
    assert!(one.is_some() && one < two, "{answers}");
    assert_eq!(judge::arrivals(&rig.sandbox), 5);
}

#[tokio::test]
async fn a_caller_that_sends_all_before_it_reads_gets_the_refusal() {
    let rig = Rig::build().set(&settings::MAX_BODY, "2MiB").start().await;
    let len = 2 * 1_024 * 1_024 + 1;
    let head = head(&rig, "POST /v3/contacts HTTP/1.1");
    let request = format!("{head}Content-Length: {len}\r\n\r\n{}", "x".repeat(len));
    for _ in 0..5 {
        let answer = raw::exchange(rig.app.data_address(), &request).await;
        assert_eq!(raw::status(&answer), 413, "{answer}");
    }
    assert_eq!(judge::arrivals(&rig.sandbox), 0);
}
