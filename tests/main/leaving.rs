//! Callers that go away while they wait: their places are free, no slot is spent on them.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join, join_all};
use http::Method;

use crate::support::{Call, Http, Rig, judge, raw};

const PATH: &str = "/v3/contacts";

/// 100 calls wait, 50 of them leave; exactly the other 50 arrive.
async fn half_leaves(http: impl Fn() -> Http, method: Method, body: usize) {
    let rig = Rig::build().tenants(4).start().await;
    rig.admin(Method::POST, "/v1/api-keys/default/pause").await.expect(204);
    let call = |number: usize, mark: &str| -> Call {
        let tenant = format!("t{}", number % 4);
        let call = rig.call(method.clone(), &tenant, &format!("{PATH}?mark={mark}"));
        call.body(Bytes::from(vec![b'x'; body]))
    };
    let staying = join_all((0..50).map(|number| {
        let (http, call) = (http(), call(number, "stays"));
        async move { http.send(call).await }
    }));
    let leaving = join_all((0..50).map(|number| {
        let (http, call) = (http(), call(number, "leaves"));
        async move { http.try_send(call).await }
    }));
    let watching = async {
        {
            let mut leaving = Box::pin(leaving);
            let all_wait = Box::pin(rig.until_queued(100));
            futures_util::future::select(&mut leaving, all_wait).await;
        }
        rig.until_queued(50).await;
        rig.admin(Method::POST, "/v1/api-keys/default/resume").await.expect(204);
    };
    let (replies, ()) = join(staying, watching).await;
    assert!(replies.iter().all(|reply| reply.reason().is_empty()), "{:?}", replies[0]);
    let calls = judge::api_calls(&rig.sandbox);
    assert_eq!(calls.len(), 50, "{method} with {body} bytes");
    assert!(calls.iter().all(|call| call.query.as_deref() == Some("mark=stays")));
    assert!(calls.iter().all(|call| call.body_bytes == body as u64));
    let key = rig.admin(Method::GET, "/v1/api-keys/default").await.json();
    assert_eq!(key["day"]["used"], 50);
}

#[tokio::test]
async fn http1_callers_that_leave_free_their_places() {
    half_leaves(Http::h1, Method::GET, 0).await;
}

#[tokio::test]
async fn http1_callers_that_leave_free_their_places_with_their_bodies_sent() {
    half_leaves(Http::h1, Method::POST, 100).await;
    half_leaves(Http::h1, Method::POST, 300_000).await;
}

#[tokio::test]
async fn http2_callers_that_leave_free_their_places() {
    half_leaves(Http::h2, Method::GET, 0).await;
    half_leaves(Http::h2, Method::POST, 20_000).await;
}

#[tokio::test]
async fn http2_streams_of_one_connection_can_be_reset_one_by_one() {
    let http = Http::h2();
    half_leaves(|| http.clone(), Method::GET, 0).await;
}

#[tokio::test]
async fn a_caller_that_leaves_after_its_call_was_sent_changes_nothing() {
    let rig =
        Rig::build().sandbox(|options| options.latency = Duration::from_millis(600)).start().await;
    let call = format!(
        "GET /t/t0/v3/contacts HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n",
        rig.key
    );
    let mut stream = raw::connect(rig.app.data_address()).await;
    raw::send(&mut stream, &call).await;
    crate::support::until("it was sent", async || judge::arrivals(&rig.sandbox) == 1).await;
    drop(stream);
    crate::support::until("its end was seen", async || {
        let key = rig.admin(Method::GET, "/v1/api-keys/default").await.json();
        key["upstream"]["in_flight"] == 0
    })
    .await;
    let key = rig.admin(Method::GET, "/v1/api-keys/default").await.json();
    assert_eq!(key["day"]["used"], 1);
    rig.get("t0", PATH).await.expect(200);
    judge::assert_no_429(&rig.sandbox);
}

#[tokio::test]
async fn callers_that_come_and_go_at_random_leave_nothing_behind() {
    let rig = Rig::build().tenants(5).start().await;
    let caller = async |number: u64| {
        let mut dice = crate::support::Dice::new(number);
        for _ in 0..12 {
            let tenant = format!("t{}", dice.below(5));
            let http = if dice.below(2) == 0 { Http::h1() } else { rig.http.clone() };
            let call = rig.call(Method::GET, &tenant, PATH);
            let patience = Duration::from_millis(dice.below(900));
            let _ = tokio::time::timeout(patience, http.try_send(call)).await;
        }
    };
    join_all((0..25).map(caller)).await;
    rig.until_queued(0).await;
    judge::assert_no_429(&rig.sandbox);
    rig.get("t0", PATH).await.expect(200);
    let key = rig.admin(Method::GET, "/v1/api-keys/default").await.json();
    assert_eq!(key["upstream"]["in_flight"], 0, "{key}");
    assert_eq!(key["day"]["used"].as_u64(), Some(judge::arrivals(&rig.sandbox) as u64));
}
