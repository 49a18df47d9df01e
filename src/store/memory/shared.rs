//! What a store in memory has for several instances in one process: token lanes and a history.
//!
//! It stands in for a store across machines where time is to be virtual. Lanes are held on the time
//! of one clock, which all instances share. The history remembers of each thing when it was last
//! changed; it belongs to the state that it tells of, and goes back with it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::Clock;
use crate::engine::{ApiKeyName, Mono};
use crate::store::{Changed, Changes, LaneLease, LaneTurn, Revision};

/// A lane that is held can be left at any moment, so it is worth asking for again after so long.
const HELD_RETRY: Duration = Duration::from_millis(200);

/// The last change of each thing.
#[derive(Clone, Default)]
pub(super) struct History {
    revision: u64,
    last: BTreeMap<Changed, u64>,
}

impl History {
    pub(super) fn note(&mut self, changed: Changed) {
        self.revision += 1;
        self.last.insert(changed, self.revision);
    }

    /// What came after `since`; nothing is known when that has never been here. A store of one
    /// instance has nothing to tell.
    pub(super) fn after(&self, since: Option<Revision>, is_shared: bool) -> Changes {
        if !is_shared {
            return Changes { revision: since.unwrap_or_default(), changed: Some(Vec::new()) };
        }
        let revision = Revision(self.revision);
        let since = since.filter(|since| *since <= revision);
        let later = |Revision(since): Revision| {
            let later = self.last.iter().filter(|(_, at)| **at > since);
            later.map(|(changed, _)| changed.clone()).collect()
        };
        Changes { revision, changed: since.map(later) }
    }
}

/// A lane: the number of its last lease, and until when it is held or rests.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    fence: u64,
    /// `None` when it has been left.
    until: Option<Mono>,
    rest_until: Mono,
}

impl Held {
    fn is_held_by(&self, lease: LaneLease, now: Mono) -> bool {
        self.fence == lease.fence && self.until.is_some_and(|until| now < until)
    }
}

pub(super) struct Shared {
    clock: Clock,
    lanes: Mutex<BTreeMap<ApiKeyName, Held>>,
    told: Notify,
}

impl Shared {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, lanes: Mutex::default(), told: Notify::new() }
    }

    /// Wakes those who wait for a change.
    pub(super) fn tell(&self) {
        self.told.notify_waiters();
    }

    pub(super) async fn told(&self) {
        self.told.notified().await;
    }

    pub(super) fn take_lane(&self, api_key: &ApiKeyName, hold: Duration) -> LaneTurn {
        let now = self.clock.mono();
        let mut lanes = self.lanes();
        let lane = lanes.entry(api_key.clone()).or_default();
        if let Some(until) = lane.until.filter(|until| now < *until) {
            return LaneTurn::Busy { retry: until.since(now).min(HELD_RETRY) };
        }
        if now < lane.rest_until {
            return LaneTurn::Busy { retry: lane.rest_until.since(now) };
        }
        lane.fence += 1;
        lane.until = Some(now.plus(hold));
        LaneTurn::Yours(LaneLease { fence: lane.fence })
    }

    pub(super) fn keep_lane(&self, api_key: &ApiKeyName, lease: LaneLease, hold: Duration) -> bool {
        let now = self.clock.mono();
        let mut lanes = self.lanes();
        let lane = lanes.get_mut(api_key).filter(|lane| lane.is_held_by(lease, now));
        lane.map(|lane| lane.until = Some(now.plus(hold))).is_some()
    }

    pub(super) fn leave_lane(&self, api_key: &ApiKeyName, lease: LaneLease, rest: Duration) {
        let now = self.clock.mono();
        let mut lanes = self.lanes();
        if let Some(lane) = lanes.get_mut(api_key).filter(|lane| lane.is_held_by(lease, now)) {
            lane.until = None;
            lane.rest_until = now.plus(rest);
        }
    }

    fn lanes(&self) -> MutexGuard<'_, BTreeMap<ApiKeyName, Held>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod past {
    //! A store that comes back older than it was, as after a fail-over that lost the last writes.

    use std::sync::PoisonError;

    use super::super::{MemoryStore, State};

    /// What a store held at a moment.
    pub(crate) struct Past(State);

    impl MemoryStore {
        pub(crate) fn now(&self) -> Past {
            Past(self.state.lock().unwrap_or_else(PoisonError::into_inner).clone())
        }

        pub(crate) fn come_back(&self, past: &Past) {
            *self.state.lock().unwrap_or_else(PoisonError::into_inner) = past.0.clone();
        }
    }
}
