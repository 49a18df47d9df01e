//! Answers, with the exact bodies that the real service is known to give.
//!
//! The gateway answers with one JSON object, the services behind it with an array of them, the
//! token endpoint as RFC 6749 section 5.2 says. No answer carries a rate-limit header or
//! `Retry-After`: none was ever seen.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Frame, SizeHint};
use serde::Serialize;
use serde_json::{Value, json};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=UTF-8");
/// Set on gateway errors by AWS API Gateway; seen on a real 401.
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

/// An answer that has not been sent.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// Boxed, so that answers are cheap to hand around.
    pub(super) headers: Box<HeaderMap>,
    pub(super) body: Bytes,
}

impl Answer {
    fn new(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Self {
        let headers = Box::new(HeaderMap::from_iter([(CONTENT_TYPE, content_type)]));
        Self { status, headers, body: body.into() }
    }

    /// A JSON body.
    pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Self {
        let body =
            serde_json::to_vec(body).expect("these values have text keys and always serialize");
        Self::new(status, JSON, body)
    }

    /// A status and nothing else.
    pub(super) fn bare(status: StatusCode) -> Self {
        Self { status, headers: Box::default(), body: Bytes::new() }
    }

    /// 200 with a JSON type and no body.
    pub(super) fn empty() -> Self {
        Self::new(StatusCode::OK, JSON, Bytes::new())
    }

    /// A page as a front before the service would show.
    pub(super) fn html(status: StatusCode) -> Self {
        let title = status.canonical_reason().unwrap_or("Error");
        let page = format!(
            "<!DOCTYPE html>\n<html><head><title>{title}</title></head>\n\
             <body><h1>{title}</h1></body></html>\n"
        );
        Self::new(status, HTML, page)
    }

    /// A status chosen by a fault.
    pub(super) fn failure(status: StatusCode, target: FailureForm) -> Self {
        let reason = status.canonical_reason().unwrap_or("error");
        match target {
            FailureForm::Api => problem(status, "sandbox.fault", reason),
            FailureForm::Token => oauth_error(status, "server_error", reason),
        }
    }

    /// A redirect; the token endpoint's neighbours give them.
    pub(super) fn redirect(location: HeaderValue) -> Self {
        let headers = Box::new(HeaderMap::from_iter([(LOCATION, location)]));
        Self { status: StatusCode::FOUND, headers, body: Bytes::new() }
    }

    /// The same with `Retry-After`.
    pub(super) fn retry_after(mut self, secs: u32) -> Self {
        self.headers.insert(RETRY_AFTER, HeaderValue::from(secs));
        self
    }

    /// The answer as it is sent.
    pub(super) fn into_response(self) -> Response<Body> {
        self.respond(Fate::Whole)
    }

    /// The answer's head and the first half of its body, after which the connection breaks.
    pub(super) fn into_cut_response(self) -> Response<Body> {
        self.respond(Fate::Cut)
    }

    fn respond(self, fate: Fate) -> Response<Body> {
        let mut response = Response::new(Body { data: self.body, fate, sent: false });
        *response.status_mut() = self.status;
        *response.headers_mut() = *self.headers;
        response
    }
}

/// Which service's error form a failure takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureForm {
    Api,
    Token,
}

/// 401 of the gateway.
pub(super) fn unauthorized() -> Answer {
    let mut answer = gateway_error(StatusCode::UNAUTHORIZED, "unauthorized", "Unauthorized");
    let realm = HeaderValue::from_static("Bearer realm=api.cc.email");
    answer.headers.insert(WWW_AUTHENTICATE, realm);
    answer.headers.insert(ERROR_TYPE, HeaderValue::from_static("UnauthorizedException"));
    answer
}

/// 429 of the gateway for the second.
pub(super) fn throttled() -> Answer {
    gateway_error(StatusCode::TOO_MANY_REQUESTS, "throttled", "Too Many Requests")
}

/// 429 of the gateway for the day.
pub(super) fn quota_exceeded() -> Answer {
    gateway_error(StatusCode::TOO_MANY_REQUESTS, "quota_exceeded", "Limit Exceeded")
}

/// 413 of the gateway.
pub(super) fn too_large() -> Answer {
    gateway_error(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", "Request Too Large")
}

/// 403 of the gateway outside its paths.
pub(super) fn forbidden() -> Answer {
    Answer::json(StatusCode::FORBIDDEN, &json!({"message": "Forbidden"}))
}

/// An error of a service behind the gateway.
pub(super) fn problem(status: StatusCode, key: &str, message: &str) -> Answer {
    Answer::json(status, &[GatewayError { error_key: key, error_message: message }])
}

/// An error of the token endpoint (RFC 6749 section 5.2).
pub(super) fn oauth_error(status: StatusCode, error: &str, description: &str) -> Answer {
    let mut answer =
        Answer::json(status, &json!({"error": error, "error_description": description}));
    if status == StatusCode::UNAUTHORIZED {
        let realm = HeaderValue::from_static("Basic realm=\"authz.constantcontact.com\"");
        answer.headers.insert(WWW_AUTHENTICATE, realm);
    }
    answer
}

/// Tokens, not to be kept by caches (RFC 6749 section 5.1).
pub(super) fn tokens(body: &Value) -> Answer {
    let mut answer = Answer::json(StatusCode::OK, body);
    answer.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// The fields in the order in which the gateway writes them.
#[derive(Serialize)]
struct GatewayError<'a> {
    error_key: &'a str,
    error_message: &'a str,
}

fn gateway_error(status: StatusCode, key: &str, message: &str) -> Answer {
    Answer::json(status, &GatewayError { error_key: key, error_message: message })
}

/// The connection is to be closed without (the rest of) an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the sandbox closes this connection")
    }
}

impl std::error::Error for Closed {}

/// A body that is sent whole, or half and then breaks.
#[derive(Debug)]
pub(super) struct Body {
    data: Bytes,
    fate: Fate,
    sent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Whole,
    Cut,
    /// The half is out; one more turn lets it reach the wire before the break.
    Breaking,
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Closed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Closed>>> {
        if !self.sent {
            self.sent = true;
            let data = match self.fate {
                Fate::Whole => std::mem::take(&mut self.data),
                Fate::Cut | Fate::Breaking => self.data.slice(..self.data.len() / 2),
            };
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
        match self.fate {
            Fate::Whole => Poll::Ready(None),
            Fate::Cut => {
                self.fate = Fate::Breaking;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Fate::Breaking => Poll::Ready(Some(Err(Closed))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.fate == Fate::Whole && self.data.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match self.fate {
            Fate::Whole | Fate::Cut if !self.sent => SizeHint::with_exact(self.data.len() as u64),
            Fate::Whole => SizeHint::with_exact(self.data.len() as u64),
            Fate::Cut | Fate::Breaking => SizeHint::default(),
        }
    }
}
