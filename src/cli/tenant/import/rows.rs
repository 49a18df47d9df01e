//! The lines of a file of grants: CSV with a header line, or one JSON object a line.
//!
//! Each line stands for itself and is either a row or what is wrong with it, in words that hold no
//! value of the line: a token may stand in any field. Only a file that is neither of the two
//! formats is refused as a whole. Nobody is asked here; what only a proxy knows it says itself.

mod csv_lines;
mod json_lines;

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::bail;

use crate::engine::{ApiKeyName, NameError, TenantName};
use crate::secret::{Secret, TokenDigest};

/// The fields of a line; the last two may be absent.
pub(super) const FIELDS: [&str; 5] =
    ["tenant", "api_key", "refresh_token", "access_token", "weight"];
/// How many of them must be there.
const FIELDS_REQUIRED: usize = 3;
/// Longest name of an unknown field that is repeated; what is longer may be a token.
const FIELD_LEN_MAX: usize = 24;
/// The mark that some programs put before UTF-8.
pub(super) const MARK: &[u8] = b"\xef\xbb\xbf";

/// A line that makes sense.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) tenant: TenantName,
    pub(super) api_key: ApiKeyName,
    pub(super) refresh_token: Secret<String>,
    pub(super) access_token: Option<Secret<String>>,
    pub(super) weight: Option<u32>,
}

/// A line's number, counted from 1, and what it holds or what is wrong with it.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) number: u64,
    pub(super) row: Result<Row, String>,
}

/// The fields of a line as they stand there.
struct Raw<'a> {
    tenant: &'a str,
    api_key: &'a str,
    refresh_token: &'a str,
    access_token: &'a str,
    weight: &'a str,
}

/// Reads a whole file.
///
/// # Errors
/// When it is no file of grants at all.
pub(super) fn parse(content: &[u8]) -> anyhow::Result<Vec<Line>> {
    if content.starts_with(b"\xff\xfe") || content.starts_with(b"\xfe\xff") {
        bail!("the file is UTF-16; save it as UTF-8");
    }
    let content = content.strip_prefix(MARK).unwrap_or(content);
    let mut lines = match content.trim_ascii_start().first() {
        None => bail!("the file is empty; it needs a header line: {}", FIELDS.join(",")),
        Some(b'{') => json_lines::read(content),
        Some(b'[') => bail!("the file is a JSON array; write one object a line, without brackets"),
        Some(_) => csv_lines::read(content)?,
    };
    refuse_repeated(&mut lines);
    Ok(lines)
}

impl Row {
    fn read(raw: &Raw<'_>) -> Result<Self, String> {
        Ok(Self {
            tenant: name("tenant", raw.tenant)?,
            api_key: name("api_key", raw.api_key)?,
            refresh_token: token("refresh_token", raw.refresh_token)?.ok_or(
                "refresh_token is empty: without one the grant would end with its access token; \
                 connect the account with the scope offline_access",
            )?,
            access_token: token("access_token", raw.access_token)?,
            weight: weight(raw.weight)?,
        })
    }
}

/// Says that a field is unknown, by its name when that is one: a token may stand in its place.
fn unknown(field: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b' ');
    if field.len() <= FIELD_LEN_MAX && field.bytes().all(plain) && !field.is_empty() {
        format!("there is no field {field:?}")
    } else {
        "there is no field of this name".to_owned()
    }
}

fn name<N: FromStr<Err = NameError>>(field: &str, text: &str) -> Result<N, String> {
    if text.is_empty() {
        return Err(format!("{field} is empty"));
    }
    text.parse().map_err(|error| format!("{field}: {error}"))
}

fn token(field: &str, text: &str) -> Result<Option<Secret<String>>, String> {
    if text.contains(['\n', '\r']) {
        return Err(format!("{field} goes over several lines: is a quote not closed?"));
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(format!("{field} holds white space"));
    }
    Ok(Some(text).filter(|text| !text.is_empty()).map(Secret::from))
}

fn weight(text: &str) -> Result<Option<u32>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let weight = text.parse().ok().filter(|weight| *weight > 0);
    weight.map(Some).ok_or_else(|| "weight is no whole number from 1".to_owned())
}

/// With a rotating refresh token one of two lines holds a dead one, and which is not known; and a
/// token that two tenants share dies as soon as one of them is refreshed. All such lines are
/// refused, so that nothing depends on their order.
fn refuse_repeated(lines: &mut [Line]) {
    let rows = || lines.iter().filter_map(|line| Some((line.number, line.row.as_ref().ok()?)));
    let mut of_tenant = BTreeMap::<&TenantName, Vec<u64>>::new();
    let mut of_token = BTreeMap::<[u8; 32], Vec<u64>>::new();
    for (number, row) in rows() {
        of_tenant.entry(&row.tenant).or_default().push(number);
        let digest = TokenDigest::of(&row.refresh_token);
        of_token.entry(*digest.as_bytes()).or_default().push(number);
    }
    let mut problems = BTreeMap::new();
    for (numbers, what) in of_token
        .values()
        .map(|numbers| (numbers, "the same refresh_token"))
        .chain(of_tenant.values().map(|numbers| (numbers, "the same tenant")))
        .filter(|(numbers, _)| numbers.len() > 1)
    {
        for number in numbers {
            let other = numbers.iter().find(|other| *other != number).unwrap_or(number);
            problems.insert(*number, format!("{what} is on line {other} too; keep one of them"));
        }
    }
    for line in lines.iter_mut().filter(|line| line.row.is_ok()) {
        if let Some(problem) = problems.remove(&line.number) {
            line.row = Err(problem);
        }
    }
}

#[cfg(test)]
mod tests;
