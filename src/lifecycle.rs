//! The process: signals and what they do, panics, and what it leaves behind.
//!
//! `SIGHUP` reloads, `SIGTERM` and `SIGINT` stop in order, a second one stops at once.

use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, warn};

use crate::app::App;
use crate::config::{Config, Mistakes};

/// Exit code: stopped in order.
const DONE: u8 = 0;
/// Exit code: something was cut off.
const CUT_OFF: u8 = 1;

/// The signals that the process listens to.
pub struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the system refuses, which it does not in practice.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the order to stop.
    pub async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Runs the app until it is told to stop and gives the exit code. `read` reads the configuration
/// again, and `apply_log` changes logging.
pub async fn run(
    app: App,
    mut signals: Signals,
    read: impl Fn() -> Result<Config, Mistakes>,
    apply_log: impl Fn(&Config),
) -> u8 {
    loop {
        tokio::select! {
            _ = signals.hangup.recv() => match read() {
                Ok(config) => {
                    apply_log(&config);
                    // a reload waits for the store, and a stop must not
                    tokio::select! {
                        result = app.reload(config) => if let Err(error) = result {
                            error!(error = %format_args!("{error:#}"), "the reload failed");
                        },
                        () = signals.stop() => break,
                    }
                }
                Err(mistakes) => {
                    error!(%mistakes, "the configuration is wrong; the one before stays in force");
                }
            },
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
        }
    }
    tokio::select! {
        in_order = app.stop() => if in_order { DONE } else { CUT_OFF },
        () = signals.stop() => {
            warn!("told to stop a second time: stopping at once");
            CUT_OFF
        }
    }
}

/// Keeps what is in memory, tokens and keys, from being written to disk when the process dies, and
/// on Linux from other processes of its user.
///
/// # Errors
/// What the system says.
pub fn forbid_core_dumps() -> std::io::Result<()> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let limited = setrlimit(Resource::Core, none);
    // either serves where the other is refused
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(limited?)
}

/// Has panics logged like everything else; the request that had one is answered with 500.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("no message");
        error!(%place, message, "a panic");
    }));
}
