//! The TOML configuration.
//!
//! An input that begins with `=` is keys and values alone, from which TOML is written: most changes
//! of a text that is TOML are none any more, and say nothing of what is read from it. Which values
//! may be shown is decided here a second time, from the text as TOML. Of the files that values name
//! only such are read as the folder holds, which for a fuzzer is an empty one: a device would be
//! read for ever.

use std::collections::BTreeMap;

use toml::Value;
use toml::de::{DeTable, DeValue};

use super::{CANARY, with_canary};
use crate::config::settings::{ALL, API_KEY_FIELDS, Kind};
use crate::config::{self, Loaded, Mistakes, ServeFlags, Sources};

/// The variable that `client_secret_env` may name.
const VARIABLE: &str = "SECRET";

/// A configuration is taken or every mistake in it has a key and a text; what is taken is taken
/// again as it is printed, and is the same; a secret is never shown.
///
/// # Panics
/// When that does not hold.
pub fn config(input: &[u8]) {
    let Ok(text) = String::from_utf8(with_canary(input)) else { return };
    let text = text.strip_prefix('=').map_or(text.clone(), written);
    let parsed = DeTable::parse(&text).ok();
    let table = parsed.as_ref().map(toml::Spanned::get_ref);
    if table.is_some_and(|table| strings(table).iter().any(|text| is_elsewhere(text))) {
        return;
    }
    let may_be_shown = table.is_some_and(|table| shows(table, true));
    let hidden = |what: &str, text: &str| {
        assert!(may_be_shown || !text.contains(CANARY), "{what} tells a secret: {text}");
    };
    match load(&text) {
        Err(mistakes) => {
            hidden("a mistake", &mistakes.to_string());
            assert!(!mistakes.list().is_empty(), "refused without a mistake");
            for mistake in mistakes.list() {
                assert!(!mistake.key.is_empty() && !mistake.problem.is_empty(), "{mistake:?}");
            }
        }
        Ok(first) => {
            let printed = first.effective.to_string();
            hidden("what check prints", &printed);
            hidden("Debug", &format!("{first:?}"));
            assert!(!first.config.api_keys.is_empty(), "taken without an API key");
            assert!(first.config.queue.max_wait <= first.config.queue.max_wait_limit);
            assert!(first.config.server.replay_buffer <= first.config.server.max_body);
            let again = load(&printed).unwrap_or_else(|m| panic!("not taken again: {m}"));
            assert_eq!(format!("{:?}", first.config), format!("{:?}", again.config), "another");
            let again = again.effective.to_string();
            assert!(values(&printed).eq(values(&again)), "printed otherwise: {printed}\n{again}");
        }
    }
}

/// The lines of what is printed, without where the values came from.
fn values(printed: &str) -> impl Iterator<Item = &str> {
    printed.lines().map(|line| line.rsplit_once(" # ").map_or(line, |(value, _)| value))
}

/// A line is a key by its number, as a character from `0` on, and its value. There is one API key,
/// with what it must have.
fn written(lines: &str) -> String {
    let of_settings = ALL.iter().filter_map(|setting| setting.key?.split_once('.'));
    let of_api_key = API_KEY_FIELDS.iter().map(|(name, _)| ("", *name));
    let keys: Vec<_> = of_api_key.chain(of_settings).collect();
    let (mut api_key, mut sections) = (toml::Table::new(), BTreeMap::<_, toml::Table>::new());
    for name in ["name", "client_id"] {
        api_key.insert(name.to_owned(), Value::from("a"));
    }
    for line in lines.lines() {
        let mut value = line.chars();
        let number = value.next().and_then(|sign| u32::from(sign).checked_sub(u32::from('0')));
        let Some((section, name)) = number.and_then(|n| keys.get(usize::try_from(n).ok()?)) else {
            continue;
        };
        let table = match *section {
            "" => &mut api_key,
            section => sections.entry(section).or_default(),
        };
        table.insert((*name).to_owned(), Value::from(value.as_str()));
    }
    let sections = sections.into_iter().map(|(name, table)| (name.to_owned(), Value::Table(table)));
    let api_keys = ("api_keys".to_owned(), Value::Array(vec![Value::Table(api_key)]));
    sections.chain([api_keys]).collect::<toml::Table>().to_string()
}

fn load(text: &str) -> Result<Loaded, Mistakes> {
    let flags = ServeFlags::default();
    let env = |name: &str| (name == VARIABLE).then(|| CANARY.to_owned());
    config::load(&Sources { flags: &flags, env: &env, file: Some(("fuzz.toml", text)) })
}

/// Whether a value could be the path of a file in another folder.
fn is_elsewhere(text: &str) -> bool {
    text.trim_start().starts_with(['/', '.']) || text.contains("../")
}

/// All texts of a table, those of lists too.
fn strings<'t>(table: &'t DeTable<'_>) -> Vec<&'t str> {
    table.iter().flat_map(|(_, value)| strings_of(value.get_ref())).collect()
}

fn strings_of<'t>(value: &'t DeValue<'_>) -> Vec<&'t str> {
    match value {
        DeValue::String(text) => vec![text],
        DeValue::Array(items) => items.iter().flat_map(|item| strings_of(item.get_ref())).collect(),
        DeValue::Table(table) => strings(table),
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {
            Vec::new()
        }
    }
}

/// Whether the secret stands where a mistake may repeat it: in a key, or as the value of a setting
/// that is no secret.
fn shows(table: &DeTable<'_>, outermost: bool) -> bool {
    table.iter().any(|(key, value)| {
        let name: &str = key.get_ref();
        let value = value.get_ref();
        let told = !outermost && is_told(name);
        name.contains(CANARY)
            || (told && strings_of(value).iter().any(|text| text.contains(CANARY)))
            || match value {
                DeValue::Table(inner) => shows(inner, false),
                DeValue::Array(items) => items.iter().any(|item| match item.get_ref() {
                    DeValue::Table(inner) => shows(inner, false),
                    DeValue::String(_)
                    | DeValue::Integer(_)
                    | DeValue::Float(_)
                    | DeValue::Boolean(_)
                    | DeValue::Datetime(_)
                    | DeValue::Array(_) => false,
                }),
                DeValue::String(_)
                | DeValue::Integer(_)
                | DeValue::Float(_)
                | DeValue::Boolean(_)
                | DeValue::Datetime(_) => false,
            }
    })
}

/// Whether a key of this name has values that are no secrets.
fn is_told(name: &str) -> bool {
    let of_settings = ALL.iter().filter_map(|setting| {
        setting.key.and_then(|key| key.split_once('.')).map(|(_, name)| (name, setting.kind))
    });
    let secret = [Kind::Secret, Kind::SecretFile, Kind::SecretEnv];
    of_settings
        .chain(API_KEY_FIELDS.iter().copied())
        .any(|(known, kind)| known == name && !secret.contains(&kind))
}
