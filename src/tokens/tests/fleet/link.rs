//! An instance's link to the shared store: it can stall for a while, be slow for one operation, or
//! be cut for ever, which is how an instance dies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use async_trait::async_trait;

use super::*;
use crate::engine::{ClientName, Day};
use crate::secret::StateDigest;
use crate::store::{
    Authorization, Changes, Client, ClientKeys, DayCount, Forgotten, LaneLease, LaneTurn, LastTold,
    OpenRefresh,
};

/// Operations that need no server.
const LOCAL: [&str; 3] = ["post_refresh", "receive_refresh", "open_refreshes"];

pub(super) struct Link {
    inner: Arc<dyn Store>,
    clock: Clock,
    faults: Mutex<Faults>,
}

#[derive(Default)]
struct Faults {
    dead: bool,
    /// Nothing passes before then.
    stalled_until: Mono,
    /// After the next call of this kind the instance is stopped for so long.
    stop_after: Option<(&'static str, Duration)>,
    slow: BTreeMap<&'static str, Duration>,
    failing: BTreeSet<&'static str>,
    /// The store cannot be reached.
    is_away: bool,
    /// What the store has of this tenant cannot be understood.
    damaged: Option<TenantName>,
    forgotten: Vec<(TenantName, u64)>,
}

impl Link {
    pub(super) fn new(inner: Arc<dyn Store>, clock: Clock) -> Self {
        Self { inner, clock, faults: Mutex::default() }
    }

    /// The instance dies: nothing that it asks for happens any more.
    pub(super) fn cut(&self) {
        self.faults.lock().unwrap().dead = true;
    }

    /// The instance is stopped for `span` right after its next call of `op`.
    pub(super) fn stop_after(&self, op: &'static str, span: Duration) {
        self.faults.lock().unwrap().stop_after = Some((op, span));
    }

    /// Calls of `op` take so long.
    pub(super) fn slow(&self, op: &'static str, span: Duration) {
        self.faults.lock().unwrap().slow.insert(op, span);
    }

    pub(super) fn fail(&self, op: &'static str) {
        self.faults.lock().unwrap().failing.insert(op);
    }

    pub(super) fn mend(&self) {
        self.faults.lock().unwrap().failing.clear();
    }

    /// The store cannot be reached, or can be again. What is written on this machine goes on.
    pub(super) fn set_away(&self, is_away: bool) {
        self.faults.lock().unwrap().is_away = is_away;
    }

    pub(super) fn damage(&self, tenant: &TenantName) {
        self.faults.lock().unwrap().damaged = Some(tenant.clone());
    }

    /// The refreshes that this machine need not remember any more.
    pub(super) fn forgotten(&self) -> Vec<(TenantName, u64)> {
        self.faults.lock().unwrap().forgotten.clone()
    }

    async fn pass(&self) {
        loop {
            let (dead, until) = {
                let faults = self.faults.lock().unwrap();
                (faults.dead, faults.stalled_until)
            };
            if dead {
                std::future::pending::<()>().await;
            }
            if until <= self.clock.mono() {
                return;
            }
            self.clock.sleep_until(until).await;
        }
    }

    async fn enter(&self, op: &'static str) -> Result<(), StoreError> {
        self.pass().await;
        let (slow, fails) = {
            let faults = self.faults.lock().unwrap();
            let fails = faults.is_away && !LOCAL.contains(&op);
            (faults.slow.get(op).copied(), fails || faults.failing.contains(op))
        };
        tokio::time::sleep(slow.unwrap_or_default()).await;
        if fails {
            return Err(StoreError::Unavailable { attempt: op, cause: "as told".into() });
        }
        Ok(())
    }

    async fn leave(&self, op: &'static str) {
        {
            let mut faults = self.faults.lock().unwrap();
            if let Some((_, span)) = faults.stop_after.take_if(|(at, _)| *at == op) {
                faults.stalled_until = self.clock.mono().plus(span);
            }
        }
        self.pass().await;
    }
}

/// Passes one operation through.
macro_rules! through {
    ($self:ident, $op:ident ( $($arg:expr),* )) => {{
        $self.enter(stringify!($op)).await?;
        let result = $self.inner.$op($($arg),*).await;
        $self.leave(stringify!($op)).await;
        result
    }};
}

#[async_trait]
impl Store for Link {
    async fn reserve(
        &self,
        api_key: &ApiKeyName,
        day: Day,
        want: u32,
        limit: u64,
    ) -> Result<DayCount, StoreError> {
        through!(self, reserve(api_key, day, want, limit))
    }

    async fn release(&self, api_key: &ApiKeyName, day: Day, count: u32) -> Result<(), StoreError> {
        through!(self, release(api_key, day, count))
    }

    async fn grants(&self) -> Result<Vec<Grant>, StoreError> {
        through!(self, grants())
    }

    async fn grant(&self, tenant: &TenantName) -> Result<Option<Grant>, StoreError> {
        if self.faults.lock().unwrap().damaged.as_ref() == Some(tenant) {
            return Err(StoreError::Corrupt { attempt: "read a grant", cause: "as told".into() });
        }
        through!(self, grant(tenant))
    }

    async fn put_grant(&self, grant: NewGrant) -> Result<(Put, Grant), StoreError> {
        through!(self, put_grant(grant))
    }

    async fn remove_grant(&self, tenant: &TenantName) -> Result<bool, StoreError> {
        through!(self, remove_grant(tenant))
    }

    async fn begin_refresh(&self, tenant: &TenantName, v: u64, at: Unix) -> Result<(), StoreError> {
        through!(self, begin_refresh(tenant, v, at))
    }

    async fn post_refresh(&self, tenant: &TenantName, v: u64, at: Unix) -> Result<(), StoreError> {
        through!(self, post_refresh(tenant, v, at))
    }

    async fn forget_refresh(&self, tenant: &TenantName, version: u64) -> Result<(), StoreError> {
        self.faults.lock().unwrap().forgotten.push((tenant.clone(), version));
        Ok(())
    }

    async fn receive_refresh(
        &self,
        tenant: &TenantName,
        version: u64,
        tokens: &crate::store::Tokens,
        at: Unix,
    ) -> Result<(), StoreError> {
        through!(self, receive_refresh(tenant, version, tokens, at))
    }

    async fn open_refreshes(&self) -> Result<Vec<OpenRefresh>, StoreError> {
        through!(self, open_refreshes())
    }

    async fn abort_refresh(&self, tenant: &TenantName, version: u64) -> Result<(), StoreError> {
        through!(self, abort_refresh(tenant, version))
    }

    async fn finish_refresh(
        &self,
        tenant: &TenantName,
        version: u64,
        tokens: &crate::store::Tokens,
        at: Unix,
    ) -> Result<u64, StoreError> {
        through!(self, finish_refresh(tenant, version, tokens, at))
    }

    async fn fail_grant(&self, tenant: &TenantName, v: u64, why: &str) -> Result<(), StoreError> {
        through!(self, fail_grant(tenant, v, why))
    }

    async fn take_lane(&self, key: &ApiKeyName, terms: LaneTerms) -> Result<LaneTurn, StoreError> {
        through!(self, take_lane(key, terms))
    }

    async fn keep_lane(
        &self,
        key: &ApiKeyName,
        lease: LaneLease,
        hold: Duration,
        forgotten: Forgotten,
    ) -> Result<bool, StoreError> {
        through!(self, keep_lane(key, lease, hold, forgotten))
    }

    async fn leave_lane(
        &self,
        key: &ApiKeyName,
        lease: LaneLease,
        rest: Duration,
    ) -> Result<(), StoreError> {
        through!(self, leave_lane(key, lease, rest))
    }

    async fn changes(&self, since: Option<Revision>) -> Result<Changes, StoreError> {
        through!(self, changes(since))
    }

    async fn last_told(&self, thing: &Changed) -> Result<LastTold, StoreError> {
        through!(self, last_told(thing))
    }

    async fn restore_grant(&self, grant: &Grant) -> Result<bool, StoreError> {
        through!(self, restore_grant(grant))
    }

    async fn changed(&self) {
        self.inner.changed().await;
    }

    fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }

    async fn pause_tenant(&self, tenant: &TenantName, paused: bool) -> Result<bool, StoreError> {
        through!(self, pause_tenant(tenant, paused))
    }

    async fn record_use(&self, used: &[(TenantName, Unix)]) -> Result<(), StoreError> {
        through!(self, record_use(used))
    }

    async fn pause_api_key(&self, key: &ApiKeyName, paused: bool) -> Result<(), StoreError> {
        through!(self, pause_api_key(key, paused))
    }

    async fn paused_api_keys(&self) -> Result<BTreeSet<ApiKeyName>, StoreError> {
        through!(self, paused_api_keys())
    }

    async fn clients(&self) -> Result<Vec<Client>, StoreError> {
        through!(self, clients())
    }

    async fn add_client(&self, client: Client) -> Result<(), StoreError> {
        through!(self, add_client(client))
    }

    async fn change_client_keys(
        &self,
        name: &ClientName,
        keys: ClientKeys,
    ) -> Result<bool, StoreError> {
        through!(self, change_client_keys(name, keys))
    }

    async fn record_client_use(&self, used: &[(ClientName, Unix)]) -> Result<(), StoreError> {
        through!(self, record_client_use(used))
    }

    async fn remove_client(&self, name: &ClientName) -> Result<bool, StoreError> {
        through!(self, remove_client(name))
    }

    async fn begin_authorization(&self, new: Authorization, now: Unix) -> Result<(), StoreError> {
        through!(self, begin_authorization(new, now))
    }

    async fn take_authorization(
        &self,
        state: &StateDigest,
    ) -> Result<Option<Authorization>, StoreError> {
        through!(self, take_authorization(state))
    }

    async fn ping(&self) -> Result<(), StoreError> {
        through!(self, ping())
    }

    async fn close(&self) -> Result<(), StoreError> {
        through!(self, close())
    }
}
