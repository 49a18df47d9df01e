//! Where in its life the process is: what `/readyz` answers, and whether new calls are served.

use tokio::sync::watch;

/// A moment of the process's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// Not yet serving.
    #[default]
    Starting,
    /// Serving.
    Ready,
    /// Finishing what was taken in; new calls are refused.
    Draining,
    /// Serving only what needs no store: it cannot be written.
    StoreDown,
}

impl Stage {
    /// Its name in `/readyz`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::StoreDown => "store_down",
        }
    }
}

/// The stage, shared by all who ask.
#[derive(Clone, Debug, Default)]
pub struct Phase(watch::Sender<Stage>);

impl Phase {
    /// The stage now.
    #[must_use]
    pub fn get(&self) -> Stage {
        *self.0.borrow()
    }

    /// Goes on to `stage`; draining is the last, nothing comes after it.
    pub fn set(&self, stage: Stage) {
        self.0.send_if_modified(|now| {
            let changes = *now != stage && *now != Stage::Draining;
            if changes {
                *now = stage;
            }
            changes
        });
    }

    /// Whether new calls are refused because the process stops.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.get() == Stage::Draining
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draining_is_the_last_stage() {
        let phase = Phase::default();
        phase.set(Stage::Ready);
        assert_eq!(phase.get(), Stage::Ready);
        phase.set(Stage::Draining);
        phase.set(Stage::Ready);
        assert!(phase.is_draining());
    }
}
