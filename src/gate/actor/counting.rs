//! What the gate's task has the store do: count, uncount, and say whose turn it is among several
//! instances. Each is a task of its own, whose answer is a message.

use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};

use super::{Actor, Message};
use crate::engine::Day;
use crate::engine::budget::{Claim, Claimed};
use crate::engine::turnstile::Ask;
use crate::store::StoreError;

/// The word of a task to the gate's, which is sent however the task ends: a question whose answer
/// never came would be the last.
struct Word {
    mailbox: mpsc::UnboundedSender<Message>,
    message: Option<Message>,
}

impl Word {
    /// Until there is an answer, the question has failed.
    const fn failed(mailbox: mpsc::UnboundedSender<Message>, message: Message) -> Self {
        Self { mailbox, message: Some(message) }
    }

    fn answer(mut self, message: Message) {
        self.message = Some(message);
    }
}

impl Drop for Word {
    fn drop(&mut self) {
        if let Some(message) = self.message.take() {
            let _ = self.mailbox.send(message);
        }
    }
}

impl Actor {
    pub(super) fn claim(&self, claim: Claim) {
        let Some(mailbox) = self.mailbox.upgrade() else { return };
        let (store, name, asked_day) = (self.store.clone(), self.name.clone(), claim.day);
        let word = Word::failed(mailbox, Message::Claimed { asked_day, answer: None });
        self.tracker.spawn(async move {
            match store.reserve(&name, claim.day, claim.want, claim.limit).await {
                Ok(count) => {
                    let (day, granted, total) = (count.day, count.granted, count.total);
                    let answer = Some(Claimed { day, granted, total });
                    word.answer(Message::Claimed { asked_day, answer });
                }
                Err(error) => {
                    warn!(api_key = %name, %error, "calls of the day could not be counted");
                }
            }
        });
    }

    /// Has the store uncount calls; failing that, the count stays too high, which is safe.
    pub(super) fn release(&self, day: Day, count: u32, done: Option<oneshot::Sender<()>>) {
        let (store, name) = (self.store.clone(), self.name.clone());
        self.tracker.spawn(async move {
            let result: Result<(), StoreError> = store.release(&name, day, count).await;
            if let Err(error) = result {
                debug!(api_key = %name, %error, count, "calls stay counted that did not leave");
            }
            if let Some(done) = done {
                let _ = done.send(());
            }
        });
    }

    /// Has the store uncount, or the turnstile told, what is left to be.
    pub(super) fn close(&mut self, reply: oneshot::Sender<()>) {
        if let Some(turnstile) = self.turnstile.clone() {
            let farewell = self.scheduler.farewell(self.clock.now());
            let name = self.name.clone();
            self.tracker.spawn(async move {
                if let Some(ask) = farewell
                    && let Err(error) = turnstile.ask(&name, &ask).await
                {
                    warn!(api_key = %name, %error, "the last calls could not be told to the store");
                }
                let _ = reply.send(());
            });
            return;
        }
        match self.scheduler.surrender() {
            (_, 0) => drop(reply.send(())),
            (day, count) => self.release(day, count, Some(reply)),
        }
    }

    /// Asks the turnstile that several instances share.
    pub(super) fn ask(&self, ask: Box<Ask>) {
        let (Some(mailbox), Some(turnstile)) = (self.mailbox.upgrade(), self.turnstile.clone())
        else {
            return;
        };
        let name = self.name.clone();
        let word = Word::failed(mailbox, Message::Told(None));
        self.tracker.spawn(async move {
            match turnstile.ask(&name, &ask).await {
                Ok(told) => word.answer(Message::Told(Some(Box::new(told)))),
                Err(error) => {
                    debug!(api_key = %name, %error, "the store did not say whose turn it is");
                }
            }
        });
    }
}
