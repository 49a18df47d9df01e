//! What an answer of the API says about the limits.
//!
//! The two gateway 429s differ only by `error_key` in the body (`ctct` documentation, "V3 API Rate
//! Limits"), so the beginning of a refusal's body is read and passed on unchanged with the rest.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::engine::outcome::{Health, Outcome};

/// Most of a refusal's body that is looked at.
const LOOK_MAX: usize = 64 * 1_024;
/// Longest time for a refusal's body to come.
const LOOK_TIME: Duration = Duration::from_secs(5);

/// The body's beginning, when the answer is one that has to be looked into.
pub(super) async fn look(answer: &mut Response<Incoming>) -> Option<Bytes> {
    if answer.status() != StatusCode::TOO_MANY_REQUESTS {
        return None;
    }
    let body = answer.body_mut();
    let mut read = BytesMut::new();
    let reading = async {
        while read.len() < LOOK_MAX && !body.is_end_stream() {
            match body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        read.extend_from_slice(&data);
                    }
                }
                Some(Err(_)) | None => break,
            }
        }
    };
    // what has come by then is enough to go on with
    let _ = tokio::time::timeout(LOOK_TIME, reading).await;
    Some(read.freeze())
}

/// What the answer says about the limits.
pub(super) fn outcome(status: StatusCode, headers: &HeaderMap, body: Option<&[u8]>) -> Outcome {
    if status == StatusCode::TOO_MANY_REQUESTS {
        return match body.and_then(error_key) {
            Some(Key::Throttled) => Outcome::Throttled,
            Some(Key::QuotaExceeded) => Outcome::QuotaExceeded,
            Some(Key::Other) => Outcome::Answered(Health::Error),
            // edges answer in HTML; this one is compressed, cut off or late
            None if is_json(headers) => Outcome::Throttled,
            None => Outcome::Edge,
        };
    }
    if status == StatusCode::FORBIDDEN && is_html(headers) {
        return Outcome::Edge;
    }
    let bad = status.is_client_error() || status.is_server_error();
    Outcome::Answered(if bad { Health::Error } else { Health::Good })
}

enum Key {
    Throttled,
    QuotaExceeded,
    Other,
}

/// The `error_key` of a JSON body, in an object or in an array of them; `None` when it is not JSON.
fn error_key(body: &[u8]) -> Option<Key> {
    let json: serde_json::Value = serde_json::from_slice(body).ok()?;
    let object = json.as_array().and_then(|items| items.first()).unwrap_or(&json);
    Some(match object.get("error_key").and_then(serde_json::Value::as_str) {
        Some("throttled") => Key::Throttled,
        Some("quota_exceeded") => Key::QuotaExceeded,
        Some(_) | None => Key::Other,
    })
}

fn is_html(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|name| name == "text/html")
}

fn is_json(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|name| name == "application/json" || name.ends_with("+json"))
}

/// The media type without its parameters, in lower case.
fn media_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(text.split(';').next()?.trim().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, content_type: &'static str, body: &str) -> Outcome {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
        outcome(StatusCode::from_u16(status).unwrap(), &headers, Some(body.as_bytes()))
    }

    #[test]
    fn refusals_are_told_apart_by_their_error_key() {
        let json = "application/json";
        let throttled = r#"{"error_key":"throttled","error_message":"Too Many Requests"}"#;
        let spent = r#"{"error_key":"quota_exceeded","error_message":"Limit Exceeded"}"#;
        assert_eq!(of(429, json, throttled), Outcome::Throttled);
        assert_eq!(of(429, json, spent), Outcome::QuotaExceeded);
        assert_eq!(of(429, json, &format!("[{throttled}]")), Outcome::Throttled);
        assert_eq!(of(429, json, r#"{"error_key":"x"}"#), Outcome::Answered(Health::Error));
        assert_eq!(of(429, "text/html", "<html>"), Outcome::Edge);
        assert_eq!(of(429, "", ""), Outcome::Edge);
    }

    #[test]
    fn a_refusal_in_json_that_cannot_be_read_is_no_edge() {
        for body in ["", "\u{1f}\u{8b}\u{8}compressed", r#"{"error_key":"throt"#] {
            assert_eq!(of(429, "application/json; charset=utf-8", body), Outcome::Throttled);
            assert_eq!(of(429, "application/problem+json", body), Outcome::Throttled);
            assert_eq!(of(429, "text/html", body), Outcome::Edge);
        }
    }

    #[test]
    fn other_answers_are_the_callers_business() {
        assert_eq!(of(200, "text/html", ""), Outcome::Answered(Health::Good));
        assert_eq!(of(403, "application/json", "{}"), Outcome::Answered(Health::Error));
        assert_eq!(of(403, "text/html; charset=utf-8", ""), Outcome::Edge);
        assert_eq!(of(503, "text/html", ""), Outcome::Answered(Health::Error));
    }
}
