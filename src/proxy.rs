//! The path of one call, one line per step.
//!
//! | step | file | from → to |
//! | --- | --- | --- |
//! | identify | `identify` | head of the request → caller, tenant, class, deadline |
//! | take in | `intake` | body → kept bytes, or a stream that goes once |
//! | wait | `gate` | ticket → permit |
//! | authorize | `tokens` | tenant → bearer |
//! | forward, settle | `exchange` | request → answer and outcome |
//! | repeat or answer | `call` | outcome → again through the queue, or the answer |
//!
//! Every answer that is not the upstream's own is a [`Rejection`]. A panic ends the request, not
//! the process.

mod answer;
mod call;
mod classify;
mod exchange;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod headers;
mod identify;
mod intake;
mod passthrough;
mod record;
mod strangers;
mod target;
mod text;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio_util::task::TaskTracker;

use crate::clients::Clients;
use crate::clock::Clock;
use crate::config::Passthrough;
use crate::engine::ApiKeyName;
use crate::gate::Gate;
use crate::issuer::Issuer;
use crate::listen::Logins;
use crate::phase::SharedPhase;
use crate::rejection::{Reason, Rejection};
use crate::store::News;
use crate::telemetry::Metrics;
use crate::tokens::Tokens;
use crate::upstream::Upstream;

pub use answer::{AnswerBody, AnswerError, Patience};
use intake::KeptBytes;
use record::Record;

/// What a reload may change while calls wait.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Serve callers without a client key.
    pub allow_anonymous: bool,
    /// Whether callers' own access tokens are forwarded.
    pub passthrough: Passthrough,
    /// The API keys by their client ids.
    pub client_ids: HashMap<String, ApiKeyName>,
    /// Calls come over loopback only.
    pub on_loopback: bool,
    /// Longest wait when the caller states none.
    pub max_wait: Duration,
    /// Longest wait that a caller may ask for.
    pub max_wait_limit: Duration,
    /// Longest body, in bytes.
    pub max_body: u64,
    /// Longest body that is kept so that a call can be sent again, in bytes.
    pub replay_buffer: u64,
    /// From sending to the head of the answer, and from one part of its body to the next.
    pub upstream_timeout: Duration,
}

/// What the data plane stands on.
pub struct Parts {
    /// What a reload may change.
    pub settings: Settings,
    /// Who may call.
    pub clients: Clients,
    /// Where calls wait.
    pub gate: Gate,
    /// Good tokens.
    pub tokens: Tokens,
    /// What other instances have made.
    pub news: News,
    /// Connections to the API.
    pub upstream: Upstream,
    /// Knows tokens that callers bring.
    pub issuer: Issuer,
    /// Counts.
    pub metrics: Metrics,
    /// Reads time.
    pub clock: Clock,
    /// Whether the process stops.
    pub phase: SharedPhase,
    /// Wrong client keys of an address.
    pub logins: Logins,
    /// Runs exchanges whose caller has left.
    pub tracker: TaskTracker,
}

/// The data plane; clones share everything.
#[derive(Clone)]
pub struct Proxy(Arc<Inner>);

struct Inner {
    settings: ArcSwap<Settings>,
    clients: Clients,
    gate: Gate,
    tokens: Tokens,
    news: News,
    upstream: Upstream,
    issuer: Issuer,
    metrics: Metrics,
    clock: Clock,
    phase: SharedPhase,
    logins: Logins,
    tracker: TaskTracker,
    kept: KeptBytes,
    /// Requests under way, so that a stop can wait for them.
    active: TaskTracker,
}

impl Proxy {
    /// A data plane that serves at once.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner {
            settings: ArcSwap::from_pointee(parts.settings),
            clients: parts.clients,
            gate: parts.gate,
            tokens: parts.tokens,
            news: parts.news,
            upstream: parts.upstream,
            issuer: parts.issuer,
            metrics: parts.metrics,
            clock: parts.clock,
            phase: parts.phase,
            logins: parts.logins,
            tracker: parts.tracker,
            kept: KeptBytes::default(),
            active: TaskTracker::new(),
        }))
    }

    /// Changes the settings for calls that arrive from now on.
    pub fn reconfigure(&self, settings: Settings) {
        self.0.settings.store(Arc::new(settings));
    }

    /// Waits until no request waits or is being served.
    pub async fn idle(&self) {
        self.0.active.close();
        self.0.active.wait().await;
    }

    /// Answers one request; never fails.
    pub async fn handle(self, request: Request<Incoming>) -> Response<AnswerBody> {
        let _active = self.0.active.token();
        let mut record = Record::start(&request, &self.0.clock);
        let mut request = request.map(Some);
        let served = AssertUnwindSafe(async {
            identify::refuse_pages(&self.0.settings.load(), &request)?;
            call::serve(&self.0, &mut request, &mut record).await
        });
        let result = served.catch_unwind().await.unwrap_or_else(|_| {
            // the panic itself was logged where it happened
            Err(Rejection::new(
                Reason::Internal,
                "the proxy has a bug that ended this request; its log has the details",
            ))
        });
        if result.is_err()
            && let Some(unread) = request.body_mut().take()
        {
            Box::pin(intake::discard(unread, request.headers())).await;
        }
        record.answer(&self.0, result)
    }
}
