//! The two listeners: bound, behind TLS where that is configured, and served.
//!
//! It is here that a listener whose callers' keys would cross a network in plain text is told of.

use std::net::SocketAddr;

use anyhow::{Context as _, anyhow};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::parts;
use crate::clock::Clock;
use crate::config::{Config, TlsFiles};
use crate::listen::tls::{self, Callers};
use crate::listen::{Bounds, Listener, Tls};
use crate::proxy::Proxy;
use crate::telemetry::Metrics;

/// The listeners, bound, but not served yet.
pub(super) struct Doors {
    data: Listener,
    admin: Listener,
    bounds: Bounds,
    certificates: Certificates,
}

/// The certificates of the listeners that have some.
#[derive(Clone)]
pub(super) struct Certificates {
    data: Option<Tls>,
    admin: Option<Tls>,
}

impl Doors {
    /// Binds both and reads their certificates.
    pub(super) async fn bind(
        config: &Config,
        clock: &Clock,
        metrics: &Metrics,
    ) -> anyhow::Result<Self> {
        let (server, admin) = (&config.server, &config.admin);
        let load = |section, files: Option<&TlsFiles>, callers| {
            let Some(files) = files.cloned() else { return Ok(None) };
            let (clock, metrics) = (clock.clone(), metrics.clone());
            Tls::load(tls::Parts { section, files, callers, clock, metrics })
                .map(Some)
                .map_err(|problem| anyhow!("could not set up TLS: {problem}"))
        };
        let certificates = Certificates {
            data: load("server", server.tls.as_ref(), Callers::MayShow)?,
            admin: load("admin", admin.tls.as_ref(), Callers::MustShow)?,
        };
        let data = bind(server.listen, "server.listen").await?;
        let admin = bind(server.admin_listen, "server.admin_listen").await?;
        let bounds = Bounds {
            max_connections: server.max_connections,
            header_timeout: server.header_timeout,
        };
        Ok(Self {
            data: data.with_tls(certificates.data.clone()),
            admin: admin.with_tls(certificates.admin.clone()),
            bounds,
            certificates,
        })
    }

    /// Where calls are served, and where the admin API is.
    pub(super) const fn addresses(&self) -> (SocketAddr, SocketAddr) {
        (self.data.address(), self.admin.address())
    }

    pub(super) fn certificates(&self) -> Certificates {
        self.certificates.clone()
    }

    /// Serves both until `unlisten`.
    pub(super) fn open(
        self,
        proxy: Proxy,
        router: axum::Router,
        tracker: &TaskTracker,
        unlisten: &CancellationToken,
    ) -> Vec<JoinHandle<()>> {
        let (data, admin) = self.addresses();
        warn_of_plain_text(data, self.certificates.data.as_ref(), "client keys", "server.tls_cert");
        let admin_tls = self.certificates.admin.as_ref();
        warn_of_plain_text(admin, admin_tls, "the admin token", "admin.tls_cert");
        for tls in self.certificates.all() {
            tracker.spawn(tls.clone().follow(unlisten.clone()));
        }
        let serve = move |request| proxy.clone().handle(request);
        let administer = move |request| parts::routed(router.clone(), request);
        let bounds = self.bounds;
        vec![
            tracker.spawn(self.data.serve(bounds, serve, tracker.clone(), unlisten.clone())),
            tracker.spawn(self.admin.serve(bounds, administer, tracker.clone(), unlisten.clone())),
        ]
    }
}

impl Certificates {
    fn all(&self) -> impl Iterator<Item = &Tls> {
        [&self.data, &self.admin].into_iter().flatten()
    }

    /// Looks at their files again.
    pub(super) async fn look(&self) {
        for tls in self.all() {
            tls.look().await;
        }
    }
}

async fn bind(address: SocketAddr, key: &'static str) -> anyhow::Result<Listener> {
    Listener::bind(address).await.with_context(|| {
        format!("could not listen on {address} ({key}); is it in use, or not of this machine?")
    })
}

fn warn_of_plain_text(at: SocketAddr, tls: Option<&Tls>, what: &str, setting: &str) {
    if tls.is_none() && !at.ip().is_loopback() {
        warn!(
            address = %at,
            "{what} would cross the network in plain text; set {setting}, or let only what ends \
             TLS reach this listener"
        );
    }
}
