//! Where this instance's calls wait, and what of that the turnstile has been told.
//!
//! The turnstile counts down by itself what it grants, so that a long line is told once and not
//! with each call. What must be known soon is only that a tenant waits which did not, or no longer
//! does; other counts are told when something is asked anyway.

use std::collections::{BTreeMap, BTreeSet};

use super::terms::Place;
use crate::engine::ids::TenantName;
use crate::engine::rate::Class;

/// Most places that are told at once; the rest follows with the next question.
const TOLD_MAX: usize = 500;
/// Most places that are told to be empty though they may be known to be: a turn that is given there
/// for nothing is soon given back.
const GONE_MAX: usize = 10_000;

type Spot = (Class, TenantName);

/// The line of one instance.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Calls that wait now, with their tenant's weight.
    waiting: BTreeMap<Spot, (u32, u32)>,
    /// What the turnstile takes to wait.
    known: BTreeMap<Spot, u32>,
    /// Where nobody waits, and the turnstile may take somebody to.
    gone: BTreeSet<Spot>,
    /// Where the last question said that nobody waits any more.
    parting: BTreeSet<Spot>,
    /// Where the two may differ.
    differs: BTreeSet<Spot>,
    /// Of them, those where one says that nobody waits.
    urgent: BTreeSet<Spot>,
    /// What the turnstile knows is void.
    void: bool,
}

impl Line {
    /// So many calls of a tenant and class wait now.
    pub(super) fn set(&mut self, class: Class, tenant: &TenantName, weight: u32, count: u32) {
        let spot = (class, tenant.clone());
        if count == 0 {
            self.waiting.remove(&spot);
        } else {
            self.waiting.insert(spot.clone(), (count, weight));
        }
        self.compare(spot);
    }

    fn compare(&mut self, spot: Spot) {
        let waiting = self.waiting.get(&spot).map_or(0, |(count, _)| *count);
        let known = self.known.get(&spot).copied().unwrap_or_default();
        let is_gone = waiting == 0 && self.gone.contains(&spot);
        if waiting == known && !is_gone {
            self.differs.remove(&spot);
            self.urgent.remove(&spot);
            return;
        }
        if is_gone || (waiting == 0) != (known == 0) {
            self.urgent.insert(spot.clone());
        } else {
            self.urgent.remove(&spot);
        }
        self.differs.insert(spot);
    }

    /// Whether anybody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether the turnstile should be told now.
    pub(super) fn is_urgent(&self) -> bool {
        self.void || !self.urgent.is_empty()
    }

    /// What to tell, and whether that is the begin of everything. It counts as known; if it does
    /// not arrive, call [`Line::forget`].
    pub(super) fn tell(&mut self) -> (Vec<Place>, bool) {
        let anew = std::mem::take(&mut self.void);
        let urgent = self.urgent.iter().take(TOLD_MAX).cloned();
        let mut spots: BTreeSet<Spot> = urgent.collect();
        let others = self.differs.iter().take(TOLD_MAX).cloned();
        spots.extend(others.take(TOLD_MAX.saturating_sub(spots.len())));
        let mut places = Vec::with_capacity(spots.len());
        self.parting.clear();
        for spot in spots {
            let (count, weight) = self.waiting.get(&spot).copied().unwrap_or((0, 1));
            self.gone.remove(&spot);
            if count == 0 {
                self.known.remove(&spot);
                self.parting.insert(spot.clone());
            } else {
                self.known.insert(spot.clone(), count);
            }
            self.compare(spot.clone());
            let (class, tenant) = spot;
            places.push(Place { class, tenant, weight, count });
        }
        (places, anew)
    }

    /// How many places the turnstile knows.
    pub(super) fn known(&self) -> u32 {
        u32::try_from(self.known.len()).unwrap_or(u32::MAX)
    }

    /// The turnstile granted a slot for a call of this tenant and class, and counts one less.
    pub(super) fn granted(&mut self, class: Class, tenant: &TenantName) {
        let spot = (class, tenant.clone());
        match self.known.get_mut(&spot) {
            Some(count) if *count > 1 => *count = count.saturating_sub(1),
            // one that was not known is said to be gone, or there, with the next question
            Some(_) | None => drop(self.known.remove(&spot)),
        }
        self.compare(spot);
    }

    /// The turnstile takes somebody to wait who does not.
    pub(super) fn misled(&mut self, class: Class, tenant: &TenantName) {
        let spot = (class, tenant.clone());
        self.gone.insert(spot.clone());
        self.compare(spot);
    }

    /// What the turnstile knows is void, or not known. Where it may take somebody to wait who does
    /// not is told too: turns would be given to nobody there.
    pub(super) fn forget(&mut self) {
        self.void = true;
        let mut spots = std::mem::take(&mut self.parting);
        spots.extend(std::mem::take(&mut self.known).into_keys());
        for spot in spots {
            if !self.waiting.contains_key(&spot) && self.gone.len() < GONE_MAX {
                self.gone.insert(spot.clone());
            }
            self.compare(spot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantName {
        TenantName::new(name).unwrap()
    }

    fn counts(places: &[Place]) -> Vec<(&str, u32)> {
        places.iter().map(|place| (place.tenant.as_str(), place.count)).collect()
    }

    #[test]
    fn a_long_line_is_told_once_and_counted_down_on_both_sides() {
        let (mut line, a) = (Line::default(), tenant("a"));
        line.set(Class::Normal, &a, 1, 3);
        assert!(line.is_urgent());
        assert_eq!(counts(&line.tell().0), [("a", 3)]);
        for left in [2, 1, 0] {
            line.granted(Class::Normal, &a);
            line.set(Class::Normal, &a, 1, left);
            assert!(!line.is_urgent(), "{left}");
            assert!(line.tell().0.is_empty(), "{left}");
        }
        assert!(line.is_empty());
    }

    #[test]
    fn more_calls_of_a_known_tenant_are_told_with_the_next_question_only() {
        let (mut line, a) = (Line::default(), tenant("a"));
        line.set(Class::Bulk, &a, 1, 1);
        line.tell();
        line.set(Class::Bulk, &a, 1, 9);
        assert!(!line.is_urgent());
        assert_eq!(counts(&line.tell().0), [("a", 9)]);
    }

    #[test]
    fn a_tenant_that_no_longer_waits_is_told_soon() {
        let (mut line, a) = (Line::default(), tenant("a"));
        line.set(Class::Normal, &a, 1, 2);
        line.tell();
        line.set(Class::Normal, &a, 1, 0);
        assert!(line.is_urgent());
        assert_eq!(counts(&line.tell().0), [("a", 0)]);
    }

    #[test]
    fn what_may_not_have_arrived_is_told_again() {
        let (mut line, a) = (Line::default(), tenant("a"));
        line.set(Class::Normal, &a, 1, 2);
        line.tell();
        line.forget();
        let (places, anew) = line.tell();
        assert_eq!((counts(&places), anew), (vec![("a", 2)], true));
        line.misled(Class::Normal, &tenant("gone"));
        assert_eq!(counts(&line.tell().0), [("gone", 0)]);
    }

    #[test]
    fn that_nobody_waits_any_more_is_told_again_until_it_arrives() {
        let (mut line, a, b) = (Line::default(), tenant("a"), tenant("b"));
        line.set(Class::Normal, &a, 1, 2);
        line.set(Class::Normal, &b, 1, 2);
        line.tell();
        line.set(Class::Normal, &a, 1, 0);
        assert_eq!(counts(&line.tell().0), [("a", 0)]);
        for _ in 0..2 {
            line.forget();
            assert!(line.is_urgent());
            assert_eq!(counts(&line.tell().0), [("a", 0), ("b", 2)]);
            assert_eq!(line.known(), 1);
        }
        // while nothing is heard, the last call of the other goes too
        line.set(Class::Normal, &b, 1, 0);
        line.forget();
        assert_eq!(counts(&line.tell().0), [("a", 0), ("b", 0)]);
        assert!(!line.is_urgent() && line.tell().0.is_empty(), "it arrived");
    }

    #[test]
    fn of_many_places_that_may_be_taken_to_wait_all_are_told_in_time() {
        let mut line = Line::default();
        let many: Vec<_> = (0..3 * TOLD_MAX).map(|n| tenant(&format!("t{n:04}"))).collect();
        for name in &many {
            line.set(Class::Normal, name, 1, 1);
        }
        while line.is_urgent() {
            line.tell();
        }
        for name in &many {
            line.set(Class::Normal, name, 1, 0);
        }
        line.forget();
        let mut told = 0;
        while line.is_urgent() {
            let (places, _) = line.tell();
            assert!(places.iter().all(|place| place.count == 0) && places.len() <= TOLD_MAX);
            assert_eq!(line.known(), 0, "the turnstile need not know of them");
            told += places.len();
        }
        assert_eq!(told, many.len());
    }
}
