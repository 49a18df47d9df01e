//! The admin listener's router: who may change what, and what an operator sees.
//!
//! It knows nothing by itself: the gate, the token keeper and the clients are asked for each
//! answer. It does not listen, and it decides nothing about calls. Always true: a change runs to
//! its end also when the operator who asked for it goes away, it leaves one line in the log (target
//! `ctct_proxy::audit`, with the operator's address), and no answer or line holds a token or a key
//! but the answers that give a client its key.

mod answers;
mod api_keys;
mod auth;
mod body;
mod callback;
mod clients;
mod connect;
mod document;
mod errors;
mod events;
mod export;
mod hand_in;
mod health;
mod instances;
mod keys;
mod names;
mod page;
mod tenants;

#[cfg(test)]
mod tests;

use std::any::Any;
use std::future::Future;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::State;
use axum::middleware;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tracing::{Instrument as _, error};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::clients::Clients;
use crate::clock::Clock;
use crate::config::Config;
use crate::connect::Connect;
use crate::gate::Gate;
use crate::listen::Logins;
use crate::phase::SharedPhase;
use crate::secret::Secret;
use crate::store::{InstanceInfo, Store};
use crate::telemetry::{Events, Metrics};
use crate::tokens::Tokens;

use auth::AdminToken;
use errors::AdminError;
use events::Feed;

/// The target of the lines that changes leave in the log.
const AUDIT: &str = "ctct_proxy::audit";

/// What the admin listener stands on.
pub struct Parts {
    /// Queues and days.
    pub gate: Gate,
    /// Tenants.
    pub tokens: Tokens,
    /// Clients.
    pub clients: Clients,
    /// Connects accounts.
    pub connect: Connect,
    /// The page that Prometheus reads.
    pub metrics: Metrics,
    /// What happens.
    pub events: Events,
    /// Reads time.
    pub clock: Clock,
    /// The configuration as it is now.
    pub config: Arc<ArcSwap<Config>>,
    /// Where held API keys are remembered.
    pub store: Arc<dyn Store>,
    /// The bearer token that operators must show, if any.
    pub admin_token: Option<Secret<String>>,
    /// What this instance says of itself.
    pub instance: InstanceInfo,
    /// Wrong tokens of an address.
    pub logins: Logins,
    /// Whether the process is ready.
    pub phase: SharedPhase,
    /// Runs changes and the event feed.
    pub tracker: TaskTracker,
    /// Ends the event streams.
    pub stopped: CancellationToken,
}

/// What all handlers share.
struct Shared {
    parts: Parts,
    token: Option<AdminToken>,
    feed: Feed,
    /// What `GET /openapi.json` answers.
    document: Bytes,
    /// Held while an API key or a client is changed, so that store and memory see changes in the
    /// same order. Tenants have their own order, the token keeper's.
    order: Mutex<()>,
    /// Browsers that come back, at a time.
    callbacks: Semaphore,
}

/// How handlers get at it.
type Desk = State<Arc<Shared>>;

/// The router of the admin listener. Must be called within a runtime: it starts the event feed.
pub fn router(parts: Parts) -> Router {
    let (routes, document) = routes().split_for_parts();
    dress(routes, Shared::new(parts, document))
}

fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::with_openapi(document::opened())
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(health::metrics))
        .routes(routes!(document::read))
        .routes(routes!(api_keys::list))
        .routes(routes!(api_keys::show))
        .routes(routes!(api_keys::pause))
        .routes(routes!(api_keys::resume))
        .routes(routes!(tenants::list))
        .routes(routes!(tenants::show, tenants::put, tenants::remove))
        .routes(routes!(tenants::refresh))
        .routes(routes!(tenants::pause))
        .routes(routes!(tenants::resume))
        .routes(routes!(connect::standing, connect::begin))
        .routes(routes!(callback::come_back))
        .routes(routes!(clients::list, clients::add))
        .routes(routes!(clients::remove))
        .routes(routes!(clients::rotate))
        .routes(routes!(export::export))
        .routes(routes!(instances::list))
        .routes(routes!(keys::show))
        .routes(routes!(keys::rotate))
        .routes(routes!(events::stream))
}

/// Puts around the routes what holds for all of them.
fn dress(routes: Router<Arc<Shared>>, shared: Arc<Shared>) -> Router {
    let header = SetResponseHeaderLayer::overriding;
    routes
        .fallback(async || AdminError::nothing_here())
        .method_not_allowed_fallback(async || AdminError::method_not_allowed())
        .layer(middleware::from_fn_with_state(shared.clone(), auth::guard))
        .layer(CatchPanicLayer::custom(after_panic))
        .layer(header(CACHE_CONTROL, HeaderValue::from_static("no-store")))
        .layer(header(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")))
        .with_state(shared)
}

/// The answer to a request whose handler panicked. The panic's words may hold anything and are left
/// to the panic hook.
fn after_panic(_: Box<dyn Any + Send>) -> Response {
    error!("a handler of the admin listener panicked");
    AdminError::internal().into_response()
}

impl Shared {
    fn new(parts: Parts, document: OpenApi) -> Arc<Self> {
        let token = parts.admin_token.as_ref().map(AdminToken::new);
        let (feed, hub) = Feed::new(&parts);
        let tracker = parts.tracker.clone();
        let callbacks = Semaphore::new(callback::AT_A_TIME);
        let document = document::closed(document, token.is_some());
        let order = Mutex::default();
        let shared = Arc::new(Self { parts, token, feed, document, order, callbacks });
        tracker.spawn(hub.run(Arc::downgrade(&shared)));
        shared
    }

    /// Runs a change to its end in a task of its own, so that an operator who goes away does not
    /// leave it half done.
    async fn change<T: Send + 'static>(
        &self,
        change: impl Future<Output = Result<T, AdminError>> + Send + 'static,
    ) -> Result<T, AdminError> {
        self.parts.tracker.spawn(change.in_current_span()).await.unwrap_or_else(|_| {
            error!("a change that an operator asked for panicked");
            Err(AdminError::internal())
        })
    }
}
