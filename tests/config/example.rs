//! `config/example.toml` has every key with its default, and loads; so does what is deployed.

use std::collections::BTreeMap;

use ctct_proxy::config::settings::{self, ALL, API_KEY_FIELDS};
use ctct_proxy::config::{self, Config, Mistakes, ServeFlags, Sources};

const EXAMPLE: &str = include_str!("../../config/example.toml");

fn load(text: &str, flags: &ServeFlags) -> Result<Config, Mistakes> {
    let sources = Sources { flags, env: &|_| None, file: Some(("example.toml", text)) };
    config::load(&sources).map(|loaded| loaded.config)
}

#[test]
fn every_key_of_a_setting_is_in_one_section() {
    for setting in ALL {
        let dots = setting.key.map_or(1, |key| key.matches('.').count());
        assert_eq!(dots, 1, "{}", setting.flag);
        assert!(setting.env().starts_with("CTCT_PROXY_"));
    }
}

#[test]
fn the_example_fails_only_for_the_client_id_that_is_to_be_filled_in() {
    assert_eq!(load(EXAMPLE, &ServeFlags::default()).unwrap_err().list().len(), 1);
    let filled = EXAMPLE.replace("client_id = \"\"", "client_id = \"id\"");
    let example = load(&filled, &ServeFlags::default()).unwrap();
    let one_key = ServeFlags::default().with(&settings::CLIENT_ID, "id");
    let defaults = load("", &one_key).unwrap();
    assert_eq!(format!("{example:?}"), format!("{defaults:?}"));
}

#[test]
fn the_example_has_every_key_with_its_default() {
    let mut section = String::new();
    let mut found = BTreeMap::new();
    for line in EXAMPLE.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_matches(['[', ']']).to_owned();
        }
        // prose has a space after its `#`
        if let Some((name, value)) = line.trim_start_matches('#').split_once(" = ")
            && !name.contains(' ')
        {
            let value = value.trim_matches('"').to_owned();
            found.insert(format!("{section}.{name}"), (line.starts_with('#'), value));
        }
    }
    let mut expected = 0;
    for setting in ALL {
        let Some(key) = setting.key else { continue };
        expected += 1;
        let (commented, value) = found.get(key).unwrap_or_else(|| panic!("{key} is missing"));
        assert_eq!(*commented, setting.default.is_none(), "{key}");
        if let Some(default) = setting.default {
            assert_eq!(value, default, "{key}");
        }
    }
    for (name, _) in API_KEY_FIELDS {
        expected += 1;
        assert!(found.contains_key(&format!("api_keys.{name}")), "{name}");
    }
    assert_eq!(found.len(), expected, "the example has keys that nobody reads");
}

#[test]
fn what_is_deployed_has_known_keys_and_lacks_only_its_secrets() {
    let mut read = 0;
    for file in
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/kubernetes")).unwrap()
    {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let Some((_, rest)) = text.split_once("config.toml: |\n") else { continue };
        let (text, _) = rest.split_once("\n---\n").unwrap();
        let flags = ServeFlags::default();
        // a URL with a password comes from the environment
        let has_url = text.contains("\n    url = ");
        let flags = if has_url { flags } else { flags.with(&settings::STORE, "redis://redis") };
        let mistakes = load(text, &flags).unwrap_err();
        for mistake in mistakes.list() {
            assert!(mistake.problem.starts_with("the file cannot be read"), "{mistake:?}");
        }
        read += 1;
    }
    assert_eq!(read, 2);
}
