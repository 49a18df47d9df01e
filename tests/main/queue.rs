//! Whose turn it is: order, fairness, classes, holds, capacity.

use std::time::Duration;

use futures_util::future::{join, join_all};
use http::Method;

use ctct_proxy::config::settings;

use crate::support::{Rig, Watch, judge, until};

const PATH: &str = "/v3/contacts?limit=1";

async fn hold(rig: &Rig, what: &str) {
    rig.admin(Method::POST, &format!("/v1/{what}/pause")).await.expect(204);
}

async fn release(rig: &Rig, what: &str) {
    rig.admin(Method::POST, &format!("/v1/{what}/resume")).await.expect(204);
}

/// Whose calls arrived, in their order.
fn accounts(rig: &Rig) -> Vec<String> {
    let calls = judge::api_calls(&rig.sandbox);
    calls.iter().map(|call| call.account.as_deref().unwrap_or("nobody").to_owned()).collect()
}

/// The last parameter of what arrived, in order.
fn marks(rig: &Rig) -> Vec<String> {
    let calls = judge::api_calls(&rig.sandbox);
    let mark = |query: &str| query.rsplit('=').next().unwrap_or_default().to_owned();
    calls.iter().map(|call| mark(call.query.as_deref().unwrap_or_default())).collect()
}

async fn marked(rig: &Rig, tenant: &str, urgency: u8, mark: &str) {
    let call = rig.call(Method::GET, tenant, &format!("{PATH}&mark={mark}"));
    rig.http.send(call.header("priority", format!("u={urgency}"))).await.expect(200);
}

#[tokio::test]
async fn calls_of_one_tenant_leave_in_the_order_in_which_they_came() {
    let rig = Rig::start().await;
    hold(&rig, "api-keys/default").await;
    let expected: Vec<String> = (0..40).map(|number| number.to_string()).collect();
    let callers = join_all(expected.iter().enumerate().map(async |(number, mark)| {
        rig.until_queued(number).await;
        marked(&rig, "t0", 3, mark).await;
    }));
    let releasing = async {
        rig.until_queued(40).await;
        release(&rig, "api-keys/default").await;
    };
    join(callers, releasing).await;
    assert_eq!(marks(&rig), expected);
}

#[tokio::test]
async fn a_tenant_with_500_waiting_calls_delays_another_ones_call_by_its_turn_only() {
    let rig = Rig::build().tenants(3).per_second(50).set(&settings::MAX_WAIT, "60s").start().await;
    let many = join_all((0..500).map(async |_| rig.get("t0", PATH).await.expect(200)));
    let single = async {
        until("the burst is under way", async || judge::arrivals(&rig.sandbox) > 20).await;
        for number in 0..10 {
            let before = judge::arrivals(&rig.sandbox);
            rig.get("t1", &format!("{PATH}&mark=single{number}")).await.expect(200);
            let whose = accounts(&rig);
            let ahead = whose[before..].iter().take_while(|name| *name != "t1").count();
            // its turn comes after at most one of the other; a few more are on their way when it
            // is asked, and when its answer is read
            assert!(ahead <= 3, "{ahead} of the other tenant left before it");
        }
    };
    join(many, single).await;
}

#[tokio::test]
async fn tenants_share_the_slots_evenly_or_by_weight() {
    let rig = Rig::build().tenants(3).start().await;
    let grant = rig.sandbox.connect_tenant("app", "t2");
    let body = serde_json::json!({
        "api_key": "default", "refresh_token": grant.refresh_token,
        "access_token": grant.access_token, "weight": 3,
    });
    let put = crate::support::Call::new(Method::PUT, rig.admin_url("/v1/tenants/t2")).json(&body);
    rig.http.send(put).await.expect(200);
    hold(&rig, "api-keys/default").await;
    let of = async |tenant: &str| {
        join_all((0..30).map(async |_| rig.get(tenant, PATH).await.expect(200))).await
    };
    let (one, two, three) = (of("t0"), of("t1"), of("t2"));
    let releasing = async {
        rig.until_queued(90).await;
        release(&rig, "api-keys/default").await;
    };
    join(join(one, two), join(three, releasing)).await;
    let first: Vec<_> = accounts(&rig).into_iter().take(40).collect();
    let count = |name: &str| first.iter().filter(|account| *account == name).count();
    let shares = [count("t0"), count("t1"), count("t2")];
    assert!((7..=9).contains(&shares[0]) && (7..=9).contains(&shares[1]), "{shares:?}");
    assert!((22..=26).contains(&shares[2]), "{shares:?}");
}

#[tokio::test]
async fn classes_share_eight_to_three_to_one_and_none_starves() {
    let rig = Rig::build().tenants(1).start().await;
    hold(&rig, "api-keys/default").await;
    let of = async |urgency: u8, mark: &str| {
        join_all((0..60).map(async |_| marked(&rig, "t0", urgency, mark).await)).await
    };
    let (interactive, normal, bulk) = (of(1, "i"), of(4, "n"), of(7, "b"));
    let releasing = async {
        rig.until_queued(180).await;
        let key = rig.admin(Method::GET, "/v1/api-keys/default").await.json();
        let classes = &key["queue"]["by_class"];
        assert_eq!(classes["interactive"], 60, "{classes}");
        assert_eq!(classes["bulk"], 60, "{classes}");
        release(&rig, "api-keys/default").await;
    };
    join(join(interactive, normal), join(bulk, releasing)).await;
    let first: Vec<_> = marks(&rig).into_iter().take(60).collect();
    let count = |mark: &str| first.iter().filter(|seen| *seen == mark).count();
    let shares = [count("i"), count("n"), count("b")];
    assert!((38..=42).contains(&shares[0]), "{shares:?}");
    assert!((13..=17).contains(&shares[1]), "{shares:?}");
    assert!((4..=6).contains(&shares[2]), "{shares:?}");
}

#[tokio::test]
async fn a_held_key_and_a_held_tenant_wait_and_others_go_on() {
    let rig = Rig::build().tenants(2).start().await;
    hold(&rig, "tenants/t0").await;
    let held = async { rig.get("t0", PATH).await.expect(200) };
    let meanwhile = async {
        rig.until_queued(1).await;
        rig.get("t1", PATH).await.expect(200);
        let tenant = rig.admin(Method::GET, "/v1/tenants/t0").await.json();
        assert_eq!((&tenant["state"], &tenant["queue_depth"]), (&"paused".into(), &1.into()));
        hold(&rig, "api-keys/default").await;
        release(&rig, "tenants/t0").await;
        let call = rig.call(Method::GET, "t1", PATH).header("prefer", "wait=1");
        rig.http.send(call).await.expect_refusal(429, "wait_expired");
        assert_eq!(accounts(&rig), ["t1"]);
        release(&rig, "api-keys/default").await;
    };
    join(held, meanwhile).await;
    assert_eq!(accounts(&rig), ["t1", "t0"]);
}

#[tokio::test]
async fn a_removed_tenants_waiting_calls_are_refused_at_once() {
    let rig = Rig::build().tenants(2).start().await;
    hold(&rig, "tenants/t0").await;
    let waiting = join_all((0..5).map(|_| rig.get("t0", PATH)));
    let removing = async {
        rig.until_queued(5).await;
        rig.admin(Method::DELETE, "/v1/tenants/t0").await.expect(204);
    };
    for reply in join(waiting, removing).await.0 {
        reply.expect_refusal(404, "tenant_unknown");
    }
    assert_eq!(judge::arrivals(&rig.sandbox), 0);
}

#[tokio::test]
async fn hopeless_waits_are_answered_at_once_and_others_when_they_end() {
    let rig = Rig::build().per_second(2).set(&settings::MAX_WAIT, "60s").start().await;
    rig.get("t0", PATH).await.expect(200);
    let waiting = join_all((0..12).map(|_| rig.get("t0", PATH)));
    let asking = async {
        until("the queue is long", async || {
            let key = rig.admin(Method::GET, "/v1/api-keys/default").await.json();
            key["queue"]["depth"].as_u64() >= Some(10)
        })
        .await;
        for wait in [0, 1, 2] {
            let watch = Watch::start();
            let call = rig.call(Method::GET, "t0", PATH);
            let reply = rig.http.send(call.header("prefer", format!("wait={wait}"))).await;
            let reply = reply.expect_refusal(429, "wait_too_long");
            assert!(watch.elapsed() < Duration::from_millis(500), "{:?}", watch.elapsed());
            assert!(reply.retry_after().is_some_and(|secs| (3..=7).contains(&secs)), "{reply:?}");
        }
        let call = rig.call(Method::GET, "t0", PATH).header("prefer", "wait=20");
        rig.http.send(call).await.expect(200);
    };
    let (replies, ()) = join(waiting, asking).await;
    assert!(replies.iter().all(|reply| reply.status == 200));
    assert_eq!(judge::arrivals(&rig.sandbox), 14);
}

#[tokio::test]
async fn a_caller_may_not_ask_for_more_than_the_limit_of_waiting() {
    let rig = Rig::build()
        .set(&settings::MAX_WAIT, "500ms")
        .set(&settings::MAX_WAIT_LIMIT, "2s")
        .start()
        .await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    hold(&rig, "api-keys/default").await;
    for (prefer, least, most) in [(None, 450, 1_900), (Some("wait=3600"), 1_900, 10_000)] {
        let watch = Watch::start();
        let mut call = rig.call(Method::GET, "t0", PATH);
        if let Some(prefer) = prefer {
            call = call.header("prefer", prefer);
        }
        rig.http.send(call).await.expect_refusal(429, "wait_expired");
        let took = watch.elapsed().as_millis();
        assert!((least..most).contains(&took), "{prefer:?}: {took} ms");
    }
}
