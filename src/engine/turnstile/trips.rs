//! What the last questions took.
//!
//! The least tells how far away the store is: one that stood still for a moment is not far. The
//! median tells what it takes as things are, busy or not.

use std::time::Duration;

/// So many of the last questions tell.
const KEPT: usize = 8;

/// What they took.
#[derive(Debug, Default)]
pub(super) struct Trips {
    /// The oldest is written over; before there are so many, all are as the first.
    last: [Duration; KEPT],
    next: usize,
    is_begun: bool,
}

impl Trips {
    pub(super) fn learn(&mut self, took: Duration) {
        if !std::mem::replace(&mut self.is_begun, true) {
            self.last = [took; KEPT];
        }
        if let Some(oldest) = self.last.get_mut(self.next) {
            *oldest = took;
        }
        self.next = self.next.saturating_add(1).checked_rem(KEPT).unwrap_or_default();
    }

    pub(super) fn least(&self) -> Duration {
        self.last.into_iter().min().unwrap_or_default()
    }

    pub(super) fn median(&self) -> Duration {
        let mut sorted = self.last;
        sorted.sort_unstable();
        sorted.get(KEPT / 2).copied().unwrap_or_default()
    }
}
