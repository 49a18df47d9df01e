//! What is kept of a refresh token that may be spent by now: enough to know it again.
//!
//! A refresh token is chance of some 200 bits, so that nothing can be learned from its digest. The
//! digest does not depend on any key: it stays what it is when keys change.

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
}

kept_digest!(TokenDigest);
