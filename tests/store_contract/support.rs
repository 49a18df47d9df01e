//! What the suites share: stores in places that vanish, names, tokens.
//!
//! Everything here is made for one test and gone after it; tests share no file and no order.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ctct_proxy::engine::{ApiKeyName, TenantName, Unix};
use ctct_proxy::secret::Secret;
use ctct_proxy::store::{self, MemoryStore, NewGrant, Opened, Store, StoreError, Tokens};

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
