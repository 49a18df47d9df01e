//! What an instance that lost the store may do by itself: its part of the slots, and of what was
//! left of the day when it last heard of it.
//!
//! The others leave it both. What it used is told to the store when it is back.

use super::keeping::Unheard;
use crate::engine::time::Day;

/// The day's calls of an instance that is by itself.
#[derive(Debug)]
pub(super) struct Allowance {
    day: Day,
    left: u64,
    /// What others can have used of a day before they keep this instance's part of it; `None` when
    /// that is not known.
    unheard: Option<u64>,
    used: Vec<(Day, u64)>,
}

impl Allowance {
    /// `part` of `of` parts of what was left of `day`; nothing where that is not known.
    pub(super) fn new(day: Day, left: Option<Unheard>, part: u32, of: u32) -> Self {
        let unheard = left.map(|unheard| unheard.calls);
        let left = left.map_or(0, |unheard| portion(unheard.left, part, of));
        Self { day, left, unheard, used: Vec::new() }
    }

    /// Another day begins, of which it may use its part too; whether it is another.
    pub(super) fn turn(&mut self, day: Day, per_day: u64, part: u32, of: u32) -> bool {
        let turns = day > self.day;
        if turns {
            let left = self.unheard.map(|unheard| per_day.saturating_sub(unheard));
            (self.day, self.left) = (day, left.map_or(0, |left| portion(left, part, of)));
        }
        turns
    }

    pub(super) const fn is_spent(&self) -> bool {
        self.left == 0
    }

    /// Takes one call of the day.
    pub(super) fn take(&mut self) -> Option<Day> {
        self.left = self.left.checked_sub(1)?;
        match self.used.last_mut().filter(|(day, _)| *day == self.day) {
            Some((_, used)) => *used = used.saturating_add(1),
            None => self.used.push((self.day, 1)),
        }
        Some(self.day)
    }

    /// Gives back a call that certainly did not leave.
    pub(super) fn give_back(&mut self, day: Day) {
        let of_day = self.used.iter_mut().find(|(used_in, used)| *used_in == day && *used > 0);
        if let Some((_, used)) = of_day {
            *used = used.saturating_sub(1);
            if day == self.day {
                self.left = self.left.saturating_add(1);
            }
        }
    }

    /// What was used, by day.
    pub(super) fn used(&self) -> impl Iterator<Item = (Day, u64)> {
        self.used.iter().copied().filter(|(_, used)| *used > 0)
    }
}

/// `whole · part / of`, rounded down.
fn portion(whole: u64, part: u32, of: u32) -> u64 {
    let portion = u128::from(whole).saturating_mul(part.into()).checked_div(of.into());
    u64::try_from(portion.unwrap_or_default()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_of_the_slots_has_a_third_of_what_is_left() {
        let today = Day::new(20_000);
        let left = Unheard { left: 7, calls: 12 };
        let mut allowance = Allowance::new(today, Some(left), 1, 3);
        assert_eq!([(); 3].map(|()| allowance.take()), [Some(today), Some(today), None]);
        assert!(allowance.is_spent());
        allowance.give_back(today);
        assert_eq!(allowance.used().collect::<Vec<_>>(), [(today, 1)]);
        let tomorrow = Day::new(20_001);
        assert!(allowance.turn(tomorrow, 15, 1, 3));
        assert_eq!([(); 2].map(|()| allowance.take()), [Some(tomorrow), None], "of 15 less 12");
        assert_eq!(allowance.used().collect::<Vec<_>>(), [(today, 1), (tomorrow, 1)]);
        assert!(!allowance.turn(today, 30, 1, 3));
        assert!(allowance.is_spent(), "no day comes twice");
    }

    #[test]
    fn one_that_does_not_know_what_is_left_has_nothing() {
        let mut allowance = Allowance::new(Day::new(20_000), None, 1, 3);
        assert!(allowance.is_spent());
        assert!(allowance.turn(Day::new(20_001), 30, 1, 3));
        assert!(allowance.is_spent());
    }
}
