//! `sandbox`: the stand-in for the upstream, alone.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use anyhow::Context as _;

use super::{Console, OK, block_on};
use crate::clock::Clock;
use crate::config::values;
use crate::lifecycle::Signals;
use crate::sandbox::{self, Fail, Options, Sandbox};

/// The flags of `sandbox`.
#[derive(Clone, Debug, clap::Args)]
pub struct SandboxArgs {
    /// Where it listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8090")]
    pub listen: SocketAddr,
    /// Calls per second of each API key
    #[arg(long, value_name = "NUMBER", default_value = "4")]
    pub per_second: NonZeroU32,
    /// Calls per day of each API key
    #[arg(long, value_name = "NUMBER", default_value = "10000")]
    pub per_day: u64,
    /// How the second is counted
    #[arg(long, value_enum, default_value = "fixed")]
    pub window: Window,
    /// Time that an answer takes
    #[arg(long, value_name = "DURATION", default_value = "80ms", value_parser = values::duration)]
    pub latency: Duration,
    /// Most by which an answer comes earlier or later
    #[arg(long, value_name = "DURATION", default_value = "20ms", value_parser = values::duration)]
    pub jitter: Duration,
    /// Life of an access token
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = values::duration)]
    pub access_token_life: Duration,
    /// Whether a refresh token works once
    #[arg(long, value_name = "BOOL", default_value = "true", action = clap::ArgAction::Set)]
    pub rotating: bool,
    /// Share of calls that fail and the status they get, such as 0.05:503; may be given several
    /// times
    #[arg(long, value_name = "RATE:STATUS", value_parser = fail_share)]
    pub fail: Vec<FailShare>,
}

/// How the sandbox counts a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Window {
    /// Seconds of the clock.
    Fixed,
    /// Any second.
    Sliding,
    /// A token bucket.
    Bucket,
}

/// Some calls fail with a status.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FailShare {
    /// The share of calls, from 0 to 1.
    pub share: f64,
    /// The status of their answers, from 400 to 599.
    pub status: u16,
}

/// Runs the sandbox until it is told to stop and gives the exit code.
///
/// # Errors
/// What kept it from running.
pub fn run(args: &SandboxArgs, console: &mut Console<'_>) -> anyhow::Result<u8> {
    block_on(async {
        let mut signals = Signals::listen().context("could not listen to signals")?;
        let sandbox = Sandbox::start(options(args), Clock::system())
            .await
            .with_context(|| format!("could not listen on {}", args.listen))?;
        writeln!(console.out, "the API        {}/v3", sandbox.url())?;
        writeln!(console.out, "token endpoint {}", sandbox.token_url())?;
        writeln!(console.out, "log            {}/sandbox/log", sandbox.url())?;
        console.out.flush()?;
        signals.stop().await;
        sandbox.shutdown().await;
        Ok(OK)
    })
}

fn options(args: &SandboxArgs) -> Options {
    let fail = args.fail.iter().map(|fail| Fail { rate: fail.share, status: fail.status });
    Options {
        listen: args.listen,
        per_second: args.per_second.get(),
        per_day: args.per_day,
        window: match args.window {
            Window::Fixed => sandbox::Window::Fixed,
            Window::Sliding => sandbox::Window::Sliding,
            Window::Bucket => sandbox::Window::Bucket,
        },
        latency: args.latency,
        jitter: args.jitter,
        access_token_life: args.access_token_life,
        rotating: args.rotating,
        fail: fail.collect(),
        ..Options::default()
    }
}

fn fail_share(text: &str) -> Result<FailShare, String> {
    let form = "is written RATE:STATUS, a rate from 0 to 1 and a status from 400 to 599";
    let (share, status) = text.split_once(':').ok_or(form)?;
    let share = share.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
    let status = status.parse::<u16>().ok().filter(|status| (400..=599).contains(status));
    match (share, status) {
        (Some(share), Some(status)) => Ok(FailShare { share, status }),
        (None, _) | (_, None) => Err(form.to_owned()),
    }
}
