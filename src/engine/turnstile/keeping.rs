//! The day's calls of instances that are by themselves: how many one may use, and what the others
//! keep for it in the store until it has told what it used.
//!
//! An instance reckons with what it was told when nothing was kept for it, less all that can have
//! left until the others keep its part; so what they keep, from what is left by then, is never less
//! than what it uses. Each part is used once and told once: without a new word of what is left an
//! instance has nothing more.

use std::time::Duration;

use super::roll::Roll;
use super::terms::{Absence, Absent, Kept, Report, Stamp, Told};
use crate::engine::rate::Rate;
use crate::engine::time::{Day, Mono};

/// The others keep an instance's part within this time after it last heard the store: until it may
/// be by itself, and they have read the roll and had an answer after that; or, where it told a
/// moment before that it was there, until that is old.
const KEPT_WITHIN: Duration = Duration::from_millis(9_000);
/// What was told longer before the loss is not reckoned with: the store looks back a while only for
/// what was kept meanwhile. A question that nobody waits for comes every five seconds.
const TOLD_WITHIN: Duration = Duration::from_secs(10);
/// Windows that are not full at either end of a time.
const ENDS: u64 = 2;

/// What an instance knows of calls that are kept.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    /// Those for whom calls are to be kept.
    absent: Vec<Absent>,
    /// Calls that are kept, as told last.
    kept: Vec<Kept>,
    /// What was used by itself and is still to be told.
    untold: Vec<(Day, u64)>,
    /// The question under way says that all is told.
    settling: bool,
    /// What was told when nothing was kept for this instance.
    settled: Option<Settled>,
}

/// When it was asked, for which day, and how many calls were used or kept.
#[derive(Clone, Copy, Debug)]
struct Settled {
    asked: Mono,
    day: Day,
    counted: u64,
}

/// Calls that other instances can have had since the last word of what is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unheard {
    /// What is left of the day, those taken off.
    pub(super) left: u64,
    /// How many they are.
    pub(super) calls: u64,
}

impl Keeping {
    /// The roll was read.
    pub(super) fn read(&mut self, roll: &Roll, rate: Rate) {
        let window = rate.window().as_micros().max(1);
        let absent = roll.members.iter().chain(&roll.gone).filter_map(|member| {
            let slots = super::roll::slots_in(&member.parts, rate.calls());
            if slots == 0 || member.untold.is_zero() {
                return None;
            }
            let windows = member.untold.as_micros().div_ceil(window);
            let windows = u64::try_from(windows).unwrap_or(u64::MAX).saturating_add(1);
            let unheard = Duration::from_micros(roll.at.0.saturating_sub(member.seen.0));
            Some(Absent {
                id: member.id.clone(),
                slots,
                calls_max: windows.saturating_mul(slots.into()),
                since: unheard.max(member.dead_after),
            })
        });
        self.absent = absent.collect();
    }

    /// Calls that were used by itself.
    pub(super) fn use_up(&mut self, used: impl Iterator<Item = (Day, u64)>) {
        self.untold.extend(used);
    }

    /// Whether there is something that it used and did not tell.
    pub(super) const fn has_to_tell(&self) -> bool {
        !self.untold.is_empty()
    }

    /// What a question says of calls that are kept. `knows` tells whether the roll is fresh,
    /// `until` until when it is true that this instance is not by itself, if that can be said.
    pub(super) fn compose(
        &mut self,
        knows: bool,
        until: Option<Stamp>,
        begun: Stamp,
        reports: &mut Vec<Report>,
    ) -> Absence {
        self.settling = until.is_some();
        if self.settling {
            let untold = self.untold.drain(..);
            reports.extend(untold.map(|(day, calls)| Report::Used { day, calls }));
        }
        let absent = if knows { self.absent.clone() } else { Vec::new() };
        Absence { absent, settles_until: until, kept: self.kept.clone(), begun }
    }

    /// The question was not answered: whether all is told is not known. What was used is told again
    /// with the other reports, and counts once.
    pub(super) const fn failed(&mut self) {
        self.settling = false;
    }

    /// A question of `asked` was answered; how many calls are kept for others.
    pub(super) fn told(&mut self, told: &Told, asked: Mono) -> u64 {
        self.kept.clone_from(&told.kept);
        let kept = told.kept.iter().map(|kept| kept.calls).fold(0, u64::saturating_add);
        if std::mem::take(&mut self.settling) && told.settled {
            let counted = told.used.saturating_add(kept);
            self.settled = Some(Settled { asked, day: told.day, counted });
        }
        kept
    }

    /// What is left to share when this instance begins to go on by itself, having last heard the
    /// store at `heard_at`; `None` when that is not known, as it was used before or is too old.
    pub(super) fn begin(
        &mut self,
        day: Day,
        per_day: u64,
        rate: (u32, Duration),
        heard_at: Mono,
    ) -> Option<Unheard> {
        self.settling = false;
        let settled = self
            .settled
            .take()
            .filter(|settled| settled.day == day && heard_at.since(settled.asked) <= TOLD_WITHIN)?;
        let (slots, window) = rate;
        let span = heard_at.plus(KEPT_WITHIN).since(settled.asked).saturating_add(window);
        let windows = span.as_micros().div_ceil(window.as_micros().max(1));
        let windows = u64::try_from(windows).unwrap_or(u64::MAX).saturating_add(ENDS);
        let calls = windows.saturating_mul(slots.into());
        let left = per_day.saturating_sub(settled.counted).saturating_sub(calls);
        Some(Unheard { left, calls })
    }
}
