//! How many calls of one API key are left in the quota day.
//!
//! A call is counted in the store before it leaves: the budget holds a small block of calls that
//! the store has already counted, at most one window's worth, and asks for more in good time. What
//! the store has counted and what has left therefore differ by at most that block, on the safe
//! side. The day never goes back, whatever the wall clock does.

use std::time::Duration;

use super::time::{Day, DayReset, Mono, Now, Unix};

/// While the upstream says that the day is spent, it is asked again this seldom.
const PROBE_EVERY: Duration = Duration::from_secs(3_600);
/// Near the turn of the day the upstream may still be in the old one; it is asked again this soon.
const PROBE_NEAR_TURN: Duration = Duration::from_secs(10);
/// How long that is the likely reason.
const NEAR_TURN: Duration = Duration::from_secs(120);
/// First wait after the store failed to count.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// Longest wait after the store failed to count.
const RETRY_MAX: Duration = Duration::from_secs(2);
/// Failures in a row after which calls are refused rather than left to wait.
const FAILURES_MAX: u32 = 3;

/// What the store answers to a [`Claim`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The day that was counted; at least the one asked for.
    pub day: Day,
    /// Calls granted.
    pub granted: u32,
    /// All calls counted in that day.
    pub total: u64,
}

/// A wish to have calls counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The day.
    pub day: Day,
    /// Calls wanted.
    pub want: u32,
    /// The day's limit.
    pub limit: u64,
}

/// Whether calls can be taken from the day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stock {
    /// A counted call is in hand.
    InHand,
    /// The store has been asked, or will be.
    Awaited,
    /// The store fails to count.
    StoreFails,
    /// Nothing is left until the day turns.
    Spent,
}

/// The day of one API key.
#[derive(Debug)]
pub struct Budget {
    reset: DayReset,
    limit: u64,
    block: u32,
    day: Day,
    /// Calls of the day that the store has counted; unknown until it answered once.
    counted: Option<u64>,
    in_hand: u32,
    asked: bool,
    retry_at: Mono,
    failures: u32,
    /// The upstream said that the day is spent; it may be asked again then.
    probe_at: Option<Mono>,
    /// When it said so.
    spent_at: Mono,
    /// A call was taken to find out.
    probing: bool,
    /// Calls that left under the old day's count and may be counted in this one.
    owed: u32,
    /// The process stops: nothing more is counted.
    closed: bool,
}

impl Budget {
    /// The budget of a day of `limit` calls, of which at most `block` are held ready.
    #[must_use]
    pub fn new(limit: u64, block: u32, reset: DayReset, now: Unix) -> Self {
        Self {
            reset,
            limit,
            block: block.max(1),
            day: reset.day_of(now),
            counted: None,
            in_hand: 0,
            asked: false,
            retry_at: Mono::default(),
            failures: 0,
            probe_at: None,
            spent_at: Mono::default(),
            probing: false,
            owed: 0,
            closed: false,
        }
    }

    /// Changes the limits; what was used stays used.
    pub fn reconfigure(&mut self, limit: u64, block: u32, reset: DayReset) {
        self.limit = limit;
        self.block = block.max(1);
        self.reset = reset;
    }

    /// Goes on to the day of `now` when that is a later one. Calls in hand were counted in the old
    /// day and stay there.
    pub fn roll(&mut self, now: Unix) -> bool {
        self.roll_to(self.reset.day_of(now))
    }

    fn roll_to(&mut self, day: Day) -> bool {
        let turns = day > self.day;
        if turns {
            self.begin(day);
        }
        turns
    }

    fn begin(&mut self, day: Day) {
        self.day = day;
        self.counted = None;
        self.in_hand = 0;
        self.asked = false;
        self.probe_at = None;
        // what failed in the old day says nothing of the store now
        self.failures = 0;
        self.retry_at = Mono::default();
    }

    /// Whether a call can be taken now.
    #[must_use]
    pub fn stock(&self, now: Mono) -> Stock {
        if self.probe_at.is_some_and(|at| now < at) {
            return Stock::Spent;
        }
        if self.in_hand > 0 {
            return Stock::InHand;
        }
        match self.counted {
            Some(counted) if counted >= self.limit => Stock::Spent,
            _ if self.failures >= FAILURES_MAX => Stock::StoreFails,
            Some(_) | None => Stock::Awaited,
        }
    }

    /// Whether a counted call is in hand.
    #[must_use]
    pub const fn has_in_hand(&self) -> bool {
        self.in_hand > 0
    }

    /// Takes a counted call for one that is about to leave; `None` when none is in hand.
    pub fn take(&mut self, now: Mono) -> Option<Day> {
        if self.stock(now) != Stock::InHand {
            return None;
        }
        self.in_hand = self.in_hand.saturating_sub(1);
        if self.probe_at.is_some() {
            self.probe_at = Some(now.plus(PROBE_EVERY));
            self.probing = true;
        }
        Some(self.day)
    }

    /// Gives back a call that certainly did not leave. Returns how many calls the store should
    /// uncount, when more are in hand than the block holds.
    pub fn give_back(&mut self, day: Day, now: Mono) -> u32 {
        if day != self.day {
            return 0;
        }
        // if it was the probe, nobody has been asked
        if std::mem::take(&mut self.probing) {
            self.probe_at = Some(now);
        }
        if self.closed {
            return 1;
        }
        if self.in_hand < self.block {
            self.in_hand = self.in_hand.saturating_add(1);
            return 0;
        }
        self.counted = self.counted.map(|counted| counted.saturating_sub(1));
        1
    }

    /// What to ask the store for now, if anything.
    pub fn claim(&mut self, now: Mono) -> Option<Claim> {
        if self.asked || self.closed || !self.runs_low() || now < self.retry_at {
            return None;
        }
        self.asked = true;
        let want = self.block.saturating_sub(self.in_hand).saturating_add(self.owed);
        Some(Claim { day: self.day, want, limit: self.limit })
    }

    /// Whether less than half a block is in hand and the day has more.
    fn runs_low(&self) -> bool {
        let low = self.in_hand <= self.block.checked_div(2).unwrap_or_default();
        low && self.counted.is_none_or(|counted| counted < self.limit)
    }

    /// When to call [`Budget::claim`] again after a failure.
    #[must_use]
    pub fn retry_at(&self) -> Option<Mono> {
        (self.failures > 0 && !self.asked && self.runs_low()).then_some(self.retry_at)
    }

    /// The store answered a claim for `asked_day`. Returns how many calls it should uncount again,
    /// because they are not wanted any more.
    pub fn claimed(&mut self, asked_day: Day, answer: Claimed) -> u32 {
        if asked_day == self.day {
            self.asked = false;
        }
        self.failures = 0;
        self.roll_to(answer.day);
        if self.closed {
            return answer.granted;
        }
        if answer.day == self.day {
            let paid = self.owed.min(answer.granted);
            self.owed = self.owed.saturating_sub(paid);
            self.in_hand = self.in_hand.saturating_add(answer.granted.saturating_sub(paid));
            self.counted = Some(answer.total);
        }
        0
    }

    /// Takes what a store says that several instances count in: `used` calls of `day` have left or
    /// are about to, and if the upstream said that it is spent, it is asked again after `spent`.
    /// This budget then holds nothing in hand. A store whose clock was far ahead goes back to the
    /// day that it is.
    pub fn adopt(&mut self, day: Day, used: u64, spent: Option<Duration>, now: Mono) {
        if day != self.day {
            self.begin(day);
        }
        self.counted = Some(used);
        if spent.is_some() && self.probe_at.is_none() {
            self.spent_at = now;
        }
        self.probe_at = spent.map(|span| now.plus(span));
    }

    /// Has `calls` counted in this day too, that left before it began.
    pub fn owe(&mut self, calls: usize) {
        self.owed = u32::try_from(calls).unwrap_or(u32::MAX);
    }

    /// The store failed to answer a claim for `asked_day`; whether it counted is unknown, so
    /// nothing is in hand.
    pub fn claim_failed(&mut self, asked_day: Day, now: Mono) {
        if asked_day == self.day {
            self.asked = false;
        }
        let doubled = RETRY_MIN.saturating_mul(1_u32 << self.failures.min(5));
        self.failures = self.failures.saturating_add(1);
        self.retry_at = now.plus(doubled.min(RETRY_MAX));
    }

    /// The upstream says that the day is spent: it is believed until the day turns, or a probe goes
    /// through.
    pub fn spent_says_upstream(&mut self, day: Day, now: Now) {
        if day != self.day {
            return;
        }
        let turned = self.reset.end_of(Day::new(self.day.number().saturating_sub(1)));
        let near_turn = now.unix.since(turned) < NEAR_TURN;
        let again = if near_turn { PROBE_NEAR_TURN } else { PROBE_EVERY };
        self.probe_at = Some(now.mono.plus(again));
        self.spent_at = now.mono;
        self.probing = false;
    }

    /// The upstream answered a call that left at `sent_at` in another way: if that was after it
    /// said that the day is spent, it is not.
    pub fn answered(&mut self, sent_at: Mono) {
        if sent_at > self.spent_at {
            self.probe_at = None;
            self.probing = false;
        }
    }

    /// Takes everything in hand, to be uncounted in the store because the process stops; no more is
    /// counted after.
    pub fn surrender(&mut self) -> (Day, u32) {
        self.closed = true;
        let count = std::mem::take(&mut self.in_hand);
        self.counted = self.counted.map(|counted| counted.saturating_sub(u64::from(count)));
        (self.day, count)
    }

    /// Whether the store has counted in this day.
    #[must_use]
    pub const fn is_counted(&self) -> bool {
        self.counted.is_some()
    }

    /// When the upstream said that the day is spent, while it is believed.
    #[must_use]
    pub fn refused_at(&self) -> Option<Mono> {
        self.probe_at.map(|_| self.spent_at)
    }

    /// The day that is counted.
    #[must_use]
    pub const fn day(&self) -> Day {
        self.day
    }

    /// Calls of this day that have left, as far as is known.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.counted.unwrap_or_default().saturating_sub(u64::from(self.in_hand))
    }

    /// Calls that are left in this day; zero while the upstream says so.
    #[must_use]
    pub fn remaining(&self, now: Mono) -> u64 {
        if self.probe_at.is_some_and(|at| now < at) {
            return 0;
        }
        self.limit.saturating_sub(self.used())
    }

    /// The limit.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// When the day ends.
    #[must_use]
    pub fn resets_at(&self) -> Unix {
        self.reset.end_of(self.day)
    }
}

#[cfg(test)]
mod tests;
