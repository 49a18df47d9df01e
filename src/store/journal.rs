//! How far refreshes have come, in a file of this machine beside the store.
//!
//! A store keeps that a refresh was begun and, at its end, the new tokens. What lies between is
//! here: that the request is about to leave, and the tokens that came, before the store has them.
//! So a store that fails, and a process that dies, cost no tokens that have arrived. The file grows
//! by sealed records and starts over when nothing is open. Room for all that an open refresh may
//! write is allocated when it begins: no refresh is begun that could not be journalled to its end.
//! Records of versions that the store has left behind mean nothing.

mod left;
mod record;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use tracing::debug;
use zeroize::Zeroizing;

use self::left::open_at_end;
use self::record::{BEGUN, ENDED, POSTED, RECEIVED, Record, encode, name_of, read, sealed_away};
use super::{OpenRefresh, StoreError, Tokens};
use crate::engine::{TenantName, Unix};
use crate::secret::KeyRing;

pub(super) use self::left::{Ahead, left_in};

/// Bytes that one refresh may write: tokens of 64 KiB and a few small records.
const REFRESH_ROOM: u64 = 72 * 1024;
/// The file is allocated in steps of this many bytes.
const STEP: u64 = 256 * 1024;
/// The file starts over when it is longer than this and nothing is open.
const LONG: u64 = 64 * 1024;
/// One in which something stays open for long is written anew, without what has ended, when it is
/// longer than this and than twice what stayed the last time.
const CROWDED: u64 = 1024 * 1024;

/// The journal; clones share it.
#[derive(Clone)]
pub(super) struct Journal {
    pages: Arc<Mutex<Pages>>,
}

struct Pages {
    path: PathBuf,
    /// Loaded for each record while the pages are held, as the store's jobs do it.
    keys: Arc<ArcSwap<KeyRing>>,
    /// `None` once closed.
    file: Option<File>,
    /// Bytes of whole records.
    end: u64,
    /// Bytes from the start that have blocks.
    allocated: u64,
    /// Bytes that stayed when the file was last written anew.
    kept: u64,
    /// Tenants with a refresh whose end is not recorded, and its version.
    open: BTreeMap<TenantName, u64>,
    /// What was open when the file was opened, of tokens that the store has.
    left: Vec<OpenRefresh>,
    /// Tokens that came then for a version that the store did not have.
    ahead: Vec<OpenRefresh>,
}

impl Journal {
    /// The journal beside the database at `db`, whose tokens have the versions of `current`.
    /// Whoever opens it holds the lock of the database.
    pub(super) fn open(
        db: &Path,
        keys: Arc<ArcSwap<KeyRing>>,
        current: &BTreeMap<TenantName, u64>,
    ) -> Result<Self, StoreError> {
        let path = path_of(db);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(|error| unavailable(&path, &error))?;
        // on one disk with the database, which is synced before the next refresh begins
        Self::on((path, file), keys, current, Ahead::IsPast)
    }

    /// The journal in a file at a path, which is nobody else's.
    pub(super) fn on(
        (path, mut file): (PathBuf, File),
        keys: Arc<ArcSwap<KeyRing>>,
        current: &BTreeMap<TenantName, u64>,
        ahead: Ahead,
    ) -> Result<Self, StoreError> {
        let explain = |error: io::Error| unavailable(&path, &error);
        // left by a rotation that was killed; the file itself is whole
        drop(fs::remove_file(successor_of(&path)));
        let mut bytes = Zeroizing::new(Vec::new());
        file.read_to_end(&mut bytes).map_err(explain)?;
        let (records, end) = read(&bytes, &keys.load(), &path);
        refuse_sealed_away(&path, &records, current)?;
        let last = records.last().map_or("none", |record| name_of(record.step));
        let left = open_at_end(records, current, ahead);
        debug!(last, open = left.len(), "the journal of refreshes is read");
        let end = if left.is_empty() { 0 } else { end };
        file.set_len(end).and_then(|()| file.sync_all()).map_err(explain)?;
        let open = left.values().map(|open| (open.tenant.clone(), open.version)).collect();
        let is_current = |open: &OpenRefresh| current.get(&open.tenant) == Some(&open.version);
        let (left, ahead) = left.into_values().partition(is_current);
        let file = Some(file);
        let pages = Pages { path, keys, file, end, allocated: end, kept: 0, open, left, ahead };
        Ok(Self { pages: Arc::new(Mutex::new(pages)) })
    }

    /// No journal, for whoever begins no refresh.
    pub(super) fn none(keys: Arc<ArcSwap<KeyRing>>) -> Self {
        let (path, open, left) = (PathBuf::new(), BTreeMap::new(), Vec::new());
        let ahead = Vec::new();
        let pages =
            Pages { path, keys, file: None, end: 0, allocated: 0, kept: 0, open, left, ahead };
        Self { pages: Arc::new(Mutex::new(pages)) }
    }

    /// What was open when the journal was opened; told once, since there are tokens in it.
    pub(super) fn take_left(&self) -> Result<Vec<OpenRefresh>, StoreError> {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if pages.file.is_none() {
            return Err(StoreError::closed("read the journal of refreshes"));
        }
        Ok(std::mem::take(&mut pages.left))
    }

    /// Tokens that were found for versions that the store did not have; told once.
    pub(super) fn take_ahead(&self) -> Vec<OpenRefresh> {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut pages.ahead)
    }

    /// A refresh begins; makes sure of the room for its records. Whether nothing was known of it
    /// before. Not flushed: what is lost of it leaves a doubt, no harm.
    pub(super) async fn begun(
        &self,
        tenant: &TenantName,
        version: u64,
        at: Unix,
    ) -> Result<bool, StoreError> {
        let tenant = tenant.clone();
        self.write("journal the begin of a refresh", move |pages| {
            pages.make_room()?;
            pages.append(BEGUN, &tenant, version, at, None)?;
            Ok(pages.open.insert(tenant, version) != Some(version))
        })
        .await
    }

    /// The request is about to leave; flushed.
    pub(super) async fn posted(
        &self,
        tenant: &TenantName,
        version: u64,
        at: Unix,
    ) -> Result<(), StoreError> {
        let tenant = tenant.clone();
        self.write("journal a token request", move |pages| {
            pages.append(POSTED, &tenant, version, at, None)?;
            pages.flush()
        })
        .await
    }

    /// Tokens came; flushed.
    pub(super) async fn received(
        &self,
        tenant: &TenantName,
        version: u64,
        tokens: &Tokens,
        at: Unix,
    ) -> Result<(), StoreError> {
        let (tenant, tokens) = (tenant.clone(), tokens.clone());
        self.write("journal new tokens", move |pages| {
            pages.append(RECEIVED, &tenant, version, at, Some(&tokens))?;
            pages.flush()
        })
        .await
    }

    /// The store knows the end of the tenant's refresh. Not flushed, and a failure is no harm: the
    /// store's version says the same.
    pub(super) async fn ended(&self, tenant: &TenantName) {
        self.end(tenant, None).await;
    }

    /// The same, but only if the tenant's refresh is still the one of `version`.
    pub(super) async fn ended_of(&self, tenant: &TenantName, version: u64) {
        self.end(tenant, Some(version)).await;
    }

    async fn end(&self, tenant: &TenantName, of: Option<u64>) {
        let ending = tenant.clone();
        let written = self
            .write("journal the end of a refresh", move |pages| {
                let open = pages.open.get(&ending).copied();
                if open.is_some_and(|open| of.is_none_or(|of| of == open)) {
                    pages.open.remove(&ending);
                    pages.append(ENDED, &ending, 0, Unix::default(), None)
                } else {
                    Ok(())
                }
            })
            .await;
        if let Err(error) = written {
            debug!(%tenant, %error, "the end of a refresh is not in the journal");
        }
    }

    /// Ends all use of the file, and removes it when nothing is open.
    pub(super) fn close(&self) {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if pages.file.take().is_some() && pages.open.is_empty() {
            // Left behind, it says as little as an empty one.
            drop(fs::remove_file(&pages.path));
        }
    }

    /// Seals what is open anew with the current key, in a new file that takes the place of the old
    /// one at once: no record needs an older key afterwards.
    pub(super) async fn seal_anew(&self) -> Result<(), StoreError> {
        self.write("seal the journal of refreshes anew", Pages::seal_anew).await
    }

    async fn write<T: Send + 'static>(
        &self,
        attempt: &'static str,
        work: impl FnOnce(&mut Pages) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let pages = Arc::clone(&self.pages);
        let writing = tokio::task::spawn_blocking(move || {
            let mut pages = pages.lock().unwrap_or_else(PoisonError::into_inner);
            if pages.file.is_none() {
                return Err(StoreError::closed(attempt));
            }
            work(&mut pages).map_err(|e| StoreError::Unavailable { attempt, cause: e.to_string() })
        });
        writing.await.unwrap_or_else(|_| Err(StoreError::closed(attempt)))
    }
}

impl Pages {
    fn make_room(&mut self) -> io::Result<()> {
        if self.open.is_empty() && self.end > LONG {
            self.file()?.set_len(0)?;
            (self.end, self.allocated) = (0, 0);
        } else if self.end > CROWDED.max(2 * self.kept)
            && let Err(error) = self.seal_anew()
        {
            // it stays as long as it is
            debug!(%error, "the journal of refreshes cannot be written anew");
        }
        let open = self.open.len() as u64 + 1;
        let wanted = self.end + open * REFRESH_ROOM;
        if wanted <= self.allocated {
            return Ok(());
        }
        let len = wanted.next_multiple_of(STEP);
        match fallocate(self.file()?, FallocateFlags::empty(), 0, len) {
            // A file system without allocation: the store's own check is all that can be had.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                self.allocated = len;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn append(
        &mut self,
        step: u8,
        tenant: &TenantName,
        version: u64,
        at: Unix,
        tokens: Option<&Tokens>,
    ) -> io::Result<()> {
        let record = encode(&self.keys.load(), step, tenant, version, at, tokens);
        self.file()?.write_all_at(&record, self.end)?;
        self.end += record.len() as u64;
        Ok(())
    }

    fn seal_anew(&mut self) -> io::Result<()> {
        let mut bytes =
            Zeroizing::new(vec![0; usize::try_from(self.end).map_err(io::Error::other)?]);
        self.file()?.read_exact_at(&mut bytes, 0)?;
        let keys = self.keys.load_full();
        let (records, end) = read(&bytes, &keys, &self.path);
        if end != self.end || records.iter().any(|record| record.missing.is_some()) {
            return Err(io::Error::other("a record cannot be opened with the keys that are there"));
        }
        let open = records.iter().filter(|old| self.open.contains_key(&old.tenant));
        let anew = open.flat_map(|old| {
            encode(&keys, old.step, &old.tenant, old.version, old.at, old.tokens.as_ref())
        });
        let anew: Vec<u8> = anew.collect();
        let end = anew.len() as u64;
        // what is under way was promised this room
        let room = end + self.open.len() as u64 * REFRESH_ROOM;
        let room = room.max(1).next_multiple_of(STEP);
        let path = successor_of(&self.path);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(&path)?;
        match fallocate(&file, FallocateFlags::empty(), 0, room) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(error) => return Err(error.into()),
        }
        file.write_all_at(&anew, 0)?;
        file.sync_all()?;
        fs::rename(&path, &self.path)?;
        // from here on the old file has no name: what would be written there would be lost
        (self.file, self.end, self.kept, self.allocated) = (Some(file), end, end, room);
        if let Some(folder) = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.file()?.sync_data()
    }

    fn file(&self) -> io::Result<&File> {
        self.file.as_ref().ok_or_else(|| io::Error::other("closed"))
    }
}

/// What is open and cannot be read is not cut off: it may hold the only copy of a refresh token.
fn refuse_sealed_away(
    path: &Path,
    records: &[Record],
    current: &BTreeMap<TenantName, u64>,
) -> Result<(), StoreError> {
    let Some((tenant, key)) = sealed_away(records, current) else { return Ok(()) };
    let path = path.display();
    let cause = format!(
        "{path}: a refresh of tenant {tenant} is written down with encryption key {key}, which is \
         not there; put that key back into the key file, in a line below the one that is there"
    );
    Err(StoreError::Unavailable { attempt: "open the journal of refreshes", cause })
}

fn unavailable(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Unavailable {
        attempt: "open the journal of refreshes",
        cause: format!("{}: {error}; check owner and mode", path.display()),
    }
}

/// The journal of the database at `db`.
pub(super) fn path_of(db: &Path) -> PathBuf {
    let mut path = db.as_os_str().to_owned();
    path.push(".refreshes");
    PathBuf::from(path)
}

/// Where a journal that is sealed anew is written until it takes the place of the one at `path`.
fn successor_of(path: &Path) -> PathBuf {
    let mut successor = path.as_os_str().to_owned();
    successor.push(".new");
    PathBuf::from(successor)
}
