//! The days that an API key has counted.

use std::collections::BTreeMap;

use crate::engine::Day;
use crate::store::{DAYS_KEPT, DayCount, is_followed};

/// Takes up to `want` calls of `asked`, or of the day after it once that has begun.
pub(super) fn reserve(
    days: &mut BTreeMap<Day, u64>,
    asked: Day,
    want: u32,
    limit: u64,
) -> DayCount {
    let (near, far): (Vec<_>, Vec<_>) =
        days.range(asked..).partition(|(stored, _)| is_followed(**stored, asked));
    let (day, taken) = near.last().map_or((asked, 0), |(day, total)| (**day, **total));
    let taken = far.iter().fold(taken, |taken, (_, total)| taken.saturating_add(**total));
    let left = limit.saturating_sub(taken);
    let granted = u32::try_from(left).map_or(want, |left| want.min(left));
    let total = taken + u64::from(granted);
    if granted > 0 {
        // those that are too far ahead are a part of `total`
        days.retain(|kept, _| *kept <= day);
        days.insert(day, total);
        while days.len() > DAYS_KEPT {
            days.pop_first();
        }
    }
    DayCount { day, granted, total }
}
