//! The day's part in the scheduler: which classes it holds, for how long, and whether it will last.
//!
//! The rules are in [`crate::engine::day`]; here they meet the budget that counts and the queue
//! that knows who waits. Whether a call is granted is decided in `advance` alone.

use std::time::Duration;

use super::{Command, Mono, News, Now, Outlook, Scheduler};
use crate::engine::day::Standing;
use crate::engine::queue::TenantIx;
use crate::engine::rate::Class;
use crate::engine::time::Day;

/// How often the forecast is compared with the turn of the day.
const FORECAST_EVERY: Duration = Duration::from_secs(60);
/// Turns that normal calls have while bulk has one, when both are paced.
const NORMAL_TURNS: u64 = 3;

/// What operators were last told of a day.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    day: Day,
    raised: bool,
    next_at: Mono,
}

impl Scheduler {
    /// Brings ration and forecast up to date.
    pub(super) fn look_at_day(&mut self, now: Now) {
        let used = self.budget.used();
        let standing = self.budget.is_counted().then(|| Standing {
            limit: self.budget.limit(),
            // what others are likely to use is not there to be shared out
            remaining: self
                .budget
                .limit()
                .saturating_sub(used)
                .saturating_sub(self.foreign.withheld()),
            left: self.budget.resets_at().since(now.unix),
        });
        self.ration.look(standing, now.mono);
        if standing.is_some() {
            self.forecast.observe(self.budget.day(), used, self.ration.paced(), now.unix);
            self.warn(now);
        }
    }

    /// When the day will be used up.
    pub(super) fn outlook(&self, now: Now) -> Outlook {
        let remaining = self.budget.remaining(now.mono);
        self.forecast.outlook(remaining, now.unix, self.budget.resets_at())
    }

    /// Tells operators when the forecast comes before the turn of the day, and when even the early
    /// edge of its band has left it again: an alarm at the edge does not flicker.
    fn warn(&mut self, now: Now) {
        let day = self.budget.day();
        if day == self.alarm.day && now.mono < self.alarm.next_at {
            return;
        }
        let raised = day == self.alarm.day && self.alarm.raised;
        let Outlook { exhausted_at, between } = self.outlook(now);
        let raise = if raised { between.is_some() } else { exhausted_at.is_some() };
        if raise != raised {
            self.commands.push_back(Command::Tell(News::Forecast { exhausted_at }));
        }
        self.alarm = Alarm { day, raised: raise, next_at: now.mono.plus(FORECAST_EVERY) };
    }

    /// The earliest moment at which the day lets a call go that could be taken; `None` when nobody
    /// waits for a turn.
    pub(super) fn opens_at(&mut self) -> Option<Mono> {
        let waiting = Class::ALL.into_iter().filter(|class| self.queue.is_ready(*class));
        waiting.map(|class| self.ration.opens_at(class)).min()
    }

    /// Whether all that is left of the day is kept for more urgent calls.
    pub(super) fn is_kept_from(&self, class: Class) -> bool {
        class != Class::Interactive && self.ration.is_kept()
    }

    /// How long the day would hold a new call of this tenant and class, as things stand.
    pub(super) fn day_wait(&self, ix: Option<TenantIx>, class: Class) -> Duration {
        if class == Class::Interactive {
            return Duration::ZERO;
        }
        let count = |calls: usize| u64::try_from(calls).unwrap_or(u64::MAX);
        let own = count(self.queue.ahead_in_class(ix, class)).saturating_add(1);
        let others = match class {
            Class::Bulk if self.ration.is_kept() => {
                count(self.queue.depth(Class::Normal)).min(own.saturating_mul(NORMAL_TURNS))
            }
            Class::Interactive | Class::Normal | Class::Bulk => 0,
        };
        self.ration.wait(class, own.saturating_add(others))
    }
}
