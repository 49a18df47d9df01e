//! SQL of the grants: tenants, their tokens, and the journal of refreshes.
//!
//! Every change of tokens or their state is guarded by the version in its `WHERE`; a statement that
//! finds no row is a conflict. Deleting a tenant takes its tokens and its journal with it.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, Row};

use super::convert::{millis, moment, name, signed, unsigned};
use super::fault::Fault;
use crate::engine::{TenantName, Unix};
use crate::secret::{KeyRing, TokenDigest};
use crate::store::sealed::SealedTokens;
use crate::store::{Grant, GrantState, NewGrant, Put, StoreError, Tokens};

const SELECT_ONE: &str = "
    SELECT tenant, api_key, weight, paused, last_used_at, version, access, access_expires_at,
           refresh, dead_reason, last_refreshed_at, begun_at, handed_in
    FROM tenants JOIN tokens USING (tenant) LEFT JOIN refreshes USING (tenant)
    WHERE tenant = ?1";
const SELECT_ALL: &str = "
    SELECT tenant, api_key, weight, paused, last_used_at, version, access, access_expires_at,
           refresh, dead_reason, last_refreshed_at, begun_at, handed_in
    FROM tenants JOIN tokens USING (tenant) LEFT JOIN refreshes USING (tenant)
    ORDER BY tenant";

/// All grants by tenant.
pub(super) fn all(db: &Connection, keys: &KeyRing) -> Result<Vec<Grant>, Fault> {
    let mut query = db.prepare_cached(SELECT_ALL)?;
    let mut rows = query.query([])?;
    let mut grants = Vec::new();
    while let Some(row) = rows.next()? {
        grants.push(grant(row, keys)?);
    }
    Ok(grants)
}

/// The grant of `tenant`.
pub(super) fn one(
    db: &Connection,
    keys: &KeyRing,
    tenant: &TenantName,
) -> Result<Option<Grant>, Fault> {
    let mut query = db.prepare_cached(SELECT_ONE)?;
    let mut rows = query.query([tenant.as_str()])?;
    rows.next()?.map(|row| grant(row, keys)).transpose()
}

/// The versions of all tokens.
pub(super) fn versions(db: &Connection) -> Result<BTreeMap<TenantName, u64>, Fault> {
    let mut query = db.prepare("SELECT tenant, version FROM tokens")?;
    let mut rows = query.query([])?;
    let mut versions = BTreeMap::new();
    while let Some(row) = rows.next()? {
        versions.insert(name(&row.get::<_, String>(0)?)?, unsigned(row.get(1)?)?);
    }
    Ok(versions)
}

fn grant(row: &Row<'_>, keys: &KeyRing) -> Result<Grant, Fault> {
    let moment_at = |column| row.get::<_, Option<i64>>(column)?.map(moment).transpose();
    let tenant: TenantName = name(&row.get::<_, String>(0)?)?;
    let (access, refresh) = SealedTokens { access: row.get(6)?, refresh: row.get(8)? }
        .open(keys, &tenant)
        .map_err(|e| Fault::Damaged(format!("the tokens of tenant {tenant}: {e}")))?;
    let state = match row.get::<_, Option<String>>(9)? {
        None => GrantState::Ready,
        Some(reason) => GrantState::NeedsAuthorization { reason },
    };
    Ok(Grant {
        api_key: name(&row.get::<_, String>(1)?)?,
        version: unsigned(row.get(5)?)?,
        tokens: Tokens { access, access_expires_at: moment_at(7)?, refresh },
        handed_in: row.get::<_, Option<[u8; 32]>>(12)?.map(TokenDigest::from_bytes),
        state,
        refresh_begun_at: moment_at(11)?,
        last_refreshed_at: moment_at(10)?,
        last_used_at: moment_at(4)?,
        paused: row.get(3)?,
        weight: unsigned(row.get(2)?)?,
        tenant,
    })
}

/// Makes or replaces a grant.
pub(super) fn put(db: &Connection, keys: &KeyRing, new: &NewGrant) -> Result<(Put, Grant), Fault> {
    let tenant = new.tenant.as_str();
    let sealed = SealedTokens::seal(keys, &new.tenant, &new.tokens);
    let current: Option<i64> = db
        .prepare_cached("SELECT version FROM tokens WHERE tenant = ?1")?
        .query_row([tenant], |row| row.get(0))
        .optional()?;
    let (put, version) = match current {
        Some(version) => (Put::Replaced, version),
        None => (Put::Created, counter(db, "version_floor")?),
    };
    db.prepare_cached(
        "INSERT INTO tenants (tenant, api_key, weight, paused)
         VALUES (?1, ?2, coalesce(?3, 1), 0)
         ON CONFLICT (tenant) DO UPDATE
         SET api_key = excluded.api_key, weight = coalesce(?3, weight)",
    )?
    .execute((tenant, new.api_key.as_str(), new.weight))?;
    db.prepare_cached("DELETE FROM refreshes WHERE tenant = ?1")?.execute([tenant])?;
    db.prepare_cached(
        "INSERT INTO tokens (tenant, version, access, access_expires_at, refresh, handed_in)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (tenant) DO UPDATE
         SET version = excluded.version, access = excluded.access,
             access_expires_at = excluded.access_expires_at, refresh = excluded.refresh,
             handed_in = excluded.handed_in, dead_reason = NULL, last_refreshed_at = NULL",
    )?
    .execute((
        tenant,
        version.saturating_add(1),
        &sealed.access,
        new.tokens.access_expires_at.map(millis),
        &sealed.refresh,
        TokenDigest::of(&new.tokens.refresh).as_bytes(),
    ))?;
    let grant = one(db, keys, &new.tenant)?
        .ok_or_else(|| Fault::Damaged(format!("tenant {tenant} was stored but is not there")))?;
    Ok((put, grant))
}

/// Removes a grant; `false` when there is none.
pub(super) fn remove(db: &Connection, tenant: &TenantName) -> Result<bool, Fault> {
    db.prepare_cached(
        "UPDATE counters
         SET value = max(value, coalesce((SELECT version FROM tokens WHERE tenant = ?1), 0))
         WHERE name = 'version_floor'",
    )?
    .execute([tenant.as_str()])?;
    let removed =
        db.prepare_cached("DELETE FROM tenants WHERE tenant = ?1")?.execute([tenant.as_str()])?;
    Ok(removed > 0)
}

/// Writes a refresh of `version` into the journal.
pub(super) fn begin_refresh(
    db: &Connection,
    tenant: &TenantName,
    version: u64,
    at: Unix,
) -> Result<(), Fault> {
    guard(db, tenant, version)?;
    db.prepare_cached(
        "INSERT INTO refreshes (tenant, begun_at) VALUES (?1, ?2)
         ON CONFLICT (tenant) DO UPDATE SET begun_at = excluded.begun_at",
    )?
    .execute((tenant.as_str(), millis(at)))?;
    Ok(())
}

/// Takes a refresh of `version` out of the journal.
pub(super) fn end_refresh(db: &Connection, tenant: &TenantName, version: u64) -> Result<(), Fault> {
    guard(db, tenant, version)?;
    db.prepare_cached("DELETE FROM refreshes WHERE tenant = ?1")?.execute([tenant.as_str()])?;
    Ok(())
}

/// Stores the tokens that a refresh of `version` brought.
pub(super) fn finish_refresh(
    db: &Connection,
    keys: &KeyRing,
    tenant: &TenantName,
    version: u64,
    tokens: &Tokens,
    at: Unix,
) -> Result<u64, Fault> {
    let next = version.saturating_add(1);
    if let Err(conflict) = guard(db, tenant, version) {
        let stored = one(db, keys, tenant)?;
        let repeated =
            stored.is_some_and(|grant| grant.version == next && grant.tokens.same_as(tokens));
        return if repeated { Ok(next) } else { Err(conflict) };
    }
    let written = SealedTokens::seal(keys, tenant, tokens);
    db.prepare_cached("DELETE FROM refreshes WHERE tenant = ?1")?.execute([tenant.as_str()])?;
    db.prepare_cached(
        "UPDATE tokens
         SET version = ?2, access = ?3, access_expires_at = ?4, refresh = ?5, dead_reason = NULL,
             last_refreshed_at = ?6
         WHERE tenant = ?1",
    )?
    .execute((
        tenant.as_str(),
        signed(next),
        &written.access,
        tokens.access_expires_at.map(millis),
        &written.refresh,
        millis(at),
    ))?;
    Ok(next)
}

/// Marks the tokens of `version` as dead.
pub(super) fn fail(
    db: &Connection,
    tenant: &TenantName,
    version: u64,
    reason: &str,
) -> Result<(), Fault> {
    end_refresh(db, tenant, version)?;
    db.prepare_cached("UPDATE tokens SET dead_reason = ?2 WHERE tenant = ?1")?
        .execute((tenant.as_str(), reason))?;
    Ok(())
}

/// Holds or releases a tenant; `false` when there is none.
pub(super) fn pause(db: &Connection, tenant: &TenantName, paused: bool) -> Result<bool, Fault> {
    let found = db
        .prepare_cached("UPDATE tenants SET paused = ?2 WHERE tenant = ?1")?
        .execute((tenant.as_str(), paused))?;
    Ok(found > 0)
}

/// Records when tenants were last used.
pub(super) fn record_use(db: &Connection, used: &[(TenantName, Unix)]) -> Result<(), Fault> {
    let mut update = db.prepare_cached(
        "UPDATE tenants SET last_used_at = max(coalesce(last_used_at, 0), ?2) WHERE tenant = ?1",
    )?;
    for (tenant, at) in used {
        update.execute((tenant.as_str(), millis(*at)))?;
    }
    Ok(())
}

/// Whether the tokens of `tenant` are still those of `version`.
fn guard(db: &Connection, tenant: &TenantName, version: u64) -> Result<(), Fault> {
    let current = db
        .prepare_cached("SELECT 1 FROM tokens WHERE tenant = ?1 AND version = ?2")?
        .exists((tenant.as_str(), signed(version)))?;
    if current { Ok(()) } else { Err(StoreError::grant_conflict(tenant).into()) }
}

/// A number of the file itself.
pub(super) fn counter(db: &Connection, name: &str) -> Result<i64, Fault> {
    Ok(db
        .prepare_cached("SELECT value FROM counters WHERE name = ?1")?
        .query_row([name], |row| row.get(0))?)
}
