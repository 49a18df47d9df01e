//! Memory of the program: what waits and what streams through costs little.

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, Response};
use serde_json::json;
use tokio::io::AsyncReadExt as _;

use crate::life::{program, ready, sandbox};
use crate::support::{Http, Mirror, raw, until};

const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_answer_streams_through_at_the_callers_pace_in_flat_memory() {
    let long = Bytes::from(vec![7_u8; 300 * (1 << 20)]);
    let len = long.len();
    let mirror = Mirror::start(move |_| Response::new(long.clone())).await;
    let sandbox = sandbox(|_| {}).await;
    let program = program(&sandbox).flag("upstream-url", mirror.url.as_str());
    let (process, key) = ready(&program, &sandbox).await;
    let call = format!(
        "GET /t/t0/v3/contacts HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\
         Connection: close\r\n\r\n"
    );
    let mut stream = raw::connect(process.data()).await;
    raw::send(&mut stream, call).await;
    let mut read = raw::read_head(&mut stream).await.len();
    let (before, mut most) = (process.resident_kib(), 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match stream.read(&mut buffer).await.unwrap() {
            0 => break,
            some => read += some,
        }
        most = most.max(process.resident_kib());
    }
    assert!(read > len - 1_000_000, "{read} bytes came");
    assert!((most - before) * 1_024 < 20 * MIB, "from {before} to {most} KiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_waiting_calls_cost_little_memory() {
    const CALLS: usize = 2_000;
    let sandbox = sandbox(|_| {}).await;
    let program = program(&sandbox).flag("per-second", "1000");
    let (process, key) = ready(&program, &sandbox).await;
    let http = Http::h2();
    http.send(process.call(Method::GET, &key, "t0", "/v3/contacts")).await.expect(200);
    process.admin(Method::POST, "/v1/api-keys/default/pause", &json!(null)).await.expect(204);
    let before = process.resident_kib();
    // 40 connections: http/2 allows many calls on each
    let calls = join_all((0..40).map(async |_| {
        let http = Http::h2();
        let calls = (0..CALLS / 40).map(async |_| {
            let call = process.call(Method::POST, &key, "t0", "/v3/contacts");
            let call = call.header("prefer", "wait=6").body(vec![b'x'; 1_000]);
            http.try_send(call).await.is_ok()
        });
        join_all(calls).await
    }));
    let measuring = async {
        until("all wait", async || {
            let view = process.admin(Method::GET, "/v1/api-keys/default", &json!(null)).await;
            view.json()["queue"]["depth"] == CALLS
        })
        .await;
        process.resident_kib()
    };
    let (answered, most) = futures_util::future::join(calls, measuring).await;
    assert!(answered.iter().flatten().all(|answered| *answered));
    let each = most.saturating_sub(before) * 1_024 / CALLS as u64;
    assert!(each < 16 * 1_024, "{each} bytes for a waiting call of 1,000 bytes");
}
