//! The right to send one call, as types that cannot be used twice or forgotten.
//!
//! | held | dropped means | moves on by |
//! | --- | --- | --- |
//! | [`Ticket`] in the queue | the place is free, nothing is spent | becoming a [`Permit`] |
//! | [`Permit`], slot granted | the slot and the count are given back | [`Permit::spend`] |
//! | [`Spent`], in flight | the outcome is unknown and stays charged | [`Spent::settle`] |

use tokio::sync::oneshot;

use super::KeyGate;
use super::actor::{Answer, Granted, Message, Waited};
use super::refusal::rejection;
use crate::engine::outcome::Outcome;
use crate::engine::scheduler::CallId;
use crate::engine::{Class, Mono};
use crate::rejection::{Reason, Rejection};

/// A place in the queue.
#[must_use = "a dropped ticket gives its place up"]
pub struct Ticket {
    key: KeyGate,
    id: CallId,
    class: Class,
    answer: oneshot::Receiver<Answer>,
    answered: bool,
}

/// A slot: one call may leave now.
#[must_use = "a dropped permit gives its slot back"]
pub struct Permit {
    key: KeyGate,
    id: CallId,
    waited: Waited,
    until: Mono,
    spent: bool,
}

/// A call that has left.
#[must_use = "what is spent must be settled, or its outcome counts as unknown"]
pub struct Spent {
    key: KeyGate,
    id: CallId,
    settled: bool,
}

impl Ticket {
    pub(super) fn new(
        key: KeyGate,
        id: CallId,
        class: Class,
        answer: oneshot::Receiver<Answer>,
    ) -> Self {
        Self { key, id, class, answer, answered: false }
    }

    /// The call, so that a repeat can take its place.
    #[must_use]
    pub const fn call(&self) -> CallId {
        self.id
    }

    /// The call's body is there: it may be granted from now on.
    pub fn prepared(&self) {
        self.key.send(Message::Prepared { id: self.id });
    }

    /// Waits for the slot.
    ///
    /// # Errors
    /// The refusal, when the call cannot have one.
    pub async fn granted(mut self) -> Result<Permit, Rejection> {
        let answer = (&mut self.answer).await;
        self.answered = true;
        match answer {
            Ok(Ok(Granted { waited, until })) => {
                self.key.metrics().queue_wait(self.class, waited.queue);
                Ok(Permit { key: self.key.clone(), id: self.id, waited, until, spent: false })
            }
            Ok(Err(why)) => Err(rejection(&why, self.key.name())),
            Err(_) => Err(gone()),
        }
    }

    /// The refusal, when there is one already: the answer to a call that cannot wait is not held
    /// back until its body has been read.
    pub async fn refused(&mut self) -> Rejection {
        match (&mut self.answer).await {
            // not before the body is there, and then nobody asks any more
            Ok(Ok(_)) => std::future::pending().await,
            Ok(Err(why)) => {
                self.answered = true;
                rejection(&why, self.key.name())
            }
            Err(_) => {
                self.answered = true;
                gone()
            }
        }
    }
}

/// The gate's task has ended.
fn gone() -> Rejection {
    Rejection::new(
        Reason::ShuttingDown,
        "the proxy no longer serves this API key; send the call again",
    )
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.answered {
            self.key.send(Message::Cancel { id: self.id });
        }
    }
}

impl Permit {
    /// How long the call waited.
    #[must_use]
    pub const fn waited(&self) -> Waited {
        self.waited
    }

    /// Whether the slot is too old to be spent: the call must ask for another. A slot that several
    /// instances share is, soon.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.until != Mono::NEVER && self.key.shared.clock.mono() > self.until
    }

    /// Spends the slot: the bytes leave now.
    pub fn spend(mut self) -> Spent {
        self.spent = true;
        let at = self.key.shared.clock.now();
        self.key.send(Message::Sent { id: self.id, at });
        Spent { key: self.key.clone(), id: self.id, settled: false }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.spent {
            self.key.send(Message::Cancel { id: self.id });
        }
    }
}

impl Spent {
    /// The upstream's transport had the whole request so long ago.
    pub fn acknowledged(&self, ago: std::time::Duration) {
        let now = self.key.shared.clock.now();
        let at = now.mono.minus(ago);
        self.key.send(Message::Acknowledged { id: self.id, at });
    }

    /// Tells what became of the call.
    pub fn settle(mut self, outcome: Outcome) {
        self.end(outcome);
    }

    fn end(&mut self, outcome: Outcome) {
        self.settled = true;
        let at = self.key.shared.clock.now();
        self.key.send(Message::Settle { id: self.id, outcome, at });
    }
}

impl Drop for Spent {
    fn drop(&mut self) {
        if !self.settled {
            self.end(Outcome::Lost);
        }
    }
}
