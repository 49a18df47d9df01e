//! The store that several instances share: a Redis or Valkey server, sealed tokens in it.
//!
//! This file is the port's face. `link` is the connection, `opening` and `durability` make sure of
//! the server before anything is written, and each operation is one script, so that it happens
//! whole or not at all whoever else is at work. Refreshes under way are journalled on this machine;
//! `settling` keeps new tokens there until the server surely has them. Nothing is remembered here
//! that another instance might change.

mod authorizations;
mod changes;
mod clients;
mod counts;
mod durability;
mod fields;
mod grants;
mod journal_file;
mod link;
mod names;
mod opening;
mod rotation;
mod scripts;
mod settling;
mod turnstile;
mod whole;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::changes::News;
use self::grants::Change;
use self::link::Link;
use self::names::Names;
use self::settling::Written;
use crate::config::{self, RedisUrl};
use crate::engine::{ApiKeyName, ClientName, Day, TenantName, Unix};
use crate::secret::{KeyId, KeyRing, StateDigest};
use crate::store::journal::Journal;
use crate::store::{
    Authorization, Changed, Changes, Client, ClientKeys, DayCount, Forgotten, Grant, InstanceInfo,
    KeyRotation, LaneLease, LaneTerms, LaneTurn, LastTold, NewGrant, OpenRefresh, Put, Revision,
    RotateError, SharedTurnstile, Store, StoreError, Tokens, WholeStore,
};

pub use turnstile::RedisTurnstile;
pub(in crate::store) use whole::Opening;

/// A store on a Redis or Valkey server.
pub struct RedisStore {
    server: Arc<Server>,
    journal: Journal,
    news: Arc<News>,
    tasks: TaskTracker,
    closed: CancellationToken,
}

/// What every operation needs.
struct Server {
    link: Link,
    names: Names,
    keys: Arc<ArcSwap<KeyRing>>,
}

impl RedisStore {
    /// Connects to the server at `url`, makes sure of it and claims a journal on this machine.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the server cannot be reached or would forget grants, or the
    /// journal cannot be had; [`StoreError::Corrupt`] when what is there was sealed with another
    /// key or written by a newer version. Nothing has been overwritten then.
    pub async fn open(
        url: &RedisUrl,
        keys: KeyRing,
        settings: &config::Store,
    ) -> Result<Self, StoreError> {
        let link = Link::open(url).await?;
        durability::check(&link, &url.place(), settings.accept_volatile).await?;
        let keys = Arc::new(ArcSwap::from_pointee(keys));
        let names = Names::new(&url.prefix);
        let server = Arc::new(Server { link, names, keys: Arc::clone(&keys) });
        let versions = opening::open(&server, &url.place()).await?;
        let journal = journal_file::open(settings.refresh_journal.clone(), keys, versions).await?;
        let (tasks, closed) = (TaskTracker::new(), CancellationToken::new());
        let news = Arc::new(News::default());
        tasks.spawn(Arc::clone(&news).listen(Arc::clone(&server), closed.clone()));
        let store = Self { server, journal, news, tasks, closed };
        store
            .journal
            .take_ahead()
            .into_iter()
            .filter_map(Written::left)
            .for_each(|left| store.settle(left));
        Ok(store)
    }

    /// The server, while the store is open.
    fn server(&self, attempt: &'static str) -> Result<&Server, StoreError> {
        if self.closed.is_cancelled() { Err(StoreError::closed(attempt)) } else { Ok(&self.server) }
    }

    /// Changes a grant at a version, or says that it is another.
    async fn change(
        &self,
        tenant: &TenantName,
        version: u64,
        change: Change,
    ) -> Result<(), StoreError> {
        let server = self.server("change a grant")?;
        if grants::change(server, tenant, version, &change).await? {
            Ok(())
        } else {
            Err(StoreError::grant_conflict(tenant))
        }
    }

    /// Keeps the tokens on this machine until the server surely has them.
    fn settle(&self, written: Written) {
        let (server, journal) = (Arc::clone(&self.server), self.journal.clone());
        let closed = self.closed.clone();
        self.tasks.spawn(async move {
            settling::settle(&server, &journal, &closed, &written).await;
        });
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

#[async_trait]
impl Store for RedisStore {
    fn turnstile(&self, instance: &InstanceInfo) -> Option<Arc<dyn SharedTurnstile>> {
        let Server { link, names, .. } = &*self.server;
        Some(Arc::new(RedisTurnstile::new(link.clone(), names.clone(), instance)))
    }

    async fn reserve(
        &self,
        api_key: &ApiKeyName,
        day: Day,
        want: u32,
        limit: u64,
    ) -> Result<DayCount, StoreError> {
        let server = self.server("reserve calls of the day")?;
        counts::reserve(server, api_key, day, want, limit).await
    }

    async fn release(&self, api_key: &ApiKeyName, day: Day, count: u32) -> Result<(), StoreError> {
        counts::release(self.server("release calls of the day")?, api_key, day, count).await
    }

    async fn grants(&self) -> Result<Vec<Grant>, StoreError> {
        grants::all(self.server("read the grants")?).await
    }

    async fn grant(&self, tenant: &TenantName) -> Result<Option<Grant>, StoreError> {
        grants::one(self.server("read a grant")?, tenant).await
    }

    async fn put_grant(&self, grant: NewGrant) -> Result<(Put, Grant), StoreError> {
        let put = grants::put(self.server("store a grant")?, &grant).await?;
        self.journal.ended(&put.1.tenant).await;
        Ok(put)
    }

    async fn restore_grant(&self, grant: &Grant) -> Result<bool, StoreError> {
        grants::restore(self.server("restore a grant")?, grant).await
    }

    async fn remove_grant(&self, tenant: &TenantName) -> Result<bool, StoreError> {
        let removed = grants::remove(self.server("remove a grant")?, tenant).await?;
        self.journal.ended(tenant).await;
        Ok(removed)
    }

    async fn begin_refresh(
        &self,
        tenant: &TenantName,
        version: u64,
        at: Unix,
    ) -> Result<(), StoreError> {
        let is_new = self.journal.begun(tenant, version, at).await?;
        let begun = self.change(tenant, version, Change::begin(at)).await;
        if begun.is_err() && is_new {
            self.journal.ended_of(tenant, version).await;
        }
        begun
    }

    async fn forget_refresh(&self, tenant: &TenantName, version: u64) -> Result<(), StoreError> {
        self.journal.ended_of(tenant, version).await;
        Ok(())
    }

    async fn post_refresh(
        &self,
        tenant: &TenantName,
        version: u64,
        at: Unix,
    ) -> Result<(), StoreError> {
        self.journal.posted(tenant, version, at).await
    }

    async fn receive_refresh(
        &self,
        tenant: &TenantName,
        version: u64,
        tokens: &Tokens,
        at: Unix,
    ) -> Result<(), StoreError> {
        self.journal.received(tenant, version, tokens, at).await
    }

    async fn open_refreshes(&self) -> Result<Vec<OpenRefresh>, StoreError> {
        self.journal.take_left()
    }

    async fn abort_refresh(&self, tenant: &TenantName, version: u64) -> Result<(), StoreError> {
        self.change(tenant, version, Change::abort()).await?;
        self.journal.ended(tenant).await;
        Ok(())
    }

    async fn finish_refresh(
        &self,
        tenant: &TenantName,
        version: u64,
        tokens: &Tokens,
        at: Unix,
    ) -> Result<u64, StoreError> {
        let server = self.server("store refreshed tokens")?;
        let next = version.saturating_add(1);
        let change = Change::finish(server, tenant, next, tokens, at);
        if !grants::change(server, tenant, version, &change).await? {
            let stored = grants::one(server, tenant).await?;
            let is_repeat =
                stored.is_some_and(|grant| grant.version == next && grant.tokens.same_as(tokens));
            if !is_repeat {
                return Err(StoreError::grant_conflict(tenant));
            }
        }
        self.settle(Written::new(tenant, version, tokens, at));
        Ok(next)
    }

    async fn fail_grant(
        &self,
        tenant: &TenantName,
        version: u64,
        reason: &str,
    ) -> Result<(), StoreError> {
        self.change(tenant, version, Change::fail(reason)).await?;
        self.journal.ended(tenant).await;
        Ok(())
    }

    async fn take_lane(
        &self,
        api_key: &ApiKeyName,
        terms: LaneTerms,
    ) -> Result<LaneTurn, StoreError> {
        counts::take_lane(self.server("take the token lane")?, api_key, terms).await
    }

    async fn keep_lane(
        &self,
        api_key: &ApiKeyName,
        lease: LaneLease,
        hold: Duration,
        forgotten: Forgotten,
    ) -> Result<bool, StoreError> {
        counts::keep_lane(self.server("keep the token lane")?, api_key, lease, hold, forgotten)
            .await
    }

    async fn leave_lane(
        &self,
        api_key: &ApiKeyName,
        lease: LaneLease,
        rest: Duration,
    ) -> Result<(), StoreError> {
        counts::leave_lane(self.server("leave the token lane")?, api_key, lease, rest).await
    }

    async fn changes(&self, since: Option<Revision>) -> Result<Changes, StoreError> {
        changes::since(self.server("read the changes")?, since).await
    }

    async fn last_told(&self, thing: &Changed) -> Result<LastTold, StoreError> {
        changes::last_told(self.server("read the changes")?, thing).await
    }

    async fn changed(&self) {
        self.news.heard().await;
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn whole(&self) -> Option<&dyn WholeStore> {
        Some(self)
    }

    async fn pause_tenant(&self, tenant: &TenantName, paused: bool) -> Result<bool, StoreError> {
        grants::pause(self.server("pause a tenant")?, tenant, paused).await
    }

    async fn record_use(&self, used: &[(TenantName, Unix)]) -> Result<(), StoreError> {
        grants::record_use(self.server("record the use of tenants")?, used).await
    }

    async fn pause_api_key(&self, api_key: &ApiKeyName, paused: bool) -> Result<(), StoreError> {
        counts::pause(self.server("pause an API key")?, api_key, paused).await
    }

    async fn paused_api_keys(&self) -> Result<BTreeSet<ApiKeyName>, StoreError> {
        counts::paused(self.server("read the paused API keys")?).await
    }

    async fn clients(&self) -> Result<Vec<Client>, StoreError> {
        clients::all(self.server("read the clients")?).await
    }

    async fn add_client(&self, client: Client) -> Result<(), StoreError> {
        clients::add(self.server("add a client")?, &client).await
    }

    async fn change_client_keys(
        &self,
        name: &ClientName,
        keys: ClientKeys,
    ) -> Result<bool, StoreError> {
        clients::change_keys(self.server("change a client's keys")?, name, &keys).await
    }

    async fn record_client_use(&self, used: &[(ClientName, Unix)]) -> Result<(), StoreError> {
        clients::record_use(self.server("record the use of clients")?, used).await
    }

    async fn remove_client(&self, name: &ClientName) -> Result<bool, StoreError> {
        clients::remove(self.server("remove a client")?, name).await
    }

    fn key_ids(&self) -> Vec<KeyId> {
        let keys = self.server.keys.load();
        std::iter::once(keys.key_id()).chain(keys.older()).collect()
    }

    async fn rotate_key(&self) -> Result<KeyRotation, RotateError> {
        rotation::rotate(self.server("rotate the encryption key")?, &self.journal).await
    }

    async fn begin_authorization(&self, new: Authorization, now: Unix) -> Result<(), StoreError> {
        authorizations::begin(self.server("remember an authorization")?, &new, now).await
    }

    async fn take_authorization(
        &self,
        state: &StateDigest,
    ) -> Result<Option<Authorization>, StoreError> {
        authorizations::take(self.server("take an authorization")?, state).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let server = self.server("write")?;
        let mut write = redis::cmd("HSET");
        write.arg(server.names.meta()).arg("ping").arg(1);
        server.link.ask("write", &write).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.closed.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.journal.close();
        Ok(())
    }
}
