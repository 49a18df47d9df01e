//! What must hold of any file of grants, for `crate::fuzzing`.
//!
//! Which lines of a file count is decided here a second time, where that can be done plainly: in
//! JSON lines, and in CSV without quotes.

use std::collections::BTreeSet;

use super::rows::{self, Line, MARK};
use crate::fuzzing::{CANARY, with_canary};
use crate::secret::Secret;

/// Every line of a file is a row or a mistake, by its number; no two rows have a tenant or a token
/// in common; no mistake tells what stands on a line.
///
/// # Panics
/// When that does not hold.
pub fn import(input: &[u8]) {
    let content = with_canary(input);
    match rows::parse(&content) {
        Err(error) => {
            let text = format!("{error:#}");
            assert!(!text.contains(CANARY), "a mistake tells a secret: {text}");
        }
        Ok(lines) => {
            tell_no_secret(&lines);
            stand_for_themselves(&lines);
            are_all(&lines, content.strip_prefix(MARK).unwrap_or(&content));
        }
    }
}

fn tell_no_secret(lines: &[Line]) {
    for Line { number, row } in lines {
        let text = match row {
            Ok(row) => format!("{row:?}"),
            Err(problem) => problem.clone(),
        };
        assert!(!text.contains(CANARY), "line {number} tells a secret: {text}");
        assert!(!text.is_empty(), "line {number}: a mistake without a text");
    }
}

fn stand_for_themselves(lines: &[Line]) {
    let (mut tenants, mut tokens) = (BTreeSet::new(), BTreeSet::new());
    for (number, row) in lines.iter().filter_map(|l| Some((l.number, l.row.as_ref().ok()?))) {
        let refresh = row.refresh_token.expose();
        assert!(tenants.insert(&row.tenant), "line {number}: a tenant for the second time");
        assert!(tokens.insert(refresh), "line {number}: a token for the second time");
        assert_ne!(row.weight, Some(0), "line {number}");
        for token in [Some(refresh), row.access_token.as_ref().map(Secret::expose)] {
            let whole = |text: &String| !text.is_empty() && !text.contains(char::is_whitespace);
            assert!(token.is_none_or(whole), "line {number}: a token with white space");
        }
    }
}

/// The numbers are those of the lines that hold something.
fn are_all(lines: &[Line], content: &[u8]) {
    let numbers: Vec<u64> = lines.iter().map(|line| line.number).collect();
    assert!(numbers.is_sorted_by(|one, next| one < next), "two lines of one number: {numbers:?}");
    let is_json = content.trim_ascii_start().starts_with(b"{");
    if is_json {
        assert_eq!(numbers, filled(content.split(|byte| *byte == b'\n'), u8::is_ascii_whitespace));
    } else if !content.contains(&b'"') {
        let is_nothing = |byte: &u8| byte.is_ascii_whitespace() || *byte == b',';
        let filled = filled(line_ends(content), is_nothing);
        assert_eq!(numbers, filled.get(1..).unwrap_or_default(), "all but the header");
    }
}

/// Lines that end in `\n`, `\r` or both.
fn line_ends(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = content.split(|byte| *byte == b'\n');
    lines.flat_map(|line| line.strip_suffix(b"\r").unwrap_or(line).split(|byte| *byte == b'\r'))
}

/// The numbers, from 1, of the lines that hold more than nothing.
fn filled<'a>(lines: impl Iterator<Item = &'a [u8]>, is_nothing: impl Fn(&u8) -> bool) -> Vec<u64> {
    let numbered = (1_u64..).zip(lines);
    numbered.filter(|(_, line)| !line.iter().all(&is_nothing)).map(|(number, _)| number).collect()
}
