//! How late a call can have been, and the guard that follows from it.
//!
//! The bound comes from what is seen of the call itself: what its round trip, or the time until the
//! upstream's transport had acknowledged it, exceeds the least of its kind by. It belongs to the
//! path between this process and the upstream, whoever gives the slots.

use std::time::Duration;

use super::least::Least;
use super::narrowing::Narrowing;
use crate::engine::rate::Guard;
use crate::engine::time::Mono;

/// Most that one call's lateness is believed to be, above the forward jitter of any network that
/// was simulated (380 ms); an answer that takes longer is taken for a slow upstream.
pub(super) const EXCESS_MAX: Duration = Duration::from_millis(400);
/// What the bytes may leave after the moment that is written down.
pub(super) const TIMERS: Duration = Duration::from_millis(1);
/// For how long acknowledgements are not believed after a refusal that came while slots were free
/// earlier for them, at first; each further time it is twice as long.
pub(super) const DISTRUST_MIN: Duration = Duration::from_hours(24);
/// The longest that they are not believed.
pub(super) const DISTRUST_MAX: Duration = Duration::from_hours(1_536);

/// What is known of the path of one API key's calls.
#[derive(Debug)]
pub struct Lateness {
    guard: Guard,
    pub(super) narrowing: Narrowing,
    round_trip: Least,
    acknowledgement: Least,
    /// Acknowledgements are believed from then on.
    trusted_from: Mono,
    /// For how long the next refusal makes them not believed.
    distrust: Duration,
    /// Slots are free earlier for an acknowledgement until then, as the last one told.
    pub(super) leaned_until: Mono,
    /// The mean lateness of the last calls, as far as it is bounded.
    mean: Duration,
}

impl Lateness {
    pub(super) fn new(guard: Guard, now: Mono) -> Self {
        Self {
            guard,
            narrowing: Narrowing::default(),
            round_trip: Least::default(),
            acknowledgement: Least::default(),
            trusted_from: now,
            distrust: DISTRUST_MIN,
            leaned_until: now,
            mean: Duration::ZERO,
        }
    }

    pub(super) const fn reconfigure(&mut self, guard: Guard) {
        self.guard = guard;
    }

    /// What was clean says nothing any more: the rate has changed.
    pub(super) fn start_over(&mut self) {
        self.narrowing = Narrowing::default();
    }

    /// The margin for a call of whose answer nothing is known: it may be as late as any.
    #[must_use]
    pub fn unanswered(&self) -> Duration {
        match self.guard {
            Guard::Fixed(guard) => guard,
            Guard::Auto => self.learned(EXCESS_MAX),
        }
    }

    /// The margin of the calls of late.
    #[must_use]
    pub fn mean(&self) -> Duration {
        match self.guard {
            Guard::Fixed(guard) => guard,
            Guard::Auto => self.learned(self.mean),
        }
    }

    /// How far the upstream is from here, beside other instances: the most and the least that it
    /// may be, in round trips. Both are zero with a fixed guard, which is the operator's word for
    /// all that makes a call late.
    #[must_use]
    pub fn path(&self) -> (Duration, Duration) {
        (self.round_trip.seen(), self.round_trip.believed())
    }

    /// The part of the margin that the spacing floor has too: a learned one shows in the slots
    /// alone.
    #[must_use]
    pub const fn spaced(&self) -> Duration {
        match self.guard {
            Guard::Fixed(guard) => guard,
            Guard::Auto => Duration::ZERO,
        }
    }

    /// The upstream's transport had the whole of a call `took` after it left: the call was counted
    /// before, however long its answer takes, so what this took above the least is the most that
    /// it can have been late. The margin that follows; `None` where it is fixed.
    pub fn acknowledged(&mut self, took: Duration, window: Duration, at: Mono) -> Option<Duration> {
        if self.guard != Guard::Auto {
            return None;
        }
        self.acknowledgement.learn(took, at);
        let lateness = self.bound(Some(took), None, window, at);
        Some(self.learned(lateness))
    }

    /// The head of a call's answer came `took` after it left: the call was counted before, so what
    /// its round trip exceeds the smallest by is the most that it can have been late. The smaller
    /// of this bound and the acknowledgement's holds. The margin that follows; `None` where it is
    /// fixed.
    pub fn answered(
        &mut self,
        took: Duration,
        acknowledged: Option<Duration>,
        window: Duration,
        now: Mono,
    ) -> Option<Duration> {
        if self.guard != Guard::Auto {
            return None;
        }
        self.round_trip.learn(took, now);
        let lateness = self.bound(acknowledged, Some(took), window, now);
        self.learn_mean(lateness);
        Some(self.learned(lateness))
    }

    /// A call was not refused for its rate.
    pub fn clean(&mut self) {
        self.narrowing.clean();
    }

    /// A call was refused for its rate, here or at another instance.
    pub fn refused(&mut self, now: Mono) {
        self.narrowing.refused();
        if now <= self.leaned_until {
            self.trusted_from = now.plus(self.distrust);
            self.distrust = self.distrust.saturating_mul(2).min(DISTRUST_MAX);
            self.leaned_until = Mono::default();
        }
    }

    /// The margin for a call that was late by at most this.
    fn learned(&self, lateness: Duration) -> Duration {
        self.narrowing.share(lateness).saturating_add(TIMERS)
    }

    /// The most that a call can have been late, by all that is known of it.
    fn bound(
        &mut self,
        acknowledged: Option<Duration>,
        round_trip: Option<Duration>,
        window: Duration,
        now: Mono,
    ) -> Duration {
        let by_answer = round_trip.map_or(EXCESS_MAX, |took| self.round_trip.excess(took));
        let by_answer = by_answer.min(EXCESS_MAX);
        let Some(took) = acknowledged.filter(|_| now >= self.trusted_from) else {
            return by_answer;
        };
        let by_acknowledgement = self.acknowledgement.excess(took);
        if by_acknowledgement < by_answer {
            // a refusal within two windows may be of a call that this one let go
            self.leaned_until = now.plus(window.saturating_mul(2)).plus(EXCESS_MAX);
        }
        by_acknowledgement.min(by_answer)
    }

    /// Exponentially weighted with 1/8, the gain of RFC 6298.
    fn learn_mean(&mut self, lateness: Duration) {
        let eighth = self.mean.checked_div(8).unwrap_or_default();
        let kept = self.mean.saturating_sub(eighth);
        self.mean = kept.saturating_add(lateness.checked_div(8).unwrap_or_default());
    }
}
