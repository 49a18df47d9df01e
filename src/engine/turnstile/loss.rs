//! The store is lost: this instance refuses, or goes on with its part of the limits.
//!
//! Alone, an instance sends what the others leave it. So it begins only when all that hear the
//! store have heard that it does not, and their calls of before are over; and it ends before they
//! take it for dead. Times are the same on all sides, and each is reckoned from what an instance
//! has surely said or heard.

use std::time::Duration;

use super::roll::Roll;
use super::terms::{Report, Terms};
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
/// How long before the loss is noticed others may have sent at the full rate, in windows.
const UNNOTICED_WINDOWS: u64 = 5;

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
    pub fn read(&mut self, roll: &Roll, asked: Mono, rate: Rate, remaining: u64, now: Mono) {
        let (slots, longer) = (rate.calls(), rate.window().saturating_sub(WINDOW_MIN));
        self.standing.read(roll, longer, asked, now);
        if let Some(end) = self.standing.next_end() {
            self.turn_at = self.turn_at.min(end);
        }
        let left = self.standing.left(slots, now);
        let (kept, before) = self.kept;
        let kept = if left > before {
            // they may know of a little more than is left now
            let unnoticed = u64::from(slots).saturating_mul(UNNOTICED_WINDOWS);
            part_of(remaining.saturating_add(unnoticed), left, slots)
        } else {
            part_of(kept, left, before)
        };
        self.kept = (kept, left);
        if let Some(alone) = self.alone.take() {
            self.reports.extend(alone.used().map(|(day, calls)| Report::Used { day, calls }));
            // the others leave this instance its part until those calls are over
            (self.failures, self.retry_at) = (0, now);
        }
    }

    /// Whether it is known which slots are left to others.
    pub(super) fn knows_others(&self, now: Mono) -> bool {
        self.standing.asked.is_some_and(|at| now.since(at) <= ROLL_FRESH)
    }

    /// The calls of a window that are not left to others, and those of the day that are.
    pub(super) fn left_to_others(&self, terms: &Terms, now: Mono) -> (u32, u64) {
        let slots = terms.rate.calls();
        let left = self.standing.left(slots, now);
        let (kept, of) = self.kept;
        (slots.saturating_sub(left), part_of(kept, left, of))
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
        remaining: u64,
        now: Mono,
    ) -> Option<u32> {
        let time = self.by_itself(slots, window);
        let Some((.., own)) = time.filter(|(from, until, _)| *from <= now && now < *until) else {
            self.end_alone();
            return None;
        };
        if self.alone.is_none() {
            let day = self.memory.day;
            self.alone = Some(Allowance::new(day, remaining, own, slots));
        }
        Some(own)
    }

    /// What it used is still to be told.
    pub(super) fn end_alone(&mut self) {
        if let Some(alone) = self.alone.take() {
            self.reports.extend(alone.used().map(|(day, calls)| Report::Used { day, calls }));
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

/// `whole · part / of`, rounded up.
fn part_of(whole: u64, part: u32, of: u32) -> u64 {
    let part = u128::from(whole).saturating_mul(part.into());
    u64::try_from(part.div_ceil(u128::from(of.max(1)))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::chance::Chance;
    use crate::engine::turnstile::Stamp;
    use crate::engine::turnstile::roll::{Away, Member, Part, WHOLE};

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
        };
        Roll { part: third(0), members: (0..3).map(member).collect(), ..Roll::default() }
    }

    fn terms() -> Terms {
        Terms {
            rate: rate(),
            calls: 20,
            unanswered: Duration::ZERO,
            spaced: Duration::ZERO,
            per_day: 10_000,
            day_reset: crate::engine::time::DayReset::default(),
            reserve_percent: 10,
            withheld: 0,
        }
    }

    const GO_ON: OnLoss = OnLoss::GoOn { lasting: Duration::from_mins(10) };

    fn one_of_three(on_loss: OnLoss) -> Turnstile {
        let mut turnstile = Turnstile::new(on_loss, Chance::new(1), secs(100));
        for at in [99, 100] {
            turnstile.read(&roll(None), secs(at), rate(), 9_000, secs(at));
        }
        turnstile
    }

    #[test]
    fn an_instance_by_itself_has_its_part_of_slots_and_day_in_its_time() {
        let mut turnstile = one_of_three(GO_ON);
        assert_eq!(turnstile.go_alone(20, WINDOW, 9_000, secs(105)), None, "others may not know");
        assert_eq!(turnstile.go_alone(20, WINDOW, 9_000, secs(106)), Some(7));
        let taken = (0..9_000).filter_map(|_| turnstile.take_alone()).count();
        assert_eq!(taken, 3_150);
        assert_eq!(turnstile.alone(), Some(true));
        assert_eq!(turnstile.go_alone(20, WINDOW, 9_000, secs(694)), None, "it is taken for dead");
        let used = Report::Used { day: Day::default(), calls: 3_150 };
        assert_eq!(turnstile.reports, [used]);
    }

    #[test]
    fn a_roll_is_as_old_as_the_question_for_it() {
        let mut turnstile = one_of_three(GO_ON);
        turnstile.read(&roll(None), secs(101), rate(), 9_000, secs(103));
        assert!(!turnstile.knows_others(secs(103)), "others may have gone since");
        // the others heard at most then that this instance hears, and may know of it as of 100
        assert_eq!(turnstile.go_alone(20, WINDOW, 9_000, secs(108)), None);
        assert!(turnstile.go_alone(20, WINDOW, 9_000, secs(109)).is_some());
        assert_eq!(turnstile.go_alone(20, WINDOW, 9_000, secs(695)), None);
    }

    #[test]
    fn one_that_refuses_never_goes_on() {
        let mut turnstile = one_of_three(OnLoss::Refuse);
        assert_eq!(turnstile.go_alone(20, WINDOW, 9_000, secs(200)), None);
        assert!(!turnstile.refuses(20, WINDOW, secs(200)));
        turnstile.failures = FAILURES_MAX;
        assert!(turnstile.refuses(20, WINDOW, secs(200)));
    }

    #[test]
    fn one_without_a_slot_of_its_own_refuses() {
        let mut turnstile = one_of_three(GO_ON);
        turnstile.failures = FAILURES_MAX;
        assert!(!turnstile.refuses(20, WINDOW, secs(102)), "it will go on");
        assert_eq!(turnstile.go_alone(1, WINDOW, 9_000, secs(106)), None);
        assert!(turnstile.refuses(1, WINDOW, secs(102)), "the one slot is another's");
    }

    #[test]
    fn slots_and_calls_of_the_day_are_left_to_an_instance_that_is_away() {
        let mut turnstile = one_of_three(GO_ON);
        let kept =
            |turnstile: &Turnstile| (turnstile.standing.left(20, secs(103)), turnstile.kept.0);
        assert_eq!(kept(&turnstile), (0, 0));
        turnstile.read(&roll(Some(Away::Silent)), secs(103), rate(), 900, secs(103));
        assert_eq!(kept(&turnstile), (7, 350), "of 900 and 5 windows");
        turnstile.read(&roll(Some(Away::Silent)), secs(104), rate(), 500, secs(104));
        assert_eq!(kept(&turnstile), (7, 350), "it knows nothing of what was used since");
        turnstile.read(&roll(None), secs(105), rate(), 500, secs(105));
        assert_eq!(kept(&turnstile), (0, 0));
    }

    #[test]
    fn calls_of_the_day_are_left_to_an_instance_for_as_long_as_its_slots() {
        let mut turnstile = one_of_three(GO_ON);
        let back = Away::Back(Duration::from_secs(1));
        turnstile.read(&roll(Some(back)), secs(103), rate(), 900, secs(103));
        assert_eq!(turnstile.left_to_others(&terms(), secs(103)), (13, 350));
        assert_eq!(turnstile.left_to_others(&terms(), secs(104)), (20, 0));
    }

    #[test]
    fn what_was_used_alone_is_told_when_the_store_is_back() {
        let mut turnstile = one_of_three(GO_ON);
        turnstile.go_alone(20, WINDOW, 9_000, secs(106));
        let day = turnstile.take_alone().unwrap();
        turnstile.take_alone().unwrap();
        turnstile.give_back_alone(day);
        turnstile.read(&roll(None), secs(107), rate(), 9_000, secs(107));
        assert_eq!(turnstile.reports, [Report::Used { day, calls: 1 }]);
        assert_eq!(turnstile.alone(), None);
    }

    #[test]
    fn one_that_ends_by_itself_leaves_word_of_what_it_used() {
        let mut turnstile = one_of_three(GO_ON);
        assert_eq!(turnstile.farewell(terms(), secs(101)), None, "there is nothing to tell");
        turnstile.go_alone(20, WINDOW, 9_000, secs(106));
        turnstile.take_alone().unwrap();
        let farewell = turnstile.farewell(terms(), secs(107)).unwrap();
        assert_eq!(farewell.wanted_until, None);
        assert_eq!(farewell.reports, [Report::Used { day: Day::default(), calls: 1 }]);
    }
}
