//! `tenant connect`: a link or a code for the owner of an account, and waiting until it is
//! connected.

use std::time::Duration;

use anyhow::{Context as _, bail};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::super::admin_client::{AdminArgs, AdminClient, AdminError};
use super::super::{Console, FAILURE, OK};
use crate::clock::Clock;
use crate::engine::{ApiKeyName, TenantName, Unix};

/// How often the proxy is asked.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The flags of `tenant connect`.
#[derive(Clone, Debug, clap::Args)]
pub struct ConnectArgs {
    /// The tenant's name, new or not
    pub tenant: TenantName,
    /// The API key to connect the account with
    #[arg(long, value_name = "NAME")]
    pub api_key: ApiKeyName,
    /// Where the owner is sent afterwards; the configuration must list its origin
    #[arg(long, value_name = "URL")]
    pub return_to: Option<String>,
    /// Show a code that the owner types in elsewhere, for API keys without an address for browsers
    #[arg(long, conflicts_with = "return_to")]
    pub device: bool,
    /// Print the link and do not wait
    #[arg(long)]
    pub no_wait: bool,
    /// Where to ask.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// Asks for a consent and waits for it.
///
/// # Errors
/// When the proxy cannot be asked or refuses.
pub(super) async fn run(args: &ConnectArgs, console: &mut Console<'_>) -> anyhow::Result<u8> {
    let client = AdminClient::new(&args.admin, console)?;
    let path = format!("/v1/tenants/{}/connect", args.tenant);
    let mut wish = json!({ "api_key": args.api_key.as_str() });
    if let Some(link) = &args.return_to {
        wish["return_to"] = link.as_str().into();
    }
    if args.device {
        wish["flow"] = "device".into();
    }
    let (_, begun) = client.call(Method::POST, &path, Some(&wish)).await?;
    let link = ["authorize_url", "verification_uri_complete", "verification_uri"];
    let link = link.iter().find_map(|name| begun[*name].as_str());
    let link = link.context("the proxy gave no link")?;
    console.remark(&format!("the owner of the account opens this link until {}:", until(&begun)));
    console.print(link)?;
    if let Some(code) = begun["user_code"].as_str() {
        console.print(&format!("code: {code}"))?;
    }
    if args.no_wait {
        return Ok(OK);
    }
    wait(args, &client, &path, &begun, console).await
}

async fn wait(
    args: &ConnectArgs,
    client: &AdminClient,
    path: &str,
    begun: &Value,
    console: &mut Console<'_>,
) -> anyhow::Result<u8> {
    let ends: jiff::Timestamp = until(begun).parse().context("the proxy gave no time")?;
    let ends = Unix::from_secs(u64::try_from(ends.as_second()).unwrap_or_default());
    let clock = Clock::system();
    loop {
        let now = clock.now();
        clock.sleep_until(now.mono.plus(LOOK_EVERY)).await;
        let standing = match client.get(path).await {
            Ok(standing) => standing,
            // a restart forgets how it stands, not that it was asked for
            Err(AdminError::Refused { status: StatusCode::NOT_FOUND, .. }) => Value::Null,
            Err(AdminError::NoAnswer(_)) if now.unix < ends => Value::Null,
            Err(error) => return Err(error.into()),
        };
        match standing["state"].as_str() {
            Some("connected") => {
                console.print(&format!("tenant {} is connected", args.tenant))?;
                return Ok(OK);
            }
            Some("failed") => {
                let reason = standing["reason"].as_str().unwrap_or("no reason was given");
                console.remark(&format!("tenant {} was not connected: {reason}", args.tenant));
                return Ok(FAILURE);
            }
            _ if now.unix >= ends => bail!("nobody has consented in time; ask again"),
            _ => {}
        }
    }
}

fn until(begun: &Value) -> &str {
    begun["expires_at"].as_str().unwrap_or_default()
}
