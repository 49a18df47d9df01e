//! What is refreshed before anybody waits for it, in the pauses of the lane.
//!
//! Three reasons: the access token of a tenant in use is about to end, a new grant has never been
//! tried, or a refresh token would die of disuse. Each tenant has its own moment inside the time
//! that is allowed, drawn from its name and version: the same after a restart, another one after
//! each refresh, so that tenants that came together do not stay together. Who waits goes first,
//! which is decided by rank and not here.

use std::time::Duration;

use super::tenant::Tenant;
use crate::engine::chance::Chance;
use crate::engine::{Now, TenantName, Unix};

/// A tenant counts as in use for so long after a call: one day, so that work that is done at the
/// same hour every day finds its token ready.
const ACTIVE_FOR: Duration = Duration::from_hours(24);
/// A refresh token that is not used for so long is dead (Constant Contact's support, "Refresh
/// tokens" of its developer documentation).
const REFRESH_TOKEN_LIFE: Duration = Duration::from_hours(180 * 24);
/// This long before its end somebody should know: time for a person to find the account's owner.
const AGEING_FOR: Duration = Duration::from_hours(30 * 24);
/// Longest life of an access token: one that ended then was issued, with its refresh token, at most
/// this long before.
const ACCESS_TOKEN_LIFE: Duration = Duration::from_hours(24);

/// An idle refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Idle {
    /// From here on it may be made.
    from: Unix,
    /// What would be lost, ends then: the earliest goes first.
    until: Unix,
    /// From here on nobody needs it any more.
    over: Option<Unix>,
}

/// What decides the moments of a tenant with this version (FNV-1a, 64 bits).
pub(super) fn lot(name: &TenantName, version: u64) -> Chance {
    let bytes = name.as_str().bytes().chain(version.to_le_bytes());
    Chance::new(bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    }))
}

impl Tenant {
    /// When an idle refresh next becomes due or needless, or the refresh token old.
    pub(super) fn idle_change(&self, now: Now) -> Option<Unix> {
        let idles = self.idles();
        let changes = idles.iter().flatten().flat_map(|idle| [Some(idle.from), idle.over]);
        let ageing = self.refresh_token_ends().map(|ends| ends.minus(AGEING_FOR));
        changes.chain([ageing]).flatten().filter(|at| *at > now.unix).min()
    }

    /// What would be lost ends then, when an idle refresh is due now.
    pub(super) fn idle_due(&self, now: Now) -> Option<Unix> {
        let due =
            |idle: &Idle| idle.from <= now.unix && idle.over.is_none_or(|over| now.unix < over);
        self.idles().into_iter().flatten().filter(due).map(|idle| idle.until).min()
    }

    /// When the refresh token dies if it is not used; `None` when its age is not known.
    pub(super) fn refresh_token_ends(&self) -> Option<Unix> {
        Some(self.refresh_token_used()?.plus(REFRESH_TOKEN_LIFE))
    }

    /// Whether the end of the refresh token is near, or past without a verdict.
    pub(super) fn is_ageing(&self, now: Now) -> bool {
        let ends = self.refresh_token_ends().filter(|_| self.verdict.is_none());
        ends.is_some_and(|ends| now.unix >= ends.minus(AGEING_FOR))
    }

    fn idles(&self) -> [Option<Idle>; 2] {
        // A token that may be spent is not used again unless somebody waits.
        if self.verdict.is_some() || self.doubt.is_exhausted() {
            return [None; 2];
        }
        [self.ahead(), self.kept_alive()]
    }

    /// Before the access token ends.
    fn ahead(&self) -> Option<Idle> {
        if self.ahead.is_zero() {
            return None;
        }
        let untried = self.last_refreshed_at.is_none();
        let Some(end) = self.expires_at else {
            // Whether a new grant works is better known now than when somebody waits.
            let now_or_never = Idle { from: Unix::default(), until: Unix::default(), over: None };
            return untried.then_some(now_or_never);
        };
        let span = self.ahead.saturating_sub(self.margin);
        let from = end.minus(self.margin.saturating_add(self.own_part_of(span)));
        let over = if untried { None } else { Some(self.last_used_at?.plus(ACTIVE_FOR)) };
        Some(Idle { from, until: end, over })
    }

    /// Before the refresh token dies.
    fn kept_alive(&self) -> Option<Idle> {
        if self.keep_alive_after.is_zero() {
            return None;
        }
        let Some(used) = self.refresh_token_used() else {
            // Of unknown age: it may be about to die.
            return Some(Idle { from: Unix::default(), until: Unix::default(), over: None });
        };
        let spread = self.keep_alive_after.checked_div(10).unwrap_or_default();
        let after = self.keep_alive_after.saturating_sub(self.own_part_of(spread));
        Some(Idle { from: used.plus(after), until: used.plus(REFRESH_TOKEN_LIFE), over: None })
    }

    /// When the refresh token was last used or issued, the earliest that it can have been.
    fn refresh_token_used(&self) -> Option<Unix> {
        self.last_refreshed_at.or_else(|| Some(self.expires_at?.minus(ACCESS_TOKEN_LIFE)))
    }

    fn own_part_of(&self, span: Duration) -> Duration {
        let mut lot = self.lot;
        lot.part_of(span)
    }
}
