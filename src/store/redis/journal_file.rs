//! Which file an instance journals its refreshes in: one of its own, locked for as long as it runs.
//!
//! A file that is named is used or refused. Otherwise the first of `ctct-proxy.refreshes`,
//! `ctct-proxy.2.refreshes`, … in the working directory is taken that no other process has; one
//! that another has left something in comes before one that is empty or new. The kernel releases
//! the lock when the process dies.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::engine::TenantName;
use crate::secret::KeyRing;
use crate::store::StoreError;
use crate::store::journal::{Ahead, Journal};

/// More instances do not share one directory of one machine.
const FILES_MAX: usize = 64;
const ATTEMPT: &str = "open the journal of refreshes";
/// How often, and how long apart, a journal is asked for that a process that is just ending may
/// still hold.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// The journal of this instance, in the file that is `named` or one in the working directory, of
/// tokens that have these `versions` on the server.
pub(super) async fn open(
    named: Option<PathBuf>,
    keys: Arc<ArcSwap<KeyRing>>,
    versions: BTreeMap<TenantName, u64>,
) -> Result<Journal, StoreError> {
    let mut tries = 1;
    let claimed = loop {
        let named = named.clone();
        let claiming = tokio::task::spawn_blocking(move || claim(named.as_deref(), Path::new("")));
        match claiming.await.unwrap_or_else(|_| Err(StoreError::closed(ATTEMPT))) {
            Ok(claimed) => break claimed,
            Err(error) if tries >= LOCK_TRIES => return Err(error),
            Err(_) => tries += 1,
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    };
    let reading = move || Journal::on(claimed, keys, &versions, Ahead::IsKept);
    let read = tokio::task::spawn_blocking(reading).await;
    read.unwrap_or_else(|_| Err(StoreError::closed(ATTEMPT)))
}

/// A file of one's own, and its path: the one that is named, or one in `folder`. Blocks while files
/// are locked.
fn claim(named: Option<&Path>, folder: &Path) -> Result<(PathBuf, File), StoreError> {
    if let Some(path) = named {
        let file = lock(path).map_err(|error| unavailable(path, &error))?;
        let file = file.ok_or_else(|| StoreError::Unavailable {
            attempt: ATTEMPT,
            cause: format!(
                "{} is used by another process; give each instance a --refresh-journal of its own",
                path.display()
            ),
        })?;
        return Ok((path.to_owned(), file));
    }
    let paths: Vec<PathBuf> = (1..=FILES_MAX).map(|number| folder.join(name(number))).collect();
    let left = |path: &&PathBuf| fs::metadata(path).is_ok_and(|file| file.len() > 0);
    for path in paths.iter().filter(left).chain(&paths) {
        if let Some(file) = lock(path).map_err(|error| unavailable(path, &error))? {
            return Ok((path.clone(), file));
        }
    }
    Err(StoreError::Unavailable {
        attempt: ATTEMPT,
        cause: format!(
            "all of {FILES_MAX} files in the working directory are used by other processes; name \
             one with --refresh-journal"
        ),
    })
}

fn name(number: usize) -> String {
    match number {
        1 => "ctct-proxy.refreshes".to_owned(),
        _ => format!("ctct-proxy.{number}.refreshes"),
    }
}

/// The file at `path`, locked; `None` when another process has it.
fn lock(path: &Path) -> io::Result<Option<File>> {
    loop {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        // whoever had it may have removed it on leaving, and the lock would be on a file without
        // a name
        let (ours, named) = (file.metadata()?, fs::metadata(path));
        if named.is_ok_and(|named| (named.dev(), named.ino()) == (ours.dev(), ours.ino())) {
            return Ok(Some(file));
        }
    }
}

fn unavailable(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Unavailable {
        attempt: ATTEMPT,
        cause: format!(
            "{}: {error}; name a file that may be written with --refresh-journal",
            path.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_file_is_locked_once_and_free_again_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.refreshes");
        let claimed = claim(Some(&path), Path::new("")).unwrap();
        let refused = claim(Some(&path), Path::new("")).unwrap_err().to_string();
        assert!(refused.contains("a.refreshes is used by another process"), "{refused}");
        drop(claimed);
        claim(Some(&path), Path::new("")).unwrap();
        let nowhere = directory.path().join("missing/a.refreshes");
        let refused = claim(Some(&nowhere), Path::new("")).unwrap_err().to_string();
        assert!(refused.contains("--refresh-journal"), "{refused}");
    }
    #[test]
    fn instances_in_one_directory_have_files_of_their_own() {
        let directory = tempfile::tempdir().unwrap();
        let claim = || claim(None, directory.path()).unwrap();
        let name =
            |claimed: &(PathBuf, File)| claimed.0.file_name().unwrap().to_str().unwrap().to_owned();
        let (one, two, three) = (claim(), claim(), claim());
        assert_eq!(
            [&one, &two, &three].map(name),
            ["ctct-proxy.refreshes", "ctct-proxy.2.refreshes", "ctct-proxy.3.refreshes"]
        );
        fs::write(&three.0, "left").unwrap();
        drop((one, two, three));
        assert_eq!(name(&claim()), "ctct-proxy.3.refreshes", "where something was left is first");
    }
}
