//! Reading the sandbox's log.

use std::time::Duration;

use ctct_proxy::sandbox::{LogEntry, Sandbox, Verdict};

/// Paths of the API.
fn is_api(entry: &LogEntry) -> bool {
    entry.path.starts_with("/v3")
}

/// API calls, in the order of their arrival.
pub(crate) fn api_calls(sandbox: &Sandbox) -> Vec<LogEntry> {
    sandbox.log().into_iter().filter(is_api).collect()
}

/// Token requests, in the order of their arrival.
pub(crate) fn token_requests(sandbox: &Sandbox) -> Vec<LogEntry> {
    sandbox.log().into_iter().filter(|entry| entry.path.ends_with("/token")).collect()
}

/// How many API calls arrived.
pub(crate) fn arrivals(sandbox: &Sandbox) -> usize {
    api_calls(sandbox).len()
}

/// When a request arrived, on the sandbox's monotonic clock.
pub(crate) fn at(entry: &LogEntry) -> Duration {
    Duration::from_nanos(entry.mono_ns)
}

/// Time from one request to a later one; zero when the order is another.
pub(crate) fn gap(earlier: &LogEntry, later: &LogEntry) -> Duration {
    at(later).saturating_sub(at(earlier))
}

/// The mean rate from the first to the last of these calls.
pub(crate) fn rate(calls: &[LogEntry]) -> f64 {
    let (Some(first), Some(last)) = (calls.first(), calls.last()) else { return 0.0 };
    let gaps = u32::try_from(calls.len() - 1).expect("a test's calls can be counted");
    f64::from(gaps) / gap(first, last).as_secs_f64()
}

/// Ends the test when the sandbox refused a call for its rate or its day.
#[track_caller]
pub(crate) fn assert_no_429(sandbox: &Sandbox) {
    let counts = sandbox.counts();
    let refused = (counts.of(Verdict::Throttled), counts.of(Verdict::QuotaExceeded));
    assert_eq!(refused, (0, 0), "throttled, quota exceeded");
}
