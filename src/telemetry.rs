//! What can be seen from outside: log lines, metrics, and the stream of events for the admin API.
//!
//! None of the three holds a token, a key, a body or a query string. Each metric is declared once,
//! in `metrics/page.rs`; each request leaves one access line; an event says that a state changed,
//! not why the program did what it did. Nothing here is global but the subscriber that [`init`]
//! installs.

pub mod events;
pub mod logging;
pub mod metrics;
mod process;

use std::fmt;

use serde::Serialize;

pub use events::{Event, Events, Notice};
pub use logging::{AccessLine, LogError, Reload, access, init};
pub use metrics::{CONTENT_TYPE, KeyMetrics, Metrics, TEXT_CONTENT_TYPE};

/// Which limit the upstream named when it refused a call with 429.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ThrottleScope {
    /// `throttled`: calls per second.
    Second,
    /// `quota_exceeded`: calls per day.
    Day,
    /// A 429 that names neither, or is no JSON.
    Other,
}

impl ThrottleScope {
    /// All scopes.
    pub const ALL: [Self; 3] = [Self::Second, Self::Day, Self::Other];

    /// Its name in metrics and events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Day => "day",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for ThrottleScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
