//! Work in a store that several instances share: what is done there besides, or in another way.
//!
//! A refresh begins with the lane, and with a look whether the grant is still what is known here;
//! only who holds the lane may believe what it reads about a refresh that was begun. Everything
//! else is as with a store of our own.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;
use tracing::debug;

use super::lane::{self, HeldLane, Turn};
use super::look::{Look, Ours, is_same, look, show_begun};
use super::work::{About, Begun, Bench, Done, guarded};
use crate::clock::Clock;
use crate::engine::{ApiKeyName, TenantName, Unix};
use crate::store::{Grant, Missing, Store, StoreError};

/// A grant that could not be read is looked at again after so long.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Least and longest time between two tries to get a lane that is waited for.
const LANE_RETRY_MIN: Duration = Duration::from_millis(20);
/// As above.
const LANE_RETRY_MAX: Duration = Duration::from_secs(1);

impl Bench {
    /// Takes the lane and journals that `ours` is about to be refreshed; `begun_at` is when that
    /// was last done here.
    pub(super) fn begin_shared(&self, about: About, ours: Grant, begun_at: Option<Unix>, at: Unix) {
        let (store, clock, tracker) =
            (Arc::clone(&self.store), self.clock.clone(), self.tracker.clone());
        let rest = self.rest;
        self.spawn(async move {
            let begun = match lane::take(&store, &clock, &tracker, &ours.api_key, rest).await {
                Err(error) => Begun::Failed(error),
                Ok(Turn::Busy(retry)) => Begun::Busy(retry),
                Ok(Turn::Held(lane)) => match begin(&store, &ours, begun_at, at).await {
                    Ok(Some(left_open)) => Begun::Done { lane: Some(lane), left_open },
                    Ok(None) | Err(StoreError::Conflict { .. }) => Begun::Overtaken,
                    Err(error @ StoreError::Corrupt { .. }) => Begun::Damaged(error),
                    Err(error) => Begun::Failed(error),
                },
            };
            Done::Begun(about, begun)
        });
    }

    /// Takes back the intent of `begun_at`, unless another instance has set its own there.
    pub(super) fn abort_shared(&self, about: About, begun_at: Option<Unix>) {
        let store = Arc::clone(&self.store);
        self.spawn(async move {
            let result = guarded("take back a refresh", abort(&store, &about, begun_at)).await;
            Done::Aborted(about, result)
        });
    }

    /// Reads a grant that may have been changed elsewhere, and restores it where the store has lost
    /// it.
    pub(super) fn reread_shared(&self, about: About, ours: Option<Ours>, missing: Missing) {
        let store = Arc::clone(&self.store);
        self.spawn(async move {
            let work = look(&store, &about.tenant, ours.as_ref(), missing);
            let result = guarded("read a grant", work).await;
            Done::Reread(about, result.map(|seen| seen.there))
        });
    }

    /// A request is out for a tenant that others have changed, or that the store may have lost.
    pub(super) fn show_begun(&self, ours: Ours, missing: Missing) {
        let store = Arc::clone(&self.store);
        self.tracker.spawn(async move {
            let work = show_begun(&store, &ours, missing);
            if let Err(error) = guarded("show that a refresh has begun", work).await {
                // the lane keeps others from it all the same
                debug!(tenant = %ours.grant.tenant, %error, "store failed");
            }
        });
    }

    /// Takes the lane for an errand.
    pub(super) fn take_lane(&self, api_key: ApiKeyName, id: u64) {
        let (store, clock, tracker) =
            (Arc::clone(&self.store), self.clock.clone(), self.tracker.clone());
        let rest = self.rest;
        self.spawn(async move {
            let turn = lane::take(&store, &clock, &tracker, &api_key, rest).await;
            Done::ErrandTurn { api_key, id, turn }
        });
    }

    /// What gives lanes, for a change that must not meet a refresh of another instance.
    pub(super) fn lanes(&self) -> Lanes {
        let (store, clock) = (Arc::clone(&self.store), self.clock.clone());
        Lanes { store, clock, tracker: self.tracker.clone(), rest: self.rest }
    }

    pub(super) fn look_again(&self, tenant: TenantName, look: Look) {
        let clock = self.clock.clone();
        self.spawn(async move {
            clock.sleep_until(clock.mono().plus(LOOK_AGAIN_AFTER)).await;
            Done::LookAgain(tenant, look)
        });
    }
}

/// Gives the lanes of API keys to those who wait.
pub(super) struct Lanes {
    store: Arc<dyn Store>,
    clock: Clock,
    tracker: TaskTracker,
    /// Between two token requests.
    rest: Duration,
}

impl Lanes {
    /// The lane of an API key, as soon as it is free; `None` when there is nobody to meet.
    pub(super) async fn wait(&self, api_key: &ApiKeyName) -> Result<Option<HeldLane>, StoreError> {
        let Self { store, clock, tracker, rest } = self;
        if !store.is_shared() {
            return Ok(None);
        }
        loop {
            match lane::take(store, clock, tracker, api_key, *rest).await? {
                Turn::Held(lane) => return Ok(Some(lane)),
                Turn::Busy(retry) => {
                    let retry = retry.clamp(LANE_RETRY_MIN, LANE_RETRY_MAX);
                    clock.sleep_until(clock.mono().plus(retry)).await;
                }
            }
        }
    }
}

/// Journals the intent; whether another instance's was there, or `None` when the grant is not what
/// is known here.
async fn begin(
    store: &Arc<dyn Store>,
    ours: &Grant,
    begun_at: Option<Unix>,
    at: Unix,
) -> Result<Option<bool>, StoreError> {
    let there = guarded("read a grant", store.grant(&ours.tenant)).await?;
    let is_known = |there: &Grant| {
        is_same(ours, there) && there.state == ours.state && there.paused == ours.paused
    };
    let Some(there) = there.filter(is_known) else { return Ok(None) };
    let left_open = there.refresh_begun_at.is_some() && !is_ours(&there, begun_at);
    let call = store.begin_refresh(&ours.tenant, ours.version, at);
    guarded("journal a refresh", call).await?;
    Ok(Some(left_open))
}

async fn abort(
    store: &Arc<dyn Store>,
    about: &About,
    begun_at: Option<Unix>,
) -> Result<(), StoreError> {
    match store.grant(&about.tenant).await? {
        Some(there) if is_ours(&there, begun_at) => {
            store.abort_refresh(&about.tenant, about.version).await
        }
        Some(_) | None => store.forget_refresh(&about.tenant, about.version).await,
    }
}

/// Whether the intent that is there was set here at `begun_at`. Stores keep milliseconds.
fn is_ours(there: &Grant, begun_at: Option<Unix>) -> bool {
    let millis = |at: Unix| at.since_epoch().as_millis();
    there.refresh_begun_at.map(millis) == begun_at.map(millis)
}
