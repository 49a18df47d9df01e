//! When slots are free, told by moments alone.

use super::lateness::{DISTRUST_MIN, EXCESS_MAX, TIMERS};
use super::*;

const W: Duration = Duration::from_secs(1);

fn ms(ms: u64) -> Mono {
    Mono::new(Duration::from_millis(ms))
}

fn pacer(rate: &str, guard: Guard) -> Pacer {
    Pacer::new(rate.parse().unwrap(), guard, Mono::default())
}

/// Takes slots as fast as they come and returns the moments, each answered `round_trip` later.
fn departures(pacer: &mut Pacer, count: usize, round_trip: Duration) -> Vec<Mono> {
    let mut moments = Vec::new();
    for _ in 0..count {
        let at = pacer.ready_at();
        let slot = pacer.take(at);
        let slot = pacer.sent(slot, at);
        pacer.answered(slot, at.plus(round_trip));
        moments.push(at);
    }
    moments
}

#[test]
fn a_new_pacer_lets_one_window_pass() {
    assert_eq!(pacer("4", Guard::Fixed(Duration::from_millis(60))).ready_at(), ms(1_060));
}

#[test]
fn no_window_with_its_guard_holds_more_calls_than_slots() {
    for (rate, guard) in [("4", 60), ("10", 0), ("0.5", 60), ("1", 25)] {
        let mut pacer = pacer(rate, Guard::Fixed(Duration::from_millis(guard)));
        let slots = usize::try_from(rate.parse::<Rate>().unwrap().calls()).unwrap();
        let span = rate.parse::<Rate>().unwrap().window() + Duration::from_millis(guard);
        let moments = departures(&mut pacer, 200, Duration::from_millis(90));
        for pair in moments.windows(slots + 1) {
            assert!(pair[slots].since(pair[0]) >= span, "{rate} {guard}: {pair:?}");
        }
        assert!(moments[199].since(moments[0]) <= span * 200 / u32::try_from(slots).unwrap());
    }
}

#[test]
fn a_learned_guard_costs_only_what_round_trips_vary() {
    let mut pacer = pacer("4", Guard::Auto);
    let moments = departures(&mut pacer, 400, Duration::from_millis(300));
    let per_window = moments[399].since(moments[199]) / 50;
    assert!((W..W + Duration::from_millis(4)).contains(&per_window), "{per_window:?}");
}

#[test]
fn a_grant_that_is_not_spent_keeps_its_slot() {
    let mut pacer = pacer("1", Guard::Fixed(Duration::ZERO));
    let slot = pacer.take(ms(1_000));
    assert_eq!(pacer.ready_at(), Mono::NEVER);
    let slot = pacer.sent(slot, ms(7_000));
    assert_eq!(pacer.ready_at(), ms(8_000));
    pacer.release(slot);
    assert_eq!(pacer.ready_at(), ms(2_000));
}

#[test]
fn an_unanswered_call_counts_as_late_as_any() {
    let mut pacer = pacer("1", Guard::Auto);
    let slot = pacer.take(ms(2_000));
    let slot = pacer.sent(slot, ms(2_000));
    assert_eq!(pacer.ready_at(), ms(3_401));
    pacer.answered(slot, ms(2_050));
    assert_eq!(pacer.ready_at(), ms(3_051), "one answer does not tell the least round trip");
}

#[test]
fn a_refusal_closes_for_a_window_and_widens_the_guard() {
    let mut pacer = pacer("4", Guard::Fixed(Duration::from_millis(60)));
    pacer.throttled(ms(5_000));
    assert_eq!(pacer.guard_now(), Duration::from_millis(70));
    assert_eq!(pacer.ready_at(), ms(6_070));
    for _ in 0..NARROW_AFTER * 2 {
        pacer.clean();
    }
    assert_eq!(pacer.guard_now(), Duration::from_millis(60));
}

#[test]
fn a_pause_of_the_process_is_not_made_up_for() {
    let mut pacer = pacer("10", Guard::Fixed(Duration::ZERO));
    let before = departures(&mut pacer, 20, Duration::ZERO);
    let resumed = before[19].plus(Duration::from_millis(350));
    let slot = pacer.take(resumed);
    pacer.sent(slot, resumed);
    assert!(pacer.ready_at().since(resumed) >= Duration::from_millis(95));
}

#[test]
fn a_slower_rate_holds_for_the_calls_that_left_before() {
    let mut pacer = pacer("10", Guard::Fixed(Duration::ZERO));
    let before = departures(&mut pacer, 10, Duration::ZERO);
    pacer.reconfigure("4".parse().unwrap(), Guard::Fixed(Duration::ZERO));
    let after = departures(&mut pacer, 1, Duration::ZERO);
    let within = before.iter().filter(|at| after[0].since(**at) < W).count();
    assert!(within <= 3, "{within} calls in the second before");
}

/// A call that is acknowledged and answered so long after it leaves, and its slot's moments: after
/// the acknowledgement, after the answer.
fn slow_call(pacer: &mut Pacer, acknowledged: Duration, answered: Duration) -> [Duration; 2] {
    let at = pacer.ready_at();
    let slot = pacer.take(at);
    let slot = pacer.sent(slot, at);
    let slot = pacer.acknowledged(slot, at.plus(acknowledged));
    let first = slot.free_at;
    pacer.answered(slot, at.plus(answered));
    let held = pacer.held.iter().find(|(_, number)| *number == slot.number);
    [first, held.map_or(Mono::default(), |(at, _)| *at)].map(|free_at| free_at.since(at))
}

const SOON: Duration = Duration::from_millis(20);
const LATE: Duration = Duration::from_millis(320);

/// A pacer that knows the least of both: 20 ms until the acknowledgement, 40 ms until the answer.
fn knowing() -> Pacer {
    let mut pacer = pacer("4", Guard::Auto);
    for _ in 0..64 {
        slow_call(&mut pacer, SOON, SOON * 2);
    }
    pacer
}

#[test]
fn an_acknowledgement_frees_the_slot_however_long_the_answer_takes() {
    let mut pacer = knowing();
    assert_eq!(slow_call(&mut pacer, SOON, LATE), [W + TIMERS; 2]);
    let later = Duration::from_millis(5);
    assert_eq!(slow_call(&mut pacer, SOON + later, LATE), [W + TIMERS + later; 2]);
}

#[test]
fn the_smaller_of_both_bounds_holds() {
    let mut pacer = knowing();
    let [first, then] = slow_call(&mut pacer, SOON * 3, SOON * 2);
    assert_eq!(first, W + TIMERS + SOON * 2);
    assert_eq!(then, W + TIMERS);
}

#[test]
fn an_acknowledgement_counts_once_and_only_for_a_learned_guard() {
    let mut pacer = knowing();
    let at = pacer.ready_at();
    let slot = pacer.take(at);
    assert_eq!(pacer.acknowledged(slot, at), slot, "it has not left");
    let slot = pacer.sent(slot, at);
    let slot = pacer.acknowledged(slot, at.plus(SOON));
    assert_eq!(pacer.acknowledged(slot, at.plus(LATE)), slot);
    pacer.reconfigure("4".parse().unwrap(), Guard::Fixed(SOON));
    let at = pacer.ready_at();
    let slot = pacer.take(at);
    let slot = pacer.sent(slot, at);
    assert_eq!(pacer.acknowledged(slot, at.plus(SOON)), slot);
}

#[test]
fn a_refusal_makes_acknowledgements_that_were_leaned_on_not_believed() {
    let mut pacer = knowing();
    slow_call(&mut pacer, SOON, LATE);
    let refused_at = pacer.ready_at();
    pacer.throttled(refused_at);
    let [first, _] = slow_call(&mut pacer, SOON, LATE);
    assert!(first >= W + EXCESS_MAX, "{first:?}");
    pacer.close_until(refused_at.plus(DISTRUST_MIN));
    let [first, _] = slow_call(&mut pacer, SOON, LATE);
    assert!(first < W + EXCESS_MAX, "{first:?}");
    pacer.throttled(refused_at.plus(DISTRUST_MIN));
    pacer.close_until(refused_at.plus(DISTRUST_MIN * 2));
    let [first, _] = slow_call(&mut pacer, SOON, LATE);
    assert!(first >= W + EXCESS_MAX, "for twice as long: {first:?}");
}

#[test]
fn a_refusal_elsewhere_leaves_acknowledgements_believed() {
    let mut pacer = knowing();
    slow_call(&mut pacer, SOON, LATE);
    let later = pacer.ready_at().plus(Duration::from_secs(60));
    pacer.throttled(later);
    let [first, _] = slow_call(&mut pacer, SOON, LATE);
    assert!(first < W + EXCESS_MAX, "{first:?}");
}

#[test]
fn slots_that_are_free_unevenly_do_not_slow_the_rest() {
    let mut pacer = knowing();
    let first = pacer.ready_at();
    for number in 0..400_u32 {
        // every tenth call is late by 40 ms
        let took = if number % 10 == 0 { SOON * 4 } else { SOON * 2 };
        slow_call(&mut pacer, took, took);
    }
    let per_window = pacer.ready_at().since(first) / 100;
    assert!(per_window <= W + Duration::from_millis(10), "{per_window:?}");
}

#[test]
fn slots_that_are_free_are_forgotten() {
    let mut pacer = pacer("1", Guard::Fixed(Duration::ZERO));
    departures(&mut pacer, 20, Duration::ZERO);
    assert_eq!(pacer.held.len(), 1);
}

#[test]
fn what_was_learned_of_the_upstream_outlives_a_change_of_the_guard_and_not_of_the_rate() {
    let mut pacer = pacer("4", Guard::Auto);
    for _ in 0..200_000 {
        pacer.clean();
    }
    let share = |pacer: &Pacer| pacer.lateness.narrowing.share(LATE);
    assert!(share(&pacer) < LATE);
    let before = share(&pacer);
    pacer.reconfigure("4".parse().unwrap(), Guard::Fixed(SOON));
    assert_eq!(share(&pacer), before);
    pacer.reconfigure("5".parse().unwrap(), Guard::Auto);
    assert_eq!(share(&pacer), LATE);
}

#[test]
fn an_acknowledgement_is_leaned_on_while_it_tells_more_than_the_answer() {
    let mut pacer = knowing();
    let acknowledged_at = pacer.ready_at().plus(SOON);
    slow_call(&mut pacer, SOON, SOON * 2);
    assert_eq!(pacer.lateness.leaned_until, acknowledged_at.plus(W * 2).plus(EXCESS_MAX));
}

#[test]
fn the_guard_that_is_told_follows_the_lateness_of_the_last_calls() {
    let mut pacer = knowing();
    assert!(pacer.guard_now() < TIMERS * 2);
    for _ in 0..64 {
        slow_call(&mut pacer, SOON * 3, SOON * 4);
    }
    let guard = pacer.guard_now();
    assert!(guard > Duration::from_millis(39) && guard <= SOON * 2 + TIMERS, "{guard:?}");
}
