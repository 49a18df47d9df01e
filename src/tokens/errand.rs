//! An errand: the lane of an API key, lent for one token request that is no refresh.
//!
//! Whoever holds one sends its request while it may ([`Errand::may_leave`]), says how that ended,
//! and may hand over a grant that came of it. While it is held no other token request of the API
//! key is sent, and a stop waits for it, so that tokens which were asked for are also stored.
//! Dropping it gives the lane back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::actor::Request;
use super::desk::Job;
use super::endpoint::{KeyAuth, MayLeave, RefreshAnswer};
use super::lane::HeldLane;
use super::work::Done;
use super::{PutError, TenantStatus, Tokens};
use crate::engine::token::{RefreshResult, TokenKeeper};
use crate::engine::{ApiKeyName, Mono, Now};
use crate::store::{NewGrant, Put};

/// The lane's turn was not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many token requests wait, the API key is not configured, or the proxy is stopping")]
pub struct NoTurn;

/// The lane of an API key, for one request.
#[must_use = "dropping an errand gives the lane back"]
pub struct Errand {
    id: u64,
    api_key: ApiKeyName,
    key: Arc<KeyAuth>,
    requests: mpsc::Sender<Request>,
    news: mpsc::UnboundedSender<Done>,
    answered: bool,
    /// The lane that is shared with other instances.
    lane: Option<HeldLane>,
}

/// What becomes of an errand.
#[derive(Debug)]
pub(super) enum ErrandNews {
    /// Its request has ended: the lane is free.
    Answered(RefreshResult, &'static str),
    /// It is over, and a stop need not wait for it.
    Over,
}

impl Tokens {
    /// Waits for the turn of a token request with `api_key`, which goes before those that can wait
    /// longer than until `deadline`. Dropping the future gives the place up.
    ///
    /// # Errors
    /// [`NoTurn`] when there will be none.
    pub async fn errand(&self, api_key: &ApiKeyName, deadline: Mono) -> Result<Errand, NoTurn> {
        let (reply, turn) = oneshot::channel();
        let request = Request::Errand { api_key: api_key.clone(), deadline, reply };
        self.requests.send(request).await.map_err(|_| NoTurn)?;
        turn.await.map_err(|_| NoTurn)
    }
}

impl Errand {
    /// How the API key authenticates.
    #[must_use]
    pub fn key(&self) -> &KeyAuth {
        &self.key
    }

    /// What says, when the request leaves, whether the lane is still this instance's. To be had
    /// right before sending: whoever was stopped since its turn may have lost the lane.
    ///
    /// # Errors
    /// [`RefreshAnswer::LaneLost`] when it may be another's by now: nothing may be sent.
    pub async fn may_leave(&self) -> Result<MayLeave, RefreshAnswer> {
        match &self.lane {
            Some(lane) if lane.is_sure().await => Ok(lane.may_leave()),
            Some(_) => Err(RefreshAnswer::LaneLost),
            None => Ok(Arc::new(|| true)),
        }
    }

    /// The request has ended so: the lane is free for the next one.
    pub fn answered(&mut self, answer: &RefreshAnswer) {
        self.ended(answer.result(), answer.outcome());
    }

    /// The request has ended with this for the lane, and this for the metrics.
    pub fn ended(&mut self, result: RefreshResult, outcome: &'static str) {
        if !std::mem::replace(&mut self.answered, true) {
            if let Some(mut lane) = self.lane.take() {
                lane.answered();
                if matches!(result, RefreshResult::NotSent | RefreshResult::LaneLost) {
                    lane.sent_nothing();
                }
            }
            self.tell(ErrandNews::Answered(result, outcome));
        }
    }

    /// Hands a grant over, as [`Tokens::put`] does; taken also while the keeper stops.
    ///
    /// # Errors
    /// [`PutError`] says what is wrong with the grant, or that it could not be stored.
    pub async fn put(&self, grant: NewGrant) -> Result<(Put, TenantStatus), PutError> {
        let (reply, answer) = oneshot::channel();
        let tenant = grant.tenant.clone();
        let request = Request::Deliver(tenant, Job::Put { grant: Box::new(grant), reply });
        self.requests.send(request).await.map_err(|_| PutError::Stopped)?;
        answer.await.unwrap_or(Err(PutError::Stopped))
    }

    fn tell(&self, news: ErrandNews) {
        // the keeper outlives its errands, but for a process that is cut off
        let _ = self.news.send(Done::Errand { api_key: self.api_key.clone(), id: self.id, news });
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        self.tell(ErrandNews::Over);
    }
}

/// The errands that the keeper's task knows.
#[derive(Default)]
pub(super) struct Errands {
    id_last: u64,
    waiting: BTreeMap<u64, oneshot::Sender<Errand>>,
    lent: BTreeSet<u64>,
}

impl Errands {
    /// Takes a wish; one that cannot be met is answered by dropping it.
    pub(super) fn take(
        &mut self,
        keeper: &mut TokenKeeper,
        api_key: &ApiKeyName,
        deadline: Mono,
        reply: oneshot::Sender<Errand>,
        now: Now,
    ) {
        self.waiting.retain(|_, waiting| !waiting.is_closed());
        self.id_last += 1;
        if keeper.errand(api_key, self.id_last, deadline, now) {
            self.waiting.insert(self.id_last, reply);
        }
    }

    /// Whether somebody still waits for the errand's turn.
    pub(super) fn is_wanted(&self, id: u64) -> bool {
        self.waiting.get(&id).is_some_and(|reply| !reply.is_closed())
    }

    /// It is the errand's turn, with the lane where that is shared; `false` when nobody wants it
    /// any more.
    pub(super) fn lend(
        &mut self,
        (id, api_key): (u64, &ApiKeyName),
        key: Option<&Arc<KeyAuth>>,
        requests: Option<mpsc::Sender<Request>>,
        news: mpsc::UnboundedSender<Done>,
        lane: Option<HeldLane>,
    ) -> bool {
        let reply = self.waiting.remove(&id).filter(|reply| !reply.is_closed());
        let (Some(reply), Some(key), Some(requests)) = (reply, key, requests) else {
            return false;
        };
        let (api_key, key) = (api_key.clone(), Arc::clone(key));
        self.lent.insert(id);
        // one that comes back because nobody took it ends as any other does
        drop(reply.send(Errand { id, api_key, key, requests, news, answered: false, lane }));
        true
    }

    pub(super) fn over(&mut self, id: u64) {
        self.lent.remove(&id);
    }

    /// Nothing new is begun: those that wait will have no turn.
    pub(super) fn end_waiting(&mut self) {
        self.waiting.clear();
    }

    pub(super) fn is_clear(&self) -> bool {
        self.lent.is_empty()
    }
}
