//! Room on the disk: how "after `Ok` a full disk does not prevent `finish_refresh`" is kept.
//!
//! In WAL mode a commit writes to one file only, the write-ahead log. So blocks for it are
//! allocated ahead, and no write begins unless the allocated part, after it, still holds one
//! [`REFRESH_ROOM`] for each refresh under way: writes into allocated blocks need no further space.
//! The database file is written later, by a checkpoint; one that fails costs nothing but a longer
//! log. What is written, and when, is decided elsewhere.

use std::fs::{File, OpenOptions};
use std::path::Path;

use rusqlite::Connection;
use rustix::fs::{FallocateFlags, fallocate, fstatvfs};
use rustix::io::Errno;

use super::fault::Fault;
use super::opening::log_of;

/// Log bytes that any small write may take: 15 pages. A row touches at most its leaf, two siblings
/// and a parent in each of its tables and indexes, and the free list.
pub(super) const WRITE_ROOM: u64 = 64 * 1024;
/// Log bytes that storing refreshed tokens may take: 64 KiB of tokens in overflow pages, twice that
/// for sealing, page tails and the free list, and one small write.
pub(super) const REFRESH_ROOM: u64 = 3 * WRITE_ROOM;
/// Least free space with which a refresh may begin.
const FREE_MIN: u64 = 1024 * 1024;
/// Log frames after which it is brought into the database: 1 MiB, some hundred commits.
const FRAMES_MAX: u64 = 256;
/// Bytes of a frame: a page and its header (<https://www.sqlite.org/fileformat2.html#walformat>).
const FRAME_LEN: u64 = 4096 + 24;
/// Bytes before the first frame.
const LOG_HEADER_LEN: u64 = 32;
/// The log is allocated in steps of this many bytes, so that few writes need a step.
const STEP: u64 = 256 * 1024;

/// Keeps account of the write-ahead log of one connection, which is the only one of its database.
///
/// The log starts over after a checkpoint and is never cut while the store is open, so what was
/// allocated once stays; its unwritten end reads as zeros, which are no valid frames. A zero blob
/// in the database would not do as a reserve: the pages that it frees are in the other file. File
/// systems that write elsewhere on each change (btrfs, ZFS) or cannot allocate may still need
/// space, so that a refresh also begins only while [`FREE_MIN`] is free.
pub(super) struct Room {
    log: File,
    /// Bytes from the start of the log that have blocks.
    allocated: u64,
    /// Frames in the log that the next commit does not overwrite.
    frames: u64,
}

impl Room {
    /// Takes account of the log of `db` beside `path`.
    pub(super) fn open(db: &Connection, path: &Path) -> Result<Self, Fault> {
        let path = log_of(path);
        // SQLite holds its locks on the database file alone: opening and closing the log drops none
        // of them.
        let log = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|e| Fault::NoRoom(format!("no access to {}: {e}", path.display())))?;
        let frames = frames(db, "PRAGMA wal_checkpoint(NOOP)")?;
        Ok(Self { log, allocated: 0, frames })
    }

    /// Makes sure that the next commit finds `bytes` in the log.
    pub(super) fn ensure(&mut self, db: &Connection, bytes: u64) -> Result<(), Fault> {
        let wanted = self.end() + bytes;
        if wanted <= self.allocated || self.allocate(wanted).is_ok() {
            return Ok(());
        }
        self.checkpoint(db)?;
        let wanted = self.end() + bytes;
        if wanted <= self.allocated {
            return Ok(());
        }
        self.allocate(wanted).map_err(|e| Fault::NoRoom(format!("no room on the disk: {e}")))
    }

    /// Refuses when the file system is as good as full.
    pub(super) fn ensure_free(&self) -> Result<(), Fault> {
        match fstatvfs(&self.log) {
            Ok(stat) if stat.f_bavail.saturating_mul(stat.f_frsize) < FREE_MIN => {
                Err(Fault::NoRoom("less than 1 MiB is free on the disk".to_owned()))
            }
            Ok(_) => Ok(()),
            Err(e) => Err(Fault::NoRoom(format!("could not ask for the free space: {e}"))),
        }
    }

    /// Learns how long the log is; to be called after each commit. When that fails the worst is
    /// taken for true.
    pub(super) fn measure(&mut self, db: &Connection) {
        self.frames = frames(db, "PRAGMA wal_checkpoint(NOOP)").unwrap_or(self.frames + FRAMES_MAX);
    }

    /// Brings the log into the database when it has become long. A failure is no harm: the log
    /// grows on.
    pub(super) fn tidy(&mut self, db: &Connection) {
        if self.frames >= FRAMES_MAX
            && let Err(fault) = self.checkpoint(db)
        {
            let fault = fault.into_error("bring the log into the database");
            tracing::warn!(%fault, frames = self.frames, "the log of the database grows");
        }
    }

    fn checkpoint(&mut self, db: &Connection) -> Result<(), Fault> {
        self.frames = frames(db, "PRAGMA wal_checkpoint(PASSIVE)")?;
        Ok(())
    }

    /// Where the next commit begins to write.
    const fn end(&self) -> u64 {
        LOG_HEADER_LEN + self.frames * FRAME_LEN
    }

    fn allocate(&mut self, wanted: u64) -> Result<(), Errno> {
        let step = wanted.next_multiple_of(STEP);
        for len in [step, wanted] {
            match fallocate(&self.log, FallocateFlags::empty(), 0, len) {
                // A file system without allocation: `ensure_free` is all that can be had there.
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                    self.allocated = len;
                    return Ok(());
                }
                Err(error) if len == wanted => return Err(error),
                Err(_) => {}
            }
        }
        Ok(())
    }
}

/// Frames that stay in the log after the checkpoint `pragma`. When all of them are in the database
/// the next commit starts over at the first frame, since nobody else reads the log.
fn frames(db: &Connection, pragma: &str) -> Result<u64, Fault> {
    let (log, done): (i64, i64) =
        db.prepare_cached(pragma)?.query_row([], |row| Ok((row.get(1)?, row.get(2)?)))?;
    Ok(if log == done { 0 } else { u64::try_from(log).unwrap_or_default() })
}
