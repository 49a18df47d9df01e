//! Log lines: where they go, which of them, in which form, and the one access line per request.
//!
//! Lines go to standard output, for the service manager to keep. No filter lets a library speak
//! below `info`: there they print frames and handshakes, and whether headers are among it is theirs
//! to change with any release. So a run at `trace` shows every step of this program and no secret,
//! because nothing outside it can be switched on. Libraries that write through `log` instead of
//! `tracing` are not heard. Level and form can change while running.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{Targets, dynamic_filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::{Registry, fmt, reload};

use crate::config::{Log, LogFormat};
use crate::rejection::Reason;

/// The target of this crate's own lines.
const OURS: &str = "ctct_proxy";
/// What libraries may say unless they are named: what somebody should watch.
const LIBRARY_LEVEL: LevelFilter = LevelFilter::WARN;
/// What a library that is named may say at most; see the module.
const LIBRARY_LEVEL_MAX: LevelFilter = LevelFilter::INFO;

/// Why logging cannot be set up as asked.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LogError {
    /// The level is neither a level nor a filter.
    #[error(
        "{text:?} is no log level: use off, error, warn, info, debug, trace, or target=level,…"
    )]
    Filter {
        /// What was given.
        text: String,
    },
    /// The filter asks a library for lines that may hold secrets.
    #[error(
        "{target}={level} is refused: only ctct_proxy may log below info (others may print tokens)"
    )]
    Library {
        /// The library, or what was taken for one.
        target: String,
        /// The level asked for.
        level: LevelFilter,
    },
    /// This process has set up logging before.
    #[error("logging is set up already")]
    SetUpAlready,
    /// The subscriber is gone.
    #[error("logging cannot be changed any more")]
    Gone,
}

/// Sets up logging for the whole process.
///
/// # Errors
/// [`LogError`] when the level makes no sense or the process has a subscriber already.
pub fn init(log: &Log) -> Result<Reload, LogError> {
    let (subscriber, reload) = subscriber(log, io::stdout, io::stdout().is_terminal())?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::SetUpAlready)?;
    Ok(reload)
}

/// Which lines `level` lets through: a level, or directives as in
/// `warn,ctct_proxy=debug,hyper=info`.
///
/// A bare level is that of this program; libraries say at most `warn` unless named, and never more
/// than `info`.
///
/// # Errors
/// [`LogError::Filter`] or [`LogError::Library`].
pub fn filter(level: &str) -> Result<Targets, LogError> {
    let refused = || LogError::Filter { text: level.to_owned() };
    let directives: Vec<&str> = level.split(',').map(str::trim).collect();
    if directives.contains(&"") {
        return Err(refused());
    }
    let asked: Targets = directives.join(",").parse().map_err(|_| refused())?;
    if asked.iter().count() == 0 && asked.default_level().is_none() {
        return Err(refused());
    }
    let bare = asked.default_level().unwrap_or(LevelFilter::INFO);
    let mut allowed = Targets::new().with_default(bare.min(LIBRARY_LEVEL)).with_target(OURS, bare);
    for (target, level) in &asked {
        if level > LIBRARY_LEVEL_MAX && !is_ours(target) {
            let is_word = directives.contains(&target);
            return Err(if is_word {
                refused()
            } else {
                LogError::Library { target: target.to_owned(), level }
            });
        }
        allowed = allowed.with_target(target, level);
    }
    Ok(allowed)
}

fn is_ours(target: &str) -> bool {
    target.strip_prefix(OURS).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Changes logging while the program runs; clones change the same.
#[derive(Clone, Debug)]
pub struct Reload {
    filter: reload::Handle<Targets, Registry>,
    json: Arc<AtomicBool>,
}

impl Reload {
    /// Logs as `log` says from now on; what is wrong changes nothing.
    ///
    /// # Errors
    /// [`LogError`] when the level makes no sense.
    pub fn apply(&self, log: &Log) -> Result<(), LogError> {
        self.filter.reload(filter(&log.level)?).map_err(|_| LogError::Gone)?;
        self.json.store(log.format == LogFormat::Json, Ordering::Relaxed);
        Ok(())
    }
}

/// Both forms are there and one of them is silent: spans keep their fields for the form that was on
/// when they began, so changing it under them is safe.
fn subscriber<W>(
    log: &Log,
    writer: W,
    colour: bool,
) -> Result<(impl Subscriber + Send + Sync + use<W>, Reload), LogError>
where
    W: for<'w> MakeWriter<'w> + Clone + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter(&log.level)?);
    let json = Arc::new(AtomicBool::new(log.format == LogFormat::Json));
    let (text_off, json_on) = (Arc::clone(&json), Arc::clone(&json));

    let mut text = fmt::layer().with_writer(writer.clone()).log_internal_errors(false);
    if !colour {
        // Left alone otherwise, so that `NO_COLOR` counts.
        text = text.with_ansi(false);
    }
    let objects = fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_writer(writer)
        .log_internal_errors(false);

    let subscriber = Registry::default()
        .with(filter)
        .with(text.with_filter(dynamic_filter_fn(move |_, _| !text_off.load(Ordering::Relaxed))))
        .with(objects.with_filter(dynamic_filter_fn(move |_, _| json_on.load(Ordering::Relaxed))));
    Ok((subscriber, Reload { filter: handle, json }))
}

/// What the access line says of one request.
#[derive(Clone, Copy, Debug)]
pub struct AccessLine<'a> {
    /// The request's id.
    pub request_id: &'a str,
    /// The client, once known.
    pub client: Option<&'a str>,
    /// The tenant, once known.
    pub tenant: Option<&'a str>,
    /// The API key, once known.
    pub api_key: Option<&'a str>,
    /// The method.
    pub method: &'a str,
    /// The path; a query, should one be left on it, is not written.
    pub path: &'a str,
    /// The status of the answer.
    pub status: u16,
    /// Why the proxy refused, if it did.
    pub reason: Option<Reason>,
    /// Time in the queue.
    pub queue: Duration,
    /// Time waiting for a token.
    pub token: Duration,
    /// Time of the upstream, to the head of its answer.
    pub upstream: Duration,
    /// Time from the request's head to the answer's.
    pub total: Duration,
    /// Calls that were sent upstream for it.
    pub attempts: u32,
    /// Length of the answer's body, where it is known.
    pub bytes: Option<u64>,
}

/// Writes the access line of one request.
pub fn access(line: &AccessLine<'_>) {
    tracing::info!(
        target: "ctct_proxy::access",
        request_id = line.request_id,
        client = line.client,
        tenant = line.tenant,
        api_key = line.api_key,
        method = line.method,
        path = line.path.split_once('?').map_or(line.path, |(path, _)| path),
        status = line.status,
        reason = line.reason.map(Reason::as_str),
        queue_ms = ms(line.queue),
        token_ms = ms(line.token),
        upstream_ms = ms(line.upstream),
        total_ms = ms(line.total),
        attempts = line.attempts,
        bytes = line.bytes,
        "request"
    );
}

/// Milliseconds, to the microsecond.
fn ms(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests;
