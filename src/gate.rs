//! The gate of each API key: where calls wait for a slot.
//!
//! A caller gets a [`Ticket`], the ticket becomes a [`Permit`], the permit is spent just before
//! bytes leave, and what is spent is settled with its outcome. Dropping any of them is safe and
//! means what the type says. One task per API key owns the scheduler of that key; this handle sends
//! it messages. Tokens are not known here: what a tenant's token is good for comes in through
//! [`Gate::set_tenant`], and what waits for one goes out as a demand.

mod actor;
mod birth;
mod board;
mod permit;
mod refusal;
mod roll;
mod usage;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::engine::scheduler::{
    Arrival, CallId, CallTable, Hold, Limits, Readiness, Scheduler, Snapshot, TenantSnapshot,
};
use crate::engine::turnstile::{OnLoss, Roll};
use crate::engine::{ApiKeyName, Class, Mono, TenantName};
use crate::store::{SharedTurnstile, Store};
use crate::telemetry::{Events, KeyMetrics, Metrics};

pub use actor::Waited;
use actor::{Actor, Message};
pub use birth::Birth;
use board::Board;
pub use board::Quota;
pub use permit::{Permit, Spent, Ticket};

/// A call waits for its tenant's token.
#[derive(Clone, Debug)]
pub struct Demand {
    /// The API key at whose gate it waits.
    pub api_key: ApiKeyName,
    /// The tenant.
    pub tenant: TenantName,
    /// How long the call may wait.
    pub deadline: Mono,
}

/// What a gate is made of.
pub struct Parts {
    /// Counts the day, and keeps when tenants were last used.
    pub store: Arc<dyn Store>,
    /// Where several instances share slots and counts; the store counts nothing then.
    pub sharing: Option<Sharing>,
    /// Reads time.
    pub clock: Clock,
    /// Counts what happens.
    pub metrics: Metrics,
    /// Tells of it.
    pub events: Events,
    /// Where demands for tokens go. Unbounded, and bounded all the same: a demand stands for a
    /// waiting call.
    pub demands: mpsc::UnboundedSender<Demand>,
    /// Runs the tasks.
    pub tracker: TaskTracker,
    /// Ends the tasks that run for as long as the process.
    pub stopped: CancellationToken,
    /// Spreads pauses.
    pub seed: u64,
}

/// What instances share that use one store.
#[derive(Clone)]
pub struct Sharing {
    /// Says whose turn it is.
    pub turnstile: Arc<dyn SharedTurnstile>,
    /// What this instance does that has lost the store.
    pub on_loss: OnLoss,
}

/// The gates of all API keys; clones share them.
#[derive(Clone)]
pub struct Gate {
    parts: Arc<Parts>,
    keys: Arc<ArcSwap<BTreeMap<ApiKeyName, KeyGate>>>,
    instances: Arc<Instances>,
}

/// What is known of all instances, where several share.
#[derive(Default)]
struct Instances {
    roll: ArcSwapOption<Roll>,
    /// The store did not answer when it was last told that this instance is there.
    is_lost: AtomicBool,
    /// The process stops: it takes no part of the limits any more.
    stops: AtomicBool,
    leave: OnceLock<mpsc::UnboundedSender<roll::Leave>>,
}

/// The gate of one API key.
#[derive(Clone)]
pub struct KeyGate {
    shared: Arc<Shared>,
}

struct Shared {
    name: ApiKeyName,
    clock: Clock,
    metrics: KeyMetrics,
    /// Unbounded, and bounded all the same: each message stands for a request that is under way.
    mailbox: mpsc::UnboundedSender<Message>,
    call_next: AtomicU64,
    board: Arc<Board>,
}

impl Gate {
    /// Gates for these API keys, closed for those that are `paused`.
    #[must_use]
    pub fn start(
        parts: Parts,
        keys: Vec<(ApiKeyName, Limits)>,
        paused: &BTreeSet<ApiKeyName>,
    ) -> Self {
        let gate = Self { parts: Arc::new(parts), keys: Arc::default(), instances: Arc::default() };
        gate.reconfigure(keys, paused);
        usage::spawn(&gate);
        if let Some(sharing) = &gate.parts.sharing {
            words::spawn(&gate, sharing);
            let _ = gate.instances.leave.set(roll::spawn(&gate, sharing));
        }
        gate
    }

    /// Brings the gates to these API keys and limits: new ones are opened, unless they are
    /// `paused`, others are changed in place, and the waiting calls of those that are gone are
    /// refused.
    pub fn reconfigure(&self, keys: Vec<(ApiKeyName, Limits)>, paused: &BTreeSet<ApiKeyName>) {
        let before = self.keys.load();
        let mut after = BTreeMap::new();
        for (name, limits) in keys {
            let key = if let Some(key) = before.get(&name) {
                key.send(Message::Reconfigure(limits));
                key.clone()
            } else {
                let key = KeyGate::open(&self.parts, name.clone(), limits);
                key.pause(paused.contains(&name));
                key
            };
            after.insert(name, key);
        }
        for (name, key) in before.iter() {
            if !after.contains_key(name) {
                key.send(Message::Retire);
                // what it holds counted is given back; nobody waits for that
                let (done, _) = oneshot::channel();
                key.send(Message::Close(done));
                self.parts.metrics.remove_api_key(name);
            }
        }
        self.keys.store(Arc::new(after));
    }

    /// The gate of an API key.
    #[must_use]
    pub fn api_key(&self, name: &ApiKeyName) -> Option<KeyGate> {
        self.keys.load().get(name).cloned()
    }

    /// All gates, by name.
    #[must_use]
    pub fn api_keys(&self) -> Vec<KeyGate> {
        self.keys.load().values().cloned().collect()
    }

    /// A tenant was added, or its token, pause or weight changed; `None` for its readiness: it is
    /// gone.
    pub fn set_tenant(
        &self,
        api_key: &ApiKeyName,
        tenant: &TenantName,
        readiness: Option<Readiness>,
        paused: bool,
        weight: u32,
    ) {
        if let Some(key) = self.api_key(api_key) {
            let tenant = tenant.clone();
            key.send(match readiness {
                Some(readiness) => Message::SetTenant { tenant, readiness, paused, weight },
                None => Message::RemoveTenant { tenant },
            });
        }
    }

    /// The process stops: waiting calls are served for `serve_for`, then refused.
    pub fn stop(&self, serve_for: Duration) {
        self.instances.stops.store(true, Ordering::Relaxed);
        let serve_until = self.parts.clock.now().mono.plus(serve_for);
        for key in self.api_keys() {
            key.send(Message::Stop { serve_until });
        }
    }

    /// Has the store uncount what was counted and will not leave, and record when tenants were last
    /// used; the last thing before the store is closed.
    pub async fn close(&self) {
        usage::record(self).await;
        for key in self.api_keys() {
            let _ = key.ask(Message::Close).await;
        }
        if let Some(leave) = self.instances.leave.get() {
            let (done, left) = oneshot::channel();
            let _ = leave.send(done);
            let _ = left.await;
        }
    }

    /// All instances that share the store, as last read; `None` where there is one alone.
    #[must_use]
    pub fn roll(&self) -> Option<Arc<Roll>> {
        self.instances.roll.load_full()
    }

    /// Brings the gauges of all API keys up to date.
    pub async fn publish(&self) {
        for key in self.api_keys() {
            if let Some(snapshot) = key.snapshot().await {
                key.publish(&snapshot);
            }
        }
    }
}

impl KeyGate {
    fn open(parts: &Parts, name: ApiKeyName, limits: Limits) -> Self {
        let (mailbox, inbox) = mpsc::unbounded_channel();
        let board = Arc::new(Board::default());
        board.set_limits(limits.rate, limits.per_day);
        let bytes = name.as_str().bytes();
        let seed = bytes.fold(parts.seed, |seed, byte| seed.rotate_left(8) ^ u64::from(byte));
        let now = parts.clock.now();
        let mut scheduler = Scheduler::new(limits, now).seeded(seed);
        if let Some(sharing) = &parts.sharing {
            scheduler = scheduler.sharing(sharing.on_loss, now);
        }
        let actor = Actor {
            name: name.clone(),
            scheduler,
            clock: parts.clock.clone(),
            turnstile: parts.sharing.as_ref().map(|sharing| sharing.turnstile.clone()),
            store: parts.store.clone(),
            metrics: parts.metrics.api_key(&name),
            events: parts.events.clone(),
            demands: parts.demands.clone(),
            tracker: parts.tracker.clone(),
            mailbox: mailbox.downgrade(),
            inbox,
            replies: CallTable::default(),
            board: board.clone(),
            retired: false,
            early: Some(Vec::new()),
        };
        parts.tracker.spawn(actor.run());
        let shared = Shared {
            clock: parts.clock.clone(),
            metrics: parts.metrics.api_key(&name),
            name,
            mailbox,
            call_next: AtomicU64::new(0),
            board,
        };
        Self { shared: Arc::new(shared) }
    }

    /// The API key's name.
    #[must_use]
    pub fn name(&self) -> &ApiKeyName {
        &self.shared.name
    }

    /// The API key's counters.
    #[must_use]
    pub fn metrics(&self) -> &KeyMetrics {
        &self.shared.metrics
    }

    /// Asks for a slot. Dropping the ticket gives the place up.
    pub fn enqueue(&self, arrival: Arrival) -> Ticket {
        let id = CallId::new(self.shared.call_next.fetch_add(1, Ordering::Relaxed));
        let (reply, answer) = oneshot::channel();
        let class = arrival.class;
        self.send(Message::Enqueue { id, arrival, reply });
        Ticket::new(self.clone(), id, class, answer)
    }

    /// Asks for a slot for a call that brings a good token of its own, whose tenant nobody has
    /// connected. Dropping the ticket gives the place up.
    pub fn enqueue_visitor(&self, arrival: Arrival) -> Ticket {
        self.send(Message::Visit { tenant: arrival.tenant.clone() });
        self.enqueue(arrival)
    }

    /// Holds or releases the API key.
    pub fn pause(&self, paused: bool) {
        self.send(Message::Pause(paused));
    }

    /// The upstream refused a tenant's token: its calls wait until [`Gate::set_tenant`] says that
    /// it has another. Calls that are enqueued after this wait too.
    pub fn token_refused(&self, tenant: &TenantName) {
        self.send(Message::TokenRefused { tenant: tenant.clone() });
    }

    /// An operator changed the tenant: what the upstream refused to it before holds it no longer.
    pub fn forgive(&self, tenant: &TenantName) {
        self.send(Message::Forgive { tenant: tenant.clone() });
    }

    /// The API key now; `None` when its task has ended.
    pub async fn snapshot(&self) -> Option<Snapshot> {
        self.ask(Message::Snapshot).await
    }

    /// One tenant now; `None` when it has never called.
    pub async fn tenant(&self, name: TenantName) -> Option<TenantSnapshot> {
        self.ask(|reply| Message::Tenant(name, reply)).await.flatten()
    }

    /// All tenants now.
    pub async fn tenants(&self) -> Vec<TenantSnapshot> {
        self.ask(Message::Tenants).await.unwrap_or_default()
    }

    /// What callers are told of the limits.
    #[must_use]
    pub fn quota(&self) -> Quota {
        self.shared.board.quota(self.shared.clock.now().unix)
    }

    fn publish(&self, snapshot: &Snapshot) {
        let metrics = self.metrics();
        for (class, depth) in Class::ALL.into_iter().zip(snapshot.depth) {
            metrics.queue_depth(class, depth);
        }
        metrics.guard(snapshot.guard);
        metrics.day(snapshot.day_used, snapshot.day_limit);
        metrics.foreign_use(snapshot.foreign.calls_today);
    }

    fn send(&self, message: Message) {
        // the task ends only when the process does or the key is gone; then nobody waits for it
        let _ = self.shared.mailbox.send(message);
    }

    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.send(message(reply));
        answer.await.ok()
    }
}

/// Why calls of a tenant are held, in words for an operator.
#[must_use]
pub const fn hold_reason(hold: Hold) -> &'static str {
    match hold {
        Hold::Denied => {
            "the API answered ten calls in a row with 403, or refused ten tokens with 401"
        }
        Hold::Capped => {
            "the API refused a bulk call for a limit of the account, such as its 1,000 queued \
             activities; only bulk calls are held"
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
