//! The turnstile of one API key, as `src/store/redis/turnstile.lua` keeps it on a server: the log
//! of held slots, the spacing floor, and the instances in turn. One class and one tenant, since who
//! is next among those costs the server the same.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use ctct_proxy::engine::turnstile::{Ask, Report, Stamp, Told, Turn, Whose};
use ctct_proxy::engine::{Class, Day, TenantName};

/// A call that comes so late does not move the schedule.
const LATENESS_MAX: u64 = 50_000;
/// A turn that moved by less is not told of.
const MOVED_MIN: u64 = 1_000;

/// Which of the instances.
pub(crate) type Instance = usize;
/// Whose turn is next, and when.
pub(crate) type Next = (Instance, Duration);

pub(crate) struct Desk {
    tenant: TenantName,
    begun: u64,
    ticket: u64,
    /// When the slots of tickets are free.
    slots: BTreeMap<u64, u64>,
    spaced: u64,
    list: VecDeque<Instance>,
    waits: BTreeMap<Instance, u32>,
    turn: Option<Instance>,
    turn_at: u64,
    late: BTreeSet<Instance>,
    missing: BTreeSet<Instance>,
}

impl Desk {
    pub(crate) fn new(tenant: TenantName, now: u64) -> Self {
        Self {
            tenant,
            begun: now,
            ticket: 0,
            slots: BTreeMap::new(),
            spaced: now,
            list: VecDeque::new(),
            waits: BTreeMap::new(),
            turn: None,
            turn_at: 0,
            late: BTreeSet::new(),
            missing: BTreeSet::new(),
        }
    }

    /// Answers a question that the server came to at `now`, in microseconds.
    pub(crate) fn ask(&mut self, me: Instance, ask: &Ask, now: u64) -> (Told, Option<Next>) {
        self.slots.retain(|_, free_at| *free_at > now);
        let again = ask.again.iter().map(|(_, report)| report);
        for report in again.chain(&ask.reports) {
            self.report(*report);
        }
        let forgotten = self.missing.remove(&me) && !ask.anew;
        self.late.remove(&me);
        for place in &ask.line {
            self.set_waiting(me, place.count);
        }
        let wants = ask.wanted_until.is_some_and(|until| now <= until.0);
        let granted = wants && self.grant(me, ask, now);
        let (next, is_told) = self.next(me, ask, granted, now);
        let told = Told {
            at: Stamp(now),
            begun: Stamp(self.begun),
            ticket: self.ticket,
            granted: granted.then(|| (Class::Normal, self.tenant.clone())),
            day: Day::new(20_000),
            used: self.ticket,
            spent: None,
            closed: Duration::ZERO,
            widened: Duration::ZERO,
            refused: 0,
            next: next.map(|(whose, due)| Turn {
                whose: if whose == me { Whose::Mine } else { Whose::Another },
                due,
            }),
            forgotten,
            sharers: u32::try_from(self.waits.len()).expect("few"),
        };
        (told, next.filter(|_| is_told))
    }

    fn report(&mut self, report: Report) {
        match report {
            Report::Held { ticket, granted_at, hold } => {
                if let Some(free_at) = self.slots.get_mut(&ticket) {
                    *free_at = granted_at.0 + micros(hold);
                }
            }
            Report::Returned { ticket, .. } => drop(self.slots.remove(&ticket)),
            Report::Clean { .. } => {}
            Report::Throttled { .. }
            | Report::Closed { .. }
            | Report::Spent { .. }
            | Report::Used { .. } => panic!("nobody is refused here: {report:?}"),
        }
    }

    fn set_waiting(&mut self, me: Instance, count: u32) {
        if count == 0 {
            self.waits.remove(&me);
            self.list.retain(|instance| *instance != me);
        } else if self.waits.insert(me, count).is_none() {
            self.list.push_back(me);
        }
    }

    fn ready_at(&self, ask: &Ask) -> u64 {
        let calls = usize::try_from(ask.terms.calls).expect("few");
        let mut free: Vec<u64> = self.slots.values().copied().collect();
        free.sort_unstable();
        let of_log = free.len().checked_sub(calls).map_or(0, |at| free[at]);
        of_log.max(self.spaced)
    }

    /// Gives the asker a slot if it is its turn, or has become it because others did not come.
    fn grant(&mut self, me: Instance, ask: &Ask, now: u64) -> bool {
        while self.ready_at(ask) <= now {
            let Some(first) = self.list.front().copied() else { return false };
            if first == me {
                self.take(me, ask, now);
                return true;
            }
            if self.turn != Some(first) || now < self.turn_at + micros(ask.grace) {
                return false;
            }
            self.miss(first);
        }
        false
    }

    fn take(&mut self, me: Instance, ask: &Ask, now: u64) {
        let window = micros(ask.terms.rate.window());
        self.ticket += 1;
        let held = window + micros(ask.terms.unanswered) + micros(ask.life);
        self.slots.insert(self.ticket, now + held);
        let spacing = (window + micros(ask.terms.spaced)) / u64::from(ask.terms.calls);
        let is_late = now.saturating_sub(self.spaced) >= spacing;
        let from = if is_late { now } else { self.spaced.max(now - LATENESS_MAX.min(spacing / 2)) };
        self.spaced = from + spacing;
        self.list.pop_front();
        let left = self.waits.get_mut(&me).expect("it waits");
        *left -= 1;
        if *left > 0 {
            self.list.push_back(me);
        } else {
            self.waits.remove(&me);
        }
    }

    /// It was called and did not come.
    fn miss(&mut self, instance: Instance) {
        self.list.pop_front();
        if self.late.remove(&instance) || self.list.is_empty() {
            self.missing.insert(instance);
            self.waits.remove(&instance);
        } else {
            self.late.insert(instance);
            self.list.insert(1, instance);
        }
    }

    /// Whose turn is next and when, and whether word of it goes out to all instances.
    fn next(&mut self, me: Instance, ask: &Ask, granted: bool, now: u64) -> (Option<Next>, bool) {
        let Some(whose) = self.list.front().copied() else {
            self.turn = None;
            return (None, false);
        };
        let due = self.ready_at(ask).max(now);
        let is_sooner = due + MOVED_MIN < self.turn_at;
        let is_later = due > self.turn_at + MOVED_MIN && due > now;
        let is_news = granted || self.turn != Some(whose) || is_sooner || is_later;
        if is_news {
            self.turn_at = due;
        }
        self.turn = Some(whose);
        let is_told = is_news && (whose != me || self.waits.len() > 1);
        (Some((whose, Duration::from_micros(due - now))), is_told)
    }
}

pub(crate) fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).expect("short")
}
