//! `token inspect`: what an access token says of itself, without asking anybody.
//!
//! The signature is not checked; the token is never printed, whole or in part.

use std::time::Duration;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use serde_json::Value;

use super::status::cell;
use super::table::table;
use super::{Console, OK};
use crate::config::values;
use crate::engine::Unix;
use crate::tokens::claims::payload;

/// What to do with a token.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum TokenCommand {
    /// Show the claims of an access token; nothing is sent anywhere and the signature is not
    /// checked
    Inspect(InspectArgs),
}

/// The argument of `token inspect`.
#[derive(Clone, clap::Args)]
pub struct InspectArgs {
    /// The token; `-` or nothing reads standard input, which `ps` does not show
    #[arg(value_name = "JWT", default_value = "-", hide_default_value = true)]
    pub token: String,
}

impl std::fmt::Debug for InspectArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InspectArgs(***)")
    }
}

/// Prints the claims of the token; `now` is the wall clock.
///
/// # Errors
/// When it is no token that can be read.
pub fn run(command: &TokenCommand, console: &mut Console<'_>, now: Unix) -> anyhow::Result<u8> {
    let TokenCommand::Inspect(args) = command;
    let token = if args.token == "-" {
        console.read_named("-").context("could not read standard input")?
    } else {
        args.token.trim().to_owned()
    };
    if token.is_empty() {
        bail!("no token: give one as an argument or on standard input");
    }
    let token = token.strip_prefix("Bearer ").unwrap_or(&token).trim();
    let Some(claims) = payload(token) else {
        bail!(
            "this is no JWT (three parts between dots, the second JSON in base64url); \
             an opaque token has no claims to show"
        );
    };
    console.print(&claims_table(&Value::Object(claims), now))?;
    Ok(OK)
}

fn claims_table(claims: &Value, now: Unix) -> String {
    let exp = seconds(&claims["exp"]);
    let left = match exp.map(Unix::from_secs) {
        None => "unknown: it does not say when it expires".to_owned(),
        Some(exp) if exp <= now => format!("none, expired {} ago", span(now.since(exp))),
        Some(exp) => span(exp.since(now)),
    };
    let rows = vec![
        vec!["exp".into(), time(&claims["exp"])],
        vec!["iat".into(), time(&claims["iat"])],
        vec!["cid".into(), cell(&claims["cid"])],
        vec!["scp".into(), scopes(&claims["scp"])],
        vec!["sub".into(), cell(&claims["sub"])],
        vec!["time left".into(), left],
    ];
    table(&["CLAIM", "VALUE"], &rows)
}

/// Seconds since the epoch from a number or a text, as issuers write both.
fn seconds(value: &Value) -> Option<u64> {
    let whole = |text: &str| text.split('.').next().and_then(|whole| whole.parse().ok());
    match value {
        Value::Number(number) => number.as_u64().or_else(|| whole(&number.to_string())),
        Value::String(text) => whole(text.trim()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn time(value: &Value) -> String {
    let moment = seconds(value)
        .and_then(|secs| i64::try_from(secs).ok())
        .and_then(|secs| Timestamp::from_second(secs).ok());
    moment.map_or_else(|| cell(value), |moment| moment.to_string())
}

fn scopes(value: &Value) -> String {
    match value.as_array() {
        Some(names) => names.iter().map(cell).collect::<Vec<_>>().join(" "),
        None => cell(value),
    }
}

fn span(span: Duration) -> String {
    values::duration_text(span.as_secs().saturating_mul(1_000))
}
