//! Slots that several instances share: this instance's side of the turnstile in their store.
//!
//! It knows where this instance's calls wait, when to ask for a slot, and what became of those that
//! were granted; one question at a time is under way. The store decides whose turn it is and gives
//! a slot just in time, to be used at once or given back: nothing is reserved ahead, so nothing is
//! lost with an instance that dies. Nobody polls: the answer, or word from the store, says when it
//! is this instance's turn, and others' timers are only there for those that do not come.

mod alone;
mod line;
mod loss;
mod roll;
mod terms;

use std::time::Duration;

use super::chance::Chance;
use super::ids::TenantName;
use super::pacer::Lateness;
use super::rate::Class;
use super::time::Mono;

pub use loss::{ALONE_AFTER, ALONE_LIFE, BACK_FOR, BEAT_EVERY, OnLoss, SILENT_AFTER};
pub use roll::{Away, Member, Part, Roll};
pub use terms::{
    Ask, Beat, ByItself, Memory, Place, Report, Stamp, Terms, Ticket, Told, Turn, Whose,
};

use alone::Allowance;
use line::Line;
use roll::Standing;

/// A slot is used at least this soon after it was asked for, or given back; longer where the store
/// answers slowly.
const LIFE_MIN: Duration = Duration::from_millis(50);
/// The longest life: a store that answers more slowly gives no slots that can be used.
const LIFE_MAX: Duration = Duration::from_millis(450);
/// So many of the last questions tell what one takes.
const TRIPS: usize = 8;
/// The least time that an instance may be late for its turn: a busy machine's timers.
const GRACE_MIN: Duration = Duration::from_millis(30);
/// Without word of a turn, those who wait ask this often: word may have been lost.
const POLL_WAITING: Duration = Duration::from_millis(500);
/// How often an instance with nothing waiting asks, so that it knows of the day and the refusals.
const POLL_IDLE: Duration = Duration::from_secs(5);
/// First and longest wait after the store failed to answer. Short: when it is back, calls go on
/// within a second and the window that must pass.
const RETRY_MIN: Duration = Duration::from_millis(25);
const RETRY_MAX: Duration = Duration::from_millis(50);
/// Reports that are told at once.
const REPORTS_MAX: usize = 500;

/// This instance's side.
#[derive(Debug)]
pub struct Turnstile {
    line: Line,
    reports: Vec<Report>,
    /// Those of a question that failed, with the number of the one that told them first.
    again: Vec<(u64, Report)>,
    /// The number of the last question.
    number: u64,
    /// The question under way: since when, and its reports, should it fail.
    asked: Option<(Mono, Vec<(u64, Report)>)>,
    /// When to ask for this instance's turn, or another's that may have been missed.
    turn_at: Mono,
    /// When to ask because nothing was heard for long.
    poll_at: Mono,
    /// A slot that was granted and not yet taken.
    in_hand: Option<(Ticket, Class, TenantName)>,
    /// The life that was promised with the question under way.
    life: Duration,
    /// What the last questions took. The least counts: a server that stood still for a moment is
    /// not far away.
    trips: [Duration; TRIPS],
    trip_next: usize,
    memory: Memory,
    /// Since when the store knows who waits.
    begun: Option<Stamp>,
    refused: u64,
    widened: Duration,
    sharers: u32,
    /// When the store last answered, by both clocks.
    heard_at: Option<(Mono, Stamp)>,
    failures: u32,
    retry_at: Mono,
    on_loss: OnLoss,
    chance: Chance,
    standing: Standing,
    /// Calls of the day that are left to instances that are away, and for how many slots.
    kept: (u64, u32),
    /// This instance goes on by itself.
    alone: Option<Allowance>,
}

impl Turnstile {
    /// One that has asked nothing yet.
    #[must_use]
    pub fn new(on_loss: OnLoss, chance: Chance, now: Mono) -> Self {
        Self {
            line: Line::default(),
            reports: Vec::new(),
            again: Vec::new(),
            number: 0,
            asked: None,
            turn_at: Mono::NEVER,
            poll_at: now,
            in_hand: None,
            life: LIFE_MIN,
            trips: [Duration::ZERO; TRIPS],
            trip_next: 0,
            memory: Memory::default(),
            begun: None,
            refused: 0,
            widened: Duration::ZERO,
            sharers: 1,
            heard_at: None,
            failures: 0,
            retry_at: now,
            on_loss,
            chance,
            standing: Standing::default(),
            kept: (0, 0),
            alone: None,
        }
    }

    /// So many calls of a tenant and class wait now.
    pub fn set_waiting(&mut self, class: Class, tenant: &TenantName, weight: u32, count: u32) {
        self.line.set(class, tenant, weight, count);
    }

    /// The question to be asked now, if any. `want` says whether a slot could be used.
    pub fn poll_ask(&mut self, want: bool, terms: Terms, now: Mono) -> Option<Ask> {
        let is_due = self.ask_at(want).is_some_and(|at| at <= now);
        is_due.then(|| self.compose(want && self.knows_others(now), terms, now))
    }

    /// What is still to be told when no more calls are served, if anything.
    pub fn farewell(&mut self, terms: Terms, now: Mono) -> Option<Ask> {
        self.end_alone();
        if let Some((_, reports)) = &self.asked {
            // its answer may never come
            self.again.clone_from(reports);
        }
        self.is_urgent().then(|| self.compose(false, terms, now))
    }

    fn compose(&mut self, want: bool, terms: Terms, now: Mono) -> Ask {
        let (calls, kept) = self.left_to_others(&terms, now);
        let terms = Terms { calls, withheld: terms.withheld.saturating_add(kept), ..terms };
        let again = std::mem::take(&mut self.again);
        let room = REPORTS_MAX.saturating_sub(again.len());
        let rest = self.reports.split_off(self.reports.len().min(room));
        let reports = std::mem::replace(&mut self.reports, rest);
        // above those of one that this instance had for the key before it was reconfigured
        let since_start = u64::try_from(now.since_start().as_micros()).unwrap_or(0);
        self.number = self.number.saturating_add(1).max(since_start);
        let new = reports.iter().map(|report| (self.number, *report));
        self.asked = Some((now, again.iter().copied().chain(new).collect()));
        let (line, anew) = self.line.tell();
        self.life = LIFE_MIN.saturating_add(self.trip().saturating_mul(2)).min(LIFE_MAX);
        self.turn_at = Mono::NEVER;
        Ask {
            wanted_until: (want && !self.line.is_empty())
                .then(|| self.stamp_of(now.plus(self.life))),
            terms,
            life: self.life,
            grace: self.grace(),
            line,
            anew,
            known: self.line.known(),
            number: self.number,
            reports,
            again,
            memory: self.memory,
        }
    }

    /// When the next question is due, if none is under way.
    #[must_use]
    pub fn ask_at(&self, want: bool) -> Option<Mono> {
        if self.asked.is_some() {
            return None;
        }
        let due = if self.is_urgent() { Mono::default() } else { self.poll_at };
        let due = if want && !self.line.is_empty() { due.min(self.turn_at) } else { due };
        Some(due.max(self.retry_at))
    }

    fn is_urgent(&self) -> bool {
        self.line.is_urgent() || !self.reports.is_empty() || !self.again.is_empty()
    }

    /// How late another instance may be before its turn is taken. A busy server makes all late, so
    /// what a question mostly takes counts: those who ask too soon keep it busy.
    fn grace(&self) -> Duration {
        let mut trips = self.trips;
        trips.sort_unstable();
        let median = trips.get(TRIPS / 2).copied().unwrap_or_default();
        median.saturating_mul(2).saturating_add(GRACE_MIN)
    }

    /// The answer came.
    pub fn told(&mut self, told: Told, window: Duration, lateness: &mut Lateness, now: Mono) {
        let Some((asked, _)) = self.asked.take() else { return };
        self.learn_trip(now.since(asked));
        if told.at > self.stamp_of(now.plus(LIFE_MIN)) {
            // the store's clock was set forward: by it slots are free that are not
            let span = window.saturating_add(lateness.unanswered()).saturating_add(self.life);
            self.reports.push(Report::Closed { span });
        }
        (self.failures, self.retry_at, self.heard_at) = (0, now, Some((now, told.at)));
        if told.refused > self.refused && self.refused > 0 {
            lateness.refused(now);
        }
        self.refused = told.refused;
        self.widened = told.widened;
        self.sharers = told.sharers.max(1);
        let Told { ticket, day, used, begun, .. } = told;
        self.memory = Memory { ticket, day, used, begun };
        let begun = self.begun.replace(told.begun);
        if told.forgotten || begun.is_some_and(|begun| begun != told.begun) {
            self.line.forget();
        }
        if let Some((class, tenant)) = told.granted {
            self.line.granted(class, &tenant);
            let ticket = Ticket {
                number: told.ticket,
                granted_at: told.at,
                day: told.day,
                asked,
                until: asked.plus(self.life),
                sent: None,
                acknowledged: None,
            };
            if now <= ticket.until {
                self.in_hand = Some((ticket, class, tenant));
            } else {
                self.returned(ticket);
            }
        }
        let poll = if self.line.is_empty() { POLL_IDLE } else { POLL_WAITING };
        self.poll_at = now.plus(poll);
        match told.next {
            Some(next) => self.turn(next, now),
            // nobody's turn is known: it may be when what is closed opens
            None if !told.closed.is_zero() => self.turn_at = now.plus(told.closed),
            None => {}
        }
        // what is left to others is free then
        let end = self.standing.next_end().filter(|end| *end > now);
        self.turn_at = end.map_or(self.turn_at, |end| end.min(self.turn_at));
    }

    /// Word came from the store of whose turn it is.
    pub fn turn(&mut self, turn: Turn, now: Mono) {
        // it takes as long to ask as it took to hear
        let due = now.plus(turn.due.saturating_sub(self.trip().saturating_sub(GRACE_MIN)));
        match turn.whose {
            Whose::Mine => self.turn_at = due,
            Whose::Another => {
                // of many who would take a turn that is missed, one should be well before the rest
                let grace = self.grace();
                let spread = grace.saturating_mul(self.sharers.saturating_sub(2));
                self.turn_at = due.plus(grace).plus(self.chance.part_of(spread));
            }
            Whose::All => self.poll_at = now,
        }
    }

    /// The store did not answer; whether it did what it was asked is not known.
    pub fn failed(&mut self, now: Mono) {
        let Some((_, reports)) = self.asked.take() else { return };
        self.again = reports;
        self.line.forget();
        let wait = RETRY_MIN.saturating_mul(1_u32 << self.failures.min(8)).min(RETRY_MAX);
        self.failures = self.failures.saturating_add(1);
        self.retry_at = now.plus(wait);
        self.poll_at = self.retry_at;
    }

    /// Takes the slot that was granted, if there is one.
    pub fn take(&mut self) -> Option<(Ticket, Class, TenantName)> {
        self.in_hand.take()
    }

    /// The slot was for a tenant that has no call waiting here.
    pub fn misled(&mut self, class: Class, tenant: &TenantName) {
        self.line.misled(class, tenant);
    }

    /// The upstream's transport had the whole call at `at`.
    pub fn acknowledged(
        &mut self,
        ticket: Ticket,
        at: Mono,
        window: Duration,
        lateness: &mut Lateness,
    ) -> Ticket {
        let (Some(sent), None) = (ticket.sent, ticket.acknowledged) else { return ticket };
        let took = at.since(sent);
        let Some(guard) = lateness.acknowledged(took, window, at) else { return ticket };
        self.held(ticket, sent, window.saturating_add(guard));
        Ticket { acknowledged: Some(took), ..ticket }
    }

    /// The head of the answer came.
    pub fn answered(
        &mut self,
        ticket: Ticket,
        window: Duration,
        lateness: &mut Lateness,
        now: Mono,
    ) {
        let Some(sent) = ticket.sent else { return };
        let took = now.since(sent);
        if let Some(guard) = lateness.answered(took, ticket.acknowledged, window, now) {
            self.held(ticket, sent, window.saturating_add(guard));
        }
    }

    /// The slot is held for `span` from when its call left. That was at most so long after the
    /// grant as after the question.
    fn held(&mut self, ticket: Ticket, sent: Mono, span: Duration) {
        let hold = sent.since(ticket.asked).saturating_add(span);
        let Ticket { number, granted_at, .. } = ticket;
        self.reports.push(Report::Held { ticket: number, granted_at, hold });
    }

    /// The call certainly did not leave.
    pub fn returned(&mut self, ticket: Ticket) {
        self.reports.push(Report::Returned { ticket: ticket.number, day: ticket.day });
    }

    /// Tells of something else.
    pub fn report(&mut self, report: Report) {
        self.reports.push(report);
    }

    /// How long the store has not answered; `None` while it does.
    fn silent_for(&self, now: Mono) -> Option<Duration> {
        (self.failures > 0).then(|| now.since(self.heard_at.map_or(Mono::default(), |(at, _)| at)))
    }

    /// What refusals add to the margin, for all instances.
    #[must_use]
    pub const fn widened(&self) -> Duration {
        self.widened
    }

    /// Instances at which calls wait.
    #[must_use]
    pub const fn sharers(&self) -> u32 {
        self.sharers
    }

    /// How long until the next slot may be given, as far as is known.
    #[must_use]
    pub fn next_in(&self, now: Mono) -> Duration {
        if self.turn_at == Mono::NEVER { Duration::ZERO } else { self.turn_at.since(now) }
    }

    /// What the store's clock shows then, as far as is known.
    fn stamp_of(&self, at: Mono) -> Stamp {
        self.heard_at.map_or(Stamp::NEVER, |(heard_at, stamp)| stamp.plus(at.since(heard_at)))
    }

    fn trip(&self) -> Duration {
        self.trips.into_iter().min().unwrap_or_default()
    }

    fn learn_trip(&mut self, took: Duration) {
        if self.heard_at.is_none() {
            self.trips = [took; TRIPS];
        }
        if let Some(trip) = self.trips.get_mut(self.trip_next) {
            *trip = took;
        }
        self.trip_next = self.trip_next.saturating_add(1).checked_rem(TRIPS).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests;
