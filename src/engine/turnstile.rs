//! Slots that several instances share: this instance's side of the turnstile in their store.
//!
//! It knows where this instance's calls wait, when to ask for a slot, and what became of those that
//! were granted; one question at a time is under way. The store decides whose turn it is and gives
//! a slot just in time, to be used at once or given back: nothing is reserved ahead, so nothing is
//! lost with an instance that dies. Nobody polls: the answer, or word from the store, says when it
//! is this instance's turn, and others' timers are only there for those that do not come.

mod alone;
mod clock;
mod keeping;
mod line;
mod loss;
mod roll;
mod terms;
mod trips;

use std::time::Duration;

use super::chance::Chance;
use super::ids::TenantName;
use super::pacer::Lateness;
use super::rate::Class;
use super::time::Mono;

pub use loss::{ALONE_AFTER, ALONE_LIFE, BACK_FOR, BEAT_EVERY, OnLoss, SILENT_AFTER};
pub use roll::{Away, Member, Part, Roll};
pub use terms::{
    Absence, Absent, Ask, Beat, ByItself, Kept, Memory, Place, Report, Stamp, Terms, Ticket, Told,
    Turn, Whose,
};

use alone::Allowance;
use clock::StoreClock;
use keeping::Keeping;
use line::Line;
use roll::Standing;
use trips::Trips;

/// A slot is used at least this soon after it was asked for, or given back; longer where the store
/// answers slowly.
const LIFE_MIN: Duration = Duration::from_millis(50);
/// The longest life: a store that answers more slowly gives no slots that can be used.
const LIFE_MAX: Duration = Duration::from_millis(450);
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
    trips: Trips,
    memory: Memory,
    /// Since when the store knows who waits.
    begun: Option<Stamp>,
    refused: u64,
    widened: Duration,
    sharers: u32,
    clock: StoreClock,
    /// Questions that were not answered since the last that was, and when the first was asked.
    failures: u32,
    failing_since: Mono,
    retry_at: Mono,
    on_loss: OnLoss,
    chance: Chance,
    standing: Standing,
    /// Calls of the day that are kept for instances that are away.
    keeping: Keeping,
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
            trips: Trips::default(),
            memory: Memory::default(),
            begun: None,
            refused: 0,
            widened: Duration::ZERO,
            sharers: 1,
            clock: StoreClock::default(),
            failures: 0,
            failing_since: now,
            retry_at: now,
            on_loss,
            chance,
            standing: Standing::default(),
            keeping: Keeping::default(),
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
        let until = self.settles_until(now);
        is_due.then(|| self.compose(want && self.knows_others(now), until, terms, now))
    }

    /// What is still to be told when no more calls are served, if anything.
    pub fn farewell(&mut self, terms: Terms, now: Mono) -> Option<Ask> {
        self.end_alone();
        if let Some((_, reports)) = &self.asked {
            // its answer may never come
            self.again.clone_from(reports);
        }
        // it is never by itself again
        let until = Some(Stamp::NEVER);
        let is_known = self.is_urgent() || self.keeping.has_to_tell();
        is_known.then(|| self.compose(false, until, terms, now))
    }

    fn compose(&mut self, want: bool, until: Option<Stamp>, terms: Terms, now: Mono) -> Ask {
        let terms = Terms { calls: self.calls_here(&terms, now), ..terms };
        let again = std::mem::take(&mut self.again);
        let room = REPORTS_MAX.saturating_sub(again.len());
        let rest = self.reports.split_off(self.reports.len().min(room));
        let mut reports = std::mem::replace(&mut self.reports, rest);
        let (knows, begun) = (self.knows_others(now), self.begun.unwrap_or_default());
        let absence = self.keeping.compose(knows, until, begun, &mut reports);
        // above those of one that this instance had for the key before it was reconfigured
        let since_start = u64::try_from(now.since_start().as_micros()).unwrap_or(0);
        self.number = self.number.saturating_add(1).max(since_start);
        let new = reports.iter().map(|report| (self.number, *report));
        self.asked = Some((now, again.iter().copied().chain(new).collect()));
        let (line, anew) = self.line.tell();
        self.life = LIFE_MIN.saturating_add(self.trips.least().saturating_mul(2)).min(LIFE_MAX);
        self.turn_at = Mono::NEVER;
        Ask {
            wanted_until: (want && !self.line.is_empty())
                .then(|| self.clock.at(now.plus(self.life))),
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
            absence,
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
        self.trips.median().saturating_mul(2).saturating_add(GRACE_MIN)
    }

    /// The answer came; the calls of its day that are used or kept.
    pub fn told(
        &mut self,
        told: Told,
        window: Duration,
        lateness: &mut Lateness,
        now: Mono,
    ) -> u64 {
        let Some((asked, _)) = self.asked.take() else { return told.used };
        let counted = told.used.saturating_add(self.keeping.told(&told, asked));
        self.trips.learn(now.since(asked));
        let begun = self.begun.replace(told.begun);
        let is_another = begun.is_some_and(|begun| begun != told.begun);
        if is_another {
            // it begins with a window of silence by itself
            self.clock.forget();
        }
        if self.clock.read(asked, now, told.at) {
            // the clock was set forward: by it slots are free that are not
            let span = window.saturating_add(lateness.unanswered()).saturating_add(self.life);
            self.reports.push(Report::Closed { span });
        }
        (self.failures, self.retry_at) = (0, now);
        if told.refused > self.refused && self.refused > 0 {
            lateness.refused(now);
        }
        self.refused = told.refused;
        self.widened = told.widened;
        self.sharers = told.sharers.max(1);
        let Told { ticket, day, used, begun, .. } = told;
        self.memory = Memory { ticket, day, used, begun };
        if told.forgotten || is_another {
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
        counted
    }

    /// Word came from the store of whose turn it is.
    pub fn turn(&mut self, turn: Turn, now: Mono) {
        // it takes as long to ask as it took to hear
        let due = now.plus(turn.due.saturating_sub(self.trips.least().saturating_sub(GRACE_MIN)));
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
        let Some((asked, reports)) = self.asked.take() else { return };
        if self.failures == 0 {
            self.failing_since = asked;
        }
        self.keeping.failed();
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

    /// How long the store has not answered questions; `None` while it does.
    fn silent_for(&self, now: Mono) -> Option<Duration> {
        (self.failures > 0).then(|| now.since(self.failing_since))
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
}

#[cfg(test)]
mod tests;
