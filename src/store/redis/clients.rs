//! Clients: a hash for each, an index of their names, and whose key has which digest.

use std::collections::HashMap;

use super::fields::{Fields, damaged, millis};
use super::grants::USES_AT_ONCE;
use super::names::mark;
use super::{Server, scripts};
use crate::engine::{ClientName, TenantName, Unix};
use crate::secret::ClientKeyDigest;
use crate::store::{Changed, Client, ClientKeys, PreviousKey, StoreError, TenantScope};

/// Stands for all tenants; no name is this.
const ALL: &str = "*";

/// All clients by name.
pub(super) async fn all(server: &Server) -> Result<Vec<Client>, StoreError> {
    let mut range = redis::cmd("ZRANGE");
    range.arg(server.names.clients()).arg(0).arg(-1);
    let names: Vec<String> = server.link.ask("read the clients", &range).await?;
    let names: Vec<ClientName> = names
        .iter()
        .map(|name| name.parse())
        .collect::<Result<_, _>>()
        .map_err(|_| damaged("a stored name of a client".to_owned()))?;
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let mut pipe = redis::pipe();
    for name in &names {
        pipe.cmd("HGETALL").arg(server.names.client(name));
    }
    let hashes: Vec<HashMap<String, Vec<u8>>> =
        server.link.ask_all("read the clients", &pipe).await?;
    let there = names.into_iter().zip(hashes).filter(|(_, hash)| !hash.is_empty());
    there.map(|(name, hash)| read(name, hash)).collect()
}

/// Adds a client, or finds that it has been added already.
pub(super) async fn add(server: &Server, client: &Client) -> Result<(), StoreError> {
    let names = &server.names;
    let mut call = scripts::ADD_CLIENT.prepare_invoke();
    call.key(names.client(&client.name)).key(names.clients()).key(names.client_keys());
    call.key(names.revision()).key(names.changes());
    call.arg(client.name.as_str()).arg(client.keys.current.as_bytes().as_slice());
    call.arg(mark(&Changed::Client(client.name.clone()))).arg(names.channel());
    for (field, value) in fields(client) {
        call.arg(field).arg(value);
    }
    let answer: String = server.link.run("add a client", &call).await?;
    match answer.as_str() {
        "ok" => Ok(()),
        "name" => Err(StoreError::client_exists(&client.name)),
        _ => Err(StoreError::client_key_exists()),
    }
}

/// Gives a client other keys; `false` when there is none.
pub(super) async fn change_keys(
    server: &Server,
    name: &ClientName,
    keys: &ClientKeys,
) -> Result<bool, StoreError> {
    let names = &server.names;
    let mut call = scripts::CHANGE_CLIENT_KEYS.prepare_invoke();
    call.key(names.client(name)).key(names.client_keys());
    call.key(names.revision()).key(names.changes());
    call.arg(name.as_str()).arg(keys.current.as_bytes().as_slice());
    call.arg(mark(&Changed::Client(name.clone()))).arg(names.channel());
    for (field, value) in key_fields(keys) {
        call.arg(field).arg(value);
    }
    let answer: String = server.link.run("change a client's keys", &call).await?;
    match answer.as_str() {
        "ok" => Ok(true),
        "none" => Ok(false),
        _ => Err(StoreError::client_key_exists()),
    }
}

/// Records when clients last called.
pub(super) async fn record_use(
    server: &Server,
    used: &[(ClientName, Unix)],
) -> Result<(), StoreError> {
    for part in used.chunks(USES_AT_ONCE) {
        let mut call = scripts::RECORD_USE.prepare_invoke();
        for (name, at) in part {
            call.key(server.names.client(name)).arg(millis(*at));
        }
        server.link.run::<()>("record the use of clients", &call).await?;
    }
    Ok(())
}

/// Removes a client; `false` when there is none.
pub(super) async fn remove(server: &Server, name: &ClientName) -> Result<bool, StoreError> {
    let names = &server.names;
    let mut call = scripts::REMOVE_CLIENT.prepare_invoke();
    call.key(names.client(name)).key(names.clients()).key(names.client_keys());
    call.key(names.revision()).key(names.changes());
    call.arg(name.as_str()).arg(mark(&Changed::Client(name.clone()))).arg(names.channel());
    server.link.run("remove a client", &call).await
}

/// All fields of a client but its current key.
pub(super) fn fields(client: &Client) -> Vec<(&'static str, Vec<u8>)> {
    let tenants = match &client.tenants {
        TenantScope::All => ALL.to_owned(),
        TenantScope::Some(some) => {
            some.iter().map(TenantName::as_str).collect::<Vec<_>>().join(" ")
        }
    };
    let mut fields = key_fields(&client.keys);
    fields.push(("tenants", tenants.into_bytes()));
    fields.push(("created", number(client.created_at)));
    fields.extend(client.last_used_at.map(|at| ("used", number(at))));
    fields
}

/// The fields beside the current key.
fn key_fields(keys: &ClientKeys) -> Vec<(&'static str, Vec<u8>)> {
    let mut fields = Vec::new();
    fields.extend(keys.expires_at.map(|at| ("expires", number(at))));
    if let Some(previous) = keys.previous {
        fields.push(("previous", previous.digest.as_bytes().to_vec()));
        fields.push(("previous_until", number(previous.until)));
    }
    fields
}

fn number(at: Unix) -> Vec<u8> {
    millis(at).to_string().into_bytes()
}

fn read(name: ClientName, hash: HashMap<String, Vec<u8>>) -> Result<Client, StoreError> {
    let fields = Fields::new(format!("client {name}"), hash);
    let tenants = match fields.needed("tenants", fields.text("tenants")?)? {
        ALL => TenantScope::All,
        some => {
            let some = some.split(' ').map(str::parse).collect::<Result<_, _>>();
            TenantScope::Some(some.map_err(|_| fields.damaged("tenants"))?)
        }
    };
    let previous = match (fields.digest("previous")?, fields.moment("previous_until")?) {
        (Some(digest), Some(until)) => {
            Some(PreviousKey { digest: ClientKeyDigest::from_bytes(digest), until })
        }
        _ => None,
    };
    let current = fields.needed("digest", fields.digest("digest")?)?;
    Ok(Client {
        tenants,
        created_at: fields.needed("created", fields.moment("created")?)?,
        keys: ClientKeys {
            current: ClientKeyDigest::from_bytes(current),
            expires_at: fields.moment("expires")?,
            previous,
        },
        last_used_at: fields.moment("used")?,
        name,
    })
}
