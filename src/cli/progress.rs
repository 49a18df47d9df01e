//! One line on a terminal that says how far a long command is, drawn over again and again.
//!
//! Nothing is drawn where nobody watches: a file or a pipe gets the remarks alone. Whoever prints
//! something else clears the line first.

use std::time::Duration;

use super::Console;
use crate::clock::Clock;
use crate::engine::Mono;

/// Least time between two drawings.
const EVERY: Duration = Duration::from_millis(100);
/// Goes to the begin of the line and empties it (ECMA-48: CR, EL).
const CLEAR: &str = "\r\u{1b}[K";

/// The line.
pub(super) struct Progress {
    clock: Clock,
    next: Mono,
    shown: bool,
}

impl Progress {
    pub(super) fn new() -> Self {
        let clock = Clock::system();
        let next = clock.now().mono;
        Self { clock, next, shown: false }
    }

    /// Draws what `text` says, unless it was drawn a moment ago. A line that cannot be drawn is
    /// left out.
    pub(super) fn show(&mut self, console: &mut Console<'_>, text: impl FnOnce() -> String) {
        let now = self.clock.now().mono;
        if !console.watched || now < self.next {
            return;
        }
        self.next = now.plus(EVERY);
        self.shown = true;
        let _ = write!(console.err, "{CLEAR}{}", text());
        let _ = console.err.flush();
    }

    /// Takes the line away.
    pub(super) fn clear(&mut self, console: &mut Console<'_>) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(console.err, "{CLEAR}");
        }
        self.next = self.clock.now().mono;
    }
}

/// How much of a whole is done, for people: `1200 of 5000 (24 %)`.
pub(super) fn part(done: u64, whole: u64) -> String {
    let percent = done.saturating_mul(100).checked_div(whole).unwrap_or(100);
    format!("{done} of {whole} ({percent} %)")
}
