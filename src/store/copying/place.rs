//! The two stores of a copy: which they may be, and how each is opened.
//!
//! FROM must be there and must be used by nobody: a rotating refresh token works once, so that two
//! places that use it lose it. It is opened without being made or written. TO is made as a start of
//! the proxy would make it; a trial does not make it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{CopyError, CopyOrder, OpenRefresh, Role};
use crate::config::{RedisUrl, StoreUrl};
use crate::engine::TenantName;
use crate::secret::KeyRing;
use crate::store::opening::{blocking, keys_of_server};
use crate::store::redis::{Opening, RedisStore};
use crate::store::{
    KeySource, MemoryStore, Opened, Store, StoreError, journal, keys_for, open_sqlite,
};

/// A store and its key.
#[derive(Clone, Debug)]
pub struct Place {
    /// Which store.
    pub url: StoreUrl,
    /// Its encryption key; without one, `sqlite:` has `<db>.key`.
    pub key_file: Option<PathBuf>,
}

/// The store that is read.
pub(super) struct From {
    pub(super) store: Arc<dyn Store>,
    /// Refreshes of it that did not end.
    pub(super) left: Vec<OpenRefresh>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.url {
            StoreUrl::Memory => f.write_str("memory:"),
            StoreUrl::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            StoreUrl::Redis(url) => write!(f, "{url}"),
        }
    }
}

impl Place {
    /// Whether it can be one of the two, when `other` is the other.
    pub(super) fn check(&self, role: Role, other: &Self) -> Result<(), CopyError> {
        let flag = role.key_flag();
        let mistake = match (&self.url, &other.url) {
            (StoreUrl::Memory, _) => {
                format!("{role} is memory:, which nobody but its own process can read or write")
            }
            (StoreUrl::Redis(_), _) if self.key_file.is_none() => {
                format!("{role} is a Redis store: name the file of its encryption key with {flag}")
            }
            (StoreUrl::Sqlite(path), StoreUrl::Sqlite(other)) if is_same(path, other) => {
                "FROM and TO are the same store".to_owned()
            }
            (StoreUrl::Redis(url), StoreUrl::Redis(other)) if lies_in(url, other) => {
                "FROM and TO are the same store".to_owned()
            }
            _ => return Ok(()),
        };
        Err(CopyError::Mistake(mistake))
    }

    fn closed(&self, role: Role, error: &StoreError) -> CopyError {
        // the messages of stores name the flag of `serve`
        let mut cause = error.to_string().replace("--encryption-key-file", role.key_flag());
        if error.is_in_use() {
            cause.push_str(match role {
                Role::From => {
                    ". Stop every proxy on FROM before it is copied and start none there again: a \
                     rotating refresh token works once, so that two places that use it lose the \
                     customer's connection"
                }
                Role::To => ". Stop the proxy on TO, and start it when the copy is done",
            });
        }
        CopyError::Closed { role, place: self.to_string(), cause }
    }
}

impl Role {
    const fn key_flag(self) -> &'static str {
        match self {
            Self::From => "--from-key-file",
            Self::To => "--to-key-file",
        }
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    real(one) == real(other)
}

fn lies_in(one: &RedisUrl, other: &RedisUrl) -> bool {
    let place = |url: &RedisUrl| (url.place(), url.database, url.prefix.clone());
    place(one) == place(other)
}

/// Opens FROM, and finds the refreshes that did not end there.
pub(super) async fn open_from(order: &CopyOrder) -> Result<From, CopyError> {
    let opened = match &order.from.url {
        StoreUrl::Memory => Err(StoreError::closed("read memory")),
        StoreUrl::Sqlite(path) => from_database(path, order.from.key_file.clone()).await,
        StoreUrl::Redis(url) => from_server(url, order).await,
    };
    opened.map_err(|error| order.from.closed(Role::From, &error))
}

async fn from_database(path: &Path, key_file: Option<PathBuf>) -> Result<From, StoreError> {
    let path = path.to_owned();
    let opening = move || {
        if !fs::metadata(&path).is_ok_and(|there| there.len() > 0) {
            return Err(StoreError::Unavailable {
                attempt: "open the database",
                cause: format!("there is none at {}", path.display()),
            });
        }
        open_sqlite(&path, key_file.as_deref())
    };
    let store = blocking(opening).await?.store;
    let left = store.open_refreshes().await?;
    Ok(From { store, left })
}

async fn from_server(url: &RedisUrl, order: &CopyOrder) -> Result<From, StoreError> {
    let (keys, _) = keys_of(order.from.key_file.clone()).await?;
    let store = RedisStore::open_to_copy(url, keys.clone(), Opening::Read).await?;
    let grants = store.grants().await?;
    let current: BTreeMap<TenantName, u64> =
        grants.into_iter().map(|grant| (grant.tenant, grant.version)).collect();
    let journals = order.journals.clone();
    let reading = move || {
        let all = journals.iter().map(|path| journal::left_in(path, &keys, &current));
        all.collect::<Result<Vec<_>, _>>()
    };
    let left = blocking(reading).await?.into_iter().flatten().collect();
    Ok(From { store: Arc::new(store), left })
}

/// Opens TO; one that a trial would make is empty memory in its place.
pub(super) async fn open_to(order: &CopyOrder) -> Result<Opened, CopyError> {
    let key_file = order.to.key_file.clone();
    let opened = match &order.to.url {
        StoreUrl::Memory => Err(StoreError::closed("write memory")),
        StoreUrl::Sqlite(path) => {
            let (path, is_trial) = (path.clone(), order.is_trial);
            blocking(move || to_database(&path, key_file.as_deref(), is_trial)).await
        }
        StoreUrl::Redis(url) => to_server(url, order).await,
    };
    opened.map_err(|error| order.to.closed(Role::To, &error))
}

fn to_database(path: &Path, key_file: Option<&Path>, is_trial: bool) -> Result<Opened, StoreError> {
    if is_trial && !path.exists() {
        if key_file.is_some() {
            keys_for(path, key_file)?;
        }
        return Ok(Opened { store: Arc::new(MemoryStore::default()), key: None });
    }
    open_sqlite(path, key_file)
}

async fn to_server(url: &RedisUrl, order: &CopyOrder) -> Result<Opened, StoreError> {
    let (keys, key) = keys_of(order.to.key_file.clone()).await?;
    let accept_volatile = order.accept_volatile;
    let purpose = if order.is_trial {
        Opening::Look { accept_volatile }
    } else {
        Opening::Write { accept_volatile }
    };
    let store = RedisStore::open_to_copy(url, keys, purpose).await?;
    Ok(Opened { store: Arc::new(store), key: Some(key) })
}

async fn keys_of(key_file: Option<PathBuf>) -> Result<(KeyRing, KeySource), StoreError> {
    blocking(move || keys_of_server(key_file)).await
}
