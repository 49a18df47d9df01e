//! The share of a day that is kept for interactive calls, as it is written: `10%`.
//!
//! Whole percents from 0 to 90: with more, normal and bulk calls would have to wait for the evening
//! of every day.

use std::fmt;

/// Largest reserve, in percent.
const PERCENT_MAX: u8 = 90;

/// A share of the day, in whole percents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserve(u8);

/// Why a text is no reserve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReserveError;

impl fmt::Display for ReserveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a reserve is a whole percentage from 0% to {PERCENT_MAX}%, such as 10%")
    }
}

impl std::error::Error for ReserveError {}

impl Reserve {
    /// This many percent, at most 90.
    #[must_use]
    pub const fn from_percent(percent: u8) -> Option<Self> {
        if percent <= PERCENT_MAX { Some(Self(percent)) } else { None }
    }

    /// Its percents.
    #[must_use]
    pub const fn percent(self) -> u8 {
        self.0
    }
}

impl std::str::FromStr for Reserve {
    type Err = ReserveError;

    fn from_str(text: &str) -> Result<Self, ReserveError> {
        let digits = text.trim().strip_suffix('%').ok_or(ReserveError)?.trim_end();
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ReserveError);
        }
        let percent = digits.parse().map_err(|_| ReserveError)?;
        Self::from_percent(percent).ok_or(ReserveError)
    }
}

/// As it is written in a configuration.
impl fmt::Display for Reserve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_a_whole_percentage_with_its_sign() {
        for (text, percent) in [("0%", 0), ("10%", 10), (" 90 % ", 90), ("007%", 7)] {
            let reserve: Result<Reserve, _> = text.parse();
            assert_eq!(reserve.map(Reserve::percent), Ok(percent), "{text}");
        }
        for bad in ["", "%", "10", "0.1", "10.5%", "91%", "-1%", "+1%", "256%", "ten%", "10%%"] {
            assert_eq!(bad.parse::<Reserve>(), Err(ReserveError), "{bad}");
        }
    }

    #[test]
    fn a_reserve_prints_as_it_is_read() {
        assert_eq!("10%".parse::<Reserve>().map(|reserve| reserve.to_string()), Ok("10%".into()));
    }
}
