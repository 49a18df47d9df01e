//! The least time that something takes on a path, learned from what it took.
//!
//! What a round trip exceeds the least by is the most that its call can have been late. The least
//! is the smallest that was seen in the last ten to twenty minutes, so that a path that grew longer
//! is found out. It lies above the true one by an error that shrinks with the number of times that
//! it rests on, fast or slowly as the times crowd near the least; the distance between the smallest
//! few tells how much. Until there are enough to tell, all of a round trip counts as excess.

use std::time::Duration;

use crate::engine::time::Mono;

/// Times after which the smallest is taken for the least that the path allows.
const BELIEVED_AFTER: u32 = 32;
/// How long the smallest is believed, at least; twice that at most.
const LIFE: Duration = Duration::from_secs(600);
/// How many of the smallest are kept. Where the density of times goes to zero toward the least with
/// a power from one to three, as for the sum of two to four delays, the eighth smallest lies above
/// the smallest by 1.9 to 0.8 times what the smallest lies above the true least by.
const KEPT: usize = 8;

/// The smallest times of one span of [`LIFE`] in rising order, and how many there were.
#[derive(Clone, Copy, Debug)]
struct Smallest {
    times: [Duration; KEPT],
    count: u32,
}

impl Default for Smallest {
    fn default() -> Self {
        Self { times: [Duration::MAX; KEPT], count: 0 }
    }
}

impl Smallest {
    fn learn(&mut self, took: Duration) {
        self.count = self.count.saturating_add(1);
        let [.., last] = &mut self.times;
        *last = took.min(*last);
        self.times.sort_unstable();
    }
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
        self.current.learn(took);
    }

    /// What this time may exceed the true least by; all of it while the least is not known.
    pub(super) fn excess(&self, took: Duration) -> Duration {
        took.saturating_sub(self.believed())
    }

    /// What nothing is believed to be quicker than; zero while the least is not known.
    pub(super) fn believed(&self) -> Duration {
        if !self.is_believed() {
            return Duration::ZERO;
        }
        let [least, .., eighth] = self.smallest();
        least.saturating_sub(error(least, eighth))
    }

    /// The smallest so far, or what is believed; zero while nothing is known at all.
    pub(super) fn seen(&self) -> Duration {
        let [least, ..] = self.smallest();
        if self.is_believed() || least == Duration::MAX { self.believed() } else { least }
    }

    fn is_believed(&self) -> bool {
        self.current.count.saturating_add(self.before.count) >= BELIEVED_AFTER
    }

    /// The smallest of both spans.
    fn smallest(&self) -> [Duration; KEPT] {
        let mut both = self.current;
        for time in self.before.times {
            both.learn(time);
        }
        both.times
    }
}

/// What the smallest may lie above the true least by. The power is not known, and the distance of
/// the eighth is itself chance: with twice that distance the simulation had a refusal in four
/// million calls over lan and wan, with three times it has one in twenty million.
fn error(least: Duration, eighth: Duration) -> Duration {
    eighth.saturating_sub(least).saturating_mul(3)
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
    fn what_is_seen_is_told_before_it_is_believed() {
        let mut least = Least::default();
        assert_eq!((least.seen(), least.believed()), (ms(0), ms(0)));
        for took in [80, 70, 90] {
            least.learn(ms(took), Mono::default());
        }
        assert_eq!((least.seen(), least.believed()), (ms(70), ms(0)));
        learned(BELIEVED_AFTER, ms(70), Mono::default(), &mut least);
        assert_eq!((least.seen(), least.believed()), (ms(70), ms(70)));
    }

    #[test]
    fn the_error_of_the_least_shrinks_as_the_smallest_crowd() {
        let mut least = Least::default();
        for took in 50..50 + u64::from(BELIEVED_AFTER) {
            least.learn(ms(took), Mono::default());
        }
        assert_eq!(least.excess(ms(50)), ms(21));
        learned(6, ms(51), Mono::default(), &mut least);
        assert_eq!(least.excess(ms(50)), ms(3));
        least.learn(ms(40), Mono::default());
        assert_eq!(least.excess(ms(40)), ms(33), "a new least stands alone");
        assert_eq!(least.excess(ms(19)), ms(12));
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
