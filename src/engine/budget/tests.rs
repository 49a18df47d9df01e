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
    assert_eq!(budget.stock(start), Stock::Spent);
    let hour = start.plus(PROBE_EVERY);
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
