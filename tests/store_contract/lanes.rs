//! The token lane of an API key, which instances on one server share, and instances in one process
//! that share a store in memory.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use ctct_proxy::clock::Clock;
use ctct_proxy::store::{Forgotten, LaneLease, LaneTerms, LaneTurn, MemoryStore, Store};

use crate::redis_process::RedisServer;
use crate::support::{SharedPlace, api_key};

const HOLD: Duration = Duration::from_secs(30);
/// For tests that wait until it is over.
const SHORT_HOLD: Duration = Duration::from_millis(400);
const REST_MAX: Duration = Duration::from_secs(1);
const NO_REST: Duration = Duration::ZERO;

type Any = Arc<dyn Store>;

macro_rules! wherever_it_is_shared {
    ($($sentence:ident),* $(,)?) => {
        mod memory {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $sentence() {
                    let store: super::Any = super::in_memory();
                    super::$sentence(store.clone(), store).await;
                }
            )*
        }

        mod redis {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $sentence() {
                    let place = super::SharedPlace::new();
                    super::$sentence(place.open().await, place.open_another("other").await).await;
                }
            )*
        }
    };
}

wherever_it_is_shared![
    a_lane_of_which_nothing_is_known_rests_once_for_half_a_hold_or_a_rest,
    one_instance_at_a_time_has_the_lane,
    of_many_that_ask_at_once_one_gets_it,
    nobody_gets_the_lane_while_it_rests,
    a_lease_that_was_not_left_can_be_kept_until_another_has_taken_it,
    who_finds_a_lease_that_ran_out_leaves_its_holder_half_a_hold_to_come_back,
];

fn in_memory() -> Any {
    Arc::new(MemoryStore::shared(Clock::system()))
}

const fn terms(hold: Duration) -> LaneTerms {
    LaneTerms { hold, rest_max: REST_MAX }
}

async fn ask(store: &Any, hold: Duration) -> LaneTurn {
    store.take_lane(&api_key("default"), terms(hold)).await.expect("answered")
}

/// Asks until the lane is free, as long as the store says.
async fn take(store: &Any, hold: Duration) -> LaneLease {
    loop {
        match ask(store, hold).await {
            LaneTurn::Yours(lease) => return lease,
            LaneTurn::Busy { retry } => tokio::time::sleep(retry).await,
        }
    }
}

/// The same of a lane of which nothing is known yet.
async fn take_first(store: &Any, hold: Duration) -> LaneLease {
    let moment = Duration::from_millis(1);
    let terms = LaneTerms { hold: moment, rest_max: moment };
    loop {
        match store.take_lane(&api_key("default"), terms).await.expect("answered") {
            LaneTurn::Yours(lease) => {
                leave(store, lease, NO_REST).await;
                return take(store, hold).await;
            }
            LaneTurn::Busy { retry } => tokio::time::sleep(retry).await,
        }
    }
}

async fn keep(store: &Any, lease: LaneLease, hold: Duration) -> bool {
    let name = api_key("default");
    store.keep_lane(&name, lease, hold, Forgotten::IsLost).await.expect("answered")
}

/// The same for one whose request is out.
async fn keep_out(store: &Any, lease: LaneLease, hold: Duration) -> bool {
    let name = api_key("default");
    store.keep_lane(&name, lease, hold, Forgotten::IsKept).await.expect("answered")
}

async fn leave(store: &Any, lease: LaneLease, rest: Duration) {
    store.leave_lane(&api_key("default"), lease, rest).await.expect("left");
}

fn retry(turn: LaneTurn) -> Duration {
    match turn {
        LaneTurn::Busy { retry } => retry,
        LaneTurn::Yours(lease) => panic!("not busy: {lease:?}"),
    }
}

fn is_near(span: Duration, expected: Duration) -> bool {
    span <= expected && span >= expected.mul_f64(0.7)
}

async fn a_lane_of_which_nothing_is_known_rests_once_for_half_a_hold_or_a_rest(
    one: Any,
    other: Any,
) {
    let left = retry(ask(&one, SHORT_HOLD).await);
    assert!(is_near(left, REST_MAX), "{left:?}");
    let aside = LaneTerms { hold: HOLD, rest_max: REST_MAX };
    let turn = one.take_lane(&api_key("aside"), aside).await.expect("answered");
    assert!(is_near(retry(turn), HOLD / 2), "{turn:?}");
    tokio::time::sleep(left / 2).await;
    let left = retry(ask(&other, SHORT_HOLD).await);
    assert!(left <= REST_MAX / 2, "{left:?}");
    let first = take(&one, HOLD).await;
    leave(&one, first, NO_REST).await;
    assert!(matches!(ask(&other, HOLD).await, LaneTurn::Yours(_)));
}

async fn one_instance_at_a_time_has_the_lane(one: Any, other: Any) {
    let first = take_first(&one, HOLD).await;
    assert_eq!(retry(ask(&other, HOLD).await), Duration::from_millis(250));
    leave(&one, first, NO_REST).await;
    let second = take(&other, HOLD).await;
    assert!(second.fence > first.fence);
    let aside = one.take_lane(&api_key("aside"), terms(HOLD)).await.expect("answered");
    assert!(matches!(aside, LaneTurn::Busy { .. }), "API keys have lanes of their own");
    leave(&one, first, NO_REST).await;
    assert!(matches!(ask(&one, HOLD).await, LaneTurn::Busy { .. }), "an old lease leaves nothing");
    assert!(!keep_out(&one, first, HOLD).await, "and keeps nothing");
}

async fn of_many_that_ask_at_once_one_gets_it(store: Any, _: Any) {
    let first = take_first(&store, HOLD).await;
    leave(&store, first, NO_REST).await;
    let mut tasks = JoinSet::new();
    for _ in 0..50 {
        let store = Arc::clone(&store);
        tasks.spawn(async move { matches!(ask(&store, HOLD).await, LaneTurn::Yours(_)) });
    }
    assert_eq!(tasks.join_all().await.into_iter().filter(|got| *got).count(), 1);
}

async fn nobody_gets_the_lane_while_it_rests(one: Any, other: Any) {
    let first = take_first(&one, HOLD).await;
    leave(&one, first, Duration::from_millis(600)).await;
    let left = retry(ask(&other, HOLD).await);
    assert!(left > Duration::from_millis(300) && left <= Duration::from_millis(600), "{left:?}");
    tokio::time::sleep(left).await;
    assert!(matches!(ask(&other, HOLD).await, LaneTurn::Yours(_)), "not later than it said");
}

async fn a_lease_that_was_not_left_can_be_kept_until_another_has_taken_it(one: Any, other: Any) {
    let first = take_first(&one, Duration::from_millis(150)).await;
    assert!(keep(&one, first, Duration::from_millis(200)).await);
    let left = retry(ask(&other, HOLD).await);
    assert!(left <= Duration::from_millis(200), "less than a whole turn is left: {left:?}");
    tokio::time::sleep(Duration::from_millis(210)).await;
    assert!(keep(&one, first, Duration::from_millis(1)).await, "nobody has taken it");
    tokio::time::sleep(Duration::from_millis(20)).await;
    leave(&one, first, NO_REST).await;
    assert!(!keep_out(&one, first, HOLD).await, "it was left");
    assert!(matches!(ask(&other, HOLD).await, LaneTurn::Yours(_)), "without a grace");
}

async fn who_finds_a_lease_that_ran_out_leaves_its_holder_half_a_hold_to_come_back(
    one: Any,
    other: Any,
) {
    let (short, long) = (Duration::from_millis(50), Duration::from_millis(500));
    let first = take_first(&one, short).await;
    tokio::time::sleep(2 * short).await;
    assert_eq!(retry(ask(&other, long).await), long / 2, "long after it ran out");
    tokio::time::sleep(long / 4).await;
    assert!(retry(ask(&other, long).await) <= long / 4, "it begins once");
    assert!(keep(&one, first, short).await, "there it is");
    tokio::time::sleep(2 * short).await;
    assert_eq!(retry(ask(&other, long).await), long / 2, "and it is gone again");
    tokio::time::sleep(long / 2).await;
    let LaneTurn::Yours(second) = ask(&other, long).await else { panic!("for how long?") };
    assert!(second.fence > first.fence);
    assert!(!keep_out(&one, first, HOLD).await, "another has it");
    leave(&one, first, HOLD).await;
    assert!(keep(&other, second, HOLD).await);
}

#[tokio::test]
async fn a_lane_that_the_server_has_forgotten_is_its_last_holders_if_a_request_is_out() {
    let place = SharedPlace::new();
    let (one, other) = (place.open().await, place.open_another("other").await);
    let before = take_first(&one, SHORT_HOLD).await;
    leave(&one, before, NO_REST).await;
    let last = take(&one, SHORT_HOLD).await;
    let forget = || place.server.cmd(&["DEL", &lane(&place)]);
    // before anybody asks for it, and after
    for asked in [false, true] {
        forget();
        if asked {
            assert_eq!(retry(ask(&other, HOLD).await), HOLD / 2, "nobody gets it");
        }
        assert!(!keep(&one, last, SHORT_HOLD).await, "nothing was sent");
        assert!(keep_out(&one, before, SHORT_HOLD).await, "nobody knows better");
        assert!(keep_out(&one, last, SHORT_HOLD).await, "it was given later");
        assert!(!keep_out(&one, before, SHORT_HOLD).await);
        assert!(keep(&one, last, SHORT_HOLD).await, "it is known again");
        assert!(retry(ask(&other, HOLD).await) <= SHORT_HOLD);
        leave(&one, before, NO_REST).await;
        assert!(retry(ask(&other, HOLD).await) <= SHORT_HOLD);
    }
    forget();
    let after = take(&other, SHORT_HOLD).await;
    assert!(after.fence > last.fence, "{after:?} after {last:?}");
    assert!(!keep_out(&one, last, SHORT_HOLD).await, "another has it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_started_again_may_not_know_who_had_the_lane_last() {
    let mut place = SharedPlace::on(Arc::new(RedisServer::start()));
    let store = place.open().await;
    let first = take_first(&store, SHORT_HOLD).await;
    leave(&store, first, NO_REST).await;
    Arc::get_mut(&mut place.server).expect("nobody else has it").restart();
    while store.ping().await.is_err() {}
    assert!(is_near(retry(ask(&store, SHORT_HOLD).await), REST_MAX), "it rests once");
    let forgotten = LaneLease { fence: first.fence + 1 };
    assert!(keep_out(&store, forgotten, SHORT_HOLD).await, "the last write was lost");
    leave(&store, forgotten, NO_REST).await;
    let later = take(&store, SHORT_HOLD).await;
    assert!(later.fence > forgotten.fence);
    leave(&store, later, NO_REST).await;
    assert!(matches!(ask(&store, HOLD).await, LaneTurn::Yours(_)));
}

#[tokio::test]
async fn a_hold_of_a_clock_that_was_ahead_counts_from_now_and_can_be_kept() {
    let place = SharedPlace::new();
    let store = place.open().await;
    let before = take_first(&store, SHORT_HOLD).await;
    for ahead in [(u64::MAX >> 11).to_string(), in_micros(&place, Duration::from_secs(500))] {
        set(&place, "until", &ahead);
        assert_eq!(retry(ask(&store, SHORT_HOLD).await), Duration::from_millis(250));
        assert!(keep(&store, before, SHORT_HOLD).await, "its holder has noticed nothing");
    }
    set(&place, "until", &in_micros(&place, Duration::from_secs(500)));
    let clock = Clock::system();
    let asked = clock.mono();
    let after = take(&store, SHORT_HOLD).await;
    assert!(after.fence > before.fence, "{after:?} after {before:?}");
    let took = clock.mono().since(asked);
    assert!(took >= SHORT_HOLD * 3 / 2 && took < 3 * SHORT_HOLD, "{took:?}");
}

#[tokio::test]
async fn a_rest_that_is_longer_than_any_is_one_of_a_clock_that_was_ahead() {
    let place = SharedPlace::new();
    let store = place.open().await;
    let first = take_first(&store, SHORT_HOLD).await;
    leave(&store, first, NO_REST).await;
    set(&place, "rest", &in_micros(&place, Duration::from_secs(500)));
    assert_eq!(retry(ask(&store, SHORT_HOLD).await), REST_MAX);
    let second = take(&store, SHORT_HOLD).await;
    leave(&store, second, Duration::from_secs(900)).await;
    tokio::time::sleep(2 * SHORT_HOLD).await;
    let long = LaneTerms { hold: SHORT_HOLD, rest_max: Duration::from_secs(3_600) };
    let turn = store.take_lane(&api_key("default"), long).await.expect("answered");
    assert!(retry(turn) > Duration::from_secs(890), "a quarter of an hour may be meant");
}

/// The server's time in `span`, in microseconds.
fn in_micros(place: &SharedPlace, span: Duration) -> String {
    let time = place.server.cmd(&["TIME"]);
    let digits = |line: &str| line.chars().filter(char::is_ascii_digit).collect::<String>();
    let secs: u128 = digits(time.lines().next().expect("a line")).parse().expect("a number");
    (secs * 1_000_000 + span.as_micros()).to_string()
}

fn lane(place: &SharedPlace) -> String {
    format!("{}{{default}}:lane", place.prefix())
}

fn set(place: &SharedPlace, field: &str, value: &str) {
    place.server.cmd(&["HSET", &lane(place), field, value]);
}
