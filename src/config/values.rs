//! Reading and writing single values: durations, sizes, times of day, URLs, levels.
//!
//! Each reader takes text and gives the value, or says what is wrong without repeating the text:
//! the caller knows whether it may be shown. What a writer writes its reader reads as the same.

use std::time::Duration;

use http::Uri;
use tracing_subscriber::EnvFilter;

use super::{AuthStyle, LogFormat, Plan};
use crate::engine::{DayReset, Guard};

/// Units of durations in milliseconds, largest first.
const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
/// Units of sizes in bytes; those that [`size_text`] writes come first, largest first.
const SIZE_UNITS: [(&str, u64); 8] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
    ("", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];
/// Longest fixed guard, in milliseconds.
const GUARD_MS_MAX: u128 = 60_000;

/// A duration: whole numbers with the units `ms`, `s`, `m`, `h` and `d` (24 h), such as `1m 30s`;
/// `0` needs none.
///
/// # Errors
/// What is wrong with the text.
pub fn duration(text: &str) -> Result<Duration, String> {
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err("is empty".into());
    }
    let mut total_ms: u64 = 0;
    while !rest.is_empty() {
        let (number, after) = split_while(rest, |c| c.is_ascii_digit());
        let (unit, after) = split_while(after.trim_start(), |c| c.is_ascii_alphabetic());
        let Ok(number) = number.parse::<u64>() else {
            return Err("is no duration".into());
        };
        let factor = DURATION_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, ms)| *ms);
        let Some(factor) = factor else {
            let problem = if unit.is_empty() { "has no unit" } else { "has an unknown unit" };
            return Err(format!("{problem} (ms, s, m, h, d)"));
        };
        total_ms = number
            .checked_mul(factor)
            .and_then(|ms| ms.checked_add(total_ms))
            .ok_or("is too long")?;
        rest = after.trim_start();
    }
    Ok(Duration::from_millis(total_ms))
}

/// `ms` milliseconds as [`duration`] reads it.
#[must_use]
pub fn duration_text(ms: u64) -> String {
    if ms == 0 {
        return "0s".into();
    }
    let mut rest = ms;
    let mut parts = Vec::new();
    for (unit, factor) in DURATION_UNITS {
        if rest >= factor {
            parts.push(format!("{}{unit}", rest / factor));
            rest %= factor;
        }
    }
    parts.join(" ")
}

/// A number of bytes: a whole number with `KiB`, `MiB`, `GiB`, `kB`, `MB`, `GB`, `B` or nothing.
///
/// # Errors
/// What is wrong with the text.
pub fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split_while(text.trim(), |c| c.is_ascii_digit());
    let number = number.parse::<u64>().map_err(|_| "is no size")?;
    let unit = unit.trim_start();
    let factor = SIZE_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, bytes)| *bytes);
    let factor = factor.ok_or("has an unknown unit (B, KiB, MiB, GiB, kB, MB, GB)")?;
    number.checked_mul(factor).ok_or_else(|| "is too large".into())
}

/// `bytes` as [`size`] reads it.
#[must_use]
pub fn size_text(bytes: u64) -> String {
    let whole = |factor: u64| bytes >= factor && bytes.is_multiple_of(factor);
    SIZE_UNITS
        .iter()
        .take(3)
        .find(|(_, factor)| whole(*factor))
        .map_or_else(|| bytes.to_string(), |(unit, factor)| format!("{}{unit}", bytes / factor))
}

/// A whole number.
///
/// # Errors
/// What is wrong with the text.
pub fn count(text: &str) -> Result<u64, String> {
    text.trim().parse().map_err(|_| "is no whole number".into())
}

/// `true` or `false`, also as `1` or `0`.
///
/// # Errors
/// What is wrong with the text.
pub fn switch(text: &str) -> Result<bool, String> {
    let text = text.trim().to_ascii_lowercase();
    let (is_on, is_off) = (text == "true" || text == "1", text == "false" || text == "0");
    (is_on != is_off).then_some(is_on).ok_or_else(|| "is neither true nor false".into())
}

/// A time of day in UTC: `HH:MM:SSZ` or `HH:MMZ`.
///
/// # Errors
/// What is wrong with the text.
pub fn time_of_day(text: &str) -> Result<DayReset, String> {
    let text = text.trim();
    let Some(clock) = text.strip_suffix('Z') else {
        return Err("does not end in Z (UTC)".into());
    };
    let two_digits = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
    let parts: Vec<u64> =
        clock.split(':').filter(|p| two_digits(p)).filter_map(|p| p.parse().ok()).collect();
    let (hours, minutes, seconds) = match parts.as_slice() {
        [hours, minutes] if clock.len() == 5 => (*hours, *minutes, 0),
        [hours, minutes, seconds] if clock.len() == 8 => (*hours, *minutes, *seconds),
        _ => return Err("is no time of day".into()),
    };
    if hours > 23 || minutes > 59 || seconds > 59 {
        return Err("is no time of day".into());
    }
    Ok(DayReset::new(Duration::from_secs(hours * 3_600 + minutes * 60 + seconds)))
}

/// `reset` as [`time_of_day`] reads it.
#[must_use]
pub fn time_of_day_text(reset: DayReset) -> String {
    let secs = reset.after_midnight().as_secs();
    format!("{:02}:{:02}:{:02}Z", secs / 3_600, secs / 60 % 60, secs % 60)
}

/// An `http` or `https` URL with a host.
///
/// # Errors
/// What is wrong with the text.
pub fn url(text: &str) -> Result<Uri, String> {
    let text = text.trim();
    if text.contains('#') {
        return Err("has a fragment".into());
    }
    let uri: Uri = text.parse().map_err(|_| "is no URL")?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("does not start with http:// or https://".into());
    }
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    if authority.contains('@') {
        return Err("holds a user or password".into());
    }
    let host = uri.host().unwrap_or_default();
    let after_host = authority.strip_prefix(host).unwrap_or_default();
    // `http` itself passes over a port that is too high
    let port_is_fine = after_host
        .strip_prefix(':')
        .map_or(after_host.is_empty(), |port| port.parse::<u16>().is_ok_and(|port| port > 0));
    if host.is_empty() || !port_is_fine {
        return Err("has no host, or a port that is no port".into());
    }
    Ok(uri)
}

/// An `http` or `https` URL of scheme, host and port alone; one `/` at the end is passed over.
///
/// # Errors
/// What is wrong with the text.
pub fn base_url(text: &str) -> Result<Uri, String> {
    let uri = url(text)?;
    if uri.path() != "/" || text.contains('?') {
        return Err("has a path or query".into());
    }
    Ok(uri)
}

/// A plan.
///
/// # Errors
/// What is wrong with the text.
pub fn plan(text: &str) -> Result<Plan, String> {
    match text.trim() {
        "standard" => Ok(Plan::Standard),
        "partner" => Ok(Plan::Partner),
        _ => Err("is no plan".into()),
    }
}

/// `auto` or a duration.
///
/// # Errors
/// What is wrong with the text.
pub fn guard(text: &str) -> Result<Guard, String> {
    if text.trim() == "auto" {
        return Ok(Guard::Auto);
    }
    let fixed = duration(text)?;
    if fixed.as_millis() > GUARD_MS_MAX {
        return Err("is too long".into());
    }
    Ok(Guard::Fixed(fixed))
}

/// `guard` as [`guard()`] reads it.
#[must_use]
pub fn guard_text(guard: Guard) -> String {
    match guard {
        Guard::Auto => "auto".into(),
        Guard::Fixed(fixed) => duration_text(u64::try_from(fixed.as_millis()).unwrap_or(u64::MAX)),
    }
}

/// `basic`, `body` or `public`.
///
/// # Errors
/// What is wrong with the text.
pub fn auth_style(text: &str) -> Result<AuthStyle, String> {
    match text.trim() {
        "basic" => Ok(AuthStyle::Basic),
        "body" => Ok(AuthStyle::Body),
        "public" => Ok(AuthStyle::Public),
        _ => Err("is no way to authenticate".into()),
    }
}

/// `text` or `json`.
///
/// # Errors
/// What is wrong with the text.
pub fn log_format(text: &str) -> Result<LogFormat, String> {
    match text.trim() {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("is no format".into()),
    }
}

/// A level or a filter.
///
/// # Errors
/// What is wrong with the text.
pub fn log_level(text: &str) -> Result<String, String> {
    let text = text.trim();
    // a filter takes any single word as a target at level trace, so that a misspelt level would
    // open everything
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = |word: &str| levels.contains(&word.to_ascii_lowercase().as_str());
    let is_target = |part: &str| part.contains(['=', '[']);
    let parts_are_fine = text.split(',').all(|part| is_level(part.trim()) || is_target(part));
    if !parts_are_fine || EnvFilter::builder().parse(text).is_err() {
        return Err("is no level or filter".into());
    }
    Ok(text.to_owned())
}

/// A client id.
///
/// # Errors
/// What is wrong with the text.
pub fn client_id(text: &str) -> Result<String, String> {
    match text {
        "" => Err("is empty".into()),
        _ if text.len() > 256 => Err("is longer than 256 characters".into()),
        _ if text.bytes().all(|b| b.is_ascii_graphic()) => Ok(text.to_owned()),
        _ => Err("has a space or a character that is not ASCII".into()),
    }
}

fn split_while(text: &str, keep: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !keep(c)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_and_add_up() {
        for (text, ms) in [
            ("0", 0),
            ("0s", 0),
            ("250ms", 250),
            ("30s", 30_000),
            ("1m 30s", 90_000),
            ("1m30s", 90_000),
            ("150d", 12_960_000_000),
            (" 2 h ", 7_200_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
            assert_eq!(duration(&duration_text(ms)), Ok(Duration::from_millis(ms)), "{ms}");
        }
        for bad in ["", "30", "s", "-1s", "1.5s", "1w", "1s,", "99999999999999999999d", "PT1H"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_binary_or_decimal() {
        for (text, bytes) in
            [("10MiB", 10 << 20), ("1MB", 1_000_000), ("4096", 4_096), ("1 KiB", 1_024), ("7B", 7)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
            assert_eq!(size(&size_text(bytes)), Ok(bytes), "{bytes}");
        }
        for bad in ["", "MiB", "1mb", "-1", "1.5MiB", "99999999999GiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_time_of_day_is_in_utc() {
        assert_eq!(time_of_day("00:00:00Z"), Ok(DayReset::default()));
        let late = time_of_day("23:59:59Z").unwrap();
        assert_eq!(time_of_day_text(late), "23:59:59Z");
        assert_eq!(time_of_day("07:30Z"), time_of_day("07:30:00Z"));
        for bad in ["00:00:00", "24:00:00Z", "1:00Z", "00:00:60Z", "00:00:00:00Z", "Z", "aa:bbZ"] {
            assert!(time_of_day(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_base_url_is_scheme_host_and_port() {
        for good in ["https://api.cc.email", "http://127.0.0.1:8090/", "http://[::1]:80"] {
            assert!(base_url(good).is_ok(), "{good}");
        }
        for bad in [
            "api.cc.email",
            "ftp://x",
            "https://",
            "https://a/v3",
            "https://a?b",
            "https://u:p@a",
            "https://a:0",
            "https://a:",
            "https://a:99999",
            "https://a#b",
            "/v3",
        ] {
            assert!(base_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_misspelt_level_is_no_filter() {
        for good in ["info", "WARN", "warn,ctct_proxy=debug", "off"] {
            assert!(log_level(good).is_ok(), "{good}");
        }
        for bad in ["", "inf", "verbose", "info,debg", "ctct_proxy=loud"] {
            assert!(log_level(bad).is_err(), "{bad}");
        }
    }
}
