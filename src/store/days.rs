//! The counted days of an API key: what a reservation answers, and which day counts.

use crate::engine::Day;

/// Counted days of an API key that are kept: a call that was reserved before midnight can still be
/// released, and a clock that was far ahead for a while finds the counts of before.
pub(super) const DAYS_KEPT: usize = 4;

/// How much of a day's limit is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DayCount {
    /// The day that was counted: the one asked for, or the one after it when the store has already
    /// seen that, since a clock that steps back must not reopen a day.
    pub day: Day,
    /// Calls granted by this reservation; less than asked when the limit is near, zero when it is
    /// reached.
    pub granted: u32,
    /// All calls reserved in that day, these included.
    pub total: u64,
}

/// Whether a `stored` day is the day for somebody who asks for `asked`, which is not later: clocks
/// differ by hours, and one that is wrong by more must not hold an API key until its day has come.
pub(super) const fn is_followed(stored: Day, asked: Day) -> bool {
    stored.number() <= asked.number().saturating_add(1)
}
