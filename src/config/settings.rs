//! Every setting once: its flag, its key in the file, its default, what it may be and what it
//! means.
//!
//! Flags, environment variables, the keys that a file may have, `--help`, `check` and the test of
//! `config/example.toml` all come from this table, so that none of them can drift from the others.
//! What a setting may be is a [`Kind`]; reading text as one is in `values`.

use super::values;

/// What the environment variable of every setting starts with.
pub const ENV_PREFIX: &str = "CTCT_PROXY_";

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// The flag without its dashes; the environment variable is made from it.
    pub flag: &'static str,
    /// The key in the file as `section.name`; `None` when the file has another form for it.
    pub key: Option<&'static str>,
    /// What holds when nobody says anything.
    pub default: Option<&'static str>,
    /// What it may be.
    pub kind: Kind,
    /// What it means, for `--help`.
    pub help: &'static str,
}

/// What a setting may be. Numbers are least and most: milliseconds, bytes or a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An address and a port.
    Address,
    /// `true` or `false`.
    Switch,
    /// A span of time.
    Duration(u64, u64),
    /// A number of bytes.
    Size(u64, u64),
    /// A whole number.
    Count(u64, u64),
    /// Scheme, host and port.
    BaseUrl,
    /// A URL with a path.
    Url,
    /// The path of a file to be read.
    File,
    /// The path of a file that holds a secret; the path itself is not repeated in messages.
    SecretFile,
    /// A store.
    Store,
    /// What is done when the store is lost.
    StoreLoss,
    /// The path of a file to be made.
    NewFile,
    /// A plan.
    Plan,
    /// Calls per second.
    Rate,
    /// `auto` or a span of time.
    Guard,
    /// A time of day in UTC.
    TimeOfDay,
    /// A share of the day.
    Reserve,
    /// How log lines are written.
    LogFormat,
    /// A level or filter.
    LogLevel,
    /// The name of an API key.
    Name,
    /// A client id.
    ClientId,
    /// A secret, written in the file.
    Secret,
    /// The name of an environment variable that holds a secret.
    SecretEnv,
    /// How an API key authenticates.
    AuthStyle,
    /// `true`, `false` or `verified`.
    Passthrough,
    /// Scopes of OAuth.
    Scopes,
    /// Origins of web pages; a list in the file.
    Origins,
}

impl Setting {
    /// Its environment variable.
    #[must_use]
    pub fn env(&self) -> String {
        format!("{ENV_PREFIX}{}", self.flag.replace('-', "_").to_uppercase())
    }

    /// What mistakes call it: the key in the file, or the flag's name for those without one.
    #[must_use]
    pub fn path(&self) -> String {
        self.key.map_or_else(|| self.flag.replace('-', "_"), str::to_owned)
    }
}

impl Kind {
    /// What is allowed, in words.
    #[must_use]
    pub fn allowed(self) -> String {
        match self {
            Self::Address => {
                "an IP address and a port, such as 127.0.0.1:8080 or [::1]:8080".into()
            }
            Self::Switch => "true or false".into(),
            Self::Duration(least, most) => format!(
                "a duration from {} to {}, such as 250ms, 30s or 1m 30s",
                values::duration_text(least),
                values::duration_text(most)
            ),
            Self::Size(least, most) => format!(
                "a size from {} to {}, such as 10MiB, 1MB or 4096 (bytes)",
                values::size_text(least),
                values::size_text(most)
            ),
            Self::Count(least, most) => format!("a whole number from {least} to {most}"),
            Self::BaseUrl => {
                "http:// or https://, a host and perhaps a port; no path, query or user".into()
            }
            Self::Url => "a whole http:// or https:// URL without user or fragment".into(),
            Self::File => "the path of a readable file".into(),
            Self::SecretFile => "the path of a readable file that is not empty".into(),
            Self::Store => {
                "memory:, sqlite:PATH, or redis://USER:PASSWORD@HOST:PORT/DATABASE?prefix=TEXT \
                 (rediss: is TLS)"
                    .into()
            }
            Self::StoreLoss => "closed or degraded".into(),
            Self::NewFile => "the path of a file that is there or may be made".into(),
            Self::Plan => "standard (4/s, 10,000 a day) or partner (10/s, 250,000 a day)".into(),
            Self::Rate => "calls per second from 0.001 to 1000000, such as 4, 0.5 or 60/min".into(),
            Self::Guard => "auto, or a duration from 0s to 1m, such as 60ms".into(),
            Self::TimeOfDay => "a time of day in UTC in quotes, such as \"00:00:00Z\"".into(),
            Self::Reserve => "a whole percentage in quotes from \"0%\" to \"90%\"".into(),
            Self::LogFormat => "text or json".into(),
            Self::LogLevel => {
                "off, error, warn, info, debug, trace, or a filter such as warn,ctct_proxy=debug"
                    .into()
            }
            Self::Name => "1 to 128 of A-Z a-z 0-9 . _ ~ : @ -, a letter or digit first".into(),
            Self::ClientId => "the client_id of the application, visible ASCII".into(),
            Self::Secret => "a text in quotes that is not empty, on one line".into(),
            Self::SecretEnv => {
                "the name of an environment variable that is set and not empty".into()
            }
            Self::AuthStyle => "basic, body or public".into(),
            Self::Passthrough => "false, true or verified".into(),
            Self::Scopes => "scopes with spaces between them, offline_access among them, such as \
                 \"contact_data offline_access\""
                .into(),
            Self::Origins => {
                "origins such as https://app.example: scheme, host and perhaps a port, with \
                 commas between several"
                    .into()
            }
        }
    }
}

/// A second, a minute and an hour in the unit of [`Kind::Duration`].
const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
/// A body of more than a gibibyte is a mistake of the unit, not a wish.
const BODY_MAX: u64 = 1 << 30;
/// More waiting calls or connections than this fit no machine that runs a proxy.
const COUNT_MAX: u64 = 1_000_000;
/// Far above any plan of the upstream.
const PER_DAY_MAX: u64 = 1_000_000_000;

/// `--per-day` and `api_keys.per_day`.
pub const PER_DAY_KIND: Kind = Kind::Count(1, PER_DAY_MAX);

macro_rules! settings {
    ($($name:ident = $flag:literal, $key:expr, $default:expr, $kind:expr, $help:literal;)*) => {
        $(
            #[doc = concat!("`--", $flag, "`: ", $help)]
            pub static $name: Setting = Setting {
                flag: $flag,
                key: $key,
                default: $default,
                kind: $kind,
                help: $help,
            };
        )*

        /// All settings, in the order of `--help` and of the file.
        pub static ALL: &[&Setting] = &[$(&$name,)*];
    };
}

settings! {
    LISTEN = "listen", Some("server.listen"), Some("127.0.0.1:8080"), Kind::Address,
        "Where callers connect";
    ADMIN_LISTEN = "admin-listen", Some("server.admin_listen"),
        Some("127.0.0.1:9090"), Kind::Address,
        "Where the admin API and the metrics are";
    ALLOW_ANONYMOUS = "allow-anonymous", Some("server.allow_anonymous"),
        Some("false"), Kind::Switch,
        "Serve callers without a client key; on an address that is not loopback also \
         --i-know-this-is-open";
    I_KNOW_THIS_IS_OPEN = "i-know-this-is-open", Some("server.i_know_this_is_open"),
        Some("false"), Kind::Switch,
        "Confirm that callers without a client key may reach every tenant from the network";
    PASSTHROUGH = "passthrough", Some("server.passthrough"), Some("false"), Kind::Passthrough,
        "Forward callers' own access tokens of configured API keys: false, true or verified \
         (signature, issuer and audience are checked first)";
    TLS_CERT = "tls-cert", Some("server.tls_cert"), None, Kind::File,
        "PEM certificate of the data plane, its chain behind it: TLS there; needs tls-key";
    TLS_KEY = "tls-key", Some("server.tls_key"), None, Kind::SecretFile,
        "PEM private key of tls-cert; both files are read again when they change";
    CLIENT_CA = "client-ca", Some("server.client_ca"), None, Kind::File,
        "PEM authorities of callers' certificates; one whose only DNS name is a client's is that \
         client's key";
    MAX_BODY = "max-body", Some("server.max_body"), Some("10MiB"), Kind::Size(1, BODY_MAX),
        "Longest request body";
    REPLAY_BUFFER = "replay-buffer", Some("server.replay_buffer"),
        Some("1MiB"), Kind::Size(0, BODY_MAX),
        "Bodies up to this size are kept so that a call can be sent again; at most max-body";
    MAX_CONNECTIONS = "max-connections", Some("server.max_connections"),
        Some("20000"), Kind::Count(1, COUNT_MAX),
        "Most connections of callers at a time; more wait to be accepted";
    HEADER_TIMEOUT = "header-timeout", Some("server.header_timeout"),
        Some("60s"), Kind::Duration(1, HOUR),
        "Longest time that a connection may go without a whole request head";
    FAILED_LOGINS = "failed-logins", Some("server.failed_logins"),
        Some("30"), Kind::Count(0, COUNT_MAX),
        "Wrong keys or admin tokens that an address may show before it must wait; one is forgiven \
         each 6 s; 0 is no limit";
    DRAIN_TIMEOUT = "drain-timeout", Some("server.drain_timeout"),
        Some("30s"), Kind::Duration(0, HOUR),
        "Longest time that a stop takes";
    UPSTREAM_URL = "upstream-url", Some("upstream.url"),
        Some("https://api.cc.email"), Kind::BaseUrl,
        "The API behind the proxy: scheme, host, port";
    UPSTREAM_TIMEOUT = "upstream-timeout", Some("upstream.timeout"),
        Some("60s"), Kind::Duration(1, HOUR),
        "Longest time from sending a call to the head of its answer, and between parts of its body";
    CONNECT_TIMEOUT = "connect-timeout", Some("upstream.connect_timeout"),
        Some("5s"), Kind::Duration(1, HOUR),
        "Longest time to make a connection, TLS included";
    MAX_IN_FLIGHT = "max-in-flight", Some("upstream.max_in_flight"),
        Some("64"), Kind::Count(1, 10_000),
        "Most calls under way at a time, per API key";
    UPSTREAM_CA_FILE = "upstream-ca-file", Some("upstream.ca_file"), None, Kind::File,
        "PEM file of certificate authorities to be trusted besides the system's";
    TOKEN_URL = "token-url", Some("oauth.token_url"),
        Some("https://authz.constantcontact.com/oauth2/default/v1/token"), Kind::Url,
        "The token endpoint";
    AUTHORIZE_URL = "authorize-url", Some("oauth.authorize_url"),
        Some("https://authz.constantcontact.com/oauth2/default/v1/authorize"), Kind::Url,
        "The page where an account's owner consents";
    DEVICE_AUTHORIZE_URL = "device-authorize-url", Some("oauth.device_authorize_url"),
        Some("https://authz.constantcontact.com/oauth2/default/v1/device/authorize"), Kind::Url,
        "Where codes are asked for that an owner types in elsewhere (device flow)";
    JWKS_URL = "jwks-url", Some("oauth.jwks_url"),
        Some("https://identity.constantcontact.com/oauth2/aus1lm3ry9mF7x2Ja0h8/v1/keys"), Kind::Url,
        "The keys that sign access tokens, for passthrough=verified";
    ISSUER = "issuer", Some("oauth.issuer"),
        Some("https://identity.constantcontact.com/oauth2/aus1lm3ry9mF7x2Ja0h8"), Kind::Url,
        "Issuer that access tokens must name, for passthrough=verified";
    AUDIENCE = "audience", Some("oauth.audience"), Some("https://api.cc.email/v3"), Kind::Url,
        "Audience that access tokens must name, for passthrough=verified";
    RETURN_TO_ORIGIN = "return-to-origin", Some("oauth.return_to_origins"), None, Kind::Origins,
        "Origins of pages to which the owner of an account may be sent after connecting it";
    REFRESH_INTERVAL = "refresh-interval", Some("oauth.refresh_interval"),
        Some("1s"), Kind::Duration(0, HOUR),
        "Least time from a token answer to the next token request, per API key";
    REFRESH_MARGIN = "refresh-margin", Some("oauth.refresh_margin"),
        Some("5m"), Kind::Duration(0, 12 * HOUR),
        "A token with less life than this is refreshed before use";
    REFRESH_AHEAD = "refresh-ahead", Some("oauth.refresh_ahead"),
        Some("2h"), Kind::Duration(0, 24 * HOUR),
        "Tokens of tenants in use, and new grants, are refreshed up to this long before they end; \
         0 is only when somebody waits";
    KEEP_ALIVE_AFTER = "keep-alive-after", Some("oauth.keep_alive_after"),
        Some("150d"), Kind::Duration(0, 175 * 24 * HOUR),
        "A refresh token that was not used for so long is used, lest it die at 180 days; 0 is \
         never";
    MAX_WAIT = "max-wait", Some("queue.max_wait"), Some("30s"), Kind::Duration(0, 24 * HOUR),
        "Longest stay in the queue when the caller states none; at most max-wait-limit";
    MAX_WAIT_LIMIT = "max-wait-limit", Some("queue.max_wait_limit"),
        Some("10m"), Kind::Duration(0, 24 * HOUR),
        "Longest stay in the queue that a caller may ask for";
    QUEUE_CAPACITY = "queue-capacity", Some("queue.capacity"),
        Some("10000"), Kind::Count(1, COUNT_MAX),
        "Waiting calls per API key";
    QUEUE_CAPACITY_PER_TENANT = "queue-capacity-per-tenant", Some("queue.capacity_per_tenant"),
        Some("2000"),
        Kind::Count(1, COUNT_MAX), "Waiting calls per tenant; at most queue-capacity";
    STORE = "store", Some("store.url"), Some("sqlite:ctct-proxy.db"), Kind::Store,
        "What outlives the process: memory: (nothing), sqlite:PATH, or redis://HOST for many \
         instances (Redis or Valkey; rediss: is TLS, ?prefix= begins all keys)";
    ACCEPT_VOLATILE_STORE = "accept-volatile-store", Some("store.accept_volatile"),
        Some("false"), Kind::Switch,
        "Start also on a Redis that would forget grants: appendonly no, or one that drops keys";
    ON_STORE_LOSS = "on-store-loss", Some("store.on_loss"), Some("degraded"), Kind::StoreLoss,
        "While a Redis cannot be reached: closed refuses calls, degraded goes on with this \
         instance's share";
    DEGRADED_FOR = "degraded-for", Some("store.degraded_for"), Some("10m"),
        Kind::Duration(15 * SECOND, 24 * HOUR),
        "Longest time that an instance goes on by itself; the others leave its share to one that \
         vanished for as long";
    REFRESH_JOURNAL = "refresh-journal", Some("store.refresh_journal"), None, Kind::NewFile,
        "Journal of refreshes under way beside a Redis, one of its own for each instance; without \
         one, ctct-proxy.refreshes in the working directory";
    ENCRYPTION_KEY_FILE = "encryption-key-file", Some("store.encryption_key_file"),
        None, Kind::SecretFile,
        "Seal the tokens: 32 bytes in base64 in each line, the first seals (see keygen); without \
         one, sqlite: makes PATH.key and redis: does not start";
    ADMIN_TOKEN_FILE = "admin-token-file", Some("admin.token_file"), None, Kind::SecretFile,
        "Holds the bearer token of the admin API; needed when admin-listen is not loopback";
    ADMIN_TLS_CERT = "admin-tls-cert", Some("admin.tls_cert"), None, Kind::File,
        "PEM certificate of the admin listener, its chain behind it: TLS there; needs \
         admin-tls-key";
    ADMIN_TLS_KEY = "admin-tls-key", Some("admin.tls_key"), None, Kind::SecretFile,
        "PEM private key of admin-tls-cert; both files are read again when they change";
    ADMIN_CLIENT_CA = "admin-client-ca", Some("admin.client_ca"), None, Kind::File,
        "PEM authorities of operators' certificates, which are then needed besides the token";
    ADMIN_CA_FILE = "admin-ca-file", Some("admin.ca_file"), None, Kind::File,
        "PEM authorities that commands trust besides the system's when they ask the admin API";
    PLAN = "plan", Some("limits.plan"), Some("standard"), Kind::Plan,
        "Limits of the API keys: standard is 4/s and 10,000 a day, partner 10/s and 250,000 a day";
    PER_SECOND = "per-second", Some("limits.per_second"), None, Kind::Rate,
        "Calls per second of each API key instead of the plan's; 0.5 and 60/min are allowed";
    PER_DAY = "per-day", Some("limits.per_day"), None, PER_DAY_KIND,
        "Calls per quota day of each API key instead of the plan's";
    GUARD = "guard", Some("limits.guard"), Some("auto"), Kind::Guard,
        "Margin on the upstream's one-second window against jitter: auto or a duration";
    DAY_RESET = "day-reset", Some("limits.day_reset"), Some("00:00:00Z"), Kind::TimeOfDay,
        "Time of day, UTC, at which the quota day turns";
    RESERVE = "reserve", Some("limits.reserve"), Some("10%"), Kind::Reserve,
        "Share of the day kept for interactive calls, melting toward the reset";
    LOG_FORMAT = "log-format", Some("log.format"), Some("text"), Kind::LogFormat,
        "How log lines are written: text or json";
    LOG_LEVEL = "log-level", Some("log.level"), Some("info"), Kind::LogLevel,
        "Level, or a filter such as warn,ctct_proxy=debug";
    CLIENT_ID = "client-id", None, None, Kind::ClientId,
        "client_id of one API key named default; several are [[api_keys]] in the file";
    CLIENT_SECRET_FILE = "client-secret-file", None, None, Kind::SecretFile,
        "Holds the secret of client-id; a public client has none";
}

/// The keys of an `[[api_keys]]` table, in the order of the example.
pub static API_KEY_FIELDS: &[(&str, Kind)] = &[
    ("name", Kind::Name),
    ("client_id", Kind::ClientId),
    ("client_secret", Kind::Secret),
    ("client_secret_file", Kind::SecretFile),
    ("client_secret_env", Kind::SecretEnv),
    ("auth_style", Kind::AuthStyle),
    ("plan", Kind::Plan),
    ("per_second", Kind::Rate),
    ("per_day", PER_DAY_KIND),
    ("guard", Kind::Guard),
    ("day_reset", Kind::TimeOfDay),
    ("reserve", Kind::Reserve),
    ("token_url", Kind::Url),
    ("redirect_uri", Kind::Url),
    ("scopes", Kind::Scopes),
    ("pkce", Kind::Switch),
];
