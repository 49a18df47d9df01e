//! Sealing of tokens at rest: XChaCha20-Poly1305 under one key of 32 bytes.
//!
//! A sealed value is `version · key id · nonce · ciphertext with tag`. Version and key id are
//! authenticated together with the associated data of the caller, which names the place that the
//! value belongs to: a value moved to another place does not open. The nonce is 24 random bytes, so
//! that no counter has to be kept. The key id is a short digest of the key, so that "another key"
//! and "damaged" can be told apart. Where keys come from and where sealed values go is not decided
//! here.

use std::fmt;

use base64::Engine as _;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize as _, Zeroizing};

use super::Secret;

/// The one format that there is.
pub(super) const VERSION: u8 = 1;
/// Bytes of a key.
const KEY_LEN: usize = 32;
/// Bytes of a key id: enough to tell the keys of one installation apart.
const KEY_ID_LEN: usize = 4;
/// Bytes of an `XChaCha20` nonce (draft-irtf-cfrg-xchacha section 2).
const NONCE_LEN: usize = 24;
/// Bytes before the nonce.
pub(super) const HEAD_LEN: usize = 1 + KEY_ID_LEN;
/// Bytes by which a sealed value is longer than the plain one; the last are the tag (RFC 8439).
pub const SEALED_EXTRA: usize = HEAD_LEN + NONCE_LEN + 16;
/// Separates the digest for the key id from any other use of the key.
const KEY_ID_DOMAIN: &[u8] = b"ctct-proxy encryption key id\0";
/// Keys are read with or without padding, since people copy them by hand.
const READ_BASE64: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A text is no encryption key. Says what is expected, never what was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an encryption key is 32 bytes in base64 (44 characters); `ctct-proxy keygen` prints a new one"
)]
pub struct KeyError;

/// A sealed value did not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It was sealed with another key.
    #[error("sealed with encryption key {sealed_with}, not with {given}")]
    OtherKey {
        /// The key that it was sealed with.
        sealed_with: KeyId,
        /// The key that was to open it.
        given: KeyId,
    },
    /// It was cut, changed or moved, or is in a format that this program does not know.
    #[error("damaged, or moved from another place")]
    Damaged,
}

/// Tells encryption keys apart without saying anything about them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; KEY_ID_LEN]);

impl KeyId {
    /// The key that sealed a value, as the value itself says.
    #[must_use]
    pub fn of_sealed(sealed: &[u8]) -> Option<Self> {
        match sealed.get(..HEAD_LEN)? {
            [VERSION, id @ ..] => id.try_into().ok().map(Self),
            _ => None,
        }
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; KEY_ID_LEN] {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// Seals and opens values with one key.
pub struct Sealer {
    cipher: XChaCha20Poly1305,
    key_id: KeyId,
}

impl Sealer {
    /// A sealer with `key`.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "the key is wiped when this returns")]
    pub fn new(key: Secret<[u8; KEY_LEN]>) -> Self {
        let digest =
            Sha256::new().chain_update(KEY_ID_DOMAIN).chain_update(key.expose()).finalize();
        let mut key_id = [0; KEY_ID_LEN];
        key_id.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        let mut cipher_key = Key::from(*key.expose());
        let cipher = XChaCha20Poly1305::new(&cipher_key);
        cipher_key.as_mut_slice().zeroize();
        Self { cipher, key_id: KeyId(key_id) }
    }

    /// A sealer with the key in `text`, base64 of 32 bytes; white space around it is passed over.
    ///
    /// # Errors
    /// [`KeyError`] when `text` is not that.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        Self::key_from_base64(text.trim()).map(Self::new)
    }

    /// The key in `text`, which is nothing but the key.
    pub(super) fn key_from_base64(text: &str) -> Result<Secret<[u8; KEY_LEN]>, KeyError> {
        let mut bytes = Zeroizing::new(vec![0; base64::decoded_len_estimate(text.len())]);
        let len = READ_BASE64.decode_slice(text, &mut bytes).map_err(|_| KeyError)?;
        let mut key = Zeroizing::new([0; KEY_LEN]);
        let read = bytes.get(..len).filter(|read| read.len() == KEY_LEN).ok_or(KeyError)?;
        key.copy_from_slice(read);
        Ok(Secret::new(*key))
    }

    /// A new key from the operating system's randomness.
    #[expect(
        clippy::disallowed_methods,
        reason = "keys are one of the places where chance is made"
    )]
    pub(super) fn random_key() -> Secret<[u8; KEY_LEN]> {
        Secret::new(rand::random())
    }

    /// A new key, as [`Sealer::from_base64`] reads it.
    #[must_use]
    pub fn generate_key() -> Secret<String> {
        Secret::new(STANDARD.encode(Self::random_key().expose()))
    }

    /// Which key this is.
    #[must_use]
    pub const fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// Seals `plain` for the place that `aad` names.
    ///
    /// # Panics
    /// Never: the cipher refuses nothing that fits into memory.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "nonces are one of the places where chance is made"
    )]
    pub fn seal(&self, aad: &[u8], plain: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE_LEN] = rand::random();
        let mut sealed = vec![VERSION];
        sealed.extend_from_slice(self.key_id.as_bytes());
        let aad = [sealed.as_slice(), aad].concat();
        let cipher_text = self
            .cipher
            .encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: &aad })
            .expect("a value in memory is shorter than the 256 GiB that one nonce may seal");
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&cipher_text);
        sealed
    }

    /// Opens what was sealed for the place that `aad` names.
    ///
    /// # Errors [`SealError::OtherKey`] when another key sealed it, [`SealError::Damaged`] when it
    /// is not as it was sealed.
    pub fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Secret<Vec<u8>>, SealError> {
        let sealed_with = KeyId::of_sealed(sealed).ok_or(SealError::Damaged)?;
        let (head, rest) = sealed.split_at_checked(HEAD_LEN).ok_or(SealError::Damaged)?;
        let (nonce, cipher_text) = rest.split_at_checked(NONCE_LEN).ok_or(SealError::Damaged)?;
        if sealed_with != self.key_id {
            return Err(SealError::OtherKey { sealed_with, given: self.key_id });
        }
        let nonce: [u8; NONCE_LEN] = nonce.try_into().map_err(|_| SealError::Damaged)?;
        let aad = [head, aad].concat();
        self.cipher
            .decrypt(&XNonce::from(nonce), Payload { msg: cipher_text, aad: &aad })
            .map(Secret::new)
            .map_err(|_| SealError::Damaged)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(byte: u8) -> Sealer {
        Sealer::new(Secret::new([byte; KEY_LEN]))
    }

    #[test]
    fn what_was_sealed_opens_at_its_place_alone() {
        let vault = sealer(7);
        let value = vault.seal(b"here", b"hunter2");
        assert_eq!(vault.open(b"here", &value).unwrap().expose(), b"hunter2");
        assert_eq!(vault.open(b"there", &value), Err(SealError::Damaged));
        assert_ne!(value, vault.seal(b"here", b"hunter2"), "each nonce is new");
        assert!(!value.windows(7).any(|window| window == b"hunter2"));
    }

    #[test]
    fn another_key_and_damage_are_told_apart() {
        let (one, two) = (sealer(1), sealer(2));
        let value = one.seal(b"", b"hunter2");
        let other = SealError::OtherKey { sealed_with: one.key_id(), given: two.key_id() };
        assert_eq!(two.open(b"", &value), Err(other));
        for len in 0..value.len() {
            assert_eq!(one.open(b"", &value[..len]), Err(SealError::Damaged), "cut to {len}");
        }
        for at in (0..value.len()).filter(|at| !(1..HEAD_LEN).contains(at)) {
            let mut changed = value.clone();
            changed[at] ^= 1;
            assert_eq!(one.open(b"", &changed), Err(SealError::Damaged), "byte {at}");
        }
    }

    #[test]
    fn a_key_is_read_as_it_was_printed_and_refused_without_being_shown() {
        let text = Sealer::generate_key();
        assert_eq!(text.expose().len(), 44);
        let one = Sealer::from_base64(text.expose()).unwrap();
        let two = Sealer::from_base64(&format!(" {}\r\n", text.expose())).unwrap();
        let unpadded = Sealer::from_base64(text.expose().trim_end_matches('=')).unwrap();
        assert_eq!((one.key_id(), one.key_id()), (two.key_id(), unpadded.key_id()));
        for bad in ["", "hunter2", &text.expose()[4..], &format!("{0}{0}", text.expose())] {
            assert_eq!(Sealer::from_base64(bad).err(), Some(KeyError));
        }
        assert!(KeyError.to_string().contains("32 bytes in base64"));
        assert_eq!(format!("{one:?}"), format!("Sealer {{ key_id: KeyId({}), .. }}", one.key_id()));
    }
}
