//! The token request over real sockets: its form, and what is known of one that fails.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use super::*;

const TOKENS: &str = r#"{"access_token":"a","refresh_token":"r","expires_in":86400}"#;

fn endpoint() -> HttpTokenEndpoint {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let tls = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    HttpTokenEndpoint::with_tls(tls)
}

fn key(address: SocketAddr, auth_style: AuthStyle) -> KeyAuth {
    KeyAuth {
        client_id: "id:1".into(),
        secret: Some("s+e cret".into()),
        auth_style,
        token_url: format!("http://{address}/oauth2/default/v1/token").parse().unwrap(),
    }
}

/// Serves one connection: reads the request whole and answers with `answer`, or leaves when there
/// is none; the request is the result.
async fn serve_once(answer: Option<String>) -> (SocketAddr, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let request = TaskTracker::new().spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !is_whole(&request) {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
        }
        if let Some(answer) = answer {
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        String::from_utf8(request).unwrap()
    });
    (address, request)
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
        let length = head.split_once("content-length: ").unwrap().1;
        body.len() == length.lines().next().unwrap().parse::<usize>().unwrap()
    })
}

fn http(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

async fn ask(answer: Option<String>, auth_style: AuthStyle) -> (RefreshAnswer, String) {
    let (address, request) = serve_once(answer).await;
    let answer = endpoint().refresh(&key(address, auth_style), &"old/1".into()).await;
    (answer, request.await.unwrap())
}

#[tokio::test]
async fn the_request_is_a_form_with_basic_credentials() {
    let (answer, request) = ask(Some(http("200 OK", TOKENS)), AuthStyle::Basic).await;
    assert_eq!(answer.outcome(), "ok");
    let lower = request.to_ascii_lowercase();
    assert!(request.starts_with("POST /oauth2/default/v1/token HTTP/1.1\r\n"), "{request}");
    // base64("id%3A1:s%2Be+cret")
    assert!(request.contains("Basic aWQlM0ExOnMlMkJlK2NyZXQ="), "{request}");
    assert!(lower.contains("content-type: application/x-www-form-urlencoded\r\n"), "{request}");
    assert!(lower.contains("accept: application/json\r\n"), "{request}");
    assert!(lower.contains(concat!("user-agent: ctct-proxy/", env!("CARGO_PKG_VERSION"))));
    assert!(request.ends_with("grant_type=refresh_token&refresh_token=old%2F1"), "{request}");
}

#[tokio::test]
async fn other_styles_put_their_credentials_into_the_body() {
    let (_, request) = ask(Some(http("200 OK", TOKENS)), AuthStyle::Body).await;
    assert!(request.ends_with("&client_id=id%3A1&client_secret=s%2Be+cret"), "{request}");
    let (_, request) = ask(Some(http("200 OK", TOKENS)), AuthStyle::Public).await;
    assert!(request.ends_with("&client_id=id%3A1"), "{request}");
    assert!(!request.to_ascii_lowercase().contains("authorization"), "{request}");
}

#[tokio::test]
async fn refusals_and_nonsense_are_told_apart() {
    let huge = "x".repeat(BODY_MAX + 1);
    for (answer, outcome) in [
        (http("400 Bad Request", r#"{"error":"invalid_grant"}"#), "invalid_grant"),
        (http("401 Unauthorized", r#"{"error":"invalid_client"}"#), "invalid_client"),
        (http("429 Too Many Requests", "slow down"), "throttled"),
        (http("302 Found", ""), "error"),
        (http("200 OK", &huge), "error"),
    ] {
        assert_eq!(ask(Some(answer), AuthStyle::Basic).await.0.outcome(), outcome);
    }
}

#[tokio::test]
async fn a_connection_that_breaks_after_the_request_is_a_lost_answer() {
    let (answer, _) = ask(None, AuthStyle::Basic).await;
    assert_eq!(answer.outcome(), "lost", "{answer}");
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"access_token\":\"a".to_owned();
    let (answer, _) = ask(Some(half), AuthStyle::Basic).await;
    assert_eq!(answer.outcome(), "lost", "{answer}");
}

#[tokio::test]
async fn a_connection_that_cannot_be_made_sends_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let answer = endpoint().refresh(&key(address, AuthStyle::Basic), &"old".into()).await;
    assert_eq!(answer.outcome(), "unreachable", "{answer}");
}

#[tokio::test]
async fn silence_after_a_connection_is_lost_and_before_it_is_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let endpoint = endpoint().time_out(Duration::from_millis(200));
    let answer = endpoint.refresh(&key(address, AuthStyle::Basic), &"old".into()).await;
    assert_eq!(answer.outcome(), "lost", "{answer}");
    let tls = KeyAuth {
        token_url: format!("https://{address}/").parse().unwrap(),
        ..key(address, AuthStyle::Basic)
    };
    let answer = endpoint.refresh(&tls, &"old".into()).await;
    assert_eq!(answer.outcome(), "unreachable", "the handshake was never answered: {answer}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_after_half_a_minute_is_taken_and_silence_is_lost_after_a_minute() {
    let clock = crate::clock::Clock::system();
    for (delay, outcome, took) in [(30, "ok", 30), (90, "lost", 60)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        TaskTracker::new().spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !is_whole(&request) {
                assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
            }
            tokio::time::sleep(Duration::from_secs(delay)).await;
            let _ = stream.write_all(http("200 OK", TOKENS).as_bytes()).await;
        });
        let begun = clock.now().mono;
        let answer = endpoint().refresh(&key(address, AuthStyle::Basic), &"old".into()).await;
        assert_eq!(answer.outcome(), outcome, "{answer}");
        assert_eq!(clock.now().mono.since(begun).as_secs(), took);
    }
}

#[tokio::test]
async fn a_key_without_its_secret_sends_nothing() {
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let key = KeyAuth { secret: None, ..key(address, AuthStyle::Basic) };
    assert_eq!(endpoint().refresh(&key, &"old".into()).await.outcome(), "unreachable");
}

#[tokio::test]
async fn a_token_that_may_not_leave_any_more_when_the_connection_is_there_does_not() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let key = key(listener.local_addr().unwrap(), AuthStyle::Basic);
    let seen = TaskTracker::new().spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = Vec::new();
        // the other end may close or reset
        let _ = stream.read_to_end(&mut seen).await;
        String::from_utf8(seen).unwrap()
    });
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let may_leave = Arc::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        false
    });
    let answer = endpoint().refresh_while(&key, &"spent-elsewhere".into(), may_leave).await;
    assert!(matches!(answer, RefreshAnswer::LaneLost), "{answer:?}");
    assert_eq!(asked.load(Ordering::Relaxed), 1, "when the connection was there");
    let seen = seen.await.unwrap();
    assert!(!seen.contains("spent-elsewhere"), "{seen}");
}

#[tokio::test]
async fn a_token_that_may_leave_does() {
    let (address, request) = serve_once(Some(http("200 OK", TOKENS))).await;
    let may_leave = Arc::new(|| true);
    let key = key(address, AuthStyle::Basic);
    let answer = endpoint().refresh_while(&key, &"good".into(), may_leave).await;
    assert!(matches!(answer, RefreshAnswer::Received(_)), "{answer:?}");
    assert!(request.await.unwrap().ends_with("refresh_token=good"));
}
