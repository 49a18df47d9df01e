//! One sending: from the spent permit to the head of the answer, with its outcome settled.
//!
//! Once bytes have left, the exchange is carried on to the head of the answer even when the caller
//! leaves, in a task of its own, so that what the upstream said of the limits is always learned.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use tokio_util::task::TaskTracker;

use super::answer::{AnswerBody, Patience};
use super::classify;
use crate::clock::Clock;
use crate::engine::Mono;
use crate::engine::outcome::{Health, Outcome};
use crate::gate::{KeyGate, Permit, Spent};
use crate::upstream::{Connection, OutBody, SendError, Watch};

/// So long after a request left, its acknowledgement is first looked for; then after twice as long.
/// The kernel says when it came, so looks may be few.
const LOOK_FIRST: Duration = Duration::from_millis(25);
/// A slot is free not much later, so that no look is made after this.
const LOOK_LAST: Duration = Duration::from_millis(800);

/// What came of a sending.
pub(super) enum Sent {
    /// An answer, and what it says about the limits.
    Answer { answer: Response<AnswerBody>, outcome: Outcome },
    /// Certainly nothing left; the body comes back.
    Unsent(OutBody),
    /// The connection broke before an answer.
    Broken(hyper::Error),
    /// No answer in time.
    TimedOut,
}

/// What a sending needs.
pub(super) struct Sending {
    pub(super) permit: Permit,
    pub(super) connection: Connection,
    pub(super) request: Request<OutBody>,
    pub(super) timeout: Duration,
    pub(super) key: KeyGate,
    pub(super) clock: Clock,
}

impl Sending {
    /// Sends; dropping the future after its first poll does not end the exchange.
    pub(super) fn start(self, tracker: &TaskTracker) -> Exchange {
        Exchange { running: Some(Box::pin(self.run())), tracker: tracker.clone() }
    }

    async fn run(self) -> Sent {
        let Self { permit, connection, request, timeout, key, clock } = self;
        if permit.is_stale() {
            return Sent::Unsent(request.into_body());
        }
        let watch = connection.watch(&request);
        let started = clock.mono();
        let spent = permit.spend();
        let lookout = Lookout { watch, spent: &spent, clock: &clock, started };
        let Some(reply) = lookout.wait(connection.send(request), timeout).await else {
            spent.settle(Outcome::Lost);
            return Sent::TimedOut;
        };
        let (mut answer, lease) = match reply {
            Ok(reply) => reply,
            Err(SendError::NotSent(request)) => {
                spent.settle(Outcome::NotSent);
                return Sent::Unsent(request.into_body());
            }
            Err(SendError::Lost(error)) => {
                spent.settle(Outcome::Lost);
                return Sent::Broken(error);
            }
        };
        key.metrics().upstream(answer.status().as_u16(), clock.mono().since(started));
        let read = classify::look(&mut answer).await;
        let outcome = classify::outcome(answer.status(), answer.headers(), read.as_deref());
        spent.settle(outcome);
        let answer = answer.map(|rest| AnswerBody::Upstream {
            read: read.filter(|read| !read.is_empty()),
            rest,
            lease: Some(lease),
            patience: Patience::new(timeout),
        });
        Sent::Answer { answer, outcome }
    }
}

/// Looks for the acknowledgement of a request while its answer is awaited.
struct Lookout<'a> {
    watch: Option<Watch>,
    spent: &'a Spent,
    clock: &'a Clock,
    started: Mono,
}

impl Lookout<'_> {
    /// The reply; `None` when it took longer than `timeout`. One timer serves all looks and the
    /// time-out, and no look is made for an upstream that is quick.
    async fn wait<R>(mut self, reply: impl Future<Output = R>, timeout: Duration) -> Option<R> {
        let mut reply = pin!(reply);
        let mut look = Some(LOOK_FIRST);
        loop {
            look = look.filter(|after| self.watch.is_some() && *after <= LOOK_LAST.min(timeout));
            let due = self.started.plus(look.unwrap_or(timeout));
            tokio::select! {
                biased;
                reply = &mut reply => return Some(reply),
                () = self.clock.sleep_until(due) => {}
            }
            let after = look?;
            if let Some(ago) = self.watch.as_ref().and_then(Watch::acknowledged) {
                self.spent.acknowledged(ago);
                self.watch = None;
            }
            look = Some(after.saturating_mul(2));
        }
    }
}

type Running = Pin<Box<dyn Future<Output = Sent> + Send>>;

/// A sending under way.
pub(super) struct Exchange {
    running: Option<Running>,
    tracker: TaskTracker,
}

impl Future for Exchange {
    type Output = Sent;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Sent> {
        let Some(running) = &mut self.running else { return Poll::Pending };
        let sent = std::task::ready!(running.as_mut().poll(cx));
        self.running = None;
        Poll::Ready(sent)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            self.tracker.spawn(running);
        }
    }
}

/// Whether the upstream says that it is not well; such answers of safe calls are worth a second
/// try.
pub(super) fn is_unwell(outcome: Outcome, status: http::StatusCode) -> bool {
    matches!(outcome, Outcome::Answered(Health::Error) | Outcome::Edge)
        && matches!(status.as_u16(), 502..=504)
}
