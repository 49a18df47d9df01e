//! The list of instances: of a store of one's own, and of one that is shared and lost.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::engine::turnstile::{Ask, Away, Beat, Member, OnLoss, Part, Roll, Stamp, Told, Turn};
use crate::store::{SharedTurnstile, StoreError};

/// A third of every limit.
const THIRD: Part = Part { from: 0, to: (1 << 32) / 3 };

/// A store whose roll has three instances, and that can be lost.
#[derive(Default)]
struct Others {
    is_lost: AtomicBool,
}

impl Others {
    fn answer<T>(&self, answer: T) -> Result<T, StoreError> {
        if self.is_lost.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable { attempt: "ask", cause: "it is lost".into() });
        }
        Ok(answer)
    }
}

#[async_trait]
impl SharedTurnstile for Others {
    async fn ask(&self, _: &ApiKeyName, _: &Ask) -> Result<Told, StoreError> {
        Err(StoreError::Unavailable { attempt: "ask", cause: "nobody waits".into() })
    }

    async fn beat(&self, _: &Beat) -> Result<Roll, StoreError> {
        let member = |id: &str, details: &str, away| Member {
            id: id.to_owned(),
            name: format!("{id}/127.0.0.1:8080"),
            details: details.to_owned(),
            seen: Stamp(1_795_500_007_000_000),
            away,
            dead_after: Duration::from_mins(10),
            parts: [Part::default(), THIRD],
            untold: Duration::ZERO,
        };
        let own = instance();
        let back = Away::Back(Duration::from_secs(1));
        let members = vec![
            member("ff", r#"{"host":"there","weather":"fine"}"#, Some(Away::Silent)),
            Member { name: own.name, ..member(&own.id, &own.details, None) },
            member("bb", "no JSON", Some(back)),
        ];
        let at = Stamp(1_795_500_010_000_000);
        self.answer(Roll { at, epoch: "1".into(), part: THIRD, members, gone: Vec::new() })
    }

    async fn listen(&self, _: mpsc::UnboundedSender<(ApiKeyName, Turn)>) {
        std::future::pending::<()>().await;
    }
}

async fn list(bench: &Bench, query: &str) -> Value {
    let answer = bench.get(&format!("/v1/instances{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

#[tokio::test(start_paused = true)]
async fn an_instance_with_its_own_store_is_alone_and_has_all_slots() {
    let bench = Bench::open().await;
    let answer = list(&bench, "").await;
    let own = json!({
        "id": "00000000000000aa",
        "name": "here/127.0.0.1:8080",
        "host": "here",
        "listen": "127.0.0.1:8080",
        "admin_listen": "127.0.0.1:9090",
        "version": "1.2.3",
        "started_at": "2026-11-24T06:00:00.000Z",
        "state": "here",
        "last_seen_at": "2026-11-24T06:00:00.000Z",
        "self": true,
        "slots": { "big": 8, "main": 4 },
        "store": "own",
    });
    assert_eq!(answer["items"], json!([own]));
    assert_eq!(answer["next_cursor"], Value::Null);
    assert_eq!(answer["store_lost"], false);
    let page = bench.get("/metrics").await.text;
    for line in [
        r#"ctct_proxy_instances{state="here"} 1"#,
        r#"ctct_proxy_instances{state="silent"} 0"#,
        "ctct_proxy_store_lost 0",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in {page}");
    }
}

#[tokio::test(start_paused = true)]
async fn all_that_share_a_store_are_listed_also_when_it_is_lost() {
    let others = Arc::new(Others::default());
    let sharing = Sharing {
        turnstile: others.clone(),
        on_loss: OnLoss::GoOn { lasting: Duration::from_mins(10) },
    };
    let bench = Bench::built(None, Some(sharing), router).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    let answer = list(&bench, "").await;
    let items = answer["items"].as_array().unwrap();
    let of = |name: &str| items.iter().map(|item| item[name].clone()).collect::<Vec<_>>();
    assert_eq!(of("id"), ["00000000000000aa", "bb", "ff"]);
    assert_eq!(of("state"), ["here", "back", "silent"]);
    assert_eq!(of("self"), [true, false, false]);
    assert_eq!(of("host"), [json!("here"), Value::Null, json!("there")]);
    assert_eq!(of("store"), ["shared", "shared", "shared"]);
    assert_eq!(items[0]["slots"], json!({ "big": 3, "main": 1 }), "a third of 8 and of 4");
    assert_eq!(items[0]["last_seen_at"], answer["read_at"]);
    assert_eq!(answer["read_at"], "2026-11-24T06:00:10.000Z");
    assert_eq!(items[1]["last_seen_at"], "2026-11-24T06:00:07.000Z");
    let piece = list(&bench, "?limit=2").await;
    assert_eq!(piece["items"].as_array().map(Vec::len), Some(2));
    let cursor = piece["next_cursor"].as_str().unwrap().to_owned();
    assert_eq!(list(&bench, &format!("?cursor={cursor}")).await["items"][0]["id"], "ff");

    others.is_lost.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let lost = list(&bench, "").await;
    assert_eq!((&lost["items"], &lost["read_at"]), (&answer["items"], &answer["read_at"]));
    assert_eq!(lost["store_lost"], true);
    let page = bench.get("/metrics").await.text;
    for line in [
        r#"ctct_proxy_instances{state="here"} 2"#,
        r#"ctct_proxy_instances{state="silent"} 1"#,
        "ctct_proxy_store_lost 1",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in {page}");
    }
}
