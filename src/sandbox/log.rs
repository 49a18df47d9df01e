//! What arrived, when, and what became of it: the judge of every claim about rates, counts and
//! tokens.
//!
//! An entry is made the moment a request head has been read; its status is filled in once known.
//! Tokens never stand in it, only their fingerprints. Entries are numbered from zero since the last
//! reset, and a number stays an entry's own.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, Method};
use serde::{Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::engine::Now;

/// What the sandbox decided about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// An API call that passed the gateway, whatever its status.
    Ok,
    /// Over the limit of the second.
    Throttled,
    /// Over the limit of the day.
    QuotaExceeded,
    /// No token, a foreign, an expired or a revoked one.
    Unauthorized,
    /// An API call answered by a fault that was set or drawn.
    Fault,
    /// Outside the API's paths.
    Forbidden,
    /// A page of the authorization server other than the token endpoint.
    Authorize,
    /// Tokens were issued.
    TokenOk,
    /// A device whose owner has not decided.
    TokenPending,
    /// A device that asks too often.
    TokenSlowDown,
    /// A token request before its time.
    TokenThrottled,
    /// A refresh token or code that is used, expired, revoked or foreign.
    TokenInvalidGrant,
    /// A client that is unknown or has the wrong secret.
    TokenInvalidClient,
    /// A malformed token request.
    TokenInvalidRequest,
    /// A user agent that the front of the token endpoint turns away.
    TokenBlocked,
    /// A token request answered by a fault that was set.
    TokenFault,
}

impl Verdict {
    /// Its name in the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Throttled => "throttled",
            Self::QuotaExceeded => "quota_exceeded",
            Self::Unauthorized => "unauthorized",
            Self::Fault => "fault",
            Self::Forbidden => "forbidden",
            Self::Authorize => "authorize",
            Self::TokenOk => "token_ok",
            Self::TokenPending => "token_pending",
            Self::TokenSlowDown => "token_slow_down",
            Self::TokenThrottled => "token_throttled",
            Self::TokenInvalidGrant => "token_invalid_grant",
            Self::TokenInvalidClient => "token_invalid_client",
            Self::TokenInvalidRequest => "token_invalid_request",
            Self::TokenBlocked => "token_blocked",
            Self::TokenFault => "token_fault",
        }
    }
}

/// One request as it arrived.
#[derive(Clone, Debug, Serialize)]
pub struct LogEntry {
    /// Its number since the last reset.
    pub index: u64,
    /// Nanoseconds on the monotonic clock.
    pub mono_ns: u64,
    /// Nanoseconds since 1970-01-01T00:00:00Z.
    pub unix_ns: u64,
    /// The method.
    #[serde(serialize_with = "method_text")]
    pub method: Method,
    /// The path without the query.
    pub path: Box<str>,
    /// The query of an API call, byte for byte; of token requests it is not kept.
    pub query: Option<Box<str>>,
    /// The API key, when it could be told.
    #[serde(serialize_with = "shared_text")]
    pub client_id: Option<Arc<str>>,
    /// The account, when it could be told.
    #[serde(serialize_with = "shared_text")]
    pub account: Option<Arc<str>>,
    /// What was decided.
    pub verdict: Verdict,
    /// Status of the answer; 0 while there is none, and when the connection was closed without one.
    pub status: u16,
    /// [`fingerprint`] of the bearer token, refresh token or code that was presented.
    pub fingerprint: Option<Box<str>>,
    /// Length of the request body, once read.
    pub body_bytes: u64,
    /// The request's headers when they are recorded, the authorization blanked.
    #[serde(skip)]
    pub headers: Option<Box<HeaderMap>>,
}

impl LogEntry {
    /// An entry of a request about which nothing more is known yet.
    pub(super) fn new(now: Now, method: &Method, path: &str, verdict: Verdict) -> Self {
        Self {
            index: 0,
            mono_ns: u64::try_from(now.mono.since_start().as_nanos()).unwrap_or(u64::MAX),
            unix_ns: u64::try_from(now.unix.since_epoch().as_nanos()).unwrap_or(u64::MAX),
            method: method.clone(),
            path: path.into(),
            query: None,
            client_id: None,
            account: None,
            verdict,
            status: 0,
            fingerprint: None,
            body_bytes: 0,
            headers: None,
        }
    }
}

/// The entries since the last reset.
#[derive(Debug, Default)]
pub(super) struct Log {
    resets: u64,
    entries: Vec<LogEntry>,
    verdicts: BTreeMap<Verdict, u64>,
}

/// Names an entry across a reset: after one it names nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct EntryId {
    resets: u64,
    index: usize,
}

impl Log {
    pub(super) fn push(&mut self, mut entry: LogEntry) -> EntryId {
        let index = self.entries.len();
        entry.index = u64::try_from(index).unwrap_or(u64::MAX);
        *self.verdicts.entry(entry.verdict).or_default() += 1;
        self.entries.push(entry);
        EntryId { resets: self.resets, index }
    }

    /// Fills in what became known after the head was read.
    pub(super) fn complete(&mut self, id: EntryId, status: u16, body_bytes: usize) {
        if id.resets == self.resets
            && let Some(entry) = self.entries.get_mut(id.index)
        {
            entry.status = status;
            entry.body_bytes = u64::try_from(body_bytes).unwrap_or(u64::MAX);
        }
    }

    /// The entries from number `since` on.
    pub(super) fn since(&self, since: usize) -> &[LogEntry] {
        self.entries.get(since..).unwrap_or_default()
    }

    pub(super) fn verdicts(&self) -> &BTreeMap<Verdict, u64> {
        &self.verdicts
    }

    pub(super) fn reset(&mut self) {
        *self = Self { resets: self.resets + 1, ..Self::default() };
    }
}

/// The totals since the last reset.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Counts {
    /// All requests.
    pub arrivals: u64,
    /// Requests by verdict.
    pub by_verdict: BTreeMap<Verdict, u64>,
    /// What each API key did at the API.
    pub api_keys: BTreeMap<String, KeyCounts>,
    /// What each API key did at the token endpoint.
    pub token: BTreeMap<String, TokenCounts>,
}

impl Counts {
    /// Requests with this verdict.
    #[must_use]
    pub fn of(&self, verdict: Verdict) -> u64 {
        self.by_verdict.get(&verdict).copied().unwrap_or_default()
    }

    /// The most API calls of any one API key in any span of one second.
    #[must_use]
    pub fn most_in_one_second(&self) -> usize {
        self.api_keys.values().map(|key| key.most_in_one_second).max().unwrap_or_default()
    }
}

/// API calls of one API key, refused ones included.
#[derive(Clone, Debug, Default, Serialize)]
pub struct KeyCounts {
    /// All calls.
    pub arrivals: u64,
    /// The most calls in any span of one second.
    pub most_in_one_second: usize,
    /// Calls by quota day, named by the date of its start.
    pub days: BTreeMap<String, u64>,
}

/// Token requests of one API key, refused ones included.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TokenCounts {
    /// All requests.
    pub requests: u64,
    /// Least time from an answer to the next request, nanoseconds; zero when one came before the
    /// answer.
    pub least_gap_ns: Option<u64>,
    /// The most requests under way at once.
    pub most_at_once: u32,
}

/// What stands in the log for a token: enough to compare, nothing to use.
#[must_use]
pub fn fingerprint(token: &str) -> String {
    let digest = Sha256::digest(token.as_bytes());
    URL_SAFE_NO_PAD.encode(&digest[..12])
}

fn method_text<S: Serializer>(method: &Method, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(method.as_str())
}

#[expect(clippy::ref_option, reason = "serde hands a field over by reference")]
fn shared_text<S: Serializer>(text: &Option<Arc<str>>, serializer: S) -> Result<S::Ok, S::Error> {
    text.as_deref().serialize(serializer)
}
