//! When a day's calls will be used up, if callers go on as they did.
//!
//! The use of each quarter of an hour is averaged with a weight that falls from quarter to quarter,
//! and so is its deviation from that average (the estimator of RFC 6298 section 2, with one gain
//! for both). Calls that the day itself paces are left out of the question whether the day lasts,
//! since they yield; they do count for when it ends. The band is two deviations wide on each side.

use std::time::Duration;

use crate::engine::time::{Day, Unix};

/// The length of a quarter.
const QUARTER: Duration = Duration::from_secs(900);
/// A first quarter is measured over at least this long, so that a burst is no trend.
const MEASURED_MIN: Duration = Duration::from_secs(300);
/// A quarter counts for this part of the average.
const GAIN_PART: u64 = 4;
/// Deviations between the forecast and each edge of its band.
const BAND: u64 = 2;
/// Averages are in thousandths of a call.
const MILLI: u64 = 1_000;
/// After this many quarters without a call nothing of an average is left.
const QUARTERS_MAX: u64 = 96;

/// When a day will be used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// The likely moment; `None` when the day lasts until it turns.
    pub exhausted_at: Option<Unix>,
    /// The earliest and the latest likely moment, the latter `None` when it is past the turn of
    /// the day; `None` when the day lasts even at the earliest.
    pub between: Option<(Unix, Option<Unix>)>,
}

/// The use of one API key in the last quarters.
#[derive(Debug, Default)]
pub struct Forecast {
    /// Since when it is watched, then the start of the present quarter.
    quarter_from: Option<Unix>,
    day: Day,
    used: u64,
    paced: u64,
    all: Trend,
    unpaced: Trend,
}

/// Calls per quarter, in thousandths.
#[derive(Debug, Default)]
struct Trend {
    /// Of the present quarter.
    count: u64,
    /// Mean and deviation of the quarters before, if there was one.
    before: Option<(u64, u64)>,
}

impl Forecast {
    /// So many calls of `day` have left now, and so many paced ones since the start of the process.
    pub fn observe(&mut self, day: Day, used: u64, paced: u64, now: Unix) {
        let Some(from) = self.quarter_from else {
            (self.quarter_from, self.day, self.used, self.paced) = (Some(now), day, used, paced);
            return;
        };
        let quarters = quarter_of(now).saturating_sub(quarter_of(from)).min(QUARTERS_MAX);
        if quarters > 0 {
            let measured = quarter_start(from).plus(QUARTER).since(from);
            for trend in [&mut self.all, &mut self.unpaced] {
                trend.close(measured);
                (1..quarters).for_each(|_| trend.close(QUARTER));
            }
            self.quarter_from = Some(quarter_start(now));
        }
        let before = if day == self.day { self.used } else { 0 };
        let more = used.saturating_sub(before);
        let more_paced = paced.saturating_sub(self.paced);
        self.all.count = self.all.count.saturating_add(more.saturating_mul(MILLI));
        let more_unpaced = more.saturating_sub(more_paced);
        let count = self.unpaced.count.saturating_add(more_unpaced.saturating_mul(MILLI));
        self.unpaced.count = count;
        (self.day, self.used, self.paced) = (day, used, paced);
    }

    /// When `remaining` calls will be used up, if before `resets_at`.
    #[must_use]
    pub fn outlook(&self, remaining: u64, now: Unix, resets_at: Unix) -> Outlook {
        if remaining == 0 {
            return Outlook { exhausted_at: Some(now), between: Some((now, Some(now))) };
        }
        let Some(from) = self.quarter_from else { return Outlook::default() };
        let (all, all_off) = self.all.rate(now.since(from));
        let (unpaced, unpaced_off) = self.unpaced.rate(now.since(from));
        let used_up = |rate: u64| now.plus(time_for(remaining, rate));
        let lasts = |rate: u64| used_up(rate) >= resets_at;
        if lasts(unpaced.saturating_add(unpaced_off)) {
            return Outlook::default();
        }
        let late = unpaced.saturating_sub(unpaced_off);
        Outlook {
            exhausted_at: (!lasts(unpaced)).then(|| used_up(all)),
            between: Some((
                used_up(all.saturating_add(all_off)),
                (!lasts(late)).then(|| used_up(late)),
            )),
        }
    }
}

impl Trend {
    /// The present quarter is over; it was watched for `measured`.
    fn close(&mut self, measured: Duration) {
        let count = self.first_count(measured);
        self.count = 0;
        self.before = Some(match self.before {
            None => (count, count.div_euclid(2)),
            Some((mean, off)) => (toward(mean, count), toward(off, mean.abs_diff(count))),
        });
    }

    /// The count of the present quarter; the first is taken for a whole one.
    fn first_count(&self, measured: Duration) -> u64 {
        if self.before.is_some() {
            return self.count;
        }
        let measured = measured.clamp(MEASURED_MIN, QUARTER);
        scaled(self.count, QUARTER.as_secs(), measured.as_secs())
    }

    /// Calls per quarter, and how much more or less it may be.
    fn rate(&self, measured: Duration) -> (u64, u64) {
        let count = self.first_count(measured);
        let (mean, off) = match self.before {
            None => (count, count.div_euclid(2)),
            // a quarter that has seen more than others did is not waited for
            Some((mean, off)) => (mean.max(toward(mean, count)), off),
        };
        (mean, off.saturating_mul(BAND).saturating_add(MILLI))
    }
}

/// `from`, moved toward `to` by one gain.
fn toward(from: u64, to: u64) -> u64 {
    let kept = scaled(from, GAIN_PART.saturating_sub(1), GAIN_PART);
    kept.saturating_add(to.checked_div(GAIN_PART).unwrap_or_default())
}

fn scaled(number: u64, by: u64, of: u64) -> u64 {
    number.saturating_mul(by).checked_div(of).unwrap_or_default()
}

/// How long `calls` last at `rate` thousandths a quarter.
fn time_for(calls: u64, rate: u64) -> Duration {
    let ms = u128::from(calls)
        .saturating_mul(u128::from(MILLI))
        .saturating_mul(QUARTER.as_millis())
        .checked_div(u128::from(rate));
    ms.map_or(Duration::MAX, |ms| Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX)))
}

fn quarter_of(at: Unix) -> u64 {
    at.as_secs().checked_div(QUARTER.as_secs()).unwrap_or_default()
}

fn quarter_start(at: Unix) -> Unix {
    Unix::from_secs(quarter_of(at).saturating_mul(QUARTER.as_secs()))
}

#[cfg(test)]
mod tests;
