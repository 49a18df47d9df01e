//! The script of the turnstile, asked directly: whose turn it is, whatever instances are called and
//! however long they wait or are away.

use std::time::Duration;

use ctct_proxy::engine::turnstile::{Ask, Turn, Whose};
use ctct_proxy::store::SharedTurnstile as _;

use crate::redis::RedisServer;
use crate::script::{ask, opened, place, turnstile, until_granted};
use crate::world::{main_key, tenant};

fn number(answer: &str) -> u64 {
    answer.trim_start_matches(':').parse().expect("a number")
}

/// Says where calls wait, and wants no slot now.
fn waits(name: &str, count: u32) -> Ask {
    Ask { wanted_until: None, ..ask(vec![place(name, count)]) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_whose_id_reads_as_a_number_is_passed_over_when_it_dies() {
    let server = RedisServer::start();
    let survivor = turnstile(&server, "survivor").await;
    opened(&survivor).await;
    for id in ["1234567890123456", "12345678901234e1", "0000000000000042"] {
        survivor.seen_as(id).ask(&main_key(), &waits("a", 1)).await.expect("an answer");
        let told = until_granted(&survivor, &ask(vec![place("b", 1)])).await;
        assert_eq!(told.granted.expect("a slot").1, tenant("b"), "{id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_line_of_a_tenant_that_always_waits_somewhere_is_kept() {
    let list = "ctct-proxy:{main}:who:2:a";
    let server = RedisServer::start();
    let one = turnstile(&server, "one").await;
    opened(&one).await;
    for instance in [&one, &one.seen_as("other")] {
        instance.ask(&main_key(), &waits("a", 9)).await.expect("an answer");
    }
    server.cmd(&["EXPIRE", list, "60"]);
    until_granted(&one, &ask(Vec::new())).await;
    assert!(number(&server.cmd(&["TTL", list])) > 60, "a turn renews it");
    server.cmd(&["EXPIRE", list, "60"]);
    one.ask(&main_key(), &waits("a", 7)).await.expect("an answer");
    assert!(number(&server.cmd(&["TTL", list])) > 60, "so does one who says that it still waits");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_that_the_line_has_lost_is_taken_again_by_who_still_waits() {
    let server = RedisServer::start();
    let one = turnstile(&server, "one").await;
    let other = one.seen_as("other");
    opened(&one).await;
    for instance in [&one, &other] {
        instance.ask(&main_key(), &waits("a", 2)).await.expect("an answer");
    }
    server.cmd(&["DEL", "ctct-proxy:{main}:who:2:a"]);
    for instance in [&other, &one] {
        let mut says = waits("a", 3);
        says.known = 1;
        let told = instance.ask(&main_key(), &says).await.expect("an answer");
        assert!(!told.forgotten && told.sharers == 2, "{told:?}");
    }
    for instance in [&other, &one] {
        until_granted(instance, &Ask { grace: Duration::from_secs(9), ..ask(Vec::new()) }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_far_away_is_given_its_own_time_to_come() {
    let grace = Duration::from_millis(300);
    let server = RedisServer::start();
    let near = turnstile(&server, "near").await;
    let far = near.seen_as("far");
    opened(&near).await;
    let called = Ask { grace, ..waits("a", 1) };
    let called = far.ask(&main_key(), &called).await.expect("an answer");
    let told = near.ask(&main_key(), &ask(vec![place("b", 1)])).await.expect("an answer");
    let Some(Turn { whose: Whose::Another, due }) = told.next else { panic!("{told:?}") };
    assert!(due > grace / 3, "to ask again before is of no use: {due:?}");
    let taken = until_granted(&near, &ask(Vec::new())).await;
    let after = Duration::from_micros(taken.at.0 - called.at.0);
    assert!(after >= grace, "its turn was taken after {after:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_many_places_of_one_that_died_are_dropped_over_several_questions() {
    const PLACES: u64 = 2_000;
    const AT_ONCE: u64 = 200;
    let server = RedisServer::start();
    let one = turnstile(&server, "one").await;
    let dead = one.seen_as("dead");
    opened(&one).await;
    for first in (0..PLACES).step_by(500) {
        let places = (first..first + 500).map(|n| place(&format!("t{n}"), 1)).collect();
        let says = Ask { wanted_until: None, ..ask(places) };
        dead.ask(&main_key(), &says).await.expect("an answer");
    }
    let left = || server.cmd(&["HGET", "ctct-proxy:{main}:busy", "dead"]).parse().unwrap_or(0_u64);
    assert_eq!(left(), PLACES);
    let (mut before, mut questions) = (PLACES, 0);
    // behind all of them
    one.ask(&main_key(), &waits("z", 1)).await.expect("an answer");
    loop {
        let told = one.ask(&main_key(), &ask(Vec::new())).await.expect("an answer");
        let now = left();
        assert!(before - now <= AT_ONCE, "{before} places, then {now}");
        if told.granted.is_some() {
            break;
        }
        if now > 0 && now < before {
            questions += 1;
            let again = Turn { whose: Whose::Mine, due: Duration::ZERO };
            assert_eq!(told.next, Some(again), "{now} are left");
        }
        before = now;
    }
    assert_eq!(questions, PLACES / AT_ONCE - 1);
}
