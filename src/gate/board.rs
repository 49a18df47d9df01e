//! What the task of an API key writes up for everybody to read without asking it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::engine::{Rate, Unix};

/// What the owning task writes up for everybody to read.
#[derive(Debug, Default)]
pub(super) struct Board {
    day_left: AtomicU64,
    day_resets_at: AtomicU64,
    window: AtomicU64,
    calls: AtomicU64,
    day_limit: AtomicU64,
}

/// What an API key's callers are told of its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Calls per window.
    pub calls: u64,
    /// The window, in whole seconds, rounded up.
    pub window_secs: u64,
    /// Calls per day.
    pub day_limit: u64,
    /// Calls left in the day.
    pub day_left: u64,
    /// Seconds until the day turns.
    pub day_resets_secs: u64,
}

impl Board {
    pub(super) fn set_limits(&self, rate: Rate, per_day: u64) {
        let window = rate.window();
        let secs = window.as_secs() + u64::from(window.subsec_nanos() > 0);
        self.calls.store(u64::from(rate.calls()), Ordering::Relaxed);
        self.window.store(secs, Ordering::Relaxed);
        self.day_limit.store(per_day, Ordering::Relaxed);
    }

    pub(super) fn set_day(&self, left: u64, resets_at: Unix) {
        self.day_left.store(left, Ordering::Relaxed);
        self.day_resets_at.store(resets_at.as_secs(), Ordering::Relaxed);
    }

    /// What callers are told.
    pub(super) fn quota(&self, now: Unix) -> Quota {
        let resets_at = Unix::from_secs(self.day_resets_at.load(Ordering::Relaxed));
        let until = resets_at.since(now);
        Quota {
            calls: self.calls.load(Ordering::Relaxed),
            window_secs: self.window.load(Ordering::Relaxed),
            day_limit: self.day_limit.load(Ordering::Relaxed),
            day_left: self.day_left.load(Ordering::Relaxed),
            day_resets_secs: until.as_secs() + u64::from(until.subsec_nanos() > 0),
        }
    }
}
