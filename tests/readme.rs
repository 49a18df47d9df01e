//! The README's tables say what the code says, no more and no less, and `docs/security.md` names
//! tests that there are.
//!
//! Each table stands below a heading of its own, `## Refusals`, `## Metrics` and `## Settings`, and
//! has the public name in backticks in its first column. Settings are named as in the file:
//! `server.listen`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ctct_proxy::config::settings;
use ctct_proxy::engine::ApiKeyName;
use ctct_proxy::rejection::Reason;
use ctct_proxy::telemetry::Metrics;

#[test]
fn the_table_of_refusals_has_every_reason_and_no_other() {
    let reasons = Reason::ALL.iter().map(|reason| reason.as_str().to_owned()).collect();
    assert_same("Refusals", &reasons);
}

#[test]
fn the_table_of_metrics_has_every_metric_and_no_other() {
    let metrics = Metrics::new("0");
    metrics.api_key(&ApiKeyName::new("main").unwrap()).request(200);
    let page = metrics.encode().unwrap();
    let declared = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names = declared.map(|declaration| {
        let (name, metric_type) = declaration.split_once(' ').unwrap();
        match metric_type {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name.to_owned(),
        }
    });
    assert_same("Metrics", &names.collect());
}

#[test]
fn the_table_of_settings_has_every_key_of_the_example() {
    let keys = example_keys(&read("config/example.toml"));
    assert!(keys.contains("server.listen"), "the example has keys: {keys:?}");
    let named = first_column("Settings");
    let missing: Vec<&String> = keys.difference(&named).collect();
    assert!(missing.is_empty(), "not in the README's table of settings: {missing:?}");
}

#[test]
fn every_setting_has_a_row_with_its_flag_variable_and_default() {
    let readme = read("README.md");
    let mut mistakes = Vec::new();
    for setting in settings::ALL {
        let flag = format!("`--{}`", setting.flag);
        let mut rows = readme.lines().filter(|line| line.starts_with('|') && line.contains(&flag));
        let Some(row) = rows.find(|row| row.contains(&format!("`{}`", setting.env()))) else {
            mistakes.push(format!("{flag}: no row, or not its variable"));
            continue;
        };
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let default = setting.default.map_or("none".to_owned(), |text| format!("`{text}`"));
        if cells[4] != default {
            mistakes.push(format!("{flag}: the default is {default}, not {}", cells[4]));
        }
        if setting.key.is_some_and(|key| cells[1] != format!("`{key}`")) {
            mistakes.push(format!("{flag}: its key is not {}", cells[1]));
        }
    }
    assert!(mistakes.is_empty(), "README.md, Settings: {mistakes:#?}");
}

#[test]
fn keys_of_the_example_are_read_with_their_section_also_when_commented_out() {
    let example = "# A text.\n[server]\nlisten = \"a\" # b = c\n# tls_cert = \"\"\n\n\
                   # [[api_keys]]\n# name = \"x\"\n[log]\nformat = \"text\"\n";
    let keys: Vec<String> = example_keys(example).into_iter().collect();
    assert_eq!(keys, ["api_keys.name", "log.format", "server.listen", "server.tls_cert"]);
}

#[test]
fn every_test_that_the_threat_model_names_is_there() {
    let text = read("docs/security.md");
    let named: BTreeSet<(&str, &str)> = text
        .lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter_map(|name| name.split_once(".rs::"))
        .collect();
    assert!(named.len() >= 50, "the threat model names {} tests", named.len());
    let missing: Vec<String> = named
        .into_iter()
        .map(|(file, test)| (format!("{file}.rs"), test))
        .filter(|(file, test)| {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
            !is_test(&fs::read_to_string(path).unwrap_or_default(), test)
        })
        .map(|(file, test)| format!("{file}::{test}"))
        .collect();
    assert!(missing.is_empty(), "docs/security.md names what is no test: {missing:#?}");
}

#[test]
fn a_test_is_told_from_another_function() {
    let text = "#[test]\nfn one() {}\n    #[tokio::test(start_paused = true)]\n    \
                async fn two() {}\nfn three() {}\n#[test]\n#[should_panic]\nfn four() {}\n";
    assert_eq!(
        ["one", "two", "three", "four", "on"].map(|name| is_test(text, name)),
        [true, true, false, true, false]
    );
}

/// Whether `text` has a test called `name`: a function below attributes of which one is a test's.
fn is_test(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let declared = format!("fn {name}(");
    lines.iter().enumerate().any(|(index, line)| {
        let attributes = lines[..index].iter().rev().take_while(|line| line.starts_with("#["));
        let is_test =
            |line: &&str| ["#[test]", "#[tokio::test"].iter().any(|a| line.starts_with(a));
        line.trim_start_matches("async ").starts_with(&declared)
            && attributes.copied().any(|line| is_test(&line))
    })
}

fn assert_same(heading: &str, in_code: &BTreeSet<String>) {
    let in_readme = first_column(heading);
    let missing: Vec<&String> = in_code.difference(&in_readme).collect();
    let unknown: Vec<&String> = in_readme.difference(in_code).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "README.md, {heading}: missing {missing:?}, unknown to the code {unknown:?}"
    );
}

/// The names in backticks in the first cells of the tables below `## heading`; labels in braces are
/// left off.
fn first_column(heading: &str) -> BTreeSet<String> {
    let readme = read("README.md");
    let title = format!("## {heading}");
    let section = readme.lines().skip_while(|line| *line != title).skip(1);
    let rows = section.take_while(|line| !line.starts_with("## ")).filter_map(|line| {
        let (first, _) = line.trim().strip_prefix('|')?.split_once('|')?;
        Some(first.to_owned())
    });
    let names: BTreeSet<String> = rows
        .flat_map(|first| {
            // Every second part of a cell stands between backticks.
            let parts = first.split('`').skip(1).step_by(2);
            parts.map(|name| name.split('{').next().unwrap_or(name).to_owned()).collect::<Vec<_>>()
        })
        .collect();
    assert!(!names.is_empty(), "README.md has no table below `{title}`");
    names
}

/// The keys of a TOML text with their sections, those included that are commented out.
fn example_keys(text: &str) -> BTreeSet<String> {
    let mut section = String::new();
    let mut keys = BTreeSet::new();
    for line in text.lines() {
        let line = line.trim_start_matches(['#', ' ']).trim_end();
        if line.starts_with('[') {
            let inner = line.trim_start_matches('[');
            inner.split(']').next().unwrap_or(inner).trim().clone_into(&mut section);
        } else if let Some((key, _)) = line.split_once('=') {
            let key = key.trim();
            if !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
                keys.insert(if section.is_empty() {
                    key.to_owned()
                } else {
                    format!("{section}.{key}")
                });
            }
        }
    }
    keys
}

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("could not read {}: {error}", path.display()))
}
