//! `key`: the encryption key of a running proxy.
//!
//! The keys themselves never come here: the proxy makes, uses and forgets them, and is told to.

use std::time::Duration;

use http::Method;
use serde_json::Value;

use super::admin_client::{AdminArgs, AdminClient, AdminError};
use super::{Console, OK};

/// Everything is sealed anew before the proxy answers.
const PATIENCE: Duration = Duration::from_secs(600);

/// What to do with the encryption key.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum KeyCommand {
    /// Show which encryption key is in use
    Show(KeyArgs),
    /// Make a new encryption key and seal everything anew with it
    ///
    /// Calls and refreshes go on meanwhile. The key file holds both keys until nothing needs the
    /// older one. A rotation that was broken off is finished when it is asked for again.
    Rotate(KeyArgs),
}

/// The flags of both.
#[derive(Clone, Debug, clap::Args)]
pub struct KeyArgs {
    /// Where to ask.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// Does what `command` says and gives the exit code.
///
/// # Errors
/// When the proxy cannot be asked or refuses.
pub async fn run(command: &KeyCommand, console: &mut Console<'_>) -> anyhow::Result<u8> {
    match command {
        KeyCommand::Show(args) => show(args, console).await,
        KeyCommand::Rotate(args) => rotate(args, console).await,
    }
}

async fn show(args: &KeyArgs, console: &mut Console<'_>) -> anyhow::Result<u8> {
    let answer = AdminClient::new(&args.admin, console)?.get("/v1/key").await?;
    console.print(&format!("encryption key {}", text(&answer["key_id"])))?;
    let older = list(&answer["older_key_ids"]);
    if !older.is_empty() {
        console.remark(&format!(
            "the key file holds older keys too: {older}; `ctct-proxy key rotate` gives them up"
        ));
    }
    Ok(OK)
}

async fn rotate(args: &KeyArgs, console: &mut Console<'_>) -> anyhow::Result<u8> {
    let client = AdminClient::new(&args.admin, console)?.with_patience(PATIENCE);
    let answer = match client.call(Method::POST, "/v1/key/rotate", None).await {
        Ok((_, answer)) => answer,
        Err(AdminError::NoAnswer(message)) => anyhow::bail!(
            "{message}; nothing is lost: rotate again when the proxy runs, and it goes on where \
             it was"
        ),
        Err(error) => return Err(error.into()),
    };
    console.print(&format!(
        "encryption key {}: the tokens of {} tenants were sealed anew, given up: {}",
        text(&answer["key_id"]),
        answer["sealed_anew"],
        list(&answer["given_up"])
    ))?;
    if answer["resumed"].as_bool().unwrap_or_default() {
        console.remark(
            "the key file held several keys already, so no new one was made; rotate again for one",
        );
    }
    match answer["note"].as_str() {
        Some(note) => console.remark(note),
        None => console.remark("keep a copy of the key file: without it all tokens are lost"),
    }
    Ok(OK)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> String {
    let texts = value.as_array().into_iter().flatten().filter_map(Value::as_str);
    texts.collect::<Vec<_>>().join(", ")
}
