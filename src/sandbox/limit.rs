//! The two limits of an API key: so many calls in a second, so many in a day.
//!
//! Written against the upstream's documentation and nothing else, so that it can contradict the
//! proxy's pacing. Every arrival counts toward the day, also one that is refused; in the second
//! only calls let through count unless asked otherwise. A meter also keeps what a judge wants to
//! know: the most arrivals in any one second, whatever the model in force.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::engine::{Mono, Now, Unix};

use super::options::{Options, Window};

const SECOND: Duration = Duration::from_secs(1);
const DAY_SECS: u64 = 86_400;
/// One call's worth of bucket content: so many units flow in per nanosecond as the rate says.
const CALL_UNITS: u128 = 1_000_000_000;

/// Which limit a call ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limited {
    /// The second's.
    Throttled,
    /// The day's.
    QuotaExceeded,
}

/// The counts of one API key.
#[derive(Debug, Default)]
pub(super) struct Meter {
    fixed: (u64, u32),
    sliding: VecDeque<Mono>,
    bucket: Option<(Mono, u128)>,
    recent: VecDeque<Mono>,
    /// All arrivals.
    pub(super) arrivals: u64,
    /// The most arrivals in any span of one second, refused ones included.
    pub(super) most_in_one_second: usize,
    /// Arrivals by quota day, numbered from the day of the epoch.
    pub(super) days: BTreeMap<u64, u64>,
}

impl Meter {
    /// Counts one arrival and says whether it may pass.
    pub(super) fn arrive(&mut self, options: &Options, now: Now) -> Result<(), Limited> {
        self.observe(now.mono);
        let used = self.days.entry(day_of(options, now.unix)).or_default();
        *used += 1;
        if *used > options.per_day {
            return Err(Limited::QuotaExceeded);
        }
        let passes = match options.window {
            Window::Fixed => self.fits_fixed(options.per_second, now.unix),
            Window::Sliding => self.fits_sliding(options, now.mono),
            Window::Bucket => self.fits_bucket(options.per_second, now.mono),
        };
        if passes { Ok(()) } else { Err(Limited::Throttled) }
    }

    fn observe(&mut self, now: Mono) {
        self.arrivals += 1;
        forget_before(&mut self.recent, now);
        self.recent.push_back(now);
        self.most_in_one_second = self.most_in_one_second.max(self.recent.len());
    }

    fn fits_fixed(&mut self, per_second: u32, now: Unix) -> bool {
        let second = now.as_secs();
        if self.fixed.0 != second {
            self.fixed = (second, 0);
        }
        let fits = self.fixed.1 < per_second;
        if fits {
            self.fixed.1 += 1;
        }
        fits
    }

    fn fits_sliding(&mut self, options: &Options, now: Mono) -> bool {
        forget_before(&mut self.sliding, now);
        let fits = self.sliding.len() < usize::try_from(options.per_second).unwrap_or(usize::MAX);
        if fits || options.count_refused {
            self.sliding.push_back(now);
        }
        fits
    }

    fn fits_bucket(&mut self, per_second: u32, now: Mono) -> bool {
        let rate = u128::from(per_second);
        let full = rate * CALL_UNITS;
        let (since, content) = self.bucket.unwrap_or((now, full));
        let content = (content + now.since(since).as_nanos() * rate).min(full);
        let fits = content >= CALL_UNITS;
        self.bucket = Some((now, if fits { content - CALL_UNITS } else { content }));
        fits
    }
}

/// The quota day that holds `at`.
pub(super) fn day_of(options: &Options, at: Unix) -> u64 {
    at.minus(options.day_reset).as_secs() / DAY_SECS
}

/// Drops what is a whole second old or older: a window is open at its far end.
fn forget_before(times: &mut VecDeque<Mono>, now: Mono) {
    while times.front().is_some_and(|&at| now.since(at) >= SECOND) {
        times.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Noon of some day, so that whole seconds of both clocks agree.
    const NOON: u64 = 20_000 * DAY_SECS + 43_200;

    fn at_ms(ms: u64) -> Now {
        let since = Duration::from_millis(ms);
        Now { mono: Mono::new(since), unix: Unix::from_secs(NOON).plus(since) }
    }

    fn passed(options: &Options, meter: &mut Meter, times_ms: &[u64]) -> Vec<bool> {
        times_ms.iter().map(|&ms| meter.arrive(options, at_ms(ms)).is_ok()).collect()
    }

    fn with(window: Window) -> Options {
        Options { per_second: 2, window, ..Options::default() }
    }

    #[test]
    fn a_fixed_second_lets_twice_the_rate_through_across_its_edge() {
        let mut meter = Meter::default();
        let passed = passed(&with(Window::Fixed), &mut meter, &[998, 999, 999, 1000, 1001, 1999]);
        assert_eq!(passed, [true, true, false, true, true, false]);
        assert_eq!(meter.most_in_one_second, 6 - 1, "998 is just a second before 1998 and out");
    }

    #[test]
    fn a_sliding_second_opens_a_whole_second_after_the_call() {
        let mut meter = Meter::default();
        let passed = passed(&with(Window::Sliding), &mut meter, &[0, 500, 999, 1000, 1499, 1500]);
        assert_eq!(passed, [true, true, false, true, false, true]);
    }

    #[test]
    fn refused_calls_keep_a_sliding_second_shut_when_they_count() {
        let options = Options { count_refused: true, ..with(Window::Sliding) };
        let passed = passed(&options, &mut Meter::default(), &[0, 1, 900, 1001, 1899, 2900]);
        assert_eq!(passed, [true, true, false, true, false, true]);
    }

    #[test]
    fn a_bucket_starts_full_and_refills_evenly() {
        let mut meter = Meter::default();
        let times = [0, 0, 0, 499, 500, 999, 1000, 9000, 9000, 9000];
        let passed = passed(&with(Window::Bucket), &mut meter, &times);
        let expected = [true, true, false, false, true, false, true, true, true, false];
        assert_eq!(passed, expected);
    }

    #[test]
    fn the_day_counts_every_arrival_and_turns_at_midnight() {
        let options = Options { per_day: 3, per_second: 1, ..Options::default() };
        let mut meter = Meter::default();
        let midnight = Unix::from_secs(20_001 * DAY_SECS);
        let at = |before: u64| Now {
            mono: Mono::new(Duration::from_secs(10_000 - before)),
            unix: midnight.minus(Duration::from_secs(before)),
        };
        assert_eq!(meter.arrive(&options, at(10)), Ok(()));
        assert_eq!(meter.arrive(&options, at(10)), Err(Limited::Throttled));
        assert_eq!(meter.arrive(&options, at(5)), Ok(()));
        assert_eq!(meter.arrive(&options, at(1)), Err(Limited::QuotaExceeded));
        assert_eq!(meter.arrive(&options, at(0)), Ok(()));
        assert_eq!(meter.days, BTreeMap::from([(20_000, 4), (20_001, 1)]));
    }

    #[test]
    fn the_day_can_turn_at_another_hour() {
        let options = Options { day_reset: Duration::from_hours(1), ..Options::default() };
        assert_eq!(day_of(&options, Unix::from_secs(DAY_SECS)), 0);
        assert_eq!(day_of(&options, Unix::from_secs(DAY_SECS + 3_600)), 1);
    }
}
