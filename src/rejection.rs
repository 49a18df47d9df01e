//! Every answer that the proxy makes itself, in one place: reason, status, key, words and when to
//! come back.
//!
//! A refusal is expected, answered and counted; the upstream was not asked. The body is one JSON
//! object as the upstream's gateway answers, so that clients that parse only that form still
//! understand it, and `Proxy-Status` (RFC 9209) marks it as ours.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Response, StatusCode};

/// `Proxy-Status` (RFC 9209).
pub const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// Bounds of `Retry-After`: some clients sleep for as long as they are told, so it is never long.
const RETRY_AFTER_SECS_MIN: u64 = 1;
const RETRY_AFTER_SECS_MAX: u64 = 30;

macro_rules! reasons {
    ($(
        $(#[$doc:meta])*
        $name:ident = $text:literal, $status:ident, $key:literal, $proxy_error:literal;
    )*) => {
        /// Why the proxy refused. The names are public: they stand in `Proxy-Status`, metrics and
        /// logs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// All reasons, in the order of the README's table.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its public name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The status of the answer.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            /// The `error_key` of the body; where the upstream has one for the case it is the
            /// upstream's.
            #[must_use]
            pub const fn error_key(self) -> &'static str {
                match self { $(Self::$name => $key,)* }
            }

            /// The RFC 9209 section 2.3 error type.
            const fn proxy_error(self) -> &'static str {
                match self { $(Self::$name => $proxy_error,)* }
            }
        }
    };
}

reasons! {
    /// The request is malformed or asks for what a proxy of this kind does not do.
    BadRequest = "bad_request",
        BAD_REQUEST, "proxy.bad_request", "http_request_error";
    /// No client key, or one that nobody holds.
    ClientUnauthenticated = "client_unauthenticated",
        UNAUTHORIZED, "unauthorized", "http_request_denied";
    /// The caller's address has shown too many wrong client keys.
    LoginsLimited = "logins_limited",
        TOO_MANY_REQUESTS, "throttled", "http_request_denied";
    /// The account's owner must connect it again.
    TenantNeedsAuthorization = "tenant_needs_authorization",
        UNAUTHORIZED, "unauthorized", "http_request_denied";
    /// The access token that the caller brought has ended.
    TokenExpired = "token_expired",
        UNAUTHORIZED, "unauthorized", "http_request_denied";
    /// The client may not act for this tenant.
    TenantForbidden = "tenant_forbidden",
        FORBIDDEN, "proxy.tenant_forbidden", "http_request_denied";
    /// There is no such tenant.
    TenantUnknown = "tenant_unknown",
        NOT_FOUND, "proxy.tenant_unknown", "destination_not_found";
    /// The path is not below `/v3`.
    NotFound = "not_found",
        NOT_FOUND, "proxy.not_found", "destination_not_found";
    /// The body is longer than `server.max_body`.
    RequestTooLarge = "request_too_large",
        PAYLOAD_TOO_LARGE, "proxy.request_too_large", "http_request_denied";
    /// A bulk import is longer than the upstream reads; it would cut the rest off without a word.
    ImportTooLarge = "import_too_large",
        PAYLOAD_TOO_LARGE, "proxy.import_too_large", "http_request_denied";
    /// The queue of the API key or of the tenant is full.
    QueueFull = "queue_full",
        TOO_MANY_REQUESTS, "throttled", "http_request_denied";
    /// The wait that is to be expected is longer than the caller's limit.
    WaitTooLong = "wait_too_long",
        TOO_MANY_REQUESTS, "throttled", "http_request_denied";
    /// The caller's limit passed while the call waited.
    WaitExpired = "wait_expired",
        TOO_MANY_REQUESTS, "throttled", "http_request_denied";
    /// The API key's calls of this day are used up.
    DayQuotaSpent = "day_quota_spent",
        TOO_MANY_REQUESTS, "quota_exceeded", "http_request_denied";
    /// No valid token, and the token endpoint does not give one now.
    TokenUnavailable = "token_unavailable",
        SERVICE_UNAVAILABLE, "proxy.token_unavailable", "destination_unavailable";
    /// The store cannot record that a call leaves.
    StoreUnavailable = "store_unavailable",
        SERVICE_UNAVAILABLE, "proxy.store_unavailable", "proxy_internal_error";
    /// The proxy is being stopped.
    ShuttingDown = "shutting_down",
        SERVICE_UNAVAILABLE, "proxy.shutting_down", "http_request_denied";
    /// No connection to the upstream, or it broke before an answer.
    UpstreamUnreachable = "upstream_unreachable",
        BAD_GATEWAY, "proxy.upstream_unreachable", "destination_unavailable";
    /// No answer from the upstream within `upstream.timeout`.
    UpstreamTimeout = "upstream_timeout",
        GATEWAY_TIMEOUT, "proxy.upstream_timeout", "http_response_timeout";
    /// A bug in the proxy.
    Internal = "internal",
        INTERNAL_SERVER_ERROR, "proxy.internal", "proxy_internal_error";
}

/// A refusal, ready to be answered: the reason, what happened and what to do, and when to come
/// back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    reason: Reason,
    message: String,
    retry_after: Option<Duration>,
}

impl Rejection {
    /// A refusal for `reason`; `message` says what happened and what to do, and holds no secret.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        let retry_after = match reason {
            Reason::LoginsLimited
            | Reason::QueueFull
            | Reason::WaitTooLong
            | Reason::WaitExpired
            | Reason::TokenUnavailable
            | Reason::StoreUnavailable
            | Reason::ShuttingDown => Some(Duration::from_secs(RETRY_AFTER_SECS_MIN)),
            Reason::BadRequest
            | Reason::ClientUnauthenticated
            | Reason::TenantNeedsAuthorization
            | Reason::TokenExpired
            | Reason::TenantForbidden
            | Reason::TenantUnknown
            | Reason::NotFound
            | Reason::RequestTooLarge
            | Reason::ImportTooLarge
            | Reason::DayQuotaSpent
            | Reason::UpstreamUnreachable
            | Reason::UpstreamTimeout
            | Reason::Internal => None,
        };
        Self { reason, message: message.into(), retry_after }
    }

    /// The same, to be tried again after `wait`; only reasons that have a `Retry-After` take it.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        if self.retry_after.is_some() {
            self.retry_after = Some(wait);
        }
        self
    }

    /// Why.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        self.reason
    }

    /// What happened and what to do.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The answer, complete but for the headers that every answer carries.
    #[must_use]
    pub fn to_response(&self) -> Response<Bytes> {
        let body = serde_json::json!({
            "error_key": self.reason.error_key(),
            "error_message": self.message,
        });
        let mut response = Response::new(Bytes::from(body.to_string()));
        *response.status_mut() = self.reason.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(PROXY_STATUS, self.proxy_status());
        if let Some(wait) = self.retry_after {
            let secs = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers
                .insert(RETRY_AFTER, secs.clamp(RETRY_AFTER_SECS_MIN, RETRY_AFTER_SECS_MAX).into());
        }
        if self.reason.status() == StatusCode::UNAUTHORIZED {
            headers
                .insert(WWW_AUTHENTICATE, HeaderValue::from_static(r#"Bearer realm="ctct-proxy""#));
        }
        response
    }

    fn proxy_status(&self) -> HeaderValue {
        let text = format!(
            r#"ctct-proxy; error={}; details="{}""#,
            self.reason.proxy_error(),
            self.reason.as_str()
        );
        HeaderValue::from_str(&text).expect("both parts are visible ASCII constants")
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.as_str(), self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_the_form_of_the_upstreams_gateway() {
        let response = Rejection::new(Reason::QueueFull, "2000 calls wait; come back later")
            .retry_after(Duration::from_millis(2_500))
            .to_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[RETRY_AFTER], "3");
        assert_eq!(
            response.headers()[PROXY_STATUS],
            r#"ctct-proxy; error=http_request_denied; details="queue_full""#
        );
        assert_eq!(
            response.body(),
            r#"{"error_key":"throttled","error_message":"2000 calls wait; come back later"}"#
        );
    }

    #[test]
    fn retry_after_stays_between_1_and_30_seconds_and_never_marks_a_spent_day() {
        let secs = |reason, wait| {
            let response =
                Rejection::new(reason, "").retry_after(Duration::from_secs(wait)).to_response();
            response.headers().get(RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(secs(Reason::WaitTooLong, 0).as_deref(), Some("1"));
        assert_eq!(secs(Reason::WaitTooLong, 4_000).as_deref(), Some("30"));
        assert_eq!(secs(Reason::DayQuotaSpent, 4_000), None);
    }

    #[test]
    fn every_401_says_how_to_authenticate() {
        for reason in Reason::ALL {
            let response = Rejection::new(*reason, "").to_response();
            let challenged = response.headers().contains_key(WWW_AUTHENTICATE);
            assert_eq!(
                challenged,
                reason.status() == StatusCode::UNAUTHORIZED,
                "{}",
                reason.as_str()
            );
        }
    }
}
