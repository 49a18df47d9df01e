//! What a store in memory has for several instances in one process: token lanes and a history.
//!
//! It stands in for a store across machines where time is to be virtual. Lanes (`lanes`) are held
//! on the time of one clock, which all instances share. The history remembers of each thing when it
//! was last changed; it belongs to the state that it tells of, and goes back with it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::lanes::Lanes;
use crate::clock::Clock;
use crate::engine::ApiKeyName;
use crate::store::{
    Changed, Changes, Forgotten, LaneLease, LaneTerms, LaneTurn, LastTold, Revision, Since,
};

/// More than a store forgets at a time.
const LEAP: u64 = 100_000;

/// The last change of each thing, and what was lost.
#[derive(Clone, Default)]
pub(super) struct History {
    revision: u64,
    last: BTreeMap<Changed, u64>,
    /// Which run of the store wrote last.
    run: u64,
    /// Between these revisions, both not in it, are those that were lost.
    gaps: Vec<(u64, u64)>,
}

impl History {
    /// A run of the store that is not the one before goes on after a gap.
    fn begin(&mut self, run: u64) {
        if self.run != run {
            self.gaps.push((self.revision, self.revision + LEAP));
            (self.revision, self.run) = (self.revision + LEAP, run);
        }
    }

    pub(super) fn note(&mut self, changed: Changed, run: u64) {
        self.begin(run);
        self.revision += 1;
        self.last.insert(changed, self.revision);
    }

    /// What came after `since`. A gap that was not read past is a loss, also to somebody who stands
    /// before it: the last that it wrote itself may be what is lost.
    pub(super) fn after(&mut self, since: Option<Revision>, run: u64) -> Changes {
        self.begin(run);
        let revision = Revision(self.revision);
        let Some(Revision(known)) = since else {
            return Changes { revision, since: Since::Forgotten };
        };
        let unread = self.gaps.iter().filter(|(_, to)| known < *to).map(|(from, _)| *from).min();
        let kept = known.min(self.revision).min(unread.unwrap_or(known));
        let later = self.last.iter().filter(|(_, at)| **at > kept);
        let later = later.map(|(changed, _)| changed.clone()).collect();
        let is_lost = unread.is_some() || self.revision < known;
        let since = if is_lost { Since::Lost(later) } else { Since::Changed(later) };
        Changes { revision, since }
    }

    pub(super) fn last_told(&self, thing: &Changed) -> LastTold {
        LastTold { at: self.last.get(thing).copied().map(Revision), forgotten: Revision(0) }
    }
}

pub(super) struct Shared {
    clock: Clock,
    lanes: Mutex<Lanes>,
    told: Notify,
    /// Counts how often the store came back.
    run: AtomicU64,
}

impl Shared {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, lanes: Mutex::default(), told: Notify::new(), run: AtomicU64::new(0) }
    }

    pub(super) fn run(&self) -> u64 {
        self.run.load(Ordering::Relaxed)
    }

    /// Wakes those who wait for a change.
    pub(super) fn tell(&self) {
        self.told.notify_waiters();
    }

    pub(super) async fn told(&self) {
        self.told.notified().await;
    }

    pub(super) fn take_lane(&self, api_key: &ApiKeyName, terms: LaneTerms) -> LaneTurn {
        self.lanes().take(api_key, self.clock.mono(), terms)
    }

    pub(super) fn keep_lane(
        &self,
        api_key: &ApiKeyName,
        lease: LaneLease,
        hold: Duration,
        forgotten: Forgotten,
    ) -> bool {
        self.lanes().keep(api_key, lease, (self.clock.mono(), hold), forgotten)
    }

    pub(super) fn leave_lane(&self, api_key: &ApiKeyName, lease: LaneLease, rest: Duration) {
        self.lanes().leave(api_key, lease, self.clock.mono().plus(rest));
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod past {
    //! A store that comes back older than it was, as after a fail-over that lost the last writes.

    use std::sync::PoisonError;
    use std::sync::atomic::Ordering;

    use super::super::{MemoryStore, State};

    /// What a store held at a moment.
    pub(crate) struct Past(State);

    impl MemoryStore {
        pub(crate) fn now(&self) -> Past {
            Past(self.state.lock().unwrap_or_else(PoisonError::into_inner).clone())
        }

        pub(crate) fn come_back(&self, past: &Past) {
            *self.state.lock().unwrap_or_else(PoisonError::into_inner) = past.0.clone();
            if let Some(shared) = &self.shared {
                shared.run.fetch_add(1, Ordering::Relaxed);
                shared.lanes().forget();
            }
        }
    }
}
