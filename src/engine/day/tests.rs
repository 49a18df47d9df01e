//! The three rules on their own: what is kept, how bulk is paced, when normal calls are held.

use super::*;

const D: u64 = 10_000;
const HOUR: u64 = 3_600;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn at(hour: u64, remaining: u64) -> Standing {
    Standing { limit: D, remaining, left: secs((24 - hour) * HOUR) }
}

/// A ration that has paced calls in hand no more.
fn drained(standing: Standing) -> Ration {
    let mut ration = Ration::new(Reserve::from_percent(20).unwrap(), 4);
    ration.look(Some(standing), Mono::default());
    for _ in 0..1_000 {
        ration.spend(Class::Bulk);
    }
    ration
}

#[test]
fn background_work_is_paced_over_what_is_left() {
    // 06:00, 7,000 left, a fifth kept: (7,000 - 2,004 * 18/24) / 64,800 s = 0.0848 calls a second
    let ration = drained(at(6, 7_000));
    let thousand = ration.wait(Class::Bulk, 1_000);
    assert!((secs(11_780)..secs(11_800)).contains(&thousand), "{thousand:?}");
    assert_eq!(ration.wait(Class::Interactive, 1_000), Duration::ZERO);
}

#[test]
fn the_named_moment_is_when_a_held_class_may_go() {
    let mut ration = drained(at(6, 7_000));
    let opens_at = ration.opens_at(Class::Bulk);
    assert!((11_000..12_000).contains(&opens_at.since_start().as_millis()), "{opens_at:?}");
    assert_eq!(ration.open(opens_at.minus(secs(1))), [true, true, false]);
    ration.look(Some(at(6, 7_000)), opens_at);
    assert_eq!(ration.open(opens_at), [true; 3]);
    ration.spend(Class::Bulk);
    assert_eq!(ration.open(opens_at), [true, true, false]);
}

#[test]
fn nothing_but_interactive_calls_touches_the_reserve_until_it_has_melted() {
    // at 12:00 half of 2,004 is kept
    for class in [Class::Normal, Class::Bulk] {
        assert!(drained(at(12, 1_002)).opens_at(class) > Mono::default(), "{class:?}");
    }
    let mut ration = drained(at(12, 1_000));
    let melts_for = ration.wait(Class::Bulk, 0);
    assert!((secs(80)..secs(90)).contains(&melts_for), "{melts_for:?}");
    let mut now = Mono::default();
    let mut left = secs(12 * HOUR);
    while !ration.open(now)[1] || !ration.open(now)[2] {
        let opens_at = ration.opens_at(Class::Bulk);
        assert!(opens_at > now && opens_at.since(now) <= secs(61));
        left -= opens_at.since(now);
        now = opens_at;
        ration.look(Some(Standing { limit: D, remaining: 1_000, left }), now);
    }
    let waited = now.since(Mono::default());
    assert!(waited > melts_for && waited < secs(3_600), "{waited:?}");
}

#[test]
fn normal_calls_go_freely_down_to_the_reserve() {
    assert_eq!(drained(at(12, 1_002 + 1)).opens_at(Class::Normal), Mono::default());
    let free = drained(at(12, 1_002 + 99));
    assert!(!free.is_kept());
    assert_eq!(free.wait(Class::Normal, 99), Duration::ZERO);
    // 2,004 melt in a day
    let beyond = free.wait(Class::Normal, 109);
    assert!((secs(400)..secs(460)).contains(&beyond), "{beyond:?}");
    assert!(drained(at(12, 1_002)).is_kept());
}

#[test]
fn five_minutes_of_the_pace_may_leave_together_and_at_least_a_window() {
    let burst = |standing| {
        let mut ration = Ration::new(Reserve::default(), 4);
        ration.look(Some(standing), Mono::default());
        let mut calls = 0;
        while ration.open(Mono::default())[2] {
            ration.spend(Class::Bulk);
            calls += 1;
            assert!(calls < 1_000, "they never end");
        }
        calls
    };
    assert_eq!(burst(at(0, D)), 34);
    assert_eq!(burst(at(0, 100)), 4);
}

#[test]
fn what_could_leave_together_does_not_once_all_is_kept() {
    let mut ration = Ration::new(Reserve::from_percent(20).unwrap(), 4);
    ration.look(Some(at(12, 1_002)), Mono::default());
    assert_eq!(ration.open(Mono::default()), [true, false, false]);
}

#[test]
fn a_wall_clock_that_steps_is_heeded_at_once() {
    let mut ration = drained(at(6, 7_000));
    let before = ration.wait(Class::Bulk, 1_000);
    ration.look(Some(at(18, 7_000)), Mono::default());
    assert!(ration.wait(Class::Bulk, 1_000) < before / 2);
}

#[test]
fn a_day_that_nobody_has_counted_yet_holds_nobody() {
    let mut ration = Ration::new(Reserve::default(), 4);
    ration.look(None, Mono::default());
    assert_eq!(ration.open(Mono::default()), [true; 3]);
    assert_eq!(ration.wait(Class::Bulk, 1_000), Duration::ZERO);
}

#[test]
fn odd_days_do_no_harm() {
    for (limit, remaining, left) in
        [(0, 0, 0), (1, 1, 0), (1, 1, 86_400), (u64::MAX, u64::MAX, u64::MAX), (5, 9, 100_000)]
    {
        let mut ration = Ration::new(Reserve::from_percent(90).unwrap(), u32::MAX);
        let standing = Standing { limit, remaining, left: secs(left) };
        ration.look(Some(standing), Mono::NEVER);
        ration.spend(Class::Bulk);
        assert!(ration.wait(Class::Bulk, u64::MAX) <= secs(86_400));
        assert!(ration.open(Mono::NEVER)[0]);
    }
}

#[test]
fn the_pause_after_a_refused_day_is_spread() {
    let pauses: std::collections::BTreeSet<Duration> =
        (0..1_000).map(|n| reopening_pause(Mono::new(Duration::from_millis(n * 137)))).collect();
    assert!(pauses.iter().all(|pause| (secs(1)..=secs(30)).contains(pause)));
    assert!(pauses.len() > 900, "{}", pauses.len());
    assert!(*pauses.last().unwrap() > secs(29) && *pauses.first().unwrap() < secs(2));
}
