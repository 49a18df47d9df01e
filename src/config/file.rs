//! The file's form: which sections and keys there are, and the raw value of each with its line.
//!
//! The whole file is walked against the table of settings, so that every unknown key is reported
//! and not only the first. Values stay text here. Of a file that is no TOML only the places are
//! reported, never the lines themselves, since a line may hold a secret.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistakes::{Mistakes, Origin};
use super::settings::{ALL, API_KEY_FIELDS, Kind};

/// The key of the tables of API keys.
const API_KEYS: &str = "api_keys";

/// A value as it was written.
#[derive(Clone)]
pub(super) struct Raw {
    /// Its text.
    pub(super) text: String,
    /// Where it was written.
    pub(super) origin: Origin,
}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // the text may be a secret
        write!(f, "Raw({})", self.origin)
    }
}

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct File {
    /// The values of settings, by `section.name`.
    pub(super) settings: BTreeMap<&'static str, Raw>,
    /// The tables of API keys, in their order.
    pub(super) api_keys: Vec<ApiKeyTable>,
}

/// One `[[api_keys]]`.
#[derive(Debug)]
pub(super) struct ApiKeyTable {
    /// The values by name.
    pub(super) fields: BTreeMap<&'static str, Raw>,
    /// Where the table begins.
    pub(super) origin: Origin,
}

/// Reads the file called `name`; what is wrong with its form goes to `mistakes`. `None` when it is
/// no TOML.
pub(super) fn read(name: &str, text: &str, mistakes: &mut Mistakes) -> Option<File> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut walk = Walk { name, text, mistakes, file: File::default() };
    if errors.is_empty() {
        walk.root(table.get_ref());
        return Some(walk.file);
    }
    for error in errors {
        let origin = walk.origin(error.span().unwrap_or_default());
        walk.mistakes.add("TOML", &origin, error.message(), "");
    }
    None
}

struct Walk<'a> {
    name: &'a str,
    text: &'a str,
    mistakes: &'a mut Mistakes,
    file: File,
}

impl Walk<'_> {
    fn root(&mut self, root: &DeTable<'_>) {
        for (key, value) in root {
            let name: &str = key.get_ref();
            let origin = self.origin(key.span());
            match value.get_ref() {
                DeValue::Array(tables) if name == API_KEYS => {
                    for (index, table) in tables.iter().enumerate() {
                        self.api_key(index, table);
                    }
                }
                _ if name == API_KEYS => {
                    self.mistakes.add(API_KEYS, &origin, "is no list of tables", "[[api_keys]]");
                }
                DeValue::Table(table) if sections().contains(name) => self.section(name, table),
                _ if sections().contains(name) => {
                    self.mistakes.add(name, &origin, "is no table", format!("[{name}]"));
                }
                DeValue::String(_)
                | DeValue::Integer(_)
                | DeValue::Float(_)
                | DeValue::Boolean(_)
                | DeValue::Datetime(_)
                | DeValue::Array(_)
                | DeValue::Table(_) => {
                    let known: Vec<_> = sections().iter().map(|s| format!("[{s}]")).collect();
                    let allowed = format!("{}, [[api_keys]]", known.join(", "));
                    self.mistakes.add(shown(name), &origin, "unknown key", allowed);
                }
            }
        }
    }

    fn section(&mut self, section: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let path = format!("{section}.{}", key.get_ref());
            let origin = self.origin(key.span());
            let known = ALL.iter().find_map(|setting| {
                setting.key.filter(|key| *key == path).map(|key| (key, setting.kind))
            });
            let Some((key, kind)) = known else {
                let path = format!("{section}.{}", shown(key.get_ref()));
                self.mistakes.add(path, &origin, "unknown key", keys_of(section));
                continue;
            };
            if let Some(raw) = self.raw(&path, kind, &origin, value) {
                self.file.settings.insert(key, raw);
            }
        }
    }

    fn api_key(&mut self, index: usize, value: &Spanned<DeValue<'_>>) {
        let path = format!("{API_KEYS}[{index}]");
        let origin = self.origin(value.span());
        let DeValue::Table(table) = value.get_ref() else {
            self.mistakes.add(path, &origin, "is no table", "[[api_keys]]");
            return;
        };
        let mut fields = BTreeMap::new();
        for (key, value) in table {
            let name: &str = key.get_ref();
            let path = format!("{path}.{}", shown(name));
            let origin = self.origin(key.span());
            let Some((name, kind)) = API_KEY_FIELDS.iter().find(|(known, _)| *known == name) else {
                let known: Vec<_> = API_KEY_FIELDS.iter().map(|(name, _)| *name).collect();
                self.mistakes.add(path, &origin, "unknown key", known.join(", "));
                continue;
            };
            if let Some(raw) = self.raw(&path, *kind, &origin, value) {
                fields.insert(*name, raw);
            }
        }
        self.file.api_keys.push(ApiKeyTable { fields, origin });
    }

    fn raw(
        &mut self,
        path: &str,
        kind: Kind,
        origin: &Origin,
        value: &Spanned<DeValue<'_>>,
    ) -> Option<Raw> {
        let text = match value.get_ref() {
            DeValue::String(text) => Ok(text.to_string()),
            // a secret that is all digits would lose its leading zeros
            DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_)
                if kind == Kind::Secret =>
            {
                Err("is not in quotes")
            }
            DeValue::Integer(number) => Ok(number.to_string()),
            DeValue::Float(number) => Ok(number.to_string()),
            DeValue::Boolean(switch) => Ok(switch.to_string()),
            DeValue::Datetime(_) => Err("is not in quotes"),
            DeValue::Array(items) if kind == Kind::Origins => texts(items),
            DeValue::Array(_) => Err("is a list"),
            DeValue::Table(_) => Err("is a table"),
        };
        match text {
            Ok(text) => Some(Raw { text, origin: origin.clone() }),
            Err(problem) => {
                self.mistakes.add(path, origin, problem, kind.allowed());
                None
            }
        }
    }

    fn origin(&self, span: Range<usize>) -> Origin {
        let line = 1 + self.text.get(..span.start).map_or(0, |before| before.matches('\n').count());
        Origin::File { name: self.name.to_owned(), line }
    }
}

/// A key as TOML has it: what is no bare key is in quotes.
fn shown(key: &str) -> Cow<'_, str> {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if !key.is_empty() && key.bytes().all(is_bare) {
        return Cow::Borrowed(key);
    }
    Cow::Owned(format!("{key:?}"))
}

/// A list of texts as one.
fn texts(items: &[Spanned<DeValue<'_>>]) -> Result<String, &'static str> {
    let text = |item: &Spanned<DeValue<'_>>| item.get_ref().as_str().map(str::to_owned);
    let texts: Option<Vec<String>> = items.iter().map(text).collect();
    texts.map(|texts| texts.join(",")).ok_or("is no list of texts in quotes")
}

fn sections() -> BTreeSet<&'static str> {
    let section = |key: &'static str| key.split_once('.').map(|(section, _)| section);
    ALL.iter().filter_map(|setting| setting.key.and_then(section)).collect()
}

fn keys_of(section: &str) -> String {
    let name = |key: &'static str| key.split_once('.').filter(|(s, _)| *s == section);
    let names: Vec<_> =
        ALL.iter().filter_map(|setting| setting.key.and_then(name)).map(|(_, name)| name).collect();
    names.join(", ")
}
