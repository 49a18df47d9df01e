//! Makes sure of what a server holds before anything is written: its form, and its key.
//!
//! A value sealed with the key of all tokens shows whether the key is the right one, and the sealed
//! tokens name theirs. Of several instances that start on an empty server at a time the first one's
//! key counts for all.

use std::collections::BTreeMap;

use super::grants::{self, Head};
use super::{Server, fields::damaged, scripts};
use crate::engine::TenantName;
use crate::secret::{KeyId, KeyRing, SealError};
use crate::store::StoreError;

/// The form in which data lies on the server; a later one is not understood.
const FORM: u32 = 1;
/// The place of the value that shows whether the key is the right one.
const KEY_CHECK_AAD: &[u8] = b"meta\0key_check";
/// What it says when opened.
const KEY_CHECK: &[u8] = b"ctct-proxy";
pub(super) const ATTEMPT: &str = "open the Redis store";

/// What a deployment is found to be.
pub(super) struct Seen {
    /// The value that shows whether the key is the right one.
    check: Option<Vec<u8>>,
    heads: BTreeMap<TenantName, Head>,
}

impl Seen {
    /// Whether nothing was ever written there.
    pub(super) fn is_new(&self) -> bool {
        self.check.is_none() && self.heads.is_empty()
    }
}

/// The versions of all grants, once form and key are right and written down.
pub(super) async fn open(
    server: &Server,
    place: &str,
) -> Result<BTreeMap<TenantName, u64>, StoreError> {
    let Seen { check, heads } = look(server, place).await?;
    settle(server, place, &server.keys.load_full(), check).await?;
    let mut begin = scripts::BEGIN_HISTORY.prepare_invoke();
    server.link.run::<()>(ATTEMPT, begin.key(server.names.revision())).await?;
    Ok(heads.into_iter().map(|(tenant, head)| (tenant, head.version)).collect())
}

/// Makes sure of form and key, and writes nothing.
pub(super) async fn look(server: &Server, place: &str) -> Result<Seen, StoreError> {
    let keys = server.keys.load_full();
    let (form, check) = meta(server).await?;
    if form.is_some_and(|form| form > FORM) {
        return Err(corrupt(place, "was written by a newer ctct-proxy; use that one"));
    }
    if let Some(check) = &check {
        check_key(place, &keys, check)?;
    }
    let heads = grants::heads(server).await?;
    check_keys_of_tokens(place, &keys, &heads)?;
    Ok(Seen { check, heads })
}

async fn meta(server: &Server) -> Result<(Option<u32>, Option<Vec<u8>>), StoreError> {
    let mut get = redis::cmd("HMGET");
    get.arg(server.names.meta()).arg("form").arg("key_check");
    server.link.ask(ATTEMPT, &get).await
}

/// Writes down form and key where they are missing, or the key where it is an older one.
async fn settle(
    server: &Server,
    place: &str,
    keys: &KeyRing,
    check: Option<Vec<u8>>,
) -> Result<(), StoreError> {
    let is_current = |check: &[u8]| KeyId::of_sealed(check) == Some(keys.key_id());
    if check.as_deref().is_some_and(is_current) {
        return Ok(());
    }
    let verb = if check.is_some() { "HSET" } else { "HSETNX" };
    let sealed = keys.seal(KEY_CHECK_AAD, KEY_CHECK);
    let mut pipe = redis::pipe();
    pipe.cmd("HSETNX").arg(server.names.meta()).arg("form").arg(FORM).ignore();
    pipe.cmd(verb).arg(server.names.meta()).arg("key_check").arg(sealed).ignore();
    server.link.ask_all::<()>(ATTEMPT, &pipe).await?;
    // another instance may have been first
    match meta(server).await? {
        (_, Some(check)) => check_key(place, keys, &check),
        (_, None) => Err(damaged("what was just written is not there".to_owned())),
    }
}

fn check_key(place: &str, keys: &KeyRing, check: &[u8]) -> Result<(), StoreError> {
    match keys.open(KEY_CHECK_AAD, check) {
        Ok(plain) if plain.expose() == KEY_CHECK => Ok(()),
        Err(SealError::OtherKey { sealed_with, given }) => {
            let cause = format!(
                "holds tokens sealed with encryption key {sealed_with}, but was given key {given}; \
                 give every instance the same --encryption-key-file"
            );
            Err(corrupt(place, &cause))
        }
        Ok(_) | Err(SealError::Damaged) => {
            Err(corrupt(place, "is damaged (the check of its encryption key); restore a backup"))
        }
    }
}

fn check_keys_of_tokens(
    place: &str,
    keys: &KeyRing,
    heads: &BTreeMap<TenantName, Head>,
) -> Result<(), StoreError> {
    let all = heads.values().flat_map(|head| &head.sealed);
    let missing: Vec<KeyId> =
        all.filter_map(|sealed| KeyId::of_sealed(sealed)).filter(|id| !keys.holds(*id)).collect();
    let Some(first) = missing.first() else { return Ok(()) };
    let cause = format!(
        "holds {} tokens sealed with encryption key {first}, which is not in the key file; put \
         that key back as a further line of it",
        missing.len()
    );
    Err(corrupt(place, &cause))
}

fn corrupt(place: &str, cause: &str) -> StoreError {
    StoreError::Corrupt { attempt: ATTEMPT, cause: format!("the server at {place} {cause}") }
}
