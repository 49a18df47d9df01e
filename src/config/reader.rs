//! One setting after another, from wherever it was given, mistakes collected on the way.
//!
//! A flag wins over the environment, that over the file, that over the default. After a mistake
//! reading goes on with the default, so that the rest is still checked; rules between settings look
//! only at those that were read well, so that one mistake is reported once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use zeroize::Zeroizing;

use super::file::{File, Raw};
use super::flags::ServeFlags;
use super::mistakes::{Mistakes, Origin};
use super::settings::{Kind, Setting};
use super::values;
use crate::secret::Secret;

/// Longest value that a message repeats.
const SHOWN_MAX: usize = 60;

/// Looks a variable of the environment up.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

pub(super) struct Reader<'a> {
    pub(super) flags: &'a ServeFlags,
    pub(super) env: Env<'a>,
    pub(super) file: File,
    pub(super) mistakes: Mistakes,
    /// What each setting came out as.
    pub(super) effective: BTreeMap<&'static str, Raw>,
    bad: BTreeSet<&'static str>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(flags: &'a ServeFlags, env: Env<'a>, file: File, mistakes: Mistakes) -> Self {
        Self { flags, env, file, mistakes, effective: BTreeMap::new(), bad: BTreeSet::new() }
    }

    /// What was said about `setting`, by the one who wins.
    pub(super) fn raw(&self, setting: &Setting) -> Option<Raw> {
        if let Some(text) = self.flags.value(setting) {
            let origin = Origin::Flag(format!("--{}", setting.flag));
            return Some(Raw { text: text.to_owned(), origin });
        }
        // compose files and charts set variables to nothing when they mean "unset"
        let variable = setting.env();
        if let Some(text) = (self.env)(&variable).filter(|text| !text.is_empty()) {
            return Some(Raw { text, origin: Origin::Env(variable) });
        }
        setting.key.and_then(|key| self.file.settings.get(key)).cloned()
    }

    /// A setting that has a default.
    pub(super) fn value<T>(
        &mut self,
        setting: &'static Setting,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> T {
        if let Some(value) = self.optional(setting, &parse) {
            return value;
        }
        let text = setting.default.expect("only settings with a default are read by `value`");
        if !self.bad.contains(setting.flag) {
            let raw = Raw { text: text.to_owned(), origin: Origin::Default };
            self.effective.insert(setting.flag, raw);
        }
        parse(text).expect("every default is allowed, as a test shows")
    }

    /// A setting that may be absent.
    pub(super) fn optional<T>(
        &mut self,
        setting: &'static Setting,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        // settings that others are measured by are read more than once, their mistakes reported
        // once
        if self.bad.contains(setting.flag) {
            return None;
        }
        let raw = self.raw(setting)?;
        let value = self.parse(&setting.path(), &raw, setting.kind, parse);
        if value.is_some() {
            self.effective.insert(setting.flag, raw);
        } else {
            self.bad.insert(setting.flag);
        }
        value
    }

    /// A number in the unit and range of the setting's kind.
    pub(super) fn number(&mut self, setting: &'static Setting) -> u64 {
        self.value(setting, |text| number(setting.kind, text))
    }

    /// A count that is held in memory.
    pub(super) fn count(&mut self, setting: &'static Setting) -> usize {
        usize::try_from(self.number(setting)).unwrap_or(usize::MAX)
    }

    /// A span of time.
    pub(super) fn span(&mut self, setting: &'static Setting) -> Duration {
        Duration::from_millis(self.number(setting))
    }

    /// `low`, which may not be above `high`: its default gives way, a given value is a mistake.
    pub(super) fn at_most(
        &mut self,
        low: &'static Setting,
        high: &'static Setting,
        text: impl Fn(u64) -> String,
    ) -> u64 {
        let limit = self.number(high);
        let value = self.number(low);
        if value <= limit {
            return value;
        }
        match self.raw(low).map(|raw| raw.origin) {
            None => {
                let raw = Raw { text: text(limit), origin: Origin::Default };
                self.effective.insert(low.flag, raw);
            }
            Some(origin) if self.is_good(low) && self.is_good(high) => {
                let problem = format!("{} is more than {}", text(value), high.path());
                self.mistakes.add(low.path(), &origin, problem, format!("at most {}", text(limit)));
            }
            Some(_) => {}
        }
        limit
    }

    /// Whether what was said about `setting`, if anything, could be read.
    pub(super) fn is_good(&self, setting: &Setting) -> bool {
        !self.bad.contains(setting.flag)
    }

    /// Where `setting` came from.
    pub(super) fn origin(&self, setting: &Setting) -> Origin {
        self.raw(setting).map_or(Origin::Default, |raw| raw.origin)
    }

    /// The value of `raw`; a mistake at `path` when it has none.
    pub(super) fn parse<T>(
        &mut self,
        path: &str,
        raw: &Raw,
        kind: Kind,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        match parse(&raw.text) {
            Ok(value) => Some(value),
            Err(problem) => {
                let problem = match shown(kind, &raw.text) {
                    Some(text) => format!("{text} {problem}"),
                    None => problem,
                };
                self.mistakes.add(path, &raw.origin, problem, kind.allowed());
                None
            }
        }
    }
}

/// The number in `text` if `kind` is one of numbers and the range holds it.
pub(super) fn number(kind: Kind, text: &str) -> Result<u64, String> {
    let (value, least, most) = match kind {
        Kind::Duration(least, most) => {
            let ms = values::duration(text)?.as_millis();
            (u64::try_from(ms).unwrap_or(u64::MAX), least, most)
        }
        Kind::Size(least, most) => (values::size(text)?, least, most),
        Kind::Count(least, most) => (values::count(text)?, least, most),
        Kind::Address
        | Kind::Switch
        | Kind::BaseUrl
        | Kind::Url
        | Kind::File
        | Kind::SecretFile
        | Kind::Store
        | Kind::StoreLoss
        | Kind::NewFile
        | Kind::Plan
        | Kind::Rate
        | Kind::Guard
        | Kind::TimeOfDay
        | Kind::LogFormat
        | Kind::LogLevel
        | Kind::Name
        | Kind::ClientId
        | Kind::Secret
        | Kind::SecretEnv
        | Kind::Reserve
        | Kind::AuthStyle
        | Kind::Passthrough
        | Kind::Scopes
        | Kind::Origins => return Err("is no number".into()),
    };
    match value {
        _ if value < least => Err("is too little".into()),
        _ if value > most => Err("is too much".into()),
        _ => Ok(value),
    }
}

/// The secret in the file at `path`, without the newline at its end.
///
/// # Errors
/// What is wrong, without the path: people put the secret itself where its file belongs.
pub fn secret_from_file(path: impl AsRef<Path>) -> Result<Secret<String>, String> {
    let text = std::fs::read_to_string(path)
        .map(Zeroizing::new)
        .map_err(|error| format!("the file cannot be read: {}", error.kind()))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    secret(line.strip_suffix('\r').unwrap_or(line)).map_err(|problem| format!("the file {problem}"))
}

/// The secret that is `text` itself.
pub(super) fn secret(text: &str) -> Result<Secret<String>, String> {
    match text {
        "" => Err("is empty".into()),
        // what an environment variable that is not UTF-8 was turned into
        _ if text.contains('\u{fffd}') => Err("is not UTF-8".into()),
        _ if text.chars().any(char::is_control) => {
            Err("has more than one line, or control characters".into())
        }
        _ => Ok(Secret::from(text)),
    }
}

/// `text` in quotes, or `None` when it is or may hold a secret.
fn shown(kind: Kind, text: &str) -> Option<String> {
    let secret = matches!(kind, Kind::Secret | Kind::SecretFile | Kind::SecretEnv);
    // user and password of a URL end in `@`, and some put them into the query of a store
    let in_query = kind == Kind::Store && text.contains('?');
    if secret || in_query || text.contains('@') {
        return None;
    }
    let short: String = text.chars().take(SHOWN_MAX).collect();
    let dots = if short.len() < text.len() { "…" } else { "" };
    Some(format!("\"{}{dots}\"", short.escape_debug()))
}
