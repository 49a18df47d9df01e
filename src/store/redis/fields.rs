//! Our values as the fields of a hash, and back.
//!
//! Numbers are decimal, moments milliseconds since the epoch, tokens and digests bytes; what is
//! absent is no field. What cannot have been written by this program is damage.

use std::collections::HashMap;
use std::str::FromStr;
use std::time::Duration;

use crate::engine::Unix;
use crate::store::StoreError;

/// Moments beyond this are "never": a number of the server's scripts holds it exactly.
const MILLIS_MAX: u64 = 1 << 53;

/// The fields of one hash.
pub(super) struct Fields {
    what: String,
    all: HashMap<String, Vec<u8>>,
}

impl Fields {
    /// Those of `what`, which errors name.
    pub(super) fn new(what: String, all: HashMap<String, Vec<u8>>) -> Self {
        Self { what, all }
    }

    pub(super) fn bytes(&self, field: &str) -> Option<&[u8]> {
        self.all.get(field).map(Vec::as_slice)
    }

    pub(super) fn text(&self, field: &str) -> Result<Option<&str>, StoreError> {
        let text = self.bytes(field).map(std::str::from_utf8).transpose();
        text.map_err(|_| self.damaged(field))
    }

    /// A number, name or switch.
    pub(super) fn parsed<T: FromStr>(&self, field: &str) -> Result<Option<T>, StoreError> {
        let parsed = self.text(field)?.map(str::parse).transpose();
        parsed.map_err(|_| self.damaged(field))
    }

    pub(super) fn moment(&self, field: &str) -> Result<Option<Unix>, StoreError> {
        Ok(self.parsed(field)?.map(|millis| Unix::new(Duration::from_millis(millis))))
    }

    pub(super) fn digest(&self, field: &str) -> Result<Option<[u8; 32]>, StoreError> {
        let digest = self.bytes(field).map(<[u8; 32]>::try_from).transpose();
        digest.map_err(|_| self.damaged(field))
    }

    /// What must be there.
    pub(super) fn needed<T>(&self, field: &str, value: Option<T>) -> Result<T, StoreError> {
        value.ok_or_else(|| self.damaged(field))
    }

    /// That a field is not as it was written.
    pub(super) fn damaged(&self, field: &str) -> StoreError {
        damaged(format!("{}: the stored {field} is missing or damaged", self.what))
    }
}

/// What was read makes no sense.
pub(super) fn damaged(cause: String) -> StoreError {
    StoreError::Corrupt { attempt: "read the Redis store", cause }
}

/// A moment in milliseconds.
pub(super) fn millis(at: Unix) -> u64 {
    u64::try_from(at.since_epoch().as_millis()).unwrap_or(u64::MAX).min(MILLIS_MAX)
}
