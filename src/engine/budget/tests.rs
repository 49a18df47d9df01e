//! The day's count: never above the limit, never behind what left, never reopened.

use super::*;

const DAY: u64 = 86_400;
const NOON: Unix = Unix::from_secs(20_000 * DAY + DAY / 2);

fn counted(budget: &mut Budget, total: &mut u64) {
    if let Some(claim) = budget.claim(Mono::default()) {
        let left = claim.limit.saturating_sub(*total);
        let granted = claim.want.min(u32::try_from(left).unwrap_or(u32::MAX));
        *total += u64::from(granted);
        budget.claimed(claim.day, Claimed { day: claim.day, granted, total: *total });
    }
}

#[test]
fn exactly_the_limit_is_taken_and_the_store_is_never_behind() {
    let mut budget = Budget::new(10, 4, DayReset::default(), NOON);
    let (mut total, mut left) = (0, 0);
    loop {
        counted(&mut budget, &mut total);
        assert!(total - left <= 4, "more than a block ahead");
        if budget.take(Mono::default()).is_none() {
            break;
        }
        left += 1;
        assert!(left <= total);
    }
    assert_eq!((left, budget.stock(Mono::default())), (10, Stock::Spent));
}

#[test]
fn a_clock_that_goes_back_does_not_reopen_the_day() {
    let mut budget = Budget::new(1, 1, DayReset::default(), NOON);
    let mut total = 0;
    counted(&mut budget, &mut total);
    assert!(budget.take(Mono::default()).is_some());
    assert!(!budget.roll(NOON.minus(Duration::from_secs(2 * DAY))));
    assert_eq!(budget.stock(Mono::default()), Stock::Spent);
    assert!(budget.roll(NOON.plus(Duration::from_secs(DAY / 2))));
    assert_eq!(budget.stock(Mono::default()), Stock::Awaited);
}

#[test]
fn a_store_that_has_seen_a_later_day_is_followed() {
    let mut budget = Budget::new(10, 4, DayReset::default(), NOON);
    let claim = budget.claim(Mono::default()).unwrap();
    let later = Day::new(claim.day.number() + 1);
    budget.claimed(claim.day, Claimed { day: later, granted: 4, total: 9 });
    assert_eq!((budget.used(), budget.take(Mono::default())), (5, Some(later)));
}

#[test]
fn a_store_that_several_count_in_is_followed_back_from_a_day_that_was_far_ahead() {
    let reset = DayReset::default();
    let mut budget = Budget::new(100, 4, reset, NOON);
    let today = budget.day();
    let now = Mono::default();
    budget.adopt(Day::new(today.number() + 30), 100, None, now);
    assert_eq!(budget.stock(now), Stock::Spent);
    budget.adopt(today, 40, None, now);
    assert_eq!((budget.day(), budget.remaining(now)), (today, 60));
}

#[test]
fn a_store_that_fails_is_asked_again_later_and_gives_nothing() {
    let mut budget = Budget::new(10, 4, DayReset::default(), NOON);
    for _ in 0..FAILURES_MAX {
        let at = budget.retry_at().unwrap_or_default();
        let claim = budget.claim(at).unwrap();
        budget.claim_failed(claim.day, at);
    }
    assert_eq!(budget.stock(Mono::default()), Stock::StoreFails);
    assert_eq!(budget.take(Mono::default()), None);
    assert!(budget.claim(Mono::default()).is_none());
}

#[test]
fn a_spent_day_is_probed_once_an_hour() {
    let mut budget = Budget::new(10, 4, DayReset::default(), NOON);
    let mut total = 0;
    counted(&mut budget, &mut total);
    let (day, start) = (budget.take(Mono::default()).unwrap(), Mono::default());
    budget.spent_says_upstream(day, Now { mono: start, unix: NOON });
    budget.answered(start);
    assert_eq!((budget.stock(start), budget.remaining(start)), (Stock::Spent, 0));
    let hour = start.plus(PROBE_EVERY);
    assert_eq!(budget.remaining(hour), 9);
    assert!(budget.take(hour).is_some());
    assert_eq!(budget.take(hour), None);
    budget.answered(hour);
    assert!(budget.take(hour).is_some());
}

#[test]
fn what_did_not_leave_is_given_back() {
    let mut budget = Budget::new(10, 2, DayReset::default(), NOON);
    let mut total = 0;
    counted(&mut budget, &mut total);
    let day = budget.take(Mono::default()).unwrap();
    assert_eq!((budget.used(), budget.give_back(day, Mono::default()), budget.used()), (1, 0, 0));
    assert_eq!(budget.give_back(day, Mono::default()), 1);
    assert_eq!(budget.surrender(), (day, 2));
}

#[test]
fn soon_after_the_turn_a_spent_day_is_probed_at_once() {
    let turned = Unix::from_secs(20_000 * DAY);
    for (since, again) in [
        (Duration::ZERO, PROBE_NEAR_TURN),
        (NEAR_TURN.mul_f64(0.99), PROBE_NEAR_TURN),
        (NEAR_TURN, PROBE_EVERY),
        (NEAR_TURN * 2, PROBE_EVERY),
    ] {
        let unix = turned.plus(since);
        let mut budget = Budget::new(10, 4, DayReset::default(), unix);
        counted(&mut budget, &mut 0);
        budget.spent_says_upstream(Day::new(20_000), Now { mono: Mono::default(), unix });
        let at = Mono::default().plus(again);
        assert_eq!(budget.stock(at.minus(Duration::from_secs(1))), Stock::Spent, "{since:?}");
        assert_eq!(budget.stock(at), Stock::InHand, "{since:?}");
    }
}

#[test]
fn the_store_is_asked_once_and_only_when_half_a_block_is_left() {
    let mut budget = Budget::new(7, 4, DayReset::default(), NOON);
    let claim = budget.claim(Mono::default()).unwrap();
    assert_eq!((claim.want, budget.claim(Mono::default())), (4, None), "it has been asked");
    budget.claimed(claim.day, Claimed { day: claim.day, granted: 4, total: 4 });
    assert_eq!(budget.claim(Mono::default()), None, "there is enough in hand");
    budget.take(Mono::default());
    assert_eq!(budget.claim(Mono::default()), None, "there is enough in hand");
    budget.take(Mono::default());
    let claim = budget.claim(Mono::default()).unwrap();
    budget.claimed(claim.day, Claimed { day: claim.day, granted: 3, total: 7 });
    while budget.take(Mono::default()).is_some() {}
    assert_eq!(budget.claim(Mono::default()), None, "the day has no more");
}

#[test]
fn a_store_that_fails_is_asked_half_as_often_each_time() {
    let mut budget = Budget::new(10, 4, DayReset::default(), NOON);
    let mut at = Mono::default();
    let mut waits = Vec::new();
    assert_eq!(budget.retry_at(), None);
    for _ in 0..7 {
        let claim = budget.claim(at).unwrap();
        assert_eq!(budget.retry_at(), None, "it is being asked");
        budget.claim_failed(claim.day, at);
        let again = budget.retry_at().unwrap();
        assert_eq!(budget.claim(again.minus(Duration::from_millis(1))), None);
        waits.push(again.since(at).as_millis());
        at = again;
    }
    assert_eq!(waits, [100, 200, 400, 800, 1_600, 2_000, 2_000]);
    budget.give_back(Day::new(20_000), at);
    assert!(budget.retry_at().is_some());
    budget.give_back(Day::new(20_000), at);
    budget.give_back(Day::new(20_000), at);
    assert_eq!(budget.retry_at(), None, "there is enough in hand");
}

#[test]
fn a_process_that_stops_counts_nothing_more() {
    let mut budget = Budget::new(10, 4, DayReset::default(), NOON);
    let claim = budget.claim(Mono::default()).unwrap();
    assert_eq!(budget.surrender(), (claim.day, 0));
    let late = Claimed { day: claim.day, granted: 4, total: 4 };
    assert_eq!(budget.claimed(claim.day, late), 4);
    assert_eq!((budget.claim(Mono::default()), budget.take(Mono::default())), (None, None));
}
