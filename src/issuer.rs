//! The issuer of access tokens, as far as its public keys go: whether a token that somebody else
//! brings was signed by it for this API.
//!
//! Keys are fetched when one is needed that is not known, at most once a minute, and looked at
//! again after an hour; whoever needs one waits for it within a deadline. A key verifies by the one
//! algorithm of its kind, RS256 or ES256, whatever a token's header says. When a token ends is not
//! looked at here: the clock is the caller's.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{ACCEPT, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use rustls::ClientConfig;
use serde::de::IgnoredAny;
use tokio::sync::Mutex;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::engine::Mono;

/// Longest time for the keys to come.
const FETCH_TIME_MAX: Duration = Duration::from_secs(5);
/// Longest key set; real ones have some kilobytes.
const SET_LEN_MAX: usize = 256 * 1024;
/// Least time between two fetches, so that tokens of unknown keys do not become requests.
const FETCH_EVERY: Duration = Duration::from_mins(1);
/// The same after one that failed.
const RETRY_EVERY: Duration = Duration::from_secs(5);
/// Keys older than this are looked at again: the issuer may have withdrawn one.
const KEPT: Duration = Duration::from_hours(1);
/// Fronts refuse unspecific agents.
const AGENT: &str = concat!("ctct-proxy/", env!("CARGO_PKG_VERSION"));

/// What an issuer is known by.
pub struct Parts {
    /// Where its keys are (RFC 7517).
    pub jwks_url: Uri,
    /// `iss` of its tokens.
    pub issuer: String,
    /// `aud` of its tokens for the API.
    pub audience: String,
    /// Whom to trust on the way to the keys.
    pub tls: ClientConfig,
    /// Reads time.
    pub clock: Clock,
    /// Runs fetches.
    pub tracker: TaskTracker,
}

/// The issuer; clones share its keys.
#[derive(Clone)]
pub struct Issuer(Arc<Inner>);

struct Inner {
    jwks_url: Uri,
    issuer: String,
    audience: String,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    clock: Clock,
    tracker: TaskTracker,
    keys: ArcSwap<Keys>,
    /// When the keys may next be fetched; held while they are.
    fetch_from: Mutex<Mono>,
}

#[derive(Default)]
struct Keys {
    by_id: HashMap<String, Key>,
    stale_from: Mono,
}

#[derive(Clone)]
struct Key {
    algorithm: Algorithm,
    key: DecodingKey,
}

/// A token is not known to be the issuer's.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It is not.
    #[error("{0}")]
    Refused(&'static str),
    /// The keys cannot be had.
    #[error("the keys of the issuer cannot be had: {0}")]
    NoKeys(String),
}

impl Issuer {
    /// Nothing is fetched yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(parts.tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        Self(Arc::new(Inner {
            jwks_url: parts.jwks_url,
            issuer: parts.issuer,
            audience: parts.audience,
            client: Client::builder(TokioExecutor::new())
                .pool_max_idle_per_host(0)
                .build(connector),
            clock: parts.clock,
            tracker: parts.tracker,
            keys: ArcSwap::default(),
            fetch_from: Mutex::default(),
        }))
    }

    /// Whether the issuer has signed `token` for the API.
    ///
    /// # Errors
    /// [`VerifyError`] when it has not, or its keys cannot be had to tell.
    pub async fn verify(&self, token: &str) -> Result<(), VerifyError> {
        let refused = |_| VerifyError::Refused("it is not signed in a way that is accepted");
        let header = decode_header(token).map_err(refused)?;
        let id = header.kid.ok_or(VerifyError::Refused("it does not name its key"))?;
        let key = self.key(&id).await?;
        self.0.check(token, &key)
    }

    async fn key(&self, id: &str) -> Result<Key, VerifyError> {
        let keys = self.0.keys.load_full();
        let known = keys.by_id.get(id).cloned();
        if known.is_some() && self.0.clock.mono() < keys.stale_from {
            return known.ok_or(UNKNOWN_KEY);
        }
        // in a task of its own: a caller that leaves must not leave the others without an answer
        let (inner, wanted) = (Arc::clone(&self.0), id.to_owned());
        let fetched = self.0.tracker.spawn(async move { inner.refresh(&wanted).await }).await;
        let failed = fetched.unwrap_or_else(|_| Err("fetching them panicked".to_owned()));
        match self.0.keys.load().by_id.get(id).cloned().or(known) {
            Some(key) => Ok(key),
            None => Err(failed.err().map_or(UNKNOWN_KEY, VerifyError::NoKeys)),
        }
    }
}

const UNKNOWN_KEY: VerifyError = VerifyError::Refused("it is signed with a key that is not known");

impl Inner {
    /// Fetches the keys, unless somebody else just has.
    async fn refresh(&self, wanted: &str) -> Result<(), String> {
        let mut fetch_from = self.fetch_from.lock().await;
        let keys = self.keys.load();
        let now = self.clock.mono();
        if keys.by_id.contains_key(wanted) && now < keys.stale_from {
            return Ok(());
        }
        if now < *fetch_from {
            let none = keys.by_id.is_empty();
            return if none { Err("the last try has failed".to_owned()) } else { Ok(()) };
        }
        drop(keys);
        let fetched = tokio::time::timeout(FETCH_TIME_MAX, self.fetch()).await;
        let fetched = fetched.unwrap_or_else(|_| Err(format!("not within {FETCH_TIME_MAX:?}")));
        let now = self.clock.mono();
        match fetched {
            Ok(by_id) => {
                info!(keys = by_id.len(), "the keys of the issuer were fetched");
                self.keys.store(Arc::new(Keys { by_id, stale_from: now.plus(KEPT) }));
                *fetch_from = now.plus(FETCH_EVERY);
                Ok(())
            }
            Err(cause) => {
                warn!(%cause, "the keys of the issuer could not be fetched");
                *fetch_from = now.plus(RETRY_EVERY);
                Err(cause)
            }
        }
    }

    async fn fetch(&self) -> Result<HashMap<String, Key>, String> {
        let request = Request::get(&self.jwks_url)
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, AGENT)
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        let answer = self.client.request(request).await.map_err(|error| error.to_string())?;
        if answer.status() != StatusCode::OK {
            return Err(format!("oauth.jwks_url answered {}", answer.status().as_u16()));
        }
        let body = Limited::new(answer.into_body(), SET_LEN_MAX).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        let set: JwkSet = serde_json::from_slice(&body)
            .map_err(|_| "what oauth.jwks_url answered is no key set".to_owned())?;
        let keys: HashMap<String, Key> = set.keys.iter().filter_map(usable).collect();
        if keys.is_empty() { Err("the key set has no key of use".to_owned()) } else { Ok(keys) }
    }

    fn check(&self, token: &str, key: &Key) -> Result<(), VerifyError> {
        let mut rules = Validation::new(key.algorithm);
        rules.set_issuer(&[&self.issuer]);
        rules.set_audience(&[&self.audience]);
        rules.set_required_spec_claims(&["exp", "iss", "aud"]);
        // by the system's clock, which is not the one that is read here
        rules.validate_exp = false;
        let checked = decode::<IgnoredAny>(token, &key.key, &rules);
        checked.map(drop).map_err(|_| {
            VerifyError::Refused("its signature, issuer or audience are not what they must be")
        })
    }
}

/// A key with its id, when it is one that signs tokens.
fn usable(jwk: &Jwk) -> Option<(String, Key)> {
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => {
            Algorithm::ES256
        }
        _ => return None,
    };
    let signs = jwk.common.public_key_use.as_ref();
    if signs.is_some_and(|use_| *use_ != PublicKeyUse::Signature) {
        return None;
    }
    let key = DecodingKey::from_jwk(jwk).ok()?;
    Some((jwk.common.key_id.clone()?, Key { algorithm, key }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn ids(set: &Value) -> Vec<(String, Algorithm)> {
        let set: JwkSet = serde_json::from_value(set.clone()).unwrap();
        set.keys.iter().filter_map(usable).map(|(id, key)| (id, key.algorithm)).collect()
    }

    #[test]
    fn only_keys_that_sign_by_rs256_or_es256_are_used() {
        let point = "A".repeat(43);
        let set = json!({"keys": [
            {"kty": "RSA", "kid": "rsa", "use": "sig", "n": "AQAB", "e": "AQAB"},
            {"kty": "RSA", "kid": "for secrets", "use": "enc", "n": "AQAB", "e": "AQAB"},
            {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
            {"kty": "EC", "kid": "ec", "crv": "P-256", "x": point, "y": point},
            {"kty": "EC", "kid": "other curve", "crv": "P-384", "x": point, "y": point},
            {"kty": "oct", "kid": "shared", "k": "c2VjcmV0"},
            {"kty": "new", "kid": "unheard of"},
        ]});
        let expected = [("rsa".to_owned(), Algorithm::RS256), ("ec".to_owned(), Algorithm::ES256)];
        assert_eq!(ids(&set), expected);
    }
}
