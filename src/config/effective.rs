//! The configuration as a file that gives the same again, secrets as `***`.
//!
//! What was taken as it was given is printed so, and where it came from stands beside it. A secret
//! that came from a file or the environment is printed as the name of that, so only a secret that
//! was written in the file itself is lost.

use std::collections::BTreeMap;
use std::fmt;

use toml::Value;

use super::file::Raw;
use super::settings::{ALL, Setting};

/// The keys of a table with their values.
pub(super) type Fields = Vec<(&'static str, String)>;

/// What every setting came out as; `Display` is TOML.
#[derive(Debug)]
pub struct Effective {
    settings: Vec<(&'static Setting, Raw)>,
    api_keys: Vec<Fields>,
}

impl Effective {
    pub(super) fn new(settings: &BTreeMap<&'static str, Raw>, api_keys: Vec<Fields>) -> Self {
        let with_text = |setting: &&'static Setting| {
            settings.get(setting.flag).map(|raw| (*setting, raw.clone()))
        };
        Self { settings: ALL.iter().filter_map(with_text).collect(), api_keys }
    }
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut open = "";
        for (setting, raw) in &self.settings {
            let Some((section, name)) = setting.key.and_then(|key| key.split_once('.')) else {
                continue;
            };
            if section != open {
                let gap = if open.is_empty() { "" } else { "\n" };
                writeln!(f, "{gap}[{section}]")?;
                open = section;
            }
            writeln!(f, "{name} = {} # {}", value(&raw.text), raw.origin)?;
        }
        for fields in &self.api_keys {
            writeln!(f, "\n[[api_keys]]")?;
            for (name, text) in fields {
                writeln!(f, "{name} = {}", value(text))?;
            }
        }
        Ok(())
    }
}

/// `text` as TOML: bare where it is a number or a switch and reads back the same.
fn value(text: &str) -> Value {
    let number = text.parse::<i64>().ok().filter(|number| number.to_string() == text);
    match (number, text.parse::<bool>()) {
        (Some(number), _) => Value::Integer(number),
        (None, Ok(switch)) => Value::Boolean(switch),
        (None, Err(_)) => Value::String(text.to_owned()),
    }
}
