//! The scheduler against a world of its own: a store that counts, an upstream that answers, time
//! that is a number.

mod days;
mod edges;
mod promises;
mod random;

use std::time::Duration;

use super::{Arrival, CallId, Command, Entry, Limits, News, Readiness, Refusal, Scheduler};
use crate::engine::TenantName;
use crate::engine::budget::Claimed;
use crate::engine::day::Reserve;
use crate::engine::outcome::{Health, Outcome};
use crate::engine::rate::{Class, Guard};
use crate::engine::time::{Day, DayReset, Mono, Now, Unix};
use crate::engine::turnstile::Ask;

const NOON: u64 = 20_000 * 86_400 + 43_200;
const GOOD: Outcome = Outcome::Answered(Health::Good);

struct World {
    scheduler: Scheduler,
    now: Now,
    /// Steps in a row in which no time passed.
    still: u32,
    calls: u64,
    day: Day,
    counted: u64,
    store_fails: bool,
    granted: Vec<(Mono, CallId)>,
    /// Every call that [`World::serve`] sent.
    served: Vec<(Mono, CallId)>,
    refused: Vec<(CallId, Refusal)>,
    demanded: Vec<(TenantName, Mono)>,
    forecasts: Vec<Option<Unix>>,
    news: Vec<News>,
    /// Questions to a turnstile, which a test answers.
    asks: Vec<Ask>,
}

fn limits(rate: &str) -> Limits {
    Limits {
        rate: rate.parse().unwrap(),
        guard: Guard::Fixed(Duration::from_millis(60)),
        per_day: 10_000,
        day_reset: DayReset::default(),
        reserve: Reserve::from_percent(10).unwrap(),
        in_flight_max: 64,
        capacity: 10_000,
        capacity_per_tenant: 2_000,
    }
}

fn name(text: &str) -> TenantName {
    TenantName::new(text).unwrap()
}

impl World {
    fn new(limits: Limits) -> Self {
        Self::starting_at(limits, NOON)
    }

    fn starting_at(limits: Limits, unix_secs: u64) -> Self {
        let now = Now { mono: Mono::default(), unix: Unix::from_secs(unix_secs) };
        let mut world = Self {
            scheduler: Scheduler::new(limits, now),
            now,
            still: 0,
            calls: 0,
            day: Day::default(),
            counted: 0,
            store_fails: false,
            granted: Vec::new(),
            served: Vec::new(),
            refused: Vec::new(),
            demanded: Vec::new(),
            forecasts: Vec::new(),
            news: Vec::new(),
            asks: Vec::new(),
        };
        world.settle_commands();
        world.pass(Duration::from_secs(2));
        world
    }

    fn ready(mut self, tenants: &[&str]) -> Self {
        for tenant in tenants {
            self.scheduler.set_tenant(&name(tenant), &Readiness::Ready, false, 1, self.now);
        }
        self
    }

    fn settle_commands(&mut self) {
        while let Some(command) = self.scheduler.poll_command() {
            match command {
                Command::Grant { call, .. } => self.granted.push((self.now.mono, call)),
                Command::Refuse { call, why } => self.refused.push((call, why)),
                Command::Demand { tenant, deadline } => self.demanded.push((tenant, deadline)),
                Command::Tell(News::Forecast { exhausted_at }) => self.forecasts.push(exhausted_at),
                Command::Tell(news) => self.news.push(news),
                Command::Ask(ask) => self.asks.push(*ask),
                Command::Release { count, .. } => self.counted -= u64::from(count),
                Command::Claim(claim) => {
                    if claim.day > self.day {
                        (self.day, self.counted) = (claim.day, 0);
                    }
                    let left = claim.limit.saturating_sub(self.counted);
                    let granted = claim.want.min(u32::try_from(left).unwrap_or(u32::MAX));
                    let answer = (!self.store_fails).then(|| {
                        self.counted += u64::from(granted);
                        Claimed { day: claim.day, granted, total: self.counted }
                    });
                    self.scheduler.claimed(claim.day, answer, self.now);
                }
            }
        }
    }

    fn step_to(&mut self, at: Mono) {
        self.still = if at > self.now.mono { 0 } else { self.still + 1 };
        assert!(self.still < 10_000, "it asks to be woken for nothing");
        self.now.unix = self.now.unix.plus(at.since(self.now.mono));
        self.now.mono = self.now.mono.max(at);
    }

    fn pass(&mut self, span: Duration) {
        let end = self.now.mono.plus(span);
        while let Some(at) = self.scheduler.poll_timeout().filter(|at| *at <= end) {
            self.step_to(at);
            self.scheduler.handle_timeout(self.now);
            self.settle_commands();
        }
        self.step_to(end);
        self.scheduler.handle_timeout(self.now);
        self.settle_commands();
    }

    fn call(&mut self, tenant: &str, wait_ms: u64) -> Result<CallId, Refusal> {
        self.call_of(tenant, Class::Normal, wait_ms)
    }

    fn call_of(&mut self, tenant: &str, class: Class, wait_ms: u64) -> Result<CallId, Refusal> {
        let arrival = Arrival {
            tenant: name(tenant),
            class,
            deadline: self.now.mono.plus(Duration::from_millis(wait_ms)),
            entry: Entry::Back,
        };
        self.enqueue(&arrival)
    }

    fn enqueue(&mut self, arrival: &Arrival) -> Result<CallId, Refusal> {
        let id = CallId::new(self.calls);
        self.calls += 1;
        let answer = self.scheduler.enqueue(id, arrival, self.now);
        self.settle_commands();
        answer.map(|()| id)
    }

    fn send(&mut self, call: CallId, outcome: Outcome) {
        self.scheduler.sent(call, self.now);
        self.scheduler.settle(call, outcome, self.now);
        self.settle_commands();
    }

    /// Lets time pass, sending each call as it is granted, and returns the moments.
    fn serve(&mut self, span: Duration) -> Vec<Mono> {
        let end = self.now.mono.plus(span);
        let mut moments = Vec::new();
        loop {
            for (at, call) in std::mem::take(&mut self.granted) {
                moments.push(at);
                self.served.push((at, call));
                self.send(call, GOOD);
            }
            let Some(at) = self.scheduler.poll_timeout().filter(|at| *at <= end) else { break };
            self.step_to(at);
            self.scheduler.handle_timeout(self.now);
            self.settle_commands();
        }
        self.step_to(end);
        moments
    }
}

#[test]
fn an_idle_key_lets_the_first_call_go_at_once() {
    let mut world = World::new(limits("4")).ready(&["a"]);
    let call = world.call("a", 30_000).unwrap();
    assert_eq!(world.granted, [(world.now.mono, call)]);
}

#[test]
fn a_burst_is_spaced_and_never_over_the_limit() {
    let mut world = World::new(limits("4")).ready(&["a"]);
    for _ in 0..60 {
        world.call("a", 60_000).unwrap();
    }
    let moments = world.serve(Duration::from_secs(60));
    assert_eq!(moments.len(), 60);
    for five in moments.windows(5) {
        assert!(five[4].since(five[0]) >= Duration::from_millis(1_060));
    }
    assert!(moments[59].since(moments[0]) <= Duration::from_millis(59 * 265 + 10));
}

#[test]
fn a_tenant_without_token_is_skipped_and_its_token_demanded_once() {
    let mut world = World::new(limits("4")).ready(&["b"]);
    world.scheduler.set_tenant(&name("a"), &Readiness::Waiting, false, 1, world.now);
    let waits = world.call("a", 30_000).unwrap();
    world.call("a", 30_000).unwrap();
    let goes = world.call("b", 30_000).unwrap();
    assert_eq!(world.granted.iter().map(|(_, id)| *id).collect::<Vec<_>>(), [goes]);
    assert_eq!(world.demanded.len(), 1);
    world.call("a", 10_000).unwrap();
    assert_eq!(world.demanded.len(), 2, "an earlier deadline is passed on");
    world.scheduler.set_tenant(&name("a"), &Readiness::Ready, false, 1, world.now);
    world.pass(Duration::from_millis(265));
    assert_eq!(world.granted[1].1, waits);
}

#[test]
fn a_leaver_spends_nothing_and_delays_nobody() {
    let mut world = World::new(limits("4")).ready(&["a"]);
    let calls: Vec<_> = (0..100).map(|_| world.call("a", 60_000).unwrap()).collect();
    for call in calls.iter().skip(1).step_by(2) {
        world.scheduler.cancel(*call, world.now);
    }
    let moments = world.serve(Duration::from_secs(60));
    assert_eq!(moments.len(), 50);
    assert!(moments[49].since(moments[0]) <= Duration::from_millis(49 * 265 + 10));
    assert_eq!(world.scheduler.snapshot(world.now).day_used, 50);
}

#[test]
fn a_grant_that_is_dropped_is_not_counted() {
    let mut world = World::new(limits("1")).ready(&["a"]);
    let call = world.call("a", 30_000).unwrap();
    world.scheduler.cancel(call, world.now);
    let snapshot = world.scheduler.snapshot(world.now);
    assert_eq!((snapshot.day_used, snapshot.in_flight), (0, 0));
}

#[test]
fn a_hopeless_wait_is_refused_at_once() {
    let mut world = World::new(limits("4")).ready(&["a", "b"]);
    for _ in 0..40 {
        world.call("a", 60_000).unwrap();
    }
    assert!(matches!(world.call("a", 1_000), Err(Refusal::WaitTooLong { .. })));
    assert!(world.call("b", 1_000).is_ok(), "another tenant has its own turn");
}

#[test]
fn full_queues_refuse() {
    let small = Limits { capacity: 3, capacity_per_tenant: 2, ..limits("4") };
    let mut world = World::new(small).ready(&["a", "b", "c"]);
    let first = world.call("c", 30_000).unwrap();
    world.send(first, GOOD);
    world.granted.clear();
    world.call("a", 30_000).unwrap();
    world.call("a", 30_000).unwrap();
    assert!(matches!(world.call("a", 30_000), Err(Refusal::TenantQueueFull { .. })));
    world.call("b", 30_000).unwrap();
    assert!(matches!(world.call("b", 30_000), Err(Refusal::QueueFull { .. })));
}

#[test]
fn the_day_ends_exactly_and_opens_again() {
    let mut world = World::new(Limits { per_day: 10, ..limits("4") }).ready(&["a"]);
    for _ in 0..15 {
        world.call_of("a", Class::Interactive, 60_000).unwrap();
    }
    assert_eq!(world.serve(Duration::from_secs(30)).len(), 10);
    assert_eq!(world.refused.len(), 5);
    assert!(world.refused.iter().all(|(_, why)| *why == Refusal::DaySpent));
    assert_eq!(world.call("a", 60_000), Err(Refusal::DaySpent));
    world.pass(Duration::from_secs(43_200));
    assert!(world.call("a", 60_000).is_ok());
}

#[test]
fn a_throttled_call_goes_first_after_one_window_of_silence() {
    let mut world = World::new(limits("4")).ready(&["a"]);
    let first = world.call("a", 30_000).unwrap();
    world.call("a", 30_000).unwrap();
    world.send(first, Outcome::Throttled);
    let again = Arrival {
        tenant: name("a"),
        class: Class::Normal,
        deadline: world.now.mono.plus(Duration::from_secs(30)),
        entry: Entry::Again { first },
    };
    let (refused_at, before) = (world.now.mono, world.granted.len());
    let again = world.enqueue(&again).unwrap();
    world.pass(Duration::from_secs(3));
    assert!(world.granted[before].0.since(refused_at) >= Duration::from_millis(1_060));
    assert_eq!(world.granted[before].1, again);
}

#[test]
fn quota_exceeded_is_believed_until_the_day_turns() {
    let mut world = World::new(limits("4")).ready(&["a"]);
    let first = world.call("a", 30_000).unwrap();
    let second = world.call("a", 30_000).unwrap();
    world.send(first, Outcome::QuotaExceeded);
    assert_eq!(world.refused, [(second, Refusal::DaySpent)]);
    assert_eq!(world.call("a", 30_000), Err(Refusal::DaySpent));
    world.pass(Duration::from_secs(3_600));
    let probe = world.call("a", 30_000).unwrap();
    assert_eq!(world.call("a", 30_000), Err(Refusal::DaySpent), "one probe an hour");
    world.send(probe, GOOD);
    assert!(world.call("a", 30_000).is_ok());
}

#[test]
fn a_store_that_fails_refuses_and_heals() {
    let mut world = World::new(limits("4")).ready(&["a"]);
    world.store_fails = true;
    for _ in 0..8 {
        let _ = world.call("a", 30_000);
    }
    world.serve(Duration::from_secs(10));
    assert!(world.refused.iter().any(|(_, why)| *why == Refusal::StoreUnavailable));
    assert_eq!(world.call("a", 30_000), Err(Refusal::StoreUnavailable));
    world.store_fails = false;
    world.pass(Duration::from_secs(3));
    assert!(world.call("a", 30_000).is_ok());
}

#[test]
fn dead_tokens_refuse_and_failing_ones_refuse_whom_they_cannot_help() {
    let mut world = World::new(limits("4")).ready(&[]);
    let set = |world: &mut World, readiness| {
        world.scheduler.set_tenant(&name("a"), &readiness, false, 1, world.now);
        world.settle_commands();
    };
    set(&mut world, Readiness::Waiting);
    let short = world.call("a", 5_000).unwrap();
    let long = world.call("a", 60_000).unwrap();
    let retry_at = world.now.mono.plus(Duration::from_secs(8));
    set(&mut world, Readiness::Failing { retry_at });
    let retry = Duration::from_secs(8);
    assert_eq!(world.refused, [(short, Refusal::TokenUnavailable { retry })]);
    let dead = Readiness::NeedsAuthorization { reason: "revoked".into() };
    set(&mut world, dead);
    let why = Refusal::NeedsAuthorization { reason: "revoked".into() };
    assert_eq!(world.refused[1], (long, why.clone()));
    assert_eq!(world.call("a", 5_000), Err(why));
}

#[test]
fn a_stop_serves_the_waiting_for_a_while_and_refuses_the_rest() {
    let mut world = World::new(limits("4")).ready(&["a"]);
    for _ in 0..20 {
        world.call("a", 60_000).unwrap();
    }
    world.scheduler.stop(world.now.mono.plus(Duration::from_secs(2)), world.now);
    assert_eq!(world.call("a", 60_000), Err(Refusal::Stopping));
    let served = world.serve(Duration::from_secs(10)).len();
    assert!((7..=9).contains(&served), "{served}");
    assert_eq!(world.refused.len(), 20 - served);
}

#[test]
fn a_body_that_is_not_there_yet_takes_a_place_but_no_slot() {
    let mut world = World::new(limits("4")).ready(&["a"]);
    let slow = Arrival {
        tenant: name("a"),
        class: Class::Normal,
        deadline: world.now.mono.plus(Duration::from_secs(30)),
        entry: Entry::WhenPrepared,
    };
    let slow = world.enqueue(&slow).unwrap();
    let quick = world.call("a", 30_000).unwrap();
    world.pass(Duration::from_secs(1));
    assert_eq!(world.granted.iter().map(|(_, id)| *id).collect::<Vec<_>>(), [quick]);
    world.scheduler.prepared(slow, world.now);
    world.settle_commands();
    assert_eq!(world.granted[1].1, slow);
}

mod repeats;
mod scope;
mod shared;
mod visitors;
