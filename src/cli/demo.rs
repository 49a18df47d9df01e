//! `demo`: sandbox, proxy and three tenants on loopback, with nothing to configure.

use std::time::Duration;

use anyhow::bail;

use super::Console;
use crate::config::values;

/// The flags of `demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// End by itself after this time, such as 20s [default: run until Ctrl-C]
    #[arg(long = "for", value_name = "DURATION", value_parser = values::duration)]
    pub run_for: Option<Duration>,
}

/// Runs the demo and gives the exit code.
///
/// # Errors
/// What kept it from running.
pub fn run(_args: &DemoArgs, _console: &mut Console<'_>) -> anyhow::Result<u8> {
    bail!("demo is not wired yet")
}
