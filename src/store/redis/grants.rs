//! Grants: a hash for each tenant, and an index of their names.
//!
//! What changes tokens or their state names the version that it is based on, and the script
//! compares it. Tokens are sealed before they leave the process.

use std::collections::{BTreeMap, HashMap};

use super::fields::{Fields, damaged, millis};
use super::names::mark;
use super::{Server, scripts};
use crate::engine::{TenantName, Unix};
use crate::secret::TokenDigest;
use crate::store::sealed::SealedTokens;
use crate::store::{Changed, Grant, GrantState, NewGrant, Put, StoreError, Tokens};

/// Grants read at a time: some hundred kilobytes.
const AT_ONCE: usize = 200;
/// Tenants or clients whose use one script records.
pub(super) const USES_AT_ONCE: usize = 200;

/// A change of a grant whose tokens are of a version.
pub(super) struct Change {
    attempt: &'static str,
    /// Whether other instances are told.
    told: bool,
    dropped: &'static [&'static str],
    set: Vec<(&'static str, Vec<u8>)>,
}

impl Change {
    pub(super) fn begin(at: Unix) -> Self {
        let set = vec![("begun", number(millis(at)))];
        Self { attempt: "record the begin of a refresh", told: false, dropped: &[], set }
    }

    pub(super) fn abort() -> Self {
        let attempt = "take back the begin of a refresh";
        Self { attempt, told: false, dropped: &["begun"], set: Vec::new() }
    }

    pub(super) fn fail(reason: &str) -> Self {
        let set = vec![("dead", reason.as_bytes().to_vec())];
        Self { attempt: "record a dead grant", told: true, dropped: &["begun"], set }
    }

    /// The same tokens, sealed with the current key.
    pub(super) fn seal(server: &Server, tenant: &TenantName, tokens: &Tokens) -> Self {
        let set = token_fields(server, tenant, tokens);
        let attempt = "seal tokens with the new encryption key";
        Self { attempt, told: false, dropped: &[], set }
    }

    /// New tokens, which are of version `next`.
    pub(super) fn finish(
        server: &Server,
        tenant: &TenantName,
        next: u64,
        tokens: &Tokens,
        at: Unix,
    ) -> Self {
        let mut set = vec![("version", number(next)), ("refreshed", number(millis(at)))];
        set.extend(token_fields(server, tenant, tokens));
        let dropped: &[&str] = match (&tokens.access, tokens.access_expires_at) {
            (Some(_), Some(_)) => &["begun", "dead"],
            (Some(_), None) => &["begun", "dead", "access_expires"],
            (None, Some(_)) => &["begun", "dead", "access"],
            (None, None) => &["begun", "dead", "access", "access_expires"],
        };
        Self { attempt: "store refreshed tokens", told: true, dropped, set }
    }
}

/// All grants by tenant.
pub(super) async fn all(server: &Server) -> Result<Vec<Grant>, StoreError> {
    let mut grants = Vec::new();
    let mut after = None;
    loop {
        let names = names_after(server, after.as_ref(), "read the grants").await?;
        let Some(last) = names.last() else { return Ok(grants) };
        after = Some(last.clone());
        let mut pipe = redis::pipe();
        for name in &names {
            pipe.cmd("HGETALL").arg(server.names.grant(name));
        }
        let hashes: Vec<HashMap<String, Vec<u8>>> =
            server.link.ask_all("read the grants", &pipe).await?;
        for (name, hash) in names.iter().zip(hashes) {
            grants.extend(read(server, name, hash)?);
        }
    }
}

/// The grant of `tenant`.
pub(super) async fn one(server: &Server, tenant: &TenantName) -> Result<Option<Grant>, StoreError> {
    let mut get = redis::cmd("HGETALL");
    get.arg(server.names.grant(tenant));
    read(server, tenant, server.link.ask("read a grant", &get).await?)
}

/// What the start of a store looks at: the version of a grant and its sealed tokens.
pub(super) struct Head {
    pub(super) version: u64,
    pub(super) sealed: Vec<Vec<u8>>,
}

/// The heads of all grants.
pub(super) async fn heads(server: &Server) -> Result<BTreeMap<TenantName, Head>, StoreError> {
    type Row = (Option<u64>, Option<Vec<u8>>, Option<Vec<u8>>);
    let (mut heads, mut after) = (BTreeMap::new(), None);
    loop {
        let names = names_after(server, after.as_ref(), "open the store").await?;
        let Some(last) = names.last() else { return Ok(heads) };
        after = Some(last.clone());
        let mut pipe = redis::pipe();
        for name in &names {
            let fields = ["version", "refresh", "access"];
            pipe.cmd("HMGET").arg(server.names.grant(name)).arg(&fields);
        }
        let rows: Vec<Row> = server.link.ask_all("open the store", &pipe).await?;
        for (name, (version, refresh, access)) in names.into_iter().zip(rows) {
            if let Some(version) = version {
                let sealed = refresh.into_iter().chain(access).collect();
                heads.insert(name, Head { version, sealed });
            }
        }
    }
}

/// The version of the tokens of `tenant`.
pub(super) async fn version(
    server: &Server,
    tenant: &TenantName,
) -> Result<Option<u64>, StoreError> {
    let mut get = redis::cmd("HGET");
    get.arg(server.names.grant(tenant)).arg("version");
    server.link.ask("read the version of a grant", &get).await
}

/// Makes or replaces a grant.
pub(super) async fn put(server: &Server, new: &NewGrant) -> Result<(Put, Grant), StoreError> {
    let names = &server.names;
    let mut call = scripts::PUT_GRANT.prepare_invoke();
    call.key(names.grant(&new.tenant)).key(names.tenants()).key(names.meta());
    call.key(names.revision()).key(names.changes());
    call.arg(new.tenant.as_str()).arg(mark(&Changed::Tenant(new.tenant.clone())));
    call.arg(names.channel()).arg(new.weight.map_or_else(String::new, |w| w.to_string()));
    call.arg("api_key").arg(new.api_key.as_str());
    call.arg("handed_in").arg(TokenDigest::of(&new.tokens.refresh).as_bytes().as_slice());
    for (field, value) in token_fields(server, &new.tenant, &new.tokens) {
        call.arg(field).arg(value);
    }
    let (was_there, hash): (u8, HashMap<String, Vec<u8>>) =
        server.link.run("store a grant", &call).await?;
    let grant = read(server, &new.tenant, hash)?
        .ok_or_else(|| damaged(format!("tenant {} was stored but is not there", new.tenant)))?;
    Ok((if was_there == 1 { Put::Replaced } else { Put::Created }, grant))
}

/// Writes a grant as it was, unless there is one of its version or a later.
pub(super) async fn restore(server: &Server, grant: &Grant) -> Result<bool, StoreError> {
    let (names, tenant) = (&server.names, &grant.tenant);
    let mut call = scripts::RESTORE_GRANT.prepare_invoke();
    call.key(names.grant(tenant)).key(names.tenants());
    call.key(names.revision()).key(names.changes());
    call.arg(tenant.as_str()).arg(mark(&Changed::Tenant(tenant.clone())));
    call.arg(names.channel()).arg(grant.version);
    for (field, value) in fields(server, grant) {
        call.arg(field).arg(value);
    }
    server.link.run("restore a grant", &call).await
}

/// Removes a grant; `false` when there is none.
pub(super) async fn remove(server: &Server, tenant: &TenantName) -> Result<bool, StoreError> {
    let names = &server.names;
    let mut call = scripts::REMOVE_GRANT.prepare_invoke();
    call.key(names.grant(tenant)).key(names.tenants()).key(names.meta());
    call.key(names.revision()).key(names.changes()).key(&names.authorizations());
    call.arg(tenant.as_str()).arg(mark(&Changed::Tenant(tenant.clone()))).arg(names.channel());
    server.link.run("remove a grant", &call).await
}

/// Makes `change`; `false` when the tokens are not of `version`.
pub(super) async fn change(
    server: &Server,
    tenant: &TenantName,
    version: u64,
    change: &Change,
) -> Result<bool, StoreError> {
    let names = &server.names;
    let mut call = scripts::CHANGE_GRANT.prepare_invoke();
    call.key(names.grant(tenant)).key(names.revision()).key(names.changes());
    let told = if change.told { mark(&Changed::Tenant(tenant.clone())) } else { String::new() };
    call.arg(version).arg(told).arg(names.channel());
    call.arg(change.dropped.len()).arg(change.dropped);
    for (field, value) in &change.set {
        call.arg(*field).arg(value.as_slice());
    }
    server.link.run(change.attempt, &call).await
}

/// Holds or releases a tenant; `false` when there is none.
pub(super) async fn pause(
    server: &Server,
    tenant: &TenantName,
    paused: bool,
) -> Result<bool, StoreError> {
    let names = &server.names;
    let mut call = scripts::PAUSE_GRANT.prepare_invoke();
    call.key(names.grant(tenant)).key(names.revision()).key(names.changes());
    call.arg(mark(&Changed::Tenant(tenant.clone()))).arg(names.channel()).arg(u8::from(paused));
    server.link.run("pause a tenant", &call).await
}

/// Records when tenants were last used.
pub(super) async fn record_use(
    server: &Server,
    used: &[(TenantName, Unix)],
) -> Result<(), StoreError> {
    for part in used.chunks(USES_AT_ONCE) {
        let mut call = scripts::RECORD_USE.prepare_invoke();
        for (tenant, at) in part {
            call.key(server.names.grant(tenant)).arg(millis(*at));
        }
        server.link.run::<()>("record the use of tenants", &call).await?;
    }
    Ok(())
}

async fn names_after(
    server: &Server,
    after: Option<&TenantName>,
    attempt: &'static str,
) -> Result<Vec<TenantName>, StoreError> {
    let mut range = redis::cmd("ZRANGEBYLEX");
    let from = after.map_or_else(|| "-".to_owned(), |name| format!("({name}"));
    range.arg(server.names.tenants()).arg(from).arg("+").arg("LIMIT").arg(0).arg(AT_ONCE);
    let names: Vec<String> = server.link.ask(attempt, &range).await?;
    let parsed = names.iter().map(|name| name.parse());
    parsed.collect::<Result<_, _>>().map_err(|_| damaged("a stored name of a tenant".to_owned()))
}

fn read(
    server: &Server,
    tenant: &TenantName,
    hash: HashMap<String, Vec<u8>>,
) -> Result<Option<Grant>, StoreError> {
    if hash.is_empty() {
        return Ok(None);
    }
    let fields = Fields::new(format!("tenant {tenant}"), hash);
    let sealed = SealedTokens {
        access: fields.bytes("access").map(<[u8]>::to_vec),
        refresh: fields.needed("refresh", fields.bytes("refresh"))?.to_vec(),
    };
    let (access, refresh) = sealed
        .open(&server.keys.load(), tenant)
        .map_err(|e| damaged(format!("the tokens of tenant {tenant}: {e}")))?;
    let state = match fields.text("dead")? {
        None => GrantState::Ready,
        Some(reason) => GrantState::NeedsAuthorization { reason: reason.to_owned() },
    };
    Ok(Some(Grant {
        tenant: tenant.clone(),
        api_key: fields.needed("api_key", fields.parsed("api_key")?)?,
        version: fields.needed("version", fields.parsed("version")?)?,
        tokens: Tokens { access, access_expires_at: fields.moment("access_expires")?, refresh },
        handed_in: fields.digest("handed_in")?.map(TokenDigest::from_bytes),
        state,
        refresh_begun_at: fields.moment("begun")?,
        last_refreshed_at: fields.moment("refreshed")?,
        last_used_at: fields.moment("used")?,
        paused: fields.parsed::<u8>("paused")? == Some(1),
        weight: fields.needed("weight", fields.parsed("weight")?)?,
    }))
}

/// All fields of a grant but its version.
pub(super) fn fields(server: &Server, grant: &Grant) -> Vec<(&'static str, Vec<u8>)> {
    let moment = |at| number(millis(at));
    let mut fields = token_fields(server, &grant.tenant, &grant.tokens);
    fields.push(("api_key", grant.api_key.as_str().as_bytes().to_vec()));
    fields.push(("weight", number(grant.weight.into())));
    fields.push(("paused", number(grant.paused.into())));
    fields.extend(grant.handed_in.map(|digest| ("handed_in", digest.as_bytes().to_vec())));
    if let GrantState::NeedsAuthorization { reason } = &grant.state {
        fields.push(("dead", reason.as_bytes().to_vec()));
    }
    fields.extend(grant.refresh_begun_at.map(|at| ("begun", moment(at))));
    fields.extend(grant.last_refreshed_at.map(|at| ("refreshed", moment(at))));
    fields.extend(grant.last_used_at.map(|at| ("used", moment(at))));
    fields
}

fn token_fields(
    server: &Server,
    tenant: &TenantName,
    tokens: &Tokens,
) -> Vec<(&'static str, Vec<u8>)> {
    let sealed = SealedTokens::seal(&server.keys.load(), tenant, tokens);
    let mut fields = vec![("refresh", sealed.refresh)];
    fields.extend(sealed.access.map(|access| ("access", access)));
    fields.extend(tokens.access_expires_at.map(|at| ("access_expires", number(millis(at)))));
    fields
}

fn number(number: u64) -> Vec<u8> {
    number.to_string().into_bytes()
}
