//! The script of the turnstile, asked directly: what instances that come and go leave behind.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ctct_proxy::engine::turnstile::{
    Ask, Away, Beat, Memory, Place, Report, Roll, Stamp, Terms, Told,
};
use ctct_proxy::engine::{Class, Day, DayReset};
use ctct_proxy::store::{InstanceInfo, RedisTurnstile, SharedTurnstile as _};

use crate::redis::RedisServer;
use crate::world::{main_key, redis_url, tenant};

const COUNT: usize = 1_000;
/// Where instances are written down.
const ROLL: &str = "ctct-proxy:{instances}:roll";

pub(crate) async fn turnstile(server: &RedisServer, name: &str) -> RedisTurnstile {
    let info =
        InstanceInfo { id: name.to_owned(), name: name.to_owned(), details: "{}".to_owned() };
    RedisTurnstile::open(&redis_url(&server.url()), &info).await.expect("connects")
}

pub(crate) fn ask(line: Vec<Place>) -> Ask {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let rate = "1000".parse().expect("a rate");
    Ask {
        wanted_until: Some(Stamp::NEVER),
        terms: Terms {
            rate,
            calls: 1_000,
            unanswered: Duration::ZERO,
            spaced: Duration::ZERO,
            per_day: 1_000_000,
            day_reset: DayReset::default(),
            reserve_percent: 10,
            withheld: 0,
        },
        life: Duration::from_millis(50),
        grace: Duration::ZERO,
        line,
        anew: false,
        known: 0,
        number: NUMBER.fetch_add(1, Ordering::Relaxed),
        reports: Vec::new(),
        again: Vec::new(),
        memory: Memory::default(),
    }
}

pub(crate) fn place(name: &str, count: u32) -> Place {
    Place { class: Class::Normal, tenant: tenant(name), weight: 1, count }
}

/// Lets the first window of a server that knew nothing pass.
pub(crate) async fn opened(turnstile: &RedisTurnstile) {
    let told = turnstile.ask(&main_key(), &ask(Vec::new())).await.expect("an answer");
    tokio::time::sleep(told.closed).await;
}

pub(crate) async fn until_granted(turnstile: &RedisTurnstile, ask: &Ask) -> Told {
    for _ in 0..10 * COUNT {
        let told = turnstile.ask(&main_key(), ask).await.expect("an answer");
        if told.granted.is_some() {
            return told;
        }
    }
    panic!("its turn never came");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_instances_that_died_leave_nothing_behind() {
    let server = RedisServer::start();
    let survivor = turnstile(&server, "survivor").await;
    opened(&survivor).await;
    for number in 0..COUNT {
        // on the survivor's connection: only what it says of itself differs
        let dead = survivor.seen_as(&format!("dead{number}"));
        let mut says = ask(vec![place(&format!("t{number}"), 1), place("shared", 1)]);
        says.wanted_until = None;
        dead.ask(&main_key(), &says).await.expect("an answer");
    }
    let with_them: u64 = dbsize(&server);
    assert!(with_them > 1_000, "each tenant waits somewhere: {with_them}");
    let first = until_granted(&survivor, &ask(vec![place("mine", 3)])).await;
    assert_eq!(first.granted, Some((Class::Normal, tenant("mine"))));
    for _ in 0..2 {
        until_granted(&survivor, &ask(Vec::new())).await;
    }
    // what is left is the state, the slots that are held, the day, and for an hour who asked
    assert!(dbsize(&server) <= 5, "{}", server.cmd(&["KEYS", "*"]));
}

/// As of an instance that has heard nothing yet.
fn beat() -> Beat {
    Beat::first(Duration::from_mins(10))
}

/// Makes the moment another one at which an instance was heard.
fn hear(server: &RedisServer, id: &str, moment: u64) {
    let written = server.cmd(&["HGET", ROLL, id]);
    let (_, rest) = written.split_once('\t').expect("its parts");
    server.cmd(&["HSET", ROLL, id, &format!("{moment}\t{rest}")]);
}

fn dbsize(server: &RedisServer) -> u64 {
    server.cmd(&["DBSIZE"]).trim_start_matches(':').parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_counts_is_forgotten_in_time() {
    let server = RedisServer::start();
    let one = turnstile(&server, "one").await;
    opened(&one).await;
    until_granted(&one, &ask(vec![place("a", 2)])).await;
    one.beat(&beat()).await.expect("an answer");
    let keys = server.cmd(&["KEYS", "*"]);
    assert!(keys.lines().count() > 5, "{keys}");
    for key in keys.lines() {
        let left: i64 =
            server.cmd(&["TTL", key]).trim_start_matches(':').parse().expect("a number");
        assert!(left > 0, "{key} stays for ever");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_was_passed_over_everywhere_learns_that_it_is_forgotten() {
    let server = RedisServer::start();
    let one = turnstile(&server, "one").await;
    let other = one.seen_as("other");
    opened(&one).await;
    let mut waits = ask(vec![place("a", 1)]);
    (waits.wanted_until, waits.known) = (None, 1);
    let told = one.ask(&main_key(), &waits).await.expect("an answer");
    assert!(!told.forgotten);
    // it does not come when it is called, twice: the other has its turns, and nothing of it is left
    until_granted(&other, &ask(vec![place("a", 2)])).await;
    until_granted(&other, &ask(Vec::new())).await;
    waits.line.clear();
    let told = one.ask(&main_key(), &waits).await.expect("an answer");
    assert!(told.forgotten, "it takes itself to wait");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_misses_its_turn_has_it_after_the_next() {
    let server = RedisServer::start();
    let one = turnstile(&server, "one").await;
    let (two, three) = (one.seen_as("two"), one.seen_as("three"));
    opened(&one).await;
    for instance in [&one, &two, &three] {
        let waits = Ask { wanted_until: None, ..ask(vec![place("a", 9)]) };
        instance.ask(&main_key(), &waits).await.expect("an answer");
    }
    until_granted(&one, &ask(Vec::new())).await;
    // two is late; then it is before one, which was served
    until_granted(&three, &ask(Vec::new())).await;
    let patient = Ask { grace: Duration::from_secs(9), ..ask(Vec::new()) };
    for _ in 0..5 {
        let told = one.ask(&main_key(), &patient).await.expect("an answer");
        assert_eq!(told.granted, None, "it is not its turn");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    for instance in [&two, &one, &three, &two] {
        until_granted(instance, &patient).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_did_not_leave_is_uncounted_once() {
    let server = RedisServer::start();
    let one = turnstile(&server, "one").await;
    opened(&one).await;
    let granted = until_granted(&one, &ask(vec![place("a", 1)])).await;
    assert_eq!(granted.used, 1);
    let back = Report::Returned { ticket: granted.ticket, day: granted.day };
    let again = Ask { reports: vec![back, back], ..ask(Vec::new()) };
    assert_eq!(one.ask(&main_key(), &again).await.expect("an answer").used, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forgot_goes_on_from_the_largest_count_it_is_told_and_with_new_tickets() {
    let server = RedisServer::start();
    let one = turnstile(&server, "one").await;
    opened(&one).await;
    let told = one.ask(&main_key(), &ask(Vec::new())).await.expect("an answer");
    let (ticket, day, begun) = (told.ticket, told.day, told.begun);
    let memory = Memory { ticket, day, used: 99, begun };
    let told = one.ask(&main_key(), &Ask { memory, ..ask(Vec::new()) }).await.expect("an answer");
    assert_eq!((told.ticket, told.used), (ticket, 99));
    server.cmd(&["FLUSHALL"]);
    let told = one.ask(&main_key(), &Ask { memory, ..ask(Vec::new()) }).await.expect("an answer");
    assert!(told.ticket >= ticket + 990_000, "{ticket}, then {}", told.ticket);
    assert_eq!(told.used, 99);
    assert!(told.closed >= Duration::from_millis(990), "a window passes: {:?}", told.closed);
    let later = Memory { day: Day::new(told.day.number() + 1), used: 7, ..memory };
    let turned =
        one.ask(&main_key(), &Ask { memory: later, ..ask(Vec::new()) }).await.expect("an answer");
    assert_eq!((turned.day, turned.used), (later.day, 7), "a clock that steps back reopens no day");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_was_set_back_holds_nothing_for_longer_than_a_window() {
    const STEP: u64 = 3_600_000_000;
    let server = RedisServer::start();
    let one = turnstile(&server, "one").await;
    opened(&one).await;
    let told = until_granted(&one, &ask(vec![place("a", 9)])).await;
    // as if all so far had been written by a clock an hour ahead
    let ahead = (told.at.0 + STEP).to_string();
    for field in ["at", "spaced", "closed", "turn_at"] {
        server.cmd(&["HSET", "ctct-proxy:{main}:turnstile", field, &ahead]);
    }
    server.cmd(&["ZADD", "ctct-proxy:{main}:slots", "XX", &ahead, &told.ticket.to_string()]);
    let back = one.ask(&main_key(), &ask(Vec::new())).await.expect("an answer");
    assert!(back.granted.is_none(), "what left before is not known");
    let (window, life) = (Duration::from_secs(1), Duration::from_millis(50));
    assert!(back.closed > Duration::ZERO && back.closed <= window + life, "{:?}", back.closed);
    tokio::time::sleep(back.closed).await;
    until_granted(&one, &ask(Vec::new())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_was_heard_by_a_clock_that_was_ahead_is_silent_until_it_is_heard_again() {
    let server = RedisServer::start();
    let one = turnstile(&server, "one").await;
    let other = one.seen_as("other");
    let roll = other.beat(&beat()).await.expect("an answer");
    one.beat(&beat()).await.expect("an answer");
    hear(&server, "other", roll.at.0 + 3_600_000_000);
    let away = |roll: &Roll| {
        let member = roll.members.iter().find(|member| member.id == "other");
        member.expect("it is on the roll").away
    };
    let read = one.beat(&beat()).await.expect("an answer");
    assert_eq!(away(&read), Some(Away::Silent), "it may be by itself");
    let again = Beat { echo: read.at, ..beat() };
    other.beat(&again).await.expect("an answer");
    let read = one.beat(&again).await.expect("an answer");
    assert_eq!(away(&read), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_is_dead_when_it_says_so_itself() {
    let server = RedisServer::start();
    let one = turnstile(&server, "one").await;
    one.seen_as("short").beat(&Beat::first(Duration::from_secs(15))).await.expect("an answer");
    let roll = one.seen_as("long").beat(&beat()).await.expect("an answer");
    for (ago, left) in [(14, ["long", "one", "short"].as_slice()), (16, &["long", "one"])] {
        for id in ["short", "long"] {
            hear(&server, id, roll.at.0 - ago * 1_000_000);
        }
        let read = one.beat(&beat()).await.expect("an answer");
        let ids: Vec<_> = read.members.iter().map(|member| member.id.as_str()).collect();
        assert_eq!(ids, left, "{ago} s after they were heard");
    }
}
