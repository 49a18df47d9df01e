//! What the integration tests stand on: a client, a proxy in process with a sandbox behind it, the
//! program as a process, an upstream that says what a test wants, and raw sockets.
//!
//! Nothing here judges: rates, counts and tokens are read from the sandbox's own log.

#[path = "support/certificates.rs"]
pub(crate) mod certificates;
#[path = "support/http.rs"]
mod http_client;
#[path = "support/judge.rs"]
pub(crate) mod judge;
#[path = "support/mirror.rs"]
mod mirror;
#[path = "support/process.rs"]
mod process;
#[path = "support/python.rs"]
pub(crate) mod python;
#[path = "support/raw.rs"]
pub(crate) mod raw;
#[path = "support/rig.rs"]
mod rig;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use ctct_proxy::clock::Clock;

pub(crate) use http_client::{Call, Http, Reply};
pub(crate) use mirror::Mirror;
pub(crate) use process::{Process, Program};
pub(crate) use rig::{Rig, RigBuilder};

/// Longest time for something to happen that will happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// Asks again and again until `holds`; ends the test when that takes too long.
pub(crate) async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let asking = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let held = tokio::time::timeout(PATIENCE, asking).await;
    assert!(held.is_ok(), "{what}: not within {PATIENCE:?}");
}

/// Measures how long something takes.
pub(crate) struct Watch {
    clock: Clock,
}

impl Watch {
    pub(crate) fn start() -> Self {
        Self { clock: Clock::system() }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.clock.now().mono.since_start()
    }
}

/// Measures by how much timers of this runtime are late while it runs.
pub(crate) struct Metronome {
    worst: Arc<AtomicU64>,
    _stop: DropGuard,
}

impl Metronome {
    pub(crate) fn start() -> Self {
        let (worst, stop) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
        let (noted, stopped) = (Arc::clone(&worst), stop.clone());
        let beat = Duration::from_millis(10);
        TaskTracker::new().spawn(stopped.run_until_cancelled_owned(async move {
            loop {
                let watch = Watch::start();
                tokio::time::sleep(beat).await;
                let late = watch.elapsed().saturating_sub(beat).as_micros();
                noted.fetch_max(u64::try_from(late).unwrap_or(u64::MAX), Ordering::Relaxed);
            }
        }));
        Self { worst, _stop: stop.drop_guard() }
    }

    pub(crate) fn worst(&self) -> Duration {
        Duration::from_micros(self.worst.load(Ordering::Relaxed))
    }
}

/// Pseudo-random numbers that are the same in every run (splitmix64).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        std::iter::repeat_with(|| self.roll().to_le_bytes()).flatten().take(len).collect()
    }
}
