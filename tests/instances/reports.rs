//! The script of the turnstile, asked directly: what it counts, and what it makes of what instances
//! say became of their calls.

use std::time::Duration;

use ctct_proxy::engine::turnstile::{Ask, Report, Told};
use ctct_proxy::store::{RedisTurnstile, SharedTurnstile as _};

use crate::redis::RedisServer;
use crate::script::{ask, opened, turnstile};
use crate::world::main_key;

const STATE: &str = "ctct-proxy:{main}:turnstile";

async fn tell(turnstile: &RedisTurnstile, ask: &Ask) -> Told {
    turnstile.ask(&main_key(), ask).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_told_again_has_its_effect_once() {
    let server = RedisServer::start();
    let one = turnstile(&server, "one").await;
    opened(&one).await;
    let day = tell(&one, &ask(Vec::new())).await.day;
    let reports = vec![
        Report::Used { day, calls: 37 },
        Report::Throttled { guard: Duration::ZERO },
        Report::Closed { span: Duration::from_secs(9) },
    ];
    let first = Ask { number: 101, reports: reports.clone(), ..ask(Vec::new()) };
    let heard = tell(&one, &first).await;
    assert_eq!((heard.used, heard.refused), (37, 1));
    let again: Vec<_> = reports.iter().map(|report| (101, *report)).collect();
    for number in 102..110 {
        let more = if number == 105 { vec![Report::Used { day, calls: 1 }] } else { Vec::new() };
        let repeats = Ask { number, again: again.clone(), reports: more, ..ask(Vec::new()) };
        let told = tell(&one, &repeats).await;
        assert_eq!(told.used, if number < 105 { 37 } else { 38 }, "{number}");
        assert_eq!((told.refused, told.widened), (1, heard.widened), "{number}");
        assert!(told.closed < heard.closed, "{number}");
    }
    let other = tell(&one.seen_as("other"), &Ask { number: 3, ..first.clone() }).await;
    assert_eq!(other.used, 75, "another instance has numbers of its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_told_again_has_its_effect_where_it_has_not_been_heard() {
    let server = RedisServer::start();
    let one = turnstile(&server, "one").await;
    opened(&one).await;
    let day = tell(&one, &ask(Vec::new())).await.day;
    let used = |calls| Report::Used { day, calls };
    let heard = Ask { number: 101, reports: vec![used(10)], ..ask(Vec::new()) };
    assert_eq!(tell(&one, &heard).await.used, 10);
    // the answer to 101 was lost, and 102 itself
    let again = vec![(101, used(10)), (102, used(20))];
    let next = Ask { number: 103, again, reports: vec![used(3)], ..ask(Vec::new()) };
    assert_eq!(tell(&one, &next).await.used, 33);
    server.cmd(&["FLUSHALL"]);
    let again = vec![(101, used(10)), (102, used(20)), (103, used(3))];
    let next = Ask { number: 104, again, ..ask(Vec::new()) };
    assert_eq!(tell(&one, &next).await.used, 33, "a server that was emptied has heard nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_not_asked_for_an_hour_is_forgotten() {
    let heard = "ctct-proxy:{main}:heard";
    let server = RedisServer::start();
    let one = turnstile(&server, "one").await;
    opened(&one).await;
    let told = tell(&one, &ask(Vec::new())).await;
    let says = Ask { reports: vec![Report::Closed { span: Duration::ZERO }], ..ask(Vec::new()) };
    tell(&one, &says).await;
    let long_ago = (told.at.0 - 3_601_000_000).to_string();
    server.cmd(&["HSET", heard, "gone", &format!("7 {long_ago}")]);
    server.cmd(&["HSET", STATE, "renewed", &long_ago]);
    tell(&one, &ask(Vec::new())).await;
    assert_eq!(server.cmd(&["HKEYS", heard]), "one");
}
