//! How a sandbox is set up: limits, latencies, token rules, chance failures.
//!
//! The defaults are those of a standard API key of the real service where that is documented, and
//! the strictest reading where it is not. Nothing here knows the proxy's configuration: the command
//! line turns its own flags into these values.

use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use crate::secret::Secret;

const DAY: Duration = Duration::from_hours(24);

/// What a sandbox does and how strictly.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Calls of one API key let through in a second.
    pub per_second: u32,
    /// Calls of one API key let through in a day.
    pub per_day: u64,
    /// How the second is measured.
    pub window: Window,
    /// Whether calls refused with `throttled` fill the sliding window too.
    pub count_refused: bool,
    /// Time of day after 00:00:00Z at which the quota day turns.
    pub day_reset: Duration,
    /// Time from arrival to answer.
    pub latency: Duration,
    /// Greatest deviation from `latency`, evenly spread to both sides.
    pub jitter: Duration,
    /// Time from arrival to answer of the token endpoint.
    pub token_latency: Duration,
    /// Least time from an answer of the token endpoint to the next request of the same API key.
    pub token_interval: Duration,
    /// Least time between two polls of a device.
    pub device_interval: Duration,
    /// Life of a device's codes.
    pub device_life: Duration,
    /// Life of an access token.
    pub access_token_life: Duration,
    /// Time after which an unused refresh token is dead.
    pub refresh_token_life: Duration,
    /// Whether each refresh token works once and is answered with the next one.
    pub rotating: bool,
    /// How long after its first use the previous refresh token still works; zero is strictest.
    pub reuse_grace: Duration,
    /// Failures by chance of calls that would have been served.
    pub fail: Vec<Fail>,
    /// Clients accepted at the token endpoint; empty accepts any.
    pub clients: Vec<OAuthClient>,
    /// Contacts that each new account starts with.
    pub contacts: usize,
    /// Whether the log keeps request headers (with the authorization blanked).
    pub record_headers: bool,
    /// Seed of all chance; none takes one from the operating system.
    pub seed: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8090)),
            per_second: 4,
            per_day: 10_000,
            window: Window::Fixed,
            count_refused: false,
            day_reset: Duration::ZERO,
            latency: Duration::from_millis(80),
            jitter: Duration::from_millis(20),
            token_latency: Duration::from_millis(80),
            token_interval: Duration::from_secs(1),
            device_interval: Duration::from_secs(5),
            device_life: Duration::from_mins(10),
            access_token_life: DAY,
            refresh_token_life: DAY * 180,
            rotating: true,
            reuse_grace: Duration::ZERO,
            fail: Vec::new(),
            clients: Vec::new(),
            contacts: 1_250,
            record_headers: false,
            seed: None,
        }
    }
}

/// How calls in a second are counted. The real gateway's way is not documented, so a proxy must fit
/// all three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// Whole seconds of the wall clock.
    Fixed,
    /// Any span of one second.
    Sliding,
    /// A token bucket that holds and refills `per_second`.
    Bucket,
}

/// A share of calls that fail with a status.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fail {
    /// Share of calls, 0 to 1.
    pub rate: f64,
    /// Status of the failure, 400 to 599.
    pub status: u16,
}

/// An application that may ask for tokens.
#[derive(Clone, Debug)]
pub struct OAuthClient {
    /// Its id, the API key.
    pub client_id: String,
    /// Its secret; none makes it a public client.
    pub secret: Option<Secret<String>>,
}

impl OAuthClient {
    /// A client with a secret, or a public one.
    #[must_use]
    pub fn new(client_id: &str, secret: Option<&str>) -> Self {
        Self { client_id: client_id.to_owned(), secret: secret.map(Secret::from) }
    }
}

/// A text that is no option of the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {wanted}")]
pub struct BadOption {
    text: String,
    wanted: &'static str,
}

impl FromStr for Window {
    type Err = BadOption;

    fn from_str(text: &str) -> Result<Self, BadOption> {
        match text {
            "fixed" => Ok(Self::Fixed),
            "sliding" => Ok(Self::Sliding),
            "bucket" => Ok(Self::Bucket),
            _ => Err(BadOption { text: text.to_owned(), wanted: "fixed, sliding or bucket" }),
        }
    }
}

impl FromStr for Fail {
    type Err = BadOption;

    fn from_str(text: &str) -> Result<Self, BadOption> {
        let bad = || BadOption {
            text: text.to_owned(),
            wanted: "RATE:STATUS with a rate of 0 to 1 and a status of 400 to 599",
        };
        let (rate, status) = text.split_once(':').ok_or_else(bad)?;
        let rate: f64 = rate.parse().map_err(|_| bad())?;
        let status: u16 = status.parse().map_err(|_| bad())?;
        if (0.0..=1.0).contains(&rate) && (400..=599).contains(&status) {
            Ok(Self { rate, status })
        } else {
            Err(bad())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_and_failures_are_read_from_text() {
        assert_eq!("sliding".parse(), Ok(Window::Sliding));
        assert!("rolling".parse::<Window>().is_err());
        assert_eq!("0.01:503".parse(), Ok(Fail { rate: 0.01, status: 503 }));
        for wrong in ["0.01", "2:503", "0.1:200", "x:503", "NaN:503"] {
            assert!(wrong.parse::<Fail>().is_err(), "{wrong}");
        }
    }
}
