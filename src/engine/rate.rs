//! How fast an API key may go: a rate as calls in a window, the guard on that window, and the class
//! of a call.
//!
//! A rate is kept as whole calls per window so that the pacer needs no floating point. `4` is four
//! calls per second, `0.5` one call in two seconds, `90/min` two calls in 1.333 seconds.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

/// The class of a call (RFC 9218 urgency 0–2, 3–4, 5–7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Somebody waits at a screen: urgency 0 to 2.
    Interactive,
    /// The default: urgency 3 and 4.
    #[default]
    Normal,
    /// Background work: urgency 5 to 7.
    Bulk,
}

impl Class {
    /// All classes, most urgent first.
    pub const ALL: [Self; 3] = [Self::Interactive, Self::Normal, Self::Bulk];

    /// Its name in metrics and admin answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Normal => "normal",
            Self::Bulk => "bulk",
        }
    }

    /// The class of an RFC 9218 urgency; values above 7 count as 7.
    #[must_use]
    pub const fn from_urgency(urgency: u8) -> Self {
        match urgency {
            0..=2 => Self::Interactive,
            3 | 4 => Self::Normal,
            5..=u8::MAX => Self::Bulk,
        }
    }
}

/// The margin added to the upstream's window against jitter of the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Guard {
    /// Learned from the round trips of the calls themselves.
    #[default]
    Auto,
    /// Always this long.
    Fixed(Duration),
}

/// At most `calls` in any `window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// What was set, in millionths of a call per second. The two others follow from it, but not it
    /// from them: a window is whole nanoseconds.
    micro: u64,
    calls: NonZeroU32,
    window: Duration,
}

/// Why a text is no rate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateError;

impl fmt::Display for RateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a rate is a number of calls per second from 0.001 to 1000000, such as 4, 0.5 or \
             60/min",
        )
    }
}

impl std::error::Error for RateError {}

/// Rates are read with this precision, in millionths of a call per second.
const MICRO: u64 = 1_000_000;

impl Rate {
    /// `calls` in any second.
    #[must_use]
    pub const fn per_second(calls: NonZeroU32) -> Self {
        let micro = MICRO.saturating_mul(calls.get() as u64);
        Self { micro, calls, window: Duration::from_secs(1) }
    }

    /// Calls that one window holds.
    #[must_use]
    pub const fn calls(self) -> u32 {
        self.calls.get()
    }

    /// The window.
    #[must_use]
    pub const fn window(self) -> Duration {
        self.window
    }

    /// The rate of `micro` millionths of a call per second: the smallest whole number of calls
    /// whose window is at least one second.
    fn from_micro(micro: u64) -> Result<Self, RateError> {
        if !(1_000..=1_000_000 * MICRO).contains(&micro) {
            return Err(RateError);
        }
        let calls = u32::try_from(micro.div_ceil(MICRO)).map_err(|_| RateError)?;
        let nanos = u128::from(calls)
            .saturating_mul(u128::from(MICRO))
            .saturating_mul(1_000_000_000)
            .div_ceil(u128::from(micro));
        let window = Duration::from_nanos(u64::try_from(nanos).map_err(|_| RateError)?);
        Ok(Self { micro, calls: NonZeroU32::new(calls).ok_or(RateError)?, window })
    }
}

/// A decimal number without sign or exponent, in millionths.
fn micro(text: &str) -> Result<u64, RateError> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 6 {
        return Err(RateError);
    }
    let whole: u64 = whole.parse().map_err(|_| RateError)?;
    let fraction: u64 = format!("{fraction:0<6}").parse().map_err(|_| RateError)?;
    whole.checked_mul(MICRO).and_then(|w| w.checked_add(fraction)).ok_or(RateError)
}

impl std::str::FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let (number, per) = match text.trim().split_once('/') {
            None => (text.trim(), 1),
            Some((number, "s" | "sec" | "second")) => (number, 1),
            Some((number, "min" | "minute")) => (number, 60),
            Some((number, "h" | "hour")) => (number, 3_600),
            Some(_) => return Err(RateError),
        };
        Self::from_micro(micro(number)?.checked_div(per).ok_or(RateError)?)
    }
}

/// Calls per second, as it is written in a configuration file.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (self.micro.div_euclid(MICRO), self.micro.rem_euclid(MICRO));
        if fraction == 0 {
            return write!(f, "{whole}");
        }
        let fraction = format!("{fraction:06}");
        write!(f, "{whole}.{}", fraction.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_whole_calls_per_window() {
        let read =
            |text: &str| text.parse::<Rate>().map(|rate| (rate.calls(), rate.window().as_millis()));
        assert_eq!(read("4"), Ok((4, 1_000)));
        assert_eq!(read("0.5"), Ok((1, 2_000)));
        assert_eq!(read("60/min"), Ok((1, 1_000)));
        assert_eq!(read("90/min"), Ok((2, 1_333)));
        assert_eq!(read("10"), Ok((10, 1_000)));
        assert_eq!(read("0.001953"), Ok((1, 512_032)));
        for bad in ["", "0", "-1", "+1", "1.+5", "4/day", "1e3", "four", "0.0001", "1000001", "1."]
        {
            assert_eq!(read(bad), Err(RateError), "{bad}");
        }
        assert_eq!(read("0.0019531"), Err(RateError), "seven digits");
    }

    #[test]
    fn classes_are_told_by_urgency_and_named() {
        let named = [0, 2, 3, 4, 5, 7, 8].map(|urgency| Class::from_urgency(urgency).as_str());
        let expected = ["interactive", "interactive", "normal", "normal", "bulk", "bulk", "bulk"];
        assert_eq!(named, expected);
    }

    #[test]
    fn a_rate_prints_as_it_was_written() {
        for text in ["4", "0.5", "10", "1.5", "710780.51", "1000000"] {
            assert_eq!(text.parse::<Rate>().map(|rate| rate.to_string()), Ok(text.to_owned()));
        }
    }
}
