//! The desk: what operators want changed, one thing at a time for each tenant.
//!
//! A grant is put, handed in, taken out or removed only while the machine has nothing under way for
//! the tenant, so that the answer to a refresh is never overtaken; until then the job waits here.
//! Pauses touch no tokens and do not wait.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::claims::Claims;
use super::endpoint::{KeyAuth, is_token};
use super::hand_in::{HandedIn, Terms, hand_in};
use super::look::{Look, Ours, Seen, look};
use super::record::Record;
use super::take_out::{Afterwards, Taken, take_out};
use super::work::{Bench, Done, guarded};
use super::{ChangeError, PutError, TenantStatus};
use crate::engine::token::TokenKeeper;
use crate::engine::{Now, TenantName};
use crate::store::{Grant, NewGrant, Put, StoreError};

/// Something that an operator wants.
#[derive(Debug)]
pub(super) enum Job {
    Put {
        grant: Box<NewGrant>,
        reply: oneshot::Sender<Result<(Put, TenantStatus), PutError>>,
    },
    HandIn {
        grant: Box<NewGrant>,
        terms: Terms,
        reply: oneshot::Sender<HandInReply>,
    },
    TakeOut {
        afterwards: Afterwards,
        reply: oneshot::Sender<Taken>,
    },
    Remove {
        reply: oneshot::Sender<Result<bool, ChangeError>>,
    },
    Pause {
        paused: bool,
        reply: oneshot::Sender<Result<bool, ChangeError>>,
    },
    /// Other instances have changed it.
    Look(Look),
}

type HandInReply = Result<HandedIn, PutError>;

/// A job whose store call has ended.
#[derive(Debug)]
pub(super) enum Finished {
    Put {
        result: Result<(Put, Box<Grant>), StoreError>,
        reply: oneshot::Sender<Result<(Put, TenantStatus), PutError>>,
    },
    HandIn {
        result: Result<(HandedIn, Option<Box<Grant>>), PutError>,
        reply: oneshot::Sender<HandInReply>,
    },
    TakeOut {
        afterwards: Afterwards,
        result: Taken,
        reply: oneshot::Sender<Taken>,
    },
    Remove {
        result: Result<bool, StoreError>,
        reply: oneshot::Sender<Result<bool, ChangeError>>,
    },
    Pause {
        paused: bool,
        result: Result<bool, StoreError>,
        reply: oneshot::Sender<Result<bool, ChangeError>>,
    },
    Look {
        look: Look,
        result: Result<Seen, StoreError>,
    },
}

#[derive(Debug, Default)]
pub(super) struct Desk {
    waiting: BTreeMap<TenantName, VecDeque<Job>>,
    running: BTreeSet<TenantName>,
}

impl Desk {
    pub(super) fn add(&mut self, tenant: TenantName, job: Job) {
        self.waiting.entry(tenant).or_default().push_back(job);
    }

    /// Wants a look at a tenant; one that has not begun serves for several that want one.
    pub(super) fn add_look(&mut self, tenant: TenantName, look: Look) {
        let jobs = self.waiting.entry(tenant).or_default();
        let waits = |job: &&mut Job| matches!(job, Job::Look(_));
        match jobs.iter_mut().find(waits) {
            Some(Job::Look(there)) => there.join(look),
            Some(_) | None => jobs.push_back(Job::Look(look)),
        }
    }

    pub(super) fn finished(&mut self, tenant: &TenantName) {
        self.running.remove(tenant);
    }

    pub(super) fn is_clear(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Starts what can be started.
    pub(super) fn turn(
        &mut self,
        keeper: &mut TokenKeeper,
        records: &BTreeMap<TenantName, Record>,
        bench: &Bench,
        now: Now,
    ) {
        let running = &mut self.running;
        self.waiting.retain(|tenant, jobs| {
            if running.contains(tenant) {
                return true;
            }
            let free = match jobs.front() {
                Some(
                    Job::Put { .. }
                    | Job::HandIn { .. }
                    | Job::TakeOut { .. }
                    | Job::Remove { .. }
                    | Job::Look(_),
                ) => keeper.reserve(tenant, now),
                Some(Job::Pause { .. }) => true,
                None => return false,
            };
            if free && let Some(job) = jobs.pop_front() {
                running.insert(tenant.clone());
                let ours = records.get(tenant).map(|record| Ours::of(record, keeper));
                start(tenant.clone(), job, ours, bench);
            }
            !jobs.is_empty()
        });
    }
}

/// Starts a job for a tenant; `ours` is what is known of it here.
fn start(tenant: TenantName, job: Job, ours: Option<Ours>, bench: &Bench) {
    let store = Arc::clone(&bench.store);
    match job {
        Job::Put { grant, reply } => bench.spawn(async move {
            let result = guarded("put a grant", store.put_grant(*grant)).await;
            let result = result.map(|(put, grant)| (put, Box::new(grant)));
            Done::Job(tenant, Finished::Put { result, reply })
        }),
        Job::HandIn { grant, terms, reply } => {
            let lanes = bench.lanes();
            bench.spawn(async move {
                let work = hand_in(&store, &lanes, *grant, terms);
                let result = guarded("hand a grant in", work).await;
                Done::Job(tenant, Finished::HandIn { result, reply })
            });
        }
        Job::TakeOut { afterwards, reply } => {
            let held = ours.filter(|_| afterwards == Afterwards::Held);
            let (lanes, api_key) = (bench.lanes(), held.map(|ours| ours.grant.api_key));
            bench.spawn(async move {
                let work = async {
                    let _lane = match &api_key {
                        Some(api_key) => lanes.wait(api_key).await?,
                        None => None,
                    };
                    take_out(&store, &tenant, afterwards, &reply).await
                };
                let result = guarded("read a grant", work).await;
                Done::Job(tenant, Finished::TakeOut { afterwards, result, reply })
            });
        }
        Job::Remove { reply } => bench.spawn(async move {
            let result = guarded("remove a grant", store.remove_grant(&tenant)).await;
            Done::Job(tenant, Finished::Remove { result, reply })
        }),
        Job::Pause { paused, reply } => bench.spawn(async move {
            let result = guarded("hold a tenant", store.pause_tenant(&tenant, paused)).await;
            Done::Job(tenant, Finished::Pause { paused, result, reply })
        }),
        Job::Look(wanted) => bench.spawn(async move {
            let work = look(&store, &tenant, ours.as_ref(), wanted.missing);
            let result = guarded("read a grant", work).await;
            Done::Job(tenant, Finished::Look { look: wanted, result })
        }),
    }
}

/// Looks at a grant before it is stored, and reads the access token's expiry.
pub(super) fn check(grant: &mut NewGrant, key: Option<&KeyAuth>) -> Result<(), PutError> {
    let Some(key) = key else { return Err(PutError::UnknownApiKey) };
    let tokens = &mut grant.tokens;
    if tokens.refresh.expose().is_empty() {
        return Err(PutError::NoRefreshToken);
    }
    if !is_token(tokens.refresh.expose()) {
        return Err(PutError::Malformed("refresh token"));
    }
    let Some(access) = &tokens.access else { return Ok(()) };
    if !is_token(access.expose()) {
        return Err(PutError::Malformed("access token"));
    }
    let Some(claims) = Claims::read(access.expose()) else { return Ok(()) };
    if let Some(cid) = claims.cid.as_ref().filter(|cid| **cid != key.client_id) {
        return Err(PutError::OtherApiKey { cid: cid.clone(), api_key: grant.api_key.clone() });
    }
    if claims.is_unassigned() {
        return Err(PutError::Unassigned);
    }
    tokens.access_expires_at = claims.exp.or(tokens.access_expires_at);
    Ok(())
}
