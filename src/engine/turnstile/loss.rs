//! The store is lost: this instance refuses, or goes on with its part of the limits.
//!
//! Alone, an instance sends what the others leave it. So it begins only when all that hear the
//! store have heard that it does not, and their calls of before are over; and it ends before they
//! take it for dead. Times are the same on all sides, and each is reckoned from what an instance
//! has surely said or heard.

use std::time::Duration;

use super::roll::Roll;
use super::terms::{Stamp, Terms};
use super::{Allowance, Turnstile};
use crate::engine::rate::Rate;
use crate::engine::time::{Day, Mono};

/// A call that an instance lets go by itself leaves within this time or is held back: it must not
/// leave when the others no longer reckon with it.
pub const ALONE_LIFE: Duration = Duration::from_millis(50);
/// How often instances say that they are there.
pub const BEAT_EVERY: Duration = Duration::from_millis(500);
/// One that was not heard of for so long leaves its part to itself: two beats, a round trip of half
/// a second and a busy machine are within it.
pub const SILENT_AFTER: Duration = Duration::from_millis(2_500);
/// What one that was by itself has sent is over so long after it says so: a window and the greatest
/// lateness.
pub const BACK_FOR: Duration = Duration::from_millis(1_450);
/// Nobody goes on by itself sooner after it last heard the store: others must have heard that it is
/// away, and their slots of before be over, whose window is a second or longer.
pub const ALONE_AFTER: Duration =
    SILENT_AFTER.saturating_add(ROLL_FRESH).saturating_add(SLOTS_OVER).saturating_add(WINDOW_MIN);

/// Who asks has read the roll this short a time ago, or asks for no slot.
const ROLL_FRESH: Duration = Duration::from_secs(1);
/// The slots of before are free so long after others have heard that this instance is away: the
/// greatest lateness and life of a slot, beside its window.
const SLOTS_OVER: Duration = Duration::from_millis(900);
/// No window is shorter.
const WINDOW_MIN: Duration = Duration::from_secs(1);
/// An instance stops by itself so long before it is taken for dead.
const MARGIN: Duration = Duration::from_secs(5);
/// One that leaves nothing to itself stays on the roll so long, for those who read it.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(10);
/// Questions in a row that were not answered, after which an instance that refuses does so.
const FAILURES_MAX: u32 = 3;
/// When slots are not to be had though the roll can be read, an instance refuses after this.
const UNANSWERED_MAX: Duration = Duration::from_secs(3);
/// What a question says of this instance is true for so long after it was put.
const SETTLES_FOR: Duration = Duration::from_secs(1);

/// What an instance does that has lost the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLoss {
    /// It refuses calls.
    Refuse,
    /// It goes on with its part.
    GoOn {
        /// For so long, in which the others leave it its part also if it is dead.
        lasting: Duration,
    },
}

impl OnLoss {
    /// One that is not heard of for so long is dead.
    #[must_use]
    pub const fn dead_after(self) -> Duration {
        match self {
            Self::Refuse => FORGOTTEN_AFTER,
            Self::GoOn { lasting } => lasting,
        }
    }
}

impl Turnstile {
    /// The roll was read that was asked for at `asked`.
    pub fn read(&mut self, roll: &Roll, asked: Mono, rate: Rate, now: Mono) {
        let longer = rate.window().saturating_sub(WINDOW_MIN);
        self.standing.read(roll, longer, asked, now);
        if let Some(end) = self.standing.next_end() {
            self.turn_at = self.turn_at.min(end);
        }
        self.keeping.read(roll, rate);
        if self.alone.is_some() {
            self.end_alone();
            // what it used is told at once
            (self.failures, self.retry_at, self.poll_at) = (0, now, now);
        }
    }

    /// Whether it is known which slots are left to others.
    pub(super) fn knows_others(&self, now: Mono) -> bool {
        self.standing.asked.is_some_and(|at| now.since(at) <= ROLL_FRESH)
    }

    /// The calls of a window that are not left to others.
    pub(super) fn calls_here(&self, terms: &Terms, now: Mono) -> u32 {
        let slots = terms.rate.calls();
        slots.saturating_sub(self.standing.left(slots, now))
    }

    /// Until when it is true that this instance is not by itself: it hears the store, and so is not
    /// for some seconds.
    pub(super) fn settles_until(&self, now: Mono) -> Option<Stamp> {
        let settles = self.alone.is_none() && self.knows_others(now);
        settles.then(|| self.clock.at(now.plus(SETTLES_FOR)))
    }

    /// From when to when this instance may go on by itself, and with how many of `slots`.
    fn by_itself(&self, slots: u32, window: Duration) -> Option<(Mono, Mono, u32)> {
        let OnLoss::GoOn { lasting } = self.on_loss else { return None };
        let (heard_at, known_from) = (self.standing.heard_at?, self.standing.known_from?);
        let own = self.standing.part.slots(slots);
        let longer = window.saturating_sub(WINDOW_MIN);
        let from = heard_at.plus(ALONE_AFTER.saturating_add(longer));
        // by the store's reckoning it was last heard then
        let until = known_from.plus(lasting.saturating_sub(MARGIN));
        (own > 0).then_some((from, until, own))
    }

    /// Begins to go on by itself, or ends it, when it is time; the slots that are its own while it
    /// does.
    pub fn go_alone(
        &mut self,
        slots: u32,
        window: Duration,
        per_day: u64,
        now: Mono,
    ) -> Option<u32> {
        let time = self.by_itself(slots, window);
        let Some((.., own)) = time.filter(|(from, until, _)| *from <= now && now < *until) else {
            self.end_alone();
            return None;
        };
        if self.alone.is_none() {
            let day = self.memory.day;
            let heard_at = self.standing.heard_at.unwrap_or_default();
            let left = self.keeping.begin(day, per_day, (slots, window), heard_at);
            self.alone = Some(Allowance::new(day, left, own, slots));
        }
        Some(own)
    }

    /// What it used is still to be told.
    pub(super) fn end_alone(&mut self) {
        if let Some(alone) = self.alone.take() {
            self.keeping.use_up(alone.used());
        }
    }

    /// Another day begins while this instance is by itself; whether it is another.
    pub fn turn_day_alone(&mut self, day: Day, per_day: u64, own: u32, slots: u32) -> bool {
        self.alone.as_mut().is_some_and(|alone| alone.turn(day, per_day, own, slots))
    }

    /// Whether this instance goes on by itself, and if so, whether its part of the day is used up.
    #[must_use]
    pub fn alone(&self) -> Option<bool> {
        self.alone.as_ref().map(Allowance::is_spent)
    }

    /// Takes a call of the day while this instance is by itself.
    pub fn take_alone(&mut self) -> Option<Day> {
        self.alone.as_mut()?.take()
    }

    /// Gives back a call that certainly did not leave.
    pub fn give_back_alone(&mut self, day: Day) {
        if let Some(alone) = &mut self.alone {
            alone.give_back(day);
        }
    }

    /// Whether calls are refused because the store is lost.
    #[must_use]
    pub fn refuses(&self, slots: u32, window: Duration, now: Mono) -> bool {
        let may_go_on = self.by_itself(slots, window).filter(|(_, until, _)| now < *until);
        if may_go_on.is_none() {
            return self.failures >= FAILURES_MAX;
        }
        // its time will come, unless it is only slots that are not to be had
        let unanswered = self.silent_for(now).is_some_and(|span| span > UNANSWERED_MAX);
        unanswered && self.knows_others(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::chance::Chance;
    use crate::engine::pacer::Pacer;
    use crate::engine::rate::Guard;
    use crate::engine::time::Day;
    use crate::engine::turnstile::roll::{Away, Member, Part, WHOLE};
    use crate::engine::turnstile::tests::told;
    use crate::engine::turnstile::{Absent, Ask, Report, Told};

    const WINDOW: Duration = Duration::from_secs(1);

    fn secs(secs: u64) -> Mono {
        Mono::new(Duration::from_secs(secs))
    }

    fn rate() -> Rate {
        "20".parse().unwrap()
    }

    fn third(n: u64) -> Part {
        Part { from: n * WHOLE / 3, to: (n + 1) * WHOLE / 3 }
    }

    fn roll(away: Option<Away>) -> Roll {
        let member = |n: u64| Member {
            id: n.to_string(),
            name: n.to_string(),
            details: String::new(),
            seen: Stamp(0),
            away: away.filter(|_| n == 2),
            dead_after: Duration::from_mins(10),
            parts: [third(n), third(n)],
            untold: Duration::ZERO,
        };
        Roll { part: third(0), members: (0..3).map(member).collect(), ..Roll::default() }
    }

    fn terms() -> Terms {
        Terms {
            rate: rate(),
            calls: 20,
            unanswered: Duration::ZERO,
            spaced: Duration::ZERO,
            path: (Duration::ZERO, Duration::ZERO),
            per_day: 10_000,
            day_reset: crate::engine::time::DayReset::default(),
            reserve_percent: 10,
            withheld: 0,
        }
    }

    const GO_ON: OnLoss = OnLoss::GoOn { lasting: Duration::from_mins(10) };

    const TODAY: Day = Day::new(20_000);

    /// Asks, and is told what is left when nothing is kept for this instance.
    fn settle(turnstile: &mut Turnstile, used: u64, now: Mono) -> Option<Ask> {
        turnstile.poll_at = now;
        let ask = turnstile.poll_ask(false, terms(), now)?;
        let settled = ask.absence.settles_until.is_some();
        let mut pacer = Pacer::new(rate(), Guard::Auto, now);
        let told = Told { used, settled, ..told(None) };
        turnstile.told(told, WINDOW, pacer.lateness(), now);
        Some(ask)
    }

    fn one_of_three(on_loss: OnLoss) -> Turnstile {
        let mut turnstile = Turnstile::new(on_loss, Chance::new(1), secs(100));
        for at in [99, 100] {
            turnstile.read(&roll(None), secs(at), rate(), secs(at));
        }
        settle(&mut turnstile, 1_000, secs(100));
        turnstile
    }

    #[test]
    fn an_instance_by_itself_has_its_part_of_slots_and_day_in_its_time() {
        let mut turnstile = one_of_three(GO_ON);
        assert_eq!(turnstile.go_alone(20, WINDOW, 10_000, secs(105)), None, "others may not know");
        assert_eq!(turnstile.go_alone(20, WINDOW, 10_000, secs(106)), Some(7));
        let taken = (0..9_000).filter_map(|_| turnstile.take_alone()).count();
        assert_eq!(taken, 3_066, "of 9,000 less 12 windows");
        assert_eq!(turnstile.alone(), Some(true));
        assert_eq!(turnstile.go_alone(20, WINDOW, 10_000, secs(694)), None, "it is taken for dead");
        let ask = settle(&mut turnstile, 1_000, secs(694)).unwrap();
        assert_eq!(ask.reports, [], "others that are away may not be known");
        turnstile.read(&roll(None), secs(694), rate(), secs(694));
        let ask = settle(&mut turnstile, 1_000, secs(694)).unwrap();
        assert_eq!(ask.reports, [Report::Used { day: TODAY, calls: 3_066 }]);
    }

    #[test]
    fn what_one_knows_of_the_day_is_used_once() {
        let mut turnstile = one_of_three(GO_ON);
        assert!(turnstile.go_alone(20, WINDOW, 10_000, secs(106)).is_some());
        turnstile.take_alone().unwrap();
        // it hears the roll, but not what is left
        for at in [107, 108] {
            turnstile.read(&roll(None), secs(at), rate(), secs(at));
        }
        assert!(turnstile.go_alone(20, WINDOW, 10_000, secs(114)).is_some());
        assert_eq!((turnstile.alone(), turnstile.take_alone()), (Some(true), None));
        assert!(turnstile.turn_day_alone(Day::new(20_001), 10_000, 7, 20));
        assert_eq!(turnstile.take_alone(), None);
    }

    #[test]
    fn an_answer_from_before_one_went_on_by_itself_settles_nothing() {
        let mut turnstile = one_of_three(GO_ON);
        turnstile.poll_at = secs(101);
        assert!(turnstile.poll_ask(false, terms(), secs(101)).is_some());
        assert!(turnstile.go_alone(20, WINDOW, 10_000, secs(106)).is_some());
        let mut pacer = Pacer::new(rate(), Guard::Auto, secs(106));
        let late = Told { settled: true, ..told(None) };
        turnstile.told(late, WINDOW, pacer.lateness(), secs(106));
        assert!(turnstile.take_alone().is_some());
        for at in [107, 108] {
            turnstile.read(&roll(None), secs(at), rate(), secs(at));
        }
        assert!(turnstile.go_alone(20, WINDOW, 10_000, secs(114)).is_some());
        assert_eq!(turnstile.take_alone(), None);
    }

    #[test]
    fn a_roll_is_as_old_as_the_question_for_it() {
        let mut turnstile = one_of_three(GO_ON);
        turnstile.read(&roll(None), secs(101), rate(), secs(103));
        assert!(!turnstile.knows_others(secs(103)), "others may have gone since");
        // the others heard at most then that this instance hears, and may know of it as of 100
        assert_eq!(turnstile.go_alone(20, WINDOW, 10_000, secs(108)), None);
        assert!(turnstile.go_alone(20, WINDOW, 10_000, secs(109)).is_some());
        assert_eq!(turnstile.go_alone(20, WINDOW, 10_000, secs(695)), None);
    }

    #[test]
    fn one_that_refuses_never_goes_on() {
        let mut turnstile = one_of_three(OnLoss::Refuse);
        assert_eq!(turnstile.go_alone(20, WINDOW, 10_000, secs(200)), None);
        assert!(!turnstile.refuses(20, WINDOW, secs(200)));
        turnstile.failures = FAILURES_MAX;
        assert!(turnstile.refuses(20, WINDOW, secs(200)));
    }

    #[test]
    fn one_without_a_slot_of_its_own_refuses() {
        let mut turnstile = one_of_three(GO_ON);
        turnstile.failures = FAILURES_MAX;
        assert!(!turnstile.refuses(20, WINDOW, secs(102)), "it will go on");
        assert_eq!(turnstile.go_alone(1, WINDOW, 10_000, secs(106)), None);
        assert!(turnstile.refuses(1, WINDOW, secs(102)), "the one slot is another's");
    }

    #[test]
    fn slots_are_left_to_an_instance_that_is_away_and_calls_are_kept_until_it_has_told() {
        let mut turnstile = one_of_three(GO_ON);
        let mut says = |away, gone: bool, at: u64| {
            let mut roll = roll(away);
            roll.members[2].untold = Duration::from_mins(10);
            if gone {
                roll.gone.extend(roll.members.pop());
            }
            turnstile.read(&roll, secs(at), rate(), secs(at));
            let ask = settle(&mut turnstile, 1_000, secs(at)).unwrap();
            (ask.terms.calls, ask.absence.absent)
        };
        let since = Duration::from_mins(10);
        let absent = vec![Absent { id: "2".into(), slots: 7, calls_max: 4_207, since }];
        assert_eq!(says(Some(Away::Silent), false, 103), (13, absent.clone()));
        assert_eq!(says(Some(Away::Back(Duration::ZERO)), false, 104), (20, absent.clone()));
        assert_eq!(says(None, true, 105), (20, absent));
    }

    #[test]
    fn one_that_ends_by_itself_leaves_word_of_what_it_used() {
        let mut turnstile = one_of_three(GO_ON);
        assert_eq!(turnstile.farewell(terms(), secs(101)), None, "there is nothing to tell");
        turnstile.go_alone(20, WINDOW, 10_000, secs(106));
        let day = turnstile.take_alone().unwrap();
        turnstile.take_alone().unwrap();
        turnstile.give_back_alone(day);
        let farewell = turnstile.farewell(terms(), secs(107)).unwrap();
        assert_eq!(farewell.wanted_until, None);
        assert_eq!(farewell.reports, [Report::Used { day: TODAY, calls: 1 }]);
    }
}
