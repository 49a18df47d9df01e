//! `tenant export`: grants for another place, in a file that only its receivers can open.
//!
//! The proxy seals; nothing that passes here can be read. What cannot be exported is asked for
//! first and named. A file is there under its name only when it is whole.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use http::{HeaderMap, Method};
use serde_json::{Value, json};

use crate::cli::admin_client::{AdminArgs, AdminClient};
use crate::cli::{Console, FAILURE, OK};
use crate::engine::{ApiKeyName, TenantName};
use crate::secret::age_file::Recipients;

/// All tenants are taken out before the answer begins, and each may wait for a refresh.
const PATIENCE: Duration = Duration::from_secs(600);

/// The flags of `tenant export`.
#[derive(Clone, Debug, clap::Args)]
pub struct ExportArgs {
    /// The tenants; all when none is named
    pub tenants: Vec<TenantName>,
    /// Who may open the file, an age recipient (age1…); may be given several times
    #[arg(long, value_name = "AGE1…")]
    pub recipient: Vec<String>,
    /// File with age recipients, one a line; may be given several times
    #[arg(long, value_name = "FILE")]
    pub recipients_file: Vec<PathBuf>,
    /// The file [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Only tenants of this API key
    #[arg(long, value_name = "NAME")]
    pub api_key: Option<ApiKeyName>,
    /// Hold the exported tenants here: their calls wait and nothing is refreshed until they are
    /// resumed
    #[arg(long)]
    pub and_pause: bool,
    /// Say what would be exported, and export nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Where to ask.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// Exports and gives the exit code: 1 when any tenant was left out.
pub(super) async fn run(args: &ExportArgs, console: &mut Console<'_>) -> anyhow::Result<u8> {
    if args.output.is_none() && console.redraws && !args.dry_run {
        bail!("standard output is a terminal; name a file with --output, or use a pipe");
    }
    let recipients = recipients(args)?;
    let client = AdminClient::new(&args.admin, console)?.with_patience(PATIENCE);
    let mut order = json!({ "recipients": recipients, "dry_run": true });
    if !args.tenants.is_empty() {
        order["tenants"] = args.tenants.iter().map(TenantName::as_str).collect();
    }
    if let Some(api_key) = &args.api_key {
        order["api_key"] = api_key.as_str().into();
    }
    let (_, plan) = client.call(Method::POST, "/v1/export", Some(&order)).await?;
    let left_out = named(&plan, console);
    if args.dry_run {
        let count = plan["tenants"].as_array().map_or(0, Vec::len);
        console.print(&format!("{count} tenants would be exported, {left_out} left out"))?;
        return Ok(if left_out == 0 { OK } else { FAILURE });
    }
    order["dry_run"] = false.into();
    order["pause"] = args.and_pause.into();
    let fetched = if let Some(path) = &args.output {
        to_file(&client, &order, path).await
    } else {
        let out = &mut *console.out;
        let take = |piece: &[u8]| out.write_all(piece).context("could not write the file");
        client.download("/v1/export", &order, take).await
    };
    console.out.flush()?;
    let head = fetched.with_context(|| {
        if args.and_pause {
            "the export broke off; tenants may be held by now: `ctct-proxy tenant list --state \
             paused` names them"
        } else {
            "the export broke off"
        }
    })?;
    let (exported, missing) =
        (count(&head, "ctct-proxy-exported")?, count(&head, "ctct-proxy-left-out")?);
    console.remark(&format!("{exported} tenants exported, {missing} left out"));
    if missing > left_out {
        console.remark("more were left out than before; the proxy's log names them");
    }
    console.remark(if args.and_pause {
        "the exported tenants are held here: remove them when the other place has them, or resume \
         them if it never will"
    } else {
        "this proxy goes on with the same grants: with rotating refresh tokens, whichever place \
         refreshes first makes the other's copy useless (--and-pause holds the tenants here)"
    });
    Ok(if missing == 0 { OK } else { FAILURE })
}

/// The recipients of all flags, looked at before anybody is asked.
fn recipients(args: &ExportArgs) -> anyhow::Result<Vec<String>> {
    let mut texts = args.recipient.clone();
    for path in &args.recipients_file {
        let text = fs::read_to_string(path)
            .with_context(|| format!("could not read {}", path.display()))?;
        let lines = text.lines().map(str::trim);
        let given = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        texts.extend(given.map(str::to_owned));
    }
    if texts.is_empty() {
        bail!("name who may open the file: --recipient age1… or --recipients-file FILE");
    }
    Ok(Recipients::read(&texts).context("the recipients")?.texts())
}

/// Names what the proxy leaves out, and counts it.
fn named(plan: &Value, console: &mut Console<'_>) -> u64 {
    let mut count = 0;
    for item in plan["left_out"].as_array().into_iter().flatten() {
        let text = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
        console.remark(&format!("tenant {}: {}", text("tenant"), text("reason")));
        count += 1;
    }
    count
}

/// Downloads to a file beside `path`, which takes its place when it is whole.
async fn to_file(client: &AdminClient, order: &Value, path: &Path) -> anyhow::Result<HeaderMap> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let failed = |what: &Path| format!("could not write {}", what.display());
    let mut file = create(&part).with_context(|| failed(&part))?;
    let take = |piece: &[u8]| file.write_all(piece).with_context(|| failed(&part));
    let head = client.download("/v1/export", order, take).await;
    let head = head.inspect_err(|_| drop(fs::remove_file(&part)))?;
    file.sync_all().with_context(|| failed(&part))?;
    fs::rename(&part, path).with_context(|| failed(path))?;
    Ok(head)
}

fn create(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn count(head: &HeaderMap, name: &str) -> anyhow::Result<u64> {
    let text = head.get(name).and_then(|value| value.to_str().ok());
    text.and_then(|text| text.parse().ok())
        .with_context(|| format!("the proxy's answer has no {name}: is it of another version?"))
}
