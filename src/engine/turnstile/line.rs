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

type Spot = (Class, TenantName);

/// The line of one instance.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Calls that wait now, with their tenant's weight.
    waiting: BTreeMap<Spot, (u32, u32)>,
    /// What the turnstile takes to wait.
    known: BTreeMap<Spot, u32>,
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
        if waiting == known {
            self.differs.remove(&spot);
            self.urgent.remove(&spot);
            return;
        }
        if (waiting == 0) == (known == 0) {
            self.urgent.remove(&spot);
        } else {
            self.urgent.insert(spot.clone());
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
        for spot in spots {
            let (count, weight) = self.waiting.get(&spot).copied().unwrap_or((0, 1));
            if count == 0 {
                self.known.remove(&spot);
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
        self.known.insert((class, tenant.clone()), u32::MAX);
        self.compare((class, tenant.clone()));
    }

    /// What the turnstile knows is void, or not known.
    pub(super) fn forget(&mut self) {
        self.void = true;
        for spot in std::mem::take(&mut self.known).into_keys() {
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
}
