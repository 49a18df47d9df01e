//! `serve`: the proxy itself.

use anyhow::Context as _;
use tracing::{error, warn};

use super::Console;
use crate::app::App;
use crate::clock::Clock;
use crate::config::{self, ServeFlags};
use crate::lifecycle::{self, Signals};
use crate::telemetry;

/// Runs the proxy until it is told to stop and gives the exit code.
///
/// # Errors
/// All mistakes in the configuration, or what kept the proxy from running.
pub fn run(flags: &ServeFlags, console: &mut Console<'_>) -> anyhow::Result<u8> {
    // before a secret is read
    let undumpable = lifecycle::forbid_core_dumps();
    let config = config::read(flags, console.env)?.config;
    let log = telemetry::init(&config.log)?;
    lifecycle::log_panics();
    if let Err(error) = undumpable {
        warn!(%error, "core dumps could not be switched off: one would hold tokens and keys");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("could not start the runtime")?;
    let read = || config::read(flags, console.env).map(|loaded| loaded.config);
    let apply_log = |config: &config::Config| {
        if let Err(error) = log.apply(&config.log) {
            error!(%error, "logging stays as it was");
        }
    };
    runtime.block_on(async {
        let signals = Signals::listen().context("could not listen to signals")?;
        let app = App::start(config, Clock::system()).await?;
        Ok(lifecycle::run(app, signals, read, apply_log).await)
    })
}
