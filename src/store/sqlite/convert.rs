//! Our values as SQLite's integers and texts, and back.
//!
//! What does not fit an integer of 64 bits is cut to the largest one, which stands for "for ever"
//! or "any number"; what cannot have been written by this program is damage.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use super::fault::Fault;
use crate::engine::Unix;

/// A moment in milliseconds since the epoch.
pub(super) fn millis(at: Unix) -> i64 {
    i64::try_from(at.since_epoch().as_millis()).unwrap_or(i64::MAX)
}

/// The moment `millis` after the epoch.
pub(super) fn moment(millis: i64) -> Result<Unix, Fault> {
    Ok(Unix::new(Duration::from_millis(unsigned(millis)?)))
}

/// A count or version as it is stored.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A count or version as it was stored.
pub(super) fn unsigned<N: TryFrom<i64>>(number: i64) -> Result<N, Fault> {
    N::try_from(number).map_err(|_| Fault::Damaged(format!("a stored number is {number}")))
}

/// A name as it was stored.
pub(super) fn name<N>(text: &str) -> Result<N, Fault>
where
    N: FromStr<Err: Display>,
{
    text.parse().map_err(|e| Fault::Damaged(format!("a stored name: {e}")))
}
