//! The configuration, valid by construction: what the rest of the program sees.
//!
//! A [`Config`] exists only when every value makes sense, so nobody downstream checks again.
//! Reading it from file, environment and flags, and reporting all mistakes at once, is the work of
//! the files beside this one.

mod api_keys;
mod effective;
mod file;
mod flags;
pub mod links;
mod load;
mod mistakes;
mod reader;
pub mod settings;
mod store;
pub mod tls;
pub mod values;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

use crate::engine::{ApiKeyName, DayReset, Guard, Rate, Reserve};
use crate::secret::Secret;

pub use effective::Effective;
pub use flags::ServeFlags;
pub use load::{AdminAccess, Loaded, Sources, admin_access, load, process_env, read};
pub use mistakes::{Mistake, Mistakes, Origin};
pub use reader::{Env, secret_from_file};
pub use store::{OnStoreLoss, RedisUrl, Store, StoreUrl, store_url};
pub use tls::TlsFiles;

/// Everything that `serve` needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The two listeners.
    pub server: Server,
    /// The API behind the proxy.
    pub upstream: Upstream,
    /// The token endpoint.
    pub oauth: OAuth,
    /// How long and how many calls may wait.
    pub queue: Queue,
    /// What outlives the process.
    pub store: Store,
    /// The admin API.
    pub admin: Admin,
    /// Logging.
    pub log: Log,
    /// At least one Constant Contact application, names and client ids unique.
    pub api_keys: Vec<ApiKey>,
}

/// `[server]`
#[derive(Clone, Debug)]
pub struct Server {
    /// The data plane.
    pub listen: SocketAddr,
    /// Admin API and metrics.
    pub admin_listen: SocketAddr,
    /// Serve callers without a client key.
    pub allow_anonymous: bool,
    /// Forward callers' own access tokens.
    pub passthrough: Passthrough,
    /// The data plane's TLS; none is plain text.
    pub tls: Option<TlsFiles>,
    /// Longest request body, in bytes.
    pub max_body: u64,
    /// Bodies up to this many bytes are kept so that a call can be sent again.
    pub replay_buffer: u64,
    /// Most connections of callers at a time; more wait to be accepted.
    pub max_connections: usize,
    /// Longest time that a connection may go without a whole request head, idle or slow.
    pub header_timeout: Duration,
    /// Wrong keys or admin tokens that an address may show before it must wait; 0 is no limit.
    pub failed_logins: u32,
    /// Longest time that a stop takes.
    pub drain_timeout: Duration,
}

/// `server.passthrough`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Passthrough {
    /// Callers' own access tokens are not looked at.
    #[default]
    No,
    /// Those of configured API keys are forwarded; the API judges them.
    Unverified,
    /// The same, once their signature is verified.
    Verified,
}

/// `[upstream]`
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Scheme and authority; no path.
    pub url: Uri,
    /// From sending to the head of the answer.
    pub timeout: Duration,
    /// For a connection to be made, TLS included.
    pub connect_timeout: Duration,
    /// Most calls under way at a time, per API key.
    pub max_in_flight: usize,
    /// PEM file of further certificate authorities that are trusted.
    pub ca_file: Option<PathBuf>,
}

/// `[oauth]`
#[derive(Clone, Debug)]
pub struct OAuth {
    /// The page where an account's owner consents.
    pub authorize_url: Uri,
    /// Where codes for devices are asked for.
    pub device_authorize_url: Uri,
    /// Where the keys are that sign access tokens.
    pub jwks_url: Uri,
    /// `iss` of access tokens.
    pub issuer: String,
    /// `aud` of access tokens.
    pub audience: String,
    /// Where an owner may be sent after connecting an account.
    pub return_to_origins: Vec<links::Origin>,
    /// Least time from a token answer to the next token request, per API key.
    pub refresh_interval: Duration,
    /// A token with less life than this is refreshed before use.
    pub refresh_margin: Duration,
    /// Tokens of tenants in use are refreshed up to this long before they end; zero is never.
    pub refresh_ahead: Duration,
    /// Refresh tokens that were not used for so long are used; zero is never.
    pub keep_alive_after: Duration,
}

/// `[queue]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Longest stay when the caller states none.
    pub max_wait: Duration,
    /// Longest stay that a caller may ask for; at least `max_wait`.
    pub max_wait_limit: Duration,
    /// Waiting calls per API key.
    pub capacity: usize,
    /// Waiting calls per tenant; at most `capacity`.
    pub capacity_per_tenant: usize,
}

/// `[admin]`
#[derive(Clone, Debug)]
pub struct Admin {
    /// The bearer token of the admin API; required when its listener is not loopback.
    pub token: Option<Secret<String>>,
    /// The admin listener's TLS; none is plain text.
    pub tls: Option<TlsFiles>,
    /// PEM file of further authorities that commands trust.
    pub ca_file: Option<PathBuf>,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// How a line is written.
    pub format: LogFormat,
    /// A level, or a filter as `tracing` reads it: `info`, `warn,ctct_proxy=debug`.
    pub level: String,
}

/// `log.format`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// `[[api_keys]]`
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// Its name here.
    pub name: ApiKeyName,
    /// Its OAuth `client_id`.
    pub client_id: String,
    /// Its OAuth secret; a public client has none.
    pub client_secret: Option<Secret<String>>,
    /// How it authenticates at the token endpoint.
    pub auth_style: AuthStyle,
    /// The plan that its limits came from.
    pub plan: Plan,
    /// Calls per second.
    pub rate: Rate,
    /// Calls per quota day.
    pub per_day: u64,
    /// Margin on the window.
    pub guard: Guard,
    /// When its quota day turns.
    pub day_reset: DayReset,
    /// Share of its day that is kept for interactive calls.
    pub reserve: Reserve,
    /// Its token endpoint.
    pub token_url: Uri,
    /// Where an owner's browser comes back to after the consent, byte for byte as the application
    /// lists it; without one accounts cannot be connected in a browser.
    pub redirect_uri: Option<String>,
    /// What an owner is asked for.
    pub scopes: String,
    /// Whether codes are bound to the proxy by a challenge (RFC 7636).
    pub pkce: bool,
}

/// How an API key authenticates at the token endpoint (RFC 6749 section 2.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthStyle {
    /// `Authorization: Basic`.
    #[default]
    Basic,
    /// `client_id` and `client_secret` in the body.
    Body,
    /// `client_id` in the body, no secret.
    Public,
}

/// The limits that the upstream documents for a kind of API key
/// (<https://developer.constantcontact.com/api_guide/rate_limits.html>).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plan {
    /// 4 calls a second, 10,000 a day.
    #[default]
    Standard,
    /// 10 calls a second, 250,000 a day; set by the upstream's support on request.
    Partner,
}
