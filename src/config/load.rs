//! From flags, environment and file to a [`Config`], or to all mistakes at once.
//!
//! [`load`] is given all three and reads nothing but the files that the values name (secrets, keys,
//! certificates); relative paths are relative to the working directory. [`read`] finds and reads
//! the file itself. [`process_env`] is the one place where the environment of the process is read.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::effective::Effective;
use super::file;
use super::flags::ServeFlags;
use super::mistakes::{Mistakes, Origin};
use super::reader::{Env, Reader, secret_from_file};
use super::settings::{self, ENV_PREFIX};
use super::{
    Admin, Config, Log, OAuth, Queue, Server, Upstream, api_keys, links, store, tls, values,
};
use crate::secret::Secret;

/// What a configuration is read from.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// The flags.
    pub flags: &'a ServeFlags,
    /// The environment.
    pub env: Env<'a>,
    /// The file's name, for messages, and its text.
    pub file: Option<(&'a str, &'a str)>,
}

/// A configuration and how it came about.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The same as text, for `check`.
    pub effective: Effective,
}

/// Where the admin API of a proxy is, and what opens it.
#[derive(Debug)]
pub struct AdminAccess {
    /// Its address; an unspecified one is replaced by loopback.
    pub address: SocketAddr,
    /// Its bearer token.
    pub token: Option<Secret<String>>,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// PEM file of authorities to be trusted besides the system's.
    pub ca_file: Option<PathBuf>,
}

/// The configuration that `sources` give.
///
/// # Errors
/// All mistakes.
pub fn load(sources: &Sources<'_>) -> Result<Loaded, Mistakes> {
    let mut mistakes = Mistakes::default();
    let file = match sources.file {
        Some((name, text)) => file::read(name, text, &mut mistakes),
        None => Some(file::File::default()),
    };
    let Some(file) = file else {
        return Err(mistakes);
    };
    let mut reader = Reader::new(sources.flags, sources.env, file, mistakes);
    let server = server(&mut reader);
    let admin = admin(&mut reader, &server);
    let config = Config {
        server,
        upstream: upstream(&mut reader),
        oauth: OAuth {
            device_authorize_url: reader.value(&settings::DEVICE_AUTHORIZE_URL, values::url),
            jwks_url: reader.value(&settings::JWKS_URL, values::url),
            issuer: reader.value(&settings::ISSUER, links::url_text),
            audience: reader.value(&settings::AUDIENCE, links::url_text),
            authorize_url: reader.value(&settings::AUTHORIZE_URL, values::url),
            return_to_origins: reader
                .optional(&settings::RETURN_TO_ORIGIN, links::origins)
                .unwrap_or_default(),
            refresh_interval: reader.span(&settings::REFRESH_INTERVAL),
            refresh_margin: reader.span(&settings::REFRESH_MARGIN),
            refresh_ahead: reader.span(&settings::REFRESH_AHEAD),
            keep_alive_after: reader.span(&settings::KEEP_ALIVE_AFTER),
        },
        queue: queue(&mut reader),
        store: store::read(&mut reader),
        admin,
        log: Log {
            format: reader.value(&settings::LOG_FORMAT, values::log_format),
            level: reader.value(&settings::LOG_LEVEL, values::log_level),
        },
        api_keys: Vec::new(),
    };
    let (api_keys, texts) = api_keys::read(&mut reader);
    let effective = Effective::new(&reader.effective, texts);
    reader.mistakes.none_or(Loaded { config: Config { api_keys, ..config }, effective })
}

/// The configuration of `flags`, the environment and the file that they name.
///
/// # Errors
/// All mistakes; that the file cannot be read is one.
pub fn read(flags: &ServeFlags, env: Env<'_>) -> Result<Loaded, Mistakes> {
    with_file(flags, env, load)
}

/// Where the admin API is, by the same sources; nothing else of them need be right.
///
/// # Errors
/// The mistakes in these few settings, or that the file cannot be read.
pub fn admin_access(flags: &ServeFlags, env: Env<'_>) -> Result<AdminAccess, Mistakes> {
    with_file(flags, env, |sources| {
        let mut form = Mistakes::default();
        let file = match sources.file {
            Some((name, text)) => file::read(name, text, &mut form).ok_or(form)?,
            None => file::File::default(),
        };
        // keys that only another version knows are no reason not to ask a running proxy
        let mut reader = Reader::new(sources.flags, sources.env, file, Mistakes::default());
        let mut address = reader.value(&settings::ADMIN_LISTEN, address);
        if address.ip().is_unspecified() {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
                IpAddr::V6(_) => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
            });
        }
        let token = reader.optional(&settings::ADMIN_TOKEN_FILE, admin_token);
        let ca_file = reader.optional(&settings::ADMIN_CA_FILE, certificates);
        // not looked into: its key is the proxy's alone to read
        let tls = reader.raw(&settings::ADMIN_TLS_CERT).is_some();
        reader.mistakes.none_or(AdminAccess { address, token, tls, ca_file })
    })
}

/// A variable of this process's environment; what is not UTF-8 in it is replaced by U+FFFD.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the place where the environment is read")]
pub fn process_env(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

fn with_file<T>(
    flags: &ServeFlags,
    env: Env<'_>,
    then: impl Fn(&Sources<'_>) -> Result<T, Mistakes>,
) -> Result<T, Mistakes> {
    let variable = format!("{ENV_PREFIX}CONFIG");
    let named = match flags.config() {
        Some(path) => Some((path.to_owned(), Origin::Flag("--config".into()))),
        None => env(&variable)
            .filter(|path| !path.is_empty())
            .map(|path| (PathBuf::from(path), Origin::Env(variable))),
    };
    let Some((path, origin)) = named else {
        return then(&Sources { flags, env, file: None });
    };
    let name = path.display().to_string();
    match std::fs::read_to_string(&path) {
        Ok(text) => then(&Sources { flags, env, file: Some((&name, &text)) }),
        Err(error) => {
            let mut mistakes = Mistakes::default();
            let problem = format!("{name} cannot be read: {}", error.kind());
            mistakes.add("config", &origin, problem, "the path of a TOML file");
            Err(mistakes)
        }
    }
}

fn server(reader: &mut Reader<'_>) -> Server {
    let listen = reader.value(&settings::LISTEN, address);
    let admin_listen = reader.value(&settings::ADMIN_LISTEN, address);
    let both_good = reader.is_good(&settings::LISTEN) && reader.is_good(&settings::ADMIN_LISTEN);
    if both_good && collide(listen, admin_listen) {
        let origin = reader.origin(&settings::ADMIN_LISTEN);
        let problem = format!("{admin_listen} is taken by server.listen ({listen})");
        reader.mistakes.add("server.admin_listen", &origin, problem, "another port");
    }
    let allow_anonymous = reader.value(&settings::ALLOW_ANONYMOUS, values::switch);
    let confirmed = reader.value(&settings::I_KNOW_THIS_IS_OPEN, values::switch);
    if allow_anonymous && !confirmed && !listen.ip().is_loopback() {
        let origin = reader.origin(&settings::ALLOW_ANONYMOUS);
        let problem = format!("would open every tenant to whoever reaches {listen}");
        let allowed = "true on a loopback listen, or together with server.i_know_this_is_open";
        reader.mistakes.add("server.allow_anonymous", &origin, problem, allowed);
    }
    let max_body = reader.number(&settings::MAX_BODY);
    Server {
        listen,
        admin_listen,
        allow_anonymous,
        passthrough: reader.value(&settings::PASSTHROUGH, links::passthrough),
        tls: tls::of_data_plane(reader),
        max_body,
        replay_buffer: reader.at_most(
            &settings::REPLAY_BUFFER,
            &settings::MAX_BODY,
            values::size_text,
        ),
        max_connections: reader.count(&settings::MAX_CONNECTIONS),
        header_timeout: reader.span(&settings::HEADER_TIMEOUT),
        failed_logins: u32::try_from(reader.number(&settings::FAILED_LOGINS)).unwrap_or(u32::MAX),
        drain_timeout: reader.span(&settings::DRAIN_TIMEOUT),
    }
}

fn admin(reader: &mut Reader<'_>, server: &Server) -> Admin {
    let token = reader.optional(&settings::ADMIN_TOKEN_FILE, admin_token);
    let missing = token.is_none() && reader.is_good(&settings::ADMIN_TOKEN_FILE);
    if missing && !server.admin_listen.ip().is_loopback() {
        let origin = reader.origin(&settings::ADMIN_TOKEN_FILE);
        let problem = format!(
            "is needed because server.admin_listen ({}) is not loopback",
            server.admin_listen
        );
        let allowed = settings::ADMIN_TOKEN_FILE.kind.allowed();
        reader.mistakes.add("admin.token_file", &origin, problem, allowed);
    }
    Admin {
        token,
        tls: tls::of_admin(reader),
        ca_file: reader.optional(&settings::ADMIN_CA_FILE, certificates),
    }
}

fn upstream(reader: &mut Reader<'_>) -> Upstream {
    Upstream {
        url: reader.value(&settings::UPSTREAM_URL, values::base_url),
        timeout: reader.span(&settings::UPSTREAM_TIMEOUT),
        connect_timeout: reader.span(&settings::CONNECT_TIMEOUT),
        max_in_flight: reader.count(&settings::MAX_IN_FLIGHT),
        ca_file: reader.optional(&settings::UPSTREAM_CA_FILE, certificates),
    }
}

fn queue(reader: &mut Reader<'_>) -> Queue {
    let max_wait =
        reader.at_most(&settings::MAX_WAIT, &settings::MAX_WAIT_LIMIT, values::duration_text);
    let per_tenant =
        reader.at_most(&settings::QUEUE_CAPACITY_PER_TENANT, &settings::QUEUE_CAPACITY, |count| {
            count.to_string()
        });
    Queue {
        max_wait: Duration::from_millis(max_wait),
        max_wait_limit: reader.span(&settings::MAX_WAIT_LIMIT),
        capacity: reader.count(&settings::QUEUE_CAPACITY),
        capacity_per_tenant: usize::try_from(per_tenant).unwrap_or(usize::MAX),
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.trim().parse().map_err(|_| "is no address with a port".into())
}

/// Whether two listeners would want the same port of the same address.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let covers = |wide: IpAddr, narrow: IpAddr| {
        // `[::]` takes IPv4 as well on most systems
        let all = wide.is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4());
        all || wide == narrow
    };
    let same_ip = covers(one.ip(), other.ip()) || covers(other.ip(), one.ip());
    one.port() == other.port() && one.port() != 0 && same_ip
}

/// A bearer token must fit a header.
fn admin_token(path: &str) -> Result<Secret<String>, String> {
    let token = secret_from_file(path)?;
    if token.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(token)
    } else {
        Err("the file holds spaces or characters that are not ASCII".into())
    }
}

fn certificates(path: &str) -> Result<PathBuf, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot be read: {}", error.kind()))?;
    if text.contains("-----BEGIN CERTIFICATE-----") {
        Ok(PathBuf::from(path))
    } else {
        Err("holds no PEM certificate".into())
    }
}
