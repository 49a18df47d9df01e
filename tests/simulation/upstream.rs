//! What an upstream counts: six ways to hold callers to N calls in a window.

use std::collections::VecDeque;
use std::time::Duration;

/// The way in which an upstream counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Model {
    /// At most N in each second of a clock that began at any moment.
    FixedSecond,
    /// At most N accepted in the window before a call, both ends included.
    SlidingLog,
    /// The same, and refused calls count as well.
    SlidingLogOfAll,
    /// A bucket of N tokens into which N flow in a window.
    TokenBucket,
    /// A window over N between two calls.
    Spacer,
    /// This window's count and the part of the one before that the sliding window still covers.
    WeightedCounter,
}

impl Model {
    pub(crate) const ALL: [Self; 6] = [
        Self::FixedSecond,
        Self::SlidingLog,
        Self::TokenBucket,
        Self::SlidingLogOfAll,
        Self::Spacer,
        Self::WeightedCounter,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::FixedSecond => "fixed second",
            Self::SlidingLog => "sliding log",
            Self::SlidingLogOfAll => "log that counts refused",
            Self::TokenBucket => "token bucket",
            Self::Spacer => "strict spacer",
            Self::WeightedCounter => "weighted counter",
        }
    }
}

const WINDOW: Duration = Duration::from_secs(1);

/// An upstream that holds one key to `calls` in a second.
pub(crate) struct Upstream {
    model: Model,
    calls: u32,
    /// Its clock is this much ahead.
    phase: Duration,
    log: VecDeque<Duration>,
    last: Duration,
    tokens: f64,
    second: u64,
    now: u32,
    before: u32,
}

impl Upstream {
    pub(crate) fn new(model: Model, calls: u32, phase: Duration) -> Self {
        let (log, last) = (VecDeque::new(), Duration::ZERO);
        Self {
            model,
            calls,
            phase,
            log,
            last,
            tokens: f64::from(calls),
            second: 0,
            now: 0,
            before: 0,
        }
    }

    /// Whether the call that arrives at `at` passes. Calls come in the order of their arrival.
    pub(crate) fn passes(&mut self, at: Duration) -> bool {
        match self.model {
            Model::FixedSecond => {
                self.turn(at);
                self.count(self.now < self.calls)
            }
            Model::WeightedCounter => {
                let gone = self.turn(at);
                let used = f64::from(self.before) * (1.0 - gone) + f64::from(self.now);
                self.count(used < f64::from(self.calls))
            }
            Model::SlidingLog | Model::SlidingLogOfAll => {
                while self.log.front().is_some_and(|first| *first + WINDOW < at) {
                    self.log.pop_front();
                }
                let passes = self.log.len() < usize::try_from(self.calls).expect("32 bits");
                if passes || self.model == Model::SlidingLogOfAll {
                    self.log.push_back(at);
                }
                passes
            }
            Model::TokenBucket => {
                let rate = f64::from(self.calls);
                let inflow = at.saturating_sub(self.last).as_secs_f64() * rate;
                self.tokens = (self.tokens + inflow).min(rate);
                self.last = at;
                let passes = self.tokens >= 1.0;
                if passes {
                    self.tokens -= 1.0;
                }
                passes
            }
            Model::Spacer => {
                let passes = at >= self.last + WINDOW / self.calls;
                if passes {
                    self.last = at;
                }
                passes
            }
        }
    }

    /// Turns to the second of `at` and returns the part of it that is over.
    fn turn(&mut self, at: Duration) -> f64 {
        let clock = at + self.phase;
        let second = clock.as_secs();
        if second != self.second {
            self.before = if second == self.second + 1 { self.now } else { 0 };
            (self.second, self.now) = (second, 0);
        }
        f64::from(clock.subsec_nanos()) / 1e9
    }

    fn count(&mut self, passes: bool) -> bool {
        self.now += u32::from(passes);
        passes
    }
}
