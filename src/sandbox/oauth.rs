//! The authorization server: the token endpoint, the consent page (which consents at once) and the
//! key set.
//!
//! One token request a second for each API key, measured from an answer to the next arrival; one
//! that comes sooner, or while another is under way, is refused and changes nothing. Requests are
//! read in every form that is seen in the wild: form or query string, Basic, credentials in the
//! body, or a public client.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::json;

use crate::engine::Mono;

use super::answer::{Answer, oauth_error, problem, tokens};
use super::device::DEVICE_PATH;
use super::grants::{ALL_SCOPES, Consent, InvalidGrant, Issued};
use super::log::{TokenCounts, Verdict};
use super::options::{OAuthClient, Options};

/// Where tokens are asked for: the documented address, and the same server's own.
pub(super) const TOKEN_PATHS: [&str; 2] =
    ["/oauth2/default/v1/token", "/oauth2/aus1lm3ry9mF7x2Ja0h8/v1/token"];
/// Where owners consent.
pub(super) const AUTHORIZE_PATH: &str = "/oauth2/default/v1/authorize";
/// Where the key set is.
pub(super) const KEYS_PATH: &str = "/oauth2/aus1lm3ry9mF7x2Ja0h8/v1/keys";
/// Whose consent is given when the request hints at nobody.
pub(super) const DEFAULT_ACCOUNT: &str = "sandbox";
/// The account whose owner never consents.
pub(super) const DENYING_ACCOUNT: &str = "deny";

/// The pace of one API key's token requests.
#[derive(Debug, Default)]
pub(super) struct Lane {
    under_way: u32,
    answered_at: Option<Mono>,
    pub(super) counts: TokenCounts,
}

impl Lane {
    /// Counts an arrival; `true` when it may go on, and then [`Lane::answered`] must follow.
    pub(super) fn arrive(&mut self, interval: Duration, now: Mono) -> bool {
        let at_once = self.under_way + 1;
        self.counts.requests += 1;
        self.counts.most_at_once = self.counts.most_at_once.max(at_once);
        let gap = if self.under_way > 0 {
            Some(Duration::ZERO)
        } else {
            self.answered_at.map(|answered| now.since(answered))
        };
        let Some(gap) = gap else {
            self.under_way = at_once;
            return true;
        };
        let gap_ns = u64::try_from(gap.as_nanos()).unwrap_or(u64::MAX);
        let least = self.counts.least_gap_ns.map_or(gap_ns, |least| least.min(gap_ns));
        self.counts.least_gap_ns = Some(least);
        let may_go = gap >= interval && self.under_way == 0;
        if may_go {
            self.under_way = at_once;
        }
        may_go
    }

    pub(super) fn answered(&mut self, now: Mono) {
        self.under_way = self.under_way.saturating_sub(1);
        self.answered_at = Some(now);
    }
}

/// A token request, read.
#[derive(Debug)]
pub(super) struct Ask {
    params: HashMap<String, String>,
    client_id: Option<String>,
    secret: Option<String>,
    well_formed: bool,
    /// It is not the token endpoint that is asked, but that of devices.
    for_codes: bool,
    /// A user agent that the front before the real endpoint is known to turn away.
    pub(super) blocked: bool,
}

/// What is asked for.
#[derive(Debug)]
pub(super) enum Wish<'a> {
    Refresh {
        token: &'a str,
    },
    Exchange {
        code: &'a str,
        redirect_uri: &'a str,
        verifier: Option<&'a str>,
    },
    /// Codes for a device.
    Codes {
        scopes: Option<&'a str>,
    },
    /// A device asks whether its owner has consented.
    Poll {
        code: &'a str,
    },
}

impl Ask {
    pub(super) fn read(parts: &Parts, body: &Bytes) -> Self {
        let header = |name| parts.headers.get(name).and_then(|v| HeaderValue::to_str(v).ok());
        let is_form = header(CONTENT_TYPE)
            .is_some_and(|value| value.starts_with("application/x-www-form-urlencoded"));
        let mut params = pairs(parts.uri.query().unwrap_or_default().as_bytes());
        if is_form {
            params.extend(pairs(body));
        }
        let basic = header(AUTHORIZATION).and_then(basic_credentials);
        let (client_id, secret) = match basic {
            Some((id, secret)) => (Some(id), Some(secret)),
            None => (params.get("client_id").cloned(), params.get("client_secret").cloned()),
        };
        Self {
            params,
            client_id,
            secret,
            for_codes: parts.uri.path() == DEVICE_PATH,
            well_formed: parts.method == Method::POST && (body.is_empty() || is_form),
            blocked: header(USER_AGENT).is_some_and(|agent| agent.starts_with("Python-urllib")),
        }
    }

    pub(super) fn client_id(&self) -> Option<&str> {
        self.client_id.as_deref()
    }

    /// The refresh token or code that was shown.
    pub(super) fn shown(&self) -> Option<&str> {
        self.param("refresh_token").or_else(|| self.param("code"))
    }

    /// Whether the client is one of `clients`, with its secret; any is when the list is empty.
    pub(super) fn is_known(&self, clients: &[OAuthClient]) -> bool {
        let Some(id) = self.client_id() else { return false };
        clients.is_empty()
            || clients.iter().any(|client| {
                let secret = client.secret.as_ref().map(|secret| secret.expose().as_str());
                client.client_id == id && secret == self.secret.as_deref()
            })
    }

    /// What is asked for, or why that cannot be told.
    pub(super) fn wish(&self) -> Result<Wish<'_>, Answer> {
        if !self.well_formed {
            return Err(invalid_request("send a POST with a form"));
        }
        let need =
            |name| self.param(name).ok_or_else(|| invalid_request(&format!("{name} is missing")));
        if self.for_codes {
            return Ok(Wish::Codes { scopes: self.param("scope") });
        }
        match need("grant_type")? {
            "refresh_token" => Ok(Wish::Refresh { token: need("refresh_token")? }),
            "authorization_code" => Ok(Wish::Exchange {
                code: need("code")?,
                redirect_uri: need("redirect_uri")?,
                verifier: self.param("code_verifier"),
            }),
            "urn:ietf:params:oauth:grant-type:device_code" => {
                Ok(Wish::Poll { code: need("device_code")? })
            }
            _ => Err(oauth_error(
                StatusCode::BAD_REQUEST,
                "unsupported_grant_type",
                "The authorization grant type is not supported by the authorization server.",
            )),
        }
    }

    fn param(&self, name: &str) -> Option<&str> {
        self.params.get(name).map(String::as_str)
    }
}

/// The answer to a wish, with its verdict.
pub(super) fn token_answer(
    options: &Options,
    issued: Result<Issued, InvalidGrant>,
) -> (Verdict, Answer) {
    let Ok(issued) = issued else {
        return (Verdict::TokenInvalidGrant, invalid_grant());
    };
    let mut body = json!({
        "token_type": "Bearer",
        "expires_in": options.access_token_life.as_secs(),
        "access_token": issued.access_token,
        "scope": &*issued.scopes,
    });
    if let Some(refresh_token) = issued.refresh_token {
        body["refresh_token"] = refresh_token.into();
    }
    (Verdict::TokenOk, tokens(&body))
}

fn invalid_grant() -> Answer {
    let text = "The refresh token is invalid or expired.";
    oauth_error(StatusCode::BAD_REQUEST, "invalid_grant", text)
}

pub(super) fn invalid_client() -> Answer {
    let text = "Client authentication failed.";
    oauth_error(StatusCode::UNAUTHORIZED, "invalid_client", text)
}

pub(super) fn too_many_requests() -> Answer {
    let text = "One token request a second is allowed.";
    oauth_error(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", text)
}

pub(super) fn access_denied() -> Answer {
    let text = "The resource owner denied the request.";
    oauth_error(StatusCode::BAD_REQUEST, "access_denied", text)
}

fn invalid_request(text: &str) -> Answer {
    oauth_error(StatusCode::BAD_REQUEST, "invalid_request", text)
}

/// A request at the consent page, read.
#[derive(Debug)]
pub(super) enum Authorize {
    /// The owner consents; the answer goes to the redirect address with a code.
    Consented { consent: Consent, state: String },
    /// Answered at once.
    Answered(Answer),
}

impl Authorize {
    pub(super) fn read(method: &Method, query: &str, clients: &[OAuthClient]) -> Self {
        if method != Method::GET {
            let text = "use GET";
            return Self::Answered(oauth_error(
                StatusCode::METHOD_NOT_ALLOWED,
                "access_denied",
                text,
            ));
        }
        let params = pairs(query.as_bytes());
        let param = |name: &str| params.get(name).map(String::as_str).unwrap_or_default();
        let (client_id, redirect_uri) = (param("client_id"), param("redirect_uri"));
        let known = clients.is_empty() || clients.iter().any(|c| c.client_id == client_id);
        if client_id.is_empty() || redirect_uri.is_empty() || !known {
            let text = "client_id or redirect_uri is not one of a registered application";
            return Self::Answered(invalid_request(text));
        }
        let state = param("state");
        if param("response_type") != "code" {
            return Self::Answered(redirect(
                redirect_uri,
                "error",
                "unsupported_response_type",
                state,
            ));
        }
        let challenge = params.get("code_challenge").cloned();
        if challenge.is_some() && param("code_challenge_method") != "S256" {
            return Self::Answered(redirect(redirect_uri, "error", "invalid_request", state));
        }
        let or_default = |name, default| match param(name) {
            "" => default,
            value => value,
        };
        let account = or_default("login_hint", DEFAULT_ACCOUNT);
        if account == DENYING_ACCOUNT {
            return Self::Answered(redirect(redirect_uri, "error", "access_denied", state));
        }
        let consent = Consent {
            client_id: client_id.into(),
            account: account.into(),
            scopes: or_default("scope", ALL_SCOPES).into(),
            redirect_uri: redirect_uri.to_owned(),
            challenge,
        };
        Self::Consented { consent, state: state.to_owned() }
    }
}

/// The way back from the consent page.
pub(super) fn redirect(redirect_uri: &str, name: &str, value: &str, state: &str) -> Answer {
    let glue = if redirect_uri.contains('?') { '&' } else { '?' };
    let value = utf8_percent_encode(value, NON_ALPHANUMERIC);
    let mut location = format!("{redirect_uri}{glue}{name}={value}");
    if !state.is_empty() {
        location = format!("{location}&state={}", utf8_percent_encode(state, NON_ALPHANUMERIC));
    }
    match HeaderValue::try_from(location) {
        Ok(location) => Answer::redirect(location),
        Err(_) => invalid_request("redirect_uri is no address"),
    }
}

/// The key set.
pub(super) fn keys(method: &Method) -> Answer {
    if method == Method::GET {
        Answer::json(StatusCode::OK, &super::signer::key_set())
    } else {
        problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "use GET")
    }
}

fn basic_credentials(value: &str) -> Option<(String, String)> {
    let encoded = value.strip_prefix("Basic ")?;
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    // RFC 6749 section 2.3.1: both are form-encoded before they are joined
    let decode = |part| percent_decode_str(part).decode_utf8().map(Cow::into_owned).ok();
    Some((decode(id)?, decode(secret)?))
}

fn pairs(text: &[u8]) -> HashMap<String, String> {
    form_urlencoded::parse(text).into_owned().collect()
}
