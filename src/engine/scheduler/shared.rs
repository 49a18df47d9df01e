//! The scheduler where several instances share the slots: the store says whose turn it is.
//!
//! The queue here holds this instance's calls alone; which tenant and class is next among all
//! instances comes with the slot. Pacer and budget only look on: what is known of the path makes
//! the guard, what the store has counted is the day. Where a ticket and a slot of the pacer differ
//! is in [`Held`], and nowhere else.

use std::time::Duration;

use super::advance::DAY_TURN_PAUSE;
use super::calls::{CallId, Held, Stage};
use super::{Command, News, Now, Scheduler};
use crate::engine::budget::Stock;
use crate::engine::rate::Class;
use crate::engine::time::{Day, Mono};
use crate::engine::turnstile::{
    ALONE_LIFE, Ask, OnLoss, Report, Roll, Terms, Ticket, Told, Turn, Turnstile,
};

impl Scheduler {
    /// The same for an instance among several, which share slots and counts in their store.
    #[must_use]
    pub fn sharing(mut self, on_loss: OnLoss, now: Now) -> Self {
        self.commands.clear();
        self.turnstile = Some(Turnstile::new(on_loss, self.chance, now.mono));
        self.queue.watch();
        self.advance(now);
        self
    }

    /// The store answered a [`Command::Ask`]; `None` when it did not.
    pub fn told(&mut self, told: Option<Told>, now: Now) {
        let Some(turnstile) = &mut self.turnstile else { return };
        if let Some(told) = told {
            let (day, spent) = (told.day, told.spent);
            let window = self.limits.rate.window();
            let used = turnstile.told(told, window, self.pacer.lateness(), now.mono);
            self.budget.adopt(day, used, spent, now.mono);
        } else {
            turnstile.failed(now.mono);
        }
        self.advance(now);
    }

    /// Word came of whose turn it is.
    pub fn turn(&mut self, turn: Turn, now: Now) {
        if let Some(turnstile) = &mut self.turnstile {
            turnstile.turn(turn, now.mono);
        }
        self.advance(now);
    }

    /// The roll was read that was asked for at a moment; `None` when it could not be.
    pub fn read_roll(&mut self, roll: Option<(&Roll, Mono)>, now: Now) {
        let rate = self.limits.rate;
        if let (Some(turnstile), Some((roll, asked))) = (&mut self.turnstile, roll) {
            turnstile.read(roll, asked, rate, now.mono);
        }
        self.advance(now);
    }

    /// Begins or ends that this instance goes on by itself.
    pub(super) fn look_alone(&mut self, now: Now) {
        let (slots, window) = (self.limits.rate.calls(), self.limits.rate.window());
        let per_day = self.limits.per_day;
        let Some(turnstile) = &mut self.turnstile else { return };
        let was_alone = turnstile.alone().is_some();
        let own = turnstile.go_alone(slots, window, per_day, now.mono);
        self.pacer.restrict(own);
        if own.is_some() != was_alone {
            self.commands.push_back(Command::Tell(News::Alone { slots: own }));
        }
        let day = self.limits.day_reset.day_of(now.unix);
        if let Some(own) = own
            && turnstile.turn_day_alone(day, per_day, own, slots)
        {
            self.budget.adopt(day, 0, None, now.mono);
            self.pacer.close_until(now.mono.plus(DAY_TURN_PAUSE));
        }
    }

    /// Whether calls can be taken from the day.
    pub(super) fn stock(&self, now: Mono) -> Stock {
        let Some(turnstile) = &self.turnstile else { return self.budget.stock(now) };
        let rate = self.limits.rate;
        match (turnstile.alone(), self.budget.stock(now)) {
            (Some(true), _) | (_, Stock::Spent) => Stock::Spent,
            (Some(false), _) => Stock::InHand,
            (None, Stock::Awaited) if turnstile.refuses(rate.calls(), rate.window(), now) => {
                Stock::StoreFails
            }
            (None, stock) => stock,
        }
    }

    /// Whether this process paces by itself: it shares with nobody, or has lost those it does.
    pub(super) fn paces_itself(&self) -> bool {
        self.turnstile.as_ref().is_none_or(|turnstile| turnstile.alone().is_some())
    }

    /// Has the store count calls, unless the turnstile does.
    pub(super) fn claim(&mut self, now: Mono) {
        if self.turnstile.is_none()
            && let Some(claim) = self.budget.claim(now)
        {
            self.commands.push_back(Command::Claim(claim));
        }
    }

    /// Takes a counted call of the day.
    pub(super) fn take_of_day(&mut self, now: Mono) -> Option<Day> {
        match &mut self.turnstile {
            Some(turnstile) => turnstile.take_alone(),
            None => self.budget.take(now),
        }
    }

    pub(super) fn give_back(&mut self, day: Day, now: Mono) {
        if let Some(turnstile) = &mut self.turnstile {
            turnstile.give_back_alone(day);
            return;
        }
        let count = self.budget.give_back(day, now);
        self.uncount(day, count);
    }

    /// Whether there is a counted call to be taken, when a slot is free.
    pub(super) fn has_of_day(&self) -> bool {
        match &self.turnstile {
            Some(turnstile) => turnstile.alone() == Some(false),
            None => self.budget.has_in_hand(),
        }
    }

    /// Uses the slot that the store gave, or gives it back. `false` when there is none.
    pub(super) fn grant_shared(&mut self, now: Now) -> bool {
        let Some(turnstile) = &mut self.turnstile else { return false };
        let Some((ticket, class, tenant)) = turnstile.take() else { return false };
        let in_time = now.mono <= ticket.until && self.may_send();
        let own = self.tenants.ix(&tenant).filter(|_| in_time);
        let own = own.and_then(|ix| self.queue.pop_of(ix, class));
        if own.is_none()
            && in_time
            && let Some(turnstile) = &mut self.turnstile
        {
            turnstile.misled(class, &tenant);
        }
        // another tenant's call of the class, rather than none
        let only = Class::ALL.map(|other| other == class && in_time);
        match own.or_else(|| self.queue.pop(only)) {
            Some(id) => self.granted(id, Held::Ticket(ticket), now),
            None => self.give_up(ticket),
        }
        true
    }

    fn give_up(&mut self, ticket: Ticket) {
        if let Some(turnstile) = &mut self.turnstile {
            turnstile.returned(ticket);
        }
    }

    pub(super) fn granted(&mut self, id: CallId, held: Held, now: Now) {
        let Some(call) = self.calls.find_mut(id) else { return };
        call.stage = Stage::Granted { held };
        let (ix, arrived, deadline) = (call.tenant, call.arrived, call.deadline);
        self.in_flight = self.in_flight.saturating_add(1);
        self.deadlines.remove(&(deadline, id));
        let waited = now.mono.since(arrived);
        let ready_since = self.tenants.find(ix).map_or(Mono::default(), |t| t.ready_since);
        let for_token = ready_since.since(arrived).min(waited);
        let until = match held {
            Held::Slot { .. } if self.turnstile.is_some() => now.mono.plus(ALONE_LIFE),
            Held::Slot { .. } => Mono::NEVER,
            Held::Ticket(ticket) => ticket.until,
        };
        self.commands.push_back(Command::Grant { call: id, waited, for_token, until });
    }

    /// Whether one more call may be in flight.
    pub(super) fn may_send(&self) -> bool {
        !self.paused && self.in_flight < self.limits.in_flight_max
    }

    /// Tells the turnstile where calls wait now, and asks it what is to be asked.
    pub(super) fn ask(&mut self, now: Now) {
        let want = self.may_send();
        let Some(turnstile) = &mut self.turnstile else { return };
        for (ix, class) in self.queue.take_changed() {
            let Some(tenant) = self.tenants.find(ix) else { continue };
            let count = if self.paused { 0 } else { self.queue.free(ix, class) };
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            turnstile.set_waiting(class, &tenant.name, self.queue.weight(ix), count);
        }
        if turnstile.ask_at(want).is_none_or(|at| at > now.mono) {
            return;
        }
        let terms = self.terms();
        let turnstile = self.turnstile.as_mut();
        if let Some(ask) = turnstile.and_then(|at| at.poll_ask(want, terms, now.mono)) {
            self.commands.push_back(Command::Ask(Box::new(ask)));
        }
    }

    /// What is still to be told to the turnstile at the end.
    pub fn farewell(&mut self, now: Now) -> Option<Box<Ask>> {
        let terms = self.terms();
        self.turnstile.as_mut()?.farewell(terms, now.mono).map(Box::new)
    }

    fn terms(&mut self) -> Terms {
        let lateness = self.pacer.lateness();
        Terms {
            rate: self.limits.rate,
            calls: self.limits.rate.calls(),
            unanswered: lateness.unanswered(),
            spaced: lateness.spaced(),
            path: lateness.path(),
            per_day: self.limits.per_day,
            day_reset: self.limits.day_reset,
            reserve_percent: self.limits.reserve.percent(),
            withheld: self.foreign.withheld(),
        }
    }

    /// When something is to be asked.
    pub(super) fn ask_at(&self) -> Option<Mono> {
        self.turnstile.as_ref()?.ask_at(self.may_send())
    }

    /// Tells the turnstile of something, where there is one.
    pub(super) fn tell_turnstile(&mut self, report: Report) -> bool {
        let Some(turnstile) = &mut self.turnstile else { return false };
        turnstile.report(report);
        true
    }

    pub(super) fn held_sent(&mut self, held: Held, now: Mono) -> Held {
        match held {
            Held::Slot { slot, day } => Held::Slot { slot: self.pacer.sent(slot, now), day },
            Held::Ticket(ticket) => Held::Ticket(Ticket { sent: Some(now), ..ticket }),
        }
    }

    pub(super) fn held_acknowledged(&mut self, held: Held, at: Mono) -> Held {
        match (held, &mut self.turnstile) {
            (Held::Slot { slot, day }, _) => {
                Held::Slot { slot: self.pacer.acknowledged(slot, at), day }
            }
            (Held::Ticket(ticket), Some(turnstile)) => {
                let window = self.limits.rate.window();
                let lateness = self.pacer.lateness();
                Held::Ticket(turnstile.acknowledged(ticket, at, window, lateness))
            }
            (Held::Ticket(_), None) => held,
        }
    }

    pub(super) fn held_answered(&mut self, held: Held, now: Mono) {
        match (held, &mut self.turnstile) {
            (Held::Slot { slot, .. }, _) => self.pacer.answered(slot, now),
            (Held::Ticket(ticket), Some(turnstile)) => {
                let window = self.limits.rate.window();
                turnstile.answered(ticket, window, self.pacer.lateness(), now);
            }
            (Held::Ticket(_), None) => {}
        }
    }

    /// The call of a slot certainly did not leave.
    pub(super) fn held_released(&mut self, held: Held, now: Mono) {
        match held {
            Held::Slot { slot, day } => {
                self.pacer.release(slot);
                self.give_back(day, now);
            }
            Held::Ticket(ticket) => self.give_up(ticket),
        }
    }

    /// The call of a slot was not refused for the key's limits.
    pub(super) fn held_clean(&mut self, held: Held) {
        match held {
            Held::Slot { .. } => self.pacer.clean(),
            Held::Ticket(ticket) => {
                self.pacer.lateness().clean();
                self.tell_turnstile(Report::Clean { granted_at: ticket.granted_at });
            }
        }
    }

    /// The upstream refused a call for its rate.
    pub(super) fn throttled(&mut self, held: Held, now: Mono) {
        match held {
            Held::Slot { .. } => self.pacer.throttled(now),
            Held::Ticket(_) => {
                self.pacer.lateness().refused(now);
                let guard = self.pacer.lateness().mean();
                self.tell_turnstile(Report::Throttled { guard });
            }
        }
    }

    /// Nothing leaves before `until`, at any instance.
    pub(super) fn close_until(&mut self, until: Mono, now: Mono) {
        if !self.tell_turnstile(Report::Closed { span: until.since(now) }) {
            self.pacer.close_until(until);
        }
    }

    /// The margin that is now added to the window.
    pub(super) fn guard_now(&self) -> Duration {
        let widened = self.turnstile.as_ref().map_or(Duration::ZERO, Turnstile::widened);
        self.pacer.guard_now().saturating_add(widened)
    }

    /// How long until the next slot is free, and from slot to slot.
    pub(super) fn pace(&self, now: Mono) -> (Duration, Duration) {
        let pace = self.pacer.pace();
        if let Some(turnstile) = self.turnstile.as_ref().filter(|_| !self.paces_itself()) {
            return (turnstile.next_in(now), pace.saturating_mul(turnstile.sharers()));
        }
        let ready_at = self.pacer.ready_at();
        let first = if ready_at == Mono::NEVER {
            // all slots wait for their calls to leave, and are free a window after that
            pace.saturating_mul(self.limits.rate.calls())
        } else {
            ready_at.since(now)
        };
        (first, pace)
    }
}
