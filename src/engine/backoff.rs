//! Pauses after refusals: each refusal of a call that left after the last pause doubles the next.
//!
//! Calls that were under way when a pause began are refused for the reason that is known already,
//! so they make nothing longer. A little is added to each pause at random, so that proxies that
//! were refused together do not come back together.

use std::time::Duration;

use super::chance::Chance;
use super::time::Mono;

/// One thing's pauses.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    least: Duration,
    most: Duration,
    /// Pauses since the last good answer.
    pauses: u32,
    until: Mono,
}

impl Backoff {
    /// No pause yet; the first will be `least` long and none longer than `most`, chance apart.
    #[must_use]
    pub const fn new(least: Duration, most: Duration) -> Self {
        Self { least, most, pauses: 0, until: Mono::new(Duration::ZERO) }
    }

    /// A call that left at `sent` was refused. Returns the end of the pause that begins now;
    /// `None` when the call left before the last one ended and so tells nothing new.
    pub fn refused(&mut self, sent: Mono, now: Mono, chance: &mut Chance) -> Option<Mono> {
        if sent < self.until {
            return None;
        }
        let doubled = self.least.saturating_mul(2_u32.saturating_pow(self.pauses.min(16)));
        self.pauses = self.pauses.saturating_add(1);
        self.until = now.plus(chance.stretch(doubled.min(self.most)));
        Some(self.until)
    }

    /// A call that left at `sent` was not refused. Returns whether that is news; then the next
    /// pause is a short one again.
    pub fn answered(&mut self, sent: Mono) -> bool {
        let news = sent >= self.until;
        if news {
            self.pauses = 0;
        }
        news
    }

    /// Ends the pause; the next is twice as long all the same.
    pub fn interrupt(&mut self, now: Mono) {
        self.until = self.until.min(now);
    }

    /// Ends the pause and forgets that there was one.
    pub fn forgive(&mut self, now: Mono) {
        self.interrupt(now);
        self.pauses = 0;
    }

    /// When the pause ends; past when there is none.
    #[must_use]
    pub const fn until(&self) -> Mono {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Mono {
        Mono::new(Duration::from_secs(secs))
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_after_a_good_answer() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        let mut chance = Chance::new(1);
        for least in [1, 2, 4, 8, 16, 32, 60, 60] {
            let now = backoff.until();
            let span = backoff.refused(now, now, &mut chance).unwrap().since(now);
            let least = Duration::from_secs(least);
            assert!(span >= least && span < least + least / 4, "{span:?} of {least:?}");
        }
        let now = backoff.until();
        assert!(backoff.answered(now));
        let span = backoff.refused(now, now, &mut chance).unwrap().since(now);
        assert!(span < Duration::from_secs(2), "{span:?}");
    }

    #[test]
    fn calls_that_left_before_the_pause_ended_make_nothing_longer_and_shorter() {
        let mut backoff = Backoff::new(Duration::from_secs(4), Duration::from_secs(60));
        let mut chance = Chance::new(1);
        let until = backoff.refused(at(10), at(11), &mut chance).unwrap();
        assert_eq!(backoff.refused(at(9), at(12), &mut chance), None);
        assert_eq!(backoff.refused(at(10), at(100), &mut chance), None, "a slow answer");
        assert!(!backoff.answered(at(10)));
        assert_eq!(backoff.until(), until);
        let again = backoff.refused(until, until, &mut chance).unwrap();
        assert!(again.since(until) >= Duration::from_secs(8));
    }
}
