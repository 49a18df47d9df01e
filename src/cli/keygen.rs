//! `keygen`: a new key for sealing tokens at rest.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Console, OK};

/// Prints 32 random bytes in base64.
///
/// # Errors
/// When the output is closed.
pub fn run(console: &mut Console<'_>) -> anyhow::Result<u8> {
    console.print(&new_key())?;
    Ok(OK)
}

#[expect(clippy::disallowed_methods, reason = "keys are one of the places where chance is made")]
fn new_key() -> String {
    STANDARD.encode(rand::random::<[u8; 32]>())
}
