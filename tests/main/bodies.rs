//! Bodies that are too long, never end, come slowly or break off.

use bytes::Bytes;
use http::{Method, Response};

use ctct_proxy::config::settings;

use crate::support::{Mirror, Rig, judge, raw};

fn head(rig: &Rig, path: &str, more: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nCtct-Tenant: t0\r\n\
         Connection: close\r\n{more}\r\n\r\n",
        rig.key
    )
}

fn chunk(len: usize) -> Vec<u8> {
    let mut chunk = format!("{len:x}\r\n").into_bytes();
    chunk.extend(std::iter::repeat_n(b'x', len));
    chunk.extend(b"\r\n");
    chunk
}

#[tokio::test]
async fn a_declared_length_that_is_too_much_is_refused_before_the_body_is_read() {
    let rig = Rig::build().set(&settings::MAX_BODY, "2MiB").start().await;
    let import = "/v3/activities/contacts_file_import";
    for (path, length) in [("/v3/contacts", "2097153"), (import, "99999999999")] {
        let mut stream = raw::connect(rig.app.data_address()).await;
        raw::send(&mut stream, head(&rig, path, &format!("Content-Length: {length}"))).await;
        let answer = raw::read_head(&mut stream).await;
        assert_eq!(raw::status(&answer), 413, "{answer}");
    }
    assert_eq!(judge::arrivals(&rig.sandbox), 0);
}

#[tokio::test]
async fn an_endless_body_is_cut_off_at_the_limit() {
    let rig = Rig::build().set(&settings::MAX_BODY, "3MiB").start().await;
    for path in ["/v3/contacts", "/v3/activities/contacts_json_import"] {
        let mut stream = raw::connect(rig.app.data_address()).await;
        raw::send(&mut stream, head(&rig, path, "Transfer-Encoding: chunked")).await;
        let mut sent = 0;
        while sent < 64 && raw::send(&mut stream, chunk(1 << 20)).await {
            sent += 1;
        }
        assert!(sent < 64, "{path}: {sent} MiB were taken");
        let answer = raw::read_to_end(&mut stream).await;
        // the answer may be lost with the connection, which still carries the unread body
        assert!([0, 413].contains(&raw::status(&answer)), "{path}: {answer}");
    }
    rig.get("t0", "/v3/contacts").await.expect(200);
    let served = judge::api_calls(&rig.sandbox).iter().filter(|call| call.status == 201).count();
    assert_eq!(served, 0);
}

#[tokio::test]
async fn an_import_is_read_whole_before_a_part_of_it_may_leave() {
    let mirror = Mirror::start(|_| Response::new(Bytes::new())).await;
    let rig = Rig::build().upstream(mirror.url.clone()).start().await;
    let path = "/v3/activities/contacts_json_import";
    let mut stream = raw::connect(rig.app.data_address()).await;
    raw::send(&mut stream, head(&rig, path, "Transfer-Encoding: chunked")).await;
    for _ in 0..5 {
        raw::send(&mut stream, chunk(1_000_000)).await;
    }
    let answer = raw::read_to_end(&mut stream).await;
    assert!([0, 413].contains(&raw::status(&answer)), "{answer}");
    assert!(mirror.seen().is_empty());
    let body = Bytes::from(vec![b'x'; 4_000_000]);
    rig.http.send(rig.call(Method::POST, "t0", path).body(body)).await.expect(200);
    assert_eq!(mirror.seen()[0].body.len(), 4_000_000);
}

#[tokio::test]
async fn a_body_that_breaks_off_spends_no_slot() {
    let rig = Rig::start().await;
    let mut stream = raw::connect(rig.app.data_address()).await;
    raw::send(&mut stream, head(&rig, "/v3/contacts", "Content-Length: 1000")).await;
    raw::send(&mut stream, "only the beginning").await;
    drop(stream);
    let mut stream = raw::connect(rig.app.data_address()).await;
    raw::send(&mut stream, head(&rig, "/v3/contacts", "Transfer-Encoding: chunked")).await;
    raw::send(&mut stream, chunk(100)).await;
    drop(stream);
    rig.until_queued(0).await;
    rig.get("t0", "/v3/contacts").await.expect(200);
    assert_eq!(judge::arrivals(&rig.sandbox), 1);
}

#[tokio::test]
async fn a_long_body_streams_through_while_it_comes() {
    let mirror =
        Mirror::start(|seen| Response::new(Bytes::from(seen.body.len().to_string()))).await;
    let rig = Rig::build()
        .upstream(mirror.url.clone())
        .set(&settings::REPLAY_BUFFER, "1KiB")
        .start()
        .await;
    let mut stream = raw::connect(rig.app.data_address()).await;
    raw::send(&mut stream, head(&rig, "/v3/contacts", "Transfer-Encoding: chunked")).await;
    for _ in 0..20 {
        raw::send(&mut stream, chunk(50_000)).await;
        tokio::task::yield_now().await;
    }
    raw::send(&mut stream, "0\r\n\r\n").await;
    let answer = raw::read_to_end(&mut stream).await;
    assert!(answer.ends_with("1000000"), "{answer}");
}
