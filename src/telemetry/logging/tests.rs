//! Tests of logging: each with a subscriber of its own that writes into memory.

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use tracing::Level;

use super::*;

/// Lines kept in memory; clones share them.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn taken(&self) -> String {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        String::from_utf8(bytes).unwrap()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn log(format: LogFormat, level: &str) -> Log {
    Log { format, level: level.to_owned() }
}

/// Runs `act` with logging as `log` says.
fn logged(log: &Log, act: impl FnOnce(&Reload, &Lines)) {
    let lines = Lines::default();
    let writer = lines.clone();
    let (subscriber, reload) = subscriber(log, move || writer.clone(), false).unwrap();
    tracing::subscriber::with_default(subscriber, || act(&reload, &lines));
}

const LINE: AccessLine<'_> = AccessLine {
    request_id: "r-1",
    client: Some("shop"),
    tenant: Some("acme"),
    api_key: Some("main"),
    method: "GET",
    path: "/v3/contacts?email=someone@example.com",
    status: 429,
    reason: Some(Reason::WaitExpired),
    queue: Duration::from_micros(30_000_125),
    token: Duration::ZERO,
    upstream: Duration::ZERO,
    total: Duration::from_millis(30_001),
    attempts: 0,
    bytes: None,
};

#[test]
fn no_filter_lets_a_library_speak_below_info() {
    let libraries = ["h2", "h2::codec::framed_write", "hyper", "hyper_util::client", "rustls", "x"];
    for level in ["trace", "debug", "trace,h2=info", "ctct_proxy=trace", "ctct=info,trace"] {
        let filter = filter(level).unwrap();
        for library in libraries {
            assert!(!filter.would_enable(library, &Level::DEBUG), "{level}: {library}");
            assert!(!filter.would_enable(library, &Level::TRACE), "{level}: {library}");
        }
    }
    for refused in ["h2=trace", "info,hyper=debug", "=trace", "ctct_proxyx=debug", "ctct=trace"] {
        assert!(matches!(filter(refused), Err(LogError::Library { .. })), "{refused}");
    }
    for refused in ["", " ", "verbose", "info,", "h2", "a=b=c", "ctct_proxy=loud"] {
        assert!(matches!(filter(refused), Err(LogError::Filter { .. })), "{refused}");
    }
}

#[test]
fn a_bare_level_is_ours_and_libraries_stay_at_warn_unless_named() {
    let debug = filter("debug").unwrap();
    assert!(debug.would_enable("ctct_proxy::gate", &Level::DEBUG));
    assert!(!debug.would_enable("ctct_proxy::gate", &Level::TRACE));
    assert!(debug.would_enable("hyper", &Level::WARN));
    assert!(!debug.would_enable("hyper", &Level::INFO));
    let named = filter("error, hyper=info, ctct_proxy::gate=trace").unwrap();
    assert!(named.would_enable("hyper::server", &Level::INFO));
    assert!(named.would_enable("ctct_proxy::gate", &Level::TRACE));
    assert!(!named.would_enable("ctct_proxy::proxy", &Level::WARN));
    assert!(!named.would_enable("h2", &Level::WARN));
    assert!(!filter("off").unwrap().would_enable("ctct_proxy", &Level::ERROR));
}

#[test]
fn a_run_at_trace_shows_our_steps_and_nothing_that_a_library_sends() {
    logged(&log(LogFormat::Text, "trace"), |_, lines| {
        tracing::trace!(target: "h2::codec", frame = "authorization: Bearer secret", "send");
        tracing::debug!(target: "hyper::proto", "authorization: Bearer secret");
        let span = tracing::debug_span!(target: "h2", "frame", value = "secret");
        span.in_scope(|| tracing::trace!(target: "ctct_proxy::gate", "slot granted"));
        let text = lines.taken();
        assert!(text.contains("slot granted"), "{text}");
        assert!(!text.contains("secret"), "{text}");
    });
}

#[test]
fn the_access_line_is_one_json_object_without_the_query() {
    logged(&log(LogFormat::Json, "info"), |_, lines| {
        access(&LINE);
        let text = lines.taken();
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["target"], "ctct_proxy::access");
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["message"], "request");
        assert_eq!(line["request_id"], "r-1");
        assert_eq!(line["tenant"], "acme");
        assert_eq!(line["path"], "/v3/contacts");
        assert_eq!(line["status"], 429);
        assert_eq!(line["reason"], "wait_expired");
        assert_eq!(line["queue_ms"], 30_000.125);
        assert_eq!(line.get("bytes"), None);
    });
}

#[test]
fn the_access_line_can_be_switched_off_alone() {
    logged(&log(LogFormat::Text, "info,ctct_proxy::access=warn"), |_, lines| {
        access(&LINE);
        tracing::info!(target: "ctct_proxy::app", "ready");
        let text = lines.taken();
        assert!(text.contains("ready"), "{text}");
        assert!(!text.contains("request"), "{text}");
    });
}

#[test]
fn level_and_form_change_while_a_span_is_open() {
    logged(&log(LogFormat::Text, "info"), |reload, lines| {
        let span = tracing::info_span!(target: "ctct_proxy::proxy", "request", request_id = "r-7");
        let _entered = span.entered();
        let step = || tracing::debug!(target: "ctct_proxy::gate", "step");
        step();
        assert_eq!(lines.taken(), "");

        reload.apply(&log(LogFormat::Json, "debug")).unwrap();
        step();
        let line: serde_json::Value = serde_json::from_str(&lines.taken()).unwrap();
        assert_eq!(line["message"], "step");

        let inner = tracing::info_span!(target: "ctct_proxy::proxy", "call", attempt = 2);
        inner.in_scope(step);
        let line: serde_json::Value = serde_json::from_str(&lines.taken()).unwrap();
        assert_eq!(line["span"]["attempt"], 2);

        assert!(reload.apply(&log(LogFormat::Text, "loud")).is_err());
        step();
        assert!(lines.taken().starts_with('{'), "a bad level changes nothing");

        reload.apply(&log(LogFormat::Text, "debug")).unwrap();
        step();
        let text = lines.taken();
        assert!(text.contains("request_id=\"r-7\"") && text.contains("step"), "{text}");
    });
}
