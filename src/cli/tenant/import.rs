//! `tenant import`: many tenants from CSV or JSON lines.
//!
//! Every line stands for itself: what is wrong with one is reported with its number, without the
//! tokens on it, and the next is read. Only a proxy that does not answer ends the import early.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail};
use http::Method;
use serde_json::{Value, json};

use crate::cli::admin_client::{AdminArgs, AdminClient, AdminError};
use crate::cli::{Console, FAILURE, OK};
use crate::engine::{ApiKeyName, TenantName};
use crate::secret::Secret;

/// The fields of a line; the last may be absent.
const FIELDS: [&str; 4] = ["tenant", "api_key", "refresh_token", "access_token"];

/// The flags of `tenant import`.
#[derive(Clone, Debug, clap::Args)]
pub struct ImportArgs {
    /// The file, `-` for standard input
    pub file: String,
    /// Check the file only, ask no proxy
    #[arg(long)]
    pub dry_run: bool,
    /// Where to ask.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// A line that makes sense.
struct Row {
    tenant: TenantName,
    api_key: ApiKeyName,
    refresh_token: Secret<String>,
    access_token: Option<Secret<String>>,
}

/// A line's number, counted from 1, and what it holds or what is wrong with it.
type Line = (u64, Result<Row, String>);

/// Imports the file and gives the exit code: 1 when any line failed.
pub(super) async fn run(args: &ImportArgs, console: &mut Console<'_>) -> anyhow::Result<u8> {
    let text = Secret::new(
        console.read_named(&args.file).with_context(|| format!("could not read {}", args.file))?,
    );
    let mut lines = parse(text.expose())?;
    refuse_repeated(&mut lines);
    let client = if args.dry_run { None } else { Some(AdminClient::new(&args.admin, console)?) };
    let (mut done, mut failed) = (0_u64, 0_u64);
    for (number, row) in lines {
        let result = match (row, &client) {
            (Err(problem), _) => Err(problem),
            (Ok(_), None) => Ok(()),
            (Ok(row), Some(client)) => match put(client, &row).await {
                Ok(()) => Ok(()),
                Err(AdminError::Refused { message, .. }) => Err(message),
                Err(AdminError::NoAnswer(message)) => {
                    bail!("{message} (stopped at line {number}; {done} tenants are imported)")
                }
            },
        };
        match result {
            Ok(()) => done += 1,
            Err(problem) => {
                failed += 1;
                console.remark(&format!("line {number}: {problem}"));
            }
        }
    }
    let what = if args.dry_run { "would be imported" } else { "imported" };
    console.print(&format!("{done} tenants {what}, {failed} lines failed"))?;
    Ok(if failed == 0 { OK } else { FAILURE })
}

async fn put(client: &AdminClient, row: &Row) -> Result<(), AdminError> {
    let mut grant =
        json!({ "api_key": row.api_key.as_str(), "refresh_token": row.refresh_token.expose() });
    if let Some(token) = &row.access_token {
        grant["access_token"] = token.expose().as_str().into();
    }
    client.call(Method::PUT, &format!("/v1/tenants/{}", row.tenant), Some(&grant)).await?;
    Ok(())
}

fn parse(text: &str) -> anyhow::Result<Vec<Line>> {
    let text = text.trim_start_matches('\u{feff}');
    if text.trim_start().starts_with('{') { Ok(json_lines(text)) } else { csv_lines(text) }
}

fn json_lines(text: &str) -> Vec<Line> {
    (1_u64..)
        .zip(text.lines())
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(number, line)| (number, json_line(line)))
        .collect()
}

fn json_line(line: &str) -> Result<Row, String> {
    // serde's own messages would repeat values of the wrong type, and a value may be a token
    let value: Value =
        serde_json::from_str(line).map_err(|e| format!("no JSON at column {}", e.column()))?;
    let object = value.as_object().ok_or("no JSON object")?;
    if let Some(unknown) = object.keys().find(|key| !FIELDS.contains(&key.as_str())) {
        return Err(format!("unknown field {unknown:?}; there are {}", FIELDS.join(", ")));
    }
    let field = |name: &str| match object.get(name) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            Err(format!("{name} is no text"))
        }
    };
    let [tenant, api_key, refresh_token, access_token] = FIELDS.map(field);
    row(tenant?, api_key?, refresh_token?, access_token?)
}

fn csv_lines(text: &str) -> anyhow::Result<Vec<Line>> {
    let mut reader =
        csv::ReaderBuilder::new().trim(csv::Trim::All).flexible(true).from_reader(text.as_bytes());
    let head = reader.headers().context("could not read the header line")?.clone();
    if let Some(unknown) = head.iter().find(|name| !FIELDS.contains(name)) {
        // a file without header has a token where a name belongs, so it is not repeated
        let len = unknown.len();
        bail!(
            "line 1 is no header: it has a column of {len} characters that is none of {}",
            FIELDS.join(", ")
        );
    }
    let place = FIELDS.map(|name| head.iter().position(|column| column == name));
    for (name, place) in FIELDS.iter().zip(place).take(3) {
        if place.is_none() {
            bail!("the header line has no column {name}");
        }
    }
    let mut lines = Vec::new();
    for record in reader.into_records() {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                let number = error.position().map_or(0, csv::Position::line);
                lines.push((number, Err("is not UTF-8 or no CSV".to_owned())));
                continue;
            }
        };
        let number = record.position().map_or(0, csv::Position::line);
        if record.len() != head.len() {
            let problem = format!("has {} columns, the header {}", record.len(), head.len());
            lines.push((number, Err(problem)));
            continue;
        }
        let field = |place: Option<usize>| place.and_then(|at| record.get(at)).unwrap_or_default();
        let [tenant, api_key, refresh_token, access_token] = place.map(field);
        lines.push((number, row(tenant, api_key, refresh_token, access_token)));
    }
    Ok(lines)
}

fn row(tenant: &str, api_key: &str, refresh: &str, access: &str) -> Result<Row, String> {
    let token = |name: &str, text: &str| {
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            Err(format!("{name} holds white space"))
        } else {
            Ok(Some(text).filter(|text| !text.is_empty()).map(Secret::from))
        }
    };
    Ok(Row {
        tenant: TenantName::new(tenant).map_err(|error| format!("tenant: {error}"))?,
        api_key: ApiKeyName::new(api_key).map_err(|error| format!("api_key: {error}"))?,
        refresh_token: token("refresh_token", refresh)?.ok_or("refresh_token is empty")?,
        access_token: token("access_token", access)?,
    })
}

/// With a rotating refresh token the second of two lines is as likely the dead one as the first.
fn refuse_repeated(lines: &mut [Line]) {
    let mut seen = BTreeSet::new();
    for (_, line) in lines {
        let Ok(row) = line else { continue };
        if !seen.insert(row.tenant.clone()) {
            *line = Err(format!("tenant {} is on an earlier line too", row.tenant));
        }
    }
}
