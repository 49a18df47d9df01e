//! SQL of the clients.
//!
//! A client of all tenants has no rows in `client_tenants`; the tenants of another are rows there
//! and need not exist as grants. Digests are unique: a key belongs to one client.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension as _, Row};

use super::convert::{millis, moment, name};
use super::fault::Fault;
use crate::engine::{ClientName, TenantName, Unix};
use crate::secret::ClientKeyDigest;
use crate::store::{Client, ClientKeys, PreviousKey, StoreError, TenantScope};

/// All clients by name.
pub(super) fn all(db: &Connection) -> Result<Vec<Client>, Fault> {
    let mut query = db.prepare_cached(
        "SELECT name, all_tenants, created_at, digest, expires_at, previous_digest,
                previous_until, last_used_at
         FROM clients ORDER BY name",
    )?;
    let mut rows = query.query([])?;
    let mut clients = Vec::new();
    while let Some(row) = rows.next()? {
        clients.push(client(db, row)?);
    }
    Ok(clients)
}

fn client(db: &Connection, row: &Row<'_>) -> Result<Client, Fault> {
    let client: String = row.get(0)?;
    let tenants =
        if row.get(1)? { TenantScope::All } else { TenantScope::Some(tenants(db, &client)?) };
    let previous = match (row.get(5)?, row.get(6)?) {
        (Some(digest), Some(until)) => {
            let digest = ClientKeyDigest::from_bytes(digest);
            Some(PreviousKey { digest, until: moment(until)? })
        }
        _ => None,
    };
    Ok(Client {
        name: name(&client)?,
        tenants,
        created_at: moment(row.get(2)?)?,
        keys: ClientKeys {
            current: ClientKeyDigest::from_bytes(row.get(3)?),
            expires_at: row.get::<_, Option<_>>(4)?.map(moment).transpose()?,
            previous,
        },
        last_used_at: row.get::<_, Option<_>>(7)?.map(moment).transpose()?,
    })
}

fn tenants(db: &Connection, client: &str) -> Result<BTreeSet<TenantName>, Fault> {
    let mut query = db.prepare_cached("SELECT tenant FROM client_tenants WHERE client = ?1")?;
    let mut rows = query.query([client])?;
    let mut tenants = BTreeSet::new();
    while let Some(row) = rows.next()? {
        tenants.insert(name(&row.get::<_, String>(0)?)?);
    }
    Ok(tenants)
}

/// Adds a client, or finds that it has been added already.
pub(super) fn add(db: &Connection, client: &Client) -> Result<(), Fault> {
    let key = client.keys.current.as_bytes();
    let same_name: Option<[u8; 32]> = db
        .prepare_cached("SELECT digest FROM clients WHERE name = ?1")?
        .query_row([client.name.as_str()], |row| row.get(0))
        .optional()?;
    match same_name {
        Some(there) if there == *key => return Ok(()),
        Some(_) => return Err(StoreError::client_exists(&client.name).into()),
        None => {}
    }
    if db.prepare_cached("SELECT 1 FROM clients WHERE digest = ?1")?.exists([key])? {
        return Err(StoreError::client_key_exists().into());
    }
    let all_tenants = client.tenants == TenantScope::All;
    db.prepare_cached(
        "INSERT INTO clients (name, digest, all_tenants, created_at) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute((client.name.as_str(), key, all_tenants, millis(client.created_at)))?;
    set_keys(db, &client.name, &client.keys)?;
    if let TenantScope::Some(tenants) = &client.tenants {
        let mut insert =
            db.prepare_cached("INSERT INTO client_tenants (client, tenant) VALUES (?1, ?2)")?;
        for tenant in tenants {
            insert.execute((client.name.as_str(), tenant.as_str()))?;
        }
    }
    Ok(())
}

/// Gives a client other keys; `false` when there is none.
pub(super) fn change_keys(
    db: &Connection,
    name: &ClientName,
    keys: &ClientKeys,
) -> Result<bool, Fault> {
    let of_another = db
        .prepare_cached("SELECT 1 FROM clients WHERE digest = ?1 AND name <> ?2")?
        .exists((keys.current.as_bytes(), name.as_str()))?;
    if of_another {
        return Err(StoreError::client_key_exists().into());
    }
    set_keys(db, name, keys)
}

fn set_keys(db: &Connection, name: &ClientName, keys: &ClientKeys) -> Result<bool, Fault> {
    let changed = db
        .prepare_cached(
            "UPDATE clients SET digest = ?2, expires_at = ?3, previous_digest = ?4,
                    previous_until = ?5
             WHERE name = ?1",
        )?
        .execute((
            name.as_str(),
            keys.current.as_bytes(),
            keys.expires_at.map(millis),
            keys.previous.as_ref().map(|previous| previous.digest.as_bytes()),
            keys.previous.map(|previous| millis(previous.until)),
        ))?;
    Ok(changed > 0)
}

/// Records when clients last called.
pub(super) fn record_use(db: &Connection, used: &[(ClientName, Unix)]) -> Result<(), Fault> {
    let mut update = db.prepare_cached(
        "UPDATE clients SET last_used_at = max(?2, coalesce(last_used_at, 0)) WHERE name = ?1",
    )?;
    for (name, at) in used {
        update.execute((name.as_str(), millis(*at)))?;
    }
    Ok(())
}

/// Removes a client; `false` when there is none.
pub(super) fn remove(db: &Connection, name: &ClientName) -> Result<bool, Fault> {
    let removed =
        db.prepare_cached("DELETE FROM clients WHERE name = ?1")?.execute([name.as_str()])?;
    Ok(removed > 0)
}
