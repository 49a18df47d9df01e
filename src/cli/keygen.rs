//! `keygen`: a new key for sealing tokens at rest.

use super::{Console, OK};
use crate::secret::Sealer;

/// Prints 32 random bytes in base64.
///
/// # Errors
/// When the output is closed.
pub fn run(console: &mut Console<'_>) -> anyhow::Result<u8> {
    console.print(Sealer::generate_key().expose())?;
    Ok(OK)
}
