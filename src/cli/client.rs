//! `client`: the programs that may call a running proxy.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::admin_client::{AdminArgs, AdminClient};
use super::status::cell;
use super::table::table;
use super::{Console, OK};
use crate::config::values;
use crate::engine::{ClientName, TenantName};

/// What to do with clients.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum ClientCommand {
    /// Add a client and print its key, which is shown this once
    Add(AddArgs),
    /// Make a new key for a client and print it; the old one works a while longer
    Rotate(RotateArgs),
    /// List clients
    List(AdminArgs),
    /// Remove a client; its key stops working
    Remove(RemoveArgs),
}

/// The flags of `client add`.
#[derive(Clone, Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("scope").required(true).args(["tenants", "all_tenants"]))]
pub struct AddArgs {
    /// The client's name
    pub client: ClientName,
    /// The tenants that it may act for, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub tenants: Vec<TenantName>,
    /// It may act for every tenant, also those that are added later
    #[arg(long)]
    pub all_tenants: bool,
    /// The key stops working after so long, such as 90d; never when not given
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub expires_in: Option<Duration>,
    /// Where to ask.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// The flags of `client rotate`.
#[derive(Clone, Debug, clap::Args)]
pub struct RotateArgs {
    /// The client's name
    pub client: ClientName,
    /// How long the old key works beside the new one, such as 10m; 0s ends it at once
    #[arg(long, value_name = "DURATION", default_value = "1d", value_parser = values::duration)]
    pub overlap: Duration,
    /// The new key stops working after so long, such as 90d; never when not given
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub expires_in: Option<Duration>,
    /// Where to ask.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// The flags of `client remove`.
#[derive(Clone, Debug, clap::Args)]
pub struct RemoveArgs {
    /// The client's name
    pub client: ClientName,
    /// Where to ask.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// Does what `command` says and gives the exit code.
///
/// # Errors
/// When the proxy cannot be asked or refuses.
pub async fn run(command: &ClientCommand, console: &mut Console<'_>) -> anyhow::Result<u8> {
    match command {
        ClientCommand::Add(args) => add(args, console).await,
        ClientCommand::Rotate(args) => rotate(args, console).await,
        ClientCommand::List(args) => list(args, console).await,
        ClientCommand::Remove(args) => remove(args, console).await,
    }
}

async fn add(args: &AddArgs, console: &mut Console<'_>) -> anyhow::Result<u8> {
    let tenants = if args.all_tenants {
        json!("*")
    } else {
        args.tenants.iter().map(TenantName::as_str).collect()
    };
    let mut body = json!({ "name": args.client.as_str(), "tenants": tenants });
    end_in(&mut body, args.expires_in);
    let client = AdminClient::new(&args.admin, console)?;
    let (_, answer) = client.call(Method::POST, "/v1/clients", Some(&body)).await?;
    show_key(&answer, console)
}

async fn rotate(args: &RotateArgs, console: &mut Console<'_>) -> anyhow::Result<u8> {
    let mut body = json!({ "overlap": args.overlap.as_secs() });
    end_in(&mut body, args.expires_in);
    let client = AdminClient::new(&args.admin, console)?;
    let path = format!("/v1/clients/{}/rotate", args.client);
    let (_, answer) = client.call(Method::POST, &path, Some(&body)).await?;
    match answer["previous_key_until"].as_str() {
        Some(until) => console.remark(&format!("the old key works until {until}")),
        None => console.remark("the old key does not work any more"),
    }
    show_key(&answer, console)
}

fn end_in(body: &mut Value, life: Option<Duration>) {
    if let Some(life) = life {
        body["expires_in"] = life.as_secs().into();
    }
}

fn show_key(answer: &Value, console: &mut Console<'_>) -> anyhow::Result<u8> {
    let key = answer["key"].as_str();
    let key = key.ok_or_else(|| anyhow::anyhow!("the proxy's answer holds no key"))?;
    console.remark("the key is shown this once:");
    console.print(key)?;
    Ok(OK)
}

async fn list(args: &AdminArgs, console: &mut Console<'_>) -> anyhow::Result<u8> {
    let clients = AdminClient::new(args, console)?.list("/v1/clients", &[]).await?;
    let rows: Vec<Vec<String>> = clients
        .iter()
        .map(|client| {
            let tenants = tenants(&client["tenants"]);
            let times = ["created_at", "expires_at", "last_used_at"].map(|at| cell(&client[at]));
            [cell(&client["name"]), tenants].into_iter().chain(times).collect()
        })
        .collect();
    console
        .print(&table(&["CLIENT", "TENANTS", "CREATED AT", "EXPIRES AT", "LAST USED AT"], &rows))?;
    Ok(OK)
}

fn tenants(value: &Value) -> String {
    match value.as_array() {
        Some(names) => names.iter().map(cell).collect::<Vec<_>>().join(","),
        None => cell(value),
    }
}

async fn remove(args: &RemoveArgs, console: &mut Console<'_>) -> anyhow::Result<u8> {
    let client = AdminClient::new(&args.admin, console)?;
    client.call(Method::DELETE, &format!("/v1/clients/{}", args.client), None).await?;
    console.print(&format!("client {} removed", args.client))?;
    Ok(OK)
}
