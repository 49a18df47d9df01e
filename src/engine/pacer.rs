//! When the next call of one API key may leave; `docs/scheduling.md` has the reasons and what was
//! measured.
//!
//! The upstream's window is not known: fixed second, sliding log or token bucket. A key has as many
//! slots as calls in its window; a slot is held from the grant until one window and a guard after
//! the call left, so that no window of any phase, as the upstream counts, holds more calls than
//! slots. A learned guard is the most that the call can have been late. On top comes a spacing
//! floor, so that calls do not leave in one clump. A grant that is not yet spent holds its slot
//! without end: however late its bytes leave, they are counted from then. Counting the day is the
//! budget's work, order the queue's.

mod lateness;
mod least;
mod narrowing;

use std::collections::BTreeSet;
use std::time::Duration;

use super::rate::{Guard, Rate};
use super::time::Mono;

pub use lateness::Lateness;

/// After a refusal the guard grows by half and this much.
const WIDEN_STEP: Duration = Duration::from_millis(10);
/// Most that refusals add to the guard.
const WIDEN_MAX: Duration = Duration::from_secs(1);
/// The guard narrows by this much …
const NARROW_STEP: Duration = Duration::from_millis(5);
/// … after this many answers without a refusal.
const NARROW_AFTER: u32 = 500;
/// A call that leaves this late, or half a spacing if that is less, still counts as on time, so
/// that neither timers nor slots that are free unevenly add up. The slots hold the limit all the
/// same. One that is late by a whole spacing ends a pause, which is not made up for.
const LATENESS_MAX: Duration = Duration::from_millis(50);

/// A slot that a granted call holds; what the pacer needs to know of it travels with the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    number: u64,
    sent: Option<Mono>,
    /// What it took until the upstream had acknowledged the whole request.
    acknowledged: Option<Duration>,
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
    /// Slots of a window: all of the rate, or this process's part of them.
    slots: u32,
    /// Slots that are not free, by when they will be.
    held: BTreeSet<(Mono, u64)>,
    slot_next: u64,
    spaced_from: Mono,
    closed_until: Mono,
    widened: Duration,
    clean: u32,
    lateness: Lateness,
}

impl Pacer {
    /// A pacer that has forgotten what left before `now`: it lets a whole window and the guard pass
    /// first.
    #[must_use]
    pub fn new(rate: Rate, guard: Guard, now: Mono) -> Self {
        let mut pacer = Self {
            rate,
            slots: rate.calls(),
            held: BTreeSet::new(),
            slot_next: 0,
            spaced_from: now,
            closed_until: now,
            widened: Duration::ZERO,
            clean: 0,
            lateness: Lateness::new(guard, now),
        };
        pacer.closed_until = now.plus(rate.window()).plus(pacer.lateness.unanswered());
        pacer.spaced_from = pacer.closed_until;
        pacer
    }

    /// Changes rate and guard; slots that are held stay held for as long as they were.
    pub fn reconfigure(&mut self, rate: Rate, guard: Guard) {
        if rate != self.rate {
            self.lateness.start_over();
        }
        self.rate = rate;
        self.slots = rate.calls();
        self.lateness.reconfigure(guard);
    }

    /// Uses only so many slots of a window; `None` is all.
    pub fn restrict(&mut self, slots: Option<u32>) {
        self.slots = slots.unwrap_or(self.rate.calls()).max(1);
    }

    /// The earliest moment at which a call may leave, or [`Mono::NEVER`] while every slot waits for
    /// its call to leave.
    #[must_use]
    pub fn ready_at(&self) -> Mono {
        let slots = usize::try_from(self.slots).unwrap_or(usize::MAX);
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
        let slot =
            Slot { number: self.slot_next, sent: None, acknowledged: None, free_at: Mono::NEVER };
        self.slot_next = self.slot_next.saturating_add(1);
        self.held.insert((slot.free_at, slot.number));
        let lateness = LATENESS_MAX.min(self.spacing().checked_div(2).unwrap_or_default());
        let late = now.since(self.spaced_from);
        let is_pause = late >= self.spacing();
        let from = if is_pause { now } else { self.spaced_from.max(now.minus(lateness)) };
        self.spaced_from = from.plus(self.spacing());
        slot
    }

    /// The bytes of the call leave now.
    pub fn sent(&mut self, slot: Slot, now: Mono) -> Slot {
        let free_at = self.free_after(now, self.lateness.unanswered());
        self.keep(Slot { sent: Some(now), ..slot }, free_at)
    }

    /// At `at` the upstream's transport had acknowledged the whole request.
    pub fn acknowledged(&mut self, slot: Slot, at: Mono) -> Slot {
        let (Some(sent), None) = (slot.sent, slot.acknowledged) else { return slot };
        let took = at.since(sent);
        match self.lateness.acknowledged(took, self.rate.window(), at) {
            None => slot,
            Some(guard) => {
                let slot = Slot { acknowledged: Some(took), ..slot };
                self.keep(slot, self.free_after(sent, guard))
            }
        }
    }

    /// The head of the call's answer came.
    pub fn answered(&mut self, slot: Slot, now: Mono) {
        let Some(sent) = slot.sent else { return };
        let window = self.rate.window();
        let guard = self.lateness.answered(now.since(sent), slot.acknowledged, window, now);
        if let Some(guard) = guard {
            self.keep(slot, self.free_after(sent, guard));
        }
    }

    /// The call was not refused for its rate.
    pub fn clean(&mut self) {
        self.lateness.clean();
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
        self.lateness.refused(now);
        self.close_until(now.plus(self.rate.window()).plus(self.guard_now()));
    }

    /// Nothing leaves before `at`.
    pub fn close_until(&mut self, at: Mono) {
        self.closed_until = self.closed_until.max(at);
    }

    /// The margin that is now added to the window.
    #[must_use]
    pub fn guard_now(&self) -> Duration {
        self.lateness.mean().saturating_add(self.widened)
    }

    /// What is known of the path.
    pub const fn lateness(&mut self) -> &mut Lateness {
        &mut self.lateness
    }

    /// The time between two calls when every slot is used: the window and its guard over the slots.
    #[must_use]
    pub fn pace(&self) -> Duration {
        let cycle = self.rate.window().saturating_add(self.guard_now());
        cycle.checked_div(self.slots).unwrap_or(cycle)
    }

    /// The spacing floor.
    fn spacing(&self) -> Duration {
        let guard = self.lateness.spaced();
        let cycle = self.rate.window().saturating_add(guard).saturating_add(self.widened);
        cycle.checked_div(self.slots).unwrap_or(cycle)
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

#[cfg(test)]
mod tests;
