//! The encryption keys of one installation: the current one seals, the older ones still open.
//!
//! Each sealed value names its key, so that values of several keys can lie side by side while they
//! are sealed anew one by one. The text form, which key files have, is one key a line in base64,
//! the current one first; empty lines and lines that begin with `#` say nothing. There is no key
//! above the keys: a sealed value is shorter than a wrapped key would be, and sealing it anew makes
//! an old key worthless, which wrapping anew would not.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::seal::{HEAD_LEN, VERSION};
use super::{KeyError, KeyId, SealError, Sealer, Secret};

/// Characters of a key in base64, and its line end.
const LINE_LEN: usize = 45;

/// The keys; clones share them.
#[derive(Clone)]
pub struct KeyRing {
    current: Arc<RingKey>,
    older: Vec<Arc<RingKey>>,
}

struct RingKey {
    /// For writing the key down; the cipher in `sealer` cannot be asked for it.
    key: Secret<[u8; 32]>,
    sealer: Sealer,
}

impl RingKey {
    fn new(key: Secret<[u8; 32]>) -> Arc<Self> {
        let sealer = Sealer::new(key.clone());
        Arc::new(Self { key, sealer })
    }

    const fn id(&self) -> KeyId {
        self.sealer.key_id()
    }
}

impl KeyRing {
    /// A ring of one key.
    #[must_use]
    pub fn new(key: Secret<[u8; 32]>) -> Self {
        Self { current: RingKey::new(key), older: Vec::new() }
    }

    /// A ring of one new key.
    #[must_use]
    pub fn generate() -> Self {
        Self::new(Sealer::random_key())
    }

    /// The keys in `text`; one that is there twice counts once.
    ///
    /// # Errors
    /// [`KeyError`] when a line is no key, or there is none.
    pub fn read(text: &str) -> Result<Self, KeyError> {
        let lines = text.lines().map(str::trim);
        let mut keys = lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| Sealer::key_from_base64(line).map(RingKey::new));
        let mut ring = Self { current: keys.next().ok_or(KeyError)??, older: Vec::new() };
        for key in keys {
            ring.add(key?);
        }
        Ok(ring)
    }

    /// What [`KeyRing::read`] reads.
    #[must_use]
    pub fn text(&self) -> Secret<String> {
        let mut text = Zeroizing::new(String::with_capacity(LINE_LEN * (1 + self.older.len())));
        for key in self.keys() {
            STANDARD.encode_string(key.key.expose(), &mut text);
            text.push('\n');
        }
        Secret::new(std::mem::take(&mut *text))
    }

    /// The key that seals.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.current.id()
    }

    /// The keys that only open.
    #[must_use]
    pub fn older(&self) -> Vec<KeyId> {
        self.older.iter().map(|key| key.id()).collect()
    }

    /// Whether it has the key.
    #[must_use]
    pub fn holds(&self, id: KeyId) -> bool {
        self.keys().any(|key| key.id() == id)
    }

    /// The same with a new key before them, which is the current one then.
    #[must_use]
    pub fn with_new_key(&self) -> Self {
        let mut ring = Self::generate();
        self.keys().for_each(|key| ring.add(Arc::clone(key)));
        ring
    }

    /// The same with the keys of `other` behind them.
    #[must_use]
    pub fn joined(&self, other: &Self) -> Self {
        let mut ring = self.clone();
        other.keys().for_each(|key| ring.add(Arc::clone(key)));
        ring
    }

    /// The current key alone.
    #[must_use]
    pub fn current_alone(&self) -> Self {
        Self { current: Arc::clone(&self.current), older: Vec::new() }
    }

    /// What values sealed with the current key begin with.
    #[must_use]
    pub fn head(&self) -> [u8; HEAD_LEN] {
        let mut head = [VERSION; HEAD_LEN];
        let id = self.key_id();
        head.iter_mut().skip(1).zip(id.as_bytes()).for_each(|(to, from)| *to = *from);
        head
    }

    /// Seals `plain` for the place that `aad` names, with the current key.
    #[must_use]
    pub fn seal(&self, aad: &[u8], plain: &[u8]) -> Vec<u8> {
        self.current.sealer.seal(aad, plain)
    }

    /// Opens what any of the keys sealed for the place that `aad` names.
    ///
    /// # Errors [`SealError::OtherKey`] when a key sealed it that is not here,
    /// [`SealError::Damaged`] when it is not as it was sealed.
    pub fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Secret<Vec<u8>>, SealError> {
        let id = KeyId::of_sealed(sealed).ok_or(SealError::Damaged)?;
        let key = self.keys().find(|key| key.id() == id);
        key.unwrap_or(&self.current).sealer.open(aad, sealed)
    }

    fn keys(&self) -> impl Iterator<Item = &Arc<RingKey>> {
        std::iter::once(&self.current).chain(&self.older)
    }

    fn add(&mut self, key: Arc<RingKey>) {
        if !self.holds(key.id()) {
            self.older.push(key);
        }
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (current, older) = (self.key_id(), self.older());
        f.debug_struct("KeyRing").field("current", &current).field("older", &older).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_older_keys_sealed_still_opens_and_the_current_one_seals() {
        let old = KeyRing::generate();
        let value = old.seal(b"here", b"hunter2");
        let both = old.with_new_key();
        assert_eq!(both.open(b"here", &value).unwrap().expose(), b"hunter2");
        let anew = both.seal(b"here", b"hunter2");
        assert!(anew.starts_with(&both.head()) && !value.starts_with(&both.head()));
        let new = both.current_alone();
        assert_eq!(new.open(b"here", &anew).unwrap().expose(), b"hunter2");
        let other = SealError::OtherKey { sealed_with: old.key_id(), given: new.key_id() };
        assert_eq!(new.open(b"here", &value), Err(other));
        assert_eq!(new.open(b"here", b"\x01ab"), Err(SealError::Damaged));
        assert_eq!(both.joined(&old).older(), [old.key_id()], "a key is there once");
    }

    #[test]
    fn a_ring_is_read_as_it_was_written_with_remarks_and_without_showing_keys() {
        let ring = KeyRing::generate().with_new_key();
        let text = ring.text();
        assert_eq!(text.expose().len(), 2 * LINE_LEN);
        let remarked = format!("# current\r\n{}\n# end\n", text.expose().replace('\n', "\r\n\r\n"));
        for text in [text.expose(), &remarked] {
            let read = KeyRing::read(text).unwrap();
            assert_eq!((read.key_id(), read.older()), (ring.key_id(), ring.older()));
        }
        for bad in ["", "# nothing\n", "hunter2", &format!("{}hunter2\n", text.expose())] {
            assert!(KeyRing::read(bad).is_err());
        }
        let shown = format!("{ring:?}");
        assert!(shown.contains(&ring.key_id().to_string()) && shown.len() < 80, "{shown}");
    }
}
