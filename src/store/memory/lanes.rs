//! Token lanes of a store in memory that several instances share.
//!
//! The rules are those of `redis/lane.lua`, whose head says why they are so; only the clock is one
//! that does not go back. Lanes are no part of the state that can come back older: a store that
//! does has forgotten them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::engine::{ApiKeyName, Mono};
use crate::store::{Forgotten, LaneLease, LaneTerms, LaneTurn};

/// A lane that is held can be left at any moment, so it is worth asking for again after so long.
const HELD_RETRY: Duration = Duration::from_millis(250);

/// All lanes.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    known: BTreeMap<ApiKeyName, Held>,
    /// The number of the last lease, which is remembered whatever is lost.
    last: u64,
}

/// A lane: the number of its last lease, and until when it is held or rests.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    fence: u64,
    /// `None` when it has been left.
    until: Option<Mono>,
    /// The lease ran out, and its holder has this long to come back.
    graced: bool,
    rest_until: Mono,
}

impl Lanes {
    pub(super) fn take(
        &mut self,
        api_key: &ApiKeyName,
        now: Mono,
        LaneTerms { hold, rest_max }: LaneTerms,
    ) -> LaneTurn {
        let rest_until = now.plus((hold / 2).max(rest_max));
        let unknown = || Held { rest_until, ..Held::default() };
        let lane = self.known.entry(api_key.clone()).or_insert_with(unknown);
        if let Some(until) = lane.until.filter(|until| now < *until) {
            return LaneTurn::Busy { retry: until.since(now).min(HELD_RETRY) };
        }
        if lane.until.is_some() && !lane.graced {
            (lane.until, lane.graced) = (Some(now.plus(hold / 2)), true);
            return LaneTurn::Busy { retry: HELD_RETRY.min(hold / 2) };
        }
        if now < lane.rest_until {
            return LaneTurn::Busy { retry: lane.rest_until.since(now) };
        }
        self.last += 1;
        (lane.fence, lane.until, lane.graced) = (self.last, Some(now.plus(hold)), false);
        LaneTurn::Yours(LaneLease { fence: lane.fence })
    }

    pub(super) fn keep(
        &mut self,
        api_key: &ApiKeyName,
        lease: LaneLease,
        (now, hold): (Mono, Duration),
        forgotten: Forgotten,
    ) -> bool {
        let known = self.known.get(api_key).copied().unwrap_or_default();
        let has_again = lease.fence > known.fence && forgotten == Forgotten::IsKept;
        let is_held = lease.fence == known.fence && known.until.is_some();
        if !has_again && !is_held {
            return false;
        }
        // of several that were forgotten the last one counts, which may not have said so yet
        let again_until = if has_again { now.plus(hold) } else { now };
        let rest_until = known.rest_until.max(again_until);
        let until = Some(now.plus(hold));
        let kept = Held { fence: lease.fence, until, graced: false, rest_until };
        self.known.insert(api_key.clone(), kept);
        true
    }

    pub(super) fn leave(&mut self, api_key: &ApiKeyName, lease: LaneLease, rest_until: Mono) {
        if let Some(lane) = self.known.get_mut(api_key).filter(|lane| lane.fence == lease.fence) {
            (lane.until, lane.graced) = (None, false);
            lane.rest_until = lane.rest_until.max(rest_until);
        }
    }

    /// The store has come back and knows of none.
    #[cfg(test)]
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }
}
