//! What the store's clock shows, as far as its answers tell.
//!
//! An answer was written between the question and its arrival, so it tells the clock to within what
//! it took. Of late and prompt answers the prompt ones are kept: a late one would make the next
//! look as if the clock had been set forward.

use std::time::Duration;

use super::terms::Stamp;
use crate::engine::time::Mono;

/// For how long a more exact answer is preferred to later ones: clocks drift by less than
/// [`STEP_MIN`] meanwhile.
const KEPT: Duration = Duration::from_secs(10);
/// A clock that is ahead by less than this has not been set: it may be adjusted slowly, by up to a
/// twelfth of the time (`chrony`), which the guard of a window takes in.
const STEP_MIN: Duration = Duration::from_millis(10);

/// An answer with the clock in it.
#[derive(Clone, Copy, Debug)]
struct Reading {
    asked: Mono,
    came: Mono,
    stamp: Stamp,
}

impl Reading {
    fn took(&self) -> Duration {
        self.came.since(self.asked)
    }
}

/// The store's clock.
#[derive(Debug, Default)]
pub(super) struct StoreClock {
    best: Option<Reading>,
}

impl StoreClock {
    /// An answer came. Whether it shows that the clock was set forward since the ones before.
    pub(super) fn read(&mut self, asked: Mono, came: Mono, stamp: Stamp) -> bool {
        let reading = Reading { asked, came, stamp };
        let Some(best) = self.best else {
            self.best = Some(reading);
            return false;
        };
        // at `best.asked` or later the clock showed that, and now is the latest for this
        let latest = best.stamp.plus(came.since(best.asked).saturating_add(STEP_MIN));
        let earliest = best.stamp.plus(asked.since(best.came));
        let is_ahead = stamp > latest;
        let is_behind = stamp.plus(STEP_MIN) < earliest;
        let is_old = came.since(best.came) >= KEPT;
        if is_ahead || is_behind || is_old || reading.took() <= best.took() {
            self.best = Some(reading);
        }
        is_ahead
    }

    /// The store is another one, whose clock says nothing of the one before.
    pub(super) const fn forget(&mut self) {
        self.best = None;
    }

    /// What the clock shows at a moment; never less than it does. The end of time while nothing is
    /// known.
    pub(super) fn at(&self, moment: Mono) -> Stamp {
        self.best.map_or(Stamp::NEVER, |best| best.stamp.plus(moment.since(best.asked)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Mono {
        Mono::new(Duration::from_millis(ms))
    }

    /// What the store's clock shows at a moment of ours.
    fn stamp(at: u64) -> Stamp {
        Stamp((5_000 + at) * 1_000)
    }

    #[test]
    fn late_answers_are_no_step_of_the_clock() {
        let mut clock = StoreClock::default();
        let mut at = 0;
        // answers that take up to 200 ms on their way back, and those that take none
        for late in [0, 150, 0, 60, 200, 1, 110, 0] {
            at += 1_000;
            assert!(!clock.read(ms(at), ms(at + 1 + late), stamp(at + 1)), "{late} ms late");
            let shown = clock.at(ms(at + 500));
            let exact = stamp(at + 500);
            assert!(shown >= exact && shown <= stamp(at + 502), "{late} ms late: {shown:?}");
        }
    }

    #[test]
    fn a_clock_that_is_set_forward_is_noticed_once() {
        let mut clock = StoreClock::default();
        assert!(!clock.read(ms(1_000), ms(1_001), stamp(1_001)));
        assert!(!clock.read(ms(2_000), ms(2_001), stamp(2_009)), "it goes a little fast");
        assert!(clock.read(ms(3_000), ms(3_001), stamp(3_041)));
        assert!(!clock.read(ms(4_000), ms(4_001), stamp(4_041)));
        assert_eq!(clock.at(ms(4_001)), stamp(4_042));
    }

    #[test]
    fn a_clock_that_is_set_back_is_read_anew() {
        let mut clock = StoreClock::default();
        assert!(!clock.read(ms(1_000), ms(1_001), stamp(1_001)));
        assert!(!clock.read(ms(2_000), ms(2_051), stamp(1_501)));
        assert_eq!(clock.at(ms(3_000)), stamp(2_501));
        clock.forget();
        assert_eq!(clock.at(ms(3_000)), Stamp::NEVER);
    }
}
