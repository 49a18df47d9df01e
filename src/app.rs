//! The composition root: everything put together, started, changed and stopped.
//!
//! It decides nothing about calls or tokens. It starts what is needed in order (store, tokens,
//! gates, listeners), carries word between the shells that may not know each other, and undoes it
//! all in the opposite order.

mod bridge;
mod doors;
mod follow;
mod instance;
mod observe;
mod parts;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ClientConfig;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::admin;
use crate::clients::Clients;
use crate::clock::Clock;
use crate::config::Config;
use crate::connect::{self, Connect};
use crate::gate::{self, Gate};
use crate::issuer::{self, Issuer};
use crate::listen::Logins;
use crate::phase::{Phase, SharedPhase};
use crate::proxy::{self, Proxy};
use crate::store::{InstanceInfo, News, Store};
use crate::telemetry::{Event, Events, Metrics};
use crate::tokens::{self, HttpTokenEndpoint, Tokens};
use crate::upstream::{self, Connector, Upstream};

use bridge::Bridge;
use doors::{Certificates, Doors};
use follow::{Follower, Shells};

/// The version, in `build_info` and the user agent.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Longest time beyond the drain time for a refresh that is under way to end and be stored.
const REFRESH_GRACE: Duration = Duration::from_secs(5);
/// Longest time beyond the drain time for the gates, and for the store, to close.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// A running proxy.
pub struct App {
    config: Arc<ArcSwap<Config>>,
    phase: SharedPhase,
    events: Events,
    store: Arc<dyn Store>,
    gate: Gate,
    tokens: Tokens,
    clients: Clients,
    proxy: Proxy,
    bridge: Bridge,
    data_address: SocketAddr,
    admin_address: SocketAddr,
    certificates: Certificates,
    listeners: Vec<JoinHandle<()>>,
    /// Ends the listeners.
    unlisten: CancellationToken,
    /// Ends everything that runs for as long as the process.
    stopped: CancellationToken,
}

impl App {
    /// Starts a proxy; it serves when this returns.
    ///
    /// # Errors
    /// What kept it from starting, in words that say what to do; nothing is left half done.
    pub async fn start(config: Config, clock: Clock) -> anyhow::Result<Self> {
        let metrics = Metrics::new(VERSION);
        let doors = Doors::bind(&config, &clock, &metrics).await?;
        let measured = parts::open_store(&config, &metrics, &clock).await?;
        let store_failing = measured.failing();
        let store: Arc<dyn Store> = Arc::new(measured);
        let (data_address, admin_address) = doors.addresses();
        let ground = Ground {
            instance: instance::info(data_address, admin_address, &clock),
            events: Events::new(clock.clone()),
            clock,
            metrics,
            phase: SharedPhase::new(),
            store,
            tracker: TaskTracker::new(),
            stopped: CancellationToken::new(),
        };
        let tls = upstream::tls(config.upstream.ca_file.as_deref())?;
        let endpoint = HttpTokenEndpoint::with_tls(tls.clone());
        let (news, follower) = Follower::before_reading(&ground.store).await?;
        let (gate, tokens, bridge) = ground.shells(&config, endpoint.clone()).await?;
        let clients = Clients::load(ground.store.clone(), ground.clock.clone()).await?;
        let proxy = ground.proxy(&config, tls, (&gate, &tokens, &clients), news);
        let config = Arc::new(ArcSwap::from_pointee(config));
        let router = ground.admin(&config, (&gate, &tokens, &clients), endpoint);
        let (certificates, unlisten) = (doors.certificates(), CancellationToken::new());
        let listeners = doors.open(proxy.clone(), router, &ground.tracker, &unlisten);
        let shells =
            Shells { gate: gate.clone(), tokens: tokens.clone(), clients: clients.clone() };
        if let Some(follower) = follower {
            follower.start(shells, &ground.clock, &ground.tracker, &ground.stopped);
        }
        ground.watch_store(store_failing);
        parts::record_client_use(&clients, &ground.clock, &ground.tracker, &ground.stopped);
        ground.phase.set(Phase::Ready);
        info!(data = %data_address, admin = %admin_address, version = VERSION, "serving");
        let Ground { phase, events, store, stopped, .. } = ground;
        Ok(Self {
            config,
            phase,
            events,
            store,
            gate,
            tokens,
            clients,
            proxy,
            bridge,
            data_address,
            admin_address,
            certificates,
            listeners,
            unlisten,
            stopped,
        })
    }

    /// Where calls are served.
    #[must_use]
    pub const fn data_address(&self) -> SocketAddr {
        self.data_address
    }

    /// Where the admin API is served.
    #[must_use]
    pub const fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// The tenants.
    #[must_use]
    pub const fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// The clients.
    #[must_use]
    pub const fn clients(&self) -> &Clients {
        &self.clients
    }

    /// The gates.
    #[must_use]
    pub const fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Longest time that a stop takes.
    #[must_use]
    pub fn drain_timeout(&self) -> Duration {
        self.config.load().server.drain_timeout
    }

    /// Changes limits, queue settings and API keys to those of `config`. No waiting call and no
    /// count is lost. What needs a restart is named in the log and stays as it was.
    ///
    /// # Errors
    /// When the store cannot say which API keys are held; nothing is changed then.
    pub async fn reload(&self, config: Config) -> anyhow::Result<()> {
        let paused = self.store.paused_api_keys().await?;
        let before = self.config.load_full();
        for key in parts::fixed_differences(&before, &config) {
            warn!(key, "this setting is taken at the next start, not by a reload");
        }
        let config = parts::with_fixed_of(&before, config);
        self.gate.reconfigure(parts::limits(&config), &paused);
        self.tokens.reload_keys(parts::key_auths(&config), parts::token_settings(&config)).await;
        self.proxy.reconfigure(parts::settings(&config));
        self.certificates.look().await;
        self.config.store(Arc::new(config));
        self.bridge.announce_all();
        info!("the configuration was reloaded");
        Ok(())
    }

    /// Stops in order: new calls are refused, waiting ones served for half of the drain time, those
    /// in flight finished, tokens stored, counts given back, the store closed. `false` when that
    /// took longer than it may; tokens are stored and the store is closed then too, if it can be.
    pub async fn stop(self) -> bool {
        let drain = self.drain_timeout();
        info!(?drain, "stopping");
        self.phase.set(Phase::Draining);
        self.events.publish(Event::Draining);
        let done = tokio::time::timeout(drain, self.wind_down(drain)).await;
        self.stopped.cancel();
        if let Ok(in_order) = done {
            return in_order;
        }
        warn!("the drain time is over; what is not finished is cut off");
        self.save().await;
        false
    }

    async fn wind_down(&self, drain: Duration) -> bool {
        self.gate.stop(drain / 2);
        // From half of the time on no call waits, so none needs a new token; those in flight have
        // theirs and may take all of it, which must not keep refreshes from being stored.
        let tokens = async {
            let _ = tokio::time::timeout(drain / 2, self.proxy.idle()).await;
            self.tokens.drain().await;
        };
        tokio::join!(self.proxy.idle(), tokens);
        self.gate.close().await;
        // streams of events end here, so that the admin listener can
        self.stopped.cancel();
        self.unlisten.cancel();
        while self.listeners.iter().any(|listener| !listener.is_finished()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.clients.record_use().await;
        match self.store.close().await {
            Ok(()) => true,
            Err(error) => {
                warn!(%error, "the store did not close cleanly; what it has acknowledged is kept");
                false
            }
        }
    }

    /// After the drain time: what must outlive the process is stored as far as it can be. A refresh
    /// token works once, so a refresh that has been sent for is worth a few seconds more: cut off,
    /// it would cost a customer's connection.
    async fn save(&self) {
        if tokio::time::timeout(REFRESH_GRACE, self.tokens.drain()).await.is_err() {
            warn!("a refresh is cut off; what became of it is found out at the next start");
        }
        // a count that is not given back stays too high, which harms nobody
        let _ = tokio::time::timeout(CLOSE_GRACE, self.gate.close()).await;
        let closed = tokio::time::timeout(CLOSE_GRACE, self.store.close()).await;
        if !matches!(closed, Ok(Ok(()))) {
            warn!("the store did not close cleanly; what it has acknowledged is kept");
        }
    }
}

/// What everything else stands on.
struct Ground {
    instance: InstanceInfo,
    clock: Clock,
    metrics: Metrics,
    events: Events,
    phase: SharedPhase,
    store: Arc<dyn Store>,
    tracker: TaskTracker,
    stopped: CancellationToken,
}

impl Ground {
    async fn shells(
        &self,
        config: &Config,
        endpoint: HttpTokenEndpoint,
    ) -> anyhow::Result<(Gate, Tokens, Bridge)> {
        let (demands, demanded) = mpsc::unbounded_channel();
        let (changes, news) = mpsc::unbounded_channel();
        let paused = self.store.paused_api_keys().await?;
        let gate = gate::Parts {
            sharing: parts::sharing(&self.store, &self.instance, config),
            store: self.store.clone(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            events: self.events.clone(),
            demands,
            tracker: self.tracker.clone(),
            stopped: self.stopped.clone(),
            seed: parts::seed(),
        };
        let gate = Gate::start(gate, parts::limits(config), &paused);
        let tokens = tokens::Parts {
            store: self.store.clone(),
            clock: self.clock.clone(),
            exchange: Arc::new(endpoint),
            keys: parts::key_auths(config),
            settings: parts::token_settings(config),
            seed: parts::seed(),
            changes,
            observer: observe::observer(&self.metrics, &self.events),
            tracker: self.tracker.clone(),
        };
        let tokens = Tokens::start(tokens).await?;
        let bridge = Bridge::start(&gate, &tokens, news, demanded, &self.tracker, &self.stopped);
        Ok((gate, tokens, bridge))
    }

    fn proxy(
        &self,
        config: &Config,
        tls: ClientConfig,
        (gate, tokens, clients): (&Gate, &Tokens, &Clients),
        news: News,
    ) -> Proxy {
        let issuer = Issuer::new(issuer::Parts {
            jwks_url: config.oauth.jwks_url.clone(),
            issuer: config.oauth.issuer.clone(),
            audience: config.oauth.audience.clone(),
            tls: tls.clone(),
            clock: self.clock.clone(),
            tracker: self.tracker.clone(),
        });
        let upstream = Upstream::new(upstream::Parts {
            url: config.upstream.url.clone(),
            connector: Connector::new(tls),
            connect_timeout: config.upstream.connect_timeout,
            clock: self.clock.clone(),
            tracker: self.tracker.clone(),
            stopped: self.stopped.clone(),
        });
        Proxy::new(proxy::Parts {
            settings: parts::settings(config),
            clients: clients.clone(),
            gate: gate.clone(),
            tokens: tokens.clone(),
            news,
            upstream,
            issuer,
            metrics: self.metrics.clone(),
            clock: self.clock.clone(),
            phase: self.phase.clone(),
            logins: Logins::new(config.server.failed_logins, self.clock.clone()),
            tracker: self.tracker.clone(),
        })
    }

    fn admin(
        &self,
        config: &Arc<ArcSwap<Config>>,
        (gate, tokens, clients): (&Gate, &Tokens, &Clients),
        endpoint: HttpTokenEndpoint,
    ) -> axum::Router {
        let connect = Connect::new(connect::Parts {
            store: self.store.clone(),
            tokens: tokens.clone(),
            gate: gate.clone(),
            endpoint,
            config: config.clone(),
            events: self.events.clone(),
            clock: self.clock.clone(),
            tracker: self.tracker.clone(),
            stopped: self.stopped.clone(),
        });
        admin::router(admin::Parts {
            connect,
            gate: gate.clone(),
            tokens: tokens.clone(),
            clients: clients.clone(),
            metrics: self.metrics.clone(),
            events: self.events.clone(),
            clock: self.clock.clone(),
            config: config.clone(),
            store: self.store.clone(),
            admin_token: config.load().admin.token.clone(),
            instance: self.instance.clone(),
            logins: Logins::new(config.load().server.failed_logins, self.clock.clone()),
            phase: self.phase.clone(),
            tracker: self.tracker.clone(),
            stopped: self.stopped.clone(),
        })
    }

    fn watch_store(&self, failing: Arc<AtomicBool>) {
        parts::watch_store(
            &self.store,
            failing,
            &self.phase,
            &self.clock,
            &self.tracker,
            &self.stopped,
        );
    }
}
