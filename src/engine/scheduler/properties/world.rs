//! The world around a scheduler, and the model that checks it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::{Arrival, CallId, Command, Entry, Limits, Readiness, Scheduler};
use crate::engine::TenantName;
use crate::engine::budget::{Claim, Claimed, Stock};
use crate::engine::day::{Reserve, reopening_pause};
use crate::engine::outcome::{Health, Outcome};
use crate::engine::rate::{Class, Guard};
use crate::engine::time::{Day, DayReset, Mono, Now, Unix};

pub(super) const TENANTS: usize = 4;
const GUARD: Duration = Duration::from_millis(60);
const WINDOW: Duration = Duration::from_secs(1);
const NOON: u64 = 20_000 * 86_400 + 43_200;

#[derive(Clone, Copy, Debug)]
pub(super) enum How {
    Back,
    Unprepared,
    Again,
}

#[derive(Clone, Debug)]
pub(super) enum Event {
    Arrive {
        tenant: usize,
        class: Class,
        how: How,
        wait: u64,
    },
    Leave(usize),
    Prepared(usize),
    Send(usize),
    End(usize, Outcome),
    /// The oldest claim is answered, or fails.
    Claimed(bool),
    Pause(bool),
    /// A tenant's state; `None` removes it.
    Tenant(usize, Option<Readiness>, bool, u32),
    TokenRefused(usize),
    Reload(&'static str),
    /// The wall clock moves by seconds.
    Step(i64),
    Pass(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Preparing,
    Waiting,
    Granted,
    InFlight,
}

#[derive(Clone, Copy, Debug)]
struct Call {
    tenant: usize,
    class: Class,
    order: u64,
    deadline: Mono,
    stage: Stage,
    /// What the limit was at its grant.
    slots: usize,
}

/// A slot as the log has it.
#[derive(Clone, Copy, Debug)]
struct Departure {
    call: CallId,
    at: Mono,
    free_at: Mono,
    /// The limit at its grant or when it left, whichever was higher.
    slots: usize,
}

pub(super) struct World {
    scheduler: Scheduler,
    limits: Limits,
    now: Now,
    next: u64,
    calls: BTreeMap<CallId, Call>,
    /// First tries that were sent and ended, with tenant and class: they may be sent again.
    ended: Vec<(CallId, usize, Class)>,
    log: Vec<Departure>,
    /// What refusals added to the guard.
    widened: Duration,
    clean: u32,
    closed_until: Mono,
    /// One spacing after the last grant, as the limit was then.
    spaced_until: Mono,
    /// Whether each tenant's calls may go.
    open: [bool; TENANTS],
    paused: bool,
    claims: Vec<Claim>,
    store_day: Day,
    in_store: u64,
    /// Of all days.
    counted: u64,
    departed: u64,
    /// The latest day that the wall clock showed.
    day: Day,
    left_today: u64,
}

fn name(n: usize) -> TenantName {
    TenantName::new(&format!("tenant-{n}")).unwrap()
}

impl World {
    pub(super) fn new(per_day: u64, in_flight_max: usize) -> Self {
        let now = Now { mono: Mono::default(), unix: Unix::from_secs(NOON) };
        let limits = Limits {
            rate: "4".parse().unwrap(),
            guard: Guard::Fixed(GUARD),
            per_day,
            day_reset: DayReset::default(),
            reserve: Reserve::from_percent(10).unwrap(),
            in_flight_max,
            capacity: 200,
            capacity_per_tenant: 100,
        };
        let mut world = Self {
            scheduler: Scheduler::new(limits, now),
            limits,
            now,
            next: 1,
            calls: BTreeMap::new(),
            ended: Vec::new(),
            log: Vec::new(),
            widened: Duration::ZERO,
            clean: 0,
            closed_until: now.mono.plus(WINDOW + GUARD),
            spaced_until: now.mono,
            open: [true; TENANTS],
            paused: false,
            claims: Vec::new(),
            store_day: Day::default(),
            in_store: 0,
            counted: 0,
            departed: 0,
            day: limits.day_reset.day_of(now.unix),
            left_today: 0,
        };
        for n in 0..TENANTS {
            world.apply(Event::Tenant(n, Some(Readiness::Ready), false, 1));
        }
        world.answer_claims();
        world
    }

    fn slots(&self) -> usize {
        usize::try_from(self.limits.rate.calls()).unwrap()
    }

    fn nth(&self, at: usize, stages: &[Stage]) -> Option<CallId> {
        let mut of = self.calls.iter().filter(|(_, call)| stages.contains(&call.stage));
        let count = of.clone().count();
        of.nth(at.checked_rem(count)?).map(|(id, _)| *id)
    }

    pub(super) fn apply(&mut self, event: Event) {
        match event {
            Event::Arrive { tenant, class, how, wait } => self.arrive(tenant, class, how, wait),
            Event::Leave(at) => {
                let any = [Stage::Preparing, Stage::Waiting, Stage::Granted, Stage::InFlight];
                let Some(id) = self.nth(at, &any) else { return };
                self.calls.remove(&id);
                self.scheduler.cancel(id, self.now);
            }
            Event::Prepared(at) => {
                let Some(id) = self.nth(at, &[Stage::Preparing]) else { return };
                self.calls.get_mut(&id).unwrap().stage = Stage::Waiting;
                self.scheduler.prepared(id, self.now);
            }
            Event::Send(at) => self.send(at),
            Event::End(at, outcome) => self.end(at, outcome),
            Event::Claimed(good) => {
                if !self.claims.is_empty() {
                    let claim = self.claims.remove(0);
                    self.claimed(claim, good);
                }
            }
            Event::Pause(paused) => {
                self.paused = paused;
                if paused { self.scheduler.pause() } else { self.scheduler.resume(self.now) }
            }
            Event::Tenant(n, None, ..) => {
                self.open[n] = false;
                self.scheduler.remove_tenant(&name(n), self.now);
            }
            Event::Tenant(n, Some(readiness), paused, weight) => {
                self.open[n] = readiness == Readiness::Ready && !paused;
                self.scheduler.set_tenant(&name(n), &readiness, paused, weight, self.now);
            }
            Event::TokenRefused(n) => {
                self.open[n] = false;
                self.scheduler.token_refused(&name(n), self.now);
            }
            Event::Reload(rate) => {
                self.limits.rate = rate.parse().unwrap();
                self.scheduler.reconfigure(self.limits, self.now);
            }
            Event::Step(secs) => {
                let span = Duration::from_secs(secs.unsigned_abs());
                let unix = self.now.unix;
                self.now.unix = if secs < 0 { unix.minus(span) } else { unix.plus(span) };
                self.turn_day();
                self.scheduler.handle_timeout(self.now);
            }
            Event::Pass(ms) => self.pass(Duration::from_millis(ms)),
        }
        self.collect();
        self.check();
    }

    fn arrive(&mut self, tenant: usize, class: Class, how: How, wait: u64) {
        let (entry, tenant, class, order) = match how {
            How::Back => (Entry::Back, tenant, class, self.next),
            How::Unprepared => (Entry::WhenPrepared, tenant, class, self.next),
            How::Again => match self.ended.pop() {
                Some((first, tenant, class)) => {
                    (Entry::Again { first }, tenant, class, first.number())
                }
                None => return,
            },
        };
        let id = CallId::new(self.next);
        self.next += 1;
        let deadline = self.now.mono.plus(Duration::from_millis(wait));
        let arrival = Arrival { tenant: name(tenant), class, deadline, entry };
        let unprepared = entry == Entry::WhenPrepared;
        let stage = if unprepared { Stage::Preparing } else { Stage::Waiting };
        if self.scheduler.enqueue(id, &arrival, self.now).is_ok() {
            self.calls.insert(id, Call { tenant, class, order, deadline, stage, slots: 0 });
        }
    }

    fn send(&mut self, at: usize) {
        let Some(id) = self.nth(at, &[Stage::Granted]) else { return };
        let call = self.calls.get_mut(&id).unwrap();
        call.stage = Stage::InFlight;
        let slots = call.slots.max(self.slots());
        let at = self.now.mono;
        let window: Vec<_> = self.log.iter().filter(|left| at.since(left.at) <= WINDOW).collect();
        // a reload holds for calls that are granted after it
        let most = window.iter().map(|left| left.slots).fold(slots, usize::max);
        let within = window.len();
        let free_at = at.plus(WINDOW + GUARD + self.widened);
        assert!(within < most, "{} calls within one window", within + 1);
        self.log.push(Departure { call: id, at, free_at, slots });
        self.departed += 1;
        self.left_today += 1;
        assert!(self.left_today <= self.limits.per_day, "more calls than the day has");
        self.scheduler.sent(id, self.now);
    }

    fn end(&mut self, at: usize, outcome: Outcome) {
        let Some(id) = self.nth(at, &[Stage::InFlight]) else { return };
        let call = self.calls.remove(&id).unwrap();
        if call.order == id.number() {
            self.ended.push((id, call.tenant, call.class));
        }
        match outcome {
            Outcome::NotSent => {
                self.log.retain(|left| left.call != id);
                self.departed -= 1;
                self.left_today = self.left_today.saturating_sub(1);
            }
            Outcome::Throttled => {
                let wider = self.widened + self.widened / 2 + Duration::from_millis(10);
                self.widened = wider.min(Duration::from_secs(1));
                self.clean = 0;
                self.close(WINDOW + GUARD + self.widened);
            }
            Outcome::Answered(_) | Outcome::Capped => {
                self.clean += 1;
                assert!(self.clean < 500, "the model does not narrow");
            }
            Outcome::QuotaExceeded | Outcome::Lost | Outcome::Edge => {}
        }
        self.scheduler.settle(id, outcome, self.now);
        self.closed_until = self.closed_until.max(self.scheduler.edge.until());
    }

    fn close(&mut self, span: Duration) {
        self.closed_until = self.closed_until.max(self.now.mono.plus(span));
    }

    fn turn_day(&mut self) {
        let day = self.limits.day_reset.day_of(self.now.unix);
        if day > self.day {
            (self.day, self.left_today) = (day, 0);
            let pause = self.scheduler.budget.refused_at().map(reopening_pause).unwrap_or_default();
            self.close(pause.max(Duration::from_secs(2)));
        }
    }

    fn claimed(&mut self, claim: Claim, good: bool) {
        if claim.day > self.store_day {
            (self.store_day, self.in_store) = (claim.day, 0);
        }
        let answer = good.then(|| {
            let left = claim.limit.saturating_sub(self.in_store);
            let granted = claim.want.min(u32::try_from(left).unwrap_or(u32::MAX));
            self.in_store += u64::from(granted);
            self.counted += u64::from(granted);
            Claimed { day: self.store_day, granted, total: self.in_store }
        });
        self.scheduler.claimed(claim.day, answer, self.now);
    }

    fn answer_claims(&mut self) {
        self.collect();
        while !self.claims.is_empty() {
            self.apply(Event::Claimed(true));
        }
    }

    /// Time passes; the scheduler is woken when it asked to be, and at no other time.
    fn pass(&mut self, span: Duration) {
        let end = self.now.mono.plus(span);
        let mut turns = 0;
        while let Some(at) = self.scheduler.poll_timeout().filter(|at| *at <= end) {
            turns += 1;
            assert!(turns < 2_000, "the machine spins");
            self.move_to(at);
            self.scheduler.handle_timeout(self.now);
            self.collect();
            self.check();
        }
        self.move_to(end);
    }

    fn move_to(&mut self, mono: Mono) {
        let span = mono.since(self.now.mono);
        self.now = Now { mono: self.now.mono.max(mono), unix: self.now.unix.plus(span) };
        self.turn_day();
    }

    fn collect(&mut self) {
        while let Some(command) = self.scheduler.poll_command() {
            match command {
                Command::Grant { call, .. } => self.granted(call),
                Command::Refuse { call, why } => {
                    let known = self.calls.remove(&call);
                    let stage = known.map(|call| call.stage);
                    let waits = matches!(stage, Some(Stage::Preparing | Stage::Waiting));
                    assert!(waits, "{call:?} refused ({why:?}) when {stage:?}");
                }
                Command::Claim(claim) => self.claims.push(claim),
                Command::Ask(ask) => panic!("nobody shares: {ask:?}"),
                Command::Tell(_) => {}
                Command::Release { day, count } => {
                    self.counted -= u64::from(count);
                    if day == self.store_day {
                        self.in_store -= u64::from(count);
                    }
                }
                Command::Demand { tenant, .. } => {
                    let n = (0..TENANTS).find(|n| name(*n) == tenant).unwrap();
                    let waits = self.calls.values().any(|call| call.tenant == n);
                    assert!(waits || !self.open[n], "a token for nobody");
                }
            }
        }
    }

    /// What is granted leaves at once and is answered, for a while.
    pub(super) fn serve(&mut self, span: Duration) {
        let end = self.now.mono.plus(span);
        loop {
            while self.unsent() > 0 {
                self.apply(Event::Send(0));
                self.answer_claims();
                self.apply(Event::End(0, Outcome::Answered(Health::Good)));
            }
            self.answer_claims();
            if self.unsent() > 0 {
                continue;
            }
            let Some(at) = self.scheduler.poll_timeout().filter(|at| *at <= end) else { break };
            self.apply(Event::Pass(0));
            let wait = at.since(self.now.mono);
            self.pass(wait);
        }
        self.pass(end.since(self.now.mono));
    }
}

mod checks;
mod endings;
