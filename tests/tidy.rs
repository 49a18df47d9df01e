//! House rules that no lint holds, checked by reading the repository as text.
//!
//! Who may import whom (`docs/architecture.md`), how long files and lines may be, what each file
//! opens with, and words that must not stand in the repository. Needles are put together from
//! parts, so that this file does not find itself. Every mistake is listed, not only the first.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 400;
const LINE_COLUMNS_MAX: usize = 100;

const PURE: &[&str] = &["engine"];
const BASE: &[&str] = &["clock", "config", "phase", "rejection", "secret"];
const PORTS: &[&str] = &["issuer", "listen", "store", "telemetry", "upstream"];
const SHELLS: &[&str] = &["clients", "gate", "tokens"];
const FLOWS: &[&str] = &["connect"];
const FACES: &[&str] = &["admin", "proxy"];
const ROOTS: &[&str] = &["app", "cli", "fuzzing", "lifecycle", "main"];
const ASIDE: &[&str] = &["sandbox"];

/// The modules that `module` may name besides itself; `None` when it stands in no layer.
fn may_use(module: &str) -> Option<Vec<&'static str>> {
    let rows: &[&[&str]] = match module {
        _ if PURE.contains(&module) => &[],
        _ if BASE.contains(&module) => &[PURE, BASE],
        _ if PORTS.contains(&module) => &[PURE, BASE, PORTS],
        _ if SHELLS.contains(&module) => &[PURE, BASE, PORTS],
        _ if FLOWS.contains(&module) => &[PURE, BASE, PORTS, SHELLS],
        _ if FACES.contains(&module) => &[PURE, BASE, PORTS, SHELLS, FLOWS],
        _ if ROOTS.contains(&module) => &[PURE, BASE, PORTS, SHELLS, FLOWS, FACES, ROOTS, ASIDE],
        _ if ASIDE.contains(&module) => &[PURE, BASE],
        _ => return None,
    };
    Some(rows.concat())
}

#[test]
fn modules_import_only_from_the_layers_below() {
    let mut mistakes = Vec::new();
    for file in rust_files(&["src"]) {
        if file.path == "src/lib.rs" || file.is_test_module() {
            continue;
        }
        let module = file.module();
        let Some(allowed) = may_use(module) else {
            mistakes.push(format!("{}: module `{module}` stands in no layer", file.path));
            continue;
        };
        for used in crate_modules_used(&file.program()) {
            if used != module && !allowed.contains(&used.as_str()) {
                mistakes.push(format!("{}: `{module}` must not use `{used}`", file.path));
            }
        }
    }
    assert_none(&mistakes);
}

#[test]
fn the_engine_needs_nothing_but_the_standard_library() {
    let foreign = [
        "anyhow",
        "axum",
        "bytes",
        "dashmap",
        "futures_util",
        "http_body",
        "hyper",
        "hyper_util",
        "jiff",
        "prometheus_client",
        "rand",
        "rusqlite",
        "serde",
        "serde_json",
        "thiserror",
        "tokio",
        "tokio_util",
        "tower",
        "tracing",
    ];
    let mut mistakes = Vec::new();
    for file in rust_files(&["src"]) {
        if file.module() != "engine" || file.is_test_module() {
            continue;
        }
        let program = file.program();
        for name in foreign.iter().filter(|name| names_path(&program, name)) {
            mistakes.push(format!("{}: the engine must not use `{name}`", file.path));
        }
    }
    assert_none(&mistakes);
}

#[test]
fn files_and_lines_are_short_and_files_say_what_they_own() {
    let mut mistakes = Vec::new();
    for file in rust_files(&["src", "crates", "fuzz", "tests", "benches"]) {
        let lines: Vec<&str> = file.text.lines().collect();
        if lines.len() > FILE_LINES_MAX {
            mistakes.push(format!("{}: {} lines", file.path, lines.len()));
        }
        for (index, line) in lines.iter().enumerate() {
            let columns = line.chars().count();
            if columns > LINE_COLUMNS_MAX {
                mistakes.push(format!("{}:{}: {columns} columns", file.path, index + 1));
            }
        }
        if lines.len() > 1 && !file.text.starts_with("//! ") {
            mistakes.push(format!("{}: does not open with a `//!` note", file.path));
        }
    }
    assert_none(&mistakes);
}

#[test]
fn code_keeps_the_house_rules() {
    let attributes = [["#[", "allow("], ["#![", "allow("], ["#[", "ignore"]].map(|p| p.concat());
    let mut mistakes = Vec::new();
    for file in rust_files(&["src", "crates", "fuzz", "tests", "benches"]) {
        if file.path.ends_with("/mod.rs") {
            mistakes.push(format!("{}: `foo.rs` stands beside `foo/`", file.path));
        }
        let in_src = file.path.starts_with("src/");
        for (index, line) in file.text.lines().enumerate() {
            let place = format!("{}:{}", file.path, index + 1);
            if let Some(found) = attributes.iter().find(|needle| line.contains(*needle)) {
                mistakes.push(format!("{place}: `{found}`"));
            }
            if in_src && line.contains(&["fn ", "get_"].concat()) {
                mistakes.push(format!("{place}: a function is not named get_…"));
            }
            let code = line.trim_start();
            let is_use = code.starts_with("use ") || code.starts_with("pub use ");
            if is_use && code.contains("::*") && code != "use super::*;" {
                mistakes.push(format!("{place}: a glob import"));
            }
        }
    }
    assert_none(&mistakes);
}

#[test]
fn no_text_holds_a_banned_word() {
    // Unfinished work, and what belongs to a workshop rather than to its product.
    let exact = [["todo", "!"], ["FIX", "ME"], ["XX", "X"], ["/wo", "rk/"]].map(|p| p.concat());
    let any_case = [
        ["clau", "de"],
        ["anthro", "pic"],
        ["chat", "gpt"],
        ["co", "pilot"],
        ["sub", "agent"],
        ["language ", "model"],
        ["ai-", "generated"],
        ["ai ", "assistant"],
        ["work", "tree"],
    ]
    .map(|p| p.concat());
    let mut mistakes = Vec::new();
    for file in files(&[""], |path| path != "Cargo.lock") {
        for (index, line) in file.text.lines().enumerate() {
            let lower = line.to_lowercase();
            let found = exact.iter().filter(|word| line.contains(*word));
            for word in found.chain(any_case.iter().filter(|word| lower.contains(*word))) {
                mistakes.push(format!("{}:{}: `{word}`", file.path, index + 1));
            }
        }
    }
    assert_none(&mistakes);
}

#[test]
fn imports_are_found_in_every_form() {
    let program = "use crate::gate::Gate;\nuse crate::{\n    app::App,\n    proxy::{a, b},\n};\n\
                   fn f() { crate::store::open() }";
    let used: Vec<String> = crate_modules_used(program).into_iter().collect();
    assert_eq!(used, ["app", "gate", "proxy", "store"]);
    assert!(names_path("use tokio::sync;", "tokio"));
    assert!(names_path("fn f() { tokio::spawn() }", "tokio"));
    assert!(!names_path("use crate::engine::tokio_like;", "tokio"));
}

/// A text file of the repository.
struct File {
    /// From the root, with `/`.
    path: String,
    text: String,
}

impl File {
    /// The module below `src` that the file belongs to.
    fn module(&self) -> &str {
        let inner = self.path.trim_start_matches("src/");
        inner.split('/').next().unwrap_or(inner).trim_end_matches(".rs")
    }

    fn is_test_module(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    /// What is compiled into the program: no comments, and nothing from the tests at the end on.
    fn program(&self) -> String {
        let lines = self.text.lines().take_while(|line| *line != "#[cfg(test)]");
        let code = lines.filter(|line| !line.trim_start().starts_with("//"));
        code.collect::<Vec<_>>().join("\n")
    }
}

/// The top-level modules of this crate that `program` names, alone or in a group.
fn crate_modules_used(program: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    let root = "crate::";
    for (at, _) in program.match_indices(root) {
        let rest = &program[at + root.len()..];
        match rest.strip_prefix('{') {
            Some(group) => used.extend(group_heads(group)),
            None => used.extend(head(rest)),
        }
    }
    used
}

/// The word that `path` begins with, if it is a module's.
fn head(path: &str) -> Option<String> {
    let word: String = path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    word.starts_with(|c: char| c.is_lowercase()).then_some(word)
}

/// The first words of the members of a `{…}` group whose brace is open.
fn group_heads(group: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let (mut depth, mut member) = (0_u32, String::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.extend(head(std::mem::take(&mut member).trim())),
            _ => {}
        }
        if !(c == ',' && depth == 0) {
            member.push(c);
        }
    }
    heads.extend(head(member.trim()));
    heads
}

/// Whether `program` has a path that begins with the crate `name`.
fn names_path(program: &str, name: &str) -> bool {
    program.match_indices(&format!("{name}::")).any(|(at, _)| {
        let before = program[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

fn rust_files(folders: &[&str]) -> Vec<File> {
    files(folders, |path| Path::new(path).extension().is_some_and(|ext| ext == "rs"))
}

/// The text files below `folders` whose path from the root is `wanted`, in the order of their
/// paths.
fn files(folders: &[&str], wanted: impl Fn(&str) -> bool) -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pending: Vec<PathBuf> = folders.iter().map(|folder| root.join(folder)).collect();
    let mut found = Vec::new();
    while let Some(folder) = pending.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("a folder can be listed").path();
            let inner = path.strip_prefix(root).expect("what is listed lies below the root");
            let from_root = inner.to_str().expect("names are UTF-8").replace('\\', "/");
            if path.is_dir() {
                if !matches!(from_root.as_str(), "target" | ".git") {
                    pending.push(path);
                }
            } else if from_root != ".git" && wanted(&from_root) {
                // What is not UTF-8 is no text.
                if let Ok(text) = fs::read_to_string(&path) {
                    found.push(File { path: from_root, text });
                }
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn assert_none(mistakes: &[String]) {
    assert!(mistakes.is_empty(), "{} mistakes:\n{}", mistakes.len(), mistakes.join("\n"));
}
