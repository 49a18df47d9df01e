//! `status`: the API keys, tenants and instances of a running proxy, for people or as JSON.

use std::time::Duration;

use serde_json::{Value, json};

use super::admin_client::{AdminArgs, AdminClient};
use super::table::table;
use super::{Console, tenant};

/// Time between two readings of `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Moves the cursor home and clears the terminal (ECMA-48).
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// The flags of `status`.
#[derive(Clone, Debug, clap::Args)]
pub struct StatusArgs {
    /// Print the answers of the admin API as one JSON object
    #[arg(long)]
    pub json: bool,
    /// Read again every second until Ctrl-C
    #[arg(long)]
    pub watch: bool,
    /// Where to ask.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// Prints the status, once or until Ctrl-C.
///
/// # Errors
/// When the proxy cannot be asked.
pub async fn run(args: &StatusArgs, console: &mut Console<'_>) -> anyhow::Result<()> {
    let client = AdminClient::new(&args.admin, console)?;
    if !args.watch {
        let text = read(&client, args.json).await?;
        return Ok(console.print(&text)?);
    }
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        // a proxy that is being restarted is worth waiting for
        let text = read(&client, args.json).await.unwrap_or_else(|error| format!("{error:#}"));
        let clear = if args.json { "" } else { CLEAR };
        console.print(&format!("{clear}{text}"))?;
        tokio::select! {
            _ = &mut interrupt => return Ok(()),
            () = tokio::time::sleep(WATCH_INTERVAL) => {}
        }
    }
}

async fn read(client: &AdminClient, as_json: bool) -> anyhow::Result<String> {
    let api_keys = client.list("/v1/api-keys", &[]).await?;
    let tenants = client.list("/v1/tenants", &[]).await?;
    let instances = client.list("/v1/instances", &[]).await?;
    if as_json {
        let all = json!({ "api_keys": api_keys, "tenants": tenants, "instances": instances });
        return Ok(all.to_string());
    }
    let mut tables = vec![api_key_table(&api_keys), tenant::table_of(&tenants)];
    // one that is alone is the one that was asked
    if instances.len() > 1 {
        tables.push(instance_table(&instances));
    }
    Ok(tables.join("\n\n"))
}

fn instance_table(instances: &[Value]) -> String {
    let head = ["INSTANCE", "STATE", "LISTENS", "ADMIN", "VERSION", "STARTED AT", "LAST SEEN AT"];
    let row = |instance: &Value| {
        let is_self = instance["self"] == json!(true);
        let state = cell(&instance["state"]);
        vec![
            cell(&instance["host"]),
            if is_self { format!("{state} (this one)") } else { state },
            cell(&instance["listen"]),
            cell(&instance["admin_listen"]),
            cell(&instance["version"]),
            cell(&instance["started_at"]),
            cell(&instance["last_seen_at"]),
        ]
    };
    table(&head, &instances.iter().map(row).collect::<Vec<_>>())
}

fn api_key_table(api_keys: &[Value]) -> String {
    let head = [
        "API KEY",
        "STATE",
        "QUEUE",
        "NEW CALL WAITS",
        "IN FLIGHT",
        "DAY USED",
        "OF",
        "RESETS AT",
        "USED UP AT",
        "THROTTLED",
        "TOKEN LANE",
    ];
    let rows: Vec<Vec<String>> = api_keys
        .iter()
        .map(|key| {
            let state = if key["paused"] == json!(true) { "paused" } else { "open" };
            vec![
                cell(&key["name"]),
                state.to_owned(),
                cell(&key["queue"]["depth"]),
                waits(&key["queue"]["estimated_wait_ms"]),
                cell(&key["upstream"]["in_flight"]),
                cell(&key["day"]["used"]),
                cell(&key["per_day"]),
                cell(&key["day"]["resets_at"]),
                used_up_at(&key["day"]),
                cell(&key["upstream"]["throttled_total"]),
                cell(&key["token_lane"]["depth"]),
            ]
        })
        .collect();
    table(&head, &rows)
}

/// When a day's calls will be used up, with the ends of the likely span.
fn used_up_at(day: &Value) -> String {
    match day["forecast_exhausted_between"].as_array().map(Vec::as_slice) {
        Some([early, late]) => {
            let likely = cell(&day["forecast_exhausted_at"]);
            let late = late.as_str().unwrap_or("the reset");
            format!("{likely} ({} to {late})", cell(early))
        }
        Some(_) | None => cell(&day["forecast_exhausted_at"]),
    }
}

/// The waits to be expected by class, most urgent first, in seconds; `-` where there are none.
fn waits(by_class: &Value) -> String {
    let seconds = |class: &str| Some(by_class[class].as_f64()? / 1_000.0);
    let all = ["interactive", "normal", "bulk"].map(seconds);
    match all {
        [Some(interactive), Some(normal), Some(bulk)] => {
            format!("{interactive:.1}/{normal:.1}/{bulk:.1}s")
        }
        _ => "-".to_owned(),
    }
}

/// A JSON value as a cell; what is absent is `-`.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}
