//! The task that owns the scheduler of one API key.
//!
//! It takes messages in batches, lets the scheduler decide, and carries its commands out. It never
//! waits for anything but its mailbox and the scheduler's next deadline: the store is asked in a
//! task of its own, whose answer is a message like any other.

mod counting;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::{Board, Demand, hold_reason};
use crate::clock::Clock;
use crate::engine::budget::Claimed;
use crate::engine::foreign::ForeignUse;
use crate::engine::outcome::Outcome;
use crate::engine::scheduler::{
    Arrival, CallId, CallTable, Command, Limits, News, Readiness, Refusal, Scheduler, Snapshot,
    TenantSnapshot,
};
use crate::engine::turnstile::{Roll, Told, Turn};
use crate::engine::{ApiKeyName, Day, Mono, Now, TenantName, Unix};
use crate::store::{SharedTurnstile, Store};
use crate::telemetry::events::rfc3339;
use crate::telemetry::{Event, Events, KeyMetrics, ThrottleScope};

/// Messages taken before commands are carried out, so that a full mailbox does not hold back
/// grants.
const BATCH_MAX: usize = 64;

/// The slot of a call, or why it was refused.
pub(super) type Answer = Result<Granted, Refusal>;

/// A slot for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Granted {
    pub(super) waited: Waited,
    /// The call must leave by then.
    pub(super) until: Mono,
}

/// How long a granted call waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waited {
    /// In the queue, for its turn.
    pub queue: Duration,
    /// For its tenant's token.
    pub token: Duration,
}

pub(super) enum Message {
    Enqueue {
        id: CallId,
        arrival: Arrival,
        reply: oneshot::Sender<Answer>,
    },
    Prepared {
        id: CallId,
    },
    Cancel {
        id: CallId,
    },
    Sent {
        id: CallId,
        at: Now,
    },
    Acknowledged {
        id: CallId,
        at: Mono,
    },
    Settle {
        id: CallId,
        outcome: Outcome,
        at: Now,
    },
    SetTenant {
        tenant: TenantName,
        readiness: Readiness,
        paused: bool,
        weight: u32,
    },
    RemoveTenant {
        tenant: TenantName,
    },
    Visit {
        tenant: TenantName,
    },
    ForgetIdleVisitors,
    TokenRefused {
        tenant: TenantName,
    },
    Forgive {
        tenant: TenantName,
    },
    Pause(bool),
    Reconfigure(Limits),
    Stop {
        serve_until: Mono,
    },
    /// The API key is gone from the configuration.
    Retire,
    Told(Option<Box<Told>>),
    Turn(Turn),
    Roll(Option<(Arc<Roll>, Mono)>),
    Claimed {
        asked_day: Day,
        answer: Option<Claimed>,
    },
    Snapshot(oneshot::Sender<Snapshot>),
    Tenant(TenantName, oneshot::Sender<Option<TenantSnapshot>>),
    Tenants(oneshot::Sender<Vec<TenantSnapshot>>),
    Close(oneshot::Sender<()>),
}

pub(super) struct Actor {
    pub(super) name: ApiKeyName,
    pub(super) scheduler: Scheduler,
    pub(super) clock: Clock,
    pub(super) store: Arc<dyn Store>,
    /// Where several instances share the slots.
    pub(super) turnstile: Option<Arc<dyn SharedTurnstile>>,
    pub(super) metrics: KeyMetrics,
    pub(super) events: Events,
    pub(super) demands: mpsc::UnboundedSender<Demand>,
    pub(super) tracker: TaskTracker,
    /// Weak, so that the task ends when no handle is left.
    pub(super) mailbox: mpsc::WeakUnboundedSender<Message>,
    pub(super) inbox: mpsc::UnboundedReceiver<Message>,
    pub(super) replies: CallTable<oneshot::Sender<Answer>>,
    pub(super) board: Arc<Board>,
    /// The API key is gone, which is not the end of the process.
    pub(super) retired: bool,
    /// Who wants to know how things stand before the store has said what of the day is used; `None`
    /// once it has been asked.
    pub(super) early: Option<Vec<oneshot::Sender<Snapshot>>>,
}

impl Actor {
    pub(super) async fn run(mut self) {
        let clock = self.clock.clone();
        let timer = clock.sleep_until(Mono::NEVER);
        tokio::pin!(timer);
        let mut set_to = Mono::NEVER;
        loop {
            self.carry_out();
            let due = self.scheduler.poll_timeout().unwrap_or(Mono::NEVER);
            if due != set_to {
                set_to = due;
                timer.set(clock.sleep_until(due));
            }
            tokio::select! {
                message = self.inbox.recv() => match message {
                    Some(message) => self.take_batch(message),
                    None => return,
                },
                () = &mut timer => {
                    set_to = Mono::default();
                    self.scheduler.handle_timeout(self.clock.now());
                }
            }
        }
    }

    fn take_batch(&mut self, first: Message) {
        self.take(first);
        for _ in 1..BATCH_MAX {
            match self.inbox.try_recv() {
                Ok(message) => self.take(message),
                Err(_) => return,
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Enqueue { id, arrival, reply } => {
                match self.scheduler.enqueue(id, &arrival, self.clock.now()) {
                    Ok(()) => drop(self.replies.insert(id, reply)),
                    Err(why) => drop(reply.send(Err(self.truly(why)))),
                }
            }
            Message::Prepared { id } => self.scheduler.prepared(id, self.clock.now()),
            Message::Cancel { id } => {
                self.replies.remove(&id);
                self.scheduler.cancel(id, self.clock.now());
            }
            Message::Sent { id, at } => self.scheduler.sent(id, at),
            Message::Acknowledged { id, at } => {
                self.scheduler.acknowledged(id, at, self.clock.now());
            }
            Message::Settle { id, outcome, at } => self.settle(id, outcome, at),
            Message::SetTenant { tenant, readiness, paused, weight } => {
                let now = self.clock.now();
                self.scheduler.set_tenant(&tenant, &readiness, paused, weight, now);
            }
            Message::RemoveTenant { tenant } => {
                self.scheduler.remove_tenant(&tenant, self.clock.now());
            }
            Message::Visit { tenant } => self.scheduler.visit(&tenant, self.clock.now()),
            Message::ForgetIdleVisitors => self.scheduler.forget_idle_visitors(self.clock.now()),
            Message::TokenRefused { tenant } => {
                self.scheduler.token_refused(&tenant, self.clock.now());
            }
            Message::Forgive { tenant } => self.scheduler.forgive(&tenant, self.clock.now()),
            Message::Pause(true) => self.scheduler.pause(),
            Message::Pause(false) => self.scheduler.resume(self.clock.now()),
            Message::Reconfigure(limits) => {
                self.board.set_limits(limits.rate, limits.per_day);
                self.scheduler.reconfigure(limits, self.clock.now());
            }
            Message::Stop { serve_until } => self.scheduler.stop(serve_until, self.clock.now()),
            Message::Retire => {
                self.retired = true;
                self.scheduler.stop(Mono::default(), self.clock.now());
            }
            Message::Claimed { asked_day, answer } => {
                self.scheduler.claimed(asked_day, answer, self.clock.now());
                self.answer_early();
            }
            Message::Told(told) => {
                self.scheduler.told(told.map(|told| *told), self.clock.now());
                self.answer_early();
            }
            Message::Roll(roll) => {
                let roll = roll.as_ref().map(|(roll, asked)| (&**roll, *asked));
                self.scheduler.read_roll(roll, self.clock.now());
            }
            Message::Turn(turn) => self.scheduler.turn(turn, self.clock.now()),
            Message::Snapshot(reply) => match &mut self.early {
                Some(early) => early.push(reply),
                None => self.show(reply),
            },
            Message::Tenant(name, reply) => {
                drop(reply.send(self.scheduler.tenant(&name, self.clock.now())));
            }
            Message::Tenants(reply) => {
                drop(reply.send(self.scheduler.tenant_snapshots(self.clock.now())));
            }
            Message::Close(reply) => {
                self.answer_early();
                self.close(reply);
            }
        }
    }

    fn show(&mut self, reply: oneshot::Sender<Snapshot>) {
        drop(reply.send(self.scheduler.snapshot(self.clock.now())));
    }

    fn answer_early(&mut self) {
        for reply in self.early.take().into_iter().flatten() {
            self.show(reply);
        }
    }

    fn settle(&mut self, id: CallId, outcome: Outcome, at: Now) {
        match outcome {
            Outcome::Throttled => {
                warn!(api_key = %self.name, "the upstream refused a call for its rate");
                self.publish_throttled(ThrottleScope::Second);
            }
            Outcome::QuotaExceeded => {
                warn!(api_key = %self.name, "the upstream says that the day is spent");
                self.metrics.throttled(ThrottleScope::Day);
                self.events.publish(Event::DaySpent { api_key: self.name.clone() });
            }
            Outcome::Edge => {
                warn!(api_key = %self.name, "an edge before the API refused a call: pausing");
                self.publish_throttled(ThrottleScope::Other);
            }
            Outcome::Capped => {
                warn!(
                    api_key = %self.name,
                    "the upstream refused a call for a limit that is not the key's"
                );
                self.publish_throttled(ThrottleScope::Other);
            }
            Outcome::Answered(_) | Outcome::Lost | Outcome::NotSent => {}
        }
        self.scheduler.settle(id, outcome, at);
    }

    fn publish_throttled(&self, scope: ThrottleScope) {
        self.metrics.throttled(scope);
        self.events.publish(Event::Throttled { api_key: self.name.clone(), scope });
    }

    fn carry_out(&mut self) {
        while let Some(command) = self.scheduler.poll_command() {
            match command {
                Command::Grant { call, waited, for_token, until } => {
                    let queue = waited.saturating_sub(for_token);
                    let waited = Waited { queue, token: for_token };
                    self.answer(call, Ok(Granted { waited, until }));
                }
                Command::Refuse { call, why } => self.answer(call, Err(why)),
                Command::Claim(claim) => self.claim(claim),
                Command::Ask(ask) => self.ask(ask),
                Command::Release { day, count } => self.release(day, count, None),
                Command::Demand { tenant, deadline } => {
                    let api_key = self.name.clone();
                    let _ = self.demands.send(Demand { api_key, tenant, deadline });
                }
                Command::Tell(news) => self.tell(news),
            }
        }
        let (left, resets_at) = self.scheduler.day(self.clock.now());
        self.board.set_day(left, resets_at);
        if self.replies.is_empty() && self.replies.capacity() > 1_024 {
            self.replies.shrink_to_fit();
        }
    }

    fn tell_forecast(&self, exhausted_at: Option<Unix>) {
        let api_key = self.name.clone();
        if let Some(at) = exhausted_at.map(rfc3339) {
            warn!(%api_key, exhausted_at = at, "the day's calls will not last until its reset");
        } else {
            info!(%api_key, "the day's calls will last after all");
        }
        self.events.publish(Event::DayForecast { api_key, exhausted_at });
    }

    fn tell(&self, news: News) {
        let api_key = self.name.clone();
        match news {
            News::Held { tenant, hold, span } => {
                let (secs, reason) = (span.as_secs(), hold_reason(hold));
                warn!(%tenant, %api_key, secs, "calls of a tenant are held: {reason}");
                self.events.publish(Event::TenantHeld { tenant, api_key, reason, secs });
            }
            News::Alone { slots: Some(slots) } => warn!(
                %api_key, slots,
                "the shared store is lost: going on with this instance's part of the limits"
            ),
            News::Alone { slots: None } => {
                info!(%api_key, "no longer going on with this instance's part of the limits");
            }
            News::Forecast { exhausted_at } => self.tell_forecast(exhausted_at),
            News::ForeignUse(ForeignUse { since, calls_today }) => {
                let suspected = since.is_some();
                if suspected {
                    warn!(
                        %api_key, calls_today,
                        "the upstream refuses calls that our own do not explain: another program \
                         uses this API key, or its plan is below the one that is configured"
                    );
                } else {
                    warn!(%api_key, "a day without a sign that somebody else uses this API key");
                }
                self.events.publish(Event::ForeignUse { api_key, suspected, calls_today });
            }
        }
    }

    fn answer(&mut self, call: CallId, answer: Answer) {
        let answer = answer.map_err(|why| self.truly(why));
        let granted = answer.is_ok();
        let taken = self.replies.remove(&call).is_some_and(|reply| reply.send(answer).is_ok());
        if granted && taken {
            self.metrics.slot_granted();
        } else if granted {
            // its caller left in this very moment
            self.scheduler.cancel(call, self.clock.now());
        }
    }

    /// The refusal of a scheduler that was stopped because its API key is gone.
    fn truly(&self, why: Refusal) -> Refusal {
        if self.retired && why == Refusal::Stopping { Refusal::ApiKeyRemoved } else { why }
    }
}
