//! The event stream.

use http::header::CONTENT_TYPE;

use super::*;
use crate::telemetry::Event;

/// An open event stream.
struct Listener {
    body: Body,
    read: String,
}

impl Bench {
    async fn listen(&self) -> Listener {
        let get = request("GET", "/v1/events").body(Body::empty()).unwrap();
        let answer = self.router.clone().oneshot(get).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()[CONTENT_TYPE], "text/event-stream");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        Listener { body: answer.into_body(), read: String::new() }
    }
}

/// An event: its id, name and data.
#[derive(Debug)]
struct Heard {
    id: Option<u64>,
    name: String,
    data: Value,
}

impl Listener {
    /// The next event; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Heard> {
        loop {
            while let Some((event, rest)) = self.read.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.read = rest;
                if !event.starts_with(':') {
                    return Some(Heard::read(&event));
                }
            }
            let frame = self.body.frame().await?.unwrap();
            let data = frame.into_data().unwrap();
            self.read.push_str(std::str::from_utf8(&data).unwrap());
        }
    }
}

impl Heard {
    fn read(event: &str) -> Self {
        let field = |name: &str| {
            let line = event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.map(str::to_owned)
        };
        Self {
            id: field("id").map(|id| id.parse().unwrap()),
            name: field("event").unwrap(),
            data: serde_json::from_str(&field("data").unwrap()).unwrap(),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_listener_hears_changes_and_a_snapshot_each_second_until_the_stop() {
    let bench = Bench::open().await;
    let mut listener = bench.listen().await;
    let mut other = bench.listen().await;
    bench.post("/v1/api-keys/main/pause").await;
    let heard = listener.next().await.unwrap();
    assert_eq!((heard.id, heard.name.as_str()), (Some(1), "api_key_paused"));
    let told = json!({
        "time": "2026-11-24T06:00:00.000Z", "type": "api_key_paused", "api_key": "main",
        "paused": true,
    });
    assert_eq!(heard.data, told);

    let heard = listener.next().await.unwrap();
    assert_eq!((heard.id, heard.name.as_str()), (Some(2), "snapshot"));
    assert_eq!(heard.data["api_keys"], bench.get("/v1/api-keys").await.json()["items"]);
    assert_eq!(heard.data["api_keys"][1]["paused"], true);
    let before = bench.clock.now().mono;
    assert_eq!(listener.next().await.unwrap().name, "snapshot");
    assert_eq!(bench.clock.now().mono.since(before), Duration::from_secs(1));
    assert_eq!(other.next().await.unwrap().data, told, "both hear the same");

    bench.stopped.cancel();
    assert!(listener.next().await.is_none());
    assert_eq!(bench.clock.now().mono.since(before), Duration::from_secs(1), "at once");
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_lags_is_told_how_much_it_missed_and_goes_on() {
    let bench = Bench::open().await;
    let mut listener = bench.listen().await;
    for _ in 0..300 {
        bench.events.publish(Event::DaySpent { api_key: api_key("main") });
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    let heard = listener.next().await.unwrap();
    assert_eq!((heard.id, heard.name.as_str()), (None, "lagged"));
    assert_eq!(heard.data, json!({ "missed": 44 }));
    let heard = listener.next().await.unwrap();
    assert_eq!((heard.id, heard.name.as_str()), (Some(45), "day_spent"));
}

#[tokio::test(start_paused = true)]
async fn added_and_removed_clients_are_told() {
    let bench = Bench::open().await;
    let mut listener = bench.listen().await;
    let body = json!({ "name": "crm", "tenants": "*" });
    bench.ask("POST", "/v1/clients", Some(body)).await;
    bench.ask("DELETE", "/v1/clients/crm", None).await;
    for name in ["client_added", "client_removed"] {
        let heard = listener.next().await.unwrap();
        assert_eq!(heard.name, name);
        assert_eq!(heard.data["name"], "crm");
    }
}
