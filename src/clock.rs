//! The only place that reads time.
//!
//! A [`Clock`] gives a [`Now`] with both clocks. The monotonic half is tokio's, so that a test with
//! a paused runtime moves it; the wall half is the system's, or, for tests, one that follows the
//! monotonic half from a chosen moment and can be made to step.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::engine::{Mono, Now, Unix};

/// A source of [`Now`]; clones share it.
#[derive(Clone, Debug)]
pub struct Clock {
    started: tokio::time::Instant,
    wall: Wall,
}

#[derive(Clone, Debug)]
enum Wall {
    System,
    Virtual { started: Unix, step_ms: Arc<AtomicI64> },
}

impl Clock {
    /// The machine's clocks.
    #[must_use]
    pub fn system() -> Self {
        Self { started: instant_now(), wall: Wall::System }
    }

    /// A wall clock that shows `started` now and follows tokio's clock, paused or not.
    #[must_use]
    pub fn starting_at(started: Unix) -> Self {
        Self { started: instant_now(), wall: Wall::Virtual { started, step_ms: Arc::default() } }
    }

    /// Moves a virtual wall clock by `ms` milliseconds, back when negative; the system's is not
    /// touched.
    pub fn step_ms(&self, ms: i64) {
        if let Wall::Virtual { step_ms, .. } = &self.wall {
            step_ms.fetch_add(ms, Ordering::Relaxed);
        }
    }

    /// The monotonic clock, read now.
    #[must_use]
    pub fn mono(&self) -> Mono {
        Mono::new(instant_now().saturating_duration_since(self.started))
    }

    /// Both clocks, read now.
    #[must_use]
    pub fn now(&self) -> Now {
        let mono = self.mono();
        let unix = match &self.wall {
            Wall::System => system_now(),
            Wall::Virtual { started, step_ms } => {
                let step = step_ms.load(Ordering::Relaxed);
                let span = Duration::from_millis(step.unsigned_abs());
                let at = started.plus(mono.since_start());
                if step < 0 { at.minus(span) } else { at.plus(span) }
            }
        };
        Now { mono, unix }
    }

    /// Waits until the monotonic clock shows `at`.
    pub async fn sleep_until(&self, at: Mono) {
        match self.started.checked_add(at.since_start()) {
            Some(instant) => tokio::time::sleep_until(instant).await,
            None => std::future::pending().await,
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this module is where time is read")]
fn instant_now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "this module is where time is read")]
fn system_now() -> Unix {
    Unix::new(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_virtual_wall_clock_follows_tokio_and_steps() {
        let clock = Clock::starting_at(Unix::from_secs(1_000_000));
        clock.sleep_until(Mono::new(Duration::from_secs(5))).await;
        assert_eq!(clock.now().unix.as_secs(), 1_000_005);
        clock.step_ms(-3_600_000);
        assert_eq!(clock.now().unix.as_secs(), 996_405);
        assert_eq!(clock.now().mono.since_start().as_secs(), 5);
    }
}
