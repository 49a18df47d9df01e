//! The device flow (RFC 8628): codes that a program shows and an owner types in elsewhere.
//!
//! Who asks sooner than the interval is told to slow down and must keep five seconds more from then
//! on; a code that was answered with tokens is used up. An owner decides by opening the page of
//! activation. Codes are kept by their fingerprint only.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use serde_json::json;

use crate::engine::Mono;

use super::answer::{Answer, oauth_error, problem};
use super::grants::{ALL_SCOPES, InvalidGrant, Mint};
use super::log::{Verdict, fingerprint};
use super::options::Options;

/// Where devices ask for codes.
pub(super) const DEVICE_PATH: &str = "/oauth2/default/v1/device/authorize";
/// Where owners type codes in.
pub(super) const ACTIVATE_PATH: &str = "/activate";
/// What is added to the interval of who asks too soon (RFC 8628 section 3.5).
const SLOWER: Duration = Duration::from_secs(5);
/// Letters of a code that people type: no vowels, so that no words come out.
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";

#[derive(Debug)]
enum Decision {
    Pending,
    Denied,
    Consented(Arc<str>),
}

#[derive(Debug)]
struct Device {
    client_id: Arc<str>,
    scopes: Arc<str>,
    user_code: String,
    decision: Decision,
    since: Mono,
    answered_at: Mono,
    interval: Duration,
}

/// All codes.
#[derive(Debug, Default)]
pub(super) struct Devices(HashMap<String, Device>);

/// A consent that was given elsewhere.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) client_id: Arc<str>,
    pub(super) account: Arc<str>,
    pub(super) scopes: Arc<str>,
}

/// A poll that brings no tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotYet {
    Pending,
    SlowDown,
    Expired,
    Denied,
    Unknown,
}

impl Devices {
    /// A new pair of codes, as the answer that tells them.
    pub(super) fn begin(
        &mut self,
        client_id: &str,
        scopes: Option<&str>,
        host: &str,
        mint: &mut Mint<'_>,
    ) -> Answer {
        let device_code = mint.token();
        let letters = fingerprint(&mint.token());
        let user_code: String = letters
            .bytes()
            .take(8)
            .map(|byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()]))
            .collect();
        let user_code = format!("{}-{}", &user_code[..4], &user_code[4..]);
        let Options { device_interval: interval, device_life, .. } = mint.options;
        let device = Device {
            client_id: client_id.into(),
            scopes: scopes.unwrap_or(ALL_SCOPES).into(),
            user_code: user_code.clone(),
            decision: Decision::Pending,
            since: mint.now.mono,
            answered_at: mint.now.mono,
            interval: *interval,
        };
        self.0.insert(fingerprint(&device_code), device);
        let page = format!("http://{host}{ACTIVATE_PATH}");
        Answer::json(
            StatusCode::OK,
            &json!({
                "device_code": device_code,
                "user_code": user_code,
                "verification_uri": page,
                "verification_uri_complete": format!("{page}?user_code={user_code}"),
                "expires_in": device_life.as_secs(),
                "interval": interval.as_secs(),
            }),
        )
    }

    /// The owner decides; `false` when there is no such code.
    pub(super) fn decide(&mut self, user_code: &str, account: Option<&str>) -> bool {
        let asked = self.0.values_mut().find(|device| device.user_code == user_code);
        let Some(device) = asked else { return false };
        device.decision = match account {
            Some(account) => Decision::Consented(account.into()),
            None => Decision::Denied,
        };
        true
    }

    /// A device asks whether its owner has decided.
    pub(super) fn poll(
        &mut self,
        client_id: &str,
        device_code: &str,
        options: &Options,
        now: Mono,
    ) -> Result<Granted, NotYet> {
        let print = fingerprint(device_code);
        let device = self.0.get_mut(&print).filter(|device| *device.client_id == *client_id);
        let device = device.ok_or(NotYet::Unknown)?;
        if now.since(device.since) >= options.device_life {
            return Err(NotYet::Expired);
        }
        let too_soon = now.since(device.answered_at) < device.interval;
        device.answered_at = now;
        if too_soon {
            device.interval += SLOWER;
            return Err(NotYet::SlowDown);
        }
        let account = match &device.decision {
            Decision::Pending => return Err(NotYet::Pending),
            Decision::Denied => return Err(NotYet::Denied),
            Decision::Consented(account) => Arc::clone(account),
        };
        let (client_id, scopes) = (Arc::clone(&device.client_id), Arc::clone(&device.scopes));
        self.0.remove(&print);
        Ok(Granted { client_id, account, scopes })
    }
}

/// The answer to a poll that brings no tokens.
pub(super) fn not_yet(why: NotYet) -> Result<(Verdict, Answer), InvalidGrant> {
    let (verdict, error) = match why {
        NotYet::Pending => (Verdict::TokenPending, "authorization_pending"),
        NotYet::SlowDown => (Verdict::TokenSlowDown, "slow_down"),
        NotYet::Expired => (Verdict::TokenInvalidGrant, "expired_token"),
        NotYet::Denied => (Verdict::TokenInvalidGrant, "access_denied"),
        NotYet::Unknown => return Err(InvalidGrant),
    };
    Ok((verdict, oauth_error(StatusCode::BAD_REQUEST, error, "The device is not authorized.")))
}

/// Who opened the page of activation, and what for.
pub(super) fn read_activation(parts: &Parts) -> Result<(String, Option<String>), Answer> {
    if parts.method != Method::GET {
        return Err(problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "use GET"));
    }
    let query = parts.uri.query().unwrap_or_default();
    let params: HashMap<String, String> =
        form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let user_code = params.get("user_code").cloned().unwrap_or_default();
    Ok((user_code, params.get("login_hint").cloned()))
}

/// The host that a request was sent to.
pub(super) fn host(parts: &Parts) -> &str {
    let value = parts.headers.get(http::header::HOST).and_then(|it| HeaderValue::to_str(it).ok());
    value.unwrap_or("localhost")
}
