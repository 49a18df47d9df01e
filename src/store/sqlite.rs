//! The store for one instance: one SQLite file on a local disk, sealed tokens in it.
//!
//! This file is the port's face; each method is one job for the thread in `worker`, which alone
//! touches the connection. `opening` makes sure of the file before anything is written, `room`
//! keeps a full disk from losing tokens, `journal` holds refreshes under way, the rest is SQL. WAL
//! with `synchronous=FULL`: a job is answered after its commit is flushed.

mod authorizations;
mod clients;
mod convert;
mod days;
mod fault;
mod grants;
mod key_file;
mod opening;
mod room;
mod rotation;
mod whole;
mod worker;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use tokio::sync::Mutex;

use self::fault::Fault;
use self::worker::{Jobs, Kind};
use crate::engine::{ApiKeyName, ClientName, Day, TenantName, Unix};
use crate::secret::{KeyId, KeyRing, StateDigest};
use crate::store::journal::Journal;
use crate::store::sealed::SealedTokens;
use crate::store::{
    Authorization, Client, ClientKeys, DayCount, Grant, KeyRotation, NewGrant, OpenRefresh, Put,
    RotateError, Store, StoreError, TenantScope, Tokens, WholeStore,
};

pub use key_file::{KeySource, keys_for};

/// A write of a few rows.
const SMALL: Kind = Kind::Write(0);
/// Tenants whose use is recorded in one transaction: each may touch a page of its own, which is
/// what a job may take of the log without putting others off.
const USES_AT_ONCE: usize = 64;
/// Log bytes for one tenant's use: a page and its header, rounded up.
const USE_LEN: u64 = 5 * 1024;
/// Log bytes for one tenant of a client: two names of at most 128 bytes in half-filled pages.
const CLIENT_TENANT_LEN: u64 = 1024;

/// Log bytes for an authorization and the late ones that go when it comes: a page for each of their
/// states, which lie apart.
const AUTHORIZATION_LEN: u64 = 64 * 1024;

/// A store in a SQLite database.
pub struct SqliteStore {
    jobs: Jobs,
    journal: Journal,
    /// Loaded by each job when it runs: when a rotation has changed them, no later job seals with
    /// an older one.
    keys: Arc<ArcSwap<KeyRing>>,
    /// Where the keys are kept, so that a rotation can change them there too.
    key_file: Option<PathBuf>,
    /// Held while keys are rotated.
    rotating: Mutex<()>,
}

impl SqliteStore {
    /// Opens the database at `path`, making it when there is none, and holds it against other
    /// processes. Blocks while the file is checked.
    ///
    /// # Errors [`StoreError::Unavailable`] when the file cannot be made or written or another
    /// process has it, [`StoreError::Corrupt`] when it is damaged, of another program or version,
    /// or sealed with another key. Nothing has been overwritten then.
    pub fn open(path: &Path, keys: KeyRing) -> Result<Self, StoreError> {
        let db = opening::open(path, &keys)?;
        let keys = Arc::new(ArcSwap::from_pointee(keys));
        let explain = |fault: Fault| fault.into_error("start the store");
        let current = grants::versions(&db).map_err(explain)?;
        let journal = Journal::open(path, Arc::clone(&keys), &current)?;
        let jobs = Jobs::start(db, path).map_err(explain)?;
        Ok(Self { jobs, journal, keys, key_file: None, rotating: Mutex::default() })
    }

    /// The same, whose keys are in the file of `source` and can be rotated there.
    #[must_use]
    pub fn with_key_file(mut self, source: &KeySource) -> Self {
        self.key_file = Some(source.path.clone());
        self
    }
}

/// Log bytes for a client, beside a few rows.
fn len_of(client: &Client) -> u64 {
    match &client.tenants {
        TenantScope::All => 0,
        TenantScope::Some(tenants) => tenants.len() as u64 * CLIENT_TENANT_LEN,
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn reserve(
        &self,
        api_key: &ApiKeyName,
        day: Day,
        want: u32,
        limit: u64,
    ) -> Result<DayCount, StoreError> {
        let api_key = api_key.clone();
        let kind = if want == 0 { Kind::Read } else { SMALL };
        let work = move |db: &_| days::reserve(db, &api_key, day, want, limit);
        self.jobs.run("reserve calls of the day", kind, work).await
    }

    async fn release(&self, api_key: &ApiKeyName, day: Day, count: u32) -> Result<(), StoreError> {
        let api_key = api_key.clone();
        let work = move |db: &_| days::release(db, &api_key, day, count);
        self.jobs.run("release calls of the day", SMALL, work).await
    }

    async fn grants(&self) -> Result<Vec<Grant>, StoreError> {
        let keys = Arc::clone(&self.keys);
        self.jobs.run("read the grants", Kind::Read, move |db| grants::all(db, &keys.load())).await
    }

    async fn grant(&self, tenant: &TenantName) -> Result<Option<Grant>, StoreError> {
        let (keys, tenant) = (Arc::clone(&self.keys), tenant.clone());
        let work = move |db: &_| grants::one(db, &keys.load(), &tenant);
        self.jobs.run("read a grant", Kind::Read, work).await
    }

    async fn put_grant(&self, grant: NewGrant) -> Result<(Put, Grant), StoreError> {
        let keys = Arc::clone(&self.keys);
        let kind = Kind::Write(2 * SealedTokens::len_of(&grant.tokens) as u64);
        let work = move |db: &_| grants::put(db, &keys.load(), &grant);
        let put = self.jobs.run("store a grant", kind, work).await?;
        self.journal.ended(&put.1.tenant).await;
        Ok(put)
    }

    async fn remove_grant(&self, tenant: &TenantName) -> Result<bool, StoreError> {
        let name = tenant.clone();
        let work = move |db: &_| {
            authorizations::forget(db, &name)?;
            grants::remove(db, &name)
        };
        let removed = self.jobs.run("remove a grant", SMALL, work).await?;
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
        let whose = tenant.clone();
        let work = move |db: &_| grants::begin_refresh(db, &whose, version, at);
        let begun = self.jobs.run("record the begin of a refresh", Kind::BeginRefresh, work).await;
        if begun.is_err() && is_new {
            self.journal.ended_of(tenant, version).await;
        }
        begun
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
        let name = tenant.clone();
        let work = move |db: &_| grants::end_refresh(db, &name, version);
        self.jobs.run("take back the begin of a refresh", Kind::EndRefresh, work).await?;
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
        let (keys, name, tokens) = (Arc::clone(&self.keys), tenant.clone(), tokens.clone());
        let work =
            move |db: &_| grants::finish_refresh(db, &keys.load(), &name, version, &tokens, at);
        let new = self.jobs.run("store refreshed tokens", Kind::EndRefresh, work).await?;
        self.journal.ended(tenant).await;
        Ok(new)
    }

    async fn fail_grant(
        &self,
        tenant: &TenantName,
        version: u64,
        reason: &str,
    ) -> Result<(), StoreError> {
        let (name, reason) = (tenant.clone(), reason.to_owned());
        let work = move |db: &_| grants::fail(db, &name, version, &reason);
        self.jobs.run("record a dead grant", Kind::EndRefresh, work).await?;
        self.journal.ended(tenant).await;
        Ok(())
    }

    async fn pause_tenant(&self, tenant: &TenantName, paused: bool) -> Result<bool, StoreError> {
        let tenant = tenant.clone();
        self.jobs.run("pause a tenant", SMALL, move |db| grants::pause(db, &tenant, paused)).await
    }

    async fn record_use(&self, used: &[(TenantName, Unix)]) -> Result<(), StoreError> {
        for part in used.chunks(USES_AT_ONCE) {
            let part = part.to_vec();
            let kind = Kind::Write(part.len() as u64 * USE_LEN);
            let work = move |db: &_| grants::record_use(db, &part);
            self.jobs.run("record the use of tenants", kind, work).await?;
        }
        Ok(())
    }

    async fn pause_api_key(&self, api_key: &ApiKeyName, paused: bool) -> Result<(), StoreError> {
        let api_key = api_key.clone();
        self.jobs.run("pause an API key", SMALL, move |db| days::pause(db, &api_key, paused)).await
    }

    async fn paused_api_keys(&self) -> Result<BTreeSet<ApiKeyName>, StoreError> {
        self.jobs.run("read the paused API keys", Kind::Read, days::paused).await
    }

    async fn clients(&self) -> Result<Vec<Client>, StoreError> {
        self.jobs.run("read the clients", Kind::Read, clients::all).await
    }

    async fn add_client(&self, client: Client) -> Result<(), StoreError> {
        let kind = Kind::Write(len_of(&client));
        self.jobs.run("add a client", kind, move |db| clients::add(db, &client)).await
    }

    async fn change_client_keys(
        &self,
        name: &ClientName,
        keys: ClientKeys,
    ) -> Result<bool, StoreError> {
        let name = name.clone();
        let work = move |db: &_| clients::change_keys(db, &name, &keys);
        self.jobs.run("change a client's keys", SMALL, work).await
    }

    async fn record_client_use(&self, used: &[(ClientName, Unix)]) -> Result<(), StoreError> {
        for part in used.chunks(USES_AT_ONCE) {
            let part = part.to_vec();
            let kind = Kind::Write(part.len() as u64 * USE_LEN);
            let work = move |db: &_| clients::record_use(db, &part);
            self.jobs.run("record the use of clients", kind, work).await?;
        }
        Ok(())
    }

    async fn remove_client(&self, name: &ClientName) -> Result<bool, StoreError> {
        let name = name.clone();
        self.jobs.run("remove a client", SMALL, move |db| clients::remove(db, &name)).await
    }

    fn whole(&self) -> Option<&dyn WholeStore> {
        Some(self)
    }

    fn key_ids(&self) -> Vec<KeyId> {
        let keys = self.keys.load();
        std::iter::once(keys.key_id()).chain(keys.older()).collect()
    }

    async fn rotate_key(&self) -> Result<KeyRotation, RotateError> {
        rotation::rotate(self).await
    }

    async fn begin_authorization(&self, new: Authorization, now: Unix) -> Result<(), StoreError> {
        let keys = Arc::clone(&self.keys);
        let links = new.redirect_uri.len() + new.return_to.as_ref().map_or(0, String::len);
        let kind = Kind::Write(2 * links as u64 + AUTHORIZATION_LEN);
        let work = move |db: &_| authorizations::begin(db, &keys.load(), &new, now);
        self.jobs.run("remember an authorization", kind, work).await
    }

    async fn take_authorization(
        &self,
        state: &StateDigest,
    ) -> Result<Option<Authorization>, StoreError> {
        let (keys, state) = (Arc::clone(&self.keys), *state);
        let work = move |db: &_| authorizations::take(db, &keys.load(), &state);
        self.jobs.run("take an authorization", SMALL, work).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let sql = "UPDATE counters SET value = value + 1 WHERE name = 'pings'";
        let work = move |db: &rusqlite::Connection| {
            db.prepare_cached(sql)?.execute([])?;
            Ok(())
        };
        self.jobs.run("write", SMALL, work).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        let closed = self.jobs.close().await;
        self.journal.close();
        closed
    }
}
