//! The keeper's task: owns the machine, the secrets and the desk, and waits for nothing but the
//! next message.
//!
//! A turn: take one input, obey the machine's orders, start what the desk can start, tell the
//! observers. Secrets enter by results and leave by work orders and the table; the machine sees
//! versions only.

mod follow;
mod obey;
mod settle;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::desk::{Desk, Job, check};
use super::endpoint::KeyAuth;
use super::errand::{Errand, Errands};
use super::lane::HeldLane;
use super::record::Record;
use super::table::Table;
use super::work::{Bench, Done};
use super::{
    ChangeError, Observer, Parts, PutError, RefreshError, TakeOutError, TenantChange, TenantState,
    TenantStatus,
};
use crate::clock::Clock;
use crate::engine::token::{LaneOutlook, Readiness, Settings, TokenKeeper};
use crate::engine::{ApiKeyName, Mono, Now, TenantName};
use crate::secret::TokenDigest;
use crate::store::{Grant, Missing, OpenRefresh, Removals, Revision};

/// A question of a handle.
pub(super) enum Request {
    Job(TenantName, Job),
    /// A job that belongs to an errand under way: a stop waits for it.
    Deliver(TenantName, Job),
    Errand {
        api_key: ApiKeyName,
        deadline: Mono,
        reply: oneshot::Sender<Errand>,
    },
    Refresh(TenantName, oneshot::Sender<Result<(), RefreshError>>),
    List(oneshot::Sender<Vec<TenantStatus>>),
    Status(TenantName, oneshot::Sender<Option<TenantStatus>>),
    Lanes(oneshot::Sender<Vec<(ApiKeyName, LaneOutlook)>>),
    /// Other instances have changed these.
    Look {
        tenants: Vec<TenantName>,
        /// After this revision, if that is known to whoever asks.
        known: Option<Revision>,
        waiting: mpsc::Sender<()>,
    },
    /// This is all that the store has.
    Compare {
        grants: Vec<Grant>,
        missing: Missing,
        told: (BTreeSet<TenantName>, Revision),
        waiting: mpsc::Sender<()>,
    },
    Reload {
        keys: Vec<(ApiKeyName, KeyAuth)>,
        settings: Settings,
        reply: oneshot::Sender<()>,
    },
    Drain(oneshot::Sender<()>),
}

pub(super) struct Actor {
    keeper: TokenKeeper,
    records: BTreeMap<TenantName, Record>,
    keys: BTreeMap<ApiKeyName, Arc<KeyAuth>>,
    desk: Desk,
    bench: Bench,
    table: Arc<Table>,
    clock: Clock,
    results: mpsc::UnboundedReceiver<Done>,
    requests: mpsc::Receiver<Request>,
    /// Weak, so that the task ends when no handle is left.
    requests_in: mpsc::WeakSender<Request>,
    errands: Errands,
    /// Shared lanes, each held until the work for a tenant has ended: who takes it next finds in
    /// the store what came of that.
    held: BTreeMap<TenantName, HeldLane>,
    changes: mpsc::UnboundedSender<TenantChange>,
    observer: Arc<dyn Observer>,
    /// Those who wait for the end; also when the last handle is gone the task is to end.
    draining: Option<Vec<oneshot::Sender<()>>>,
    depths: BTreeMap<ApiKeyName, usize>,
    counts_stale: bool,
    /// Up to here what others have changed is known, or has been asked for.
    known: Revision,
    removals: Removals<TenantName, (u64, Option<TokenDigest>)>,
}

impl Actor {
    /// A keeper that knows all `grants`; the table is filled and changes are told when this
    /// returns.
    pub(super) fn new(
        parts: Parts,
        grants: Vec<Grant>,
        left: Vec<OpenRefresh>,
        table: Arc<Table>,
        (requests_in, requests): (mpsc::WeakSender<Request>, mpsc::Receiver<Request>),
    ) -> Self {
        let now = parts.clock.now();
        let (sender, results) = mpsc::unbounded_channel();
        let is_shared = parts.store.is_shared();
        let bench = Bench {
            store: parts.store,
            endpoint: parts.exchange,
            clock: parts.clock.clone(),
            tracker: parts.tracker,
            rest: parts.settings.refresh_interval,
            results: sender,
        };
        let mut actor = Self {
            keeper: TokenKeeper::new(parts.settings, parts.seed, now),
            records: BTreeMap::new(),
            keys: BTreeMap::new(),
            desk: Desk::default(),
            bench,
            table,
            clock: parts.clock,
            results,
            requests,
            requests_in,
            errands: Errands::default(),
            held: BTreeMap::new(),
            changes: parts.changes,
            observer: parts.observer,
            draining: None,
            depths: BTreeMap::new(),
            counts_stale: true,
            known: Revision(u64::MAX),
            removals: Removals::default(),
        };
        actor.set_keys(parts.keys, now);
        let mut left: BTreeMap<_, _> =
            left.into_iter().map(|left| (left.tenant.clone(), left)).collect();
        for mut grant in grants {
            let left = left.remove(&grant.tenant).filter(|left| left.version == grant.version);
            if is_shared && left.is_none() {
                // it is not ours, and may be under way elsewhere
                grant.refresh_begun_at = None;
            }
            let (tenant, paused) = (grant.tenant.clone(), grant.paused);
            let record = Record::recovered(grant, left);
            actor.keeper.put(&tenant, record.known(), now);
            actor.keeper.hold(&tenant, paused, now);
            actor.records.insert(tenant, record);
        }
        actor.turn();
        actor
    }

    /// Lives until it has drained; nothing that is under way is cut off.
    pub(super) async fn run(mut self) {
        while !self.is_done() {
            let wake = self.keeper.poll_timeout();
            let listens = self.draining.is_none() || !self.requests.is_closed();
            tokio::select! {
                Some(done) = self.results.recv() => self.settle(done),
                () = self.table.bell.notified() => self.take_wishes(),
                request = self.requests.recv(), if listens => {
                    match request {
                        Some(request) => self.serve(request),
                        None => self.drain(None),
                    }
                }
                () = sleep(&self.clock, wake) => self.keeper.handle_timeout(self.clock.now()),
            }
            self.turn();
        }
        for waiter in self.draining.into_iter().flatten() {
            // Who asked may have left.
            let _ = waiter.send(());
        }
    }

    /// Does all that follows from an input.
    fn turn(&mut self) {
        self.obey_all();
        self.desk.turn(&mut self.keeper, &self.records, &self.bench, self.clock.now());
        self.obey_all();
        self.held.retain(|tenant, _| self.keeper.is_at_work(tenant));
        self.report();
    }

    fn is_done(&self) -> bool {
        let settled = self.keeper.is_settled() && self.errands.is_clear();
        self.draining.is_some() && settled && self.desk.is_clear()
    }

    fn drain(&mut self, waiter: Option<oneshot::Sender<()>>) {
        self.keeper.drain();
        self.errands.end_waiting();
        self.draining.get_or_insert_default().extend(waiter);
    }

    fn take_wishes(&mut self) {
        let wishes = self.table.take_wishes();
        let now = self.clock.now();
        for (tenant, version) in &wishes.rejected {
            self.keeper.rejected(tenant, *version, now);
        }
        for (tenant, at) in &wishes.used {
            self.keeper.used(tenant, *at, now);
        }
        for (tenant, (earliest, latest)) in &wishes.demands {
            self.keeper.demand(tenant, *latest, now);
            self.keeper.demand(tenant, *earliest, now);
            // whoever waits for a token that is good has missed that it is
            if self.keeper.readiness(tenant) == Some(&Readiness::Ready) {
                self.publish(tenant);
                self.announce(tenant, Readiness::Ready);
            }
        }
    }

    fn serve(&mut self, request: Request) {
        let now = self.clock.now();
        // An answer that nobody waits for any more is dropped by its channel.
        match request {
            Request::Job(tenant, job) => self.take_job(tenant, job),
            Request::Deliver(tenant, job) => self.add_job(tenant, job),
            Request::Errand { api_key, deadline, reply } => {
                self.errands.take(&mut self.keeper, &api_key, deadline, reply, now);
            }
            Request::Refresh(tenant, reply) => {
                let _ = reply.send(self.refresh(&tenant, now));
            }
            Request::List(reply) => {
                let all = self.records.keys().filter_map(|tenant| self.status(tenant, now));
                let _ = reply.send(all.collect());
            }
            Request::Status(tenant, reply) => {
                let _ = reply.send(self.status(&tenant, now));
            }
            Request::Lanes(reply) => {
                let lane = |key: &ApiKeyName| (key.clone(), self.keeper.lane(key, now));
                let _ = reply.send(self.keys.keys().map(lane).collect());
            }
            Request::Look { tenants, known, waiting } => {
                self.known = known.unwrap_or(self.known);
                let missing = Missing::AsTold { known: self.known };
                self.look_at(tenants.into_iter().map(|tenant| (tenant, missing)), &waiting);
            }
            Request::Compare { grants, missing, told, waiting } => {
                self.compare(&grants, missing, &told, &waiting);
            }
            Request::Reload { keys, settings, reply } => {
                self.bench.rest = settings.refresh_interval;
                self.set_keys(keys, now);
                self.keeper.set_times(settings, now);
                // how long a token may be sent depends on the margin
                for tenant in self.records.keys() {
                    self.publish(tenant);
                }
                let _ = reply.send(());
            }
            Request::Drain(reply) => self.drain(Some(reply)),
        }
    }

    fn take_job(&mut self, tenant: TenantName, job: Job) {
        if self.draining.is_some() {
            match job {
                Job::Put { reply, .. } => drop(reply.send(Err(PutError::Stopped))),
                Job::HandIn { reply, .. } => drop(reply.send(Err(PutError::Stopped))),
                Job::TakeOut { reply, .. } => drop(reply.send(Err(TakeOutError::Stopped))),
                Job::Remove { reply } | Job::Pause { reply, .. } => {
                    drop(reply.send(Err(ChangeError::Stopped)));
                }
                Job::Look(look) => drop(look),
            }
            return;
        }
        self.add_job(tenant, job);
    }

    fn add_job(&mut self, tenant: TenantName, mut job: Job) {
        let checked = match &mut job {
            Job::Put { grant, .. } | Job::HandIn { grant, .. } => {
                let key = self.keys.get(&grant.api_key);
                check(grant, key.map(AsRef::as_ref))
            }
            Job::TakeOut { .. } | Job::Remove { .. } | Job::Pause { .. } | Job::Look(_) => Ok(()),
        };
        match (checked, job) {
            (Err(refused), Job::Put { reply, .. }) => drop(reply.send(Err(refused))),
            (Err(refused), Job::HandIn { reply, .. }) => drop(reply.send(Err(refused))),
            (_, job) => self.desk.add(tenant, job),
        }
    }

    fn refresh(&mut self, tenant: &TenantName, now: Now) -> Result<(), RefreshError> {
        if self.draining.is_some() {
            return Err(RefreshError::Stopped);
        }
        if !self.records.contains_key(tenant) {
            return Err(RefreshError::UnknownTenant);
        }
        let ordered = self.keeper.refresh_now(tenant, now);
        if ordered { Ok(()) } else { Err(RefreshError::NeedsAuthorization) }
    }

    /// Takes the configured API keys; one that is unchanged keeps its back-off.
    fn set_keys(&mut self, keys: Vec<(ApiKeyName, KeyAuth)>, now: Now) {
        let mut old = std::mem::take(&mut self.keys);
        for (name, auth) in keys {
            let auth = Arc::new(auth);
            if old.remove(&name).is_none_or(|old| !old.is_same(&auth)) {
                self.keeper.put_key(&name, now);
            }
            self.keys.insert(name, auth);
        }
        for name in old.keys() {
            self.keeper.remove_key(name, now);
        }
        self.counts_stale = true;
    }

    fn status(&self, tenant: &TenantName, now: Now) -> Option<TenantStatus> {
        let grant = &self.records.get(tenant)?.grant;
        let (state, state_reason) = self.state(tenant, grant.paused, now)?;
        Some(TenantStatus {
            tenant: tenant.clone(),
            api_key: grant.api_key.clone(),
            state,
            state_reason,
            access_token_expires_at: grant.tokens.access_expires_at,
            last_refreshed_at: grant.last_refreshed_at,
            last_used_at: grant.last_used_at,
            refresh_token_expires_at: self.keeper.refresh_token_ends(tenant, now).map(|(at, _)| at),
            weight: grant.weight,
            paused: grant.paused,
        })
    }

    fn state(
        &self,
        tenant: &TenantName,
        paused: bool,
        now: Now,
    ) -> Option<(TenantState, Option<String>)> {
        let refreshing = self.keeper.is_refreshing(tenant, now);
        let (state, reason) = match self.keeper.readiness(tenant)? {
            Readiness::NeedsAuthorization { reason } => {
                return Some((TenantState::NeedsAuthorization, Some(reason.to_string())));
            }
            Readiness::Failing { cause, .. } => (TenantState::Refreshing, Some(cause.to_string())),
            Readiness::Ready | Readiness::Waiting if refreshing => (TenantState::Refreshing, None),
            Readiness::Ready | Readiness::Waiting => (TenantState::Ready, None),
        };
        Some((if paused { TenantState::Paused } else { state }, reason))
    }

    /// Tells the observers what has changed in sum.
    fn report(&mut self) {
        let now = self.clock.now();
        for key in self.keys.keys() {
            let depth = self.keeper.lane(key, now).depth;
            if self.depths.insert(key.clone(), depth) != Some(depth) {
                self.observer.lane_depth(key, depth);
            }
        }
        if !std::mem::take(&mut self.counts_stale) {
            return;
        }
        let mut counts: BTreeMap<&ApiKeyName, (usize, usize, usize)> =
            self.keys.keys().map(|key| (key, (0, 0, 0))).collect();
        for (tenant, record) in &self.records {
            let count = counts.entry(&record.grant.api_key).or_default();
            match self.keeper.readiness(tenant) {
                Some(Readiness::NeedsAuthorization { .. }) => count.1 += 1,
                Some(Readiness::Ready | Readiness::Waiting | Readiness::Failing { .. }) | None => {
                    count.0 += 1;
                }
            }
            let ends = self.keeper.refresh_token_ends(tenant, now);
            count.2 += usize::from(ends.is_some_and(|(_, soon)| soon));
        }
        for (key, (ready, dead, ageing)) in counts {
            self.observer.tenants(key, ready, dead);
            self.observer.ageing(key, ageing);
        }
    }
}

async fn sleep(clock: &Clock, wake: Option<Mono>) {
    match wake {
        Some(at) => clock.sleep_until(at).await,
        None => std::future::pending().await,
    }
}
