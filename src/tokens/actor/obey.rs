//! The machine's orders: work for the bench, rows for the table, news for those who listen.

use tracing::{error, warn};

use super::Actor;
use crate::engine::token::{Alarm, Command, Readiness};
use crate::engine::{ApiKeyName, TenantName};
use crate::store::GrantState;
use crate::tokens::lane::HeldLane;
use crate::tokens::table::{Row, Usable};
use crate::tokens::work::{About, Done};
use crate::tokens::{RefreshAnswer, TenantChange, TenantView};

impl Actor {
    pub(super) fn obey_all(&mut self) {
        while let Some(command) = self.keeper.poll_command() {
            self.obey(command);
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Begin { tenant, version } => {
                self.begin(About { tenant, version });
            }
            Command::Refresh { tenant, version, .. } => self.request(About { tenant, version }),
            Command::Persist { tenant, version } => {
                let pending = self.records.get(&tenant).and_then(|record| record.pending.clone());
                if let Some(pending) = pending {
                    self.bench.persist(About { tenant, version }, pending);
                } else {
                    // Cannot be: the machine orders this only after tokens were received. No panic
                    // all the same, it would take the tokens of all other tenants along.
                    error!(%tenant, "there are no new tokens to store");
                }
            }
            Command::Abort { tenant, version } => self.abort(About { tenant, version }),
            Command::Reread { tenant, version } => self.read_again(About { tenant, version }),
            Command::Fail { tenant, version, reason } => {
                if let Some(record) = self.records.get_mut(&tenant) {
                    let reason = reason.to_string();
                    record.grant.state = GrantState::NeedsAuthorization { reason };
                }
                warn!(%tenant, %reason, "tenant must be connected again");
                self.bench.fail(About { tenant, version }, reason);
            }
            Command::Changed { tenant, readiness } => {
                self.publish(&tenant);
                self.announce(&tenant, readiness);
            }
            Command::Errand { api_key, id } => self.errand_turn(api_key, id),
            Command::Forget { tenant } => self.forget(&tenant),
            Command::Alarm { tenant, alarm } => self.alarm(&tenant, alarm),
        }
    }

    /// Lends the lane to an errand.
    pub(super) fn lend(&mut self, api_key: &ApiKeyName, id: u64, mut lane: Option<HeldLane>) {
        let (key, requests) = (self.keys.get(api_key), self.requests_in.upgrade());
        if let Some(lane) = lane.as_mut().filter(|_| self.errands.is_wanted(id)) {
            lane.sends(self.bench.rest);
        }
        let results = self.bench.results.clone();
        if !self.errands.lend((id, api_key), key, requests, results, lane) {
            self.keeper.errand_ended(api_key, id, None, self.clock.now());
        }
    }

    /// Sends a token request; its intent is durable.
    fn request(&mut self, about: About) {
        let lane = self.held.remove(&about.tenant);
        let record = self.records.get(&about.tenant);
        let key = record.and_then(|record| self.keys.get(&record.grant.api_key));
        if let (Some(record), Some(key)) = (record, key) {
            let token = record.grant.tokens.refresh.clone();
            let (key, at) = (key.clone(), self.clock.now().unix);
            self.bench.refresh(about, (key, token), (lane, self.bench.rest), at);
        } else {
            let detail = "the API key is not configured".to_owned();
            let answer = RefreshAnswer::NotSent { detail };
            self.bench.spawn(async move { Done::Refreshed(about, answer, lane) });
        }
    }

    /// Brings the tenant's row up to date with what is stored.
    pub(super) fn publish(&self, tenant: &TenantName) {
        let Some(record) = self.records.get(tenant) else { return };
        let Some(state) = self.keeper.readiness(tenant).cloned() else { return };
        let grant = &record.grant;
        let unstored = record.pending.as_ref().zip(self.keeper.serves_unstored(tenant));
        let (tokens, version) = unstored
            .map_or((&grant.tokens, grant.version), |(pending, new)| (&pending.tokens, new));
        let usable = tokens.access.as_ref().zip(self.keeper.usable_until(tenant));
        let usable = usable.and_then(|(token, times)| Usable::new(token, version, times));
        let view = TenantView { api_key: grant.api_key.clone(), state };
        self.table.set(tenant, Row::new(view, usable));
    }

    /// Tells those who listen.
    pub(super) fn announce(&mut self, tenant: &TenantName, readiness: Readiness) {
        self.counts_stale = true;
        let now = self.clock.now();
        let Some(paused) = self.records.get(tenant).map(|record| record.grant.paused) else {
            return;
        };
        let state = self.state(tenant, paused, now);
        let Some(record) = self.records.get_mut(tenant) else { return };
        let grant = &record.grant;
        let change = TenantChange {
            tenant: tenant.clone(),
            api_key: grant.api_key.clone(),
            readiness: Some(readiness),
            paused,
            weight: grant.weight,
        };
        // At the end of the program nobody listens any more.
        let _ = self.changes.send(change);
        if state != record.told {
            if let Some((state, reason)) = &state {
                let (key, reason) = (&grant.api_key, reason.as_deref());
                self.observer.state_changed(tenant, key, state.as_str(), reason);
            }
            record.told = state;
        }
    }

    /// The tenant is gone from the store.
    pub(super) fn forget(&mut self, tenant: &TenantName) {
        self.counts_stale = true;
        self.table.remove(tenant);
        let Some(record) = self.records.remove(tenant) else { return };
        let change = TenantChange {
            tenant: tenant.clone(),
            api_key: record.grant.api_key,
            readiness: None,
            paused: record.grant.paused,
            weight: record.grant.weight,
        };
        // As above.
        let _ = self.changes.send(change);
    }

    fn alarm(&mut self, tenant: &TenantName, alarm: Alarm) {
        self.counts_stale = true;
        let Some(record) = self.records.get(tenant) else { return };
        let api_key = &record.grant.api_key;
        if alarm == Alarm::RefreshTokenAgeing {
            warn!(%tenant, %api_key, "{alarm}");
        } else {
            error!(%tenant, %api_key, "{alarm}");
        }
        self.observer.alarm(tenant, api_key, alarm);
    }
}
