//! When a day's calls will be used up, if they go on as they did.
//!
//! A straight line through the start of the day and now. It says nothing about the reserve or about
//! what waits; it is for a person who looks at a number and wonders whether to worry.

use std::time::Duration;

use crate::engine::Unix;

/// The length of a quota day.
const DAY: Duration = Duration::from_secs(86_400);
/// A burst at the start of a day is measured over at least this long.
const ELAPSED_MIN: Duration = Duration::from_secs(60);

/// When `used` of `limit` calls become all of them; `None` when the day ends before that.
pub(super) fn exhausted_at(now: Unix, resets_at: Unix, used: u64, limit: u64) -> Option<Unix> {
    if used >= limit {
        return Some(now);
    }
    if used == 0 {
        return None;
    }
    let started = resets_at.minus(DAY);
    let elapsed = now.since(started).max(ELAPSED_MIN).as_millis();
    let whole = elapsed.saturating_mul(u128::from(limit)) / u128::from(used);
    let whole = Duration::from_millis(u64::try_from(whole).unwrap_or(u64::MAX));
    let at = started.plus(whole);
    (at < resets_at).then(|| at.max(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Unix = Unix::from_secs(20_000 * 86_400);

    fn at(hour: u64, used: u64) -> Option<u64> {
        let now = START.plus(Duration::from_hours(hour));
        let exhausted = exhausted_at(now, START.plus(DAY), used, 10_000)?;
        Some(exhausted.since(START).as_secs() / 3_600)
    }

    #[test]
    fn half_the_calls_in_a_quarter_of_the_day_are_all_in_half_the_day() {
        assert_eq!(at(6, 5_000), Some(12));
    }

    #[test]
    fn a_pace_that_lasts_until_the_reset_is_no_forecast() {
        assert_eq!(at(6, 2_500), None);
        assert_eq!(at(6, 0), None);
        assert_eq!(at(6, 2_501), Some(23));
    }

    #[test]
    fn a_spent_day_is_exhausted_now() {
        assert_eq!(at(6, 10_000), Some(6));
        assert_eq!(at(6, 10_001), Some(6));
        assert_eq!(exhausted_at(START, START.plus(DAY), 0, 0), Some(START));
    }

    #[test]
    fn the_first_burst_of_a_day_is_no_alarm_for_the_next_minutes() {
        let exhausted = exhausted_at(START, START.plus(DAY), 4, 10_000);
        assert_eq!(exhausted, None, "4 calls a minute last all day");
        let now = START.plus(Duration::from_secs(1));
        let exhausted = exhausted_at(now, START.plus(DAY), 40, 10_000);
        assert_eq!(exhausted, Some(START.plus(Duration::from_secs(15_000))));
    }

    #[test]
    fn a_clock_that_stepped_out_of_the_day_does_no_harm() {
        let before = START.minus(Duration::from_secs(600));
        assert!(exhausted_at(before, START.plus(DAY), 9_999, 10_000).is_some());
        let after = START.plus(DAY).plus(DAY);
        assert_eq!(exhausted_at(after, START.plus(DAY), 1, 10_000), None);
    }
}
