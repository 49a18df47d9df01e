//! The words for an operator when a refresh token is dead.
//!
//! The text is kept in the store, shown in admin answers and told to callers; it says what
//! happened, when the tokens were last good, and what to do.

use std::sync::Arc;

use super::tenant::Doubt;
use crate::engine::Unix;

const DAY_SECS: u64 = 86_400;

/// Why the tenant must be connected again.
pub(super) fn reason(doubt: Doubt, last_refreshed_at: Option<Unix>) -> Arc<str> {
    let what = match doubt {
        Doubt::Clear => "the token endpoint no longer accepts the refresh token".to_owned(),
        Doubt::Unclear(trouble) => {
            format!(
                "a refresh failed ({trouble}) and the refresh token is no longer accepted since"
            )
        }
        Doubt::Lost { .. } => {
            "the answer to a refresh was lost and the refresh token is no longer accepted"
                .to_owned()
        }
        Doubt::Stopped { .. } => {
            "the process stopped between a token request and storing its answer, and \
             the refresh token is no longer accepted"
                .to_owned()
        }
    };
    let last = last_refreshed_at.map_or_else(
        || "never refreshed here".to_owned(),
        |at| format!("last good refresh {}", utc(at)),
    );
    Arc::from(format!("{what}; {last}; the account must be connected again"))
}

/// `2026-11-24 06:38 UTC`: days to a civil date after Howard Hinnant, "chrono-compatible low-level
/// date algorithms", `civil_from_days`, with years that begin in March.
fn utc(at: Unix) -> String {
    let (days, secs) = (at.as_secs() / DAY_SECS, at.as_secs() % DAY_SECS);
    let shifted = days.saturating_add(719_468);
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let leaps = (day_of_era / 1_460).saturating_add(day_of_era / 146_096);
    let year_of_era = day_of_era.saturating_add(day_of_era / 36_524).saturating_sub(leaps) / 365;
    let days_before = year_of_era
        .saturating_mul(365)
        .saturating_add(year_of_era / 4)
        .saturating_sub(year_of_era / 100);
    let day_of_year = day_of_era.saturating_sub(days_before);
    let march_month = day_of_year.saturating_mul(5).saturating_add(2) / 153;
    let day = day_of_year
        .saturating_sub(march_month.saturating_mul(153).saturating_add(2) / 5)
        .saturating_add(1);
    let (month, carry) = if march_month < 10 {
        (march_month.saturating_add(3), 0)
    } else {
        (march_month.saturating_sub(9), 1)
    };
    let year = era.saturating_mul(400).saturating_add(year_of_era).saturating_add(carry);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02} UTC", secs / 3_600, secs % 3_600 / 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_civil() {
        for (secs, text) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (1_709_251_140, "2024-02-29 23:59 UTC"),
            (1_795_502_280, "2026-11-24 06:38 UTC"),
            (4_102_444_800, "2100-01-01 00:00 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
        ] {
            assert_eq!(utc(Unix::from_secs(secs)), text);
        }
    }

    #[test]
    fn a_reason_names_the_last_good_refresh() {
        let reason = reason(Doubt::Lost { times: 1, prompt: false }, Some(Unix::from_secs(0)));
        assert!(reason.starts_with("the answer to a refresh was lost"), "{reason}");
        assert!(reason.contains("last good refresh 1970-01-01 00:00 UTC"), "{reason}");
    }
}
