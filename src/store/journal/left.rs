//! What a process that is gone has left open in its journal.
//!
//! A record counts while the store has the version that it is about. A server can also be behind:
//! it came back empty, or older than it was. Then tokens that came are kept until it has their
//! version or a later one, whatever was begun after them; the rest says nothing that helps.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::record::{Record, read};
use super::{refuse_sealed_away, unavailable};
use crate::engine::TenantName;
use crate::secret::KeyRing;
use crate::store::{OpenRefresh, RefreshStep, StoreError};

/// Tokens that the store does not have are kept until the journal has been in use for so long
/// since: by then somebody has connected the account again, or removed it.
const KEPT_FOR: Duration = Duration::from_hours(30 * 24);

/// What tokens mean that came for a version which the store does not have yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Ahead {
    /// The store is never behind: they are of another one.
    IsPast,
    /// The store has lost that version, and perhaps gets it again.
    IsKept,
}

/// What a process that is gone left open in its journal at `path`, of tokens that have the versions
/// of `current`; the file stays as it is. Blocks.
pub(in crate::store) fn left_in(
    path: &Path,
    keys: &KeyRing,
    current: &BTreeMap<TenantName, u64>,
) -> Result<Vec<OpenRefresh>, StoreError> {
    let explain = |error: io::Error| unavailable(path, &error);
    let mut file = File::open(path).map_err(explain)?;
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            return Err(unavailable(path, &io::Error::other("a running process uses it")));
        }
        Err(error) => return Err(unavailable(path, &error.into())),
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.read_to_end(&mut bytes).map_err(explain)?;
    let (records, _) = read(&bytes, keys, path);
    let is_sealed_away = records.iter().all(|record| record.missing.is_some());
    if is_sealed_away && bytes.iter().any(|byte| *byte != 0) {
        let cause = "no record of it can be opened with the encryption key that was given";
        return Err(unavailable(path, &io::Error::other(cause)));
    }
    refuse_sealed_away(path, &records, current)?;
    Ok(open_at_end(records, current, Ahead::IsPast).into_values().collect())
}

/// What of `records` is open after the last of them.
pub(super) fn open_at_end(
    records: Vec<Record>,
    current: &BTreeMap<TenantName, u64>,
    ahead: Ahead,
) -> BTreeMap<TenantName, OpenRefresh> {
    let newest = records.iter().map(|record| record.at).max().unwrap_or_default();
    let mut left = BTreeMap::new();
    for record in records {
        let (tenant, at) = (record.tenant.clone(), record.at);
        let Some(open) = record.into_open() else {
            left.remove(&tenant);
            continue;
        };
        let stored = current.get(&tenant);
        let came = matches!(open.step, RefreshStep::Received { .. });
        let is_kept = ahead == Ahead::IsKept && came && newest.since(at) < KEPT_FOR;
        if stored == Some(&open.version) || (is_kept && stored < Some(&open.version)) {
            keep(&mut left, open, ahead);
        } else if !hides(left.get(&tenant), &open, ahead) {
            left.remove(&tenant);
        }
    }
    left
}

/// Notes a step. A begin says nothing of what was sent before with the same version: a repeat of a
/// request whose answer is missing begins like any other.
fn keep(left: &mut BTreeMap<TenantName, OpenRefresh>, open: OpenRefresh, ahead: Ahead) {
    let before = left.get(&open.tenant);
    if hides(before, &open, ahead) {
        return;
    }
    let before = before.filter(|before| before.version == open.version);
    if before.is_none() || !matches!(open.step, RefreshStep::Begun) {
        left.insert(open.tenant.clone(), open);
    }
}

/// Whether tokens that came `before` count for more than a later step: no newer ones have come.
fn hides(before: Option<&OpenRefresh>, later: &OpenRefresh, ahead: Ahead) -> bool {
    let came = |open: &OpenRefresh| matches!(open.step, RefreshStep::Received { .. });
    let Some(before) = before.filter(|before| ahead == Ahead::IsKept && came(before)) else {
        return false;
    };
    !came(later) || later.version < before.version
}
