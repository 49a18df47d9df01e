//! Client keys: `ctp_` and 43 base64url characters, that is 32 random bytes.
//!
//! The key is shown once, when it is made. What is kept, compared and looked up is its SHA-256: a
//! table keyed by digest gives an attacker who times look-ups nothing about a key that is 256 bits
//! of chance.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use super::Secret;

/// What every client key starts with, so that leaked keys can be found by scanners.
const PREFIX: &str = "ctp_";
/// Random bytes in a key.
const KEY_LEN: usize = 32;
/// Characters in a whole key: the prefix and base64url of 32 bytes without padding.
const TEXT_LEN: usize = PREFIX.len() + 43;

/// A client key in the clear.
#[derive(Clone, Debug)]
pub struct ClientKey(Secret<String>);

/// The SHA-256 of a client key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientKeyDigest([u8; 32]);

impl ClientKey {
    /// A new key from the operating system's randomness.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "keys are one of the places where chance is made"
    )]
    pub fn generate() -> Self {
        let bytes: [u8; KEY_LEN] = rand::random();
        Self(Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// The key in `text`, or `None` when it does not have the form of one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::has_form(text).then(|| Self(text.into()))
    }

    /// Whether `text` has the form of a client key.
    #[must_use]
    pub fn has_form(text: &str) -> bool {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        text.len() == TEXT_LEN && text.starts_with(PREFIX) && text.bytes().all(allowed)
    }

    /// The key as text, for the one answer that shows it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// What is kept of it.
    #[must_use]
    pub fn digest(&self) -> ClientKeyDigest {
        ClientKeyDigest::of(self.expose())
    }
}

impl ClientKeyDigest {
    /// The digest of a presented key.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }
}

kept_digest!(ClientKeyDigest);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_has_the_form_of_one_and_is_new_each_time() {
        let (one, two) = (ClientKey::generate(), ClientKey::generate());
        assert!(ClientKey::has_form(one.expose()));
        assert_eq!(one.expose().len(), 47);
        assert_ne!(one.digest(), two.digest());
        assert_eq!(format!("{one:?}"), "ClientKey(***)");
    }

    #[test]
    fn other_text_is_no_key() {
        for text in [
            "",
            "ctp_",
            "ctp_short",
            &format!("ctx_{}", "a".repeat(43)),
            &format!("ctp_{}", "é".repeat(43)),
        ] {
            assert!(ClientKey::parse(text).is_none(), "{text}");
        }
    }
}
