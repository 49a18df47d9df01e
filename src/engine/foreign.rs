//! Whether somebody else spends the API key's calls, seen from refusals that our own calls do not
//! explain.
//!
//! The pacer and the budget keep our calls within both limits, so a refusal has another cause:
//! another program that uses the key, or a plan below the one that is configured. A single refusal
//! for the second may be the network's jitter, three in a row are not. A refusal for the day says
//! how many calls others made: the limit less our own count. Such a day is expected to come again:
//! the next one withholds the mean of what was withheld and what was seen, so that it is half of
//! the first day's number, comes near a use that stays, and halves each day once there is none.
//! What is withheld does not melt over the day, because others' calls count upstream and not here.

use super::time::{Day, Mono, Now, Unix};

/// Refusals in a row that are no jitter.
const ROW: u32 = 3;
/// Refusals with at least as many good answers between them are not in a row.
const ROW_GAP: u32 = 20;
/// A difference of the day of less than this part of the limit is no sign.
const DAY_TOLERANCE: u64 = 100;

/// What is thought of others' use of an API key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForeignUse {
    /// Since when; `None` when nobody is suspected.
    pub since: Option<Unix>,
    /// Calls of others in this quota day, at least.
    pub calls_today: u64,
}

/// The evidence on one API key.
#[derive(Debug, Default)]
pub struct Foreign {
    day: Day,
    refusals_in_row: u32,
    answers_since: u32,
    /// Calls that left before tell of a refusal that is known.
    last_refusal: Option<Mono>,
    seen: ForeignUse,
    /// There was a sign in this day.
    fresh: bool,
    withheld: u64,
}

impl Foreign {
    /// A call that left at `sent` was refused for the second's limit. Returns whether suspicion
    /// arose.
    pub fn throttled(&mut self, sent: Mono, now: Now) -> bool {
        if self.last_refusal.is_some_and(|last| sent <= last) {
            return false;
        }
        self.last_refusal = Some(now.mono);
        let in_row = std::mem::take(&mut self.answers_since) < ROW_GAP;
        self.refusals_in_row = if in_row { self.refusals_in_row.saturating_add(1) } else { 1 };
        if self.refusals_in_row < ROW {
            return false;
        }
        // the first refusals of the row had their cause too
        let calls = if self.refusals_in_row == ROW { u64::from(ROW) } else { 1 };
        self.seen.calls_today = self.seen.calls_today.saturating_add(calls);
        self.suspect(now.unix)
    }

    /// A call was not refused.
    pub fn answered(&mut self) {
        self.answers_since = self.answers_since.saturating_add(1);
    }

    /// The upstream says that the day is spent when `own` calls of `limit` have left. Returns
    /// whether suspicion arose.
    pub fn day_refused(&mut self, own: u64, limit: u64, now: Unix) -> bool {
        let others = limit.saturating_sub(own);
        if others <= limit.checked_div(DAY_TOLERANCE).unwrap_or_default() {
            return false;
        }
        self.seen.calls_today = self.seen.calls_today.max(others);
        self.suspect(now)
    }

    fn suspect(&mut self, now: Unix) -> bool {
        self.fresh = true;
        let news = self.seen.since.is_none();
        self.seen.since = self.seen.since.or(Some(now));
        news
    }

    /// Goes on to a later day of `limit` calls. Returns whether suspicion ended: a whole day has
    /// passed without a sign.
    pub fn roll(&mut self, day: Day, limit: u64) -> bool {
        let passed = day.number().saturating_sub(self.day.number());
        if passed == 0 {
            return false;
        }
        self.day = day;
        let sum = self.withheld.saturating_add(self.seen.calls_today);
        let most = limit.checked_div(2).unwrap_or_default();
        self.withheld = sum.checked_shr(passed).unwrap_or_default().min(most);
        self.seen.calls_today = 0;
        let ended = self.seen.since.is_some() && (!self.fresh || passed > 1);
        if ended {
            self.seen.since = None;
        }
        (self.fresh, self.refusals_in_row) = (false, 0);
        ended
    }

    /// What is thought now.
    #[must_use]
    pub const fn seen(&self) -> ForeignUse {
        self.seen
    }

    /// Calls of this day that are left to others: only interactive calls go into them.
    #[must_use]
    pub const fn withheld(&self) -> u64 {
        self.withheld
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn now(secs: u64) -> Now {
        Now { mono: Mono::new(Duration::from_secs(secs)), unix: Unix::from_secs(secs) }
    }

    fn foreign() -> Foreign {
        let mut foreign = Foreign::default();
        foreign.roll(Day::new(1), 1_000);
        foreign
    }

    #[test]
    fn three_refusals_in_a_row_are_no_jitter() {
        let mut foreign = foreign();
        assert!(!foreign.throttled(now(1).mono, now(1)));
        assert!(!foreign.throttled(now(0).mono, now(2)), "left before the first refusal came");
        assert!(!foreign.throttled(now(3).mono, now(3)));
        assert_eq!(foreign.seen(), ForeignUse::default());
        assert!(foreign.throttled(now(5).mono, now(5)));
        let seen = ForeignUse { since: Some(Unix::from_secs(5)), calls_today: 3 };
        assert_eq!(foreign.seen(), seen);
        assert!(!foreign.throttled(now(7).mono, now(7)), "told once");
        assert_eq!(foreign.seen().calls_today, 4);
    }

    #[test]
    fn refusals_with_good_answers_between_them_are_jitter() {
        let mut foreign = foreign();
        for round in 1..100 {
            assert!(!foreign.throttled(now(round).mono, now(round)));
            for _ in 0..ROW_GAP {
                foreign.answered();
            }
        }
        assert_eq!(foreign.seen(), ForeignUse::default());
    }

    #[test]
    fn a_day_that_is_spent_too_early_tells_the_difference() {
        let mut foreign = foreign();
        assert!(
            !foreign.day_refused(990, 1_000, Unix::from_secs(1)),
            "one in a hundred is no sign"
        );
        assert!(foreign.day_refused(700, 1_000, Unix::from_secs(2)));
        assert!(!foreign.day_refused(701, 1_000, Unix::from_secs(3)));
        assert_eq!(foreign.seen().calls_today, 300);
    }

    #[test]
    fn what_is_withheld_comes_near_the_use_and_melts_when_there_is_none() {
        let mut foreign = foreign();
        let mut withheld = Vec::new();
        for day in 2..6 {
            foreign.day_refused(700, 1_000, Unix::from_secs(u64::from(day)));
            assert!(!foreign.roll(Day::new(day), 1_000));
            withheld.push(foreign.withheld());
        }
        assert_eq!(withheld, [150, 225, 262, 281]);
        assert!(foreign.roll(Day::new(6), 1_000), "a day without a sign ends the suspicion");
        assert_eq!((foreign.withheld(), foreign.seen()), (140, ForeignUse::default()));
        assert!(!foreign.roll(Day::new(9), 1_000));
        assert_eq!(foreign.withheld(), 17);
        assert!(foreign.day_refused(700, 1_000, Unix::from_secs(9)));
        assert!(foreign.roll(Day::new(11), 1_000), "nothing was seen on the day between");
    }

    #[test]
    fn no_more_than_half_of_a_day_is_withheld() {
        let mut foreign = foreign();
        for day in 2..9 {
            foreign.day_refused(0, 1_000, Unix::from_secs(u64::from(day)));
            foreign.roll(Day::new(day), 1_000);
        }
        assert_eq!(foreign.withheld(), 500);
    }
}
