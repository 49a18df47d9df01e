//! When the next call of one API key may leave.
//!
//! The upstream's window is not known: fixed second, sliding log or token bucket. A key has as many
//! slots as calls in its window; a slot is held from the grant until one window and a guard after
//! the call left, so that no window of any phase, as the upstream counts, holds more calls than
//! slots. On top comes a spacing floor, so that calls do not leave in one clump. A grant that is
//! not yet spent holds its slot without end: however late its bytes leave, they are counted from
//! then. Counting the day is the budget's work, order the queue's.

use std::collections::BTreeSet;
use std::time::Duration;

use super::rate::{Guard, Rate};
use super::time::Mono;

/// Most that one call's lateness is believed to be, above the forward jitter of any network that
/// was simulated (350 ms); an answer that takes longer is taken for a slow upstream.
const EXCESS_MAX: Duration = Duration::from_millis(400);
/// Margin for the smallest round trip that was seen being a little above the true one, and for
/// timers.
const EXCESS_MARGIN: Duration = Duration::from_millis(8);
/// Answers after which the smallest round trip is taken for the least that the path allows; before,
/// a call counts as late by its whole round trip.
const ROUND_TRIP_MIN_ANSWERS: u32 = 32;
/// How long the smallest round trip is believed.
const ROUND_TRIP_MIN_LIFE: Duration = Duration::from_secs(600);
/// After a refusal the guard grows by half and this much.
const WIDEN_STEP: Duration = Duration::from_millis(10);
/// Most that refusals add to the guard.
const WIDEN_MAX: Duration = Duration::from_secs(1);
/// The guard narrows by this much …
const NARROW_STEP: Duration = Duration::from_millis(5);
/// … after this many answers without a refusal.
const NARROW_AFTER: u32 = 500;
/// A timer that fires this late, or half a spacing if that is less, still counts as on time, so
/// that lateness on a busy machine does not add up. The slots hold the limit all the same.
const LATENESS_MAX: Duration = Duration::from_millis(50);

/// A slot that a granted call holds; what the pacer needs to know of it travels with the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    number: u64,
    sent: Option<Mono>,
    free_at: Mono,
}

impl Slot {
    /// When its call left; the start of the clock when it has not.
    #[must_use]
    pub fn sent_at(self) -> Mono {
        self.sent.unwrap_or_default()
    }
}

/// The slots of one API key.
#[derive(Debug)]
pub struct Pacer {
    rate: Rate,
    guard: Guard,
    /// Slots that are not free, by when they will be.
    held: BTreeSet<(Mono, u64)>,
    slot_next: u64,
    spaced_from: Mono,
    closed_until: Mono,
    widened: Duration,
    clean: u32,
    round_trip: RoundTripMin,
}

impl Pacer {
    /// A pacer that has forgotten what left before `now`: it lets a whole window and the guard pass
    /// first.
    #[must_use]
    pub fn new(rate: Rate, guard: Guard, now: Mono) -> Self {
        let mut pacer = Self {
            rate,
            guard,
            held: BTreeSet::new(),
            slot_next: 0,
            spaced_from: now,
            closed_until: now,
            widened: Duration::ZERO,
            clean: 0,
            round_trip: RoundTripMin::default(),
        };
        pacer.closed_until = now.plus(rate.window()).plus(pacer.guard_unanswered());
        pacer
    }

    /// Changes rate and guard; slots that are held stay held for as long as they were.
    pub fn reconfigure(&mut self, rate: Rate, guard: Guard) {
        self.rate = rate;
        self.guard = guard;
    }

    /// The earliest moment at which a call may leave, or [`Mono::NEVER`] while every slot waits for
    /// its call to leave.
    #[must_use]
    pub fn ready_at(&self) -> Mono {
        let slots = usize::try_from(self.rate.calls()).unwrap_or(usize::MAX);
        let slot_free = match self.held.len().checked_sub(slots) {
            None => Mono::default(),
            Some(ahead) => self.held.iter().nth(ahead).map_or(Mono::NEVER, |(at, _)| *at),
        };
        slot_free.max(self.spaced_from).max(self.closed_until)
    }

    /// Takes a slot for a call that is granted now; only when [`Pacer::ready_at`] is not after
    /// `now`.
    pub fn take(&mut self, now: Mono) -> Slot {
        self.free_due(now);
        let slot = Slot { number: self.slot_next, sent: None, free_at: Mono::NEVER };
        self.slot_next = self.slot_next.saturating_add(1);
        self.held.insert((slot.free_at, slot.number));
        let lateness = LATENESS_MAX.min(self.spacing().checked_div(2).unwrap_or_default());
        let on_time = now.since(self.spaced_from) <= lateness;
        let from = if on_time { self.spaced_from } else { now };
        self.spaced_from = from.plus(self.spacing());
        slot
    }

    /// The bytes of the call leave now.
    pub fn sent(&mut self, slot: Slot, now: Mono) -> Slot {
        let free_at = self.free_after(now, self.guard_unanswered());
        self.keep(Slot { sent: Some(now), ..slot }, free_at)
    }

    /// The head of the call's answer came: the call was counted before, so what its round trip
    /// exceeds the smallest by is the most that it can have been late.
    pub fn answered(&mut self, slot: Slot, now: Mono) {
        let Some(sent) = slot.sent else { return };
        let round_trip = now.since(sent);
        self.round_trip.learn(round_trip, now);
        if self.guard == Guard::Auto {
            let excess = round_trip.saturating_sub(self.round_trip.least()).min(EXCESS_MAX);
            let free_at = self.free_after(sent, excess.saturating_add(EXCESS_MARGIN));
            self.keep(slot, free_at);
        }
    }

    /// The call was not refused for its rate.
    pub fn clean(&mut self) {
        self.clean = self.clean.saturating_add(1);
        if self.clean >= NARROW_AFTER {
            self.clean = 0;
            self.widened = self.widened.saturating_sub(NARROW_STEP);
        }
    }

    /// The call certainly did not leave: its slot is free at once.
    pub fn release(&mut self, slot: Slot) {
        self.held.remove(&(slot.free_at, slot.number));
    }

    /// The upstream refused a call for its rate: nothing leaves for one window, and the guard
    /// widens.
    pub fn throttled(&mut self, now: Mono) {
        let half = self.widened.checked_div(2).unwrap_or_default();
        let wider = self.widened.saturating_add(half).saturating_add(WIDEN_STEP);
        self.widened = wider.min(WIDEN_MAX);
        self.clean = 0;
        self.close_until(now.plus(self.rate.window()).plus(self.guard_now()));
    }

    /// Nothing leaves before `at`.
    pub fn close_until(&mut self, at: Mono) {
        self.closed_until = self.closed_until.max(at);
    }

    /// The margin that is now added to the window.
    #[must_use]
    pub fn guard_now(&self) -> Duration {
        let base = match self.guard {
            Guard::Fixed(guard) => guard,
            Guard::Auto => self.round_trip.spread().min(EXCESS_MAX).saturating_add(EXCESS_MARGIN),
        };
        base.saturating_add(self.widened)
    }

    /// The time between two calls when every slot is used: the window and its guard over the slots.
    #[must_use]
    pub fn pace(&self) -> Duration {
        let cycle = self.rate.window().saturating_add(self.guard_now());
        cycle.checked_div(self.rate.calls()).unwrap_or(cycle)
    }

    /// The spacing floor. A fixed guard is part of it; a learned one shows in the slots alone.
    fn spacing(&self) -> Duration {
        let guard = match self.guard {
            Guard::Fixed(guard) => guard,
            Guard::Auto => Duration::ZERO,
        };
        let cycle = self.rate.window().saturating_add(guard).saturating_add(self.widened);
        cycle.checked_div(self.rate.calls()).unwrap_or(cycle)
    }

    /// The margin for a call of whose answer nothing is known: it may be as late as any.
    fn guard_unanswered(&self) -> Duration {
        match self.guard {
            Guard::Fixed(guard) => guard,
            Guard::Auto => EXCESS_MAX.saturating_add(EXCESS_MARGIN),
        }
    }

    fn free_after(&self, sent: Mono, guard: Duration) -> Mono {
        sent.plus(self.rate.window()).plus(guard).plus(self.widened)
    }

    /// Holds a slot until another moment, unless it is free already.
    fn keep(&mut self, slot: Slot, free_at: Mono) -> Slot {
        if self.held.remove(&(slot.free_at, slot.number)) {
            self.held.insert((free_at, slot.number));
        }
        Slot { free_at, ..slot }
    }

    fn free_due(&mut self, now: Mono) {
        while let Some((at, _)) = self.held.first().copied() {
            if at > now {
                break;
            }
            self.held.pop_first();
        }
    }
}

/// The smallest round trip of the last ten to twenty minutes, and the mean excess over it.
#[derive(Debug, Default)]
struct RoundTripMin {
    current: Option<Duration>,
    before: Option<Duration>,
    since: Mono,
    answers: u32,
    excess_mean: Duration,
}

impl RoundTripMin {
    fn learn(&mut self, round_trip: Duration, now: Mono) {
        if now.since(self.since) >= ROUND_TRIP_MIN_LIFE {
            self.before = self.current.take();
            self.since = now;
        }
        self.answers = self.answers.saturating_add(1);
        self.current = Some(self.current.map_or(round_trip, |least| least.min(round_trip)));
        let excess = round_trip.saturating_sub(self.least()).min(EXCESS_MAX);
        // exponentially weighted with 1/8, the gain of RFC 6298
        let kept =
            self.excess_mean.saturating_sub(self.excess_mean.checked_div(8).unwrap_or_default());
        self.excess_mean = kept.saturating_add(excess.checked_div(8).unwrap_or_default());
    }

    fn least(&self) -> Duration {
        if self.answers < ROUND_TRIP_MIN_ANSWERS {
            return Duration::ZERO;
        }
        match (self.current, self.before) {
            (Some(one), Some(other)) => one.min(other),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => Duration::ZERO,
        }
    }

    fn spread(&self) -> Duration {
        self.excess_mean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const W: Duration = Duration::from_secs(1);

    fn ms(ms: u64) -> Mono {
        Mono::new(Duration::from_millis(ms))
    }

    fn pacer(rate: &str, guard: Guard) -> Pacer {
        Pacer::new(rate.parse().unwrap(), guard, Mono::default())
    }

    /// Takes slots as fast as they come and returns the moments, each answered `round_trip` later.
    fn departures(pacer: &mut Pacer, count: usize, round_trip: Duration) -> Vec<Mono> {
        let mut moments = Vec::new();
        for _ in 0..count {
            let at = pacer.ready_at();
            let slot = pacer.take(at);
            let slot = pacer.sent(slot, at);
            pacer.answered(slot, at.plus(round_trip));
            moments.push(at);
        }
        moments
    }

    #[test]
    fn a_new_pacer_lets_one_window_pass() {
        assert_eq!(pacer("4", Guard::Fixed(Duration::from_millis(60))).ready_at(), ms(1_060));
    }

    #[test]
    fn no_window_with_its_guard_holds_more_calls_than_slots() {
        for (rate, guard) in [("4", 60), ("10", 0), ("0.5", 60), ("1", 25)] {
            let mut pacer = pacer(rate, Guard::Fixed(Duration::from_millis(guard)));
            let slots = usize::try_from(rate.parse::<Rate>().unwrap().calls()).unwrap();
            let span = rate.parse::<Rate>().unwrap().window() + Duration::from_millis(guard);
            let moments = departures(&mut pacer, 200, Duration::from_millis(90));
            for pair in moments.windows(slots + 1) {
                assert!(pair[slots].since(pair[0]) >= span, "{rate} {guard}: {pair:?}");
            }
            assert!(moments[199].since(moments[0]) <= span * 200 / u32::try_from(slots).unwrap());
        }
    }

    #[test]
    fn a_learned_guard_costs_only_what_round_trips_vary() {
        let mut pacer = pacer("4", Guard::Auto);
        let moments = departures(&mut pacer, 400, Duration::from_millis(300));
        let per_window = moments[399].since(moments[199]) / 50;
        assert_eq!(per_window, W + EXCESS_MARGIN);
    }

    #[test]
    fn a_grant_that_is_not_spent_keeps_its_slot() {
        let mut pacer = pacer("1", Guard::Fixed(Duration::ZERO));
        let slot = pacer.take(ms(1_000));
        assert_eq!(pacer.ready_at(), Mono::NEVER);
        let slot = pacer.sent(slot, ms(7_000));
        assert_eq!(pacer.ready_at(), ms(8_000));
        pacer.release(slot);
        assert_eq!(pacer.ready_at(), ms(2_000));
    }

    #[test]
    fn an_unanswered_call_counts_as_late_as_any() {
        let mut pacer = pacer("1", Guard::Auto);
        let slot = pacer.take(ms(2_000));
        let slot = pacer.sent(slot, ms(2_000));
        assert_eq!(pacer.ready_at(), ms(3_408));
        pacer.answered(slot, ms(2_050));
        assert_eq!(pacer.ready_at(), ms(3_058), "one answer does not tell the least round trip");
    }

    #[test]
    fn a_refusal_closes_for_a_window_and_widens_the_guard() {
        let mut pacer = pacer("4", Guard::Fixed(Duration::from_millis(60)));
        pacer.throttled(ms(5_000));
        assert_eq!(pacer.guard_now(), Duration::from_millis(70));
        assert_eq!(pacer.ready_at(), ms(6_070));
        for _ in 0..NARROW_AFTER * 2 {
            pacer.clean();
        }
        assert_eq!(pacer.guard_now(), Duration::from_millis(60));
    }

    #[test]
    fn a_pause_of_the_process_is_not_made_up_for() {
        let mut pacer = pacer("10", Guard::Fixed(Duration::ZERO));
        let before = departures(&mut pacer, 20, Duration::ZERO);
        let resumed = before[19].plus(Duration::from_millis(350));
        let slot = pacer.take(resumed);
        pacer.sent(slot, resumed);
        assert!(pacer.ready_at().since(resumed) >= Duration::from_millis(95));
    }

    #[test]
    fn a_slower_rate_holds_for_the_calls_that_left_before() {
        let mut pacer = pacer("10", Guard::Fixed(Duration::ZERO));
        let before = departures(&mut pacer, 10, Duration::ZERO);
        pacer.reconfigure("4".parse().unwrap(), Guard::Fixed(Duration::ZERO));
        let after = departures(&mut pacer, 1, Duration::ZERO);
        let within = before.iter().filter(|at| after[0].since(**at) < W).count();
        assert!(within <= 3, "{within} calls in the second before");
    }
}
