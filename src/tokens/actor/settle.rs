//! Results of work: into the records first, then to the machine, then into the table.

use tracing::{debug, error, info, warn};

use super::Actor;
use crate::engine::token::{Read, RefreshResult, Trouble, Write};
use crate::engine::{ApiKeyName, Now, TenantName};
use crate::store::{Grant, StoreError};
use crate::tokens::desk::Finished;
use crate::tokens::errand::ErrandNews;
use crate::tokens::record::Record;
use crate::tokens::work::{About, Done};
use crate::tokens::{Afterwards, ChangeError, PutError, RefreshAnswer};

impl Actor {
    pub(super) fn settle(&mut self, done: Done) {
        let now = self.clock.now();
        match done {
            Done::Begun(about, begun) => self.begun(about, begun, now),
            Done::Refreshed(about, answer, lane) => {
                self.answered(&about, answer, now);
                self.held.extend(lane.map(|lane| (about.tenant, lane)));
            }
            Done::Persisted(About { tenant, version }, result) => {
                let written = write(&tenant, result);
                if let (Write::Done(new), Some(record)) = (written, self.records.get_mut(&tenant)) {
                    record.stored(new);
                    self.counts_stale = true;
                    info!(%tenant, api_key = %record.grant.api_key, "refreshed");
                }
                self.keeper.persisted(&tenant, version, written, now);
                self.publish(&tenant);
            }
            Done::Aborted(About { tenant, version }, result) => {
                self.keeper.aborted(&tenant, version, write(&tenant, result), now);
            }
            Done::Reread(about, result) => self.reread(&about, result, now),
            Done::Failed(About { tenant, version }, result) => {
                self.keeper.failed(&tenant, version, write(&tenant, result), now);
            }
            Done::Job(tenant, finished) => self.finish_job(&tenant, finished, now),
            Done::Errand { api_key, id, news } => self.errand_news(&api_key, id, &news, now),
            Done::ErrandTurn { api_key, id, turn } => {
                self.errand_turn_came(&api_key, id, turn, now);
            }
            Done::LookAgain(tenant, look) => self.look_again(tenant, look),
        }
    }

    fn errand_news(&mut self, api_key: &ApiKeyName, id: u64, news: &ErrandNews, now: Now) {
        match news {
            ErrandNews::Answered(result, outcome) => {
                self.observer.refreshed(api_key, outcome);
                self.keeper.errand_ended(api_key, id, Some(*result), now);
            }
            ErrandNews::Over => {
                // one that ends without a word may have asked: the lane rests, and learns nothing
                let quiet = RefreshResult::Trouble(Trouble::Unexpected);
                self.keeper.errand_ended(api_key, id, Some(quiet), now);
                self.errands.over(id);
            }
        }
    }

    fn answered(&mut self, about: &About, answer: RefreshAnswer, now: Now) {
        let About { tenant, version } = about;
        let Some(record) = self.records.get_mut(tenant) else { return };
        let api_key = record.grant.api_key.clone();
        self.observer.refreshed(&api_key, answer.outcome());
        match &answer {
            RefreshAnswer::Received(_) => debug!(%tenant, %api_key, "new tokens received"),
            RefreshAnswer::InvalidGrant
            | RefreshAnswer::InvalidClient { .. }
            | RefreshAnswer::NotSent { .. }
            | RefreshAnswer::NotJournalled { .. }
            | RefreshAnswer::LaneLost
            | RefreshAnswer::Lost { .. }
            | RefreshAnswer::Trouble { .. } => {
                let outcome = answer.outcome();
                warn!(%tenant, %api_key, outcome, detail = %answer, "refresh failed");
            }
        }
        let result = match answer {
            RefreshAnswer::Received(received) => {
                let access_expires_at = record.receive(received, now.unix);
                RefreshResult::Received { access_expires_at }
            }
            failed => failed.result(),
        };
        self.keeper.refreshed(tenant, *version, result, now);
    }

    fn reread(&mut self, about: &About, result: Result<Option<Box<Grant>>, StoreError>, now: Now) {
        let About { tenant, version } = about;
        let is_paused = |actor: &Self| actor.records.get(tenant).map(|it| it.grant.paused);
        let before = is_paused(self);
        let read = match result {
            Ok(Some(grant)) => {
                let known = Record::new((*grant).clone()).known();
                let record = self.records.get_mut(tenant).filter(|_| grant.version > *version);
                if let Some(record) = record {
                    // A write that failed may have happened: then these are the same tokens.
                    let dropped = record
                        .pending
                        .take()
                        .filter(|pending| pending.tokens.refresh != grant.tokens.refresh);
                    if dropped.is_some() {
                        error!(%tenant, "somebody else has stored newer tokens; ours are dropped");
                    }
                    record.grant = *grant;
                }
                Read::Found(known)
            }
            Ok(None) => Read::Gone,
            Err(error) => {
                warn!(%tenant, %error, "store failed");
                Read::Failed
            }
        };
        self.keeper.reread(tenant, *version, read, now);
        if let Some(paused) = is_paused(self).filter(|paused| Some(*paused) != before) {
            self.set_paused(tenant, paused, now);
        }
        self.publish(tenant);
    }

    fn finish_job(&mut self, tenant: &TenantName, finished: Finished, now: Now) {
        self.desk.finished(tenant);
        // Whoever asked may have left; what was done is done.
        match finished {
            Finished::Put { result: Ok((put, grant)), reply } => {
                self.adopt(tenant, *grant, now);
                let status = self.status(tenant, now).ok_or(PutError::Stopped);
                let _ = reply.send(status.map(|status| (put, status)));
            }
            Finished::Put { result: Err(error), reply } => {
                self.keeper.release(tenant, now);
                let _ = reply.send(Err(error.into()));
            }
            Finished::HandIn { result, reply } => {
                let answer = result.map(|(outcome, put)| {
                    match put {
                        Some(grant) => self.adopt(tenant, *grant, now),
                        None => self.keeper.release(tenant, now),
                    }
                    outcome
                });
                if answer.is_err() {
                    self.keeper.release(tenant, now);
                }
                let _ = reply.send(answer);
            }
            Finished::TakeOut { afterwards, result, reply } => {
                if result.is_ok() && afterwards == Afterwards::Held {
                    // in this turn: nothing is begun between the copy and the hold
                    self.set_paused(tenant, true, now);
                }
                self.keeper.release(tenant, now);
                let held = result.is_ok() && afterwards == Afterwards::Held;
                if reply.send(result).is_err() && held {
                    warn!(%tenant, "held for an export that was given up: resume the tenant");
                }
            }
            Finished::Remove { result: Ok(existed), reply } => {
                self.remember_removal(tenant, now);
                self.keeper.remove(tenant, now);
                self.forget(tenant);
                let _ = reply.send(Ok(existed));
            }
            Finished::Remove { result: Err(error), reply } => {
                self.keeper.release(tenant, now);
                let _ = reply.send(Err(ChangeError::Store(error)));
            }
            Finished::Pause { paused, result, reply } => {
                if matches!(result, Ok(true)) {
                    self.set_paused(tenant, paused, now);
                }
                let _ = reply.send(result.map_err(ChangeError::Store));
            }
            // whoever waits for it is told by its end
            Finished::Look { look, result } => self.looked(tenant, look.missing, result, now),
        }
    }

    /// Takes a grant that is stored into custody, in the place of the one before.
    pub(super) fn adopt(&mut self, tenant: &TenantName, grant: Grant, now: Now) {
        let told = self.records.remove(tenant).and_then(|old| old.told);
        let paused = grant.paused;
        let record = Record { told, ..Record::new(grant) };
        self.keeper.put(tenant, record.known(), now);
        self.keeper.hold(tenant, paused, now);
        self.records.insert(tenant.clone(), record);
        self.keeper.handle_timeout(now);
        self.refreshed_row(tenant);
    }

    pub(super) fn set_paused(&mut self, tenant: &TenantName, paused: bool, now: Now) {
        let Some(record) = self.records.get_mut(tenant) else { return };
        record.grant.paused = paused;
        self.keeper.hold(tenant, paused, now);
        self.refreshed_row(tenant);
    }

    /// Publishes a tenant whose weight, pause or tokens changed, and tells of it.
    pub(super) fn refreshed_row(&mut self, tenant: &TenantName) {
        self.publish(tenant);
        if let Some(readiness) = self.keeper.readiness(tenant).cloned() {
            self.announce(tenant, readiness);
        }
    }
}

/// What a write's result means to the machine; failures are logged here.
pub(super) fn write<T>(tenant: &TenantName, result: Result<T, StoreError>) -> Write<T> {
    match result {
        Ok(value) => Write::Done(value),
        Err(error) => {
            warn!(%tenant, %error, "store failed");
            match error {
                StoreError::Conflict { .. } => Write::Conflict,
                StoreError::Exists { .. }
                | StoreError::Unavailable { .. }
                | StoreError::Corrupt { .. } => Write::Failed,
            }
        }
    }
}
