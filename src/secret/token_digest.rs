//! What is kept of a refresh token that may be spent by now: enough to know it again.
//!
//! A refresh token is chance of some 200 bits, so that nothing can be learned from its digest. The
//! digest does not depend on any key: it stays what it is when keys change.

use std::fmt;

use sha2::{Digest as _, Sha256};

use super::Secret;

/// Separates these digests from any other use of SHA-256.
const DOMAIN: &[u8] = b"ctct-proxy refresh token\0";

/// The SHA-256 of a refresh token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// The digest of `token`.
    #[must_use]
    pub fn of(token: &Secret<String>) -> Self {
        let digest = Sha256::new().chain_update(DOMAIN).chain_update(token.expose().as_bytes());
        Self(digest.finalize().into())
    }

    /// The digest that a store kept.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes, for a store to keep.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest")
    }
}
