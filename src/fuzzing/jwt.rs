//! Access tokens, and the answers that bring them.
//!
//! An input of several lines is a token whose parts they are, so that a fuzzer writes JSON rather
//! than base64; one that begins with `{` is an answer of the token endpoint. What a token is is
//! decided here a second time, part by part.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde_json::{Map, Value};

use super::{CANARY, with_canary};
use crate::engine::Unix;
use crate::tokens::RefreshAnswer;
use crate::tokens::claims::{Claims, expiry};
use crate::tokens::oauth::classify;

const NOW: Unix = Unix::from_secs(1_800_000_000);
const LIFE: Duration = Duration::from_hours(8);

/// A token is read if, and only if, it is three parts, the second a JSON object in base64url; its
/// end is its own or follows from its life; an answer's tokens fit a header, and none is told.
///
/// # Panics
/// When that does not hold.
pub fn jwt(input: &[u8]) {
    if input.starts_with(b"{") {
        for status in [StatusCode::OK, StatusCode::BAD_REQUEST] {
            answer(status, &with_canary(input));
        }
    }
    let parts: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
    if parts.len() > 1 {
        let parts: Vec<String> = parts.iter().map(|part| URL_SAFE_NO_PAD.encode(part)).collect();
        token(&parts.join("."));
    } else if let Ok(text) = std::str::from_utf8(input) {
        token(text);
    }
}

fn token(text: &str) {
    let claims = Claims::read(text);
    let payload = payload(text);
    assert_eq!(claims.is_some(), payload.is_some(), "read, or three parts? {text:?}");
    let end = expiry(text, Some(LIFE), NOW);
    let (Some(claims), Some(payload)) = (claims, payload) else {
        assert_eq!(end, NOW.plus(LIFE), "an opaque token lives as long as was said");
        return;
    };
    let number = |name: &str| payload.get(name).and_then(Value::as_u64).map(Unix::from_secs);
    for (name, read) in [("exp", claims.exp), ("iat", claims.iat)] {
        match payload.get(name) {
            None | Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) => {
                assert_eq!(read, None, "{name} is no number");
            }
            Some(Value::Number(_) | Value::String(_)) => {
                assert!(number(name).is_none_or(|whole| read == Some(whole)), "{name}: {read:?}");
            }
        }
    }
    for (name, read) in [("cid", &claims.cid), ("sub", &claims.sub)] {
        assert_eq!(payload.get(name).and_then(Value::as_str), read.as_deref(), "{name}");
    }
    match (claims.exp, claims.iat) {
        (None, _) => assert_eq!(end, NOW.plus(LIFE), "no end of its own"),
        (Some(exp), None) => assert_eq!(end, exp, "its own end"),
        (Some(exp), Some(iat)) => {
            assert!(end == exp || end == NOW.plus(exp.since(iat)), "neither end nor life: {end:?}");
        }
    }
}

/// The claims of a token of three parts.
fn payload(text: &str) -> Option<Map<String, Value>> {
    let parts: Vec<&str> = text.split('.').collect();
    let [_, payload, _] = parts.as_slice() else { return None };
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

fn answer(status: StatusCode, content: &[u8]) {
    let answer = classify(status, content);
    for text in [answer.to_string(), format!("{answer:?}")] {
        assert!(!text.contains(CANARY), "a secret is told: {text}");
    }
    if let RefreshAnswer::Received(received) = answer {
        assert!(status.is_success(), "tokens of a refusal");
        let tokens: Vec<_> = received.access.iter().chain(&received.refresh).collect();
        assert!(!tokens.is_empty(), "received nothing");
        for token in tokens {
            let fits = |byte: u8| byte.is_ascii_graphic();
            assert!(!token.expose().is_empty() && token.expose().bytes().all(fits), "no token");
        }
    }
}
