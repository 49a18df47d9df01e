//! One test a rule, each on a small world: one or a few tenants, a driver that answers as told.

use std::time::Duration;

use super::*;

mod ahead;
mod errands;
mod failures;
mod held;
mod lanes;
mod shared;

pub(super) const START: u64 = 1_800_000_000;
const DAY: Duration = Duration::from_hours(24);

pub(super) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(super) fn tenant(n: usize) -> TenantName {
    TenantName::new(&format!("t{n}")).unwrap()
}

pub(super) fn key() -> ApiKeyName {
    ApiKeyName::new("key").unwrap()
}

/// Any number.
pub(super) const SEED: u64 = 7;

pub(super) fn settings() -> Settings {
    Settings {
        refresh_interval: secs(1),
        refresh_margin: secs(300),
        refresh_ahead: Duration::ZERO,
        keep_alive_after: Duration::ZERO,
    }
}

pub(super) fn at(since_start: Duration) -> Now {
    Now { mono: Mono::new(since_start), unix: Unix::from_secs(START).plus(since_start) }
}

/// A keeper and a clock; commands are collected, nothing is answered by itself.
struct World {
    keeper: TokenKeeper,
    now: Now,
    changes: Vec<(TenantName, Readiness)>,
    alarms: Vec<Alarm>,
}

impl World {
    fn new() -> Self {
        let now = at(Duration::ZERO);
        let mut keeper = TokenKeeper::new(settings(), SEED, now);
        keeper.put_key(&key(), now);
        Self { keeper, now, changes: Vec::new(), alarms: Vec::new() }
    }

    /// A world with one tenant whose token has `life` left, past the rest after the start.
    fn with_life(life: Duration) -> Self {
        let mut world = Self::new();
        world.load(0, Some(life));
        world.pass(secs(1));
        world
    }

    fn known(&self, life: Option<Duration>) -> Known {
        Known {
            api_key: key(),
            version: 1,
            access_expires_at: life.map(|life| self.now.unix.plus(life)),
            last_refreshed_at: None,
            last_used_at: None,
            refresh_begun: false,
            unstored: None,
            needs_authorization: None,
        }
    }

    fn load(&mut self, n: usize, life: Option<Duration>) {
        let known = self.known(life);
        self.keeper.put(&tenant(n), known, self.now);
    }

    fn pass(&mut self, span: Duration) {
        self.now = Now { mono: self.now.mono.plus(span), unix: self.now.unix.plus(span) };
        self.keeper.handle_timeout(self.now);
    }

    fn demand(&mut self, n: usize, wait: Duration) {
        self.keeper.demand(&tenant(n), self.now.mono.plus(wait), self.now);
    }

    /// The orders for the world outside; the rest is noted.
    fn orders(&mut self) -> Vec<Command> {
        let mut orders = Vec::new();
        while let Some(command) = self.keeper.poll_command() {
            match command {
                Command::Changed { tenant, readiness } => self.changes.push((tenant, readiness)),
                Command::Alarm { alarm, .. } => self.alarms.push(alarm),
                Command::Begin { .. }
                | Command::Refresh { .. }
                | Command::Persist { .. }
                | Command::Abort { .. }
                | Command::Reread { .. }
                | Command::Fail { .. }
                | Command::Errand { .. }
                | Command::Forget { .. } => orders.push(command),
            }
        }
        orders
    }

    fn order(&mut self) -> Command {
        let mut orders = self.orders();
        assert_eq!(orders.len(), 1, "{orders:?}");
        orders.remove(0)
    }

    /// Expects the intent and a request, and answers the request.
    fn exchange(&mut self, n: usize, result: RefreshResult) {
        let Command::Begin { tenant: name, version } = self.order() else { panic!("no intent") };
        assert_eq!(name, tenant(n));
        self.keeper.begun(&name, version, Write::Done(()), self.now);
        assert!(matches!(self.order(), Command::Refresh { .. }));
        self.keeper.refreshed(&name, version, result, self.now);
    }

    fn receive(&mut self, n: usize, version: u64) {
        let access_expires_at = Some(self.now.unix.plus(DAY));
        self.exchange(n, RefreshResult::Received { access_expires_at });
        assert_eq!(self.order(), Command::Persist { tenant: tenant(n), version });
        self.keeper.persisted(&tenant(n), version, Write::Done(version + 1), self.now);
    }

    /// Refuses the refresh token and lets the store say that nobody else has a newer one.
    fn refuse(&mut self, n: usize) -> String {
        self.exchange(n, RefreshResult::InvalidGrant);
        assert_eq!(self.order(), Command::Reread { tenant: tenant(n), version: 1 });
        let known = self.known(None);
        self.keeper.reread(&tenant(n), 1, Read::Found(known), self.now);
        let Command::Fail { reason, .. } = self.order() else { panic!("no verdict") };
        reason.to_string()
    }

    fn readiness(&self, n: usize) -> Readiness {
        self.keeper.readiness(&tenant(n)).unwrap().clone()
    }

    fn is_ready(&self, n: usize) -> bool {
        self.readiness(n) == Readiness::Ready
    }
}

#[test]
fn a_tenant_in_demand_is_refreshed_once_and_ready_only_when_its_tokens_are_stored() {
    let mut world = World::with_life(secs(0));
    assert_eq!(world.readiness(0), Readiness::Waiting);
    for wait in 1..50 {
        world.demand(0, secs(wait));
    }
    let access_expires_at = Some(world.now.unix.plus(DAY));
    world.exchange(0, RefreshResult::Received { access_expires_at });
    assert_eq!(world.order(), Command::Persist { tenant: tenant(0), version: 1 });
    assert!(!world.is_ready(0));
    world.keeper.persisted(&tenant(0), 1, Write::Done(2), world.now);
    assert!(world.is_ready(0));
    world.pass(secs(100));
    assert_eq!(world.orders(), []);
}

#[test]
fn nothing_is_refreshed_while_nobody_asks_and_the_margin_flips_readiness() {
    let mut world = World::with_life(secs(1_000));
    world.demand(0, secs(30));
    assert!(world.is_ready(0));
    world.pass(secs(698));
    assert!(world.is_ready(0));
    assert_eq!(world.orders(), []);
    world.pass(secs(2));
    assert_eq!(world.readiness(0), Readiness::Waiting);
}

#[test]
fn after_a_start_and_after_each_answer_the_lane_rests() {
    let mut world = World::new();
    for n in 0..3 {
        world.load(n, None);
        world.demand(n, secs(100 - n as u64));
    }
    assert_eq!(world.orders(), [], "the rest after the start");
    for n in [2, 1, 0] {
        world.pass(secs(1));
        world.receive(n, 1);
        world.pass(Duration::from_millis(999));
        assert_eq!(world.orders(), [], "the rest after an answer");
        assert!(world.keeper.poll_timeout().is_some());
    }
}

#[test]
fn those_who_wait_go_first_by_deadline_then_the_others_by_expiry() {
    let mut world = World::new();
    for (n, life) in [(0, 5_000), (1, 4_000), (2, 10), (3, 10)] {
        world.load(n, Some(secs(life)));
    }
    assert!(world.keeper.refresh_now(&tenant(0), world.now));
    assert!(world.keeper.refresh_now(&tenant(1), world.now));
    world.demand(2, secs(60));
    world.demand(3, secs(50));
    for n in [3, 2, 1, 0] {
        world.pass(secs(1));
        world.receive(n, 1);
    }
}

#[test]
fn a_reserved_tenant_is_left_alone_and_one_under_way_is_not_given_away() {
    let mut world = World::with_life(secs(0));
    assert!(world.keeper.reserve(&tenant(0), world.now));
    assert!(!world.keeper.reserve(&tenant(0), world.now));
    world.demand(0, secs(30));
    assert_eq!(world.orders(), []);
    world.keeper.release(&tenant(0), world.now);
    assert!(matches!(world.order(), Command::Begin { .. }));
    assert!(!world.keeper.reserve(&tenant(0), world.now));
    assert!(world.keeper.reserve(&tenant(9), world.now), "a new tenant is free");
}

#[test]
fn a_drain_sends_nothing_new_and_stores_what_is_under_way() {
    let mut world = World::with_life(secs(0));
    world.load(1, None);
    world.demand(0, secs(30));
    world.demand(1, secs(40));
    let Command::Begin { tenant: name, version } = world.order() else { panic!("no intent") };
    world.keeper.drain();
    world.keeper.begun(&name, version, Write::Done(()), world.now);
    assert_eq!(world.order(), Command::Abort { tenant: tenant(0), version: 1 });
    assert!(!world.keeper.is_settled());
    world.keeper.aborted(&name, version, Write::Done(()), world.now);
    world.pass(secs(100));
    assert_eq!(world.orders(), []);
    assert!(world.keeper.is_settled());
}

#[test]
fn the_wall_clock_may_step_both_ways() {
    let mut world = World::with_life(secs(1_000));
    world.now.unix = world.now.unix.plus(secs(900));
    world.keeper.handle_timeout(world.now);
    assert_eq!(world.readiness(0), Readiness::Waiting);
    world.now.unix = world.now.unix.minus(secs(900));
    world.keeper.handle_timeout(world.now);
    assert!(world.is_ready(0));
}

#[test]
fn tokens_that_are_useless_on_arrival_do_not_make_a_storm() {
    let mut world = World::with_life(secs(0));
    world.demand(0, secs(1_000));
    let access_expires_at = Some(Unix::from_secs(1));
    world.exchange(0, RefreshResult::Received { access_expires_at });
    world.orders();
    world.keeper.persisted(&tenant(0), 1, Write::Done(2), world.now);
    world.pass(secs(29));
    assert_eq!(world.orders(), []);
    assert_eq!(world.alarms, [Alarm::UselessToken]);
    world.pass(secs(1));
    assert_eq!(world.order(), Command::Begin { tenant: tenant(0), version: 2 });
}

#[test]
fn a_short_life_is_usable_for_half_of_it() {
    let mut world = World::with_life(secs(0));
    world.demand(0, secs(30));
    let access_expires_at = Some(world.now.unix.plus(secs(60)));
    world.exchange(0, RefreshResult::Received { access_expires_at });
    world.orders();
    world.keeper.persisted(&tenant(0), 1, Write::Done(2), world.now);
    world.pass(secs(29));
    assert!(world.is_ready(0));
    world.pass(secs(1));
    assert_eq!(world.readiness(0), Readiness::Waiting);
}

#[test]
fn a_key_that_is_gone_refreshes_nothing() {
    let mut world = World::with_life(secs(0));
    world.keeper.remove_key(&key(), world.now);
    world.demand(0, secs(30));
    world.pass(secs(10));
    assert_eq!(world.orders(), []);
    assert!(matches!(world.readiness(0), Readiness::Failing { cause: Cause::ApiKeyUnknown, .. }));
    world.keeper.put_key(&key(), world.now);
    assert!(matches!(world.order(), Command::Begin { .. }));
}
