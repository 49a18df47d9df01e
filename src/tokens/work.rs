//! Work that waits for others: store calls and token requests, each in a task of its own, their
//! results as messages.
//!
//! At most one runs for a tenant at a time, which the machine and the desk see to. A panic in one
//! becomes a failure of that one, so that no tenant is left waiting for a result that never comes.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::desk::Finished;
use super::endpoint::{KeyAuth, RefreshAnswer, TokenEndpoint};
use super::errand::ErrandNews;
use super::lane::{HeldLane, Turn};
use super::look::Look;
use super::record::Pending;
use crate::clock::Clock;
use crate::engine::{ApiKeyName, TenantName, Unix};
use crate::secret::Secret;
use crate::store::{Grant, Store, StoreError};

/// A token request that has not ended by then counts as lost. Longer than the endpoint's own
/// time-out, which knows better what happened.
const REFRESH_TIME_OUT: Duration = Duration::from_secs(70);

/// What a result is about.
#[derive(Clone, Debug)]
pub(super) struct About {
    pub(super) tenant: TenantName,
    pub(super) version: u64,
}

/// How the begin of a refresh ended.
pub(super) enum Begun {
    /// It is journalled. Where the lane is shared, it is held.
    Done {
        lane: Option<HeldLane>,
        /// Another instance had begun one of the same version and not ended it.
        left_open: bool,
    },
    /// Another instance has the lane.
    Busy(Duration),
    /// The store has something else than is known here.
    Overtaken,
    /// What the store has of the tenant cannot be understood.
    Damaged(StoreError),
    Failed(StoreError),
}

/// A result.
pub(super) enum Done {
    Begun(About, Begun),
    Refreshed(About, RefreshAnswer, Option<HeldLane>),
    Persisted(About, Result<u64, StoreError>),
    Aborted(About, Result<(), StoreError>),
    Reread(About, Result<Option<Box<Grant>>, StoreError>),
    Failed(About, Result<(), StoreError>),
    Job(TenantName, Finished),
    Errand {
        api_key: ApiKeyName,
        id: u64,
        news: ErrandNews,
    },
    /// Whether the shared lane is an errand's.
    ErrandTurn {
        api_key: ApiKeyName,
        id: u64,
        turn: Result<Turn, StoreError>,
    },
    /// It is time for another look at a tenant.
    LookAgain(TenantName, Look),
}

/// Where work is done.
pub(super) struct Bench {
    pub(super) store: Arc<dyn Store>,
    pub(super) endpoint: Arc<dyn TokenEndpoint>,
    pub(super) clock: Clock,
    pub(super) tracker: TaskTracker,
    /// What follows an answer of the token endpoint.
    pub(super) rest: Duration,
    /// Not bounded by itself: there is at most one result under way for each tenant.
    pub(super) results: mpsc::UnboundedSender<Done>,
}

impl Bench {
    /// Runs `work` on its own and sends its result.
    pub(super) fn spawn(&self, work: impl Future<Output = Done> + Send + 'static) {
        let results = self.results.clone();
        self.tracker.spawn(async move {
            // The task that reads may have ended; then nobody needs the result.
            let _ = results.send(work.await);
        });
    }

    pub(super) fn begin(&self, about: About, at: Unix) {
        let store = Arc::clone(&self.store);
        self.spawn(async move {
            let call = store.begin_refresh(&about.tenant, about.version, at);
            let begun = match guarded("journal a refresh", call).await {
                Ok(()) => Begun::Done { lane: None, left_open: false },
                Err(error) => Begun::Failed(error),
            };
            Done::Begun(about, begun)
        });
    }

    pub(super) fn abort(&self, about: About) {
        let store = Arc::clone(&self.store);
        self.spawn(async move {
            let call = store.abort_refresh(&about.tenant, about.version);
            let result = guarded("take back a refresh", call).await;
            Done::Aborted(about, result)
        });
    }

    pub(super) fn persist(&self, about: About, pending: Arc<Pending>) {
        let store = Arc::clone(&self.store);
        self.spawn(async move {
            let (tokens, at) = (&pending.tokens, pending.received_at);
            if !pending.journalled.load(Ordering::Relaxed) {
                let call = store.receive_refresh(&about.tenant, about.version, tokens, at);
                match guarded("journal new tokens", call).await {
                    Ok(()) => pending.journalled.store(true, Ordering::Relaxed),
                    // Tried again with the next write, if this one fails too.
                    Err(error) => warn!(tenant = %about.tenant, %error, "store failed"),
                }
            }
            let call = store.finish_refresh(&about.tenant, about.version, tokens, at);
            let result = guarded("store new tokens", call).await;
            Done::Persisted(about, result)
        });
    }

    pub(super) fn fail(&self, about: About, reason: Arc<str>) {
        let store = Arc::clone(&self.store);
        self.spawn(async move {
            let call = store.fail_grant(&about.tenant, about.version, &reason);
            let result = guarded("store that a grant is dead", call).await;
            Done::Failed(about, result)
        });
    }

    pub(super) fn reread(&self, about: About) {
        let store = Arc::clone(&self.store);
        self.spawn(async move {
            let result = guarded("read a grant", store.grant(&about.tenant)).await;
            Done::Reread(about, result.map(|grant| grant.map(Box::new)))
        });
    }

    /// Journals that the request is about to be sent, and sends it if the lane is still ours;
    /// `rest` follows an answer.
    pub(super) fn refresh(
        &self,
        about: About,
        (key, token): (Arc<KeyAuth>, Secret<String>),
        (mut lane, rest): (Option<HeldLane>, Duration),
        at: Unix,
    ) {
        let (store, endpoint) = (Arc::clone(&self.store), Arc::clone(&self.endpoint));
        self.spawn(async move {
            let call = store.post_refresh(&about.tenant, about.version, at);
            if let Err(error) = guarded("journal a token request", call).await {
                let detail = error.to_string();
                return Done::Refreshed(about, RefreshAnswer::NotJournalled { detail }, lane);
            }
            if let Some(lane) = &mut lane {
                if !lane.is_sure().await {
                    return Done::Refreshed(about, RefreshAnswer::LaneLost, None);
                }
                lane.sends(rest);
            }
            let request = match &lane {
                Some(lane) => endpoint.refresh_while(&key, &token, lane.may_leave()),
                None => endpoint.refresh(&key, &token),
            };
            let request = AssertUnwindSafe(request).catch_unwind();
            let answer = match tokio::time::timeout(REFRESH_TIME_OUT, request).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => RefreshAnswer::Lost { detail: "the token request panicked".into() },
                Err(_) => {
                    RefreshAnswer::Lost { detail: format!("no answer within {REFRESH_TIME_OUT:?}") }
                }
            };
            if let Some(lane) = &mut lane {
                lane.answered();
                if matches!(answer, RefreshAnswer::NotSent { .. } | RefreshAnswer::LaneLost) {
                    lane.sent_nothing();
                }
            }
            Done::Refreshed(about, answer, lane)
        });
    }
}

/// A store call whose panic is an error.
pub(super) async fn guarded<T, E: From<StoreError>>(
    attempt: &'static str,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let panicked = |_| {
        let cause = "the store panicked".into();
        Err(StoreError::Unavailable { attempt, cause }.into())
    };
    AssertUnwindSafe(call).catch_unwind().await.unwrap_or_else(panicked)
}
