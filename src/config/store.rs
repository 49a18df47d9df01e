//! `[store]`: which store, what it is sealed with, and what is done about one that forgets.
//!
//! The URL of a Redis or Valkey server may hold a password. It is taken apart here and never shown
//! again: `Debug`, `Display` and messages have `***` in its place.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::file::Raw;
use super::reader::Reader;
use super::{settings, values};
use crate::secret::{KeyError, KeyRing, Secret};

/// The port of Redis when none is named.
const REDIS_PORT: u16 = 6_379;
/// What all keys begin with when nothing else is said.
const PREFIX: &str = "ctct-proxy:";
/// Longest prefix, in bytes: it is a part of every key.
const PREFIX_LEN_MAX: usize = 64;

/// `[store]`
#[derive(Clone, Debug)]
pub struct Store {
    /// Which store.
    pub url: StoreUrl,
    /// 32 bytes in base64; without one, `sqlite:` makes `<db>.key`.
    pub encryption_key_file: Option<PathBuf>,
    /// Start also on a Redis that would forget grants.
    pub accept_volatile: bool,
    /// What is done while a shared store cannot be reached.
    pub on_loss: OnStoreLoss,
    /// How long this instance goes on with its share, and others leave it to it.
    pub degraded_for: Duration,
    /// Where refreshes under way are journalled beside a Redis; none is a file in the working
    /// directory.
    pub refresh_journal: Option<PathBuf>,
}

/// `store.url`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// Forgets everything at the end; for tries and tests.
    Memory,
    /// One file on a local disk.
    Sqlite(PathBuf),
    /// A Redis or Valkey server, which several instances may share.
    Redis(RedisUrl),
}

/// Where a Redis or Valkey server is, and which keys there are ours.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// Whether it is spoken to over TLS.
    pub tls: bool,
    /// Its name or address, one of IPv6 without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Who we are there.
    pub user: Option<String>,
    /// What shows that.
    pub password: Option<Secret<String>>,
    /// The number of the database.
    pub database: u32,
    /// What all keys begin with.
    pub prefix: String,
}

/// `store.on_loss`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnStoreLoss {
    /// Calls are refused.
    Closed,
    /// This instance goes on with its share of the limits.
    #[default]
    Degraded,
}

impl RedisUrl {
    /// Host and port, for messages.
    #[must_use]
    pub fn place(&self) -> String {
        let brackets = self.host.contains(':');
        let (open, close) = if brackets { ("[", "]") } else { ("", "") };
        format!("{open}{}{close}:{}", self.host, self.port)
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "rediss://" } else { "redis://" })?;
        if let Some(user) = &self.user {
            write!(f, "{}", utf8_percent_encode(user, NON_ALPHANUMERIC))?;
        }
        if self.password.is_some() {
            f.write_str(":***")?;
        }
        let at = if self.user.is_some() || self.password.is_some() { "@" } else { "" };
        write!(f, "{at}{}/{}", self.place(), self.database)?;
        if self.prefix != PREFIX {
            let query = form_urlencoded::Serializer::new(String::new())
                .append_pair("prefix", &self.prefix)
                .finish();
            write!(f, "?{query}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

pub(super) fn read(reader: &mut Reader<'_>) -> Store {
    let url = reader.value(&settings::STORE, store_url);
    let store = Store {
        encryption_key_file: reader.optional(&settings::ENCRYPTION_KEY_FILE, encryption_key),
        accept_volatile: reader.value(&settings::ACCEPT_VOLATILE_STORE, values::switch),
        on_loss: reader.value(&settings::ON_STORE_LOSS, on_store_loss),
        degraded_for: reader.span(&settings::DEGRADED_FOR),
        refresh_journal: reader.optional(&settings::REFRESH_JOURNAL, new_file),
        url,
    };
    let origin = reader.origin(&settings::STORE);
    match &store.url {
        StoreUrl::Redis(redis) => {
            // what is shown may not hold the password
            let raw = Raw { text: redis.to_string(), origin: origin.clone() };
            reader.effective.insert(settings::STORE.flag, raw);
            let missing = store.encryption_key_file.is_none();
            if missing && reader.is_good(&settings::ENCRYPTION_KEY_FILE) {
                let problem = "is needed because tokens in a Redis store are always sealed, and \
                               every instance needs the same key (--encryption-key-file)";
                let allowed = "a file made once with `ctct-proxy keygen`, the same everywhere";
                reader.mistakes.add("store.encryption_key_file", &origin, problem, allowed);
            }
        }
        StoreUrl::Memory | StoreUrl::Sqlite(_) => {
            if store.refresh_journal.is_some() {
                let origin = reader.origin(&settings::REFRESH_JOURNAL);
                let problem = "is given, but this store has a journal of its own or none";
                let allowed = "a path together with a redis:// store";
                reader.mistakes.add("store.refresh_journal", &origin, problem, allowed);
            }
        }
    }
    store
}

/// A store.
///
/// # Errors
/// What is wrong with the text.
pub fn store_url(text: &str) -> Result<StoreUrl, String> {
    let text = text.trim();
    match text.split_once(':') {
        Some(("memory", "")) => Ok(StoreUrl::Memory),
        Some(("sqlite", "")) => Err("has no path".into()),
        Some(("sqlite", ":memory:")) => Err("is written memory: here".into()),
        Some(("sqlite", path)) if path.starts_with("//") => {
            Err("is written without //: sqlite:PATH".into())
        }
        Some(("sqlite", path)) => Ok(StoreUrl::Sqlite(PathBuf::from(path))),
        Some(("redis" | "valkey", _)) => redis_url(text, false).map(StoreUrl::Redis),
        Some(("rediss" | "valkeys", _)) => redis_url(text, true).map(StoreUrl::Redis),
        Some(_) | None => Err("is no store".into()),
    }
}

fn redis_url(text: &str, tls: bool) -> Result<RedisUrl, String> {
    if text.contains('#') {
        return Err("has a fragment (write # in a password as %23)".into());
    }
    let uri: Uri = text
        .parse()
        .map_err(|_| "is no URL (write special characters of a password as %XX)".to_owned())?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let (user_part, address) = authority.rsplit_once('@').unwrap_or(("", authority));
    // `http` passes over a port that is too high
    let port_text = address.rsplit_once(':').map(|(_, port)| port).filter(|p| !p.ends_with(']'));
    let port = match port_text {
        Some(port) => port.parse::<u16>().ok().filter(|port| *port > 0),
        None => Some(REDIS_PORT),
    };
    let (false, Some(port)) = (host.is_empty(), port) else {
        return Err("has no host, or a port that is no port".into());
    };
    let (user, password) = user_part.split_once(':').unwrap_or((user_part, ""));
    let (user, password) = (decoded(user)?, decoded(password)?.map(Secret::new));
    let database = match uri.path().trim_start_matches('/') {
        "" => 0,
        number => number.parse().map_err(|_| "has a path that is no number of a database")?,
    };
    let prefix = prefix(uri.query().unwrap_or_default())?;
    Ok(RedisUrl { tls, host, port, user, password, database, prefix })
}

/// A part of user and password; `None` when it is empty.
fn decoded(part: &str) -> Result<Option<String>, String> {
    let text = percent_decode_str(part).decode_utf8();
    let text = text.map_err(|_| "has a user or password that is not UTF-8")?;
    Ok((!text.is_empty()).then(|| text.into_owned()))
}

fn prefix(query: &str) -> Result<String, String> {
    let mut prefix = PREFIX.to_owned();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if name != "prefix" {
            return Err("has a query other than ?prefix=".into());
        }
        // braces would make a hash tag of their own
        let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '{' | '}');
        if value.is_empty() || value.len() > PREFIX_LEN_MAX || value.contains(bad) {
            return Err(format!(
                "has a prefix that is empty, longer than {PREFIX_LEN_MAX} bytes, or has braces or \
                 white space"
            ));
        }
        prefix = value.into_owned();
    }
    Ok(prefix)
}

fn on_store_loss(text: &str) -> Result<OnStoreLoss, String> {
    match text.trim() {
        "closed" => Ok(OnStoreLoss::Closed),
        "degraded" => Ok(OnStoreLoss::Degraded),
        _ => Err("is neither closed nor degraded".into()),
    }
}

fn new_file(path: &str) -> Result<PathBuf, String> {
    match path {
        "" => Err("is empty".into()),
        _ if PathBuf::from(path).is_dir() => Err("is a directory".into()),
        _ => Ok(PathBuf::from(path)),
    }
}

fn encryption_key(path: &str) -> Result<PathBuf, String> {
    let text = std::fs::read_to_string(path)
        .map(Secret::new)
        .map_err(|error| format!("the file cannot be read: {}", error.kind()))?;
    match KeyRing::read(text.expose()) {
        Ok(_) => Ok(PathBuf::from(path)),
        Err(KeyError) => {
            Err("the file does not hold 32 bytes in base64 in each line (keygen makes them)".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redis(text: &str) -> RedisUrl {
        match store_url(text) {
            Ok(StoreUrl::Redis(url)) => url,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_store_is_memory_or_a_file() {
        assert_eq!(store_url("memory:"), Ok(StoreUrl::Memory));
        assert_eq!(store_url("sqlite:/a/b.db"), Ok(StoreUrl::Sqlite("/a/b.db".into())));
        for bad in ["", "memory", "sqlite:", "sqlite:///a", "sqlite::memory:", "postgres:x"] {
            assert!(store_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_redis_url_is_taken_apart_and_never_shows_its_password() {
        let plain = redis("redis://db.example");
        assert_eq!((plain.tls, plain.host.as_str(), plain.port), (false, "db.example", 6_379));
        assert_eq!((plain.database, plain.prefix.as_str()), (0, "ctct-proxy:"));
        assert_eq!(plain.to_string(), "redis://db.example:6379/0");
        let full = redis("rediss://me:hunter%402@[::1]:7000/3?prefix=shop%3A");
        assert_eq!((full.tls, full.host.as_str(), full.port), (true, "::1", 7_000));
        assert_eq!(full.user.as_deref(), Some("me"));
        assert_eq!(full.password, Some(Secret::from("hunter@2")));
        assert_eq!((full.database, full.prefix.as_str()), (3, "shop:"));
        let shown = format!("{full} {full:?} {:?}", StoreUrl::Redis(full.clone()));
        assert!(shown.contains("rediss://me:***@[::1]:7000/3?prefix=shop%3A"), "{shown}");
        assert!(!shown.contains("hunter"), "{shown}");
        assert_eq!(redis("valkey://:pw@h").password, Some(Secret::from("pw")));
        assert!(redis("valkeys://h").tls);
    }

    #[test]
    fn a_redis_url_with_a_mistake_is_none_and_its_text_is_not_repeated() {
        for bad in [
            "redis:",
            "redis://",
            "redis://:hunter2@",
            "redis://u:hunter2@h:0",
            "redis://u:hunter2@h:99999",
            "redis://u:hunter2@h/one",
            "redis://u:hunter2@h/-1",
            "redis://h?password=hunter2",
            "redis://u:hunter2@h?prefix=",
            "redis://u:hunter2@h?prefix={x}",
            "redis://u:hunter2@h?prefix=a+b",
            "redis://u:hunt#er2@h",
            "redis://u:hunter2 @h",
        ] {
            let problem = store_url(bad).expect_err(bad);
            assert!(!problem.contains("hunter2"), "{problem}");
        }
        let long = format!("redis://h?prefix={}", "x".repeat(65));
        assert!(store_url(&long).is_err());
    }
}
