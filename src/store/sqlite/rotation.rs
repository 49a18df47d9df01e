//! Rotating the encryption key while everything goes on.
//!
//! The order makes every moment a good one to be killed in: the new key is durable in the key file
//! before anything is sealed with it, and an older one leaves the file only after all records,
//! those of the journal of refreshes and of authorizations among them, have been seen without it.
//! In between the file holds both, each record names its own, and a rotation that finds several
//! keys goes on with the first instead of making another. Records are sealed anew in small
//! transactions of the store's one thread, between those of others; versions stay.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _};

use super::SqliteStore;
use super::convert::name;
use super::fault::Fault;
use super::worker::Kind;
use super::{authorizations, key_file, opening};
use crate::engine::TenantName;
use crate::secret::KeyRing;
use crate::store::sealed::SealedTokens;
use crate::store::{AUTHORIZATIONS_KEPT, KeyRotation, RotateError, StoreError, Tokens};

/// Tenants sealed anew in one transaction.
const AT_ONCE: u32 = 16;
/// Log bytes for each, beside its tokens: pages that are half full, and those around them.
const ROW_LEN: u64 = 20 * 1024;
/// Log bytes for the verifiers of all authorizations that are kept.
const AUTHORIZATIONS_ROOM: u64 = 1024 * AUTHORIZATIONS_KEPT as u64;
/// What the steps are, in errors.
const ATTEMPT: &str = "seal tokens with the new encryption key";

/// A record that is not sealed with the current key, and the bytes that it takes.
type Stale = (TenantName, u64);

/// Rotates to the end, or says why not.
pub(super) async fn rotate(store: &SqliteStore) -> Result<KeyRotation, RotateError> {
    let Ok(_turn) = store.rotating.try_lock() else { return Err(RotateError::UnderWay) };
    let path = store.key_file.clone().ok_or(RotateError::NothingSealed)?;
    let in_use = KeyRing::clone(&store.keys.load());
    let (keys, resumed) = blocking(path.clone(), move |path| begin(path, &in_use)).await?;
    store.keys.store(keys.clone().into());
    let sealed_anew = seal_anew(store).await?;
    let alone = keys.current_alone();
    let written = alone.clone();
    let still_in_file = match blocking(path, move |path| finish(path, &written)).await {
        Ok(()) => None,
        // a file that only its operator may change is changed by the operator
        Err(RotateError::KeyFile(why)) if resumed => Some(why),
        Err(error) => return Err(error),
    };
    let given_up = keys.older();
    let key_id = keys.key_id();
    store.keys.store(alone.into());
    Ok(KeyRotation { key_id, given_up, sealed_anew, resumed, still_in_file })
}

/// The keys to go on with, which are in the key file, and whether they were before.
fn begin(path: &Path, in_use: &KeyRing) -> Result<(KeyRing, bool), RotateError> {
    let (on_file, _) = key_file::read(path)?;
    if !on_file.holds(in_use.key_id()) {
        return Err(RotateError::KeyFile(format!(
            "the key file {} does not hold encryption key {} any more, which is in use; put it \
             back as a further line",
            path.display(),
            in_use.key_id()
        )));
    }
    if !on_file.older().is_empty() {
        return Ok((on_file.joined(in_use), true));
    }
    let keys = on_file.joined(in_use).with_new_key();
    key_file::replace(path, &keys).map_err(|error| {
        RotateError::KeyFile(format!(
            "the key file {} cannot be changed ({error}); nothing was done. Where only its owner \
             may change it: put a new key (`ctct-proxy keygen`) in a line above the one that is \
             there, and rotate again",
            path.display()
        ))
    })?;
    Ok((keys, false))
}

fn finish(path: &Path, keys: &KeyRing) -> Result<(), RotateError> {
    key_file::replace(path, keys).map_err(|error| {
        RotateError::KeyFile(format!(
            "everything is sealed with encryption key {}, but the key file {} cannot be changed \
             ({error}); take the older keys out of it by hand: all lines but the first",
            keys.key_id(),
            path.display()
        ))
    })
}

async fn seal_anew(store: &SqliteStore) -> Result<u64, StoreError> {
    let (mut sealed, mut after) = (0, String::new());
    loop {
        let (keys, from) = (store.keys.clone(), after.clone());
        let work = move |db: &_| stale(db, &keys.load(), &from);
        let batch = store.jobs.run("find tokens of an older key", Kind::Read, work).await?;
        let Some((last, _)) = batch.last() else { break };
        last.as_str().clone_into(&mut after);
        let room: u64 = batch.iter().map(|(_, len)| 2 * len + ROW_LEN).sum();
        let keys = store.keys.clone();
        let work = move |db: &_| seal_batch(db, &keys.load(), &batch);
        sealed += store.jobs.run(ATTEMPT, Kind::Write(room), work).await?;
    }
    store.journal.seal_anew().await?;
    let keys = store.keys.clone();
    let work = move |db: &_| authorizations::seal_anew(db, &keys.load());
    store.jobs.run(ATTEMPT, Kind::Write(AUTHORIZATIONS_ROOM), work).await?;
    let keys = store.keys.clone();
    let work = move |db: &_| confirm(db, &keys.load());
    store.jobs.run(ATTEMPT, Kind::Write(0), work).await?;
    Ok(sealed)
}

/// The next tenants after a name whose tokens are of an older key.
fn stale(db: &Connection, keys: &KeyRing, after: &str) -> Result<Vec<Stale>, Fault> {
    let mut query = db.prepare_cached(
        "SELECT tenant, length(refresh) + coalesce(length(access), 0) FROM tokens
         WHERE tenant > ?1 AND (substr(refresh, 1, 5) <> ?2 OR substr(access, 1, 5) <> ?2)
         ORDER BY tenant LIMIT ?3",
    )?;
    let mut rows = query.query((after, keys.head(), AT_ONCE))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let len: i64 = row.get(1)?;
        found.push((name(&row.get::<_, String>(0)?)?, u64::try_from(len).unwrap_or_default()));
    }
    Ok(found)
}

fn seal_batch(db: &Connection, keys: &KeyRing, batch: &[Stale]) -> Result<u64, Fault> {
    let mut sealed = 0;
    for (tenant, _) in batch {
        sealed += u64::from(seal_one(db, keys, tenant)?);
    }
    Ok(sealed)
}

/// Seals the tokens of `tenant` anew; `false` when it is gone.
fn seal_one(db: &Connection, keys: &KeyRing, tenant: &TenantName) -> Result<bool, Fault> {
    let stored = db
        .prepare_cached("SELECT access, refresh FROM tokens WHERE tenant = ?1")?
        .query_row([tenant.as_str()], |row| {
            Ok(SealedTokens { access: row.get(0)?, refresh: row.get(1)? })
        })
        .optional()?;
    let Some(stored) = stored else { return Ok(false) };
    let (access, refresh) = stored
        .open(keys, tenant)
        .map_err(|e| Fault::Damaged(format!("the tokens of tenant {tenant}: {e}")))?;
    let tokens = Tokens { access, access_expires_at: None, refresh };
    let anew = SealedTokens::seal(keys, tenant, &tokens);
    db.prepare_cached("UPDATE tokens SET access = ?2, refresh = ?3 WHERE tenant = ?1")?
        .execute((tenant.as_str(), &anew.access, &anew.refresh))?;
    Ok(true)
}

/// Makes sure that nothing needs an older key, the check of the key itself included.
fn confirm(db: &Connection, keys: &KeyRing) -> Result<(), Fault> {
    if let Some((tenant, _)) = stale(db, keys, "")?.first() {
        let what = format!("the tokens of tenant {tenant} are still sealed with an older key");
        return Err(Fault::Damaged(what));
    }
    db.prepare_cached("UPDATE meta SET value = ?1 WHERE name = 'key_check'")?
        .execute([opening::key_check(keys)])?;
    Ok(())
}

/// Runs file work off the runtime's threads.
async fn blocking<T: Send + 'static>(
    path: PathBuf,
    work: impl FnOnce(&Path) -> Result<T, RotateError> + Send + 'static,
) -> Result<T, RotateError> {
    let done = tokio::task::spawn_blocking(move || work(&path)).await;
    done.unwrap_or_else(|_| Err(RotateError::KeyFile("the key file could not be used".to_owned())))
}
