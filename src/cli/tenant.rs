//! `tenant`: adding, showing and removing tenants of a running proxy.
//!
//! Tokens come from files or the input, never from the command line, which `ps` shows to everybody
//! on the machine.

mod connect;
mod export;
mod import;

use anyhow::{Context as _, bail};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::admin_client::{AdminArgs, AdminClient};
use super::status::cell;
use super::table::table;
use super::{Console, FAILURE, OK};
use crate::engine::{ApiKeyName, TenantName};

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub use import::fuzzing;

/// What to do with tenants.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum TenantCommand {
    /// Add a tenant, or give one new tokens
    ///
    /// Tokens are read from files or standard input (`-`): what stands on a command line is shown
    /// by `ps` and kept by shells.
    Add(AddArgs),
    /// Have an account's owner connect it
    ///
    /// Prints what the owner opens in a browser, and waits until the account is connected; exit
    /// code 1 if it was not.
    Connect(connect::ConnectArgs),
    /// List tenants
    List(ListArgs),
    /// Show one tenant
    Show(ShowArgs),
    /// Remove a tenant and its tokens; its waiting calls are refused
    Remove(RemoveArgs),
    /// Add many tenants from a file
    ///
    /// CSV with a header line, or one JSON object a line, with the fields
    /// `tenant,api_key,refresh_token[,access_token][,weight]`. A line that fails is reported with
    /// its number and the rest goes on; exit code 1 if any failed. An import that was broken off
    /// is started again with the same file: what is there already is left as it is, also when its
    /// tokens have been renewed since.
    Import(import::ImportArgs),
    /// Take tenants to another place: their grants in a file that only its receivers can open
    ///
    /// The file is sealed by the proxy in the format of age; `tenant import --identity` reads it,
    /// or `age -d`. A rotating refresh token works once: after an export whichever of the two
    /// places refreshes first makes the other's copy useless. --and-pause holds the tenants here,
    /// so that the other place is the one. A tenant that cannot be exported is named and left out;
    /// exit code 1 if any was.
    Export(export::ExportArgs),
}

/// The flags of `tenant add`.
#[derive(Clone, Debug, clap::Args)]
pub struct AddArgs {
    /// The tenant's name
    pub tenant: TenantName,
    /// The API key that the account was connected with
    #[arg(long, value_name = "NAME")]
    pub api_key: ApiKeyName,
    /// File with the refresh token, `-` for standard input
    #[arg(long, value_name = "FILE")]
    pub refresh_token_file: String,
    /// File with an access token that is still valid, `-` for standard input
    #[arg(long, value_name = "FILE")]
    pub access_token_file: Option<String>,
    /// Share among the tenants of the API key [default: 1, or what it was]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub weight: Option<u32>,
    /// Where to ask.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// The flags of `tenant list`.
#[derive(Clone, Debug, clap::Args)]
pub struct ListArgs {
    /// Only tenants of this API key
    #[arg(long, value_name = "NAME")]
    pub api_key: Option<ApiKeyName>,
    /// Only tenants in this state
    #[arg(long, value_parser = ["ready", "refreshing", "needs_authorization", "paused"])]
    pub state: Option<String>,
    /// Where to ask.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// The flags of `tenant show`.
#[derive(Clone, Debug, clap::Args)]
pub struct ShowArgs {
    /// The tenant's name
    pub tenant: TenantName,
    /// Where to ask.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// The flags of `tenant remove`.
#[derive(Clone, Debug, clap::Args)]
pub struct RemoveArgs {
    /// The tenant's name
    pub tenant: TenantName,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Where to ask.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// Does what `command` says and gives the exit code.
///
/// # Errors
/// When the proxy cannot be asked or refuses.
pub async fn run(command: &TenantCommand, console: &mut Console<'_>) -> anyhow::Result<u8> {
    match command {
        TenantCommand::Add(args) => add(args, console).await,
        TenantCommand::Connect(args) => connect::run(args, console).await,
        TenantCommand::List(args) => list(args, console).await,
        TenantCommand::Show(args) => show(args, console).await,
        TenantCommand::Remove(args) => remove(args, console).await,
        TenantCommand::Import(args) => import::run(args, console).await,
        TenantCommand::Export(args) => export::run(args, console).await,
    }
}

/// Tenants as a table.
pub(super) fn table_of(tenants: &[Value]) -> String {
    let head = ["TENANT", "API KEY", "STATE", "QUEUE", "CALLS TODAY", "TOKEN UNTIL", "REASON"];
    let rows: Vec<Vec<String>> = tenants
        .iter()
        .map(|tenant| {
            vec![
                cell(&tenant["tenant"]),
                cell(&tenant["api_key"]),
                cell(&tenant["state"]),
                cell(&tenant["queue_depth"]),
                cell(&tenant["today"]["calls"]),
                cell(&tenant["access_token_expires_at"]),
                tenant["state_reason"].as_str().unwrap_or_default().to_owned(),
            ]
        })
        .collect();
    table(&head, &rows)
}

async fn add(args: &AddArgs, console: &mut Console<'_>) -> anyhow::Result<u8> {
    let both_from_input = args.refresh_token_file == "-"
        && args.access_token_file.as_deref().is_some_and(|name| name == "-");
    if both_from_input {
        bail!("only one of the two tokens can come from standard input");
    }
    let refresh = token("refresh", &args.refresh_token_file, console)?;
    let mut grant = json!({ "api_key": args.api_key.as_str(), "refresh_token": refresh });
    if let Some(name) = &args.access_token_file {
        grant["access_token"] = token("access", name, console)?.into();
    }
    if let Some(weight) = args.weight {
        grant["weight"] = weight.into();
    }
    let client = AdminClient::new(&args.admin, console)?;
    let (status, _) =
        client.call(Method::PUT, &format!("/v1/tenants/{}", args.tenant), Some(&grant)).await?;
    let what = if status == StatusCode::CREATED { "added to" } else { "has new tokens from" };
    console.print(&format!("tenant {} {what} API key {}", args.tenant, args.api_key))?;
    Ok(OK)
}

fn token(which: &str, name: &str, console: &mut Console<'_>) -> anyhow::Result<String> {
    // the name is left out: people put the token itself where its file belongs
    let text = console
        .read_named(name)
        .with_context(|| format!("could not read the file of the {which} token"))?;
    match text.as_str() {
        "" => bail!("the file of the {which} token is empty"),
        text if text.chars().any(|c| c.is_whitespace() || c.is_control()) => {
            bail!("the file of the {which} token holds more than a token")
        }
        _ => Ok(text),
    }
}

async fn list(args: &ListArgs, console: &mut Console<'_>) -> anyhow::Result<u8> {
    let mut query = Vec::new();
    query.extend(args.api_key.as_ref().map(|name| ("api_key", name.as_str())));
    query.extend(args.state.as_ref().map(|state| ("state", state.as_str())));
    let client = AdminClient::new(&args.admin, console)?;
    let tenants = client.list("/v1/tenants", &query).await?;
    console.print(&table_of(&tenants))?;
    Ok(OK)
}

async fn show(args: &ShowArgs, console: &mut Console<'_>) -> anyhow::Result<u8> {
    let client = AdminClient::new(&args.admin, console)?;
    let tenant = client.get(&format!("/v1/tenants/{}", args.tenant)).await?;
    let mut rows = Vec::new();
    for (name, value) in tenant.as_object().into_iter().flatten() {
        match value.as_object() {
            Some(inner) => {
                rows.extend(
                    inner.iter().map(|(key, value)| vec![format!("{name}.{key}"), cell(value)]),
                );
            }
            None => rows.push(vec![name.clone(), cell(value)]),
        }
    }
    console.print(&table(&["FIELD", "VALUE"], &rows))?;
    Ok(OK)
}

async fn remove(args: &RemoveArgs, console: &mut Console<'_>) -> anyhow::Result<u8> {
    if !args.yes && !agreed(&args.tenant, console)? {
        console.remark("nothing was removed");
        return Ok(FAILURE);
    }
    let client = AdminClient::new(&args.admin, console)?;
    client.call(Method::DELETE, &format!("/v1/tenants/{}", args.tenant), None).await?;
    console.print(&format!("tenant {} removed", args.tenant))?;
    Ok(OK)
}

fn agreed(tenant: &TenantName, console: &mut Console<'_>) -> anyhow::Result<bool> {
    if !console.interactive {
        bail!("removing a tenant forgets its tokens for good: give --yes");
    }
    let question = format!("remove tenant {tenant} and forget its tokens for good? [y/N] ");
    console.err.write_all(question.as_bytes())?;
    console.err.flush()?;
    let mut answer = String::new();
    console.input.read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
