//! What a store in memory has for several instances in one process: token lanes and a history.
//!
//! It stands in for a store across machines where time is to be virtual. Lanes are held on the time
//! of one clock, which all instances share. The history remembers of each thing when it was last
//! changed; it belongs to the state that it tells of, and goes back with it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::Clock;
use crate::engine::{ApiKeyName, Mono};
use crate::store::{Changed, Changes, LaneLease, LaneTerms, LaneTurn, Revision, Since};

/// More than a store forgets at a time.
const LEAP: u64 = 100_000;
/// A lane that is held can be left at any moment, so it is worth asking for again after so long.
const HELD_RETRY: Duration = Duration::from_millis(200);

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
    pub(super) fn note(&mut self, changed: Changed, run: u64) {
        if self.run != run {
            self.gaps.push((self.revision, self.revision + LEAP));
            (self.revision, self.run) = (self.revision + LEAP, run);
        }
        self.revision += 1;
        self.last.insert(changed, self.revision);
    }

    /// What came after `since`. A store of one instance has nothing to tell.
    pub(super) fn after(&self, since: Option<Revision>, is_shared: bool) -> Changes {
        if !is_shared {
            let since_then = Since::Changed(Vec::new());
            return Changes { revision: since.unwrap_or_default(), since: since_then };
        }
        let revision = Revision(self.revision);
        let Some(Revision(known)) = since else {
            return Changes { revision, since: Since::Forgotten };
        };
        let within = |(from, to): &&(u64, u64)| *from < known && known < *to;
        let kept = self.gaps.iter().filter(within).map(|(from, _)| *from);
        let kept = kept.fold(known.min(self.revision), u64::min);
        let later = self.last.iter().filter(|(_, at)| **at > kept);
        let later = later.map(|(changed, _)| changed.clone()).collect();
        let since = if kept < known { Since::Lost(later) } else { Since::Changed(later) };
        Changes { revision, since }
    }

    pub(super) fn tells_of(&self, thing: &Changed) -> bool {
        self.last.contains_key(thing)
    }
}

/// A lane: the number of its last lease, and until when it is held or rests. The rules are those of
/// `redis/lane.lua`.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    fence: u64,
    /// `None` when it has been left.
    until: Option<Mono>,
    /// The lease ran out, and its holder has this long to come back.
    graced: bool,
    rest_until: Mono,
}

impl Held {
    fn take(&mut self, now: Mono, LaneTerms { hold, .. }: LaneTerms) -> LaneTurn {
        if let Some(until) = self.until.filter(|until| now < *until) {
            return LaneTurn::Busy { retry: until.since(now).min(HELD_RETRY) };
        }
        if self.until.is_some() && !self.graced {
            (self.until, self.graced) = (Some(now.plus(hold / 2)), true);
            return LaneTurn::Busy { retry: HELD_RETRY.min(hold / 2) };
        }
        if now < self.rest_until {
            return LaneTurn::Busy { retry: self.rest_until.since(now) };
        }
        self.fence += 1;
        (self.until, self.graced) = (Some(now.plus(hold)), false);
        LaneTurn::Yours(LaneLease { fence: self.fence })
    }

    fn keep(&mut self, lease: LaneLease, now: Mono, hold: Duration) -> bool {
        let is_held = self.fence == lease.fence && self.until.is_some();
        if is_held {
            (self.until, self.graced) = (Some(now.plus(hold)), false);
        }
        is_held
    }

    fn leave(&mut self, lease: LaneLease, now: Mono, rest: Duration) {
        if self.fence == lease.fence {
            self.until = None;
            self.rest_until = self.rest_until.max(now.plus(rest));
        }
    }
}

pub(super) struct Shared {
    clock: Clock,
    lanes: Mutex<BTreeMap<ApiKeyName, Held>>,
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
        let now = self.clock.mono();
        self.lanes().entry(api_key.clone()).or_default().take(now, terms)
    }

    pub(super) fn keep_lane(&self, api_key: &ApiKeyName, lease: LaneLease, hold: Duration) -> bool {
        let now = self.clock.mono();
        self.lanes().get_mut(api_key).is_some_and(|lane| lane.keep(lease, now, hold))
    }

    pub(super) fn leave_lane(&self, api_key: &ApiKeyName, lease: LaneLease, rest: Duration) {
        let now = self.clock.mono();
        if let Some(lane) = self.lanes().get_mut(api_key) {
            lane.leave(lease, now, rest);
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
            }
        }
    }
}
