//! Any store, with the time and the failures of each operation counted.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use super::{
    Authorization, Changed, Changes, Client, ClientKeys, DayCount, Forgotten, Grant, InstanceInfo,
    KeyRotation, LaneLease, LaneTerms, LaneTurn, LastTold, NewGrant, OpenRefresh, Put, Revision,
    RotateError, SharedTurnstile, Store, StoreError, Tokens,
};
use crate::clock::Clock;
use crate::engine::{ApiKeyName, ClientName, Day, Mono, TenantName, Unix};
use crate::secret::{KeyId, StateDigest};
use crate::telemetry::Metrics;

/// A store that counts what it does; the operations are named as in [`Store`].
pub struct Measured {
    inner: Arc<dyn Store>,
    metrics: Metrics,
    clock: Clock,
    /// The last try to count calls failed.
    failing: Arc<AtomicBool>,
}

impl Measured {
    /// The same store, counted.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, metrics: Metrics, clock: Clock) -> Self {
        Self { inner, metrics, clock, failing: Arc::default() }
    }

    /// Whether the last try to count calls failed, for as long as it is true.
    #[must_use]
    pub fn failing(&self) -> Arc<AtomicBool> {
        self.failing.clone()
    }

    fn counted<T>(
        &self,
        op: &'static str,
        started: Mono,
        result: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        // a refusal is an answer, not a failure of the store
        let works = match &result {
            Ok(_) | Err(StoreError::Conflict { .. } | StoreError::Exists { .. }) => true,
            Err(StoreError::Unavailable { .. } | StoreError::Corrupt { .. }) => false,
        };
        self.metrics.store(op, self.clock.now().mono.since(started), works);
        if op == "reserve" {
            self.failing.store(!works, Ordering::Relaxed);
        }
        result
    }
}

/// Implements one operation: ask, count, answer.
macro_rules! measured {
    ($self:ident, $op:ident ( $($arg:expr),* )) => {{
        let started = $self.clock.now().mono;
        let result = $self.inner.$op($($arg),*).await;
        $self.counted(stringify!($op), started, result)
    }};
}

#[async_trait]
impl Store for Measured {
    async fn reserve(
        &self,
        api_key: &ApiKeyName,
        day: Day,
        want: u32,
        limit: u64,
    ) -> Result<DayCount, StoreError> {
        measured!(self, reserve(api_key, day, want, limit))
    }

    async fn release(&self, api_key: &ApiKeyName, day: Day, count: u32) -> Result<(), StoreError> {
        measured!(self, release(api_key, day, count))
    }

    async fn grants(&self) -> Result<Vec<Grant>, StoreError> {
        measured!(self, grants())
    }

    async fn grant(&self, tenant: &TenantName) -> Result<Option<Grant>, StoreError> {
        measured!(self, grant(tenant))
    }

    async fn put_grant(&self, grant: NewGrant) -> Result<(Put, Grant), StoreError> {
        measured!(self, put_grant(grant))
    }

    async fn restore_grant(&self, grant: &Grant) -> Result<bool, StoreError> {
        measured!(self, restore_grant(grant))
    }

    async fn remove_grant(&self, tenant: &TenantName) -> Result<bool, StoreError> {
        measured!(self, remove_grant(tenant))
    }

    async fn begin_refresh(
        &self,
        tenant: &TenantName,
        version: u64,
        at: Unix,
    ) -> Result<(), StoreError> {
        measured!(self, begin_refresh(tenant, version, at))
    }

    async fn post_refresh(
        &self,
        tenant: &TenantName,
        version: u64,
        at: Unix,
    ) -> Result<(), StoreError> {
        measured!(self, post_refresh(tenant, version, at))
    }

    async fn forget_refresh(&self, tenant: &TenantName, version: u64) -> Result<(), StoreError> {
        measured!(self, forget_refresh(tenant, version))
    }

    async fn receive_refresh(
        &self,
        tenant: &TenantName,
        version: u64,
        tokens: &Tokens,
        at: Unix,
    ) -> Result<(), StoreError> {
        measured!(self, receive_refresh(tenant, version, tokens, at))
    }

    async fn open_refreshes(&self) -> Result<Vec<OpenRefresh>, StoreError> {
        measured!(self, open_refreshes())
    }

    async fn abort_refresh(&self, tenant: &TenantName, version: u64) -> Result<(), StoreError> {
        measured!(self, abort_refresh(tenant, version))
    }

    async fn finish_refresh(
        &self,
        tenant: &TenantName,
        version: u64,
        tokens: &Tokens,
        at: Unix,
    ) -> Result<u64, StoreError> {
        measured!(self, finish_refresh(tenant, version, tokens, at))
    }

    async fn fail_grant(
        &self,
        tenant: &TenantName,
        version: u64,
        reason: &str,
    ) -> Result<(), StoreError> {
        measured!(self, fail_grant(tenant, version, reason))
    }

    async fn take_lane(
        &self,
        api_key: &ApiKeyName,
        terms: LaneTerms,
    ) -> Result<LaneTurn, StoreError> {
        measured!(self, take_lane(api_key, terms))
    }

    async fn keep_lane(
        &self,
        api_key: &ApiKeyName,
        lease: LaneLease,
        hold: Duration,
        forgotten: Forgotten,
    ) -> Result<bool, StoreError> {
        measured!(self, keep_lane(api_key, lease, hold, forgotten))
    }

    async fn leave_lane(
        &self,
        api_key: &ApiKeyName,
        lease: LaneLease,
        rest: Duration,
    ) -> Result<(), StoreError> {
        measured!(self, leave_lane(api_key, lease, rest))
    }

    async fn changes(&self, since: Option<Revision>) -> Result<Changes, StoreError> {
        measured!(self, changes(since))
    }

    async fn last_told(&self, thing: &Changed) -> Result<LastTold, StoreError> {
        measured!(self, last_told(thing))
    }

    fn turnstile(&self, instance: &InstanceInfo) -> Option<Arc<dyn SharedTurnstile>> {
        self.inner.turnstile(instance)
    }

    // waiting is no work
    async fn changed(&self) {
        self.inner.changed().await;
    }

    fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }

    async fn pause_tenant(&self, tenant: &TenantName, paused: bool) -> Result<bool, StoreError> {
        measured!(self, pause_tenant(tenant, paused))
    }

    async fn record_use(&self, used: &[(TenantName, Unix)]) -> Result<(), StoreError> {
        measured!(self, record_use(used))
    }

    async fn pause_api_key(&self, api_key: &ApiKeyName, paused: bool) -> Result<(), StoreError> {
        measured!(self, pause_api_key(api_key, paused))
    }

    async fn paused_api_keys(&self) -> Result<BTreeSet<ApiKeyName>, StoreError> {
        measured!(self, paused_api_keys())
    }

    async fn clients(&self) -> Result<Vec<Client>, StoreError> {
        measured!(self, clients())
    }

    async fn add_client(&self, client: Client) -> Result<(), StoreError> {
        measured!(self, add_client(client))
    }

    async fn change_client_keys(
        &self,
        name: &ClientName,
        keys: ClientKeys,
    ) -> Result<bool, StoreError> {
        measured!(self, change_client_keys(name, keys))
    }

    async fn record_client_use(&self, used: &[(ClientName, Unix)]) -> Result<(), StoreError> {
        measured!(self, record_client_use(used))
    }

    async fn remove_client(&self, name: &ClientName) -> Result<bool, StoreError> {
        measured!(self, remove_client(name))
    }

    fn key_ids(&self) -> Vec<KeyId> {
        self.inner.key_ids()
    }

    // its steps are counted by nobody: it takes as long as there are tenants
    async fn rotate_key(&self) -> Result<KeyRotation, RotateError> {
        self.inner.rotate_key().await
    }

    async fn begin_authorization(&self, new: Authorization, now: Unix) -> Result<(), StoreError> {
        measured!(self, begin_authorization(new, now))
    }

    async fn take_authorization(
        &self,
        state: &StateDigest,
    ) -> Result<Option<Authorization>, StoreError> {
        measured!(self, take_authorization(state))
    }

    async fn ping(&self) -> Result<(), StoreError> {
        measured!(self, ping())
    }

    async fn close(&self) -> Result<(), StoreError> {
        measured!(self, close())
    }
}
