//! What is known of a request while it is served, and the last step: its answer, its counts, its
//! access line.

use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, Uri};

use super::Inner;
use super::answer::AnswerBody;
use super::headers::{REQUEST_ID, X_REQUEST_ID, strip_hop_by_hop};
use super::identify::Caller;
use super::text::Text;
use crate::clock::Clock;
use crate::engine::{Mono, TenantName};
use crate::gate::{KeyGate, Waited};
use crate::rejection::{PROXY_STATUS, Reason, Rejection};
use crate::store::Client;
use crate::telemetry::{self, AccessLine};

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Longest request id that is taken from a caller.
const REQUEST_ID_LEN_MAX: usize = 128;
/// Seconds in a quota day.
const DAY_SECS: u64 = 86_400;

/// What is known of a request.
pub(super) struct Record {
    request_id: HeaderValue,
    method: Method,
    uri: Uri,
    started: Mono,
    client: Option<Arc<Client>>,
    tenant: Option<TenantName>,
    key: Option<KeyGate>,
    queue: Duration,
    token: Duration,
    upstream: Duration,
    attempts: u32,
}

impl Record {
    pub(super) fn start<B>(request: &Request<B>, clock: &Clock) -> Self {
        Self {
            request_id: request_id(request.headers()),
            method: request.method().clone(),
            uri: request.uri().clone(),
            started: clock.mono(),
            client: None,
            tenant: None,
            key: None,
            queue: Duration::ZERO,
            token: Duration::ZERO,
            upstream: Duration::ZERO,
            attempts: 0,
        }
    }

    pub(super) const fn started(&self) -> Mono {
        self.started
    }

    pub(super) fn is_from(&mut self, caller: &Caller) {
        self.client.clone_from(&caller.client);
        self.tenant = Some(caller.tenant.clone());
        self.key = Some(caller.key.clone());
    }

    pub(super) fn waited(&mut self, waited: Waited) {
        self.queue += waited.queue;
        self.token += waited.token;
    }

    pub(super) fn sent(&mut self, upstream: Duration) {
        self.attempts += 1;
        self.upstream += upstream;
    }

    /// Makes the answer, counts it and writes the access line.
    pub(super) fn answer(
        self,
        proxy: &Inner,
        result: Result<Response<AnswerBody>, Rejection>,
    ) -> Response<AnswerBody> {
        let (mut answer, reason) = match result {
            Ok(answer) => (answer, None),
            Err(rejection) => {
                proxy.metrics.refusal(rejection.reason());
                (rejection.to_response().map(AnswerBody::from), Some(rejection.reason()))
            }
        };
        let headers = answer.headers_mut();
        strip_hop_by_hop(headers);
        if reason.is_none() && headers.get(PROXY_STATUS).is_some_and(claims_to_be_ours) {
            headers.remove(PROXY_STATUS);
        }
        headers.insert(X_REQUEST_ID, self.request_id.clone());
        headers.append(SERVER_TIMING, self.server_timing());
        let status = answer.status().as_u16();
        match &self.key {
            Some(key) => {
                rate_limit(answer.headers_mut(), key, reason == Some(Reason::DayQuotaSpent));
                key.metrics().request(status);
            }
            None => proxy.metrics.request_without_key(status),
        }
        self.access(proxy, status, reason, http_body::Body::size_hint(answer.body()).exact());
        answer
    }

    fn server_timing(&self) -> HeaderValue {
        let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        Text::new()
            .text("queue;dur=")
            .thousandths(micros(self.queue))
            .text(", token;dur=")
            .thousandths(micros(self.token))
            .text(", upstream;dur=")
            .thousandths(micros(self.upstream))
            .value()
    }

    fn access(&self, proxy: &Inner, status: u16, reason: Option<Reason>, bytes: Option<u64>) {
        if !tracing::enabled!(target: "ctct_proxy::access", tracing::Level::INFO) {
            return;
        }
        telemetry::access(&AccessLine {
            request_id: self.request_id.to_str().unwrap_or_default(),
            client: self.client.as_ref().map(|client| client.name.as_str()),
            tenant: self.tenant.as_ref().map(TenantName::as_str),
            api_key: self.key.as_ref().map(|key| key.name().as_str()),
            method: self.method.as_str(),
            path: self.uri.path(),
            status,
            reason,
            queue: self.queue,
            token: self.token,
            upstream: self.upstream,
            total: proxy.clock.mono().since(self.started),
            attempts: self.attempts,
            bytes,
        });
    }
}

/// The limits of the API key (draft-ietf-httpapi-ratelimit-headers).
fn rate_limit(headers: &mut HeaderMap, key: &KeyGate, day_is_spent: bool) {
    let mut quota = key.quota();
    if day_is_spent {
        // the call that learned it is answered before the board is written
        quota.day_left = 0;
    }
    let mut policy = Text::new();
    policy
        .text(r#""second";q="#)
        .number(quota.calls)
        .text(";w=")
        .number(quota.window_secs)
        .text(r#", "day";q="#)
        .number(quota.day_limit)
        .text(";w=")
        .number(DAY_SECS);
    let mut left = Text::new();
    left.text(r#""day";r="#).number(quota.day_left).text(";t=").number(quota.day_resets_secs);
    headers.insert(RATELIMIT_POLICY, policy.value());
    headers.insert(RATELIMIT, left.value());
}

/// The caller's own id when it is usable, else a new one.
pub(super) fn request_id(headers: &HeaderMap) -> HeaderValue {
    let usable = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        (1..=REQUEST_ID_LEN_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    };
    let given = headers.get(X_REQUEST_ID).or_else(|| headers.get(REQUEST_ID)).filter(usable);
    given.cloned().unwrap_or_else(new_request_id)
}

#[expect(clippy::disallowed_methods, reason = "request ids are one of the places of chance")]
fn new_request_id() -> HeaderValue {
    Text::new().hex(rand::random()).value()
}

fn claims_to_be_ours(value: &HeaderValue) -> bool {
    value.as_bytes().windows(10).any(|name| name == b"ctct-proxy")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usable_request_id_is_kept_and_another_is_replaced() {
        let with = |name: HeaderName, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            request_id(&headers)
        };
        assert_eq!(with(X_REQUEST_ID, "abc-1"), "abc-1");
        assert_eq!(with(REQUEST_ID, "abc-2"), "abc-2");
        assert_eq!(with(X_REQUEST_ID, "two words").len(), 32);
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }
}
