//! `tenant import`: many tenants from CSV or JSON lines.
//!
//! Every line stands for itself: what is wrong with one is reported with its number, without the
//! tokens on it, and the others go on. A few lines are asked for at a time, so that the proxy has
//! time for others. Only a proxy that cannot take any line now ends the import early; started again
//! with the same file it goes on, since the proxy knows the grants that it has been given.

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod rows;

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http::{Method, StatusCode};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::cli::admin_client::{AdminArgs, AdminClient, AdminError};
use crate::cli::progress::{Progress, part};
use crate::cli::{Console, FAILURE, OK};
use crate::secret::age_file::{Identities, is_age_file};

use rows::{Line, Row};

/// Lines that are asked for at a time. The store takes up to 32 changes in one go; half of that is
/// left to others.
const AT_ONCE: &str = "16";

/// The flags of `tenant import`.
#[derive(Clone, Debug, clap::Args)]
pub struct ImportArgs {
    /// The file, `-` for standard input
    pub file: String,
    /// File with the age identity that opens a sealed file
    #[arg(long, value_name = "FILE")]
    pub identity: Option<String>,
    /// Have every line checked by the running proxy, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// What to do with a tenant that is there with another grant: fail the line, leave the tenant
    /// as it is, or give it the grant of the file
    #[arg(long, value_name = "WHAT", value_parser = ["fail", "skip", "replace"])]
    #[arg(default_value = "fail")]
    pub on_conflict: String,
    /// Write what is wrong with lines to this file instead of standard error
    #[arg(long, value_name = "FILE")]
    pub errors: Option<PathBuf>,
    /// Lines that are asked for at a time
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(1..=32))]
    #[arg(default_value = AT_ONCE)]
    pub at_once: u8,
    /// Where to ask.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// The body of a request; what is absent is left out.
#[derive(Serialize)]
struct Body<'a> {
    api_key: &'a str,
    refresh_token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<u32>,
}

/// How many lines ended how.
#[derive(Debug, Default)]
struct Tally {
    created: u64,
    replaced: u64,
    unchanged: u64,
    skipped: u64,
    failed: u64,
}

/// What is wrong with a line alone, or with the proxy.
enum Problem {
    OfLine(String),
    OfProxy(String),
}

/// Where what is wrong with lines is written.
enum Errors {
    Console,
    File(BufWriter<File>, PathBuf),
}

/// Imports the file and gives the exit code: 1 when any line failed.
pub(super) async fn run(args: &ImportArgs, console: &mut Console<'_>) -> anyhow::Result<u8> {
    let content =
        console.read_secret(&args.file).with_context(|| format!("could not read {}", args.file))?;
    let lines = rows::parse(&opened(args, console, content)?)?;
    let client = AdminClient::new(&args.admin, console)?;
    let mut errors = Errors::open(args.errors.as_ref())?;
    let whole = lines.len() as u64;
    let query = format!("on_conflict={}&dry_run={}", args.on_conflict, args.dry_run);
    let ask = |Line { number, row }| {
        let (client, query) = (&client, &query);
        async move {
            let result = match row {
                Ok(row) => hand_in(client, query, row).await,
                Err(problem) => Err(Problem::OfLine(problem)),
            };
            (number, result)
        }
    };
    let mut answers = stream::iter(lines).map(ask).buffered(usize::from(args.at_once));
    let (mut tally, mut progress) = (Tally::default(), Progress::new());
    while let Some((number, result)) = answers.next().await {
        match result {
            Ok(outcome) => tally.count(&outcome)?,
            Err(Problem::OfLine(problem)) => {
                tally.failed += 1;
                progress.clear(console);
                errors.write(console, &format!("line {number}: {problem}"))?;
            }
            Err(Problem::OfProxy(problem)) => {
                progress.clear(console);
                errors.close()?;
                bail!(
                    "{problem} (at line {number}; before it: {}; start the import again with the \
                     same file, it goes on)",
                    tally.text()
                );
            }
        }
        progress.show(console, || format!("{}: {}", part(tally.sum(), whole), tally.text()));
    }
    progress.clear(console);
    errors.close()?;
    let what = if args.dry_run { "nothing was changed; it would be: " } else { "" };
    console.print(&format!("{what}{}", tally.text()))?;
    Ok(if tally.failed == 0 { OK } else { FAILURE })
}

/// What the file says, when it is sealed after opening it.
fn opened(
    args: &ImportArgs,
    console: &mut Console<'_>,
    content: Zeroizing<Vec<u8>>,
) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let Some(name) = &args.identity else {
        if is_age_file(&content) {
            bail!("the file is sealed with age; name the identity that opens it with --identity");
        }
        return Ok(content);
    };
    if !is_age_file(&content) {
        bail!("the file is not sealed, so --identity has nothing to open");
    }
    let text = console.read_secret(name).context("could not read the file of the identity")?;
    let text = std::str::from_utf8(&text).context("the file of the identity is not UTF-8")?;
    let identities = Identities::read(text).context("the file of the identity")?;
    Ok(identities.open(&content)?)
}

/// Hands one row in and gives what the proxy did with it.
async fn hand_in(client: &AdminClient, query: &str, row: Row) -> Result<String, Problem> {
    let path = format!("/v1/tenants/{}?{query}", row.tenant);
    match client.send(Method::PUT, &path, Some(body(&row))).await {
        Ok((_, answer)) => answer["outcome"].as_str().map(str::to_owned).ok_or_else(|| {
            let message = "the proxy does not say what it did: is it of an older version?";
            Problem::OfProxy(message.to_owned())
        }),
        Err(AdminError::NoAnswer(message)) => Err(Problem::OfProxy(message)),
        Err(AdminError::Refused { status, message }) => Err(match status {
            // what it said of this line it would say of every other
            StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::SERVICE_UNAVAILABLE => Problem::OfProxy(message),
            _ => Problem::OfLine(message),
        }),
    }
}

fn body(row: &Row) -> Bytes {
    let body = Body {
        api_key: row.api_key.as_str(),
        refresh_token: row.refresh_token.expose(),
        access_token: row.access_token.as_ref().map(|token| token.expose().as_str()),
        weight: row.weight,
    };
    let tokens = body.refresh_token.len() + body.access_token.map_or(0, str::len);
    // large enough at once: a buffer that grows would leave copies behind
    let mut json = Zeroizing::new(Vec::with_capacity(2 * tokens + 512));
    serde_json::to_writer(&mut *json, &body).expect("texts and numbers are JSON");
    Bytes::from_owner(json)
}

impl Tally {
    fn count(&mut self, outcome: &str) -> anyhow::Result<()> {
        let count = match outcome {
            "created" => &mut self.created,
            "replaced" => &mut self.replaced,
            "unchanged" => &mut self.unchanged,
            "skipped" => &mut self.skipped,
            _ => bail!("the proxy did something unknown: is it of a newer version?"),
        };
        *count += 1;
        Ok(())
    }

    const fn sum(&self) -> u64 {
        self.created + self.replaced + self.unchanged + self.skipped + self.failed
    }

    fn text(&self) -> String {
        format!(
            "{} created, {} replaced, {} unchanged, {} skipped, {} failed",
            self.created, self.replaced, self.unchanged, self.skipped, self.failed
        )
    }
}

impl Errors {
    fn open(path: Option<&PathBuf>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self::Console) };
        let file =
            File::create(path).with_context(|| format!("could not write {}", path.display()))?;
        Ok(Self::File(BufWriter::new(file), path.clone()))
    }

    fn write(&mut self, console: &mut Console<'_>, line: &str) -> anyhow::Result<()> {
        match self {
            Self::Console => console.remark(line),
            Self::File(file, path) => {
                writeln!(file, "{line}")
                    .with_context(|| format!("could not write {}", path.display()))?;
            }
        }
        Ok(())
    }

    fn close(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Console => Ok(()),
            Self::File(file, path) => {
                file.flush().with_context(|| format!("could not write {}", path.display()))
            }
        }
    }
}
