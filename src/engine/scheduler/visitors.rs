//! Tenants that nobody has connected: their callers bring a good token with each call.
//!
//! They share slots like any tenant while they have calls, and are forgotten when they have had
//! none for a while, so that made-up names fill no memory: at most so many are known beside those
//! with calls in the queue.

use std::time::Duration;

use super::{Now, Readiness, Scheduler};
use crate::engine::ids::TenantName;
use crate::engine::queue::TenantIx;
use crate::engine::time::Mono;

/// Visitors without waiting calls that are known at a time.
const VISITORS_MAX: usize = 4_096;
/// A visitor without calls for so long is forgotten.
const IDLE: Duration = Duration::from_mins(15);
/// Visitors looked at when one comes: more than one, so that those that are idle do not pile up.
const LOOKED_AT: usize = 4;

impl Scheduler {
    /// A call of this name is about to come, with a good token of its own.
    pub fn visit(&mut self, name: &TenantName, now: Now) {
        if self.tenants.ix(name).is_none() {
            self.forget_visitors(now, LOOKED_AT, VISITORS_MAX.saturating_sub(1));
            self.set_tenant(name, &Readiness::Ready, false, 1, now);
        }
        if let Some(ix) = self.tenants.ix(name) {
            self.seen(ix, now.mono);
        }
    }

    /// Forgets the visitors that have been idle for long; to be called now and then.
    pub fn forget_idle_visitors(&mut self, now: Now) {
        self.forget_visitors(now, self.visitors.len(), usize::MAX);
    }

    /// How many are known.
    #[must_use]
    pub fn visitors(&self) -> usize {
        self.visitors.len()
    }

    fn seen(&mut self, ix: TenantIx, now: Mono) {
        let Some(tenant) = self.tenants.find_mut(ix) else { return };
        if let Some(before) = tenant.visited.replace(now) {
            self.visitors.remove(&(before, ix));
        }
        self.visitors.insert((now, ix));
    }

    /// Forgets at most `looks` of those that were not seen for longest: the idle ones, and others
    /// while there are more than `most`.
    fn forget_visitors(&mut self, now: Now, looks: usize, most: usize) {
        for _ in 0..looks {
            let Some((seen, ix)) = self.visitors.first().copied() else { return };
            if now.mono.since(seen) < IDLE && self.visitors.len() <= most {
                return;
            }
            let Some(tenant) = self.tenants.find(ix) else {
                self.visitors.pop_first();
                continue;
            };
            if tenant.preparing > 0 || self.queue.waiting(ix).next().is_some() {
                self.seen(ix, now.mono);
                continue;
            }
            self.visitors.pop_first();
            let name = tenant.name.clone();
            self.remove_tenant(&name, now);
        }
    }
}
