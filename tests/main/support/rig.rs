//! A proxy in process with a sandbox behind it, tenants connected and a client that may do all.

use std::time::Duration;

use http::Method;

use ctct_proxy::app::App;
use ctct_proxy::clock::Clock;
use ctct_proxy::config::settings::{self, Setting};
use ctct_proxy::config::{self, Config, ServeFlags, Sources};
use ctct_proxy::engine::{ApiKeyName, ClientName, TenantName};
use ctct_proxy::sandbox::{IssuedGrant, Options, Sandbox};
use ctct_proxy::secret::Secret;
use ctct_proxy::store::{NewGrant, TenantScope, Tokens};

use super::{Call, Http, Reply, until};

/// The client id of the API key `default`.
pub(crate) const CLIENT_ID: &str = "app";

/// A proxy and its sandbox.
pub(crate) struct Rig {
    pub(crate) sandbox: Sandbox,
    pub(crate) app: App,
    pub(crate) http: Http,
    /// The key of a client for all tenants.
    pub(crate) key: String,
    flags: ServeFlags,
    file: Option<String>,
}

/// What a rig is to be.
pub(crate) struct RigBuilder {
    options: Options,
    flags: ServeFlags,
    file: Option<String>,
    fresh: usize,
    expired: usize,
    upstream: Option<String>,
    clock: Clock,
}

fn tenant_name(name: &str) -> TenantName {
    TenantName::new(name).expect("a tenant's name")
}

fn api_key_name(name: &str) -> ApiKeyName {
    ApiKeyName::new(name).expect("an API key's name")
}

fn read(flags: &ServeFlags, file: Option<&str>) -> Config {
    let file = file.map(|text| ("test.toml", text));
    let loaded = config::load(&Sources { flags, env: &|_| None, file });
    loaded.unwrap_or_else(|mistakes| panic!("{mistakes}")).config
}

impl Rig {
    /// 50 calls a second, quick answers, tenants t0, t1 … with good tokens.
    pub(crate) fn build() -> RigBuilder {
        let options = Options {
            listen: ([127, 0, 0, 1], 0).into(),
            per_second: 50,
            per_day: 1_000_000,
            latency: Duration::from_millis(4),
            jitter: Duration::from_millis(2),
            token_latency: Duration::from_millis(4),
            contacts: 20,
            seed: Some(1),
            ..Options::default()
        };
        let flags = ServeFlags::default()
            .with(&settings::LISTEN, "127.0.0.1:0")
            .with(&settings::ADMIN_LISTEN, "127.0.0.1:0")
            .with(&settings::STORE, "memory:")
            .with(&settings::PER_DAY, "1000000")
            // a test that wants refreshes that nobody waits for says so
            .with(&settings::REFRESH_AHEAD, "0");
        RigBuilder {
            options,
            flags,
            file: None,
            fresh: 1,
            expired: 0,
            upstream: None,
            clock: Clock::system(),
        }
    }

    /// The usual one: one tenant.
    pub(crate) async fn start() -> Self {
        Self::build().start().await
    }

    /// The URL of a path of the data plane.
    pub(crate) fn url(&self, path: &str) -> String {
        let scheme = if self.flags.value(&settings::TLS_CERT).is_some() { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.app.data_address())
    }

    /// The URL of a path of the admin API.
    pub(crate) fn admin_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.app.admin_address())
    }

    /// A call of `tenant` by the client that may do all.
    pub(crate) fn call(&self, method: Method, tenant: &str, path: &str) -> Call {
        Call::new(method, self.url(path)).bearer(&self.key).header("ctct-tenant", tenant)
    }

    pub(crate) async fn get(&self, tenant: &str, path: &str) -> Reply {
        self.http.send(self.call(Method::GET, tenant, path)).await
    }

    /// Asks the admin API.
    pub(crate) async fn admin(&self, method: Method, path: &str) -> Reply {
        self.http.send(Call::new(method, self.admin_url(path))).await
    }

    /// Waits until so many calls of the API key `default` wait.
    pub(crate) async fn until_queued(&self, wanted: usize) {
        until(&format!("{wanted} calls wait"), async || {
            let key = self.admin(Method::GET, "/v1/api-keys/default").await.json();
            key["queue"]["depth"].as_u64() == Some(wanted as u64)
        })
        .await;
    }

    /// A new client and its key; no tenants means all.
    pub(crate) async fn client(&self, name: &str, tenants: &[&str]) -> String {
        let tenants = if tenants.is_empty() {
            TenantScope::All
        } else {
            TenantScope::Some(tenants.iter().map(|name| tenant_name(name)).collect())
        };
        add_client(&self.app, name, tenants).await
    }

    /// Connects a tenant whose access token is good.
    pub(crate) async fn connect(&self, api_key: &str, client_id: &str, tenant: &str) {
        let grant = self.sandbox.connect_tenant(client_id, tenant);
        put(&self.app, api_key, tenant, grant).await;
    }

    /// Connects a tenant whose access token has ended.
    pub(crate) async fn connect_expired(&self, tenant: &str) {
        let grant = self.sandbox.connect_expired_tenant(CLIENT_ID, tenant);
        put(&self.app, "default", tenant, grant).await;
    }

    /// Changes settings while running.
    pub(crate) async fn reload(&mut self, changes: &[(&'static Setting, &str)]) {
        let mut flags = self.flags.clone();
        for (setting, value) in changes {
            flags = flags.with(setting, *value);
        }
        self.app.reload(read(&flags, self.file.as_deref())).await.expect("reloaded");
        self.flags = flags;
    }
}

async fn add_client(app: &App, name: &str, tenants: TenantScope) -> String {
    let name = ClientName::new(name).expect("a client's name");
    let (key, _) = app.clients().add(name, tenants, None).await.expect("added");
    key.expose().to_owned()
}

async fn put(app: &App, api_key: &str, tenant: &str, grant: IssuedGrant) {
    let tokens = Tokens {
        access: Some(Secret::new(grant.access_token)),
        access_expires_at: None,
        refresh: Secret::new(grant.refresh_token),
    };
    let (api_key, tenant) = (api_key_name(api_key), tenant_name(tenant));
    app.tokens().put(NewGrant { tenant, api_key, tokens, weight: None }).await.expect("put");
}

impl RigBuilder {
    /// Changes the sandbox.
    pub(crate) fn sandbox(mut self, change: impl FnOnce(&mut Options)) -> Self {
        change(&mut self.options);
        self
    }

    /// Changes a setting of the proxy.
    pub(crate) fn set(mut self, setting: &'static Setting, value: &str) -> Self {
        self.flags = self.flags.with(setting, value);
        self
    }

    /// The same rate for the sandbox and the proxy.
    pub(crate) fn per_second(self, rate: u32) -> Self {
        self.sandbox(|options| options.per_second = rate)
            .set(&settings::PER_SECOND, &rate.to_string())
    }

    /// A configuration file; without `[[api_keys]]` in it there is the key `default`.
    pub(crate) fn file(mut self, text: &str) -> Self {
        self.file = Some(text.to_owned());
        self
    }

    /// How many tenants have good tokens.
    pub(crate) const fn tenants(mut self, fresh: usize) -> Self {
        self.fresh = fresh;
        self
    }

    /// How many tenants, after those, have access tokens that have ended.
    pub(crate) const fn expired(mut self, expired: usize) -> Self {
        self.expired = expired;
        self
    }

    /// Another clock, which the test can make step.
    pub(crate) fn clock(mut self, clock: &Clock) -> Self {
        self.clock = clock.clone();
        self
    }

    /// Calls go there; tokens still come from the sandbox.
    pub(crate) fn upstream(mut self, url: String) -> Self {
        self.upstream = Some(url);
        self
    }

    pub(crate) async fn start(self) -> Rig {
        let clock = self.clock;
        let per_second = self.options.per_second.to_string();
        let sandbox = Sandbox::start(self.options, clock.clone()).await.expect("a sandbox");
        let mut flags = self
            .flags
            .with(&settings::UPSTREAM_URL, self.upstream.unwrap_or_else(|| sandbox.url()))
            .with(&settings::TOKEN_URL, sandbox.token_url())
            .with(&settings::AUTHORIZE_URL, sandbox.authorize_url());
        flags = flags.with(&settings::DEVICE_AUTHORIZE_URL, sandbox.device_authorize_url());
        if flags.value(&settings::JWKS_URL).is_none() {
            flags = flags.with(&settings::JWKS_URL, sandbox.keys_url());
        }
        if flags.value(&settings::PER_SECOND).is_none() {
            flags = flags.with(&settings::PER_SECOND, per_second);
        }
        if !self.file.as_ref().is_some_and(|text| text.contains("[[api_keys]]")) {
            flags = flags.with(&settings::CLIENT_ID, CLIENT_ID);
        }
        let app = App::start(read(&flags, self.file.as_deref()), clock).await.expect("a proxy");
        let key = add_client(&app, "all", TenantScope::All).await;
        let rig = Rig { sandbox, app, http: Http::h1(), key, flags, file: self.file };
        if rig.flags.value(&settings::CLIENT_ID).is_some() {
            for number in 0..self.fresh {
                rig.connect("default", CLIENT_ID, &format!("t{number}")).await;
            }
            for number in self.fresh..self.fresh + self.expired {
                rig.connect_expired(&format!("t{number}")).await;
            }
        }
        rig
    }
}
