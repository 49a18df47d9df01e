//! SQL of the API keys: the counts of the day, and which of them are held.
//!
//! A count is one row that goes up in the transaction that grants; a day that has begun stays the
//! day, so that a clock that was set back a little goes on where it was, and what a clock far ahead
//! has counted is added to the day.

use std::collections::BTreeSet;

use rusqlite::Connection;

use super::convert::{name, signed, unsigned};
use super::fault::Fault;
use crate::engine::{ApiKeyName, Day};
use crate::store::{DAYS_KEPT, DayCount, is_followed};

/// Takes up to `want` calls of `day`, or of the one after it once that has begun.
pub(super) fn reserve(
    db: &Connection,
    api_key: &ApiKeyName,
    day: Day,
    want: u32,
    limit: u64,
) -> Result<DayCount, Fault> {
    let (day, taken) = taken(db, api_key, day)?;
    let left = limit.saturating_sub(taken);
    let granted = u32::try_from(left).map_or(want, |left| want.min(left));
    let total = taken + u64::from(granted);
    if granted > 0 {
        let day = i64::from(day.number());
        // those that are too far ahead are a part of `taken`
        db.prepare_cached("DELETE FROM day_counts WHERE api_key = ?1 AND day > ?2")?
            .execute((api_key.as_str(), day))?;
        db.prepare_cached(
            "INSERT INTO day_counts (api_key, day, total) VALUES (?1, ?2, ?3)
             ON CONFLICT (api_key, day) DO UPDATE SET total = excluded.total",
        )?
        .execute((api_key.as_str(), day, signed(total)))?;
        db.prepare_cached(
            "DELETE FROM day_counts WHERE api_key = ?1 AND day NOT IN
             (SELECT day FROM day_counts WHERE api_key = ?1 ORDER BY day DESC LIMIT ?2)",
        )?
        .execute((api_key.as_str(), signed(DAYS_KEPT as u64)))?;
    }
    Ok(DayCount { day, granted, total })
}

/// The day that counts when `day` is asked for, and its calls with those of days that lie too far
/// ahead.
fn taken(db: &Connection, api_key: &ApiKeyName, day: Day) -> Result<(Day, u64), Fault> {
    let mut query = db.prepare_cached(
        "SELECT day, total FROM day_counts WHERE api_key = ?1 AND day >= ?2 ORDER BY day",
    )?;
    let mut rows = query.query((api_key.as_str(), i64::from(day.number())))?;
    let (mut counted, mut taken) = (day, 0_u64);
    while let Some(row) = rows.next()? {
        let (of, total) = (Day::new(unsigned(row.get(0)?)?), unsigned(row.get(1)?)?);
        if is_followed(of, day) {
            (counted, taken) = (of, total);
        } else {
            taken = taken.saturating_add(total);
        }
    }
    Ok((counted, taken))
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
