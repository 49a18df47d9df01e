//! The whole router, asked in memory, over the real gate, token keeper and clients.
//!
//! Every answer that passes through here is searched for secrets; only the answer that creates a
//! client may show its key.

mod access;
mod api_keys;
mod clients;
mod document;
mod events;
mod instances;
mod tenants;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::{Parts, Shared, dress, router, routes};
use crate::clients::Clients;
use crate::clock::Clock;
use crate::config::{self, ApiKey, AuthStyle, Config, LogFormat, Plan, StoreUrl};
use crate::connect::{self, Connect};
use crate::engine::scheduler::Limits;
use crate::engine::token::Settings as TokenSettings;
use crate::engine::{ApiKeyName, DayReset, Guard, Reserve, TenantName, Unix};
use crate::gate::{self, Gate, Sharing};
use crate::listen::{Logins, Peer};
use crate::phase::{Phase, SharedPhase};
use crate::secret::Secret;
use crate::store::{self, InstanceInfo, MemoryStore, Store};
use crate::telemetry::{Events, Metrics};
use crate::tokens::{
    self, HttpTokenEndpoint, KeyAuth, NoObserver, Received, RefreshAnswer, TenantChange,
    TokenEndpoint, Tokens,
};

/// 2026-11-24T06:00:00Z
const START: Unix = Unix::from_secs(1_795_500_000);
const FAILED_LOGINS: u32 = 3;
const ADMIN_TOKEN: &str = "secret-of-the-operator";
/// In every token that tests hand in or receive.
const MARK: &str = "secret-of-a-tenant";

/// A proxy without its listeners.
struct Bench {
    router: Router,
    gate: Gate,
    clients: Clients,
    events: Events,
    clock: Clock,
    store: Arc<MemoryStore>,
    phase: SharedPhase,
    stopped: CancellationToken,
    changes: mpsc::UnboundedReceiver<TenantChange>,
}

impl Bench {
    async fn open() -> Self {
        Self::with_token(None).await
    }

    async fn with_token(admin_token: Option<&str>) -> Self {
        Self::built(admin_token, None, router).await
    }

    async fn built(
        admin_token: Option<&str>,
        sharing: Option<Sharing>,
        build: impl FnOnce(Parts) -> Router,
    ) -> Self {
        let clock = Clock::starting_at(START);
        let store = Arc::new(MemoryStore::default());
        let (metrics, events) = (Metrics::new("1.2.3"), Events::new(clock.clone()));
        let (tracker, stopped) = (TaskTracker::new(), CancellationToken::new());
        let config = config();
        let parts = gate::Parts {
            sharing,
            store: store.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            events: events.clone(),
            demands: mpsc::unbounded_channel().0,
            tracker: tracker.clone(),
            stopped: stopped.clone(),
            seed: 1,
        };
        let gate = Gate::start(parts, limits(&config), &std::collections::BTreeSet::new());
        let (sender, changes) = mpsc::unbounded_channel();
        let tokens = Tokens::start(tokens::Parts {
            store: store.clone(),
            clock: clock.clone(),
            exchange: Arc::new(Endpoint),
            keys: config.api_keys.iter().map(|key| (key.name.clone(), key_auth(key))).collect(),
            settings: TokenSettings {
                refresh_interval: config.oauth.refresh_interval,
                refresh_margin: config.oauth.refresh_margin,
                refresh_ahead: config.oauth.refresh_ahead,
                keep_alive_after: config.oauth.keep_alive_after,
            },
            seed: 1,
            changes: sender,
            observer: Arc::new(NoObserver),
            tracker: tracker.clone(),
        });
        let tokens = tokens.await.unwrap();
        let clients = Clients::load(store.clone(), clock.clone()).await.unwrap();
        let phase = SharedPhase::new();
        let config = Arc::new(ArcSwap::from_pointee(config));
        let connect = Connect::new(connect::Parts {
            store: store.clone(),
            tokens: tokens.clone(),
            gate: gate.clone(),
            endpoint: HttpTokenEndpoint::with_system_roots().unwrap(),
            config: config.clone(),
            events: events.clone(),
            clock: clock.clone(),
            tracker: tracker.clone(),
            stopped: stopped.clone(),
        });
        let router = build(Parts {
            gate: gate.clone(),
            connect,
            tokens,
            clients: clients.clone(),
            metrics,
            events: events.clone(),
            clock: clock.clone(),
            config,
            store: store.clone(),
            admin_token: admin_token.map(Secret::from),
            instance: instance(),
            logins: Logins::new(FAILED_LOGINS, clock.clone()),
            phase: phase.clone(),
            tracker,
            stopped: stopped.clone(),
        });
        Self { router, gate, clients, events, clock, store, phase, stopped, changes }
    }

    /// Sends a request as `curl` on the same machine would.
    async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        self.send(request(method, path).body(body).unwrap()).await
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let no_body = request.method() == Method::HEAD;
        let path = request.uri().path();
        let is_key = path.starts_with("/v1/clients")
            && (path.ends_with("/clients") || path.ends_with("/rotate"));
        let gives_key = request.method() == Method::POST && is_key;
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(body.to_vec()).unwrap();
        let all = format!("{:?} {text}", head.headers);
        for secret in [MARK, ADMIN_TOKEN] {
            assert!(!all.contains(secret), "{secret} is in {all}");
        }
        let shows_key = gives_key && head.status.is_success();
        assert_eq!(all.contains("ctp_"), shows_key, "{all}");
        assert_eq!(head.headers["x-content-type-options"], "nosniff");
        assert_eq!(head.headers["cache-control"], "no-store");
        let answer = Answer { status: head.status.as_u16(), headers: head.headers, text };
        let page = no_body || answer.text.starts_with("<!DOCTYPE html>");
        if answer.status >= 400 && !page && !answer.text.contains(r#""status":"#) {
            assert!(answer.error().starts_with("admin."), "{}", answer.text);
            assert!(answer.message().len() > 10, "{}", answer.text);
        }
        answer
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, None).await
    }

    async fn post(&self, path: &str) -> Answer {
        self.ask("POST", path, None).await
    }

    /// Puts a tenant of API key `main` whose tokens are good.
    async fn put(&self, tenant: &str) -> Answer {
        self.ask("PUT", &format!("/v1/tenants/{tenant}"), Some(grant("main"))).await
    }
}

fn instance() -> InstanceInfo {
    let details = json!({
        "host": "here",
        "listen": "127.0.0.1:8080",
        "admin_listen": "127.0.0.1:9090",
        "version": "1.2.3",
        "started_at": "2026-11-24T06:00:00.000Z",
    });
    let (id, name) = ("00000000000000aa".to_owned(), "here/127.0.0.1:8080".to_owned());
    InstanceInfo { id, name, details: details.to_string() }
}

/// A request on its way.
fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(path).header("host", "127.0.0.1:9090")
}

/// What came back.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    fn error(&self) -> String {
        self.json()["error_key"].as_str().unwrap_or_default().to_owned()
    }

    fn message(&self) -> String {
        self.json()["error_message"].as_str().unwrap_or_default().to_owned()
    }

    /// Asserts an error of this status and key whose message holds `words`.
    #[track_caller]
    fn assert_error(&self, status: u16, key: &str, words: &str) {
        assert_eq!((self.status, self.error().as_str()), (status, key), "{}", self.text);
        assert!(self.message().contains(words), "{words:?} is not in {}", self.text);
    }

    /// The names in `field` of the items of a list.
    fn names(&self, field: &str) -> Vec<String> {
        let items = self.json()["items"].as_array().unwrap().clone();
        items.iter().map(|item| item[field].as_str().unwrap().to_owned()).collect()
    }
}

/// A good grant.
fn grant(api_key: &str) -> Value {
    let client_id = format!("id-of-{api_key}");
    let access = jwt(&json!({ "cid": client_id, "exp": START.as_secs() + 86_400 }));
    json!({ "api_key": api_key, "refresh_token": MARK, "access_token": access })
}

/// A token that looks like the upstream's.
fn jwt(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{MARK}", part(&json!({ "alg": "RS256" })), part(claims))
}

fn tenant(name: &str) -> TenantName {
    TenantName::new(name).unwrap()
}

fn api_key(name: &str) -> ApiKeyName {
    ApiKeyName::new(name).unwrap()
}

/// A token endpoint that looks at the token to know what to say.
struct Endpoint;

#[async_trait]
impl TokenEndpoint for Endpoint {
    async fn refresh(&self, key: &KeyAuth, token: &Secret<String>) -> RefreshAnswer {
        if token.expose().contains("dead") {
            return RefreshAnswer::InvalidGrant;
        }
        let claims = json!({ "cid": key.client_id, "exp": START.as_secs() + 90_000 });
        RefreshAnswer::Received(Received {
            access: Some(Secret::new(jwt(&claims))),
            refresh: None,
            expires_in: None,
        })
    }
}

fn key_auth(key: &ApiKey) -> KeyAuth {
    KeyAuth {
        client_id: key.client_id.clone(),
        secret: None,
        auth_style: AuthStyle::Public,
        token_url: key.token_url.clone(),
    }
}

fn limits(config: &Config) -> Vec<(ApiKeyName, Limits)> {
    let limits = |key: &ApiKey| Limits {
        rate: key.rate,
        guard: key.guard,
        per_day: key.per_day,
        day_reset: key.day_reset,
        reserve: key.reserve,
        in_flight_max: 64,
        capacity: 100,
        capacity_per_tenant: 100,
    };
    config.api_keys.iter().map(|key| (key.name.clone(), limits(key))).collect()
}

fn configured(name: &str, plan: Plan, rate: &str, per_day: u64) -> ApiKey {
    ApiKey {
        name: api_key(name),
        client_id: format!("id-of-{name}"),
        client_secret: None,
        auth_style: AuthStyle::Public,
        plan,
        rate: rate.parse().unwrap(),
        per_day,
        guard: Guard::Fixed(Duration::from_millis(50)),
        day_reset: DayReset::default(),
        reserve: Reserve::default(),
        token_url: "https://127.0.0.1:1/token".parse().unwrap(),
        redirect_uri: (name == "main").then(|| "https://proxy.example/oauth/callback".into()),
        scopes: "contact_data offline_access".into(),
        pkce: true,
    }
}

fn config() -> Config {
    let loopback = |port: u16| ([127, 0, 0, 1], port).into();
    Config {
        server: config::Server {
            listen: loopback(8080),
            admin_listen: loopback(9090),
            allow_anonymous: false,
            passthrough: config::Passthrough::No,
            tls: None,
            max_body: 1_024,
            replay_buffer: 1_024,
            max_connections: 100,
            header_timeout: Duration::from_secs(10),
            failed_logins: 30,
            drain_timeout: Duration::from_secs(30),
        },
        upstream: config::Upstream {
            url: "https://127.0.0.1:1".parse().unwrap(),
            timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(5),
            max_in_flight: 64,
            ca_file: None,
        },
        oauth: config::OAuth {
            authorize_url: "https://authz.example/authorize".parse().unwrap(),
            device_authorize_url: "https://127.0.0.1:1/device".parse().unwrap(),
            jwks_url: "https://127.0.0.1:1/keys".parse().unwrap(),
            issuer: "https://issuer.example".into(),
            audience: "https://api.example".into(),
            return_to_origins: config::links::origins("https://app.example").unwrap(),
            refresh_interval: Duration::from_secs(1),
            refresh_margin: Duration::from_secs(300),
            refresh_ahead: Duration::ZERO,
            keep_alive_after: Duration::ZERO,
        },
        queue: config::Queue {
            max_wait: Duration::from_secs(30),
            max_wait_limit: Duration::from_secs(600),
            capacity: 100,
            capacity_per_tenant: 100,
        },
        store: config::Store {
            url: StoreUrl::Memory,
            encryption_key_file: None,
            accept_volatile: false,
            on_loss: config::OnStoreLoss::Degraded,
            degraded_for: Duration::from_mins(10),
            refresh_journal: None,
        },
        admin: config::Admin { token: None, tls: None, ca_file: None },
        log: config::Log { format: LogFormat::Text, level: "info".into() },
        api_keys: vec![
            configured("main", Plan::Standard, "4", 10_000),
            configured("big", Plan::Partner, "7.5", 250_000),
        ],
    }
}
