//! A store in memory that fails, hangs and dies as told.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Mutex;

use async_trait::async_trait;

use super::*;
use crate::engine::{ClientName, Day};
use crate::secret::Secret;
use crate::store::{Client, DayCount, Grant, GrantState, OpenRefresh, RefreshStep};

/// When a call that hangs does so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hang {
    Before,
    After,
}

#[derive(Debug, Default)]
struct Faults {
    failing: BTreeSet<&'static str>,
    /// Calls that say they failed and did not.
    lying: BTreeSet<&'static str>,
    hanging: BTreeMap<&'static str, Hang>,
    dead: bool,
    calls: Vec<&'static str>,
}

#[derive(Debug, Default)]
pub(super) struct FakeStore {
    rows: Arc<Mutex<BTreeMap<TenantName, Grant>>>,
    journal: Arc<Mutex<BTreeMap<TenantName, OpenRefresh>>>,
    faults: Mutex<Faults>,
}

impl FakeStore {
    pub(super) fn add(&self, tenant: &TenantName, refresh: &Secret<String>, end: Option<Unix>) {
        let access = end.map(|_| "access".into());
        let tokens =
            crate::store::Tokens { access, access_expires_at: end, refresh: refresh.clone() };
        self.rows.lock().unwrap().insert(tenant.clone(), grant(tenant.clone(), key(), tokens));
    }

    pub(super) fn row(&self, tenant: &TenantName) -> Grant {
        self.rows.lock().unwrap()[tenant].clone()
    }

    pub(super) fn change(&self, tenant: &TenantName, change: impl FnOnce(&mut Grant)) {
        change(self.rows.lock().unwrap().get_mut(tenant).unwrap());
    }

    pub(super) fn fail(&self, call: &'static str) {
        self.faults.lock().unwrap().failing.insert(call);
    }

    pub(super) fn lie_once(&self, call: &'static str) {
        self.faults.lock().unwrap().lying.insert(call);
    }

    pub(super) fn mend(&self) {
        self.faults.lock().unwrap().failing.clear();
    }

    pub(super) fn hang(&self, call: &'static str, when: Hang) {
        self.faults.lock().unwrap().hanging.insert(call, when);
    }

    /// How often `call` was made.
    pub(super) fn count(&self, call: &'static str) -> usize {
        self.faults.lock().unwrap().calls.iter().filter(|made| **made == call).count()
    }

    /// The process that uses this store has died: nothing it asks for happens any more.
    pub(super) fn kill(&self) {
        self.faults.lock().unwrap().dead = true;
    }

    /// What another process finds.
    pub(super) fn reopened(&self) -> Self {
        let (rows, journal) = (Arc::clone(&self.rows), Arc::clone(&self.journal));
        Self { rows, journal, faults: Mutex::default() }
    }

    async fn note(
        &self,
        call: &'static str,
        tenant: &TenantName,
        version: u64,
        step: RefreshStep,
    ) -> Result<(), StoreError> {
        let entry = OpenRefresh { tenant: tenant.clone(), version, step };
        self.call(call, |_| {
            self.journal.lock().unwrap().insert(tenant.clone(), entry);
            Ok(())
        })
        .await
    }

    async fn call<T>(
        &self,
        call: &'static str,
        act: impl FnOnce(&mut BTreeMap<TenantName, Grant>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let unavailable = || {
            let cause = "no space left on device".into();
            StoreError::Unavailable { attempt: call, cause }
        };
        let (failing, lying, hang) = {
            let mut faults = self.faults.lock().unwrap();
            faults.calls.push(call);
            let hang = if faults.dead { Some(&Hang::Before) } else { faults.hanging.get(call) };
            let (failing, hang) = (faults.failing.contains(call), hang.copied());
            (failing, faults.lying.remove(call), hang)
        };
        if failing {
            return Err(unavailable());
        }
        if hang == Some(Hang::Before) {
            std::future::pending::<()>().await;
        }
        let result = act(&mut self.rows.lock().unwrap());
        if hang == Some(Hang::After) {
            std::future::pending::<()>().await;
        }
        if lying { Err(unavailable()) } else { result }
    }
}

fn grant(tenant: TenantName, api_key: ApiKeyName, tokens: crate::store::Tokens) -> Grant {
    Grant {
        tenant,
        api_key,
        version: 1,
        handed_in: Some(crate::secret::TokenDigest::of(&tokens.refresh)),
        tokens,
        state: GrantState::Ready,
        refresh_begun_at: None,
        last_refreshed_at: None,
        last_used_at: None,
        paused: false,
        weight: 1,
    }
}

/// The row of `tenant` when it has `version`.
fn current<'a>(
    rows: &'a mut BTreeMap<TenantName, Grant>,
    tenant: &TenantName,
    version: u64,
) -> Result<&'a mut Grant, StoreError> {
    let row = rows.get_mut(tenant).filter(|row| row.version == version);
    row.ok_or_else(|| StoreError::Conflict { what: format!("tenant {tenant}") })
}

#[async_trait]
impl Store for FakeStore {
    async fn reserve(
        &self,
        _: &ApiKeyName,
        day: Day,
        _: u32,
        _: u64,
    ) -> Result<DayCount, StoreError> {
        Ok(DayCount { day, granted: 0, total: 0 })
    }

    async fn release(&self, _: &ApiKeyName, _: Day, _: u32) -> Result<(), StoreError> {
        Ok(())
    }

    async fn grants(&self) -> Result<Vec<Grant>, StoreError> {
        self.call("grants", |rows| Ok(rows.values().cloned().collect())).await
    }

    async fn grant(&self, tenant: &TenantName) -> Result<Option<Grant>, StoreError> {
        self.call("grant", |rows| Ok(rows.get(tenant).cloned())).await
    }

    async fn put_grant(&self, new: NewGrant) -> Result<(Put, Grant), StoreError> {
        self.call("put", |rows| {
            let mut row = grant(new.tenant.clone(), new.api_key, new.tokens);
            let old = rows.get(&new.tenant);
            let put = if old.is_some() { Put::Replaced } else { Put::Created };
            row.version = old.map_or(1, |old| old.version + 1);
            row.paused = old.is_some_and(|old| old.paused);
            row.weight = new.weight.or(old.map(|old| old.weight)).unwrap_or(1);
            rows.insert(new.tenant, row.clone());
            Ok((put, row))
        })
        .await
    }

    async fn remove_grant(&self, tenant: &TenantName) -> Result<bool, StoreError> {
        self.call("remove", |rows| Ok(rows.remove(tenant).is_some())).await
    }

    async fn begin_refresh(&self, tenant: &TenantName, v: u64, at: Unix) -> Result<(), StoreError> {
        self.call("begin", |rows| {
            current(rows, tenant, v)?.refresh_begun_at = Some(at);
            let step = RefreshStep::Begun;
            let entry = OpenRefresh { tenant: tenant.clone(), version: v, step };
            let mut journal = self.journal.lock().unwrap();
            if journal.get(tenant).is_none_or(|before| before.version != v) {
                journal.insert(tenant.clone(), entry);
            }
            Ok(())
        })
        .await
    }

    async fn post_refresh(&self, tenant: &TenantName, v: u64, _: Unix) -> Result<(), StoreError> {
        self.note("post", tenant, v, RefreshStep::Posted).await
    }

    async fn receive_refresh(
        &self,
        tenant: &TenantName,
        v: u64,
        tokens: &crate::store::Tokens,
        at: Unix,
    ) -> Result<(), StoreError> {
        let tokens = tokens.clone();
        self.note("receive", tenant, v, RefreshStep::Received { tokens, at }).await
    }

    async fn open_refreshes(&self) -> Result<Vec<OpenRefresh>, StoreError> {
        let rows = self.rows.lock().unwrap();
        let current = |open: &&OpenRefresh| {
            rows.get(&open.tenant).is_some_and(|row| row.version == open.version)
        };
        Ok(self.journal.lock().unwrap().values().filter(current).cloned().collect())
    }

    async fn abort_refresh(&self, tenant: &TenantName, version: u64) -> Result<(), StoreError> {
        self.call("abort", |rows| {
            current(rows, tenant, version)?.refresh_begun_at = None;
            self.journal.lock().unwrap().remove(tenant);
            Ok(())
        })
        .await
    }

    async fn finish_refresh(
        &self,
        tenant: &TenantName,
        version: u64,
        tokens: &crate::store::Tokens,
        at: Unix,
    ) -> Result<u64, StoreError> {
        self.call("finish", |rows| {
            let row = current(rows, tenant, version)?;
            row.tokens = tokens.clone();
            row.version += 1;
            (row.refresh_begun_at, row.last_refreshed_at) = (None, Some(at));
            Ok(row.version)
        })
        .await
    }

    async fn fail_grant(
        &self,
        tenant: &TenantName,
        v: u64,
        reason: &str,
    ) -> Result<(), StoreError> {
        self.call("fail", |rows| {
            let row = current(rows, tenant, v)?;
            row.state = GrantState::NeedsAuthorization { reason: reason.to_owned() };
            row.refresh_begun_at = None;
            Ok(())
        })
        .await
    }

    async fn pause_tenant(&self, tenant: &TenantName, paused: bool) -> Result<bool, StoreError> {
        self.call("pause", |rows| Ok(rows.get_mut(tenant).map(|row| row.paused = paused).is_some()))
            .await
    }

    async fn record_use(&self, _: &[(TenantName, Unix)]) -> Result<(), StoreError> {
        Ok(())
    }

    async fn pause_api_key(&self, _: &ApiKeyName, _: bool) -> Result<(), StoreError> {
        Ok(())
    }

    async fn paused_api_keys(&self) -> Result<BTreeSet<ApiKeyName>, StoreError> {
        Ok(BTreeSet::new())
    }

    async fn clients(&self) -> Result<Vec<Client>, StoreError> {
        Ok(Vec::new())
    }

    async fn add_client(&self, _: Client) -> Result<(), StoreError> {
        Ok(())
    }

    async fn change_client_keys(
        &self,
        _: &ClientName,
        _: crate::store::ClientKeys,
    ) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn record_client_use(&self, _: &[(ClientName, Unix)]) -> Result<(), StoreError> {
        Ok(())
    }

    async fn remove_client(&self, _: &ClientName) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn begin_authorization(
        &self,
        _: crate::store::Authorization,
        _: Unix,
    ) -> Result<(), StoreError> {
        Ok(())
    }

    async fn take_authorization(
        &self,
        _: &crate::secret::StateDigest,
    ) -> Result<Option<crate::store::Authorization>, StoreError> {
        Ok(None)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
