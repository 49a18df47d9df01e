//! Corners: the day's turn, old protocols, many streams, tenants that move.

use std::time::Duration;

use futures_util::future::{join, join_all};
use http::Method;
use serde_json::json;

use ctct_proxy::clock::Clock;
use ctct_proxy::config::settings;

use crate::support::{Call, Http, Rig, judge, raw, until};

const PATH: &str = "/v3/contacts?limit=1";

#[tokio::test]
async fn a_new_day_opens_a_spent_key_at_the_hour_that_is_set() {
    // the turn comes in a few seconds, whatever the time is
    let turn = (Clock::system().now().unix.as_secs() + 6) % 86_400;
    let text = format!("{:02}:{:02}:{:02}Z", turn / 3_600, turn / 60 % 60, turn % 60);
    let rig = Rig::build()
        .sandbox(|options| {
            options.per_day = 10;
            options.day_reset = Duration::from_secs(turn);
        })
        .set(&settings::PER_DAY, "10")
        .set(&settings::DAY_RESET, &text)
        .start()
        .await;
    let replies = join_all((0..15).map(|_| rig.get("t0", PATH))).await;
    let served = replies.iter().filter(|reply| reply.status == 200).count();
    assert_eq!(served, 10);
    rig.get("t0", PATH).await.expect_refusal(429, "day_quota_spent");
    until("the day has turned", async || {
        tokio::time::sleep(Duration::from_millis(100)).await;
        rig.get("t0", PATH).await.status == 200
    })
    .await;
    let replies = join_all((0..15).map(|_| rig.get("t0", PATH))).await;
    let served = replies.iter().filter(|reply| reply.status == 200).count();
    assert_eq!(served, 9);
    judge::assert_no_429(&rig.sandbox);
    let counts = rig.sandbox.counts();
    let days: Vec<u64> = counts.api_keys["app"].days.values().copied().collect();
    assert_eq!(days, [10, 10]);
}

#[tokio::test]
async fn old_and_careful_http1_clients_are_served() {
    let rig = Rig::start().await;
    let head = |line: &str, more: &str| {
        format!("{line}\r\nAuthorization: Bearer {}\r\n{more}\r\n", rig.key)
    };
    let old = head("GET /t/t0/v3/contacts HTTP/1.0", "");
    let answer = raw::exchange(rig.app.data_address(), old).await;
    assert_eq!(raw::status(&answer), 200, "{answer}");
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    let line = "POST /t/t0/v3/contacts HTTP/1.1";
    let more = "Host: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n";
    let mut stream = raw::connect(rig.app.data_address()).await;
    raw::send(&mut stream, head(line, more)).await;
    let go_on = raw::read_head(&mut stream).await;
    assert_eq!(raw::status(&go_on), 100, "{go_on}");
    raw::send(&mut stream, "{}").await;
    let answer = raw::read_head(&mut stream).await;
    assert_eq!(raw::status(&answer), 415, "the sandbox wants a type: {answer}");
    // a refusal comes instead of the invitation
    let more = "Host: x\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n";
    let mut stream = raw::connect(rig.app.data_address()).await;
    raw::send(&mut stream, head(line, more)).await;
    let refused = raw::read_head(&mut stream).await;
    assert_eq!(raw::status(&refused), 413, "{refused}");
}

#[tokio::test]
async fn five_hundred_streams_of_one_connection_are_served_fairly() {
    let rig = Rig::build().tenants(5).per_second(200).set(&settings::MAX_WAIT, "60s").start().await;
    let http = Http::h2();
    http.send(rig.call(Method::GET, "t0", PATH)).await.expect(200);
    rig.admin(Method::POST, "/v1/api-keys/default/pause").await.expect(204);
    let calls = join_all((0..500).map(async |number| {
        let tenant = format!("t{}", number / 100);
        http.send(rig.call(Method::GET, &tenant, PATH)).await.expect(200);
    }));
    let releasing = async {
        rig.until_queued(500).await;
        rig.admin(Method::POST, "/v1/api-keys/default/resume").await.expect(204);
    };
    join(calls, releasing).await;
    let first = &judge::api_calls(&rig.sandbox)[1..101];
    for number in 0..5 {
        let name = format!("t{number}");
        let count = first.iter().filter(|call| call.account.as_deref() == Some(&name)).count();
        assert!((18..=22).contains(&count), "{name} had {count} of the first 100");
    }
    judge::assert_no_429(&rig.sandbox);
}

#[tokio::test]
async fn a_tenant_that_moves_to_another_key_is_counted_there() {
    let file = r#"
        [[api_keys]]
        name = "one"
        client_id = "client-one"
        [[api_keys]]
        name = "two"
        client_id = "client-two"
    "#;
    let rig = Rig::build().file(file).start().await;
    rig.connect("one", "client-one", "moving").await;
    rig.get("moving", PATH).await.expect(200);
    rig.admin(Method::POST, "/v1/api-keys/one/pause").await.expect(204);
    let waiting = join_all((0..5).map(|_| rig.get("moving", PATH)));
    let moving = async {
        until("they wait", async || {
            let key = rig.admin(Method::GET, "/v1/api-keys/one").await.json();
            key["queue"]["depth"] == 5
        })
        .await;
        let grant = rig.sandbox.connect_tenant("client-two", "moving");
        let body = json!({"api_key": "two", "refresh_token": grant.refresh_token,
            "access_token": grant.access_token});
        let put = Call::new(Method::PUT, rig.admin_url("/v1/tenants/moving")).json(&body);
        rig.http.send(put).await.expect(200);
        rig.get("moving", PATH).await.expect(200);
    };
    let (replies, ()) = join(waiting, moving).await;
    // those who waited at the old key are served by the new one or told at once, never left
    assert!(replies.iter().all(|reply| [200, 404, 503].contains(&reply.status)), "{replies:?}");
    let calls = judge::api_calls(&rig.sandbox);
    let last = calls.last().unwrap();
    assert_eq!(last.client_id.as_deref(), Some("client-two"));
    let used = rig.admin(Method::GET, "/v1/api-keys/one").await.json()["day"]["used"].clone();
    assert_eq!(used, 1);
}

#[tokio::test]
async fn grants_that_are_put_again_and_again_under_load_disturb_nobody() {
    let rig = Rig::build()
        .tenants(2)
        .sandbox(|options| options.token_interval = Duration::from_millis(20))
        .set(&settings::REFRESH_INTERVAL, "40ms")
        .start()
        .await;
    let calls = join_all(
        (0..100).map(async |number| rig.get(&format!("t{}", number % 2), PATH).await.status),
    );
    let putting = async {
        for number in 0..30 {
            if number % 2 == 0 {
                rig.connect("default", "app", "t0").await;
            } else {
                rig.connect_expired("t0").await;
            }
            rig.admin(Method::POST, "/v1/tenants/t1/refresh").await.expect(202);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let (statuses, ()) = join(calls, putting).await;
    assert_eq!(statuses, vec![200; 100]);
}
