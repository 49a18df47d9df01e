//! The token lane of an API key, which instances on one server share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use ctct_proxy::store::{LaneLease, LaneTerms, LaneTurn, Store};

use crate::support::{SharedPlace, api_key};

const HOLD: Duration = Duration::from_secs(30);
const REST_MAX: Duration = Duration::from_secs(1);
const NO_REST: Duration = Duration::ZERO;

type Any = Arc<dyn Store>;

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

async fn leave(store: &Any, lease: LaneLease, rest: Duration) {
    store.leave_lane(&api_key("default"), lease, rest).await.expect("left");
}

fn retry(turn: LaneTurn) -> Duration {
    match turn {
        LaneTurn::Busy { retry } => retry,
        LaneTurn::Yours(lease) => panic!("not busy: {lease:?}"),
    }
}

#[tokio::test]
async fn a_lane_of_which_nothing_is_known_rests_once() {
    let place = SharedPlace::new();
    let store = place.open().await;
    assert_eq!(retry(ask(&store, HOLD).await), Duration::from_secs(1));
    let left = retry(ask(&store, HOLD).await);
    assert!(left <= Duration::from_secs(1) && left > Duration::from_millis(300), "{left:?}");
    let first = take(&store, HOLD).await;
    leave(&store, first, NO_REST).await;
    assert!(matches!(ask(&store, HOLD).await, LaneTurn::Yours(_)));
}

#[tokio::test]
async fn one_instance_at_a_time_has_the_lane() {
    let place = SharedPlace::new();
    let one = place.open().await;
    let other = place.open_another("other").await;
    let first = take(&one, HOLD).await;
    assert_eq!(retry(ask(&other, HOLD).await), Duration::from_millis(250));
    leave(&one, first, NO_REST).await;
    let second = take(&other, HOLD).await;
    assert!(second.fence > first.fence);
    let aside = one.take_lane(&api_key("aside"), terms(HOLD)).await.expect("answered");
    assert!(matches!(aside, LaneTurn::Busy { .. }), "API keys have lanes of their own");
    leave(&one, first, NO_REST).await;
    assert!(matches!(ask(&one, HOLD).await, LaneTurn::Busy { .. }), "an old lease leaves nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_ask_at_once_one_gets_it() {
    let place = SharedPlace::new();
    let store = place.open().await;
    let first = take(&store, HOLD).await;
    leave(&store, first, NO_REST).await;
    let mut tasks = JoinSet::new();
    for _ in 0..50 {
        let store = Arc::clone(&store);
        tasks.spawn(async move { matches!(ask(&store, HOLD).await, LaneTurn::Yours(_)) });
    }
    assert_eq!(tasks.join_all().await.into_iter().filter(|got| *got).count(), 1);
}

#[tokio::test]
async fn nobody_gets_the_lane_while_it_rests() {
    let place = SharedPlace::new();
    let store = place.open().await;
    let first = take(&store, HOLD).await;
    leave(&store, first, Duration::from_millis(600)).await;
    let left = retry(ask(&store, HOLD).await);
    assert!(left > Duration::from_millis(300) && left <= Duration::from_millis(600), "{left:?}");
    tokio::time::sleep(left).await;
    assert!(matches!(ask(&store, HOLD).await, LaneTurn::Yours(_)), "not later than it said");
}

#[tokio::test]
async fn a_lease_that_was_not_left_can_be_kept_until_another_has_taken_it() {
    let place = SharedPlace::new();
    let store = place.open().await;
    let name = api_key("default");
    let first = take(&store, Duration::from_millis(150)).await;
    let kept = store.keep_lane(&name, first, Duration::from_millis(200)).await;
    assert!(kept.expect("answered"));
    let left = retry(ask(&store, HOLD).await);
    assert!(left <= Duration::from_millis(200), "less than a whole turn is left: {left:?}");
    tokio::time::sleep(Duration::from_millis(210)).await;
    let short = Duration::from_millis(1);
    assert!(store.keep_lane(&name, first, short).await.expect("answered"), "nobody has taken it");
    tokio::time::sleep(Duration::from_millis(20)).await;
    leave(&store, first, NO_REST).await;
    assert!(!store.keep_lane(&name, first, HOLD).await.expect("answered"), "it was left");
    assert!(matches!(ask(&store, HOLD).await, LaneTurn::Yours(_)), "without a grace");
}

#[tokio::test]
async fn who_finds_a_lease_that_ran_out_leaves_its_holder_half_a_hold_to_come_back() {
    let place = SharedPlace::new();
    let store = place.open().await;
    let name = api_key("default");
    let (short, long) = (Duration::from_millis(50), Duration::from_millis(500));
    let first = take(&store, short).await;
    tokio::time::sleep(2 * short).await;
    assert_eq!(retry(ask(&store, long).await), long / 2, "long after it ran out");
    tokio::time::sleep(long / 4).await;
    assert!(retry(ask(&store, long).await) <= long / 4, "it begins once");
    assert!(store.keep_lane(&name, first, short).await.expect("answered"), "there it is");
    tokio::time::sleep(2 * short).await;
    assert_eq!(retry(ask(&store, long).await), long / 2, "and it is gone again");
    tokio::time::sleep(long / 2).await;
    let LaneTurn::Yours(second) = ask(&store, long).await else { panic!("for how long?") };
    assert!(second.fence > first.fence);
    assert!(!store.keep_lane(&name, first, HOLD).await.expect("answered"), "another has it");
    leave(&store, first, HOLD).await;
    assert!(store.keep_lane(&name, second, HOLD).await.expect("answered"));
}

#[tokio::test]
async fn fences_go_on_above_after_the_server_came_back_empty() {
    let place = SharedPlace::new();
    let store = place.open().await;
    let first = take(&store, HOLD).await;
    place.server.cmd(&["DEL", &format!("{}{{default}}:lane", place.prefix())]);
    assert!(!store.keep_lane(&api_key("default"), first, HOLD).await.expect("answered"));
    assert_eq!(retry(ask(&store, HOLD).await), Duration::from_secs(1), "it rests first");
    assert!(take(&store, HOLD).await.fence > first.fence);
}

#[tokio::test]
async fn a_hold_of_a_clock_that_was_ahead_counts_from_now_and_can_be_kept() {
    let place = SharedPlace::new();
    let store = place.open().await;
    let hold = Duration::from_millis(400);
    let before = take(&store, hold).await;
    for ahead in [(u64::MAX >> 11).to_string(), in_micros(&place, Duration::from_secs(500))] {
        set(&place, "until", &ahead);
        assert_eq!(retry(ask(&store, hold).await), Duration::from_millis(250));
        let kept = store.keep_lane(&api_key("default"), before, hold).await;
        assert!(kept.expect("answered"), "its holder has noticed nothing");
    }
    set(&place, "until", &in_micros(&place, Duration::from_secs(500)));
    let asked = Instant::now();
    let after = take(&store, hold).await;
    assert!(after.fence > before.fence, "{after:?} after {before:?}");
    let took = asked.elapsed();
    assert!(took >= hold + hold / 2 && took < 3 * hold, "{took:?}");
}

#[tokio::test]
async fn a_rest_that_is_longer_than_any_is_one_of_a_clock_that_was_ahead() {
    let place = SharedPlace::new();
    let store = place.open().await;
    let hold = Duration::from_millis(400);
    let first = take(&store, hold).await;
    leave(&store, first, NO_REST).await;
    set(&place, "rest", &in_micros(&place, Duration::from_secs(500)));
    assert_eq!(retry(ask(&store, hold).await), REST_MAX);
    let long = LaneTerms { hold, rest_max: Duration::from_secs(3_600) };
    let second = take(&store, hold).await;
    leave(&store, second, Duration::from_secs(900)).await;
    tokio::time::sleep(2 * hold).await;
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

fn set(place: &SharedPlace, field: &str, value: &str) {
    place.server.cmd(&["HSET", &format!("{}{{default}}:lane", place.prefix()), field, value]);
}
