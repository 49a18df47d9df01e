//! Time as the engine sees it: two clocks, read once per turn by whoever owns the machine.
//!
//! [`Mono`] never goes back and serves pacing and deadlines; [`Unix`] is the wall clock and serves
//! the day and the expiry of tokens. All arithmetic saturates: a clock that steps is tolerated,
//! never a panic.

use std::time::Duration;

/// Seconds in a quota day.
const DAY_SECS: u64 = 86_400;

/// A moment on the monotonic clock, as the time since that clock was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(Duration);

impl Mono {
    /// The farthest moment that can be written; stands for "never".
    pub const NEVER: Self = Self(Duration::MAX);

    /// The moment `since_start` after the clock was made.
    #[must_use]
    pub const fn new(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// Time since the clock was made.
    #[must_use]
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// Time from `earlier` to this moment, zero when `earlier` is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The moment `span` later, at most [`Mono::NEVER`].
    #[must_use]
    pub const fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }

    /// The moment `span` earlier, at least the start of the clock.
    #[must_use]
    pub const fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(span))
    }
}

/// A moment on the wall clock, as the time since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Unix(Duration);

impl Unix {
    /// The moment `since_epoch` after 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn new(since_epoch: Duration) -> Self {
        Self(since_epoch)
    }

    /// The moment `secs` whole seconds after the epoch.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// Time since the epoch.
    #[must_use]
    pub const fn since_epoch(self) -> Duration {
        self.0
    }

    /// Whole seconds since the epoch.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0.as_secs()
    }

    /// Time from `earlier` to this moment, zero when `earlier` is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The moment `span` later.
    #[must_use]
    pub const fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }

    /// The moment `span` earlier, at least the epoch.
    #[must_use]
    pub const fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(span))
    }
}

/// Both clocks, read at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// The monotonic clock: pacing, deadlines.
    pub mono: Mono,
    /// The wall clock: the day, token expiry.
    pub unix: Unix,
}

/// A quota day, numbered from the day of the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(u32);

impl Day {
    /// The day with this number.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number, counted from the day of the epoch.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// The time of day, in UTC, at which the quota day turns. The upstream documents 00:00:00Z
/// (<https://developer.constantcontact.com/api_guide/rate_limits.html>).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DayReset(Duration);

impl DayReset {
    /// A reset `after_midnight` after 00:00:00Z; whole days are dropped.
    #[must_use]
    pub const fn new(after_midnight: Duration) -> Self {
        Self(Duration::from_secs(after_midnight.as_secs() % DAY_SECS))
    }

    /// Time of the reset after 00:00:00Z.
    #[must_use]
    pub const fn after_midnight(self) -> Duration {
        self.0
    }

    /// The quota day that holds `at`.
    #[must_use]
    pub fn day_of(self, at: Unix) -> Day {
        let days = at.minus(self.0).as_secs() / DAY_SECS;
        Day(u32::try_from(days).unwrap_or(u32::MAX))
    }

    /// The moment at which `day` ends.
    #[must_use]
    pub fn end_of(self, day: Day) -> Unix {
        let whole = u64::from(day.0).saturating_add(1).saturating_mul(DAY_SECS);
        Unix::from_secs(whole).plus(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_day_turns_at_its_reset() {
        let reset = DayReset::new(Duration::from_secs(3_600));
        let midnight = Unix::from_secs(20_000 * DAY_SECS);
        assert_eq!(reset.day_of(midnight), Day::new(19_999));
        let turned = midnight.plus(Duration::from_secs(3_600));
        assert_eq!(reset.day_of(turned), Day::new(20_000));
        assert_eq!(reset.end_of(Day::new(19_999)), turned);
    }

    #[test]
    fn time_that_goes_back_saturates() {
        let early = Mono::new(Duration::from_secs(1));
        assert_eq!(early.since(Mono::new(Duration::from_secs(2))), Duration::ZERO);
        assert_eq!(early.minus(Duration::from_secs(9)), Mono::default());
        assert_eq!(Mono::NEVER.plus(Duration::from_secs(9)), Mono::NEVER);
    }
}
