//! What the suites share: stores in places that vanish, names, tokens.
//!
//! Everything here is made for one test and gone after it; tests share no file and no order.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use ctct_proxy::config::{self, OnStoreLoss, StoreUrl};
use ctct_proxy::engine::{ApiKeyName, TenantName, Unix};
use ctct_proxy::secret::{KeyRing, Secret};
use ctct_proxy::store::{self, MemoryStore, NewGrant, Opened, Store, StoreError, Tokens};

use crate::cluster_process::RedisCluster;
use crate::redis_process::RedisServer;

/// A store that forgets.
pub(crate) fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::default())
}

/// A directory with a database, removed when dropped.
pub(crate) struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory for the test") }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn db(&self) -> PathBuf {
        self.path().join("store.db")
    }

    pub(crate) fn try_open(&self) -> Result<Opened, StoreError> {
        open_at(&self.db())
    }

    pub(crate) fn open(&self) -> Arc<dyn Store> {
        self.try_open().expect("the store opens").store
    }

    /// What is in each file but the key, by name.
    pub(crate) fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files: Vec<_> = fs::read_dir(self.path())
            .expect("the directory reads")
            .map(|entry| entry.expect("an entry reads").path())
            .filter(|path| path.extension().is_none_or(|extension| extension != "key"))
            .map(|path| (path.clone(), fs::read(path).expect("a file reads")))
            .collect();
        files.sort();
        files
    }
}

pub(crate) fn open_at(db: &Path) -> Result<Opened, StoreError> {
    store::open_sqlite(db, None)
}

/// A deployment on a Redis server: a prefix, a key, and places for journals, which vanish.
pub(crate) struct SharedPlace {
    pub(crate) server: Arc<RedisServer>,
    pub(crate) settings: config::Store,
    directory: tempfile::TempDir,
}

/// The server of the tests that do it no harm; it goes with the last of them.
static SHARED: Mutex<Weak<RedisServer>> = Mutex::new(Weak::new());
/// Sets the deployments on it apart.
static DEPLOYMENTS: AtomicU32 = AtomicU32::new(0);

impl SharedPlace {
    /// One on the server that tests share.
    pub(crate) fn new() -> Self {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let server = shared.upgrade().unwrap_or_else(|| Arc::new(RedisServer::start()));
        *shared = Arc::downgrade(&server);
        Self::on(server)
    }

    pub(crate) fn on(server: Arc<RedisServer>) -> Self {
        let directory = tempfile::tempdir().expect("a directory for the test");
        let settings = new_deployment(&server.url(), directory.path());
        Self { server, settings, directory }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// What all keys of this deployment begin with.
    pub(crate) fn prefix(&self) -> &str {
        let StoreUrl::Redis(url) = &self.settings.url else { panic!("it is on a server") };
        &url.prefix
    }

    pub(crate) async fn try_open(&self) -> Result<Opened, StoreError> {
        store::open(&self.settings).await
    }

    pub(crate) async fn open(&self) -> Arc<dyn Store> {
        self.try_open().await.expect("the store opens").store
    }

    /// Another instance, with a journal of its own.
    pub(crate) async fn open_another(&self, name: &str) -> Arc<dyn Store> {
        let refresh_journal = Some(self.path().join(name));
        let settings = config::Store { refresh_journal, ..self.settings.clone() };
        store::open(&settings).await.expect("the store opens").store
    }

    pub(crate) async fn refusal(&self) -> String {
        self.try_open().await.err().expect("the start is refused").to_string()
    }
}

/// A deployment of its own at `url`, with a new key and a journal in `directory`.
fn new_deployment(url: &str, directory: &Path) -> config::Store {
    let key = directory.join("key");
    fs::write(&key, KeyRing::generate().text().expose()).expect("written");
    let number = DEPLOYMENTS.fetch_add(1, Ordering::Relaxed);
    config::Store {
        url: config::store_url(&format!("{url}?prefix=test-{number}:")).expect("a URL"),
        encryption_key_file: Some(key),
        accept_volatile: false,
        on_loss: OnStoreLoss::Degraded,
        degraded_for: Duration::from_mins(10),
        refresh_journal: Some(directory.join("refreshes")),
    }
}

/// A deployment on a cluster.
pub(crate) struct ClusterPlace {
    pub(crate) cluster: Arc<RedisCluster>,
    pub(crate) settings: config::Store,
    directory: tempfile::TempDir,
}

/// The cluster of the tests that do it no harm; it goes with the last of them.
static SHARED_CLUSTER: Mutex<Weak<RedisCluster>> = Mutex::new(Weak::new());

impl ClusterPlace {
    /// One on the cluster that tests share.
    pub(crate) fn new() -> Self {
        let mut shared = SHARED_CLUSTER.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster = shared.upgrade().unwrap_or_else(|| Arc::new(RedisCluster::start()));
        *shared = Arc::downgrade(&cluster);
        Self::on(cluster)
    }

    pub(crate) fn on(cluster: Arc<RedisCluster>) -> Self {
        let directory = tempfile::tempdir().expect("a directory for the test");
        let settings = new_deployment(&cluster.url(), directory.path());
        Self { cluster, settings, directory }
    }

    /// What all keys of this deployment begin with.
    pub(crate) fn prefix(&self) -> String {
        let StoreUrl::Redis(url) = &self.settings.url else { panic!("it is on a server") };
        url.prefix.clone()
    }

    pub(crate) async fn try_open(&self, journal: &str) -> Result<Arc<dyn Store>, StoreError> {
        let refresh_journal = Some(self.directory.path().join(journal));
        let settings = config::Store { refresh_journal, ..self.settings.clone() };
        Ok(store::open(&settings).await?.store)
    }

    pub(crate) async fn open(&self, journal: &str) -> Arc<dyn Store> {
        self.try_open(journal).await.expect("the store opens")
    }

    /// The ports of the nodes that have keys of this deployment.
    pub(crate) fn nodes_with_keys(&self) -> BTreeSet<u16> {
        let pattern = format!("{}*", self.prefix());
        let nodes = self.cluster.nodes().iter();
        let with_keys = nodes.filter(|node| !node.cmd(&["KEYS", &pattern]).is_empty());
        with_keys.map(RedisServer::port).collect()
    }
}

pub(crate) fn api_key(name: &str) -> ApiKeyName {
    ApiKeyName::new(name).expect("a valid name")
}

pub(crate) fn tenant(name: &str) -> TenantName {
    TenantName::new(name).expect("a valid name")
}

pub(crate) fn secs(secs: u64) -> Unix {
    Unix::from_secs(secs)
}

/// Tokens whose texts name `mark`.
pub(crate) fn tokens(mark: &str) -> Tokens {
    Tokens {
        access: Some(Secret::new(format!("access-{mark}"))),
        access_expires_at: Some(secs(86_400)),
        refresh: Secret::new(format!("refresh-{mark}")),
    }
}

/// Tokens of `len` bytes in all.
pub(crate) fn long_tokens(len: usize) -> Tokens {
    Tokens {
        access: Some(Secret::new("a".repeat(len / 2))),
        access_expires_at: None,
        refresh: Secret::new("r".repeat(len / 2)),
    }
}

pub(crate) fn new_grant(name: &str, tokens: Tokens) -> NewGrant {
    NewGrant { tenant: tenant(name), api_key: api_key("default"), tokens, weight: None }
}
