//! A look at a grant in a store that other instances change too, and what follows from it.
//!
//! The store is the truth, with one exception: it can come back older than it was, or empty, when a
//! machine of it failed. Then this instance may be the only place that still has a refresh token,
//! so a grant that is older than ours is not taken over but written again, and so is one that is
//! missing though nobody has removed it. What is written again keeps its version and never takes
//! the place of the same or a later one: of several instances the one that knows the newest has the
//! last word.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::warn;

use super::Tokens;
use super::actor::Request;
use super::record::{Pending, Record};
use crate::engine::TenantName;
use crate::engine::token::TokenKeeper;
use crate::store::{Changed, Grant, GrantState, Missing, Store, StoreError};

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
    /// `missing` says what that means, but not for those of `told`, of which the history tells.
    /// Returns when those that were not known here are.
    pub async fn compare(&self, grants: Vec<Grant>, missing: Missing, told: BTreeSet<TenantName>) {
        self.look_and_wait(|waiting| Request::Compare { grants, missing, told, waiting }).await;
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

/// What is known here of a tenant that is looked at.
pub(super) struct Ours {
    /// Begun, if a request with these tokens is out.
    pub(super) grant: Grant,
    /// What came in their place and is not known to be stored.
    pub(super) pending: Option<Arc<Pending>>,
}

impl Ours {
    pub(super) fn of(record: &Record, keeper: &TokenKeeper) -> Self {
        let mut grant = record.grant.clone();
        let is_open = keeper.is_open(&grant.tenant);
        grant.refresh_begun_at = record.begun_at.or(grant.refresh_begun_at).filter(|_| is_open);
        Self { grant, pending: record.pending.clone() }
    }

    /// The grant with the newest tokens.
    fn newest(&self) -> Grant {
        let Some(pending) = &self.pending else { return self.grant.clone() };
        Grant {
            version: self.grant.version.saturating_add(1),
            tokens: pending.tokens.clone(),
            state: GrantState::Ready,
            refresh_begun_at: None,
            last_refreshed_at: Some(pending.received_at),
            ..self.grant.clone()
        }
    }
}

/// What the store has, after what it has lost was written again.
pub(super) async fn look(
    store: &Arc<dyn Store>,
    tenant: &TenantName,
    ours: Option<&Ours>,
    missing: Missing,
) -> Result<Option<Box<Grant>>, StoreError> {
    let there = match ours {
        Some(ours) => mend(store, ours, missing).await?,
        None => store.grant(tenant).await?,
    };
    if let Some(ours) = ours.filter(|ours| is_overtaken(ours, there.as_ref())) {
        store.forget_refresh(tenant, ours.grant.version).await?;
    }
    Ok(there.map(|mut grant| {
        // whether somebody is at work on it is asked when the lane is ours
        grant.refresh_begun_at = None;
        Box::new(grant)
    }))
}

/// A look while a request is out, so that others see that its token may be spent: the store may
/// have lost that, and another instance may have written the grant again that does not know.
pub(super) async fn show_begun(
    store: &Arc<dyn Store>,
    ours: &Ours,
    missing: Missing,
) -> Result<(), StoreError> {
    let there = mend(store, ours, missing).await?.filter(|there| is_same(&ours.grant, there));
    let begun_at = ours.grant.refresh_begun_at;
    match there.filter(|there| there.refresh_begun_at.is_none()).zip(begun_at) {
        Some((there, at)) => store.begin_refresh(&there.tenant, there.version, at).await,
        None => Ok(()),
    }
}

/// Writes again what the store has lost, with the newest tokens that are here.
async fn mend(
    store: &Arc<dyn Store>,
    ours: &Ours,
    missing: Missing,
) -> Result<Option<Grant>, StoreError> {
    let Grant { tenant, version, .. } = &ours.grant;
    let mut there = store.grant(tenant).await?;
    if has_lost(store, &ours.grant, there.as_ref(), missing).await? {
        let newest = ours.newest();
        let version = newest.version;
        warn!(%tenant, version, "the store has lost the newest of a grant; it is restored");
        restore(store, &newest, there, missing).await?;
        there = store.grant(tenant).await?;
    }
    let newest = ours.newest();
    if let Some(pending) = &ours.pending
        && there.as_ref().is_some_and(|there| is_same(&newest, there))
    {
        // they got there in another way than the usual one, to whose end this brings them
        store.finish_refresh(tenant, *version, &pending.tokens, pending.received_at).await?;
    }
    Ok(there)
}

/// Whether the store has lost what was written last.
async fn has_lost(
    store: &Arc<dyn Store>,
    ours: &Grant,
    there: Option<&Grant>,
    missing: Missing,
) -> Result<bool, StoreError> {
    let Some(there) = there else {
        return match missing {
            Missing::IsLost => Ok(true),
            Missing::IsGone => Ok(false),
            Missing::AsTold => Ok(!store.tells_of(&Changed::Tenant(ours.tenant.clone())).await?),
        };
    };
    let verdict_lost = there.state == GrantState::Ready && ours.state != GrantState::Ready;
    let pause_lost = missing == Missing::IsLost && there.paused != ours.paused;
    let is_older = there.version < ours.version;
    Ok(is_older || (is_same(ours, there) && (verdict_lost || pause_lost)))
}

/// Whether another instance has removed the tenant, or has stored tokens in place of ours.
fn is_overtaken(ours: &Ours, there: Option<&Grant>) -> bool {
    there.is_none_or(|there| there.version > ours.grant.version && !is_same(&ours.newest(), there))
}

/// Whether both have the same tokens of the same API key.
pub(super) fn is_same(ours: &Grant, there: &Grant) -> bool {
    there.version == ours.version
        && there.api_key == ours.api_key
        && there.tokens.refresh == ours.tokens.refresh
}

/// Writes our grant over an older one, or what is missing of the same.
async fn restore(
    store: &Arc<dyn Store>,
    ours: &Grant,
    there: Option<Grant>,
    missing: Missing,
) -> Result<(), StoreError> {
    let is_told = missing != Missing::IsLost;
    // a hold is no part of a version: one that was told since counts
    let paused = there.as_ref().filter(|_| is_told).map_or(ours.paused, |there| there.paused);
    let Some(there) = there.filter(|there| is_same(ours, there)) else {
        return store.restore_grant(&Grant { paused, ..ours.clone() }).await.map(drop);
    };
    if there.paused != paused {
        store.pause_tenant(&ours.tenant, paused).await?;
    }
    match &ours.state {
        GrantState::NeedsAuthorization { reason } if there.state == GrantState::Ready => {
            store.fail_grant(&ours.tenant, ours.version, reason).await
        }
        GrantState::NeedsAuthorization { .. } | GrantState::Ready => Ok(()),
    }
}
