//! Rates as the upstream sees them, for every way to write one.

use std::time::Duration;

use futures_util::future::{join, join_all};
use http::Method;

use ctct_proxy::config::settings;
use ctct_proxy::sandbox::{LogEntry, Window};

use crate::support::{Rig, RigBuilder, Watch, judge};

const PATH: &str = "/v3/contacts?limit=1";

/// `count` calls at once of tenant t0; all are served.
async fn burst(rig: &Rig, count: usize) -> Vec<LogEntry> {
    join_all((0..count).map(async |_| rig.get("t0", PATH).await.expect(200))).await;
    judge::assert_no_429(&rig.sandbox);
    judge::api_calls(&rig.sandbox)
}

/// A proxy with this rate before a sandbox that does not enforce one.
fn at_rate(rate: &str) -> RigBuilder {
    Rig::build()
        .sandbox(|options| options.per_second = 1_000)
        .set(&settings::PER_SECOND, rate)
        .set(&settings::MAX_WAIT, "60s")
}

#[tokio::test]
async fn fractions_and_calls_per_minute_are_kept() {
    let measure = async |rate: &str, count: usize, each: Duration| {
        let rig = at_rate(rate).start().await;
        let calls = burst(&rig, count).await;
        for pair in calls.windows(2) {
            let gap = judge::gap(&pair[0], &pair[1]);
            assert!(gap >= each, "{rate}: only {gap:?} apart");
            assert!(gap < each + each / 5 + Duration::from_millis(100), "{rate}: {gap:?} apart");
        }
    };
    join_all([
        Box::pin(measure("0.5", 5, Duration::from_secs(2))),
        Box::pin(measure("60/min", 8, Duration::from_secs(1))),
        Box::pin(measure("1", 8, Duration::from_secs(1))),
    ])
    .await;
}

#[tokio::test]
async fn both_plans_are_kept_in_every_window() {
    let measure = async |plan: &str, per_second: u32, calls: usize| {
        for window in [Window::Fixed, Window::Sliding, Window::Bucket] {
            let rig = Rig::build()
                .sandbox(|options| {
                    options.window = window;
                    options.latency = Duration::from_millis(30);
                    options.jitter = Duration::from_millis(25);
                    options.per_second = per_second;
                })
                .set(&settings::PLAN, plan)
                .set(&settings::PER_SECOND, &per_second.to_string())
                .set(&settings::MAX_WAIT, "60s")
                .start()
                .await;
            let rate = judge::rate(&burst(&rig, calls).await);
            assert!(rate > f64::from(per_second) * 0.6, "{plan}, {window:?}: {rate:.2}");
        }
    };
    join(measure("standard", 4, 20), measure("partner", 10, 50)).await;
}

#[tokio::test]
async fn an_idle_keys_first_call_leaves_at_once_and_the_next_are_spaced() {
    let rig = at_rate("4").start().await;
    rig.get("t0", PATH).await.expect(200);
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let watch = Watch::start();
    let reply = rig.get("t0", PATH).await.expect(200);
    assert!(watch.elapsed() < Duration::from_millis(200), "{:?}", watch.elapsed());
    assert!(reply.header("server-timing").starts_with("queue;dur="));
    let calls = burst(&rig, 8).await;
    for five in calls[1..].windows(5) {
        let span = judge::gap(&five[0], &five[4]);
        assert!(span >= Duration::from_secs(1), "five within {span:?}");
    }
}

#[tokio::test]
async fn limits_that_change_while_calls_wait_hold_from_then_on_and_lose_nobody() {
    let mut rig = Rig::build()
        .sandbox(|options| options.per_second = 1_000)
        .set(&settings::PER_SECOND, "10")
        .set(&settings::MAX_WAIT, "60s")
        .start()
        .await;
    let waiting = {
        let http = rig.http.clone();
        let calls: Vec<_> = (0..100).map(|_| rig.call(Method::GET, "t0", PATH)).collect();
        join_all(calls.into_iter().map(move |call| {
            let http = http.clone();
            async move { http.send(call).await.status }
        }))
    };
    let changing = async {
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        rig.reload(&[(&settings::PER_SECOND, "40")]).await;
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        rig.reload(&[(&settings::PER_SECOND, "5")]).await;
        let changed_at = rig.sandbox.log().last().map(judge::at).unwrap();
        tokio::time::sleep(Duration::from_millis(3_000)).await;
        rig.reload(&[(&settings::PER_SECOND, "50")]).await;
        changed_at
    };
    let (statuses, slow_from) = join(waiting, changing).await;
    assert_eq!(statuses, vec![200; 100]);
    let calls: Vec<_> = judge::api_calls(&rig.sandbox).iter().map(judge::at).collect();
    let within =
        |from: Duration, to: Duration| calls.iter().filter(|at| (from..to).contains(*at)).count();
    let second = Duration::from_secs(1);
    // a second after the change to 5, what left before it is out of every window
    let settled = slow_from + second + Duration::from_millis(300);
    let slow = within(settled, settled + second);
    assert!(slow <= 5, "{slow} in a second at 5");
    let first = calls[0];
    assert!(within(first, first + second) <= 10, "at 10 in the beginning");
    let fast = within(slow_from.saturating_sub(second * 3 / 4), slow_from);
    assert!(fast > 12, "{fast} at 40");
    let key = rig.admin(Method::GET, "/v1/api-keys/default").await.json();
    assert_eq!(key["day"]["used"], 100);
    assert_eq!(key["per_second"], 50);
}

#[tokio::test]
async fn keys_do_not_slow_each_other_down() {
    let file = r#"
        [[api_keys]]
        name = "one"
        client_id = "client-one"
        per_second = 5
        [[api_keys]]
        name = "two"
        client_id = "client-two"
        per_second = 20
    "#;
    let rig = Rig::build().sandbox(|options| options.per_second = 20).file(file).start().await;
    rig.connect("one", "client-one", "slow").await;
    rig.connect("two", "client-two", "fast").await;
    let slow = join_all((0..20).map(async |_| rig.get("slow", PATH).await.expect(200)));
    let fast = join_all((0..80).map(async |_| rig.get("fast", PATH).await.expect(200)));
    let (slow, fast) = join(slow, fast).await;
    assert!(slow[0].header("ratelimit-policy").starts_with(r#""second";q=5;w=1"#));
    assert!(fast[0].header("ratelimit-policy").starts_with(r#""second";q=20;w=1"#));
    judge::assert_no_429(&rig.sandbox);
    let of = |client: &str| {
        let calls = judge::api_calls(&rig.sandbox);
        calls.into_iter().filter(|c| c.client_id.as_deref() == Some(client)).collect::<Vec<_>>()
    };
    let rates = (judge::rate(&of("client-one")), judge::rate(&of("client-two")));
    assert!((3.0..=5.2).contains(&rates.0) && (12.0..=20.5).contains(&rates.1), "{rates:?}");
}
