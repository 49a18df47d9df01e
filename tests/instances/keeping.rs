//! The script of the turnstile: the day's calls that are kept for instances that are by themselves.

use std::time::Duration;

use ctct_proxy::engine::Class;
use ctct_proxy::engine::turnstile::{
    Absence, Absent, Ask, Beat, ByItself, Kept, Memory, Part, Report, Roll, Stamp, Told,
};
use ctct_proxy::engine::{Day, scheduler::Limits};
use ctct_proxy::store::{RedisTurnstile, SharedTurnstile as _};

use crate::fleet::{MACHINE, RATE, TENANTS};
use crate::line::{Line, Mode};
use crate::redis::RedisServer;
use crate::script::{ask, beat, hear, opened, place, turnstile, until_granted};
use crate::world::{Instance, Upstream, limits, main_key, shares};

const PER_DAY: u64 = 300;
const KEEPING: &str = "ctct-proxy:{main}:keeping";

/// A third of all slots, heard a moment ago.
fn third(id: &str) -> Absent {
    Absent { id: id.to_owned(), slots: 1, calls_max: 1_000, since: Duration::ZERO }
}

/// As of one of three slots, that hears of those who are away.
fn says(absent: Vec<Absent>) -> Ask {
    let mut ask = ask(Vec::new());
    (ask.terms.per_day, ask.terms.rate) = (PER_DAY, "3".parse().expect("a rate"));
    (ask.wanted_until, ask.absence.absent) = (None, absent);
    ask
}

fn settling(reports: Vec<Report>) -> Ask {
    let absence = Absence { settles_until: Some(Stamp::NEVER), ..Absence::default() };
    Ask { absence, reports, ..says(Vec::new()) }
}

async fn told(turnstile: &RedisTurnstile, ask: &Ask) -> Told {
    turnstile.ask(&main_key(), ask).await.expect("an answer")
}

/// What is kept, by instance.
fn kept(told: &Told) -> Vec<(&str, u64)> {
    let mut kept: Vec<_> = told.kept.iter().map(|kept| (kept.id.as_str(), kept.calls)).collect();
    kept.sort_unstable();
    kept
}

fn used(day: Day, calls: u64) -> Vec<Report> {
    vec![Report::Used { day, calls }]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_kept_for_one_that_is_away_until_it_has_told_what_it_used() {
    let server = RedisServer::start();
    let one = turnstile(&server, "one").await;
    opened(&one).await;
    let away = one.seen_as("away");
    let mut wants = says(vec![Absent { slots: 500, ..third("away") }]);
    wants.terms.rate = "1000".parse().expect("a rate");
    (wants.wanted_until, wants.line) = (Some(Stamp::NEVER), vec![place("a", 1_000)]);
    wants.line[0].class = Class::Interactive;
    let first = until_granted(&one, &wants).await;
    assert_eq!(kept(&first), [("away", 150)]);
    wants.line.clear();
    for _ in 1..150 {
        until_granted(&one, &wants).await;
    }
    for _ in 0..20 {
        assert_eq!(told(&one, &wants).await.granted, None, "the rest is another's");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let late = Absence { settles_until: Some(Stamp(1)), ..Absence::default() };
    let back = told(&away, &Ask { absence: late, ..says(Vec::new()) }).await;
    assert!(!back.settled, "it was long under way");
    let back = told(&away, &settling(used(first.day, 40))).await;
    assert!(back.settled);
    assert_eq!((back.used, kept(&back)), (190, vec![]));
    let next = until_granted(&one, &wants).await;
    assert_eq!(kept(&next), [], "who says that it is away has not heard of it yet");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_away_is_kept_its_part_of_what_it_can_know_to_be_left() {
    let server = RedisServer::start();
    let one = turnstile(&server, "one").await;
    opened(&one).await;
    // all were by themselves: who is back first has used its part, of which the others do not know
    let day = told(&one, &says(Vec::new())).await.day;
    let back = Ask { reports: used(day, 90), ..says(vec![third("b"), third("c")]) };
    let answer = told(&one, &back).await;
    assert_eq!((answer.used, kept(&answer)), (90, vec![("b", 100), ("c", 100)]));
    // what was kept long ago it does know of
    let long_ago = format!("{} 100 1", day.number());
    for id in ["b", "c"] {
        server.cmd(&["HSET", KEEPING, id, &long_ago]);
    }
    let answer = told(&one, &says(vec![third("b"), third("d")])).await;
    assert_eq!(kept(&answer), [("b", 100), ("c", 100), ("d", 4)]);
    // one whose process has ended was by itself for a while only
    let ended = Absent { calls_max: 7, ..third("b") };
    assert_eq!(kept(&told(&one, &says(vec![ended])).await), [("b", 7), ("c", 100), ("d", 4)]);
    // of a day that begins while it is away it has its part of all
    let memory =
        Memory { ticket: 9, day: Day::new(day.number() + 1), used: 50, ..Memory::default() };
    let since = Duration::from_hours(96);
    let longer = Ask { memory, ..says(vec![Absent { since, ..third("b") }]) };
    assert_eq!(kept(&told(&one, &longer).await), [("b", 100)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_outlives_a_server_that_is_emptied() {
    let server = RedisServer::start();
    let one = turnstile(&server, "one").await;
    opened(&one).await;
    let first = told(&one, &says(vec![third("away")])).await;
    let mut knows = says(vec![third("away")]);
    knows.memory = Memory { ticket: 1, day: first.day, used: 200, ..Memory::default() };
    knows.absence.kept = vec![Kept { id: "away".into(), calls: 100 }];
    knows.absence.begun = first.begun;
    server.cmd(&["FLUSHALL"]);
    let again = told(&one, &knows).await;
    assert_eq!((again.used, kept(&again)), (200, vec![("away", 100)]), "not of what is left now");
    // what was known of the history of now is no news
    told(&one.seen_as("away"), &settling(Vec::new())).await;
    knows.absence.begun = again.begun;
    assert_eq!(kept(&told(&one, &knows).await), []);
}

/// For how long each that has ended may have been by itself.
fn gone(roll: &Roll) -> Vec<(&str, Duration)> {
    roll.gone.iter().map(|member| (member.id.as_str(), member.untold)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_ended_without_a_word_is_listed_with_for_how_long_it_may_have_been_by_itself() {
    let server = RedisServer::start();
    let one = turnstile(&server, "one").await;
    let says = Beat { goes_alone: true, ..beat() };
    let first = one.beat(&says).await.expect("an answer");
    tokio::time::sleep(Duration::from_secs(1)).await;
    for (at, id) in ["quick", "slow", "lost", "returned"].iter().enumerate() {
        let from = u64::try_from(at).expect("few") << 30;
        let by_itself = if *id == "returned" { ByItself::NoMore } else { ByItself::No };
        let part = Part { from, to: from + (1 << 30) };
        let beat = Beat { part, by_itself, ..says.clone() };
        one.seen_as(id).beat(&beat).await.expect("an answer");
    }
    for (id, ago) in [("quick", 5), ("slow", 60), ("lost", 601), ("returned", 5)] {
        hear(&server, id, first.at.0 + 1_000_000 - ago * 1_000_000);
    }
    // whose process another has seen to end, in time or late
    let ended = ["quick", "slow", "returned"].map(str::to_owned).to_vec();
    one.beat(&Beat { ended, ..says.clone() }).await.expect("an answer");
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let read = one.beat(&says).await.expect("an answer");
    let mut gone = gone(&read);
    gone.sort_unstable();
    let ids: Vec<_> = gone.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, ["lost", "returned", "slow"]);
    assert_eq!([gone[0].1, gone[1].1], [Duration::from_mins(10); 2]);
    let slow = gone[2].1;
    assert!((54..=57).contains(&slow.as_secs()), "from 5.4 s to 60 s: {slow:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_calls_than_there_are_leave_in_a_day_though_one_is_cut_off() {
    const DAY: usize = 360;
    let _alone = MACHINE.lock().await;
    let server = RedisServer::start();
    let line = Line::to(server.port()).await;
    let (upstream, limits) = (Upstream::new(), Limits { per_day: 360, ..limits(RATE) });
    let mut gates = Vec::new();
    let mut callers = Vec::new();
    for (name, url) in [("cut", line.url()), ("stays", server.url())] {
        let gate = Instance::start(&url, name, limits, &TENANTS).await;
        callers.extend(gate.callers("a", Class::Interactive, 5, &upstream));
        gates.push(gate);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    line.set(Mode::Cut);
    let cut_at = upstream.now();
    // the other would use up the day
    tokio::time::sleep(Duration::from_secs(38)).await;
    let all = upstream.all().len();
    let apart = upstream.arrivals(cut_at, upstream.now());
    let apart = shares(apart.iter().map(|(_, instance, _)| instance));
    assert!(all <= DAY, "{all} of {DAY}: {apart:?}");
    assert!(apart["cut"] >= 10, "it goes on by itself: {apart:?}");
    line.set(Mode::Whole);
    line.break_all();
    tokio::time::sleep(Duration::from_secs(12)).await;
    callers.iter().for_each(tokio::task::JoinHandle::abort);
    // what it did not use is there for all; a call on its way then may stay counted
    let count = upstream.all().len();
    assert!((DAY - 4..=DAY).contains(&count), "{count} of {DAY}, {all} apart");
}
