//! What binds a consent to the proxy that asked for it: `state` (RFC 6749 section 10.12) and the
//! verifier of PKCE (RFC 7636).
//!
//! Both are 32 random bytes in base64url. The state goes through the owner's browser and is kept
//! here by its SHA-256 only, so that who reads the store cannot come back in the owner's place.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use super::Secret;

/// Characters of 32 bytes in base64url without padding.
const TEXT_LEN: usize = 43;

/// A state in the clear.
#[derive(Debug)]
pub struct StateToken(Secret<String>);

/// The SHA-256 of a state.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateDigest([u8; 32]);

/// A code verifier in the clear.
#[derive(Debug)]
pub struct Verifier(Secret<String>);

impl StateToken {
    /// A new one.
    #[must_use]
    pub fn generate() -> Self {
        Self(random_text())
    }

    /// As text, for the link that the owner opens.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// What is kept of it.
    #[must_use]
    pub fn digest(&self) -> StateDigest {
        StateDigest::of_bytes(self.0.expose())
    }
}

impl StateDigest {
    /// The digest of a state that was presented; `None` when it does not have the form of one.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        let has_form = text.len() == TEXT_LEN && text.bytes().all(allowed);
        has_form.then(|| Self::of_bytes(text))
    }

    fn of_bytes(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }
}

kept_digest!(StateDigest);

impl Verifier {
    /// A new one.
    #[must_use]
    pub fn generate() -> Self {
        Self(random_text())
    }

    /// What the consent is asked for with, by the method S256 (RFC 7636 section 4.2).
    #[must_use]
    pub fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(self.0.expose().as_bytes()))
    }

    /// The verifier itself, which proves at the exchange of the code who asked.
    #[must_use]
    pub fn into_secret(self) -> Secret<String> {
        self.0
    }
}

#[expect(clippy::disallowed_methods, reason = "secrets are one of the places of chance")]
fn random_text() -> Secret<String> {
    let bytes: [u8; 32] = rand::random();
    Secret::new(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_new_each_time_and_known_by_its_digest() {
        let (one, two) = (StateToken::generate(), StateToken::generate());
        assert_eq!(StateDigest::of(one.expose()), Some(one.digest()));
        assert_ne!(one.digest(), two.digest());
        assert_eq!(format!("{one:?}"), "StateToken(***)");
        for other in ["", "short", &"a".repeat(44), &"+".repeat(43), &"ä".repeat(43)] {
            assert_eq!(StateDigest::of(other), None, "{other}");
        }
    }

    #[test]
    fn a_challenge_is_that_of_the_standard() {
        // RFC 7636 appendix B
        let verifier = Verifier("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".into());
        assert_eq!(verifier.challenge(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }
}
