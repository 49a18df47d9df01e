//! The store that forgets: plain maps behind one lock, for tries and tests.
//!
//! It keeps the whole contract of the port but durability, so that everything above can be tried
//! without a disk. The lock is never held across an await, and no method waits for anything else.
//! One of the second kind stands for a store that several instances share.

mod authorizations;
mod days;
mod lanes;
mod shared;
mod whole;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::Clock;
use crate::engine::{ApiKeyName, ClientName, Day, TenantName, Unix};
use crate::secret::{StateDigest, TokenDigest};
use crate::store::{
    Authorization, Changed, Changes, Client, ClientKeys, DayCount, Forgotten, Grant, GrantState,
    LaneLease, LaneTerms, LaneTurn, LastTold, NewGrant, OpenRefresh, Put, Revision, Store,
    StoreError, Tokens, WholeStore,
};
use shared::{History, Shared};

/// A store in memory.
#[derive(Default)]
pub struct MemoryStore {
    state: Mutex<State>,
    shared: Option<Shared>,
}

#[derive(Clone, Default)]
struct State {
    days: BTreeMap<ApiKeyName, BTreeMap<Day, u64>>,
    grants: BTreeMap<TenantName, Grant>,
    /// The highest version of a grant that was removed; new grants start above it.
    version_floor: u64,
    paused_api_keys: BTreeSet<ApiKeyName>,
    clients: BTreeMap<ClientName, Client>,
    /// In the order in which they were begun.
    authorizations: VecDeque<Authorization>,
    history: History,
    closed: bool,
}

impl MemoryStore {
    /// A store that instances in one process share: the token lanes are real, on the time of
    /// `clock`, and changes are told.
    #[must_use]
    pub fn shared(clock: Clock) -> Self {
        Self { state: Mutex::default(), shared: Some(Shared::new(clock)) }
    }

    /// Remembers what was changed, for the other instances of a shared store.
    fn note(&self, state: &mut State, changed: Changed) {
        if let Some(shared) = &self.shared {
            state.history.note(changed, shared.run());
            shared.tell();
        }
    }

    /// The state, if the store is open. A panic elsewhere leaves it whole: each change below is
    /// made in one go.
    fn state(&self, attempt: &'static str) -> Result<MutexGuard<'_, State>, StoreError> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return Err(StoreError::closed(attempt));
        }
        Ok(state)
    }
}

impl State {
    /// The grant of `tenant`, if its tokens are still those of `version`.
    fn at_version(&mut self, tenant: &TenantName, version: u64) -> Result<&mut Grant, StoreError> {
        self.grants
            .get_mut(tenant)
            .filter(|grant| grant.version == version)
            .ok_or_else(|| StoreError::grant_conflict(tenant))
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn reserve(
        &self,
        api_key: &ApiKeyName,
        day: Day,
        want: u32,
        limit: u64,
    ) -> Result<DayCount, StoreError> {
        let mut state = self.state("reserve calls of the day")?;
        let days = state.days.entry(api_key.clone()).or_default();
        Ok(days::reserve(days, day, want, limit))
    }

    async fn release(&self, api_key: &ApiKeyName, day: Day, count: u32) -> Result<(), StoreError> {
        let mut state = self.state("release calls of the day")?;
        if let Some(total) = state.days.get_mut(api_key).and_then(|days| days.get_mut(&day)) {
            *total = total.saturating_sub(u64::from(count));
        }
        Ok(())
    }

    async fn grants(&self) -> Result<Vec<Grant>, StoreError> {
        Ok(self.state("read the grants")?.grants.values().cloned().collect())
    }

    async fn grant(&self, tenant: &TenantName) -> Result<Option<Grant>, StoreError> {
        Ok(self.state("read a grant")?.grants.get(tenant).cloned())
    }

    async fn put_grant(&self, new: NewGrant) -> Result<(Put, Grant), StoreError> {
        let mut state = self.state("store a grant")?;
        let old = state.grants.get(&new.tenant);
        let grant = Grant {
            tenant: new.tenant.clone(),
            api_key: new.api_key,
            version: old.map_or(state.version_floor, |old| old.version) + 1,
            handed_in: Some(TokenDigest::of(&new.tokens.refresh)),
            tokens: new.tokens,
            state: GrantState::Ready,
            refresh_begun_at: None,
            last_refreshed_at: None,
            last_used_at: old.and_then(|old| old.last_used_at),
            paused: old.is_some_and(|old| old.paused),
            weight: new.weight.unwrap_or_else(|| old.map_or(1, |old| old.weight)),
        };
        let put = match state.grants.insert(new.tenant, grant.clone()) {
            Some(_) => Put::Replaced,
            None => Put::Created,
        };
        self.note(&mut state, Changed::Tenant(grant.tenant.clone()));
        Ok((put, grant))
    }

    async fn remove_grant(&self, tenant: &TenantName) -> Result<bool, StoreError> {
        let mut state = self.state("remove a grant")?;
        state.authorizations.retain(|begun| begun.tenant != *tenant);
        let removed = state.grants.remove(tenant);
        let version = removed.as_ref().map_or(0, |removed| removed.version);
        state.version_floor = state.version_floor.max(version);
        self.note(&mut state, Changed::Tenant(tenant.clone()));
        Ok(removed.is_some())
    }

    async fn begin_refresh(
        &self,
        tenant: &TenantName,
        version: u64,
        at: Unix,
    ) -> Result<(), StoreError> {
        let mut state = self.state("record the begin of a refresh")?;
        state.at_version(tenant, version)?.refresh_begun_at = Some(at);
        Ok(())
    }

    async fn post_refresh(&self, _: &TenantName, _: u64, _: Unix) -> Result<(), StoreError> {
        self.state("journal a token request").map(drop)
    }

    async fn receive_refresh(
        &self,
        _: &TenantName,
        _: u64,
        _: &Tokens,
        _: Unix,
    ) -> Result<(), StoreError> {
        self.state("journal new tokens").map(drop)
    }

    async fn open_refreshes(&self) -> Result<Vec<OpenRefresh>, StoreError> {
        self.state("read the journal of refreshes").map(|_| Vec::new())
    }

    async fn abort_refresh(&self, tenant: &TenantName, version: u64) -> Result<(), StoreError> {
        let mut state = self.state("take back the begin of a refresh")?;
        state.at_version(tenant, version)?.refresh_begun_at = None;
        Ok(())
    }

    async fn finish_refresh(
        &self,
        tenant: &TenantName,
        version: u64,
        tokens: &Tokens,
        at: Unix,
    ) -> Result<u64, StoreError> {
        let mut state = self.state("store refreshed tokens")?;
        let next = version.saturating_add(1);
        if let Ok(grant) = state.at_version(tenant, next)
            && grant.tokens.same_as(tokens)
        {
            return Ok(next);
        }
        let grant = state.at_version(tenant, version)?;
        grant.version = next;
        grant.tokens = tokens.clone();
        grant.state = GrantState::Ready;
        grant.refresh_begun_at = None;
        grant.last_refreshed_at = Some(at);
        self.note(&mut state, Changed::Tenant(tenant.clone()));
        Ok(next)
    }

    async fn fail_grant(
        &self,
        tenant: &TenantName,
        version: u64,
        reason: &str,
    ) -> Result<(), StoreError> {
        let mut state = self.state("record a dead grant")?;
        let grant = state.at_version(tenant, version)?;
        grant.state = GrantState::NeedsAuthorization { reason: reason.to_owned() };
        grant.refresh_begun_at = None;
        self.note(&mut state, Changed::Tenant(tenant.clone()));
        Ok(())
    }

    async fn pause_tenant(&self, tenant: &TenantName, paused: bool) -> Result<bool, StoreError> {
        let mut state = self.state("pause a tenant")?;
        let Some(grant) = state.grants.get_mut(tenant) else { return Ok(false) };
        grant.paused = paused;
        self.note(&mut state, Changed::Tenant(tenant.clone()));
        Ok(true)
    }

    async fn take_lane(
        &self,
        api_key: &ApiKeyName,
        terms: LaneTerms,
    ) -> Result<LaneTurn, StoreError> {
        let Some(shared) = &self.shared else { return Ok(LaneTurn::Yours(LaneLease::ALONE)) };
        self.state("take a token lane").map(|_| shared.take_lane(api_key, terms))
    }

    async fn keep_lane(
        &self,
        api_key: &ApiKeyName,
        lease: LaneLease,
        hold: Duration,
        forgotten: Forgotten,
    ) -> Result<bool, StoreError> {
        let Some(shared) = &self.shared else { return Ok(true) };
        self.state("keep a token lane").map(|_| shared.keep_lane(api_key, lease, hold, forgotten))
    }

    async fn leave_lane(
        &self,
        api_key: &ApiKeyName,
        lease: LaneLease,
        rest: Duration,
    ) -> Result<(), StoreError> {
        let Some(shared) = &self.shared else { return Ok(()) };
        self.state("leave a token lane").map(|_| shared.leave_lane(api_key, lease, rest))
    }

    async fn changes(&self, since: Option<Revision>) -> Result<Changes, StoreError> {
        let mut state = self.state("read what was changed")?;
        let Some(shared) = &self.shared else { return Ok(Changes::none(since)) };
        Ok(state.history.after(since, shared.run()))
    }

    async fn last_told(&self, thing: &Changed) -> Result<LastTold, StoreError> {
        Ok(self.state("read what was changed")?.history.last_told(thing))
    }

    async fn restore_grant(&self, grant: &Grant) -> Result<bool, StoreError> {
        let mut state = self.state("restore a grant")?;
        if state.grants.get(&grant.tenant).is_some_and(|there| there.version >= grant.version) {
            return Ok(false);
        }
        state.grants.insert(grant.tenant.clone(), grant.clone());
        self.note(&mut state, Changed::Tenant(grant.tenant.clone()));
        Ok(true)
    }

    async fn changed(&self) {
        let Some(shared) = &self.shared else { return std::future::pending().await };
        shared.told().await;
    }

    fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    fn whole(&self) -> Option<&dyn WholeStore> {
        Some(self)
    }

    async fn record_use(&self, used: &[(TenantName, Unix)]) -> Result<(), StoreError> {
        let mut state = self.state("record the use of tenants")?;
        for (tenant, at) in used {
            if let Some(grant) = state.grants.get_mut(tenant) {
                grant.last_used_at = grant.last_used_at.max(Some(*at));
            }
        }
        Ok(())
    }

    async fn pause_api_key(&self, api_key: &ApiKeyName, paused: bool) -> Result<(), StoreError> {
        let mut state = self.state("pause an API key")?;
        if paused {
            state.paused_api_keys.insert(api_key.clone());
        } else {
            state.paused_api_keys.remove(api_key);
        }
        self.note(&mut state, Changed::ApiKey(api_key.clone()));
        Ok(())
    }

    async fn paused_api_keys(&self) -> Result<BTreeSet<ApiKeyName>, StoreError> {
        Ok(self.state("read the paused API keys")?.paused_api_keys.clone())
    }

    async fn clients(&self) -> Result<Vec<Client>, StoreError> {
        Ok(self.state("read the clients")?.clients.values().cloned().collect())
    }

    async fn add_client(&self, client: Client) -> Result<(), StoreError> {
        let mut state = self.state("add a client")?;
        match state.clients.get(&client.name) {
            Some(there) if there.keys.current == client.keys.current => return Ok(()),
            Some(_) => return Err(StoreError::client_exists(&client.name)),
            None => {}
        }
        if state.clients.values().any(|there| there.keys.current == client.keys.current) {
            return Err(StoreError::client_key_exists());
        }
        let name = client.name.clone();
        state.clients.insert(name.clone(), client);
        self.note(&mut state, Changed::Client(name));
        Ok(())
    }

    async fn change_client_keys(
        &self,
        name: &ClientName,
        keys: ClientKeys,
    ) -> Result<bool, StoreError> {
        let mut state = self.state("change a client's keys")?;
        let holds = |there: &Client| there.name != *name && there.keys.current == keys.current;
        if state.clients.values().any(holds) {
            return Err(StoreError::client_key_exists());
        }
        let Some(client) = state.clients.get_mut(name) else { return Ok(false) };
        client.keys = keys;
        self.note(&mut state, Changed::Client(name.clone()));
        Ok(true)
    }

    async fn record_client_use(&self, used: &[(ClientName, Unix)]) -> Result<(), StoreError> {
        let mut state = self.state("record the use of clients")?;
        for (name, at) in used {
            if let Some(client) = state.clients.get_mut(name) {
                client.last_used_at = client.last_used_at.max(Some(*at));
            }
        }
        Ok(())
    }

    async fn remove_client(&self, name: &ClientName) -> Result<bool, StoreError> {
        let mut state = self.state("remove a client")?;
        let removed = state.clients.remove(name).is_some();
        self.note(&mut state, Changed::Client(name.clone()));
        Ok(removed)
    }

    async fn begin_authorization(&self, new: Authorization, now: Unix) -> Result<(), StoreError> {
        self.state("remember an authorization")?.begin_authorization(new, now);
        Ok(())
    }

    async fn take_authorization(
        &self,
        state: &StateDigest,
    ) -> Result<Option<Authorization>, StoreError> {
        Ok(self.state("take an authorization")?.take_authorization(state))
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.state("write").map(drop)
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        Ok(())
    }
}
