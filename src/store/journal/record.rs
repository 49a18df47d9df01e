//! The records of the journal: a head that names the step, and tokens sealed for that head.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tracing::warn;
use zeroize::Zeroizing;

use crate::engine::{TenantName, Unix};
use crate::secret::{KeyId, KeyRing, SealError, Secret};
use crate::store::{OpenRefresh, RefreshStep, Tokens};

/// Sets the records apart from all else that is sealed with the key.
const PLACE: &[u8] = b"refresh journal\0";
/// Bytes of a record's head before the tenant's name: step, version, moment, length of the name.
const HEAD_LEN: usize = 1 + 8 + 8 + 1;
/// Stands for "no moment".
const NEVER: u64 = u64::MAX;

pub(super) const BEGUN: u8 = 1;
pub(super) const POSTED: u8 = 2;
pub(super) const RECEIVED: u8 = 3;
pub(super) const ENDED: u8 = 4;

pub(super) struct Record {
    pub(super) step: u8,
    pub(super) tenant: TenantName,
    pub(super) version: u64,
    pub(super) at: Unix,
    pub(super) tokens: Option<Tokens>,
    /// The key that would open it, when that is not there.
    pub(super) missing: Option<KeyId>,
    /// Bytes in the file.
    len: u64,
}

impl Record {
    /// `None` when it ends a refresh.
    pub(super) fn into_open(self) -> Option<OpenRefresh> {
        let step = match (self.step, self.tokens) {
            (BEGUN, _) => RefreshStep::Begun,
            (POSTED, _) => RefreshStep::Posted,
            (RECEIVED, Some(tokens)) => RefreshStep::Received { tokens, at: self.at },
            _ => return None,
        };
        Some(OpenRefresh { tenant: self.tenant, version: self.version, step })
    }
}

pub(super) const fn name_of(step: u8) -> &'static str {
    match step {
        BEGUN => "begun",
        POSTED => "posted",
        RECEIVED => "received",
        _ => "ended",
    }
}

/// A record with its length before it, sealed with the current key.
pub(super) fn encode(
    keys: &KeyRing,
    step: u8,
    tenant: &TenantName,
    version: u64,
    at: Unix,
    tokens: Option<&Tokens>,
) -> Vec<u8> {
    let mut record = vec![step];
    record.extend(version.to_le_bytes());
    record.extend(millis(Some(at)).to_le_bytes());
    // names are at most 128 bytes (`engine::ids`)
    record.push(u8::try_from(tenant.as_str().len()).unwrap_or(u8::MAX));
    record.extend(tenant.as_str().as_bytes());
    let sealed = keys.seal(&[PLACE, &record].concat(), &plain(tokens));
    record.extend(sealed);
    let len = u32::try_from(record.len()).unwrap_or(u32::MAX);
    [&len.to_le_bytes()[..], &record].concat()
}

/// The whole records of a file, and where they end.
pub(super) fn read(bytes: &[u8], keys: &KeyRing, path: &Path) -> (Vec<Record>, u64) {
    let (mut records, mut rest) = (Vec::new(), bytes);
    while let Some((len, after)) = rest.split_first_chunk::<4>() {
        let len = u32::from_le_bytes(*len) as usize;
        if len == 0 {
            break;
        }
        let record = after.split_at_checked(len).and_then(|(record, next)| {
            rest = next;
            parse(record, keys)
        });
        let Some(record) = record else {
            // a write that was cut off, which nobody was told had happened
            warn!(path = %path.display(), "the journal of refreshes ends in a broken record");
            break;
        };
        records.push(record);
    }
    let end = records.iter().map(|record| record.len).sum();
    (records, end)
}

/// A refresh that is open at the end of `records`, of tokens that have the versions of `current`,
/// and that a key which is not there has sealed something of.
pub(super) fn sealed_away<'a>(
    records: &'a [Record],
    current: &BTreeMap<TenantName, u64>,
) -> Option<(&'a TenantName, KeyId)> {
    let mut open = BTreeMap::new();
    for record in records {
        if record.step == ENDED || current.get(&record.tenant) != Some(&record.version) {
            open.remove(&record.tenant);
        } else {
            let missing = open.entry(&record.tenant).or_insert(record.missing);
            *missing = missing.or(record.missing);
        }
    }
    open.into_iter().find_map(|(tenant, missing)| Some((tenant, missing?)))
}

fn parse(record: &[u8], keys: &KeyRing) -> Option<Record> {
    let number = |at: usize| Some(u64::from_le_bytes(record.get(at..at + 8)?.try_into().ok()?));
    let name_len = usize::from(*record.get(HEAD_LEN - 1)?);
    let (head, cipher_text) = record.split_at_checked(HEAD_LEN + name_len)?;
    let tenant = std::str::from_utf8(head.get(HEAD_LEN..)?).ok()?.parse().ok()?;
    let (tokens, missing) = match keys.open(&[PLACE, head].concat(), cipher_text) {
        Ok(plain) => (tokens(plain.expose()), None),
        // one that was cut off ends in what the file was allocated with
        Err(SealError::OtherKey { sealed_with, .. }) if !cipher_text.ends_with(&[0; 16]) => {
            (None, Some(sealed_with))
        }
        Err(SealError::OtherKey { .. } | SealError::Damaged) => return None,
    };
    Some(Record {
        step: *record.first()?,
        tenant,
        version: number(1)?,
        at: moment(number(9)?)?,
        tokens,
        missing,
        len: record.len() as u64 + 4,
    })
}

/// End of the access token, length of the access token (none is 0), access token, refresh token.
fn plain(tokens: Option<&Tokens>) -> Zeroizing<Vec<u8>> {
    let Some(tokens) = tokens else { return Zeroizing::default() };
    let access = tokens.access.as_ref().map_or(&[][..], |access| access.expose().as_bytes());
    let refresh = tokens.refresh.expose().as_bytes();
    // one allocation: what grows leaves copies behind
    let mut plain = Zeroizing::new(Vec::with_capacity(8 + 8 + access.len() + refresh.len()));
    plain.extend(millis(tokens.access_expires_at).to_le_bytes());
    plain.extend((access.len() as u64).to_le_bytes());
    plain.extend_from_slice(access);
    plain.extend_from_slice(refresh);
    plain
}

fn tokens(plain: &[u8]) -> Option<Tokens> {
    let (expires, rest) = plain.split_first_chunk::<8>()?;
    let (len, rest) = rest.split_first_chunk::<8>()?;
    let (access, refresh) =
        rest.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
    let text = |bytes| std::str::from_utf8(bytes).ok().map(Secret::from);
    Some(Tokens {
        access: if access.is_empty() { None } else { Some(text(access)?) },
        access_expires_at: moment(u64::from_le_bytes(*expires)),
        refresh: text(refresh)?,
    })
}

fn millis(at: Option<Unix>) -> u64 {
    at.and_then(|at| u64::try_from(at.since_epoch().as_millis()).ok()).unwrap_or(NEVER)
}

fn moment(millis: u64) -> Option<Unix> {
    (millis != NEVER).then(|| Unix::new(Duration::from_millis(millis)))
}
