//! `store`: what is done to stores while no proxy runs on them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::table::table;
use super::{Console, FAILURE, OK};
use crate::config::settings::ENV_PREFIX;
use crate::config::{self, Mistakes, Origin, ServeFlags};
use crate::secret::Secret;
use crate::store::{self, CopyError, CopyOrder, Existing, Place, Report, Tally};

/// What a store may be here.
const ALLOWED: &str = "sqlite:PATH or redis://HOST:PORT/DATABASE";
const FROM_HELP: &str =
    "The store that is read: sqlite:PATH, redis://… or rediss://… [env: CTCT_PROXY_COPY_FROM]";
const TO_HELP: &str = "The store that is written, made if need be [env: CTCT_PROXY_COPY_TO]";

/// What to do with a store.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum StoreCommand {
    /// Copy everything from one store to another, such as from SQLite to Redis or back
    ///
    /// Tenants with their tokens, clients, held API keys and the counts of the day are copied and
    /// then compared. FROM stays as it is; every proxy on it must be stopped, and none may be
    /// started there again: a rotating refresh token works once. A copy that was broken off is
    /// finished by the same command. Exit code 1 if TO does not hold everything at the end.
    Copy(CopyArgs),
}

/// The flags of `store copy`.
#[derive(Clone, Debug, clap::Args)]
pub struct CopyArgs {
    /// The store that is read.
    #[arg(help = FROM_HELP)]
    pub from: Option<Secret<String>>,
    /// The store that is written.
    #[arg(help = TO_HELP)]
    pub to: Option<Secret<String>>,
    /// Encryption key of FROM [default: PATH.key of sqlite:]
    #[arg(long, value_name = "FILE")]
    pub from_key_file: Option<PathBuf>,
    /// Encryption key of TO [default: PATH.key of sqlite:, made with the database]
    #[arg(long, value_name = "FILE")]
    pub to_key_file: Option<PathBuf>,
    /// Journal of refreshes of an instance that was killed, where FROM is redis:; may be repeated
    #[arg(long, value_name = "FILE")]
    pub from_journal: Vec<PathBuf>,
    /// Write also to a Redis that would forget grants
    #[arg(long)]
    pub accept_volatile_store: bool,
    /// Replace tenants and clients that are in TO with other content
    ///
    /// A tenant that was refreshed in TO since it was copied is never replaced.
    #[arg(long)]
    pub overwrite: bool,
    /// Write nothing and say what would be copied
    #[arg(long)]
    pub dry_run: bool,
    /// Configuration file, whose API keys have counts of the day even where they have no tenants
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Does what `command` says and gives the exit code.
///
/// # Errors
/// When the stores cannot be used, or are no stores.
pub async fn run(command: &StoreCommand, console: &mut Console<'_>) -> anyhow::Result<u8> {
    match command {
        StoreCommand::Copy(args) => copy(args, console).await,
    }
}

async fn copy(args: &CopyArgs, console: &mut Console<'_>) -> anyhow::Result<u8> {
    let order = order(args, console)?;
    // boxed: it is large, and so would be the future of every command
    let report = match Box::pin(store::copy(&order)).await {
        Ok(report) => report,
        Err(CopyError::Mistake(text)) => {
            let mut mistakes = Mistakes::default();
            mistakes.add("store copy", &Origin::Flag("FROM TO".to_owned()), text, "");
            return Err(mistakes.into());
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(key) = report.key.as_ref().filter(|_| !order.is_trial) {
        console.remark(&format!("TO: {key}"));
        if let Some(warning) = key.warning() {
            console.remark(&warning);
        }
    }
    console.print(&counts(&report, order.is_trial))?;
    conclude(&report, &order, console);
    Ok(if report.is_complete() { OK } else { FAILURE })
}

fn order(args: &CopyArgs, console: &Console<'_>) -> anyhow::Result<CopyOrder> {
    let mut mistakes = Mistakes::default();
    let mut place = |name: &str, given: Option<&Secret<String>>, key_file: &Option<PathBuf>| {
        let variable = format!("{ENV_PREFIX}COPY_{name}");
        let of_env = || (console.env)(&variable).filter(|text| !text.is_empty());
        let (text, origin) = match given {
            Some(text) => (Some(text.clone()), Origin::Flag(name.to_owned())),
            None => (of_env().map(Secret::new), Origin::Env(variable.clone())),
        };
        let url = match text {
            Some(text) => config::store_url(text.expose()),
            None => Err("is not given".to_owned()),
        };
        let url = url.map_err(|problem| mistakes.add(name, &origin, problem, ALLOWED)).ok()?;
        Some(Place { url, key_file: key_file.clone() })
    };
    let from = place("FROM", args.from.as_ref(), &args.from_key_file);
    let to = place("TO", args.to.as_ref(), &args.to_key_file);
    let (Some(from), Some(to)) = (from, to) else { return Err(mistakes.into()) };
    let api_keys = match &args.config {
        Some(path) => {
            let flags = ServeFlags::default().with_config(path);
            let config = config::read(&flags, console.env)?.config;
            config.api_keys.into_iter().map(|api_key| api_key.name).collect()
        }
        None => BTreeSet::new(),
    };
    Ok(CopyOrder {
        from,
        to,
        journals: args.from_journal.clone(),
        accept_volatile: args.accept_volatile_store,
        existing: if args.overwrite { Existing::Overwritten } else { Existing::Kept },
        api_keys,
        is_trial: args.dry_run,
    })
}

fn counts(report: &Report, is_trial: bool) -> String {
    let copied = if is_trial { "TO COPY" } else { "COPIED" };
    let row = |what: &str, tally: &Tally| {
        let numbers = [tally.copied, tally.there, tally.left_alone].map(|count| count.to_string());
        [what.to_owned()].into_iter().chain(numbers).collect()
    };
    table(
        &["", copied, "THERE ALREADY", "LEFT ALONE"],
        &[
            row("tenants", &report.tenants),
            row("clients", &report.clients),
            row("held API keys", &report.held),
            row("counted days", &report.days),
        ],
    )
}

fn conclude(report: &Report, order: &CopyOrder, console: &mut Console<'_>) {
    for gone in &report.gone_on {
        console.remark(&gone.to_string());
    }
    for left in &report.left_alone {
        console.remark(&format!("left alone: {}: {}", left.what, left.why));
    }
    for difference in &report.differences {
        console.remark(&format!("not as in FROM: {difference}"));
    }
    if order.is_trial {
        console.remark("nothing was written (--dry-run)");
    } else if report.is_complete() {
        console.remark(
            "both were read again: TO holds all that FROM holds. Start no proxy on FROM any more: \
             a rotating refresh token works once",
        );
    } else {
        console.remark("TO does not hold all that FROM holds");
    }
}
