//! What is different where the store is shared: the lane comes first, and others change grants.
//!
//! What another instance has written is taken over when nothing of our own is under way for the
//! tenant, which the desk sees to. Tokens that came here and are not stored yet are never given up
//! for what the store says about the ones before.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use super::Actor;
use super::settle::write;
use crate::engine::token::Write;
use crate::engine::{ApiKeyName, Now, TenantName};
use crate::secret::TokenDigest;
use crate::store::{Grant, Missing, Revision, StoreError};
use crate::tokens::desk::Job;
use crate::tokens::lane::Turn;
use crate::tokens::look::{Look, Ours, Seen, is_same};
use crate::tokens::record::Record;
use crate::tokens::work::{About, Begun};

/// An errand whose lane the store could not give asks again after so long.
const ERRAND_AGAIN_AFTER: Duration = Duration::from_secs(1);

impl Actor {
    pub(super) fn begin(&mut self, about: About) {
        let at = self.clock.now().unix;
        let record = self.records.get_mut(&about.tenant);
        match record.filter(|_| self.bench.store.is_shared()) {
            Some(record) => {
                let before = record.begun_at.replace(at);
                self.bench.begin_shared(about, record.grant.clone(), before, at);
            }
            None => self.bench.begin(about, at),
        }
    }

    pub(super) fn abort(&self, about: About) {
        let record = self.records.get(&about.tenant);
        match record.filter(|_| self.bench.store.is_shared()) {
            Some(record) => self.bench.abort_shared(about, record.begun_at),
            None => self.bench.abort(about),
        }
    }

    pub(super) fn read_again(&self, about: About) {
        if self.bench.store.is_shared() {
            let record = self.records.get(&about.tenant);
            let ours = record.map(|record| Ours::of(record, &self.keeper));
            self.bench.reread_shared(about, ours, Missing::AsTold { known: self.known });
        } else {
            self.bench.reread(about);
        }
    }

    pub(super) fn begun(&mut self, about: About, begun: Begun, now: Now) {
        let About { tenant, version } = about;
        match begun {
            Begun::Done { lane, left_open } => {
                if left_open {
                    info!(%tenant, "another instance began a refresh and did not end it");
                    self.keeper.left_open(&tenant, version);
                }
                self.held.extend(lane.map(|lane| (tenant.clone(), lane)));
                self.keeper.begun(&tenant, version, Write::Done(()), now);
            }
            Begun::Busy(retry) => self.keeper.occupied(&tenant, version, retry, now),
            Begun::Overtaken => {
                self.keeper.occupied(&tenant, version, Duration::ZERO, now);
                let missing = Missing::AsTold { known: self.known };
                let look = Look { missing, waiting: Vec::new() };
                self.desk.add_look(tenant, look);
            }
            Begun::Damaged(error) => {
                warn!(%tenant, %error, "store failed");
                self.keeper.damaged(&tenant, version, now);
            }
            Begun::Failed(error) => {
                let failed = write(&tenant, Err(error));
                self.keeper.begun(&tenant, version, failed, now);
            }
        }
    }

    /// It is an errand's turn: where the lane is shared, when it is ours.
    pub(super) fn errand_turn(&mut self, api_key: ApiKeyName, id: u64) {
        if self.bench.store.is_shared() && self.errands.is_wanted(id) {
            self.bench.take_lane(api_key, id);
        } else {
            self.lend(&api_key, id, None);
        }
    }

    pub(super) fn errand_turn_came(
        &mut self,
        api_key: &ApiKeyName,
        id: u64,
        turn: Result<Turn, StoreError>,
        now: Now,
    ) {
        match turn {
            Ok(Turn::Held(lane)) => self.lend(api_key, id, Some(lane)),
            Ok(Turn::Busy(retry)) => self.keeper.errand_occupied(api_key, id, retry, now),
            Err(error) => {
                warn!(%api_key, %error, "store failed");
                self.keeper.errand_occupied(api_key, id, ERRAND_AGAIN_AFTER, now);
            }
        }
    }

    /// Others have changed these tenants. Whoever waits does so for those that are not known here.
    pub(super) fn look_at(
        &mut self,
        tenants: impl IntoIterator<Item = (TenantName, Missing)>,
        waiting: &mpsc::Sender<()>,
    ) {
        if self.draining.is_some() {
            return;
        }
        for (tenant, missing) in tenants {
            let record = self.records.get(&tenant);
            if let Some(record) = record.filter(|_| self.keeper.is_at_work(&tenant)) {
                // the look waits for its end
                let ours = Ours::of(record, &self.keeper);
                if ours.grant.refresh_begun_at.is_some() {
                    self.bench.show_begun(ours, missing);
                }
            }
            let waiting = if record.is_some() { Vec::new() } else { vec![waiting.clone()] };
            self.desk.add_look(tenant, Look { missing, waiting });
        }
    }

    /// Looks at what is in the store in another way than here.
    pub(super) fn compare(
        &mut self,
        grants: &[Grant],
        missing: Missing,
        (told, known): &(BTreeSet<TenantName>, Revision),
        waiting: &mpsc::Sender<()>,
    ) {
        self.known = *known;
        let is_known = |there: &Grant| {
            let ours = self.records.get(&there.tenant).map(|record| &record.grant);
            ours.is_some_and(|ours| {
                is_same(ours, there)
                    && ours.state == there.state
                    && ours.paused == there.paused
                    && ours.weight == there.weight
            })
        };
        let others = grants.iter().filter(|there| !is_known(there));
        let mut look: Vec<TenantName> = others.map(|there| there.tenant.clone()).collect();
        let there: BTreeSet<&TenantName> = grants.iter().map(|grant| &grant.tenant).collect();
        look.extend(self.records.keys().filter(|tenant| !there.contains(tenant)).cloned());
        let look = look.into_iter().map(|tenant| {
            let as_told = Missing::AsTold { known: *known };
            let missing = if told.contains(&tenant) { as_told } else { missing };
            (tenant, missing)
        });
        self.look_at(look, waiting);
    }

    pub(super) fn look_again(&mut self, tenant: TenantName, look: Look) {
        if self.draining.is_none() {
            self.desk.add_look(tenant, look);
        }
    }

    /// The tenant is set aside until this ends.
    pub(super) fn looked(
        &mut self,
        tenant: &TenantName,
        missing: Missing,
        result: Result<Seen, StoreError>,
        now: Now,
    ) {
        match result {
            Ok(Seen { there: Some(there), .. }) if self.was_removed(&there, now) => {
                warn!(%tenant, "the store has lost a removal; the tenant is removed again");
                self.keeper.release(tenant, now);
                // nobody waits for it
                let (reply, _) = oneshot::channel();
                self.desk.add(tenant.clone(), Job::Remove { reply });
            }
            Ok(Seen { there: Some(there), .. }) => self.take_over(tenant, *there, now),
            Ok(Seen { there: None, was_removed }) if self.records.contains_key(tenant) => {
                info!(%tenant, "another instance has removed the tenant");
                if was_removed {
                    self.remember_removal(tenant, now);
                }
                self.keeper.remove(tenant, now);
                self.forget(tenant);
            }
            Ok(Seen { there: None, .. }) => self.keeper.release(tenant, now),
            Err(error) => {
                warn!(%tenant, %error, "store failed");
                self.keeper.release(tenant, now);
                // who waits is told that it is not known: that is true
                self.bench.look_again(tenant.clone(), Look { missing, waiting: Vec::new() });
            }
        }
    }

    pub(super) fn remember_removal(&mut self, tenant: &TenantName, now: Now) {
        if let Some(Record { grant, .. }) = self.records.get(tenant) {
            let mark = (grant.version, grant.handed_in);
            self.removals.remember(tenant.clone(), mark, now.mono);
        }
    }

    /// Whether this, which is not known here, is a grant that was removed, or an older one that
    /// became it. Others of the name were handed in with another token.
    fn was_removed(&self, there: &Grant, now: Now) -> bool {
        let last = self.removals.last(&there.tenant, now.mono);
        let is_it = |(version, handed_in): &(u64, Option<TokenDigest>)| {
            there.version <= *version && there.handed_in == *handed_in
        };
        !self.records.contains_key(&there.tenant) && last.is_some_and(is_it)
    }

    fn take_over(&mut self, tenant: &TenantName, mut there: Grant, now: Now) {
        let Some(record) = self.records.get_mut(tenant) else {
            return self.adopt(tenant, there, now);
        };
        let ours = &mut record.grant;
        there.last_used_at = there.last_used_at.max(ours.last_used_at);
        let is_same_grant = is_same(ours, &there);
        let unstored = record.pending.as_ref().filter(|_| there.version > ours.version);
        if unstored.is_some_and(|ours| ours.tokens.refresh != there.tokens.refresh) {
            error!(%tenant, "somebody else has stored newer tokens; ours are dropped");
        }
        // what came here replaces a verdict about the tokens before
        let keeps_state = ours.state == there.state || record.pending.is_some();
        if there.version < ours.version || (is_same_grant && keeps_state) {
            let (paused, weight) = (there.paused, there.weight);
            let changes = (ours.paused, ours.weight) != (paused, weight);
            ours.weight = weight;
            if changes {
                self.set_paused(tenant, paused, now);
            }
            self.keeper.release(tenant, now);
        } else {
            self.adopt(tenant, there, now);
        }
    }
}
