//! The token lane of an API key as this instance holds it, where the store is shared.
//!
//! Whoever has a [`HeldLane`] may ask the token endpoint. It is kept for as long as it exists and
//! left when it is dropped, with the rest that is due after an answer; so it cannot be forgotten,
//! and one whose process dies ends by itself. An instance that was stopped for a while does not
//! know it: before anything is sent, [`HeldLane::is_sure`] says whether the lane is still its own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::endpoint::MayLeave;
use super::work::guarded;
use crate::clock::Clock;
use crate::engine::{ApiKeyName, Mono, Now};
use crate::store::{Forgotten, LaneLease, LaneTerms, LaneTurn, Store, StoreError};

/// How long the lane is held without a word from its holder: longer than a store that is slow takes
/// to keep it, and no longer than callers wait when the holder has died.
pub(super) const HOLD: Duration = Duration::from_secs(10);
/// How often it is kept meanwhile: one that fails is repeated before the hold is over.
const KEEP_EVERY: Duration = Duration::from_millis(3_300);
/// How soon that is tried again after it failed: when the store is back, whoever asks first leaves
/// the holder half a hold to say that it is still there.
const KEEP_AGAIN: Duration = Duration::from_secs(1);
/// With a word of the store that is not older, nobody asks it before sending; what is sent within
/// the other half of the hold arrives before anybody else has the lane.
const SURE_FOR: Duration = Duration::from_secs(5);
/// Nobody needs the lane longer: a token request takes 70 s at most, and the rest is time to store
/// what came. Tokens that cannot be stored must not stop all others for ever. While the store
/// cannot be reached nobody is stopped, and what came is stored right after.
const KEPT_MAX: Duration = Duration::from_mins(2);

/// What comes of asking for the lane.
pub(super) enum Turn {
    Held(HeldLane),
    /// Another instance has it; asking again may help after this time.
    Busy(Duration),
}

/// The lane, held. Dropping it leaves it.
#[must_use = "dropping the lane leaves it"]
pub(super) struct HeldLane {
    hold: Arc<Hold>,
    /// Takes the rest that is to follow.
    ending: Option<oneshot::Sender<Duration>>,
    /// What follows the request that was sent, if one was.
    rest: Duration,
    answered_at: Option<Mono>,
}

struct Hold {
    store: Arc<dyn Store>,
    clock: Clock,
    api_key: ApiKeyName,
    lease: LaneLease,
    state: Mutex<State>,
}

/// What is known of the lane here.
struct State {
    /// When the store was last asked and said that it is ours.
    kept_at: Now,
    /// A request is out: the lane is ours until its end is stored, also if the store forgets it.
    is_out: bool,
    /// It is not ours any more.
    is_lost: bool,
}

/// Takes the lane of `api_key` in a shared store; `rest` follows an answer.
pub(super) async fn take(
    store: &Arc<dyn Store>,
    clock: &Clock,
    tracker: &TaskTracker,
    api_key: &ApiKeyName,
    rest: Duration,
) -> Result<Turn, StoreError> {
    // what counts is the moment before the store was asked: its answer may be late
    let state = Mutex::new(State { kept_at: clock.now(), is_out: false, is_lost: false });
    let terms = LaneTerms { hold: HOLD, rest_max: rest };
    let turn = guarded("take the token lane", store.take_lane(api_key, terms)).await?;
    let lease = match turn {
        LaneTurn::Yours(lease) => lease,
        LaneTurn::Busy { retry } => return Ok(Turn::Busy(retry)),
    };
    let (store, clock, api_key) = (Arc::clone(store), clock.clone(), api_key.clone());
    let hold = Arc::new(Hold { store, clock, api_key, lease, state });
    let (ending, ended) = oneshot::channel();
    tracker.spawn(Arc::clone(&hold).keep(ended));
    Ok(Turn::Held(HeldLane { hold, ending: Some(ending), rest: Duration::ZERO, answered_at: None }))
}

impl HeldLane {
    /// Whether the lane is certainly still ours, by a word of the store that is fresh or by asking
    /// it once more: then a request is out from now on.
    pub(super) async fn is_sure(&self) -> bool {
        let hold = &self.hold;
        hold.set_out() || (hold.ask(Forgotten::IsLost).await.unwrap_or(false) && hold.set_out())
    }

    /// Whether the lane was certainly ours a moment ago, for whoever has to wait before sending.
    pub(super) fn may_leave(&self) -> MayLeave {
        let hold = Arc::clone(&self.hold);
        Arc::new(move || hold.is_fresh())
    }

    /// Something is about to be sent: `rest` follows.
    pub(super) fn sends(&mut self, rest: Duration) {
        self.rest = rest;
        self.hold.state().is_out = true;
    }

    /// Nothing was sent after all.
    pub(super) const fn sent_nothing(&mut self) {
        self.rest = Duration::ZERO;
    }

    /// The answer is here: the rest counts from now, also when the lane is left later.
    pub(super) fn answered(&mut self) {
        self.answered_at = Some(self.hold.clock.mono());
    }
}

impl Drop for HeldLane {
    fn drop(&mut self) {
        let now = self.hold.clock.mono();
        let since = self.answered_at.map_or(Duration::ZERO, |at| now.since(at));
        if let Some(ending) = self.ending.take() {
            // one that has been held too long has been left
            let _ = ending.send(self.rest.saturating_sub(since));
        }
    }
}

impl Hold {
    /// Keeps the lane until it is left, and goes on trying while the store fails.
    async fn keep(self: Arc<Self>, mut ended: oneshot::Receiver<Duration>) {
        let mut end = self.clock.mono().plus(KEPT_MAX);
        let mut next = self.clock.mono().plus(KEEP_EVERY);
        loop {
            let rest = tokio::select! {
                biased;
                rest = &mut ended => Some(rest.unwrap_or_default()),
                () = self.clock.sleep_until(next) => None,
            };
            if let Some(rest) = rest {
                return self.leave(rest).await;
            }
            let is_out = self.state().is_out;
            let kept = self.ask(if is_out { Forgotten::IsKept } else { Forgotten::IsLost }).await;
            let now = self.clock.mono();
            match kept {
                Ok(true) if now >= end => {
                    warn!(api_key = %self.api_key, "the token lane is left: held for too long");
                    return self.leave(Duration::ZERO).await;
                }
                Ok(true) => next = now.plus(KEEP_EVERY),
                Ok(false) if self.give_up(is_out) => {
                    warn!(api_key = %self.api_key, "the token lane is no longer ours");
                    return;
                }
                Ok(false) => next = now,
                Err(error) => {
                    debug!(api_key = %self.api_key, %error, "store failed");
                    next = now.plus(KEEP_AGAIN);
                    end = end.max(next.plus(HOLD));
                }
            }
        }
    }

    async fn ask(&self, forgotten: Forgotten) -> Result<bool, StoreError> {
        let asked_at = self.clock.now();
        let call = self.store.keep_lane(&self.api_key, self.lease, HOLD, forgotten);
        let kept = guarded("keep the token lane", call).await?;
        if kept {
            let mut state = self.state();
            if state.kept_at.mono < asked_at.mono {
                state.kept_at = asked_at;
            }
        }
        Ok(kept)
    }

    /// Nothing is sent any more, unless a request is out and was not when the store was asked.
    fn give_up(&self, was_out: bool) -> bool {
        let mut state = self.state();
        state.is_lost = state.is_out == was_out;
        state.is_lost
    }

    /// If the lane is certainly ours, a request is out from now on.
    fn set_out(&self) -> bool {
        let now = self.clock.now();
        let mut state = self.state();
        let is_sure = state.is_fresh(now);
        state.is_out |= is_sure;
        is_sure
    }

    fn is_fresh(&self) -> bool {
        let now = self.clock.now();
        self.state().is_fresh(now)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn leave(&self, rest: Duration) {
        let call = self.store.leave_lane(&self.api_key, self.lease, rest);
        if let Err(error) = guarded("leave the token lane", call).await {
            // it ends by itself
            debug!(api_key = %self.api_key, %error, "store failed");
        }
    }
}

impl State {
    /// By both clocks: the monotonic one stands still while a machine sleeps.
    fn is_fresh(&self, now: Now) -> bool {
        let kept_at = self.kept_at;
        let is_near = now.mono.since(kept_at.mono) < SURE_FOR;
        !self.is_lost && is_near && now.unix.since(kept_at.unix) < SURE_FOR
    }
}
