//! An upstream that is away, comes late, hangs, or drops connections.

use std::time::Duration;

use futures_util::future::{join, join_all};
use http::Method;

use ctct_proxy::clock::Clock;
use ctct_proxy::config::settings;
use ctct_proxy::sandbox::{Fault, FaultKind, Options, Sandbox, Target};

use crate::support::{Rig, Watch, judge, raw};

const PATH: &str = "/v3/contacts?limit=1";

/// An address that nobody listens on; the port stays free for whoever knows it.
fn free_address() -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_waited_for_and_then_called() {
    let address = free_address();
    let rig = Rig::build().upstream(format!("http://{address}")).start().await;
    let appearing = async {
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        let options = Options { listen: address, ..Options::default() };
        Sandbox::start(options, Clock::system()).await.unwrap()
    };
    let call = rig.call(Method::POST, "t0", "/v3/contacts").body("{}");
    // the other sandbox does not know the token; that it was asked is what counts
    let (reply, upstream) = join(rig.http.send(call), appearing).await;
    assert_eq!((reply.status, reply.reason()), (401, ""), "{reply:?}");
    assert!(judge::arrivals(&upstream) >= 1);
}

#[tokio::test]
async fn an_upstream_that_stays_away_is_502_at_the_end_of_the_wait() {
    let address = free_address();
    let rig = Rig::build().upstream(format!("http://{address}")).start().await;
    let watch = Watch::start();
    let call = rig.call(Method::GET, "t0", PATH).header("prefer", "wait=2");
    rig.http.send(call).await.expect_refusal(502, "upstream_unreachable");
    let took = watch.elapsed();
    assert!(took >= Duration::from_millis(1_200) && took < Duration::from_secs(6), "{took:?}");
    // what did not leave is not counted
    let key = rig.admin(Method::GET, "/v1/api-keys/default").await.json();
    assert_eq!(key["day"]["used"], 0);
    assert_eq!(key["upstream"]["in_flight"], 0);
}

#[tokio::test]
async fn a_hanging_call_is_504_and_does_not_hold_the_others_back() {
    let rig = Rig::build().tenants(2).set(&settings::UPSTREAM_TIMEOUT, "3s").start().await;
    rig.get("t0", PATH).await.expect(200);
    rig.sandbox.add_fault(Fault::new(Target::Api, FaultKind::Hang));
    let hanging = async { rig.get("t0", PATH).await.expect_refusal(504, "upstream_timeout") };
    let others = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let watch = Watch::start();
        join_all((0..20).map(async |_| rig.get("t1", PATH).await.expect(200))).await;
        join_all((0..20).map(async |_| rig.get("t0", PATH).await.expect(200))).await;
        watch.elapsed()
    };
    let (_, took) = join(hanging, others).await;
    assert!(took < Duration::from_millis(2_500), "others took {took:?}");
    assert_eq!(judge::arrivals(&rig.sandbox), 42);
}

#[tokio::test]
async fn calls_that_hang_are_bounded_and_the_key_goes_on_when_they_end() {
    let rig = Rig::build()
        .set(&settings::UPSTREAM_TIMEOUT, "1s")
        .set(&settings::MAX_IN_FLIGHT, "4")
        .start()
        .await;
    rig.get("t0", PATH).await.expect(200);
    rig.sandbox.add_fault(Fault::new(Target::Api, FaultKind::Hang).times(4));
    let replies = join_all((0..24).map(|_| rig.get("t0", PATH))).await;
    let late = replies.iter().filter(|reply| reply.status == 504).count();
    let served = replies.iter().filter(|reply| reply.status == 200).count();
    assert_eq!((late, served), (4, 20));
    let calls = judge::api_calls(&rig.sandbox);
    let fifth = judge::gap(&calls[1], &calls[5]);
    assert!(fifth >= Duration::from_millis(900), "a fifth left after {fifth:?}");
}

#[tokio::test]
async fn a_slow_upstream_is_no_reason_to_be_slower_than_the_limit() {
    let rig = Rig::build()
        .tenants(4)
        .per_second(20)
        .sandbox(|options| {
            options.latency = Duration::from_millis(700);
            options.jitter = Duration::from_millis(20);
        })
        .start()
        .await;
    let calls = (0..200).map(|number: usize| {
        let tenant = format!("t{}", number % 4);
        let rig = &rig;
        async move { rig.get(&tenant, PATH).await.expect(200) }
    });
    join_all(calls).await;
    judge::assert_no_429(&rig.sandbox);
    // the first answers teach how long a round trip takes at least
    let rate = judge::rate(&judge::api_calls(&rig.sandbox)[60..]);
    assert!(rate >= 12.0, "{rate:.1} a second of 20");
}

#[tokio::test]
async fn connections_that_the_upstream_has_closed_lose_no_call() {
    let rig = Rig::start().await;
    for round in 0..3 {
        rig.get("t0", PATH).await.expect(200);
        // closes the connection that the pool holds
        rig.sandbox.add_fault(Fault::new(Target::Api, FaultKind::Close));
        let call = rig.call(Method::DELETE, "t0", "/v3/contacts/none");
        rig.http.send(call).await.expect_refusal(502, "upstream_unreachable");
        let call = rig.call(Method::POST, "t0", "/v3/contacts").body("{}");
        assert_eq!(rig.http.send(call).await.reason(), "", "round {round}");
    }
}

#[tokio::test]
async fn an_upstream_that_vanishes_in_the_middle_of_a_body_ends_the_answer() {
    let upstream = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", upstream.local_addr().unwrap());
    let rig = Rig::build().upstream(url).set(&settings::UPSTREAM_TIMEOUT, "1s").start().await;
    let vanishing = async {
        let (mut stream, _) = upstream.accept().await.unwrap();
        raw::read_head(&mut stream).await;
        raw::send(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n").await;
        for part in ["in parts, ", "and "] {
            tokio::time::sleep(Duration::from_millis(700)).await;
            raw::send(&mut stream, part).await;
        }
        stream
    };
    let watch = Watch::start();
    let calling = rig.http.try_send(rig.call(Method::GET, "t0", PATH));
    let (reply, _stream) = join(calling, vanishing).await;
    assert!(reply.is_err(), "{reply:?}");
    let took = watch.elapsed();
    assert!(took >= Duration::from_millis(2_300) && took < Duration::from_secs(5), "{took:?}");
    assert!(rig.app.stop().await);
}
