//! How much of a call's possible lateness is still added to the window.
//!
//! All of it is needed where the upstream keeps a log of arrivals, none of it where it keeps a
//! bucket of tokens; which of them it is nobody says. So after a long run without a refusal the
//! share goes down by quarters, and the first refusal takes it back to the whole, bars the quarter
//! at which it came and all below for a long run, and for twice as long each further time.

use std::time::Duration;

/// Quarters of the lateness.
const WHOLE: u32 = 4;
/// Clean answers at the whole share before less is tried: ten days of a standard key's 10,000, so
/// that an upstream that wants all of it refuses no more than one call in ten days while it is
/// asked.
const FIRST_AFTER: u64 = 100_000;
/// Clean answers at a smaller share before the next: a day's calls, so that one busy hour tells
/// before the next step.
const NEXT_AFTER: u64 = 10_000;
/// Clean answers for which a share that was refused is not tried again, at first.
const BARRED_FOR: u64 = 1_000_000;

/// The share of the lateness that is added to the window.
#[derive(Debug)]
pub(super) struct Narrowing {
    quarters: u32,
    /// The fewest quarters that may be tried.
    quarters_min: u32,
    /// Clean answers since the last step or refusal.
    clean: u64,
    /// Clean answers until every share may be tried again.
    barred: u64,
    /// What the next bar lasts.
    bar: u64,
}

impl Default for Narrowing {
    fn default() -> Self {
        Self { quarters: WHOLE, quarters_min: 0, clean: 0, barred: 0, bar: BARRED_FOR }
    }
}

impl Narrowing {
    /// The part of a lateness that is added to the window.
    pub(super) fn share(&self, lateness: Duration) -> Duration {
        let quarter = lateness.checked_div(WHOLE).unwrap_or_default();
        if self.quarters == WHOLE { lateness } else { quarter.saturating_mul(self.quarters) }
    }

    /// A call was not refused.
    pub(super) fn clean(&mut self) {
        self.clean = self.clean.saturating_add(1);
        self.barred = self.barred.saturating_sub(1);
        if self.barred == 0 {
            self.quarters_min = 0;
        }
        let after = if self.quarters == WHOLE { FIRST_AFTER } else { NEXT_AFTER };
        if self.clean >= after && self.quarters > self.quarters_min {
            self.quarters = self.quarters.saturating_sub(1);
            self.clean = 0;
        }
    }

    /// A call was refused for its rate.
    pub(super) fn refused(&mut self) {
        if self.quarters < WHOLE {
            self.quarters_min = self.quarters.saturating_add(1);
            self.barred = self.bar;
            self.bar = self.bar.saturating_mul(2);
        }
        self.quarters = WHOLE;
        self.clean = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATENESS: Duration = Duration::from_millis(80);

    fn clean(narrowing: &mut Narrowing, count: u64) {
        for _ in 0..count {
            narrowing.clean();
        }
    }

    #[test]
    fn the_share_goes_down_by_quarters_after_a_long_clean_run() {
        let mut narrowing = Narrowing::default();
        clean(&mut narrowing, FIRST_AFTER - 1);
        assert_eq!(narrowing.share(LATENESS), LATENESS);
        narrowing.clean();
        assert_eq!(narrowing.share(LATENESS), LATENESS * 3 / 4);
        clean(&mut narrowing, NEXT_AFTER * 3);
        assert_eq!(narrowing.share(LATENESS), Duration::ZERO);
    }

    #[test]
    fn a_refusal_at_the_whole_share_bars_nothing() {
        let mut narrowing = Narrowing::default();
        narrowing.refused();
        clean(&mut narrowing, FIRST_AFTER);
        assert_eq!(narrowing.share(LATENESS), LATENESS * 3 / 4);
    }

    #[test]
    fn a_refusal_takes_all_back_and_bars_its_share_for_longer_each_time() {
        let mut narrowing = Narrowing::default();
        clean(&mut narrowing, FIRST_AFTER + NEXT_AFTER);
        narrowing.refused();
        assert_eq!(narrowing.share(LATENESS), LATENESS, "refused at a half");
        clean(&mut narrowing, BARRED_FOR - 1);
        assert_eq!(narrowing.share(LATENESS), LATENESS * 3 / 4, "no further meanwhile");
        narrowing.clean();
        assert_eq!(narrowing.share(LATENESS), LATENESS / 2, "tried again");
        narrowing.refused();
        clean(&mut narrowing, BARRED_FOR * 2 - 1);
        assert_eq!(narrowing.share(LATENESS), LATENESS * 3 / 4, "barred for twice as long");
    }
}
