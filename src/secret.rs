//! What must not be seen: secrets in memory, client keys, and the sealing of tokens at rest.
//!
//! A [`Secret`] has no readable `Debug` and is wiped when dropped; [`Secret::expose`] is the one
//! way to its value, so that every use can be found by that word. Client keys exist in the clear
//! only in the answer that creates them; all else holds their digest.

pub mod age_file;
/// What every digest has that a store keeps in the place of a secret.
macro_rules! kept_digest {
    ($name:ident) => {
        impl $name {
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

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    };
}

mod client_key;
mod key_ring;
mod seal;
mod state;
mod token_digest;

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

pub use client_key::{ClientKey, ClientKeyDigest};
pub use key_ring::KeyRing;
pub use seal::{KeyError, KeyId, SEALED_EXTRA, SealError, Sealer};
pub use state::{StateDigest, StateToken, Verifier};
pub use token_digest::TokenDigest;

/// A value that is never printed and is wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T: Zeroize>(Zeroizing<T>);

impl<T: Zeroize> Secret<T> {
    /// Takes `value` into custody.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self(Zeroizing::new(value))
    }

    /// The value itself; keep it out of logs, errors and metrics.
    #[must_use]
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl From<&str> for Secret<String> {
    fn from(text: &str) -> Self {
        Self::new(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_print() {
        let secret: Secret<String> = "hunter2".into();
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(secret.expose(), "hunter2");
    }
}
