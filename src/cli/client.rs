//! `client`: the programs that may call a running proxy.

use http::Method;
use serde_json::{Value, json};

use super::admin_client::{AdminArgs, AdminClient};
use super::status::cell;
use super::table::table;
use super::{Console, OK};
use crate::engine::{ClientName, TenantName};

/// What to do with clients.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum ClientCommand {
    /// Add a client and print its key, which is shown this once
    Add(AddArgs),
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
    let body = json!({ "name": args.client.as_str(), "tenants": tenants });
    let client = AdminClient::new(&args.admin, console)?;
    let (_, answer) = client.call(Method::POST, "/v1/clients", Some(&body)).await?;
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
            vec![cell(&client["name"]), tenants(&client["tenants"]), cell(&client["created_at"])]
        })
        .collect();
    console.print(&table(&["CLIENT", "TENANTS", "CREATED AT"], &rows))?;
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
