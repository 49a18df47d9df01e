//! SQL of the consents that were asked for.
//!
//! Taking one deletes its row in the same statement that reads it, so that it is given once. Their
//! tenants need not exist yet.

use rusqlite::{Connection, OptionalExtension as _};

use super::convert::{millis, moment, name};
use super::fault::Fault;
use crate::engine::{TenantName, Unix};
use crate::secret::{KeyRing, StateDigest};
use crate::store::sealed::{open_verifier, seal_verifier};
use crate::store::{AUTHORIZATIONS_KEPT, AUTHORIZATIONS_KEPT_PER_TENANT, Authorization};

/// Rows that are too late and go when one comes: more than one, so that they do not pile up, and
/// few, so that a job's room in the log is known.
const LATE_AT_ONCE: i64 = 8;

/// Remembers one, and forgets those that are too late or too many.
pub(super) fn begin(
    db: &Connection,
    keys: &KeyRing,
    new: &Authorization,
    now: Unix,
) -> Result<(), Fault> {
    db.prepare_cached(
        "DELETE FROM authorizations WHERE number IN
           (SELECT number FROM authorizations WHERE expires_at <= ?1 LIMIT ?2)",
    )?
    .execute((millis(now), LATE_AT_ONCE))?;
    db.prepare_cached("DELETE FROM authorizations WHERE state = ?1")?
        .execute([new.state.as_bytes()])?;
    let verifier = new.verifier.as_ref().map(|verifier| seal_verifier(keys, &new.state, verifier));
    db.prepare_cached(
        "INSERT INTO authorizations
           (state, tenant, api_key, redirect_uri, verifier, return_to, expires_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute((
        new.state.as_bytes(),
        new.tenant.as_str(),
        new.api_key.as_str(),
        &new.redirect_uri,
        verifier,
        &new.return_to,
        millis(new.expires_at),
    ))?;
    db.prepare_cached(
        "DELETE FROM authorizations WHERE number IN
           (SELECT number FROM authorizations ORDER BY number DESC LIMIT -1 OFFSET ?1)",
    )?
    .execute([count(AUTHORIZATIONS_KEPT)])?;
    db.prepare_cached(
        "DELETE FROM authorizations WHERE number IN
           (SELECT number FROM authorizations WHERE tenant = ?1
            ORDER BY number DESC LIMIT -1 OFFSET ?2)",
    )?
    .execute((new.tenant.as_str(), count(AUTHORIZATIONS_KEPT_PER_TENANT)))?;
    Ok(())
}

fn count(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Takes the one of `state`.
pub(super) fn take(
    db: &Connection,
    keys: &KeyRing,
    state: &StateDigest,
) -> Result<Option<Authorization>, Fault> {
    type Row = (String, String, String, Option<Vec<u8>>, Option<String>, i64);
    let row: Option<Row> = db
        .prepare_cached(
            "DELETE FROM authorizations WHERE state = ?1
             RETURNING tenant, api_key, redirect_uri, verifier, return_to, expires_at",
        )?
        .query_row([state.as_bytes()], |row| row.try_into())
        .optional()?;
    let Some((tenant, api_key, redirect_uri, verifier, return_to, expires_at)) = row else {
        return Ok(None);
    };
    let verifier = verifier
        .map(|sealed| open_verifier(keys, state, &sealed))
        .transpose()
        .map_err(|e| Fault::Damaged(format!("the verifier of an authorization: {e}")))?;
    Ok(Some(Authorization {
        state: *state,
        tenant: name(&tenant)?,
        api_key: name(&api_key)?,
        redirect_uri,
        verifier,
        return_to,
        expires_at: moment(expires_at)?,
    }))
}

/// Seals all verifiers anew with the current key.
pub(super) fn seal_anew(db: &Connection, keys: &KeyRing) -> Result<(), Fault> {
    let mut query = db.prepare_cached(
        "SELECT state, verifier FROM authorizations
         WHERE verifier IS NOT NULL AND substr(verifier, 1, 5) <> ?1",
    )?;
    let mut rows = query.query([keys.head()])?;
    let mut stale: Vec<([u8; 32], Vec<u8>)> = Vec::new();
    while let Some(row) = rows.next()? {
        stale.push((row.get(0)?, row.get(1)?));
    }
    let mut update =
        db.prepare_cached("UPDATE authorizations SET verifier = ?2 WHERE state = ?1")?;
    for (state, sealed) in stale {
        let digest = StateDigest::from_bytes(state);
        let verifier = open_verifier(keys, &digest, &sealed)
            .map_err(|e| Fault::Damaged(format!("the verifier of an authorization: {e}")))?;
        update.execute((state, seal_verifier(keys, &digest, &verifier)))?;
    }
    Ok(())
}

/// Forgets those of `tenant`.
pub(super) fn forget(db: &Connection, tenant: &TenantName) -> Result<(), Fault> {
    db.prepare_cached("DELETE FROM authorizations WHERE tenant = ?1")?
        .execute([tenant.as_str()])?;
    Ok(())
}
