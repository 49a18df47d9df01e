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
use crate::store::{Changed, Fate, Grant, GrantState, Missing, Revision, Store, StoreError};

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
        self.missing = self.missing.join(other.missing);
        self.waiting.extend(other.waiting);
    }
}

impl Tokens {
    /// Other instances have changed these tenants after the revision that is `known`: each is read
    /// again, and what is new is taken over when nothing is under way for it. Returns when those
    /// that were not known here are.
    pub async fn look(&self, tenants: Vec<TenantName>, known: Revision) {
        let known = Some(known);
        self.look_and_wait(|waiting| Request::Look { tenants, known, waiting }).await;
    }

    /// These are all grants of the store: each that is not as it is known here is looked at.
    /// `missing` says what that means, but not for those of `told`, of which the history tells
    /// after the revision that is `known`. Returns when those that were not known here are.
    pub async fn compare(
        &self,
        grants: Vec<Grant>,
        missing: Missing,
        (told, known): (BTreeSet<TenantName>, Revision),
    ) {
        let told = (told, known);
        self.look_and_wait(|waiting| Request::Compare { grants, missing, told, waiting }).await;
    }

    /// A tenant that was made elsewhere a moment ago may not be known here yet.
    pub(super) async fn look_if_unknown(&self, tenant: &TenantName) {
        if self.is_shared && self.tenant(tenant.as_str()).is_none() {
            let tenants = vec![tenant.clone()];
            self.look_and_wait(|waiting| Request::Look { tenants, known: None, waiting }).await;
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

/// What a look found.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) there: Option<Box<Grant>>,
    /// It is not there because somebody has removed it; of what is only gone nobody knows.
    pub(super) was_removed: bool,
}

/// What the store has, after what it has lost was written again. `ours` is what is known here.
pub(super) async fn look(
    store: &Arc<dyn Store>,
    tenant: &TenantName,
    ours: Option<&Ours>,
    missing: Missing,
) -> Result<Seen, StoreError> {
    let Some(ours) = ours else {
        let there = store.grant(tenant).await?;
        return Ok(Seen { there: there.map(not_begun), was_removed: false });
    };
    let (there, was_removed) = mend(store, ours, missing).await?;
    if was_removed || is_overtaken(ours, there.as_ref()) {
        store.forget_refresh(tenant, ours.grant.version).await?;
    }
    Ok(Seen { there: there.map(not_begun), was_removed })
}

/// Whether somebody is at work on a grant is asked when the lane is ours.
fn not_begun(grant: Grant) -> Box<Grant> {
    Box::new(Grant { refresh_begun_at: None, ..grant })
}

/// A look while a request is out, so that others see that its token may be spent: the store may
/// have lost that, and another instance may have written the grant again that does not know.
pub(super) async fn show_begun(
    store: &Arc<dyn Store>,
    ours: &Ours,
    missing: Missing,
) -> Result<(), StoreError> {
    let (there, _) = mend(store, ours, missing).await?;
    let there = there.filter(|there| is_same(&ours.grant, there));
    let begun_at = ours.grant.refresh_begun_at;
    match there.filter(|there| there.refresh_begun_at.is_none()).zip(begun_at) {
        Some((there, at)) => store.begin_refresh(&there.tenant, there.version, at).await,
        None => Ok(()),
    }
}

/// Writes again what the store has lost, with the newest tokens that are here. What it has then,
/// and whether it is not there because somebody has removed it.
async fn mend(
    store: &Arc<dyn Store>,
    ours: &Ours,
    missing: Missing,
) -> Result<(Option<Grant>, bool), StoreError> {
    let Grant { tenant, version, .. } = &ours.grant;
    let mut there = store.grant(tenant).await?;
    let judged = judge(store, &ours.grant, there.as_ref(), missing).await?;
    let newest = ours.newest();
    if judged.has_lost {
        let version = newest.version;
        warn!(%tenant, version, "the store has lost the newest of a grant; it is restored");
        restore(store, &newest, there, judged.pause_counts).await?;
        there = store.grant(tenant).await?;
    } else if judged.was_removed {
        // what was told of may be that another instance has restored it since we looked
        there = store.grant(tenant).await?;
    }
    if let Some(pending) = &ours.pending
        && there.as_ref().is_some_and(|there| is_same(&newest, there))
    {
        // they got there in another way than the usual one, to whose end this brings them
        store.finish_refresh(tenant, *version, &pending.tokens, pending.received_at).await?;
    }
    let was_removed = judged.was_removed && there.is_none();
    Ok((there, was_removed))
}

/// What follows from a grant as the store has it, or has not, beside ours.
struct Judged {
    /// The store has lost what was written last.
    has_lost: bool,
    /// Whether calls are held counts as it is known here.
    pause_counts: bool,
    was_removed: bool,
}

async fn judge(
    store: &Arc<dyn Store>,
    ours: &Grant,
    there: Option<&Grant>,
    missing: Missing,
) -> Result<Judged, StoreError> {
    let thing = Changed::Tenant(ours.tenant.clone());
    let Some(there) = there else {
        let fate = missing.fate(store.as_ref(), &thing).await?;
        let (has_lost, was_removed) = (fate == Fate::Lost, fate == Fate::Removed);
        return Ok(Judged { has_lost, pause_counts: true, was_removed });
    };
    let verdict_lost = there.state == GrantState::Ready && ours.state != GrantState::Ready;
    let pause_counts =
        there.paused != ours.paused && missing.counts_here(store.as_ref(), &thing).await?;
    let is_older = there.version < ours.version;
    let has_lost = is_older || (is_same(ours, there) && (verdict_lost || pause_counts));
    Ok(Judged { has_lost, pause_counts, was_removed: false })
}

/// Whether another instance has stored tokens in place of ours.
fn is_overtaken(ours: &Ours, there: Option<&Grant>) -> bool {
    there.is_some_and(|there| there.version > ours.grant.version && !is_same(&ours.newest(), there))
}

/// Whether both have the same tokens of the same API key.
pub(super) fn is_same(ours: &Grant, there: &Grant) -> bool {
    there.version == ours.version
        && there.api_key == ours.api_key
        && there.tokens.refresh == ours.tokens.refresh
}

/// Writes our grant over an older one, or what is missing of the same; our hold too, if it counts.
async fn restore(
    store: &Arc<dyn Store>,
    ours: &Grant,
    there: Option<Grant>,
    pause_counts: bool,
) -> Result<(), StoreError> {
    // a hold is no part of a version: one that was told since counts
    let paused = there.as_ref().filter(|_| !pause_counts).map_or(ours.paused, |it| it.paused);
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
