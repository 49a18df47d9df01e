//! From the settings to a store that is ready for use.
//!
//! What blocks (files that are read, checked and locked) runs off the runtime's threads.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::redis::RedisStore;
use super::{KeySource, MemoryStore, SqliteStore, Store, StoreError, keys_for};
use crate::config::{self, StoreUrl};
use crate::secret::KeyRing;

/// A store, ready for use, and what an operator should be told about its key.
pub struct Opened {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Where its encryption key comes from; `None` for a store that keeps nothing.
    pub key: Option<KeySource>,
}

/// Opens the store of `settings`. One on a disk is sealed with the key in the key file, or else
/// with the one in `<db>.key`, which is made together with a new database; one on a server is
/// sealed with the key in the key file.
///
/// # Errors
/// [`StoreError::Unavailable`] when it cannot be reached or another process has it, or when it
/// would forget what it must keep; [`StoreError::Corrupt`] when it is damaged, of another program
/// or version, or sealed with another key. Nothing has been overwritten then.
pub async fn open(settings: &config::Store) -> Result<Opened, StoreError> {
    match &settings.url {
        StoreUrl::Memory => Ok(Opened { store: Arc::new(MemoryStore::default()), key: None }),
        StoreUrl::Sqlite(path) => {
            let (path, key_file) = (path.clone(), settings.encryption_key_file.clone());
            blocking(move || open_sqlite(&path, key_file.as_deref())).await
        }
        StoreUrl::Redis(url) => {
            let key_file = settings.encryption_key_file.clone();
            let (keys, key) = blocking(move || keys_of_server(key_file)).await?;
            // boxed: every start would carry its size
            let store = Box::pin(RedisStore::open(url, keys, settings)).await?;
            Ok(Opened { store: Arc::new(store), key: Some(key) })
        }
    }
}

/// Opens the database at `path`; blocks.
///
/// # Errors
/// As [`open`].
pub fn open_sqlite(path: &Path, key_file: Option<&Path>) -> Result<Opened, StoreError> {
    let (keys, key) = keys_for(path, key_file)?;
    let store = SqliteStore::open(path, keys)?.with_key_file(&key);
    Ok(Opened { store: Arc::new(store), key: Some(key) })
}

/// The key of a store on a server; blocks.
pub(super) fn keys_of_server(
    key_file: Option<PathBuf>,
) -> Result<(KeyRing, KeySource), StoreError> {
    let Some(path) = key_file else {
        return Err(StoreError::Unavailable {
            attempt: "read the encryption key",
            cause: "a redis:// store needs --encryption-key-file; `ctct-proxy keygen` prints a key"
                .to_owned(),
        });
    };
    keys_for(Path::new(""), Some(&path))
}

/// Runs what blocks off the runtime's threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(StoreError::closed("open the store")))
}
