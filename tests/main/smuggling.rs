//! Messages that two programs could delimit differently, so that one hides in another: such a
//! request is answered 400 and its connection is closed, on both listeners, and nothing reaches the
//! upstream; such an answer of the upstream does not reach the caller.

use std::net::SocketAddr;

use http::Method;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::support::{Rig, judge, raw};

/// What stands after a good request line and a `Host`, and why it is doubtful.
const CASES: [(&str, &str); 27] = [
    ("two lengths", "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"),
    ("the same length twice", "Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}"),
    ("a list of lengths", "Content-Length: 2, 2\r\n\r\n{}"),
    ("a signed length", "Content-Length: +2\r\n\r\n{}"),
    ("a length in hex", "Content-Length: 0x2\r\n\r\n{}"),
    ("an empty length", "Content-Length: \r\n\r\n{}"),
    ("a length beyond 64 bits", "Content-Length: 99999999999999999999\r\n\r\n{}"),
    ("a length before chunks", "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("a length after chunks", "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n"),
    ("chunks twice", "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    (
        "chunks in two headers",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    ),
    ("chunks not last", "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
    ("another coding below chunks", "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    ("almost chunks", "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("chunks behind a vertical tab", "Transfer-Encoding: \u{b}chunked\r\n\r\n0\r\n\r\n"),
    ("a space before the colon", "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
    ("a name that begins with a space", " Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("a folded value", "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    ("a bare LF after a header", "X: y\nContent-Length: 2\r\n\r\n{}"),
    ("a bare LF at the end of the head", "X: y\r\n\n"),
    ("a bare CR in a header", "X: y\rContent-Length: 2\r\n\r\n{}"),
    ("a NUL in a header", "X: y\0\r\n\r\n"),
    ("a second host", "Host: other.example\r\n\r\n"),
    ("no chunk size", "Transfer-Encoding: chunked\r\n\r\n;x\r\n{}\r\n0\r\n\r\n"),
    ("a space in a chunk size", "Transfer-Encoding: chunked\r\n\r\n2 \r\n{}\r\n0\r\n\r\n"),
    ("a bare LF after a chunk size", "Transfer-Encoding: chunked\r\n\r\n2\n{}\r\n0\r\n\r\n"),
    ("a chunk longer than its size", "Transfer-Encoding: chunked\r\n\r\n2\r\n{}{}\r\n0\r\n\r\n"),
];

/// Sends the case with a good request behind it and expects one answer, 400, and the end.
async fn refused(address: SocketAddr, what: &str, request: &str, hidden: &str) {
    let answer = raw::exchange(address, format!("{request}{hidden}")).await;
    assert_eq!(raw::status(&answer), 400, "{what}: {answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{what}: {answer}");
}

#[tokio::test]
async fn a_call_that_could_be_delimited_in_two_ways_is_answered_400_and_the_connection_closed() {
    let rig = Rig::start().await;
    let address = rig.app.data_address();
    let who = format!("Authorization: Bearer {}\r\nCtct-Tenant: t0\r\n", rig.key);
    let hidden = format!("GET /v3/hidden HTTP/1.1\r\nHost: {address}\r\n{who}\r\n");
    for (what, rest) in CASES {
        let request = format!("POST /v3/contacts HTTP/1.1\r\nHost: {address}\r\n{who}{rest}");
        refused(address, what, &request, &hidden).await;
    }
    let host = format!("Host: {address}\r\n");
    let other = [
        ("no host", format!("POST /v3/contacts HTTP/1.1\r\n{who}\r\n")),
        ("a bare LF after the request line", format!("GET /v3/contacts HTTP/1.1\n{host}{who}\r\n")),
        (
            "chunks in HTTP/1.0",
            format!(
                "POST /v3/contacts HTTP/1.0\r\n{host}{who}Transfer-Encoding: chunked\r\n\r\n\
                 0\r\n\r\n"
            ),
        ),
        (
            "lengths around the host",
            format!(
                "GET /v3/contacts HTTP/1.1\r\nContent-Length: 1\r\n{host}Content-Length: 1\r\n\
                 {who}\r\nx"
            ),
        ),
    ];
    for (what, request) in other {
        refused(address, what, &request, &hidden).await;
    }
    assert_eq!(judge::api_calls(&rig.sandbox).len(), 0);
    let good = format!("GET /v3/contacts HTTP/1.1\r\nHost: {address}\r\n{who}");
    let twice = format!("{good}\r\n{good}Connection: close\r\n\r\n");
    let answer = raw::exchange(address, twice).await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "one after another: {answer}");
}

#[tokio::test]
async fn an_operators_request_that_could_be_delimited_in_two_ways_is_answered_400_too() {
    let rig = Rig::start().await;
    let address = rig.app.admin_address();
    let hidden = format!("GET /livez HTTP/1.1\r\nHost: {address}\r\n\r\n");
    for (what, rest) in CASES {
        let line = "POST /v1/clients HTTP/1.1\r\nContent-Type: application/json\r\n";
        refused(address, what, &format!("{line}Host: {address}\r\n{rest}"), &hidden).await;
    }
}

#[tokio::test]
async fn nothing_that_a_caller_sends_splits_an_answer() {
    let rig = Rig::start().await;
    let address = rig.app.data_address();
    let crlf = "%0d%0aSet-Cookie:%20evil=1%0d%0a%0d%0aHTTP/1.1%20200%20OK";
    let who = format!("Authorization: Bearer {}\r\n", rig.key);
    for (line, more) in [
        (format!("GET /v3/contacts?limit=1&x={crlf} HTTP/1.1"), "Ctct-Tenant: t0\r\n"),
        (format!("GET /v3/{crlf} HTTP/1.1"), "Ctct-Tenant: t0\r\n"),
        (format!("GET /t/{crlf}/v3/contacts HTTP/1.1"), ""),
        (format!("GET /{crlf} HTTP/1.1"), ""),
        ("GET /v3/contacts HTTP/1.1".to_owned(), "Ctct-Tenant: t0%0d%0aSet-Cookie: evil=1\r\n"),
        ("GET /v3/contacts HTTP/1.1".to_owned(), "X-Request-Id: a%0d%0aSet-Cookie: evil=1\r\n"),
    ] {
        let head = format!("{line}\r\nHost: {address}\r\n{who}{more}Connection: close\r\n\r\n");
        let answer = raw::exchange(address, head).await;
        let (head, _) = answer.split_once("\r\n\r\n").expect("a whole head");
        assert!(!head.to_ascii_lowercase().contains("\nset-cookie"), "{line}: {answer}");
        assert_eq!(head.matches("HTTP/1.1 ").count(), 1, "{line}: {answer}");
    }
}

#[tokio::test]
async fn an_answer_that_could_be_delimited_in_two_ways_is_not_passed_on() {
    for head in [
        "HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: evil=1\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\n X: folded\r\nContent-Length: 2\r\n\r\n{}",
    ] {
        let url = upstream_that_answers(head).await;
        let rig = Rig::build().upstream(url).start().await;
        let answer = rig.http.send(rig.call(Method::POST, "t0", "/v3/contacts")).await;
        answer.expect_refusal(502, "upstream_unreachable");
    }
}

/// An upstream that says the same to each connection and closes it.
async fn upstream_that_answers(bytes: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    TaskTracker::new().spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            raw::read_head(&mut stream).await;
            raw::send(&mut stream, bytes).await;
        }
    });
    url
}
