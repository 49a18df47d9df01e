//! `serve`: the proxy itself.

use anyhow::bail;

use super::Console;
use crate::config::{self, ServeFlags};

/// Runs the proxy until it is told to stop and gives the exit code.
///
/// # Errors
/// All mistakes in the configuration, or what kept the proxy from running.
pub fn run(flags: &ServeFlags, console: &mut Console<'_>) -> anyhow::Result<u8> {
    let _config = config::read(flags, console.env)?.config;
    bail!("serve is not wired yet")
}
