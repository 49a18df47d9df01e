//! A look at a grant in a store that other instances change too, and what follows from it.
//!
//! The store is the truth, with one exception: it can come back older than it was, when a machine
//! of it failed. Then this instance may be the only place that still has a refresh token, so a
//! grant that is older than ours is not taken over but written again. Each write names the version
//! that it replaces; when several instances write the same, one does and the others find it done.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::warn;

use super::Tokens;
use super::actor::Request;
use super::lane::HeldLane;
use crate::engine::TenantName;
use crate::store::{Grant, GrantState, NewGrant, Store, StoreError};

/// Versions that a store can have lost at a time; more are not of one failure.
const LOST_MAX: u32 = 64;

/// What it means that the store has no grant of a tenant that is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Missing {
    /// Somebody has removed it.
    IsGone,
    /// The store has come back older: it has lost it.
    IsLost,
}

/// A look that somebody wants.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) missing: Missing,
    /// Dropped when the look has ended.
    pub(super) waiting: Vec<mpsc::Sender<()>>,
}

impl Look {
    /// One look for two that want one.
    pub(super) fn join(&mut self, other: Self) {
        self.missing = self.missing.max(other.missing);
        self.waiting.extend(other.waiting);
    }
}

impl Tokens {
    /// Other instances have changed these tenants: each is read again, and what is new is taken
    /// over when nothing is under way for it. Returns when those that were not known here are.
    pub async fn look(&self, tenants: Vec<TenantName>) {
        self.look_and_wait(|waiting| Request::Look { tenants, waiting }).await;
    }

    /// These are all grants of the store: each that is not as it is known here is looked at.
    /// Returns when those that were not known here are.
    pub async fn compare(&self, grants: Vec<Grant>, missing: Missing) {
        self.look_and_wait(|waiting| Request::Compare { grants, missing, waiting }).await;
    }

    /// A tenant that was made elsewhere a moment ago may not be known here yet.
    pub(super) async fn look_if_unknown(&self, tenant: &TenantName) {
        if self.is_shared && self.tenant(tenant.as_str()).is_none() {
            self.look(vec![tenant.clone()]).await;
        }
    }

    async fn look_and_wait(&self, request: impl FnOnce(mpsc::Sender<()>) -> Request) {
        let (waiting, mut ended) = mpsc::channel(1);
        if self.requests.send(request(waiting)).await.is_ok() {
            // nothing is ever sent: it ends when all looks have dropped their end
            let _: Option<()> = ended.recv().await;
        }
    }
}

/// What the store has, after what it has lost was written again. `ours` is what is known here. A
/// grant that must be put names no version that it replaces: that is done with the `lane`, so that
/// instances that all notice the same loss do it one after the other.
pub(super) async fn look(
    store: &Arc<dyn Store>,
    tenant: &TenantName,
    ours: Option<&Grant>,
    missing: Missing,
    lane: impl Future<Output = Option<HeldLane>> + Send,
) -> Result<Option<Box<Grant>>, StoreError> {
    let mut there = store.grant(tenant).await?;
    let mut _lane = None;
    let lost = ours.filter(|ours| has_lost(ours, there.as_ref(), missing));
    if lost.is_some_and(|ours| !is_older_of(ours, there.as_ref())) {
        _lane = lane.await;
        there = store.grant(tenant).await?;
    }
    if let Some(ours) = lost.filter(|ours| has_lost(ours, there.as_ref(), missing)) {
        let version = ours.version;
        warn!(%tenant, version, "the store has lost the newest of a grant; it is restored");
        restore(store, ours, there).await?;
        there = store.grant(tenant).await?;
    }
    Ok(there.map(|mut grant| {
        // whether somebody is at work on it is asked when the lane is ours
        grant.refresh_begun_at = None;
        Box::new(grant)
    }))
}

/// Whether the store has lost what was written last.
fn has_lost(ours: &Grant, there: Option<&Grant>, missing: Missing) -> bool {
    let Some(there) = there else { return missing == Missing::IsLost };
    let verdict_lost = || there.state == GrantState::Ready && ours.state != GrantState::Ready;
    there.version < ours.version || (is_same(ours, there) && verdict_lost())
}

/// Whether what is there was refreshed to what we have: then the same can be written again.
fn is_older_of(ours: &Grant, there: Option<&Grant>) -> bool {
    let same_key = there.is_some_and(|there| there.api_key == ours.api_key);
    same_key && ours.last_refreshed_at.is_some()
}

/// Whether both have the same tokens of the same API key.
pub(super) fn is_same(ours: &Grant, there: &Grant) -> bool {
    there.version == ours.version
        && there.api_key == ours.api_key
        && there.tokens.refresh == ours.tokens.refresh
}

/// Writes our grant over an older one, version by version, so that every other instance sees that
/// it is newer.
async fn restore(
    store: &Arc<dyn Store>,
    ours: &Grant,
    there: Option<Grant>,
) -> Result<(), StoreError> {
    let Grant { tenant, tokens, .. } = ours;
    let version = |grant: &Grant| (grant.api_key == ours.api_key).then_some(grant.version);
    let mut version = there.as_ref().and_then(version);
    for _ in 0..LOST_MAX {
        version = match (version, ours.last_refreshed_at) {
            (Some(version), _) if version >= ours.version => break,
            (Some(version), Some(at)) => {
                Some(store.finish_refresh(tenant, version, tokens, at).await?)
            }
            (None, _) | (Some(_), None) => {
                let (tenant, api_key) = (tenant.clone(), ours.api_key.clone());
                let (tokens, weight) = (tokens.clone(), Some(ours.weight));
                let new = NewGrant { tenant, api_key, tokens, weight };
                Some(store.put_grant(new).await?.1.version)
            }
        };
    }
    if there.is_none() && ours.paused {
        store.pause_tenant(tenant, true).await?;
    }
    match (&ours.state, version) {
        (GrantState::NeedsAuthorization { reason }, Some(version)) => {
            store.fail_grant(tenant, version, reason).await
        }
        (GrantState::NeedsAuthorization { .. }, None) | (GrantState::Ready, _) => Ok(()),
    }
}
