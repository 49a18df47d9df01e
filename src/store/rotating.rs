//! What a rotation of the encryption key brings, for every store that seals.

use super::StoreError;
use crate::secret::KeyId;

/// A rotation that has come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRotation {
    /// The key that everything is sealed with now.
    pub key_id: KeyId,
    /// The keys that nothing is sealed with any more.
    pub given_up: Vec<KeyId>,
    /// Tenants whose tokens were sealed anew.
    pub sealed_anew: u64,
    /// It was begun before, and no new key was made now.
    pub resumed: bool,
    /// Why the keys that were given up are still in the key file, when they are.
    pub still_in_file: Option<String>,
}

/// Why an encryption key was not rotated, or not to the end.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// The store keeps nothing that is sealed.
    #[error("this store seals nothing, so it has no encryption key")]
    NothingSealed,
    /// Another rotation is not at its end.
    #[error("a rotation of the encryption key is under way")]
    UnderWay,
    /// The key file cannot be used; nothing was changed.
    #[error("{0}")]
    KeyFile(String),
    /// The store failed; what was done stays done, and the next rotation goes on from there.
    #[error(transparent)]
    Store(#[from] StoreError),
}
