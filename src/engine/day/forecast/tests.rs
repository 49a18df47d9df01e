//! Forecasts against days whose end is known.

use super::*;

const START: u64 = 20_000 * 86_400;
const D: u64 = 10_000;

fn at(secs: u64) -> Unix {
    Unix::from_secs(START + secs)
}

fn day() -> Day {
    Day::new(20_000)
}

/// Feeds a use that `calls_by` gives for each minute up to `until`, none of it paced.
fn fed(until: u64, calls_by: impl Fn(u64) -> u64) -> Forecast {
    let mut forecast = Forecast::default();
    for minute in 0..=until / 60 {
        forecast.observe(day(), calls_by(minute * 60), 0, at(minute * 60));
    }
    forecast
}

#[test]
fn a_steady_load_ends_within_the_band_all_along() {
    // 0.25 calls a second, uneven within each hour: spent after 40,000 s
    let wave = [0, 7, 3, 9, 2, 11, 4, 8, 1, 10, 5, 6];
    let calls_by = |secs: u64| secs / 4 + wave[usize::try_from(secs / 300 % 12).unwrap()];
    for hour in 1..11 {
        let now = hour * 3_600;
        let forecast = fed(now, calls_by);
        let outlook = forecast.outlook(D - calls_by(now), at(now), at(86_400));
        let (early, late) = outlook.between.unwrap();
        let (likely, late) = (outlook.exhausted_at.unwrap(), late.unwrap());
        assert!(early <= likely && likely <= late, "hour {hour}: {outlook:?}");
        assert!(early <= at(40_000) && at(40_000) <= late, "hour {hour}: {outlook:?}");
    }
    let near = fed(36_000, calls_by).outlook(D - calls_by(36_000), at(36_000), at(86_400));
    let (early, late) = near.between.unwrap();
    assert!(late.unwrap().since(early) < Duration::from_secs(1_800), "{near:?}");
}

#[test]
fn a_day_that_lasts_has_no_forecast() {
    let forecast = fed(36_000, |secs| secs / 10);
    assert_eq!(forecast.outlook(D - 3_600, at(36_000), at(86_400)), Outlook::default());
    assert_eq!(Forecast::default().outlook(D, at(0), at(86_400)), Outlook::default());
}

#[test]
fn paced_calls_alone_are_no_reason_for_alarm() {
    let mut forecast = Forecast::default();
    for minute in 0..600 {
        forecast.observe(day(), minute * 15, minute * 15, at(minute * 60));
    }
    assert_eq!(forecast.outlook(1_000, at(35_940), at(86_400)), Outlook::default());
}

#[test]
fn a_flood_is_seen_before_its_quarter_ends() {
    let calls_by = |secs: u64| if secs < 36_000 { secs / 20 } else { (secs - 36_000) * 4 + 1_800 };
    let forecast = fed(36_300, calls_by);
    let outlook = forecast.outlook(D - calls_by(36_300), at(36_300), at(86_400));
    assert!(outlook.exhausted_at.is_some(), "{outlook:?}");
}

#[test]
fn a_use_that_stops_is_forgotten() {
    let mut forecast = fed(36_000, |secs| secs / 4);
    forecast.observe(day(), 9_000, 0, at(36_000 + 12 * 900));
    assert_eq!(forecast.outlook(1_000, at(46_800), at(86_400)).exhausted_at, None);
}

#[test]
fn a_trend_outlives_the_turn_of_the_day() {
    let mut forecast = fed(86_340, |secs| secs / 4);
    forecast.observe(Day::new(20_001), 15, 0, at(86_400));
    let outlook = forecast.outlook(D - 15, at(86_400), at(2 * 86_400));
    let likely = outlook.exhausted_at.unwrap().since(at(86_400)).as_secs();
    assert!((38_000..42_000).contains(&likely), "{likely}");
}

#[test]
fn a_spent_day_is_used_up_now() {
    let outlook = Forecast::default().outlook(0, at(9), at(86_400));
    assert_eq!(outlook.exhausted_at, Some(at(9)));
}

#[test]
fn a_clock_that_steps_does_no_harm() {
    let mut forecast = fed(36_000, |secs| secs / 4);
    forecast.observe(day(), 9_000, 0, at(0));
    forecast.observe(day(), 9_010, 0, at(10 * 86_400));
    assert_eq!(forecast.outlook(900, at(10 * 86_400), at(11 * 86_400)).exhausted_at, None);
}
