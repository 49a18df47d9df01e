//! SQL of the API keys: the counts of the day, and which of them are held.
//!
//! A count is one row that goes up in the transaction that grants; the newest day of an API key is
//! the day, so that a clock that was set back goes on where it was.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension as _};

use super::convert::{name, signed, unsigned};
use super::fault::Fault;
use crate::engine::{ApiKeyName, Day};
use crate::store::{DAYS_KEPT, DayCount};

/// Takes up to `want` calls of `day` or of the newest later one.
pub(super) fn reserve(
    db: &Connection,
    api_key: &ApiKeyName,
    day: Day,
    want: u32,
    limit: u64,
) -> Result<DayCount, Fault> {
    let newest: Option<(i64, i64)> = db
        .prepare_cached(
            "SELECT day, total FROM day_counts WHERE api_key = ?1 ORDER BY day DESC LIMIT 1",
        )?
        .query_row([api_key.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (day, taken) = match newest {
        Some((newest, total)) if newest >= i64::from(day.number()) => {
            (Day::new(unsigned(newest)?), unsigned(total)?)
        }
        Some(_) | None => (day, 0),
    };
    let left = limit.saturating_sub(taken);
    let granted = u32::try_from(left).map_or(want, |left| want.min(left));
    let total = taken + u64::from(granted);
    if granted > 0 {
        let day = i64::from(day.number());
        db.prepare_cached(
            "INSERT INTO day_counts (api_key, day, total) VALUES (?1, ?2, ?3)
             ON CONFLICT (api_key, day) DO UPDATE SET total = excluded.total",
        )?
        .execute((api_key.as_str(), day, signed(total)))?;
        db.prepare_cached("DELETE FROM day_counts WHERE api_key = ?1 AND day < ?2")?
            .execute((api_key.as_str(), day - i64::from(DAYS_KEPT)))?;
    }
    Ok(DayCount { day, granted, total })
}

/// Gives calls of `day` back.
pub(super) fn release(
    db: &Connection,
    api_key: &ApiKeyName,
    day: Day,
    count: u32,
) -> Result<(), Fault> {
    db.prepare_cached(
        "UPDATE day_counts SET total = max(total - ?3, 0) WHERE api_key = ?1 AND day = ?2",
    )?
    .execute((api_key.as_str(), i64::from(day.number()), i64::from(count)))?;
    Ok(())
}

/// Holds or releases an API key.
pub(super) fn pause(db: &Connection, api_key: &ApiKeyName, paused: bool) -> Result<(), Fault> {
    let sql = if paused {
        "INSERT OR IGNORE INTO paused_api_keys (api_key) VALUES (?1)"
    } else {
        "DELETE FROM paused_api_keys WHERE api_key = ?1"
    };
    db.prepare_cached(sql)?.execute([api_key.as_str()])?;
    Ok(())
}

/// The API keys that are held.
pub(super) fn paused(db: &Connection) -> Result<BTreeSet<ApiKeyName>, Fault> {
    let mut query = db.prepare_cached("SELECT api_key FROM paused_api_keys")?;
    let mut rows = query.query([])?;
    let mut paused = BTreeSet::new();
    while let Some(row) = rows.next()? {
        paused.insert(name(&row.get::<_, String>(0)?)?);
    }
    Ok(paused)
}
