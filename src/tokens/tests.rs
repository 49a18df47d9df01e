//! A keeper between a store and an upstream that fail as told, under virtual time.
//!
//! The upstream rotates refresh tokens and knows each that was spent; it is the judge of what was
//! sent and when.

mod ahead;
mod crashes;
mod faults;
mod fleet;
mod operators;
mod refreshing;
mod store;
mod upstream;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::*;
use store::FakeStore;
use upstream::Upstream;

const START: u64 = 1_800_000_000;

/// A token that looks like the upstream's.
pub(super) fn jwt(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{}", part(&json!({ "alg": "RS256" })), part(claims), "c2ln")
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn name(n: usize) -> TenantName {
    TenantName::new(&format!("t{n}")).unwrap()
}

fn key() -> ApiKeyName {
    ApiKeyName::new("key").unwrap()
}

fn auth() -> KeyAuth {
    KeyAuth {
        client_id: "client".into(),
        secret: Some("very-secret".into()),
        auth_style: crate::config::AuthStyle::Basic,
        token_url: "http://127.0.0.1:1/token".parse().unwrap(),
    }
}

/// Nothing is refreshed ahead: each test says what it wants.
fn settings() -> Settings {
    Settings {
        refresh_interval: secs(1),
        refresh_margin: secs(300),
        refresh_ahead: Duration::ZERO,
        keep_alive_after: Duration::ZERO,
    }
}

/// A process: a keeper with its store and upstream.
struct House {
    tokens: Tokens,
    store: Arc<FakeStore>,
    upstream: Arc<Upstream>,
    clock: Clock,
    tracker: TaskTracker,
    changes: mpsc::UnboundedReceiver<TenantChange>,
    observer: Arc<Watcher>,
}

/// Remembers which alarms there were.
#[derive(Default)]
struct Watcher(Mutex<BTreeSet<&'static str>>);

impl Watcher {
    fn alarms(&self) -> Vec<&'static str> {
        self.0.lock().unwrap().iter().copied().collect()
    }
}

impl Observer for Watcher {
    fn refreshed(&self, _: &ApiKeyName, _: &'static str) {}
    fn alarm(&self, _: &TenantName, _: &ApiKeyName, alarm: Alarm) {
        self.0.lock().unwrap().insert(alarm.as_str());
    }
    fn lane_depth(&self, _: &ApiKeyName, _: usize) {}
    fn ageing(&self, _: &ApiKeyName, _: usize) {}
    fn tenants(&self, _: &ApiKeyName, _: usize, _: usize) {}
    fn state_changed(&self, _: &TenantName, _: &ApiKeyName, _: &'static str, _: Option<&str>) {}
}

impl House {
    /// A house with `n` tenants whose access tokens have ended.
    async fn with_tenants(n: usize) -> Self {
        let clock = Clock::starting_at(Unix::from_secs(START));
        let store = Arc::new(FakeStore::default());
        let upstream = Arc::new(Upstream::new(clock.clone()));
        for n in 0..n {
            store.add(&name(n), &upstream.connect(&name(n)), None);
        }
        Self::open(store, upstream, clock).await
    }

    async fn open(store: Arc<FakeStore>, upstream: Arc<Upstream>, clock: Clock) -> Self {
        let (sender, changes) = mpsc::unbounded_channel();
        let tracker = TaskTracker::new();
        let observer = Arc::new(Watcher::default());
        let parts = Parts {
            store: Arc::clone(&store) as Arc<dyn Store>,
            clock: clock.clone(),
            exchange: Arc::clone(&upstream) as Arc<dyn TokenEndpoint>,
            keys: vec![(key(), auth())],
            settings: settings(),
            seed: 1,
            changes: sender,
            observer: Arc::clone(&observer) as Arc<dyn Observer>,
            tracker: tracker.clone(),
        };
        let tokens = Tokens::start(parts).await.unwrap();
        Self { tokens, store, upstream, clock, tracker, changes, observer }
    }

    /// The process dies now; another one starts on the same store.
    async fn crash(self) -> Self {
        self.store.kill();
        self.upstream.forget_callers();
        let store = Arc::new(self.store.reopened());
        Self::open(store, Arc::clone(&self.upstream), self.clock.clone()).await
    }

    fn demand(&self, n: usize, wait: Duration) {
        self.tokens.demand(&name(n), self.clock.now().mono.plus(wait));
    }

    fn state(&self, n: usize) -> Readiness {
        self.tokens.tenant(name(n).as_str()).unwrap().state
    }

    /// The version that callers would send.
    fn version(&self, n: usize) -> Option<u64> {
        self.tokens.bearer(&name(n)).map(|bearer| bearer.version)
    }

    /// Asserts that callers get what the store holds and the upstream issued last.
    fn assert_current(&self, n: usize) {
        let grant = self.store.row(&name(n));
        let bearer = self.tokens.bearer(&name(n)).expect("a usable token");
        let access = grant.tokens.access.expect("a stored token");
        assert_eq!(bearer.header.to_str().unwrap(), format!("Bearer {}", access.expose()));
        assert!(bearer.header.is_sensitive());
        assert!(
            self.upstream.accepts(&name(n), &grant.tokens.refresh),
            "the refresh token is lost"
        );
    }
}
