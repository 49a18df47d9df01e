//! The script of the turnstile, asked directly: what it counts, and what it makes of what instances
//! say became of their calls.

use std::time::Duration;

use ctct_proxy::engine::Day;
use ctct_proxy::engine::turnstile::{Ask, Memory, Report, Stamp, Told};
use ctct_proxy::store::{RedisTurnstile, SharedTurnstile as _};

use crate::redis::RedisServer;
use crate::script::{ask, opened, place, turnstile, until_granted};
use crate::world::main_key;

const STATE: &str = "ctct-proxy:{main}:turnstile";
const DAYS: &str = "ctct-proxy:{main}:days";

async fn tell(turnstile: &RedisTurnstile, ask: &Ask) -> Told {
    turnstile.ask(&main_key(), ask).await.expect("an answer")
}

fn days_on(day: Day, days: u32) -> Day {
    Day::new(day.number() + days)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_that_did_not_leave_is_made_again_at_once() {
    let server = RedisServer::start();
    let one = turnstile(&server, "one").await;
    opened(&one).await;
    let before = until_granted(&one, &ask(vec![place("a", 9)])).await;
    let spent = Report::Spent { day: before.day };
    tell(&one, &Ask { reports: vec![spent], wanted_until: None, ..ask(Vec::new()) }).await;
    server.cmd(&["HSET", STATE, "probe_at", &before.at.0.to_string()]);
    let probe = until_granted(&one, &ask(Vec::new())).await;
    let returned = |told: &Told| {
        let back = Report::Returned { ticket: told.ticket, day: told.day };
        Ask { reports: vec![back], wanted_until: None, ..ask(Vec::new()) }
    };
    let told = tell(&one, &returned(&before)).await;
    assert!(told.spent > Some(Duration::from_mins(59)), "that was not the probe: {told:?}");
    tell(&one, &returned(&probe)).await;
    let again = until_granted(&one, &ask(Vec::new())).await;
    assert!(again.spent > Some(Duration::from_mins(59)), "it is the next probe: {again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn days_that_a_clock_far_ahead_has_counted_are_added_to_this_one() {
    let server = RedisServer::start();
    let one = turnstile(&server, "one").await;
    opened(&one).await;
    let today = tell(&one, &ask(Vec::new())).await.day;
    let ahead = days_on(today, 30);
    let (today_text, ahead_text) = (today.number().to_string(), ahead.number().to_string());
    server.cmd(&["HSET", DAYS, &today_text, "5", &ahead_text, "40"]);
    server.cmd(&["HSET", STATE, "day", &ahead_text]);
    let told = tell(&one, &ask(Vec::new())).await;
    assert_eq!((told.day, told.used), (today, 45));
    assert_eq!(server.cmd(&["HEXISTS", DAYS, &ahead_text]), ":0");
    let memory = Memory { day: ahead, used: 40, ..Memory::default() };
    let told = tell(&one, &Ask { memory, ..ask(Vec::new()) }).await;
    assert_eq!((told.day, told.used), (today, 45), "one that remembers the same");
    let used = Report::Used { day: ahead, calls: 2 };
    let told = tell(&one, &Ask { reports: vec![used], ..ask(Vec::new()) }).await;
    assert_eq!((told.day, told.used), (today, 47));
    server.cmd(&["FLUSHALL"]);
    let told = tell(&one, &Ask { memory, ..ask(Vec::new()) }).await;
    assert_eq!((told.day, told.used), (today, 40), "only one remembers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_days_are_forgotten_when_the_day_turns() {
    let server = RedisServer::start();
    let one = turnstile(&server, "one").await;
    opened(&one).await;
    let today = tell(&one, &ask(Vec::new())).await.day.number();
    for ago in 1..9 {
        server.cmd(&["HSET", DAYS, &(today - ago).to_string(), "7"]);
    }
    server.cmd(&["HSET", STATE, "day", &(today - 1).to_string()]);
    tell(&one, &ask(Vec::new())).await;
    let kept = server.cmd(&["HKEYS", DAYS]);
    let mut kept: Vec<u32> = kept.lines().map(|day| day.parse().expect("a day")).collect();
    kept.sort_unstable();
    assert_eq!(kept, [today - 3, today - 2, today - 1, today]);
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
    // one that was under way for long comes after those that were asked later
    assert_eq!(tell(&one, &first).await.used, 38);
    let repeats = Ask { number: 110, again, ..ask(Vec::new()) };
    assert_eq!(tell(&one, &repeats).await.used, 38);
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
    server.cmd(&["HSET", heard, "gone", &format!("7 0 {long_ago}")]);
    server.cmd(&["HSET", STATE, "renewed", &long_ago]);
    tell(&one, &ask(Vec::new())).await;
    assert_eq!(server.cmd(&["HKEYS", heard]), "one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_lost_history_counted_is_added_to_what_was_counted_since() {
    let server = RedisServer::start();
    let one = turnstile(&server, "one").await;
    opened(&one).await;
    let mut told = until_granted(&one, &ask(vec![place("a", 3)])).await;
    for _ in 0..2 {
        told = until_granted(&one, &ask(Vec::new())).await;
    }
    assert_eq!(told.used, 3);
    let (day, begun, old) = (told.day, told.begun, Stamp(told.begun.0 - 1));
    let remember = |used, begun| {
        let memory = Memory { day, used, begun, ..Memory::default() };
        Ask { memory, wanted_until: None, ..ask(Vec::new()) }
    };
    // who comes late remembers of the time before; the more of it, the nearer it is to all
    let cases = [(90, old, 93), (99, old, 102), (95, old, 102), (102, begun, 102)];
    for (used, begun, all) in cases {
        assert_eq!(tell(&one, &remember(used, begun)).await.used, all, "{used} of {begun:?}");
    }
    let newer = Stamp(begun.0 + 1);
    assert_eq!(tell(&one, &remember(150, newer)).await.used, 150, "all of this may be in it");
    let back = Report::Returned { ticket: told.ticket, day };
    let both = Ask { reports: vec![back], ..remember(199, old) };
    assert_eq!(tell(&one, &both).await.used, 249, "199 before, 51 since, and one was given back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_of_a_lost_history_is_no_other_calls() {
    let server = RedisServer::start();
    let one = turnstile(&server, "one").await;
    let mut tickets = Vec::new();
    for _ in 0..2 {
        opened(&one).await;
        tickets.push(until_granted(&one, &ask(vec![place("a", 1)])).await);
        if tickets.len() == 1 {
            server.cmd(&["FLUSHALL"]);
        }
    }
    let [lost, _] = &tickets[..] else { panic!("{tickets:?}") };
    let back = Report::Returned { ticket: lost.ticket, day: lost.day };
    let told = tell(&one, &Ask { reports: vec![back], ..ask(Vec::new()) }).await;
    assert_eq!(told.used, 1, "{tickets:?}");
}
