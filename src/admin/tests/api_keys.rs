//! API keys, health and metrics.

use super::*;
use crate::engine::Class;
use crate::engine::outcome::{Health, Outcome};
use crate::engine::scheduler::{Arrival, Entry, Readiness};
use crate::gate::Ticket;

impl Bench {
    /// A call of `acme` under `main` asks for a slot.
    fn enqueue(&self, class: Class) -> Ticket {
        let deadline = self.clock.now().mono.plus(Duration::from_secs(60));
        let (tenant, entry) = (tenant("acme"), Entry::Back);
        self.gate.set_tenant(&api_key("main"), &tenant, Some(Readiness::Ready), false, 1);
        let main = self.gate.api_key(&api_key("main")).unwrap();
        main.enqueue(Arrival { tenant, class, deadline, entry })
    }
}

#[tokio::test(start_paused = true)]
async fn an_api_key_is_shown_with_its_limits_queue_day_and_tenants() {
    let bench = Bench::open().await;
    bench.put("acme").await;
    let answer = bench.get("/v1/api-keys/main").await;
    let quiet = json!({
        "name": "main", "client_id": "id-of-main", "plan": "standard",
        "per_second": 4, "per_day": 10_000, "paused": false,
        "queue": {
            "depth": 0, "by_class": { "interactive": 0, "normal": 0, "bulk": 0 },
            "oldest_wait_ms": 0,
            "estimated_wait_ms": { "interactive": 1_050, "normal": 1_050, "bulk": 1_050 },
        },
        "day": {
            "used": 0, "remaining": 10_000, "resets_at": "2026-11-25T00:00:00.000Z",
            "forecast_exhausted_at": null, "forecast_exhausted_between": null,
        },
        "upstream": { "in_flight": 0, "throttled_total": 0, "guard_ms": 50 },
        "foreign_use": { "suspected": false, "calls_today": 0, "since": null },
        "token_lane": { "depth": 0, "done_at": null },
        "tenants": { "ready": 1, "needs_authorization": 0 },
    });
    assert_eq!(answer.json(), quiet);
    let list = bench.get("/v1/api-keys").await;
    assert_eq!(list.names("name"), ["big", "main"]);
    assert_eq!(list.json()["items"][1], quiet);
    assert_eq!(list.json()["items"][0]["per_second"], 7.5);
    assert_eq!(list.json()["next_cursor"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn a_day_that_will_not_last_is_shown_with_its_likely_span() {
    let bench = Bench::open().await;
    bench.put("acme").await;
    for _ in 0..120 {
        let permit = bench.enqueue(Class::Interactive).granted().await.unwrap();
        permit.spend().settle(Outcome::Answered(Health::Good));
    }
    let day = bench.get("/v1/api-keys/main").await.json()["day"].clone();
    let likely = day["forecast_exhausted_at"].as_str().unwrap();
    let early = day["forecast_exhausted_between"][0].as_str().unwrap();
    assert!(early < likely && likely < day["resets_at"].as_str().unwrap(), "{day}");
    assert!(early.ends_with('Z') && day["forecast_exhausted_between"][1].is_null(), "{day}");
}

#[tokio::test(start_paused = true)]
async fn api_keys_come_in_pieces_too() {
    let bench = Bench::open().await;
    let first = bench.get("/v1/api-keys?limit=1").await;
    assert_eq!(first.names("name"), ["big"]);
    let cursor = first.json()["next_cursor"].as_str().unwrap().to_owned();
    let second = bench.get(&format!("/v1/api-keys?limit=1&cursor={cursor}")).await;
    assert_eq!(second.names("name"), ["main"]);
    assert_eq!(second.json()["next_cursor"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn waiting_calls_and_their_outcomes_are_seen() {
    let bench = Bench::open().await;
    bench.put("acme").await;
    for health in [Health::Good, Health::Error] {
        let permit = bench.enqueue(Class::Normal).granted().await.unwrap();
        permit.spend().settle(Outcome::Answered(health));
    }
    bench.post("/v1/api-keys/main/pause").await;
    let waiting = [bench.enqueue(Class::Bulk), bench.enqueue(Class::Interactive)];
    tokio::time::sleep(Duration::from_millis(1_500)).await;

    let view = bench.get("/v1/api-keys/main").await.json();
    assert_eq!(view["queue"]["depth"], 2, "{view}");
    assert_eq!(view["queue"]["by_class"]["bulk"], 1);
    assert_eq!(view["queue"]["oldest_wait_ms"], 1_500);
    assert_eq!(view["day"]["used"], 2);
    assert_eq!(view["paused"], true);
    let tenant = bench.get("/v1/tenants/acme").await.json();
    assert_eq!(tenant["today"], json!({ "calls": 2, "throttled": 0, "errors": 1 }));
    assert_eq!(tenant["queue_depth"], 2);
    assert!(tenant["last_used_at"].as_str().unwrap().starts_with("2026-11-24T06:00:0"));
    assert_eq!(bench.get("/v1/tenants").await.json()["items"][0], tenant);
    drop(waiting);
}

#[tokio::test(start_paused = true)]
async fn a_held_api_key_is_held_in_the_store_and_told_once() {
    let bench = Bench::open().await;
    let mut notices = bench.events.subscribe();
    for (verb, held) in [("pause", true), ("pause", true), ("resume", false)] {
        let answer = bench.post(&format!("/v1/api-keys/main/{verb}")).await;
        assert_eq!((answer.status, answer.text.as_str()), (204, ""));
        let stored = bench.store.paused_api_keys().await.unwrap();
        assert_eq!(stored.contains("main"), held);
        assert_eq!(bench.get("/v1/api-keys/main").await.json()["paused"], held);
    }
    let told: Vec<Value> = std::iter::from_fn(|| notices.try_recv().ok())
        .map(|notice| serde_json::to_value(notice).unwrap()["paused"].clone())
        .collect();
    assert_eq!(told, [json!(true), json!(false)]);
}

#[tokio::test(start_paused = true)]
async fn an_api_key_that_could_not_be_stored_is_not_held() {
    let bench = Bench::open().await;
    bench.store.close().await.unwrap();
    let answer = bench.post("/v1/api-keys/main/pause").await;
    answer.assert_error(503, "admin.store_unavailable", "try again");
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(bench.get("/v1/api-keys/main").await.json()["paused"], false);
}

#[tokio::test(start_paused = true)]
async fn an_api_key_that_is_not_configured_is_not_found() {
    let bench = Bench::open().await;
    let words = "there is no API key other";
    bench.get("/v1/api-keys/other").await.assert_error(404, "admin.not_found", words);
    bench.post("/v1/api-keys/other/pause").await.assert_error(404, "admin.not_found", words);
}

#[tokio::test]
async fn a_process_lives_always_and_is_ready_only_when_it_is() {
    let bench = Bench::open().await;
    for (phase, status, word) in [
        (Phase::Starting, 503, "starting"),
        (Phase::Ready, 200, "ready"),
        (Phase::StoreDown, 503, "store_down"),
        (Phase::Draining, 503, "draining"),
    ] {
        bench.phase.set(phase);
        let ready = bench.get("/readyz").await;
        assert_eq!((ready.status, &ready.json()["status"]), (status, &json!(word)));
        assert_eq!(ready.json()["reason"].is_string(), status == 503);
        assert_eq!(bench.get("/livez").await.status, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn the_metrics_page_is_up_to_date_when_it_is_read() {
    let bench = Bench::open().await;
    bench.put("acme").await;
    bench.put("held").await;
    bench.post("/v1/tenants/held/pause").await;
    bench.post("/v1/api-keys/main/pause").await;
    let _waiting = bench.enqueue(Class::Normal);
    let page = bench.get("/metrics").await;
    assert_eq!(page.headers["content-type"], crate::telemetry::TEXT_CONTENT_TYPE);
    for line in [
        r#"ctct_proxy_tenants{api_key="main",state="ready"} 1"#,
        r#"ctct_proxy_tenants{api_key="main",state="paused"} 1"#,
        r#"ctct_proxy_tenants{api_key="big",state="ready"} 0"#,
        r#"ctct_proxy_token_lane_depth{api_key="main"} 0"#,
        r#"ctct_proxy_queue_depth{api_key="main",class="normal"} 1"#,
        r#"ctct_proxy_day_limit{api_key="big"} 250000"#,
    ] {
        assert!(page.text.lines().any(|found| found == line), "{line} is not in {}", page.text);
    }
}
