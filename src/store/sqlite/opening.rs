//! From a path to a connection that may be trusted: the file, its lock, its soundness, its key, its
//! schema.
//!
//! Nothing is written to a file that was there before every check has passed; even the log that a
//! killed process left stays as it is. The lock is SQLite's own exclusive one, held as long as the
//! connection and released by the kernel when the process dies. The database file is never opened
//! by any other means: POSIX drops all of a process's locks on a file as soon as the process closes
//! any of its handles on it.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _};

use super::fault::is_damage;
use crate::secret::{KeyId, KeyRing, SealError};
use crate::store::{StoreError, USED_BY};

/// `ctcp`: marks a database as one of this program.
const APPLICATION_ID: i32 = 0x6374_6370;
/// The schema in steps; step *n* leads to `user_version` *n*. Steps that were released never
/// change.
const MIGRATIONS: &[&str] = &[
    include_str!("../sqlite_1.sql"),
    include_str!("../sqlite_authorizations.sql"),
    include_str!("../sqlite_handed_in.sql"),
    include_str!("../sqlite_client_keys.sql"),
];
/// How long a process that is just ending may still hold the lock.
const LOCK_WAIT: Duration = Duration::from_secs(1);
/// The place of the value that shows whether the key is the right one.
const KEY_CHECK_AAD: &[u8] = b"meta\0key_check";
/// What it says when opened.
const KEY_CHECK: &[u8] = b"ctct-proxy";
/// What all of this is, in errors.
const ATTEMPT: &str = "open the database";

/// Opens the database at `path`, making it when there is none.
pub(super) fn open(path: &Path, keys: &KeyRing) -> Result<Connection, StoreError> {
    make_file(path)?;
    let explain = |error: rusqlite::Error| explain(path, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db = Connection::open_with_flags(path, flags).map_err(explain)?;
    if db.is_readonly("main").map_err(explain)? {
        return Err(unavailable(path, "may not be written; check owner and mode"));
    }
    // A refused start leaves a log as it is; where there is none, closing removes the empty one
    // just made.
    let log_kept = fs::metadata(log_of(path)).is_ok_and(|log| log.len() > 0);
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, log_kept).map_err(explain)?;
    db.busy_timeout(LOCK_WAIT).map_err(explain)?;
    db.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(explain)?;
    let version = version(&db, path)?;
    if version > 0 {
        check_sound(&db, path)?;
        check_key(&db, path, keys)?;
        check_keys_of_tokens(&db, path, keys)?;
    }
    settle(&mut db, version, keys).map_err(explain)?;
    Ok(db)
}

/// Makes an empty file that only its owner may read, unless there is one. SQLite gives its log the
/// same mode.
fn make_file(path: &Path) -> Result<(), StoreError> {
    match fs::metadata(path) {
        Ok(there) if there.is_dir() => {
            return Err(unavailable(path, "is a directory; name a file"));
        }
        Ok(_) => return Ok(()),
        Err(_) => {}
    }
    // SQLite would take such a log for rubbish and remove it, and the newest tokens may be in it.
    let log = log_of(path);
    if fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
        let cause = format!(
            "does not exist but its log {} does; put the database back or move the log away",
            log.display()
        );
        return Err(corrupt(path, &cause));
    }
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            Err(unavailable(path, "is in a directory that does not exist; make it first"))
        }
        Err(e) => Err(unavailable(path, &format!("cannot be made ({e}); check its directory"))),
    }
}

/// The write-ahead log of the database at `path`.
pub(super) fn log_of(path: &Path) -> PathBuf {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    PathBuf::from(log)
}

/// The schema of the file, 0 when it is empty. The first read also takes the lock.
fn version(db: &Connection, path: &Path) -> Result<usize, StoreError> {
    let explain = |error: rusqlite::Error| explain(path, &error);
    let number = |pragma| db.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    let tables: i64 = db
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(explain)?;
    let application = number("application_id").map_err(explain)?;
    let version = number("user_version").map_err(explain)?;
    if (tables, application, version) == (0, 0, 0) {
        return Ok(0);
    }
    match usize::try_from(version) {
        _ if application != APPLICATION_ID => {
            Err(corrupt(path, "is a database of another program; choose another path"))
        }
        Ok(version @ 1..) if version <= MIGRATIONS.len() => Ok(version),
        Ok(version) if version > MIGRATIONS.len() => {
            let known = MIGRATIONS.len();
            let cause = format!(
                "was written by a newer ctct-proxy (schema {version}, this one knows {known}); \
                 use that one"
            );
            Err(corrupt(path, &cause))
        }
        Ok(_) | Err(_) => Err(corrupt(path, "has no valid schema number; restore a backup")),
    }
}

fn check_sound(db: &Connection, path: &Path) -> Result<(), StoreError> {
    let verdict: String = db
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|error| explain(path, &error))?;
    if verdict == "ok" {
        return Ok(());
    }
    let verdict = verdict.replace('\n', " ");
    Err(corrupt(path, &format!("is damaged ({verdict}); nothing was changed; restore a backup")))
}

fn check_key(db: &Connection, path: &Path, keys: &KeyRing) -> Result<(), StoreError> {
    let check: Option<Vec<u8>> = db
        .query_row("SELECT value FROM meta WHERE name = 'key_check'", [], |row| row.get(0))
        .optional()
        .map_err(|error| explain(path, &error))?;
    match check.map(|check| keys.open(KEY_CHECK_AAD, &check)) {
        Some(Ok(plain)) if plain.expose() == KEY_CHECK => Ok(()),
        Some(Err(SealError::OtherKey { sealed_with, given })) => {
            let cause = format!(
                "holds tokens sealed with encryption key {sealed_with}, but was given key {given}; \
                 use the key file that it was made with, or its copy"
            );
            Err(corrupt(path, &cause))
        }
        Some(Ok(_) | Err(SealError::Damaged)) | None => {
            Err(corrupt(path, "is damaged (the check of its encryption key); restore a backup"))
        }
    }
}

/// Finds tokens whose key is missing, as after a rotation that was broken off and a key that was
/// taken out of the key file by hand.
fn check_keys_of_tokens(db: &Connection, path: &Path, keys: &KeyRing) -> Result<(), StoreError> {
    let explain = |error: rusqlite::Error| explain(path, &error);
    let sql = "SELECT substr(refresh, 1, 5) AS head, count(*) FROM tokens GROUP BY head
               UNION ALL
               SELECT substr(access, 1, 5) AS head, count(*) FROM tokens
               WHERE access IS NOT NULL GROUP BY head";
    let mut query = db.prepare(sql).map_err(explain)?;
    let heads = query.query_map([], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, i64>(1)?)));
    for head in heads.map_err(explain)? {
        let (head, count) = head.map_err(explain)?;
        // what is damaged is told when it is opened, with its tenant
        let Some(missing) = KeyId::of_sealed(&head).filter(|id| !keys.holds(*id)) else { continue };
        let cause = format!(
            "holds {count} tokens sealed with encryption key {missing}, which is not in the key \
             file: a rotation was broken off. Put that key back as a further line of the key file, \
             start, and run `ctct-proxy key rotate`"
        );
        return Err(corrupt(path, &cause));
    }
    Ok(())
}

/// The value that shows whether the key is the right one, sealed with the current key.
pub(super) fn key_check(keys: &KeyRing) -> Vec<u8> {
    keys.seal(KEY_CHECK_AAD, KEY_CHECK)
}

/// Brings settings and schema to what this program needs.
fn settle(db: &mut Connection, version: usize, keys: &KeyRing) -> Result<(), rusqlite::Error> {
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    // What `room` reckons with: this page size, a log, and no checkpoints but its own.
    db.pragma_update(None, "page_size", 4096)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "wal_autocheckpoint", 0)?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "foreign_keys", true)?;
    db.pragma_update(None, "cell_size_check", true)?;
    db.pragma_update(None, "temp_store", "MEMORY")?;
    db.set_prepared_statement_cache_capacity(64);
    for (index, step) in MIGRATIONS.iter().enumerate().skip(version) {
        let change = db.transaction()?;
        change.execute_batch(step)?;
        if index == 0 {
            change.pragma_update(None, "application_id", APPLICATION_ID)?;
            let check = key_check(keys);
            change.execute("INSERT INTO meta (name, value) VALUES ('key_check', ?1)", [check])?;
        }
        let reached = i64::try_from(index + 1).expect("the steps are few");
        change.pragma_update(None, "user_version", reached)?;
        change.commit()?;
    }
    Ok(())
}

fn explain(path: &Path, error: &rusqlite::Error) -> StoreError {
    if is_damage(error) {
        let cause = format!(
            "is damaged or not a SQLite database ({error}); nothing was changed; restore a backup"
        );
        return corrupt(path, &cause);
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            let cause = format!("{USED_BY} another process; stop that one or choose another path");
            unavailable(path, &cause)
        }
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            unavailable(path, &format!("may not be written ({error}); check owner and mode"))
        }
        _ => unavailable(path, &format!("failed ({error})")),
    }
}

fn unavailable(path: &Path, cause: &str) -> StoreError {
    StoreError::Unavailable { attempt: ATTEMPT, cause: format!("{} {cause}", path.display()) }
}

fn corrupt(path: &Path, cause: &str) -> StoreError {
    StoreError::Corrupt { attempt: ATTEMPT, cause: format!("{} {cause}", path.display()) }
}
