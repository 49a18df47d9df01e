//! What was removed from a shared store a while ago, as an instance remembers it.
//!
//! A fail-over can lose a removal: what was removed is there again, and nothing in the store says
//! that it should not be. Whoever removed it, or was told of it, still knows. That is needed for as
//! long as a replica can lag behind, so it is remembered for some minutes, and not without end.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::engine::Mono;

/// Longer than a fail-over takes, noticed and all.
const KEPT_FOR: Duration = Duration::from_mins(10);
/// More than anybody removes in that time; of more, the oldest are forgotten.
const KEPT_MAX: usize = 10_000;

/// Names, and what tells the thing that was removed from a later one of the same name.
#[derive(Debug)]
pub struct Removals<N, M> {
    by_name: BTreeMap<N, (M, Mono)>,
    /// In the order in which they were removed.
    order: VecDeque<(N, Mono)>,
}

impl<N: Ord + Clone, M> Removals<N, M> {
    /// Remembers that the thing of `mark` was removed.
    pub fn remember(&mut self, name: N, mark: M, now: Mono) {
        self.order.push_back((name.clone(), now));
        self.by_name.insert(name, (mark, now));
        while let Some((_, at)) = self.order.front()
            && (self.order.len() > KEPT_MAX || now.since(*at) >= KEPT_FOR)
        {
            self.forget_oldest();
        }
    }

    /// What was removed last under this name, if that was not long ago.
    #[must_use]
    pub fn last(&self, name: &N, now: Mono) -> Option<&M> {
        let (mark, at) = self.by_name.get(name)?;
        (now.since(*at) < KEPT_FOR).then_some(mark)
    }

    fn forget_oldest(&mut self) {
        let Some((name, at)) = self.order.pop_front() else { return };
        // unless it was removed again since
        if self.by_name.get(&name).is_some_and(|(_, last)| *last == at) {
            self.by_name.remove(&name);
        }
    }
}

impl<N, M> Default for Removals<N, M> {
    fn default() -> Self {
        Self { by_name: BTreeMap::new(), order: VecDeque::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Mono {
        Mono::default().plus(Duration::from_secs(secs))
    }

    #[test]
    fn a_removal_is_remembered_for_ten_minutes_from_the_last_of_its_name() {
        let mut removals = Removals::default();
        removals.remember("crm", 1, at(0));
        removals.remember("crm", 2, at(300));
        removals.remember("shop", 3, at(700));
        assert_eq!(removals.last(&"crm", at(899)), Some(&2));
        assert_eq!(removals.last(&"crm", at(900)), None);
        assert_eq!(removals.last(&"shop", at(900)), Some(&3));
    }

    #[test]
    fn of_too_many_the_oldest_are_forgotten() {
        let mut removals = Removals::default();
        for number in 0..=KEPT_MAX {
            removals.remember(number, (), at(1));
        }
        assert_eq!(removals.last(&0, at(1)), None);
        assert_eq!(removals.last(&1, at(1)), Some(&()));
        assert_eq!(removals.by_name.len(), KEPT_MAX);
    }
}
