//! From the configuration to what each part takes, and the small parts that are only put together.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use tracing::{info, warn};

use crate::clients::Clients;
use crate::clock::Clock;
use crate::config::{Config, OnStoreLoss, StoreUrl};
use crate::engine::scheduler::Limits;
use crate::engine::turnstile::OnLoss;
use crate::engine::{ApiKeyName, token};
use crate::gate::Sharing;
use crate::phase::{Phase, SharedPhase};
use crate::proxy::Settings;
use crate::store::{self, InstanceInfo, Measured, Store};
use crate::telemetry::Metrics;
use crate::tokens::KeyAuth;

/// How often the store is asked whether it can be written.
const STORE_ASKED_EVERY: Duration = Duration::from_secs(5);
/// How often it is written down when clients last called.
const CLIENT_USE_EVERY: Duration = Duration::from_secs(60);

pub(super) fn limits(config: &Config) -> Vec<(ApiKeyName, Limits)> {
    let limits = |key: &crate::config::ApiKey| Limits {
        rate: key.rate,
        guard: key.guard,
        per_day: key.per_day,
        day_reset: key.day_reset,
        reserve: key.reserve,
        in_flight_max: config.upstream.max_in_flight,
        capacity: config.queue.capacity,
        capacity_per_tenant: config.queue.capacity_per_tenant,
    };
    config.api_keys.iter().map(|key| (key.name.clone(), limits(key))).collect()
}

pub(super) fn key_auths(config: &Config) -> Vec<(ApiKeyName, KeyAuth)> {
    let auth = |key: &crate::config::ApiKey| KeyAuth {
        client_id: key.client_id.clone(),
        secret: key.client_secret.clone(),
        auth_style: key.auth_style,
        token_url: key.token_url.clone(),
    };
    config.api_keys.iter().map(|key| (key.name.clone(), auth(key))).collect()
}

pub(super) fn token_settings(config: &Config) -> token::Settings {
    token::Settings {
        refresh_interval: config.oauth.refresh_interval,
        refresh_margin: config.oauth.refresh_margin,
        refresh_ahead: config.oauth.refresh_ahead,
        keep_alive_after: config.oauth.keep_alive_after,
    }
}

pub(super) fn settings(config: &Config) -> Settings {
    Settings {
        allow_anonymous: config.server.allow_anonymous,
        passthrough: config.server.passthrough,
        client_ids: config
            .api_keys
            .iter()
            .map(|key| (key.client_id.clone(), key.name.clone()))
            .collect(),
        on_loopback: config.server.listen.ip().is_loopback(),
        max_wait: config.queue.max_wait,
        max_wait_limit: config.queue.max_wait_limit,
        max_body: config.server.max_body,
        replay_buffer: config.server.replay_buffer,
        upstream_timeout: config.upstream.timeout,
    }
}

/// The keys of settings that a reload cannot change and that differ.
pub(super) fn fixed_differences(before: &Config, after: &Config) -> Vec<&'static str> {
    let (a, b) = (before, after);
    let differs = [
        ("server.listen", a.server.listen != b.server.listen),
        ("server.admin_listen", a.server.admin_listen != b.server.admin_listen),
        ("server.max_connections", a.server.max_connections != b.server.max_connections),
        ("server.header_timeout", a.server.header_timeout != b.server.header_timeout),
        ("server.failed_logins", a.server.failed_logins != b.server.failed_logins),
        ("upstream.url", a.upstream.url != b.upstream.url),
        ("upstream.connect_timeout", a.upstream.connect_timeout != b.upstream.connect_timeout),
        ("upstream.ca_file", a.upstream.ca_file != b.upstream.ca_file),
        ("oauth.jwks_url", a.oauth.jwks_url != b.oauth.jwks_url),
        ("oauth.issuer", a.oauth.issuer != b.oauth.issuer),
        ("oauth.audience", a.oauth.audience != b.oauth.audience),
        ("store.url", a.store.url != b.store.url),
        ("store.encryption_key_file", a.store.encryption_key_file != b.store.encryption_key_file),
        ("admin.token_file", a.admin.token != b.admin.token),
        ("server.tls_cert, tls_key or client_ca", a.server.tls != b.server.tls),
        ("admin.tls_cert, tls_key or client_ca", a.admin.tls != b.admin.tls),
    ];
    differs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

/// `after`, with the settings that a reload cannot change as they were.
pub(super) fn with_fixed_of(before: &Config, mut after: Config) -> Config {
    after.server.listen = before.server.listen;
    after.server.admin_listen = before.server.admin_listen;
    after.server.max_connections = before.server.max_connections;
    after.server.header_timeout = before.server.header_timeout;
    after.server.tls.clone_from(&before.server.tls);
    after.server.failed_logins = before.server.failed_logins;
    after.upstream.url = before.upstream.url.clone();
    after.upstream.connect_timeout = before.upstream.connect_timeout;
    after.upstream.ca_file.clone_from(&before.upstream.ca_file);
    after.oauth.jwks_url = before.oauth.jwks_url.clone();
    after.oauth.issuer.clone_from(&before.oauth.issuer);
    after.oauth.audience.clone_from(&before.oauth.audience);
    after.store = before.store.clone();
    after.admin = before.admin.clone();
    after
}

/// Opens the store and says in the log with which key.
pub(super) async fn open_store(
    config: &Config,
    metrics: &Metrics,
    clock: &Clock,
) -> anyhow::Result<Measured> {
    let opened = store::open(&config.store).await?;
    if config.store.url == StoreUrl::Memory {
        warn!("the store is memory: tenants, tokens and counts are gone when the process ends");
    }
    if let Some(key) = &opened.key {
        info!("{key}");
        if let Some(warning) = key.warning() {
            warn!("{warning}");
        }
    }
    Ok(Measured::new(opened.store, metrics.clone(), clock.clone()))
}

/// What this instance shares with others, if it may.
pub(super) fn sharing(
    store: &Arc<dyn Store>,
    instance: &InstanceInfo,
    config: &Config,
) -> Option<Sharing> {
    let on_loss = match config.store.on_loss {
        OnStoreLoss::Closed => OnLoss::Refuse,
        OnStoreLoss::Degraded => OnLoss::GoOn { lasting: config.store.degraded_for },
    };
    Some(Sharing { turnstile: store.turnstile(instance)?, on_loss })
}

/// Keeps `/readyz` true to the store.
pub(super) fn watch_store(
    store: &Arc<dyn Store>,
    failing: Arc<AtomicBool>,
    phase: &SharedPhase,
    clock: &Clock,
    tracker: &TaskTracker,
    stopped: &CancellationToken,
) {
    let (store, phase, clock) = (store.clone(), phase.clone(), clock.clone());
    let stopped = stopped.clone();
    tracker.spawn(async move {
        loop {
            let next = clock.now().mono.plus(STORE_ASKED_EVERY);
            tokio::select! {
                () = clock.sleep_until(next) => {}
                () = stopped.cancelled() => return,
            }
            let up = store.ping().await.is_ok() && !failing.load(Ordering::Relaxed);
            phase.set(if up { Phase::Ready } else { Phase::StoreDown });
        }
    });
}

/// Keeps what the store knows of the clients' last calls true to a minute.
pub(super) fn record_client_use(
    clients: &Clients,
    clock: &Clock,
    tracker: &TaskTracker,
    stopped: &CancellationToken,
) {
    let (clients, clock, stopped) = (clients.clone(), clock.clone(), stopped.clone());
    tracker.spawn(async move {
        loop {
            let next = clock.now().mono.plus(CLIENT_USE_EVERY);
            tokio::select! {
                () = clock.sleep_until(next) => clients.record_use().await,
                () = stopped.cancelled() => return,
            }
        }
    });
}

/// A request through the admin router, whose own error type has no value.
pub(super) async fn routed(
    router: axum::Router,
    request: Request<Incoming>,
) -> Response<axum::body::Body> {
    let answer: Result<_, Infallible> = router.oneshot(request).await;
    answer.unwrap_or_else(|never| match never {})
}

/// Spreads back-off over instances.
#[expect(clippy::disallowed_methods, reason = "a seed is one of the places of chance")]
pub(super) fn seed() -> u64 {
    rand::random()
}
