//! `check`: whether the configuration is right, and what it comes out as.

use super::{Console, OK};
use crate::config::{self, ServeFlags};

/// Prints the configuration with secrets as `***`.
///
/// # Errors
/// All mistakes in it.
pub fn run(flags: &ServeFlags, console: &mut Console<'_>) -> anyhow::Result<u8> {
    let loaded = config::read(flags, console.env)?;
    console.print(loaded.effective.to_string().trim_end())?;
    Ok(OK)
}
