//! The least time that something takes on a path, learned from what it took.
//!
//! What a round trip exceeds the least by is the most that its call can have been late. The least
//! is the smallest that was seen in the last ten to twenty minutes, so that a path that grew longer
//! is found out. It is above the true one by an error that shrinks with the number of times that it
//! rests on; until they are enough to tell, all of a round trip counts as excess.

use std::time::Duration;

use crate::engine::time::Mono;

/// Times after which the smallest is taken for the least that the path allows.
const BELIEVED_AFTER: u32 = 32;
/// How long the smallest is believed, at least; twice that at most.
const LIFE: Duration = Duration::from_secs(600);
/// Margin for the error of a least that rests on [`BELIEVED_AFTER`] times.
pub(super) const MARGIN_MAX: Duration = Duration::from_millis(8);
/// Margin that is left of it in the end: what a system call and a timer may be late by between the
/// moment that is written down and the bytes.
pub(super) const MARGIN_MIN: Duration = Duration::from_millis(1);

/// The smallest time of one span of [`LIFE`], and how many there were.
#[derive(Clone, Copy, Debug, Default)]
struct Smallest {
    time: Option<Duration>,
    count: u32,
}

/// The least time that something takes.
#[derive(Debug, Default)]
pub(super) struct Least {
    current: Smallest,
    before: Smallest,
    since: Mono,
}

impl Least {
    /// It took this long, once more.
    pub(super) fn learn(&mut self, took: Duration, now: Mono) {
        if now.since(self.since) >= LIFE {
            self.before = std::mem::take(&mut self.current);
            self.since = now;
        }
        let least = self.current.time.map_or(took, |least| least.min(took));
        self.current = Smallest { time: Some(least), count: self.current.count.saturating_add(1) };
    }

    /// What this time exceeds the least by; all of it while the least is not known.
    pub(super) fn excess(&self, took: Duration) -> Duration {
        let smallest = [self.current.time, self.before.time].into_iter().flatten().min();
        match smallest {
            Some(least) if self.count() >= BELIEVED_AFTER => took.saturating_sub(least),
            Some(_) | None => took,
        }
    }

    /// What the least may be above the true one by, and timers. The times of a path crowd less the
    /// nearer the least they are; where their density goes to zero in a straight line, as for the
    /// sum of two delays, the error falls with the root of their number.
    pub(super) fn margin(&self) -> Duration {
        let root = self.count().checked_div(BELIEVED_AFTER).unwrap_or_default().isqrt();
        MARGIN_MAX.checked_div(root).unwrap_or(MARGIN_MAX).max(MARGIN_MIN)
    }

    fn count(&self) -> u32 {
        self.current.count.saturating_add(self.before.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn learned(count: u32, took: Duration, at: Mono, least: &mut Least) {
        for _ in 0..count {
            least.learn(took, at);
        }
    }

    #[test]
    fn the_least_is_believed_after_many_times() {
        let mut least = Least::default();
        learned(BELIEVED_AFTER - 1, ms(50), Mono::default(), &mut least);
        assert_eq!(least.excess(ms(70)), ms(70));
        least.learn(ms(60), Mono::default());
        assert_eq!(least.excess(ms(70)), ms(20));
        assert_eq!(least.excess(ms(40)), ms(0));
    }

    #[test]
    fn the_margin_shrinks_with_the_root_of_what_it_rests_on() {
        let mut least = Least::default();
        assert_eq!(least.margin(), ms(8));
        learned(BELIEVED_AFTER * 4, ms(50), Mono::default(), &mut least);
        assert_eq!(least.margin(), ms(4));
        learned(BELIEVED_AFTER * 96, ms(50), Mono::default(), &mut least);
        assert_eq!(least.margin(), MARGIN_MIN);
    }

    #[test]
    fn a_least_of_long_ago_is_forgotten() {
        let mut least = Least::default();
        learned(BELIEVED_AFTER, ms(10), Mono::new(LIFE), &mut least);
        learned(BELIEVED_AFTER, ms(50), Mono::new(LIFE * 2), &mut least);
        assert_eq!(least.excess(ms(70)), ms(60), "for ten minutes both count");
        learned(BELIEVED_AFTER, ms(50), Mono::new(LIFE * 3), &mut least);
        assert_eq!(least.excess(ms(70)), ms(20));
    }
}
