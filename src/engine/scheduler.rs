//! Who of one API key's callers goes next, and when: queue, pacer and budget joined into one
//! machine.
//!
//! Inputs are calls that arrive, leave or end, what the store counted, and what happens to tenants;
//! each comes with a [`Now`]. After any of them the shell takes commands with
//! [`Scheduler::poll_command`] until there are none, and calls [`Scheduler::handle_timeout`] at
//! [`Scheduler::poll_timeout`]. A call is granted only when a slot, a counted call of the day and a
//! place in flight are free and its tenant has a good token; every call that arrived is granted or
//! refused exactly once, unless it is cancelled first.

mod advance;
mod calls;
mod ration;
mod settle;
mod shared;
mod snapshot;
mod tenants;
mod visitors;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::backoff::Backoff;
use super::budget::{Budget, Claim, Claimed};
use super::chance::Chance;
use super::day::forecast::{Forecast, Outlook};
use super::day::{Ration, Reserve};
use super::foreign::{Foreign, ForeignUse};
use super::ids::TenantName;
use super::pacer::Pacer;
use super::queue::{FairQueue, TenantIx};
use super::rate::{Class, Guard, Rate};
use super::time::{Day, DayReset, Mono, Now, Unix};
use super::turnstile::{Ask, Turnstile};

pub use calls::{CallId, CallTable};
pub use snapshot::{Snapshot, TenantSnapshot};
pub use tenants::Readiness;

use calls::Calls;
use tenants::Tenants;

/// What a scheduler is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calls per window.
    pub rate: Rate,
    /// Margin on the window.
    pub guard: Guard,
    /// Calls per quota day.
    pub per_day: u64,
    /// When the day turns.
    pub day_reset: DayReset,
    /// Share of the day that is kept for interactive calls.
    pub reserve: Reserve,
    /// Most calls granted and not yet ended.
    pub in_flight_max: usize,
    /// Most calls waiting.
    pub capacity: usize,
    /// Most calls of one tenant waiting.
    pub capacity_per_tenant: usize,
}

/// A call that asks for a slot.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Whose call it is.
    pub tenant: TenantName,
    /// Its class.
    pub class: Class,
    /// How long it may wait.
    pub deadline: Mono,
    /// Where in its tenant's order it goes.
    pub entry: Entry,
}

/// Where a call enters its tenant's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Behind the others, at once.
    Back,
    /// Behind the others, once [`Scheduler::prepared`] says that its body is there; until then it
    /// has a place in the queue's capacity only.
    WhenPrepared,
    /// At the place that it had: a call that is sent again.
    Again {
        /// Its first id.
        first: CallId,
    },
}

/// Why a call gets no slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The API key's queue is full.
    QueueFull {
        /// When a place may be free.
        retry: Duration,
    },
    /// The tenant's share of the queue is full.
    TenantQueueFull {
        /// When a place may be free.
        retry: Duration,
    },
    /// The wait to be expected is longer than the call may wait.
    WaitTooLong {
        /// The wait to be expected.
        estimate: Duration,
    },
    /// The call waited for as long as it may.
    WaitExpired {
        /// How long a new call would wait.
        estimate: Duration,
    },
    /// The day's calls are used up.
    DaySpent,
    /// What is left of the day is kept for interactive calls.
    DayKept,
    /// The store does not count calls now.
    StoreUnavailable,
    /// The tenant's token is dead.
    NeedsAuthorization {
        /// Why.
        reason: String,
    },
    /// The tenant has no usable token, and the endpoint does not give one in time.
    TokenUnavailable {
        /// When the endpoint is asked again.
        retry: Duration,
    },
    /// The tenant is gone.
    TenantRemoved,
    /// The process stops.
    Stopping,
    /// The API key is gone from the configuration.
    ApiKeyRemoved,
}

/// What the shell must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Let the call go.
    Grant {
        /// The call.
        call: CallId,
        /// How long it waited.
        waited: Duration,
        /// How much of that for its tenant's token.
        for_token: Duration,
        /// It must leave by then, or be cancelled and asked for again.
        until: Mono,
    },
    /// Refuse the call.
    Refuse {
        /// The call.
        call: CallId,
        /// Why.
        why: Refusal,
    },
    /// Have calls counted in the store, and answer with [`Scheduler::claimed`].
    Claim(Claim),
    /// Ask the turnstile, and answer with [`Scheduler::told`].
    Ask(Box<Ask>),
    /// Have the store uncount calls that did not leave.
    Release {
        /// The day in which they were counted.
        day: Day,
        /// How many.
        count: u32,
    },
    /// A call waits for the tenant's token.
    Demand {
        /// The tenant.
        tenant: TenantName,
        /// How long the call may wait.
        deadline: Mono,
    },
    /// Tell those who watch.
    Tell(News),
}

/// What those who watch should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Calls of a tenant are held because of the upstream's answers.
    Held {
        /// The tenant.
        tenant: TenantName,
        /// Which calls, and why.
        hold: Hold,
        /// For how long.
        span: Duration,
    },
    /// The day will probably be used up before it turns, or lasts after
    /// all; once for each change.
    Forecast {
        /// When it is used up; `None` when it lasts.
        exhausted_at: Option<Unix>,
    },
    /// This instance goes on by itself with so many slots of a window, or with others again.
    Alone {
        /// How many; `None` when it shares again, or refuses.
        slots: Option<u32>,
    },
    /// Somebody else seems to use the API key, or does not seem to any more.
    ForeignUse(ForeignUse),
}

/// Which calls of a tenant are held, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// All of them: the upstream refused a row of them with 401 or 403.
    Denied,
    /// Bulk calls: a limit of the account behind the gateway is reached.
    Capped,
}

/// The machine of one API key.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    pacer: Pacer,
    /// Where several instances share the slots.
    turnstile: Option<Turnstile>,
    budget: Budget,
    ration: Ration,
    forecast: Forecast,
    alarm: ration::Alarm,
    queue: FairQueue<CallId>,
    calls: Calls,
    tenants: Tenants,
    /// Calls that wait or are being prepared, by the end of their wait.
    deadlines: BTreeSet<(Mono, CallId)>,
    in_flight: usize,
    paused: bool,
    /// Waiting calls are refused from then on.
    stop_at: Option<Mono>,
    edge: Backoff,
    chance: Chance,
    foreign: Foreign,
    /// When a tenant's holds may be over.
    held: BTreeSet<(Mono, TenantIx)>,
    /// Tenants that nobody has connected, by when they were last seen.
    visitors: BTreeSet<(Mono, TenantIx)>,
    throttled_total: u64,
    commands: VecDeque<Command>,
}

/// Calls that are held counted and ready: what leaves in one window, so that after a crash the
/// count is too high by at most that.
fn block(rate: Rate) -> u32 {
    rate.calls()
}

impl Scheduler {
    /// A scheduler that knows nothing of what left before `now`.
    #[must_use]
    pub fn new(limits: Limits, now: Now) -> Self {
        let mut scheduler = Self {
            pacer: Pacer::new(limits.rate, limits.guard, now.mono),
            turnstile: None,
            budget: Budget::new(limits.per_day, block(limits.rate), limits.day_reset, now.unix),
            ration: Ration::new(limits.reserve, block(limits.rate)),
            forecast: Forecast::default(),
            alarm: ration::Alarm::default(),
            limits,
            queue: FairQueue::default(),
            calls: Calls::default(),
            tenants: Tenants::default(),
            deadlines: BTreeSet::new(),
            in_flight: 0,
            paused: false,
            stop_at: None,
            edge: settle::edge_backoff(),
            chance: Chance::new(0),
            foreign: Foreign::default(),
            held: BTreeSet::new(),
            visitors: BTreeSet::new(),
            throttled_total: 0,
            commands: VecDeque::new(),
        };
        scheduler.advance(now);
        scheduler
    }

    /// The same with pauses that are spread by this seed, so that no two proxies pause alike.
    #[must_use]
    pub fn seeded(self, seed: u64) -> Self {
        Self { chance: Chance::new(seed), ..self }
    }

    /// Changes the limits. Nothing that waits is lost: a smaller capacity holds for new calls.
    pub fn reconfigure(&mut self, limits: Limits, now: Now) {
        self.limits = limits;
        self.pacer.reconfigure(limits.rate, limits.guard);
        self.budget.reconfigure(limits.per_day, block(limits.rate), limits.day_reset);
        self.ration.reconfigure(limits.reserve, block(limits.rate));
        self.advance(now);
    }

    /// The store answered a [`Command::Claim`] for `asked_day`; `None` when it failed.
    pub fn claimed(&mut self, asked_day: Day, answer: Option<Claimed>, now: Now) {
        match answer {
            Some(answer) => {
                let count = self.budget.claimed(asked_day, answer);
                self.uncount(answer.day, count);
            }
            None => self.budget.claim_failed(asked_day, now.mono),
        }
        self.advance(now);
    }

    /// Holds the API key: calls wait.
    pub fn pause(&mut self) {
        self.paused = true;
        self.queue.change_all();
    }

    /// Releases a held API key.
    pub fn resume(&mut self, now: Now) {
        self.paused = false;
        self.queue.change_all();
        self.advance(now);
    }

    /// The process stops: new calls are refused, waiting ones are served until `serve_until` and
    /// then refused.
    pub fn stop(&mut self, serve_until: Mono, now: Now) {
        self.stop_at = Some(serve_until);
        self.advance(now);
    }

    /// Takes the calls that were counted and will not leave, at the end; no more are counted after.
    pub fn surrender(&mut self) -> (Day, u32) {
        self.budget.surrender()
    }

    /// A time came that [`Scheduler::poll_timeout`] named.
    pub fn handle_timeout(&mut self, now: Now) {
        self.advance(now);
    }

    /// What the shell must do next.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
