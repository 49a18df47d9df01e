//! What an answer of the token endpoint means.
//!
//! Only a JSON `invalid_grant` condemns a refresh token. Everything that a front, a load balancer
//! or a broken server may say instead is trouble of the endpoint. And when an answer holds a new
//! refresh token, that token is kept, whatever else is wrong with the answer: the old one is spent.

use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use crate::engine::token::Trouble;
use crate::secret::Secret;
use crate::tokens::claims;
use crate::tokens::endpoint::{Received, RefreshAnswer, is_token};

/// Longest error code that is repeated in a log.
const CODE_LEN_MAX: usize = 40;

#[derive(Deserialize)]
struct Granted {
    access_token: Option<String>,
    refresh_token: Option<String>,
    expires_in: Option<Value>,
}

/// RFC 6749 section 5.2, or the form of Okta's own errors.
#[derive(Default, Deserialize)]
struct Refused {
    error: Option<String>,
    #[serde(rename = "errorCode")]
    error_code: Option<String>,
}

/// The code of a refusal (RFC 6749 section 5.2), when the answer is one.
#[must_use]
pub fn error_code(content: &[u8]) -> Option<String> {
    let refused: Refused = serde_json::from_slice(content).ok()?;
    refused.error.filter(|code| is_code(code))
}

/// The meaning of a whole answer.
#[must_use]
pub fn classify(status: StatusCode, content: &[u8]) -> RefreshAnswer {
    if status.is_success() {
        return granted(status, content);
    }
    let refused: Refused = serde_json::from_slice(content).unwrap_or_default();
    let code = refused.error.as_deref().or(refused.error_code.as_deref());
    let detail = match code.filter(|code| is_code(code)) {
        Some(code) => format!("the token endpoint answered {} {code}", status.as_u16()),
        None => format!("the token endpoint answered {}", status.as_u16()),
    };
    let trouble = match status {
        StatusCode::TOO_MANY_REQUESTS => Trouble::TooManyRequests,
        _ if status.is_server_error() => Trouble::ServerError,
        _ if code == Some("E0000047") => Trouble::TooManyRequests,
        _ if code == Some("invalid_grant") => return RefreshAnswer::InvalidGrant,
        _ if code == Some("invalid_client") || status == StatusCode::UNAUTHORIZED => {
            return RefreshAnswer::InvalidClient { detail };
        }
        StatusCode::FORBIDDEN => Trouble::Blocked,
        _ => Trouble::Unexpected,
    };
    RefreshAnswer::Trouble { trouble, detail }
}

fn granted(status: StatusCode, content: &[u8]) -> RefreshAnswer {
    let tokens: Option<Granted> = serde_json::from_slice(content).ok();
    let (access, refresh, expires_in) = match tokens {
        Some(tokens) => {
            (token(tokens.access_token), token(tokens.refresh_token), tokens.expires_in)
        }
        None => (None, None, None),
    };
    if access.is_none() && refresh.is_none() {
        let status = status.as_u16();
        let detail = format!("the token endpoint answered {status} without tokens");
        return RefreshAnswer::Trouble { trouble: Trouble::NotTokens, detail };
    }
    let expires_in = expires_in.as_ref().and_then(claims::seconds);
    RefreshAnswer::Received(Received { access, refresh, expires_in })
}

/// A token that can be sent: not empty, and fit for a header.
fn token(text: Option<String>) -> Option<Secret<String>> {
    let secret = Secret::new(text?);
    is_token(secret.expose()).then_some(secret)
}

/// Whether a text of the endpoint is a mere code, which cannot hold a token.
fn is_code(text: &str) -> bool {
    text.len() <= CODE_LEN_MAX && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn outcome(status: u16, content: &str) -> RefreshAnswer {
        classify(StatusCode::from_u16(status).unwrap(), content.as_bytes())
    }

    #[test]
    fn tokens_are_received() {
        for (content, life) in [
            (r#"{"access_token":"a","refresh_token":"r","expires_in":86400}"#, Some(86_400)),
            (r#"{"access_token":"a","refresh_token":"r","expires_in":"28800"}"#, Some(28_800)),
            (r#"{"access_token":"a","refresh_token":"r","token_type":"Bearer"}"#, None),
        ] {
            let RefreshAnswer::Received(received) = outcome(200, content) else {
                panic!("{content}")
            };
            assert_eq!(received.access.unwrap().expose(), "a");
            assert_eq!(received.refresh.unwrap().expose(), "r");
            assert_eq!(received.expires_in, life.map(Duration::from_secs));
        }
    }

    #[test]
    fn a_long_lived_key_brings_no_new_refresh_token() {
        for content in [r#"{"access_token":"a"}"#, r#"{"access_token":"a","refresh_token":""}"#] {
            let RefreshAnswer::Received(received) = outcome(200, content) else {
                panic!("{content}")
            };
            assert!(received.refresh.is_none());
        }
    }

    #[test]
    fn a_rotated_refresh_token_is_kept_even_without_an_access_token() {
        for content in [
            r#"{"refresh_token":"r"}"#,
            r#"{"access_token":"","refresh_token":"r"}"#,
            "{\"access_token\":\"a\\nb\",\"refresh_token\":\"r\"}",
        ] {
            let RefreshAnswer::Received(received) = outcome(200, content) else {
                panic!("{content}")
            };
            assert!(received.access.is_none());
            assert_eq!(received.refresh.unwrap().expose(), "r");
        }
    }

    #[test]
    fn only_a_json_invalid_grant_condemns() {
        let invalid = r#"{"error":"invalid_grant","error_description":"expired"}"#;
        assert_eq!(outcome(400, invalid).outcome(), "invalid_grant");
        let trouble = |status, content: &str| match outcome(status, content) {
            RefreshAnswer::Trouble { trouble, .. } => trouble,
            other => panic!("{other:?}"),
        };
        for (status, content, expected) in [
            (200, "", Trouble::NotTokens),
            (200, "<html>invalid_grant</html>", Trouble::NotTokens),
            (200, "{}", Trouble::NotTokens),
            (200, r#"{"access_token":7}"#, Trouble::NotTokens),
            (403, "<html>blocked</html>", Trouble::Blocked),
            (400, "<html>bad request</html>", Trouble::Unexpected),
            (400, r#"{"error":"invalid_request"}"#, Trouble::Unexpected),
            (302, "", Trouble::Unexpected),
            (429, invalid, Trouble::TooManyRequests),
            (400, r#"{"errorCode":"E0000047","errorSummary":"…"}"#, Trouble::TooManyRequests),
            (500, invalid, Trouble::ServerError),
            (504, "", Trouble::ServerError),
        ] {
            assert_eq!(trouble(status, content), expected, "{status} {content}");
        }
    }

    #[test]
    fn a_refused_client_is_told_apart() {
        for (status, content) in [
            (401, r#"{"error":"invalid_client"}"#),
            (400, r#"{"error":"invalid_client"}"#),
            (401, r#"{"errorCode":"E0000015"}"#),
            (401, "<html></html>"),
        ] {
            assert_eq!(outcome(status, content).outcome(), "invalid_client", "{content}");
        }
    }

    #[test]
    fn texts_of_the_endpoint_are_not_repeated_unless_they_are_codes() {
        let answer = outcome(400, r#"{"error":"the token abc.def.ghi is bad"}"#);
        assert_eq!(answer.to_string(), "the token endpoint answered 400");
        assert_eq!(
            outcome(400, r#"{"error":"invalid_scope"}"#).to_string(),
            "the token endpoint answered 400 invalid_scope"
        );
    }
}
