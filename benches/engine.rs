//! The engine on its own: what one decision costs with 10,000 waiting calls over 1,000 tenants.
//!
//! The numbers of waiting calls stay as they are while a benchmark runs: whatever leaves is
//! replaced. Time is a number that each turn moves on. `scheduler/decision` is the figure that
//! `make bench` holds to a target: one call arrives, one is granted, leaves and is answered.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use ctct_proxy::engine::budget::Claimed;
use ctct_proxy::engine::outcome::{Health, Outcome};
use ctct_proxy::engine::pacer::Pacer;
use ctct_proxy::engine::queue::{FairQueue, TenantIx};
use ctct_proxy::engine::rate::Guard;
use ctct_proxy::engine::scheduler::{
    Arrival, CallId, Command, Entry, Limits, Readiness, Scheduler,
};
use ctct_proxy::engine::{Class, DayReset, Mono, Now, Rate, Reserve, TenantName, Unix};

const WAITING: u64 = 10_000;
const TENANTS: u64 = 1_000;
/// Longer than the last of the waiting calls waits at four a second.
const WAIT_MAX: Duration = Duration::from_secs(7_200);

/// A rate and the time from one decision to the next.
struct Speed {
    rate: &'static str,
    turn: Duration,
}

/// The pacer never holds a call back; it remembers the thousand calls of the last second.
const UNPACED: Speed = Speed { rate: "1000000", turn: Duration::from_millis(1) };
/// A call is granted whenever four a second and a guard of 60 ms let one go.
const STANDARD: Speed = Speed { rate: "4", turn: Duration::from_millis(265) };

/// The classes of arriving calls, in the shares in which they are served.
fn class(number: u64) -> Class {
    match number % 12 {
        0..=7 => Class::Interactive,
        8..=10 => Class::Normal,
        _ => Class::Bulk,
    }
}

fn rate(text: &str) -> Rate {
    text.parse().expect("the rates here are rates")
}

fn nth<T>(items: &[T], number: u64) -> &T {
    let len = items.len() as u64;
    let at = usize::try_from(number % len).expect("an index fits");
    &items[at]
}

/// A scheduler whose store always counts and whose one call in flight keeps all others waiting.
struct World {
    scheduler: Scheduler,
    now: Now,
    turn: Duration,
    tenants: Vec<TenantName>,
    calls: u64,
    counted: u64,
    granted: Option<CallId>,
}

impl World {
    fn full(speed: &Speed) -> Self {
        let limits = Limits {
            rate: rate(speed.rate),
            guard: Guard::Fixed(Duration::from_millis(60)),
            per_day: u64::MAX / 2,
            day_reset: DayReset::default(),
            reserve: Reserve::default(),
            in_flight_max: 1,
            capacity: 20_000,
            capacity_per_tenant: 2_000,
        };
        let now = Now { mono: Mono::default(), unix: Unix::from_secs(20_000 * 86_400) };
        let tenants = (0..TENANTS).map(|number| format!("tenant-{number}"));
        let mut world = Self {
            scheduler: Scheduler::new(limits, now),
            now,
            turn: speed.turn,
            tenants: tenants.map(|name| TenantName::new(&name).expect("a name")).collect(),
            calls: 0,
            counted: 0,
            granted: None,
        };
        for tenant in &world.tenants {
            world.scheduler.set_tenant(tenant, &Readiness::Ready, false, 1, now);
        }
        for _ in 0..8 {
            world.pass(Duration::from_secs(1));
        }
        world.arrive();
        for _ in 0..WAITING {
            world.arrive();
        }
        let depth: usize = world.scheduler.snapshot(world.now).depth.iter().sum();
        assert_eq!(depth as u64, WAITING, "all but one wait");
        world
    }

    fn pass(&mut self, span: Duration) {
        self.now.mono = self.now.mono.plus(span);
        self.now.unix = self.now.unix.plus(span);
        self.scheduler.handle_timeout(self.now);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        while let Some(command) = self.scheduler.poll_command() {
            match command {
                Command::Grant { call, .. } => self.granted = Some(call),
                Command::Claim(claim) => {
                    self.counted += u64::from(claim.want);
                    let answer =
                        Claimed { day: claim.day, granted: claim.want, total: self.counted };
                    self.scheduler.claimed(claim.day, Some(answer), self.now);
                }
                Command::Tell(_) => {}
                Command::Refuse { .. }
                | Command::Release { .. }
                | Command::Demand { .. }
                | Command::Ask(_) => {
                    unreachable!("nothing is refused, uncounted, shared or without a token here")
                }
            }
        }
    }

    fn arrival(&self, number: u64, wait: Duration) -> Arrival {
        Arrival {
            tenant: nth(&self.tenants, number).clone(),
            class: class(number),
            deadline: self.now.mono.plus(wait),
            entry: Entry::Back,
        }
    }

    fn arrive(&mut self) -> CallId {
        let id = CallId::new(self.calls);
        let arrival = self.arrival(self.calls, WAIT_MAX);
        self.calls += 1;
        self.scheduler.enqueue(id, &arrival, self.now).expect("there is room");
        self.carry_out();
        id
    }

    /// One call arrives, the one that was granted before leaves and is answered, the next is
    /// granted.
    fn decide(&mut self) {
        let call = self.granted.take().expect("one call is always granted");
        self.now.mono = self.now.mono.plus(self.turn);
        self.now.unix = self.now.unix.plus(self.turn);
        self.scheduler.sent(call, self.now);
        self.arrive();
        self.scheduler.settle(call, Outcome::Answered(Health::Good), self.now);
        self.carry_out();
        // at the turn of a day more than one moment is due before the next slot
        while self.granted.is_none() {
            let due = self.scheduler.poll_timeout().expect("a slot comes");
            self.pass(due.since(self.now.mono));
        }
        black_box(self.scheduler.poll_timeout());
    }
}

fn scheduler(c: &mut Criterion) {
    let mut group = c.benchmark_group("scheduler");
    let mut world = World::full(&UNPACED);
    group.bench_function("decision", |b| b.iter(|| world.decide()));
    let mut world = World::full(&STANDARD);
    group.bench_function("decision at 4/s", |b| b.iter(|| world.decide()));

    let mut world = World::full(&UNPACED);
    let mut number = 0;
    group.bench_function("refusal by estimate", |b| {
        b.iter(|| {
            number += 1;
            let arrival = world.arrival(number, Duration::ZERO);
            let answer = world.scheduler.enqueue(CallId::new(u64::MAX), &arrival, world.now);
            assert!(answer.is_err(), "nobody can go at once");
        });
    });

    let mut world = World::full(&UNPACED);
    let mut waiting: Vec<CallId> = (1..=WAITING).map(CallId::new).collect();
    let mut at = 0;
    group.bench_function("cancel in the middle, arrive", |b| {
        b.iter(|| {
            at = (at + 7_919) % waiting.len();
            world.scheduler.cancel(waiting[at], world.now);
            waiting[at] = world.arrive();
        });
    });
    group.finish();
}

fn queue(c: &mut Criterion) {
    let mut queue = FairQueue::default();
    let tenants: Vec<TenantIx> = (0..TENANTS).map(|_| queue.add_tenant(1)).collect();
    for ix in &tenants {
        queue.unhold(*ix);
    }
    let mut number = 0;
    let mut push = |queue: &mut FairQueue<u64>| {
        queue.push(*nth(&tenants, number), class(number), number, number);
        number += 1;
    };
    for _ in 0..WAITING {
        push(&mut queue);
    }
    c.bench_function("queue/push, pop", |b| {
        b.iter(|| {
            push(&mut queue);
            black_box(queue.pop([true; 3]))
        });
    });
}

fn pacer(c: &mut Criterion) {
    for (name, speed) in [("pacer/a call", UNPACED), ("pacer/a call at 4/s", STANDARD)] {
        let mut pacer = Pacer::new(rate(speed.rate), Guard::Auto, Mono::default());
        let mut now = Mono::default();
        c.bench_function(name, |b| {
            b.iter(|| {
                now = pacer.ready_at().max(now.plus(speed.turn));
                let slot = pacer.take(now);
                pacer.sent(slot, now);
                pacer.answered(slot, now.plus(Duration::from_micros(900)));
                pacer.clean();
            });
        });
    }
}

criterion_group!(benches, scheduler, queue, pacer);
criterion_main!(benches);
