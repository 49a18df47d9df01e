//! Files that leave this program for another: sealed to their receivers in the format of age
//! (<https://age-encryption.org/v1>), which other programs open too.
//!
//! Unlike what `seal` makes, they are not for this installation: whoever holds the secret key of a
//! recipient opens them anywhere. Only X25519 keys are taken, `age1…` and `AGE-SECRET-KEY-1…`. What
//! is cut or changed on the way does not open. No text of an error repeats what was given: a secret
//! key may stand where a recipient belongs.

use std::io::{self, Read as _, Write};
use std::sync::{Arc, Mutex, PoisonError};

use age::armor::ArmoredReader;
use age::stream::StreamWriter;
use age::x25519;
use zeroize::Zeroizing;

/// What an age file begins with.
const MARK: &[u8] = b"age-encryption.org/";
/// What one in ASCII begins with.
const ARMOUR: &[u8] = b"-----BEGIN AGE ENCRYPTED FILE-----";
/// What the text of a secret key begins with.
const SECRET_MARK: &str = "AGE-SECRET-KEY-";
/// Bytes that are given out at a time: what age itself seals at a time.
const PIECE: usize = 64 * 1024;

/// A text is no recipient or no identity, or there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgeKeyError {
    /// There is none.
    #[error("there is no key; name one at least")]
    None,
    /// One, counted from 1, is no recipient.
    #[error("key {0} is no age recipient; one begins with age1 (`age-keygen -y` prints it)")]
    NoRecipient(usize),
    /// One, counted from 1, is the secret key.
    #[error(
        "key {0} is a secret key, which opens files and is nobody else's business; name the \
         recipient that belongs to it (`age-keygen -y` prints it)"
    )]
    Secret(usize),
    /// One, counted from 1, is no identity.
    #[error("line {0} is no age identity; one begins with AGE-SECRET-KEY-1")]
    NoIdentity(usize),
}

/// A file did not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It was sealed to others.
    #[error("the file was sealed to other recipients than this identity")]
    OtherRecipient,
    /// It was cut or changed.
    #[error("the file is cut or damaged; get it again")]
    Damaged,
}

/// Those who may open a file.
#[derive(Clone)]
pub struct Recipients(Vec<x25519::Recipient>);

impl Recipients {
    /// The recipients with these texts.
    ///
    /// # Errors
    /// [`AgeKeyError`]
    pub fn read<T: AsRef<str>>(texts: &[T]) -> Result<Self, AgeKeyError> {
        if texts.is_empty() {
            return Err(AgeKeyError::None);
        }
        let read = |(at, text): (usize, &T)| {
            let text = text.as_ref().trim();
            if text.to_ascii_uppercase().starts_with(SECRET_MARK) {
                return Err(AgeKeyError::Secret(at + 1));
            }
            text.parse().map_err(|_| AgeKeyError::NoRecipient(at + 1))
        };
        texts.iter().enumerate().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// Their texts, which are no secrets.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }

    /// Seals `parts`, one after the other, as one file; it comes in pieces as they are asked for.
    ///
    /// # Errors
    /// Never, as far as is known: everything happens in memory.
    pub fn seal<P>(&self, parts: P) -> io::Result<SealedFile<P>>
    where
        P: Iterator<Item = Zeroizing<Vec<u8>>>,
    {
        let recipients = self.0.iter().map(|recipient| recipient as &dyn age::Recipient);
        let sealing = age::Encryptor::with_recipients(recipients).map_err(io::Error::other)?;
        let sealed = Outlet::default();
        let writer = sealing.wrap_output(sealed.clone())?;
        Ok(SealedFile { parts, writer: Some(writer), sealed })
    }
}

/// A file that is being sealed. One that is not read to its end does not open.
pub struct SealedFile<P> {
    parts: P,
    writer: Option<StreamWriter<Outlet>>,
    sealed: Outlet,
}

impl<P: Iterator<Item = Zeroizing<Vec<u8>>>> Iterator for SealedFile<P> {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut writer = self.writer.take()?;
        while self.sealed.len() < PIECE {
            let Some(part) = self.parts.next() else {
                return Some(writer.finish().map(|_| self.sealed.take()));
            };
            if let Err(error) = writer.write_all(&part) {
                return Some(Err(error));
            }
        }
        self.writer = Some(writer);
        Some(Ok(self.sealed.take()))
    }
}

/// Where sealed bytes come out.
#[derive(Clone, Default)]
struct Outlet(Arc<Mutex<Vec<u8>>>);

impl Outlet {
    fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The secret keys that open files.
pub struct Identities(Vec<x25519::Identity>);

impl Identities {
    /// The identities in `text`, one a line; empty lines and remarks (`#`) are passed over.
    ///
    /// # Errors
    /// [`AgeKeyError`]
    pub fn read(text: &str) -> Result<Self, AgeKeyError> {
        let lines = text.lines().map(str::trim).enumerate();
        let identities = lines
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
            .map(|(at, line)| line.parse().map_err(|_| AgeKeyError::NoIdentity(at + 1)))
            .collect::<Result<Vec<_>, _>>()?;
        if identities.is_empty() { Err(AgeKeyError::None) } else { Ok(Self(identities)) }
    }

    /// Opens a whole file, binary or in ASCII.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn open(&self, file: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let opening = age::Decryptor::new_buffered(ArmoredReader::new(file));
        let identities = self.0.iter().map(|identity| identity as &dyn age::Identity);
        let mut reader = opening.and_then(|it| it.decrypt(identities)).map_err(|error| {
            if matches!(error, age::DecryptError::NoMatchingKeys) {
                OpenError::OtherRecipient
            } else {
                OpenError::Damaged
            }
        })?;
        // plain is shorter than sealed: the buffer does not grow and leaves no copy behind
        let mut plain = Zeroizing::new(Vec::with_capacity(file.len()));
        reader.read_to_end(&mut plain).map_err(|_| OpenError::Damaged)?;
        Ok(plain)
    }
}

/// Whether `content` is a file of this kind.
#[must_use]
pub fn is_age_file(content: &[u8]) -> bool {
    content.starts_with(MARK) || content.trim_ascii_start().starts_with(ARMOUR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use age::secrecy::ExposeSecret as _;

    fn sealed(to: &[&x25519::Identity], parts: usize) -> Vec<u8> {
        let texts: Vec<String> = to.iter().map(|key| key.to_public().to_string()).collect();
        let part = |number| Zeroizing::new(format!("hunter{number}\n").into_bytes());
        let file = Recipients::read(&texts).unwrap().seal((0..parts).map(part)).unwrap();
        file.map(Result::unwrap).collect::<Vec<_>>().concat()
    }

    fn identities(key: &x25519::Identity) -> Identities {
        let text = format!("# mine\n\n{}\r\n", key.to_string().expose_secret());
        Identities::read(&text).unwrap()
    }

    #[test]
    fn each_recipient_opens_the_whole_file_and_nobody_else_does() {
        let [one, two, other] = [(); 3].map(|()| x25519::Identity::generate());
        for parts in [0, 1, 30_000] {
            let file = sealed(&[&one, &two], parts);
            assert!(is_age_file(&file) && !file.windows(6).any(|window| window == b"hunter"));
            for key in [&one, &two] {
                let plain = identities(key).open(&file).unwrap();
                let text = std::str::from_utf8(&plain).unwrap();
                assert_eq!(text.lines().count(), parts);
                assert!(text.lines().enumerate().all(|(n, line)| line == format!("hunter{n}")));
            }
            assert_eq!(identities(&other).open(&file).err(), Some(OpenError::OtherRecipient));
            for len in [10, file.len() / 2, file.len() - 1] {
                let cut = identities(&one).open(&file[..len]);
                assert_eq!(cut.err(), Some(OpenError::Damaged), "{parts} parts cut to {len}");
            }
        }
    }

    #[test]
    fn files_in_ascii_open_too() {
        let key = x25519::Identity::generate();
        let file = age::encrypt_and_armor(&key.to_public(), b"hunter2").unwrap();
        assert!(is_age_file(file.as_bytes()));
        assert_eq!(identities(&key).open(file.as_bytes()).unwrap().as_slice(), b"hunter2");
        assert!(!is_age_file(b"tenant,api_key"));
    }

    #[test]
    fn what_is_no_key_is_told_by_its_place_alone() {
        let key = x25519::Identity::generate();
        let (public, secret) = (key.to_public().to_string(), key.to_string());
        let read = |second: &str| Recipients::read(&[&public, second]).err();
        assert_eq!(read(&public), None);
        assert_eq!(read("age1hunter2"), Some(AgeKeyError::NoRecipient(2)));
        assert_eq!(read(secret.expose_secret()), Some(AgeKeyError::Secret(2)));
        assert_eq!(Recipients::read::<&str>(&[]).err(), Some(AgeKeyError::None));
        assert_eq!(Identities::read("#\nhunter2").err(), Some(AgeKeyError::NoIdentity(2)));
        assert_eq!(Identities::read("# none\n").err(), Some(AgeKeyError::None));
    }
}
