//! Where the encryption keys of a database come from, and how they are written down.
//!
//! Either the operator names a file, or `<db>.key` beside the database is used and made together
//! with it. A key is never made for a database that exists: its tokens would be lost without a
//! word. A file that others may read is used, but [`KeySource::warning`] says so. A file is changed
//! in one step: whoever reads it finds the old keys or the new ones, also after a power cut. Keys
//! pass through memory that is wiped.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::{fmt, str};

use zeroize::Zeroizing;

use crate::secret::{KeyError, KeyId, KeyRing};
use crate::store::StoreError;

/// Longest key file that is read: some keys and much white space.
const KEY_FILE_LEN_MAX: u64 = 16 * 1024;
/// One allocation takes it whole: what grows leaves copies behind.
const CAPACITY: usize = 16 * 1024 + 1;
/// Mode bits of group and others.
const OPEN_TO_OTHERS: u32 = 0o077;

/// Where an encryption key comes from, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySource {
    /// The file that holds it.
    pub path: PathBuf,
    /// Which key seals.
    pub key_id: KeyId,
    /// The keys that only open what is not sealed anew yet.
    pub older: Vec<KeyId>,
    /// It was made just now, and whoever loses it loses all tokens.
    pub made: bool,
    /// The file's mode, when group or others may use the file.
    pub open_mode: Option<u32>,
}

impl KeySource {
    /// What an operator should be warned of.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let mode = self.open_mode?;
        let path = self.path.display();
        Some(format!(
            "the encryption key file {path} is open to group or others (mode {mode:04o}); \
             make it 0600"
        ))
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, path) = (self.key_id, self.path.display());
        if self.made {
            write!(
                f,
                "made encryption key {id} in {path}; keep a copy: without it all tokens are lost"
            )
        } else {
            write!(f, "encryption key {id} from {path}")?;
            if !self.older.is_empty() {
                let older: Vec<String> = self.older.iter().map(ToString::to_string).collect();
                write!(
                    f,
                    ", and older keys: {}; `ctct-proxy key rotate` seals anew what needs them and \
                     gives them up",
                    older.join(", ")
                )?;
            }
            Ok(())
        }
    }
}

/// The keys of the database at `db`: those in `key_file`, or else in `<db>.key`, which is
/// made with mode 0600 when there is no database yet.
///
/// # Errors [`StoreError::Unavailable`] when the key cannot be read or made,
/// [`StoreError::Corrupt`] when the file holds none or when the database is there but `<db>.key` is
/// not.
pub fn keys_for(db: &Path, key_file: Option<&Path>) -> Result<(KeyRing, KeySource), StoreError> {
    if let Some(path) = key_file {
        return read(path);
    }
    let mut path = db.as_os_str().to_owned();
    path.push(".key");
    let path = PathBuf::from(path);
    if path.try_exists().map_err(|e| unavailable(&path, &e))? {
        return read(&path);
    }
    // An empty file is what is left when a first start was broken off, or of a `touch`.
    if fs::metadata(db).is_ok_and(|there| there.len() > 0) {
        return Err(StoreError::Corrupt {
            attempt: "find the encryption key",
            cause: format!(
                "{} exists but its key file {} does not; put the key file back or name it with \
                 --encryption-key-file (a new key could not open the stored tokens)",
                db.display(),
                path.display()
            ),
        });
    }
    make(&path)
}

pub(super) fn read(path: &Path) -> Result<(KeyRing, KeySource), StoreError> {
    let explain = |e: io::Error| unavailable(path, &e);
    let file = File::open(path).map_err(explain)?;
    let mode = file.metadata().map_err(explain)?.permissions().mode() & 0o7777;
    let mut bytes = Zeroizing::new(Vec::with_capacity(CAPACITY));
    file.take(KEY_FILE_LEN_MAX).read_to_end(&mut bytes).map_err(explain)?;
    let keys = str::from_utf8(&bytes).ok().and_then(|text| KeyRing::read(text).ok());
    let Some(keys) = keys else {
        return Err(StoreError::Corrupt {
            attempt: "read the encryption key",
            cause: format!("{} does not hold a key in each line: {}", path.display(), KeyError),
        });
    };
    let open_mode = (mode & OPEN_TO_OTHERS != 0).then_some(mode);
    let source = KeySource {
        path: path.to_owned(),
        key_id: keys.key_id(),
        older: keys.older(),
        made: false,
        open_mode,
    };
    Ok((keys, source))
}

/// Makes a key file that is on the disk before the key is used, or is taken away again.
fn make(path: &Path) -> Result<(KeyRing, KeySource), StoreError> {
    let keys = KeyRing::generate();
    write_new(path, &keys).map_err(|e| StoreError::Unavailable {
        attempt: "make the encryption key",
        cause: format!("{}: {e}", path.display()),
    })?;
    let (key_id, older) = (keys.key_id(), Vec::new());
    Ok((keys, KeySource { path: path.to_owned(), key_id, older, made: true, open_mode: None }))
}

/// Puts `keys` in the place of what is in the key file, and returns when that is durable.
pub(super) fn replace(path: &Path, keys: &KeyRing) -> io::Result<()> {
    // the file itself is replaced, not a link to it
    let path = fs::canonicalize(path)?;
    let mut new = path.clone().into_os_string();
    new.push(".new");
    let new = PathBuf::from(new);
    // left behind by a process that was killed here
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    write_new(&new, keys)?;
    fs::rename(&new, &path).inspect_err(|_| drop(fs::remove_file(&new)))?;
    sync_directory(&path)
}

/// Writes a file for its owner alone, which is on the disk when this returns or is not there.
fn write_new(path: &Path, keys: &KeyRing) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file
        .write_all(keys.text().expose().as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| sync_directory(path));
    // Left behind, the half of a key would refuse every later start.
    written.inspect_err(|_| drop(fs::remove_file(path)))
}

/// Makes the name of a new file durable.
fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

fn unavailable(path: &Path, error: &io::Error) -> StoreError {
    let hint = match error.kind() {
        ErrorKind::NotFound => "; `ctct-proxy keygen` prints a new key",
        ErrorKind::PermissionDenied => "; check its owner and mode",
        _ => "",
    };
    StoreError::Unavailable {
        attempt: "read the encryption key",
        cause: format!("{}: {error}{hint}", path.display()),
    }
}
