//! Where the process stands in its life, for those who ask whether it is ready.
//!
//! One writer in the middle of the program sets it, the admin listener reads it. It is a fact to be
//! shown, not a switch: nothing is started or stopped by it. A process that drains never looks
//! ready again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Where the process stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Configuration, store and listeners are being opened.
    #[default]
    Starting,
    /// Calls are served.
    Ready,
    /// The store cannot be reached, and calls cannot be counted.
    StoreDown,
    /// The process is being stopped.
    Draining,
}

impl Phase {
    /// All phases.
    pub const ALL: [Self; 4] = [Self::Starting, Self::Ready, Self::StoreDown, Self::Draining];

    /// Its public name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::StoreDown => "store_down",
            Self::Draining => "draining",
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Starting => 0,
            Self::Ready => 1,
            Self::StoreDown => 2,
            Self::Draining => 3,
        }
    }
}

/// The phase of one process; clones share it.
#[derive(Clone, Debug, Default)]
pub struct SharedPhase(Arc<AtomicU8>);

impl SharedPhase {
    /// A process that starts.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Enters `phase`; once it drains, it stays so.
    pub fn set(&self, phase: Phase) {
        let enter = |now| (now != Phase::Draining.code()).then_some(phase.code());
        // An `Err` says that it drains.
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, enter);
    }

    /// The phase now.
    #[must_use]
    pub fn get(&self) -> Phase {
        let code = usize::from(self.0.load(Ordering::Acquire));
        Phase::ALL.get(code).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_drains_is_never_ready_again() {
        let phase = SharedPhase::new();
        assert_eq!(phase.get(), Phase::Starting);
        for next in [Phase::Ready, Phase::StoreDown, Phase::Ready, Phase::Draining] {
            phase.set(next);
            assert_eq!(phase.get(), next);
        }
        phase.set(Phase::Ready);
        assert_eq!(phase.get(), Phase::Draining);
    }
}
