//! When this instance asks: at its turn, after another's that was missed, and now and then.

use super::*;
use crate::engine::pacer::Pacer;
use crate::engine::rate::Guard;
use crate::engine::time::{Day, DayReset};

const WINDOW: Duration = Duration::from_secs(1);

struct World {
    turnstile: Turnstile,
    pacer: Pacer,
    now: Mono,
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn tenant() -> TenantName {
    TenantName::new("a").unwrap()
}

fn terms() -> Terms {
    Terms {
        rate: "4".parse().unwrap(),
        calls: 4,
        unanswered: ms(401),
        spaced: Duration::ZERO,
        per_day: 10_000,
        day_reset: DayReset::default(),
        reserve_percent: 10,
        withheld: 0,
    }
}

fn told(next: Option<Turn>) -> Told {
    Told {
        at: Stamp(1_000_000),
        begun: Stamp(5),
        ticket: 1,
        granted: None,
        day: Day::new(20_000),
        used: 5,
        spent: None,
        closed: Duration::ZERO,
        widened: Duration::ZERO,
        refused: 0,
        next,
        forgotten: false,
        sharers: 2,
    }
}

impl World {
    /// One that has told that a call waits, and was answered after `trip`.
    fn waiting(next: Option<Turn>, trip: Duration) -> Self {
        let now = Mono::new(ms(10_000));
        let pacer = Pacer::new("4".parse().unwrap(), Guard::Auto, now);
        let turnstile = Turnstile::new(OnLoss::Refuse, Chance::new(1), now);
        let mut world = Self { turnstile, pacer, now };
        world.turnstile.set_waiting(Class::Normal, &tenant(), 1, 1);
        assert!(world.turnstile.poll_ask(true, terms(), now).is_some());
        world.now = now.plus(trip);
        world.read_roll();
        world.turnstile.told(told(next), WINDOW, world.pacer.lateness(), world.now);
        world
    }

    fn read_roll(&mut self) {
        let rate = "4".parse().unwrap();
        self.turnstile.read(&Roll::default(), rate, 9_000, self.now);
    }

    /// How long until it asks.
    fn asks_in(&self) -> Duration {
        self.turnstile.ask_at(true).unwrap().since(self.now)
    }
}

#[test]
fn it_asks_when_its_turn_comes() {
    let mine = Turn { whose: Whose::Mine, due: ms(120) };
    assert_eq!(World::waiting(Some(mine), ms(1)).asks_in(), ms(120));
}

#[test]
fn anothers_turn_is_only_taken_when_it_is_missed() {
    let other = Turn { whose: Whose::Another, due: ms(120) };
    let world = World::waiting(Some(other), ms(1));
    assert_eq!(world.asks_in(), ms(120) + GRACE_MIN + ms(2));
}

#[test]
fn of_many_that_wait_each_takes_a_missed_turn_at_a_moment_of_its_own() {
    let grace = GRACE_MIN + ms(2);
    let moments = (0..9).map(|seed| {
        let mut world = World::waiting(None, ms(1));
        world.turnstile.chance = Chance::new(seed);
        world.turnstile.sharers = 10;
        world.turnstile.turn(Turn { whose: Whose::Another, due: ms(50) }, world.now);
        let asks_in = world.asks_in();
        assert!(asks_in >= ms(50) + grace && asks_in < ms(50) + 9 * grace, "{asks_in:?}");
        asks_in
    });
    let mut moments: Vec<_> = moments.collect();
    moments.sort_unstable();
    let soon = moments.iter().filter(|moment| **moment < moments[0] + grace).count();
    assert!(soon <= 4, "word that the first has taken the turn stops the others: {moments:?}");
}

#[test]
fn word_of_another_turn_moves_the_question() {
    let mut world = World::waiting(Some(Turn { whose: Whose::Another, due: ms(50) }), ms(1));
    world.turnstile.turn(Turn { whose: Whose::Mine, due: ms(70) }, world.now);
    assert_eq!(world.asks_in(), ms(70));
    world.turnstile.turn(Turn { whose: Whose::All, due: ms(0) }, world.now);
    assert_eq!(world.asks_in(), ms(0), "all are asked what they know");
}

#[test]
fn without_word_it_asks_twice_a_second() {
    assert_eq!(World::waiting(None, ms(1)).asks_in(), POLL_WAITING);
}

#[test]
fn an_instance_where_nobody_waits_asks_seldom_and_for_no_slot() {
    let mut world = World::waiting(None, ms(1));
    world.turnstile.set_waiting(Class::Normal, &tenant(), 1, 0);
    let ask = world.turnstile.poll_ask(true, terms(), world.now).unwrap();
    assert_eq!(ask.wanted_until, None);
    world.turnstile.told(told(None), WINDOW, world.pacer.lateness(), world.now);
    assert_eq!(world.asks_in(), POLL_IDLE);
}

#[test]
fn a_slow_store_is_asked_earlier_and_its_slots_live_longer() {
    let mine = Turn { whose: Whose::Mine, due: ms(500) };
    let mut world = World::waiting(Some(mine), ms(200));
    assert_eq!(world.asks_in(), ms(300) + GRACE_MIN);
    world.now = world.now.plus(ms(330));
    let ask = world.turnstile.poll_ask(true, terms(), world.now).unwrap();
    assert_eq!(ask.life, ms(450));
    assert_eq!(ask.wanted_until, Some(Stamp(1_000_000 + 330_000 + 450_000)));
}

#[test]
fn a_server_that_stood_still_for_a_moment_is_not_taken_for_a_slow_one() {
    let mut world = World::waiting(None, ms(1));
    world.turnstile.set_waiting(Class::Normal, &tenant(), 1, 2);
    world.now = world.now.plus(POLL_WAITING);
    world.read_roll();
    world.turnstile.poll_ask(true, terms(), world.now).unwrap();
    world.now = world.now.plus(ms(900));
    world.turnstile.told(told(None), WINDOW, world.pacer.lateness(), world.now);
    world.now = world.now.plus(POLL_WAITING);
    let ask = world.turnstile.poll_ask(true, terms(), world.now).unwrap();
    assert_eq!((ask.life, ask.grace), (LIFE_MIN + ms(2), GRACE_MIN + ms(2)));
}

#[test]
fn a_busy_server_is_given_more_time_than_its_best_answer_took() {
    let mut world = World::waiting(None, ms(1));
    for trip in [1, 40, 50, 45, 60, 40, 45] {
        world.now = world.now.plus(POLL_WAITING);
        world.read_roll();
        world.turnstile.poll_ask(true, terms(), world.now).unwrap();
        world.now = world.now.plus(ms(trip));
        world.turnstile.told(told(None), WINDOW, world.pacer.lateness(), world.now);
    }
    world.now = world.now.plus(POLL_WAITING);
    world.read_roll();
    let ask = world.turnstile.poll_ask(true, terms(), world.now).unwrap();
    assert_eq!((ask.life, ask.grace), (LIFE_MIN + ms(2), GRACE_MIN + ms(90)));
}

#[test]
fn a_store_that_does_not_answer_is_asked_again_within_a_tenth_of_a_second() {
    let mut world = World::waiting(None, ms(1));
    world.turnstile.report(Report::Closed { span: ms(10) });
    for wait in [25, 50, 50] {
        assert!(world.turnstile.poll_ask(true, terms(), world.now).is_some());
        assert_eq!(world.turnstile.ask_at(true), None, "one at a time");
        world.turnstile.failed(world.now);
        assert_eq!(world.asks_in(), ms(wait));
        world.now = world.now.plus(ms(wait));
    }
    let ask = world.turnstile.poll_ask(true, terms(), world.now).unwrap();
    assert!(ask.anew);
}

#[test]
fn what_a_question_told_that_failed_is_told_again_with_the_number_it_had() {
    let mut world = World::waiting(None, ms(1));
    let closed = |span| Report::Closed { span: ms(span) };
    let mut numbers = Vec::new();
    for span in [10, 20, 30] {
        world.turnstile.report(closed(span));
        let ask = world.turnstile.poll_ask(true, terms(), world.now).unwrap();
        assert_eq!(ask.reports, [closed(span)]);
        let told = [10, 20].map(closed).into_iter();
        let again: Vec<_> = numbers.iter().copied().zip(told).collect();
        assert_eq!(ask.again, again);
        numbers.push(ask.number);
        if span < 30 {
            world.turnstile.failed(world.now);
            world.now = world.now.plus(RETRY_MAX);
        }
    }
    assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    world.turnstile.report(closed(40));
    let farewell = world.turnstile.farewell(terms(), world.now).unwrap();
    assert_eq!((farewell.again.len(), farewell.reports), (3, vec![closed(40)]));
    world.turnstile.told(told(None), WINDOW, world.pacer.lateness(), world.now);
    world.now = world.now.plus(POLL_IDLE);
    let ask = world.turnstile.poll_ask(true, terms(), world.now).unwrap();
    assert!(ask.again.is_empty() && ask.reports.is_empty(), "it arrived: {ask:?}");
}

#[test]
fn questions_of_a_key_that_was_configured_anew_have_higher_numbers() {
    let mut number = 0;
    for start in [ms(1_000), ms(1_001)] {
        let now = Mono::new(start);
        let mut turnstile = Turnstile::new(OnLoss::Refuse, Chance::new(1), now);
        let ask = turnstile.poll_ask(false, terms(), now).unwrap();
        assert!(ask.number > number);
        number = ask.number;
    }
}

#[test]
fn a_refusal_that_another_instance_met_counts_here_too() {
    let mut world = World::waiting(None, ms(1));
    let lateness = world.pacer.lateness();
    for _ in 0..100_000 {
        lateness.clean();
    }
    let whole = world.pacer.lateness().unanswered();
    for refused in [3, 4] {
        world.turnstile.set_waiting(Class::Normal, &tenant(), 1, refused);
        world.now = world.now.plus(POLL_IDLE);
        assert!(world.turnstile.poll_ask(true, terms(), world.now).is_some());
        let told = Told { refused: refused.into(), ..told(None) };
        world.turnstile.told(told, WINDOW, world.pacer.lateness(), world.now);
    }
    assert!(world.pacer.lateness().unanswered() > whole, "the whole guard is back");
}

#[test]
fn a_store_that_has_forgotten_is_told_of_everybody_who_waits() {
    let mut world = World::waiting(None, ms(1));
    world.now = world.now.plus(POLL_WAITING);
    world.read_roll();
    let ask = world.turnstile.poll_ask(true, terms(), world.now).unwrap();
    assert!(ask.line.is_empty(), "it knows");
    let anew = Told { begun: Stamp(9), ..told(None) };
    world.turnstile.told(anew, WINDOW, world.pacer.lateness(), world.now);
    let ask = world.turnstile.poll_ask(true, terms(), world.now).unwrap();
    assert_eq!((ask.line.len(), ask.anew), (1, true));
}

#[test]
fn it_asks_when_what_is_closed_opens_though_nobodys_turn_is_known() {
    let mut world = World::waiting(None, ms(1));
    world.now = world.now.plus(POLL_WAITING);
    world.read_roll();
    world.turnstile.poll_ask(true, terms(), world.now).unwrap();
    let closed = Told { closed: ms(120), ..told(None) };
    world.turnstile.told(closed, WINDOW, world.pacer.lateness(), world.now);
    assert_eq!(world.asks_in(), ms(120));
}

#[test]
fn a_store_whose_clock_was_set_forward_is_closed_for_a_window() {
    let mut world = World::waiting(None, ms(1));
    for (step, closed) in [(0, false), (3_600_000, true)] {
        world.now = world.now.plus(POLL_WAITING);
        world.read_roll();
        let ask = world.turnstile.poll_ask(true, terms(), world.now).unwrap();
        assert_eq!(ask.reports, []);
        let at = world.turnstile.stamp_of(world.now).plus(ms(step));
        let told = Told { at, ..told(None) };
        world.turnstile.told(told, WINDOW, world.pacer.lateness(), world.now);
        let reports = world.turnstile.reports.clone();
        let is_closed = matches!(reports[..], [Report::Closed { span }] if span > WINDOW);
        assert_eq!(is_closed, closed, "{step}: {reports:?}");
    }
}
