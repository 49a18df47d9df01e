//! All that a database holds, read and written as it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _};

use super::convert::{millis, signed, unsigned};
use super::fault::Fault;
use super::worker::Kind;
use super::{SMALL, SqliteStore, clients, grants, len_of};
use crate::engine::{ApiKeyName, Day};
use crate::secret::{ClientKeyDigest, KeyRing, TokenDigest};
use crate::store::sealed::SealedTokens;
use crate::store::{Client, DAYS_KEPT, Grant, GrantState, StoreError, WholeStore};

#[async_trait]
impl WholeStore for SqliteStore {
    async fn days(&self, api_key: &ApiKeyName) -> Result<BTreeMap<Day, u64>, StoreError> {
        let api_key = api_key.clone();
        let work = move |db: &_| days(db, &api_key);
        self.jobs.run("read the counts of days", Kind::Read, work).await
    }

    async fn raise_days(
        &self,
        api_key: &ApiKeyName,
        days: &BTreeMap<Day, u64>,
    ) -> Result<(), StoreError> {
        let (api_key, days) = (api_key.clone(), days.clone());
        let work = move |db: &_| raise_days(db, &api_key, &days);
        self.jobs.run("raise the counts of days", SMALL, work).await
    }

    async fn write_grant(&self, grant: &Grant, over: Option<u64>) -> Result<u64, StoreError> {
        let (keys, grant) = (Arc::clone(&self.keys), grant.clone());
        let tenant = grant.tenant.clone();
        let kind = Kind::Write(2 * SealedTokens::len_of(&grant.tokens) as u64);
        let work = move |db: &_| write_grant(db, &keys.load(), &grant, over);
        let version = self.jobs.run("write a grant", kind, work).await?;
        self.journal.ended(&tenant).await;
        Ok(version)
    }

    async fn write_client(
        &self,
        client: &Client,
        over: Option<ClientKeyDigest>,
    ) -> Result<(), StoreError> {
        let (kind, client) = (Kind::Write(len_of(client)), client.clone());
        let work = move |db: &_| write_client(db, &client, over);
        self.jobs.run("write a client", kind, work).await
    }
}

fn days(db: &Connection, api_key: &ApiKeyName) -> Result<BTreeMap<Day, u64>, Fault> {
    let mut query = db.prepare_cached("SELECT day, total FROM day_counts WHERE api_key = ?1")?;
    let mut rows = query.query([api_key.as_str()])?;
    let mut days = BTreeMap::new();
    while let Some(row) = rows.next()? {
        days.insert(Day::new(unsigned(row.get(0)?)?), unsigned(row.get(1)?)?);
    }
    Ok(days)
}

fn raise_days(
    db: &Connection,
    api_key: &ApiKeyName,
    days: &BTreeMap<Day, u64>,
) -> Result<(), Fault> {
    let mut raise = db.prepare_cached(
        "INSERT INTO day_counts (api_key, day, total) VALUES (?1, ?2, ?3)
         ON CONFLICT (api_key, day) DO UPDATE SET total = max(total, excluded.total)",
    )?;
    // later ones would be forgotten at once
    for (day, total) in days.iter().rev().take(DAYS_KEPT) {
        raise.execute((api_key.as_str(), i64::from(day.number()), signed(*total)))?;
    }
    db.prepare_cached(
        "DELETE FROM day_counts WHERE api_key = ?1 AND day NOT IN
         (SELECT day FROM day_counts WHERE api_key = ?1 ORDER BY day DESC LIMIT ?2)",
    )?
    .execute((api_key.as_str(), signed(DAYS_KEPT as u64)))?;
    Ok(())
}

fn write_grant(
    db: &Connection,
    keys: &KeyRing,
    grant: &Grant,
    over: Option<u64>,
) -> Result<u64, Fault> {
    let tenant = grant.tenant.as_str();
    let current: Option<i64> = db
        .prepare_cached("SELECT version FROM tokens WHERE tenant = ?1")?
        .query_row([tenant], |row| row.get(0))
        .optional()?;
    let current: Option<u64> = current.map(unsigned).transpose()?;
    if current != over {
        return Err(StoreError::grant_conflict(&grant.tenant).into());
    }
    let used = match current {
        Some(version) => version,
        None => unsigned(grants::counter(db, "version_floor")?)?,
    };
    let version = grant.version.max(used.saturating_add(1));
    db.prepare_cached(
        "INSERT INTO tenants (tenant, api_key, weight, paused, last_used_at)
         VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (tenant) DO UPDATE
         SET api_key = excluded.api_key, weight = excluded.weight, paused = excluded.paused,
             last_used_at = excluded.last_used_at",
    )?
    .execute((
        tenant,
        grant.api_key.as_str(),
        grant.weight,
        grant.paused,
        grant.last_used_at.map(millis),
    ))?;
    write_tokens(db, keys, grant, version)?;
    db.prepare_cached("DELETE FROM refreshes WHERE tenant = ?1")?.execute([tenant])?;
    if let Some(begun_at) = grant.refresh_begun_at {
        db.prepare_cached("INSERT INTO refreshes (tenant, begun_at) VALUES (?1, ?2)")?
            .execute((tenant, millis(begun_at)))?;
    }
    Ok(version)
}

fn write_tokens(db: &Connection, keys: &KeyRing, grant: &Grant, version: u64) -> Result<(), Fault> {
    let sealed = SealedTokens::seal(keys, &grant.tenant, &grant.tokens);
    let dead_reason = match &grant.state {
        GrantState::Ready => None,
        GrantState::NeedsAuthorization { reason } => Some(reason.as_str()),
    };
    db.prepare_cached(
        "INSERT INTO tokens (tenant, version, access, access_expires_at, refresh, dead_reason,
                             last_refreshed_at, handed_in)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (tenant) DO UPDATE
         SET version = excluded.version, access = excluded.access,
             access_expires_at = excluded.access_expires_at, refresh = excluded.refresh,
             dead_reason = excluded.dead_reason, last_refreshed_at = excluded.last_refreshed_at,
             handed_in = excluded.handed_in",
    )?
    .execute((
        grant.tenant.as_str(),
        signed(version),
        &sealed.access,
        grant.tokens.access_expires_at.map(millis),
        &sealed.refresh,
        dead_reason,
        grant.last_refreshed_at.map(millis),
        grant.handed_in.as_ref().map(TokenDigest::as_bytes),
    ))?;
    Ok(())
}

fn write_client(
    db: &Connection,
    client: &Client,
    over: Option<ClientKeyDigest>,
) -> Result<(), Fault> {
    let current: Option<[u8; 32]> = db
        .prepare_cached("SELECT digest FROM clients WHERE name = ?1")?
        .query_row([client.name.as_str()], |row| row.get(0))
        .optional()?;
    if current.map(ClientKeyDigest::from_bytes) != over {
        return Err(StoreError::client_conflict(&client.name).into());
    }
    clients::remove(db, &client.name)?;
    clients::add(db, client)?;
    if let Some(at) = client.last_used_at {
        clients::record_use(db, &[(client.name.clone(), at)])?;
    }
    Ok(())
}
