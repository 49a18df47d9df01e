//! The lane of an API key: one token request at a time, a rest after each answer, and back-off in
//! trouble.
//!
//! A lane knows who of its tenants wants something and when it may ask next; who goes first is
//! decided in the keeper by the tenants' ranks. The rest counts from the *answer*, so that two
//! requests are never nearer together at the upstream than the interval, whatever the network does.
//! Where several instances share the lane, the store says whose it is; one that finds it occupied
//! waits a little and looks anew who is most urgent.

use std::collections::BTreeSet;
use std::time::Duration;

use super::terms::Cause;
use crate::engine::chance::Chance;
use crate::engine::{Mono, TenantName};

/// First and longest wait after failures; doubling in between.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_mins(1);

/// Least and longest wait for a lane that another instance has: a store that answers at once is not
/// asked without end, and a lane that is left early is not left idle for long.
const OCCUPIED_MIN: Duration = Duration::from_millis(20);
const OCCUPIED_MAX: Duration = Duration::from_secs(1);

/// How long a token request is thought to take before one was made.
const EXCHANGE_ASSUMED: Duration = Duration::from_millis(300);
/// A new one counts for at least one in so many: few enough to follow a change within a minute,
/// enough that single slow answers do not move the estimate of a long queue.
const MEASURED_MAX: u32 = 32;

/// The wait after `failures` in a row: doubling, less up to a tenth so that lanes do not march in
/// step.
pub(super) fn backoff(failures: u32, chance: &mut Chance) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let whole = BACKOFF_FIRST.saturating_mul(2_u32.saturating_pow(doublings)).min(BACKOFF_MAX);
    whole.saturating_sub(chance.part_of(whole.checked_div(10).unwrap_or_default()))
}

/// A lane that fails.
#[derive(Clone, Copy, Debug)]
pub(super) struct LaneTrouble {
    failures: u32,
    retry_at: Mono,
    pub(super) cause: Cause,
}

/// One API key's lane.
#[derive(Debug)]
pub(super) struct Lane {
    /// Whether the API key is configured; without it nothing is asked.
    pub(super) configured: bool,
    /// All tenants of the API key.
    pub(super) tenants: BTreeSet<TenantName>,
    /// Those that want, or may come to want, a refresh.
    pub(super) wanting: BTreeSet<TenantName>,
    /// Who holds the lane: from journalling the intent to the answer.
    pub(super) busy: Option<TenantName>,
    /// Errands that wait, by how long they may.
    pub(super) errands: BTreeSet<(Mono, u64)>,
    /// The errand that holds the lane, and how long it may wait.
    pub(super) errand: Option<(Mono, u64)>,
    /// Since when it is held.
    taken_at: Mono,
    /// How long it is held for one request, the mean of the last few dozen.
    exchange: Duration,
    /// Answers that are in the mean.
    measured: u32,
    /// A look through `wanting` found nobody, and nothing has changed since.
    pub(super) exhausted: bool,
    /// The readiness of its tenants may have changed with it.
    stale: bool,
    not_before: Mono,
    trouble: Option<LaneTrouble>,
}

impl Lane {
    /// A lane that may ask from `not_before` on.
    pub(super) const fn new(configured: bool, not_before: Mono) -> Self {
        Self {
            configured,
            tenants: BTreeSet::new(),
            wanting: BTreeSet::new(),
            busy: None,
            errands: BTreeSet::new(),
            errand: None,
            taken_at: not_before,
            exchange: EXCHANGE_ASSUMED,
            measured: 0,
            exhausted: false,
            stale: false,
            not_before,
            trouble: None,
        }
    }

    pub(super) const fn trouble(&self) -> Option<&LaneTrouble> {
        self.trouble.as_ref()
    }

    /// The earliest moment of the next request.
    pub(super) fn gate(&self) -> Mono {
        self.trouble.map_or(self.not_before, |trouble| trouble.retry_at.max(self.not_before))
    }

    /// When a look for the next tenant is due; `None` while there is nothing to look for.
    pub(super) fn due(&self) -> Option<Mono> {
        let idle = self.busy.is_none() && self.errand.is_none() && self.configured;
        let wanted = !self.exhausted && !self.wanting.is_empty();
        (idle && (wanted || !self.errands.is_empty())).then(|| self.gate())
    }

    /// Notes whether a tenant wants something; its state may have changed.
    pub(super) fn note(&mut self, tenant: &TenantName, wants: bool) {
        self.exhausted = false;
        if !wants {
            self.wanting.remove(tenant);
        } else if !self.wanting.contains(tenant) {
            self.wanting.insert(tenant.clone());
        }
    }

    /// Gives the lane to a tenant.
    pub(super) fn take(&mut self, tenant: &TenantName, now: Mono) {
        self.busy = Some(tenant.clone());
        self.taken_at = now;
    }

    /// How long it takes until all who want something have had it; `None` when nobody does, or the
    /// API key is not configured.
    pub(super) fn done_in(&self, now: Mono, interval: Duration) -> Option<Duration> {
        let all = self.wanting.len().saturating_add(self.errands());
        let last = u32::try_from(all).ok()?.checked_sub(1)?;
        if !self.configured {
            return None;
        }
        let exchange = self.exchange;
        let first = match self.busy {
            Some(_) => exchange.saturating_sub(now.since(self.taken_at)),
            None => exchange.saturating_add(self.gate().since(now)),
        };
        let others = exchange.saturating_add(interval).saturating_mul(last);
        Some(first.saturating_add(others))
    }

    /// Frees the lane without a rest: nothing was asked.
    pub(super) fn release(&mut self) {
        self.busy = None;
        self.exhausted = false;
    }

    /// Frees the lane, which another instance has: it is worth asking for again after `retry`.
    pub(super) fn occupied(&mut self, retry: Duration, now: Mono) {
        self.release();
        let retry = retry.clamp(OCCUPIED_MIN, OCCUPIED_MAX);
        self.not_before = self.not_before.max(now.plus(retry));
    }

    /// Frees the lane after an answer, or after the end of the wait for one.
    pub(super) fn answered(&mut self, now: Mono, interval: Duration) {
        let took = now.since(self.taken_at);
        self.measured = self.measured.saturating_add(1).min(MEASURED_MAX);
        let part = |span: Duration| span.checked_div(self.measured).unwrap_or_default();
        let kept = self.exchange.saturating_sub(part(self.exchange));
        self.exchange = kept.saturating_add(part(took));
        self.release();
        self.not_before = now.plus(interval);
    }

    /// The endpoint works.
    pub(super) fn heal(&mut self) {
        self.stale |= self.trouble.is_some();
        self.trouble = None;
    }

    /// The endpoint, or the journal, failed.
    pub(super) fn fail(&mut self, cause: Cause, now: Mono, chance: &mut Chance) {
        let failures = self.trouble.map_or(0, |trouble| trouble.failures).saturating_add(1);
        let retry_at = now.plus(backoff(failures, chance));
        self.trouble = Some(LaneTrouble { failures, retry_at, cause });
        self.stale = true;
    }

    /// Whether its tenants must be looked at since the last time that this was asked.
    pub(super) fn take_stale(&mut self) -> bool {
        std::mem::take(&mut self.stale)
    }

    /// The next request need not wait longer than the first back-off: a lost answer is worth a
    /// prompt repeat, since a grace period of the upstream, if there is one, is short.
    pub(super) fn hurry(&mut self, now: Mono) {
        if let Some(trouble) = &mut self.trouble {
            trouble.retry_at = trouble.retry_at.min(now.plus(BACKOFF_FIRST));
        }
    }

    /// Tries from anew, keeping the rest after the last answer: the API key was changed.
    pub(super) fn reset(&mut self, configured: bool) {
        self.configured = configured;
        if !configured {
            self.errands.clear();
        }
        self.exhausted = false;
        self.trouble = None;
    }
}
