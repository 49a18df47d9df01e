//! What an answer of the API says about the limits.
//!
//! The two gateway 429s differ only by `error_key` in the body (`ctct` documentation, "V3 API Rate
//! Limits"), so the beginning of a refusal's body is read and passed on unchanged with the rest.
//! Since callers' `Accept-Encoding` is passed on, it may be compressed: what gateways use (gzip and
//! deflate) is read here too.

use std::borrow::Cow;
use std::io::Read as _;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
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
        let plain = body.and_then(|body| plain(headers, body));
        return match plain.as_deref().and_then(error_key) {
            Some(Key::Throttled) => Outcome::Throttled,
            Some(Key::QuotaExceeded) => Outcome::QuotaExceeded,
            Some(Key::Other) => Outcome::Capped,
            // edges answer in HTML; this one is cut off, late, or of a coding that is not known
            // here, and most refusals are for the second
            None if is_json(headers) => Outcome::Throttled,
            None => Outcome::Edge,
        };
    }
    let edges = [StatusCode::FORBIDDEN, StatusCode::SERVICE_UNAVAILABLE];
    if edges.contains(&status) && is_html(headers) {
        return Outcome::Edge;
    }
    Outcome::Answered(match status {
        StatusCode::UNAUTHORIZED => Health::Unauthorized,
        StatusCode::FORBIDDEN => Health::Forbidden,
        _ if status.is_client_error() || status.is_server_error() => Health::Error,
        _ => Health::Good,
    })
}

/// The body without its coding, as far as it came and no more than [`LOOK_MAX`] of it; `None` when
/// the coding is not known here.
fn plain<'a>(headers: &HeaderMap, body: &'a [u8]) -> Option<Cow<'a, [u8]>> {
    let coding = match headers.get(CONTENT_ENCODING) {
        Some(value) => value.to_str().ok()?.trim().to_ascii_lowercase(),
        None => return Some(Cow::Borrowed(body)),
    };
    let most = u64::try_from(LOOK_MAX).unwrap_or(u64::MAX);
    let mut plain = Vec::new();
    // what was read before a mistake is judged like a body that was cut off
    let _ = match coding.as_str() {
        "" | "identity" => return Some(Cow::Borrowed(body)),
        "gzip" | "x-gzip" => MultiGzDecoder::new(body).take(most).read_to_end(&mut plain),
        "deflate" => ZlibDecoder::new(body).take(most).read_to_end(&mut plain),
        _ => return None,
    };
    Some(Cow::Owned(plain))
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
    use std::io::Write as _;

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
        assert_eq!(of(429, json, r#"{"error_key":"x"}"#), Outcome::Capped);
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
        assert_eq!(of(401, "application/json", "{}"), Outcome::Answered(Health::Unauthorized));
        assert_eq!(of(403, "application/json", "{}"), Outcome::Answered(Health::Forbidden));
        assert_eq!(of(403, "text/html; charset=utf-8", ""), Outcome::Edge);
        assert_eq!(of(503, "text/html", ""), Outcome::Edge);
        for status in [404, 500, 502, 503] {
            assert_eq!(of(status, "application/json", ""), Outcome::Answered(Health::Error));
        }
    }

    fn coded(coding: &'static str, body: &[u8]) -> Outcome {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_ENCODING, http::HeaderValue::from_static(coding));
        outcome(StatusCode::TOO_MANY_REQUESTS, &headers, Some(body))
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn compressed_refusals_are_read() {
        let spent = br#"{"error_key":"quota_exceeded","error_message":"Limit Exceeded"}"#;
        let other = br#"{"error_key":"activities.queued.max","error_message":"x"}"#;
        assert_eq!(coded("gzip", &gzip(spent)), Outcome::QuotaExceeded);
        assert_eq!(coded(" GZIP", &gzip(other)), Outcome::Capped);
        assert_eq!(coded("identity", other), Outcome::Capped);
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        zlib.write_all(spent).unwrap();
        assert_eq!(coded("deflate", &zlib.finish().unwrap()), Outcome::QuotaExceeded);
        let whole = gzip(spent);
        assert_eq!(coded("gzip", &whole[..20]), Outcome::Throttled, "cut off");
        assert_eq!(coded("br", spent), Outcome::Throttled, "a coding that is not known here");
    }

    #[test]
    fn a_refusal_that_swells_is_not_unpacked_to_its_end() {
        let bomb = gzip(&vec![b' '; 50 * LOOK_MAX]);
        assert!(bomb.len() < LOOK_MAX);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, http::HeaderValue::from_static("gzip"));
        assert_eq!(plain(&headers, &bomb).unwrap().len(), LOOK_MAX);
    }
}
