//! How far refreshes have come, in a file of this machine beside the store.
//!
//! A store keeps that a refresh was begun and, at its end, the new tokens. What lies between is
//! here: that the request is about to leave, and the tokens that came, before the store has them.
//! So a store that fails, and a process that dies, cost no tokens that have arrived. The file grows
//! by sealed records and starts over when nothing is open. Room for all that an open refresh may
//! write is allocated when it begins: no refresh is begun that could not be journalled to its end.
//! Records of versions that the store has left behind mean nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use tracing::{debug, warn};
use zeroize::Zeroizing;

use super::{OpenRefresh, RefreshStep, StoreError, Tokens};
use crate::engine::{TenantName, Unix};
use crate::secret::{Sealer, Secret};

/// Bytes that one refresh may write: tokens of 64 KiB and a few small records.
const REFRESH_ROOM: u64 = 72 * 1024;
/// The file is allocated in steps of this many bytes.
const STEP: u64 = 256 * 1024;
/// The file starts over when it is longer than this and nothing is open.
const LONG: u64 = 64 * 1024;
/// Sets the records apart from all else that is sealed with the key.
const PLACE: &[u8] = b"refresh journal\0";
/// Bytes of a record's head before the tenant's name: step, version, moment, length of the name.
const HEAD_LEN: usize = 1 + 8 + 8 + 1;
/// Stands for "no moment".
const NEVER: u64 = u64::MAX;

const BEGUN: u8 = 1;
const POSTED: u8 = 2;
const RECEIVED: u8 = 3;
const ENDED: u8 = 4;

/// The journal; clones share it.
#[derive(Clone)]
pub(super) struct Journal {
    pages: Arc<Mutex<Pages>>,
    sealer: Arc<Sealer>,
}

struct Pages {
    path: PathBuf,
    /// `None` once closed.
    file: Option<File>,
    /// Bytes of whole records.
    end: u64,
    /// Bytes from the start that have blocks.
    allocated: u64,
    /// Tenants with a refresh whose end is not recorded.
    open: BTreeSet<TenantName>,
    /// What was open when the file was opened.
    left: Vec<OpenRefresh>,
}

impl Journal {
    /// The journal beside the database at `db`, whose tokens have the versions of `current`.
    /// Whoever opens it holds the lock of the database.
    pub(super) fn open(
        db: &Path,
        sealer: Arc<Sealer>,
        current: &BTreeMap<TenantName, u64>,
    ) -> Result<Self, StoreError> {
        let path = path_of(db);
        let explain = |error: io::Error| StoreError::Unavailable {
            attempt: "open the journal of refreshes",
            cause: format!("{}: {error}; check owner and mode", path.display()),
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(explain)?;
        let mut bytes = Zeroizing::new(Vec::new());
        file.read_to_end(&mut bytes).map_err(explain)?;
        let (records, end) = read(&bytes, &sealer, &path);
        let last = records.last().map_or("none", |record| name_of(record.step));
        let mut left = BTreeMap::new();
        for record in records {
            let tenant = record.tenant.clone();
            match record.into_open() {
                Some(open) if current.get(&tenant) == Some(&open.version) => {
                    keep(&mut left, open);
                }
                Some(_) | None => drop(left.remove(&tenant)),
            }
        }
        debug!(last, open = left.len(), "the journal of refreshes is read");
        let end = if left.is_empty() { 0 } else { end };
        file.set_len(end).and_then(|()| file.sync_all()).map_err(explain)?;
        let open = left.keys().cloned().collect();
        let left = left.into_values().collect();
        let pages = Pages { path, file: Some(file), end, allocated: end, open, left };
        Ok(Self { pages: Arc::new(Mutex::new(pages)), sealer })
    }

    /// What was open when the journal was opened; told once, since there are tokens in it.
    pub(super) fn take_left(&self) -> Result<Vec<OpenRefresh>, StoreError> {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if pages.file.is_none() {
            return Err(StoreError::closed("read the journal of refreshes"));
        }
        Ok(std::mem::take(&mut pages.left))
    }

    /// A refresh begins; makes sure of the room for its records. Not flushed: what is lost of it
    /// leaves a doubt, no harm.
    pub(super) async fn begun(
        &self,
        tenant: &TenantName,
        version: u64,
        at: Unix,
    ) -> Result<(), StoreError> {
        let record = self.record(BEGUN, tenant, version, at, None);
        let tenant = tenant.clone();
        self.write("journal the begin of a refresh", move |pages| {
            pages.make_room()?;
            pages.append(&record)?;
            pages.open.insert(tenant);
            Ok(())
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
        let record = self.record(POSTED, tenant, version, at, None);
        self.write("journal a token request", move |pages| {
            pages.append(&record)?;
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
        let record = self.record(RECEIVED, tenant, version, at, Some(tokens));
        self.write("journal new tokens", move |pages| {
            pages.append(&record)?;
            pages.flush()
        })
        .await
    }

    /// The store knows the end of the tenant's refresh. Not flushed, and a failure is no harm: the
    /// store's version says the same.
    pub(super) async fn ended(&self, tenant: &TenantName) {
        let record = self.record(ENDED, tenant, 0, Unix::default(), None);
        let ending = tenant.clone();
        let written = self
            .write("journal the end of a refresh", move |pages| {
                if pages.open.remove(&ending) { pages.append(&record) } else { Ok(()) }
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

    async fn write(
        &self,
        attempt: &'static str,
        work: impl FnOnce(&mut Pages) -> io::Result<()> + Send + 'static,
    ) -> Result<(), StoreError> {
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

    /// A record with its length before it.
    fn record(
        &self,
        step: u8,
        tenant: &TenantName,
        version: u64,
        at: Unix,
        tokens: Option<&Tokens>,
    ) -> Vec<u8> {
        let mut record = vec![step];
        record.extend(version.to_le_bytes());
        record.extend(millis(Some(at)).to_le_bytes());
        // names are at most 128 bytes (`engine::ids`)
        record.push(u8::try_from(tenant.as_str().len()).unwrap_or(u8::MAX));
        record.extend(tenant.as_str().as_bytes());
        let sealed = self.sealer.seal(&[PLACE, &record].concat(), &plain(tokens));
        record.extend(sealed);
        let len = u32::try_from(record.len()).unwrap_or(u32::MAX);
        [&len.to_le_bytes()[..], &record].concat()
    }
}

impl Pages {
    fn make_room(&mut self) -> io::Result<()> {
        if self.open.is_empty() && self.end > LONG {
            self.file()?.set_len(0)?;
            (self.end, self.allocated) = (0, 0);
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

    fn append(&mut self, record: &[u8]) -> io::Result<()> {
        self.file()?.write_all_at(record, self.end)?;
        self.end += record.len() as u64;
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.file()?.sync_data()
    }

    fn file(&self) -> io::Result<&File> {
        self.file.as_ref().ok_or_else(|| io::Error::other("closed"))
    }
}

/// The journal of the database at `db`.
pub(super) fn path_of(db: &Path) -> PathBuf {
    let mut path = db.as_os_str().to_owned();
    path.push(".refreshes");
    PathBuf::from(path)
}

/// Notes a step. A begin says nothing of what was sent before with the same version: a repeat of a
/// request whose answer is missing begins like any other.
fn keep(left: &mut BTreeMap<TenantName, OpenRefresh>, open: OpenRefresh) {
    let before = left.get(&open.tenant).filter(|before| before.version == open.version);
    if before.is_none() || !matches!(open.step, RefreshStep::Begun) {
        left.insert(open.tenant.clone(), open);
    }
}

struct Record {
    step: u8,
    tenant: TenantName,
    version: u64,
    at: Unix,
    tokens: Option<Tokens>,
    /// Bytes in the file.
    len: u64,
}

impl Record {
    /// `None` when it ends a refresh.
    fn into_open(self) -> Option<OpenRefresh> {
        let step = match (self.step, self.tokens) {
            (BEGUN, _) => RefreshStep::Begun,
            (POSTED, _) => RefreshStep::Posted,
            (RECEIVED, Some(tokens)) => RefreshStep::Received { tokens, at: self.at },
            _ => return None,
        };
        Some(OpenRefresh { tenant: self.tenant, version: self.version, step })
    }
}

const fn name_of(step: u8) -> &'static str {
    match step {
        BEGUN => "begun",
        POSTED => "posted",
        RECEIVED => "received",
        _ => "ended",
    }
}

/// The whole records of a file, and where they end.
fn read(bytes: &[u8], sealer: &Sealer, path: &Path) -> (Vec<Record>, u64) {
    let (mut records, mut rest) = (Vec::new(), bytes);
    while let Some((len, after)) = rest.split_first_chunk::<4>() {
        let len = u32::from_le_bytes(*len) as usize;
        if len == 0 {
            break;
        }
        let record = after.split_at_checked(len).and_then(|(record, next)| {
            rest = next;
            parse(record, sealer)
        });
        let Some(record) = record else {
            // a write that was cut off, which nobody was told had happened
            warn!(path = %path.display(), "the journal of refreshes ends in a broken record");
            break;
        };
        records.push(record);
    }
    let end = records.iter().map(|record| record.len).sum();
    (records, end)
}

fn parse(record: &[u8], sealer: &Sealer) -> Option<Record> {
    let number = |at: usize| Some(u64::from_le_bytes(record.get(at..at + 8)?.try_into().ok()?));
    let name_len = usize::from(*record.get(HEAD_LEN - 1)?);
    let (head, cipher_text) = record.split_at_checked(HEAD_LEN + name_len)?;
    let tenant = std::str::from_utf8(head.get(HEAD_LEN..)?).ok()?.parse().ok()?;
    let plain = sealer.open(&[PLACE, head].concat(), cipher_text).ok()?;
    Some(Record {
        step: *record.first()?,
        tenant,
        version: number(1)?,
        at: moment(number(9)?)?,
        tokens: tokens(plain.expose()),
        len: record.len() as u64 + 4,
    })
}

/// End of the access token, length of the access token (none is 0), access token, refresh token.
fn plain(tokens: Option<&Tokens>) -> Zeroizing<Vec<u8>> {
    let Some(tokens) = tokens else { return Zeroizing::default() };
    let access = tokens.access.as_ref().map_or(&[][..], |access| access.expose().as_bytes());
    let refresh = tokens.refresh.expose().as_bytes();
    // one allocation: what grows leaves copies behind
    let mut plain = Zeroizing::new(Vec::with_capacity(8 + 8 + access.len() + refresh.len()));
    plain.extend(millis(tokens.access_expires_at).to_le_bytes());
    plain.extend((access.len() as u64).to_le_bytes());
    plain.extend_from_slice(access);
    plain.extend_from_slice(refresh);
    plain
}

fn tokens(plain: &[u8]) -> Option<Tokens> {
    let (expires, rest) = plain.split_first_chunk::<8>()?;
    let (len, rest) = rest.split_first_chunk::<8>()?;
    let (access, refresh) =
        rest.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
    let text = |bytes| std::str::from_utf8(bytes).ok().map(Secret::from);
    Some(Tokens {
        access: if access.is_empty() { None } else { Some(text(access)?) },
        access_expires_at: moment(u64::from_le_bytes(*expires)),
        refresh: text(refresh)?,
    })
}

fn millis(at: Option<Unix>) -> u64 {
    at.and_then(|at| u64::try_from(at.since_epoch().as_millis()).ok()).unwrap_or(NEVER)
}

fn moment(millis: u64) -> Option<Unix> {
    (millis != NEVER).then(|| Unix::new(Duration::from_millis(millis)))
}
