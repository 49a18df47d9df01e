//! What the proxy costs, measured from outside as a whole process, and held to targets.
//!
//! `make bench` runs it: it starts the release binary, a bare proxy of the same stack ([`bare`])
//! and the load, and prints one table. One thread on a core of its own is both the load and the far
//! side; each proxy in turn has the other core. Ends with 1 when a target is missed. Nothing is
//! written but what criterion keeps.
#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

mod bare;
mod callers;
mod memory;
mod parked;
mod path;
mod process;
mod report;
mod subject;
mod upstream;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use tokio::task::LocalSet;

use report::Report;
use subject::Ours;

#[derive(Parser)]
struct Arguments {
    /// What to measure; all without one.
    part: Option<Part>,
    /// Another build of the proxy than `target/release/ctct-proxy`.
    #[arg(long, value_name = "PATH")]
    proxy: Option<PathBuf>,
    /// Rounds of load, in each of which every proxy has a turn.
    #[arg(long, default_value_t = 61)]
    rounds: usize,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The engine alone.
    Engine,
    /// CPU time on the path.
    Path,
    /// Resident memory.
    Memory,
}

#[derive(Subcommand)]
enum Command {
    /// Be the bare proxy.
    Bare {
        /// Where to listen.
        listen: SocketAddr,
        /// Where calls go.
        upstream: SocketAddr,
        /// Let every call wait for ever.
        #[arg(long)]
        hold: bool,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(Command::Bare { listen, upstream, hold }) = arguments.command {
        bare::serve(listen, upstream, hold)?;
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = LocalSet::new().block_on(&runtime, measure(&arguments))?;
    Ok(if report.print() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn measure(arguments: &Arguments) -> anyhow::Result<Report> {
    let wanted = |part| arguments.part.is_none_or(|only| only == part);
    let binary = match &arguments.proxy {
        Some(path) => path.clone(),
        None => subject::release_binary()?,
    };
    let mut report = Report::default();
    if wanted(Part::Engine) {
        let target = binary.ancestors().nth(2).context("the release binary lies in target")?;
        report::engine(target, &mut report)?;
    }
    if wanted(Part::Path) || wanted(Part::Memory) {
        process::pin_load().await?;
    }
    let ours = Ours { binary, upstream: upstream::start().await? };
    if wanted(Part::Path) {
        path::measure(&ours, arguments.rounds, &mut report).await?;
    }
    if wanted(Part::Memory) {
        memory::measure(&ours, &mut report).await?;
    }
    Ok(report)
}
