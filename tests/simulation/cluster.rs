//! Many API keys on the nodes of a Redis Cluster, every slot wanted at every instance, in virtual
//! time: the schedulers of the engine as they are, `desk` for the script, and nodes that do one
//! thing after the other.
//!
//! What a node's work costs was measured with redis-server 7.0.15 on the machine of
//! `docs/scaling.md`.

use std::collections::BTreeMap;
use std::time::Duration;

use ctct_proxy::engine::outcome::{Health, Outcome};
use ctct_proxy::engine::scheduler::{
    Arrival, CallId, Command, Entry, Limits, Readiness, Scheduler,
};
use ctct_proxy::engine::turnstile::{Ask, BEAT_EVERY, OnLoss, Roll, Told, Turn, Whose};
use ctct_proxy::engine::{Class, DayReset, Guard, Mono, Now, Reserve, TenantName, Unix};

use crate::desk::{Desk, Instance, micros};
use crate::network::{Chance, Network, Server, ms};
use crate::plan::{Carried, Plan};

/// Processor time of a server for a question, with the word to three listeners, in microseconds:
/// `cargo bench --bench turnstile -- --keys 200 --instances 3`.
const QUESTION: f64 = 113.0;
/// What a node needs more for word, for each other node that it passes it on to. `PUBLISH`, 4,300
/// times a second, took a node 29 us alone, and 38, 44 and 55 us with one, two and four others.
const PASSING_ON: f64 = 6.5;
/// What each of those needed, with one listener.
const PASSED_ON: f64 = 10.0;
/// One question in so many meets a server that stands still, for a fork or its disk.
const STANDS_STILL: f64 = 20_000.0;
/// For so long, in milliseconds.
const STILL_MS: f64 = 20.0;
/// One way between an instance and a node: at least, and how much more at most, in milliseconds.
const WAY_MS: (f64, f64) = (0.15, 0.5);
/// A timer fires up to this late, in milliseconds.
const TIMER_LATE_MS: f64 = 1.0;
/// Calls of an API key that wait at an instance.
const WAITING: u32 = 2;
/// Slots of a Redis Cluster.
const HASH_SLOTS: usize = 16_384;
/// Until all slots turn evenly.
const WARM_UP: Duration = Duration::from_secs(3);
/// The store's clock at the start.
const START: Unix = Unix::from_secs(20_000 * 86_400 + 3_600);

enum Event {
    Timer(usize),
    /// A question comes to the node of its API key.
    Asked(usize, Box<Ask>, Duration),
    /// An answer comes to the one who asked, and when it was asked.
    Told(usize, Box<Told>, Duration),
    /// Word comes to a node.
    Passed(usize, Word),
    /// Word comes to an instance.
    Turn(usize, Turn),
    Answered(usize, CallId),
    Beat(Instance),
}

/// A node: one thread.
#[derive(Clone, Default)]
struct Node {
    free_at: Duration,
    worked: Duration,
    trips: Vec<Duration>,
}

/// The gate of one API key at one instance.
struct Member {
    scheduler: Scheduler,
    set_to: Mono,
    waiting: u32,
}

/// Whose turn it is at an API key.
#[derive(Clone, Copy)]
struct Word {
    api_key: usize,
    whose: Instance,
    due: Duration,
}

struct Run {
    plan: Plan,
    chance: Chance,
    /// In order of their time, and of when they were decided.
    events: BTreeMap<(Duration, u64), Event>,
    order: u64,
    call_next: u64,
    members: Vec<Member>,
    desks: Vec<Desk>,
    /// The node of each API key.
    node_of: Vec<usize>,
    nodes: Vec<Node>,
    /// When calls of each API key arrived upstream, and from which instance.
    arrivals: Vec<Vec<(Duration, Instance)>>,
    questions: u64,
    counts: bool,
    tenant: TenantName,
}

impl Plan {
    /// Runs for `span` after all is even.
    pub(crate) fn run(self, span: Duration, seed: u64) -> Carried {
        let tenant = TenantName::new("a").expect("a name");
        let rate = self.calls.to_string().parse().expect("a rate");
        let limits = Limits {
            rate,
            guard: Guard::Auto,
            per_day: 250_000,
            day_reset: DayReset::default(),
            reserve: Reserve::default(),
            in_flight_max: 64,
            capacity: 1_000,
            capacity_per_tenant: 1_000,
        };
        let start = now_at(Duration::ZERO);
        let member = |seed| {
            let scheduler = Scheduler::new(limits, start).seeded(seed);
            let mut scheduler = scheduler.sharing(OnLoss::Refuse, start);
            scheduler.set_tenant(&tenant, &Readiness::Ready, false, 1, start);
            Member { scheduler, set_to: Mono::NEVER, waiting: 0 }
        };
        let mut run = Run {
            plan: self,
            chance: Chance::new(seed),
            events: BTreeMap::new(),
            order: 0,
            call_next: 0,
            members: (0..self.api_keys * self.instances).map(|seed| member(seed as u64)).collect(),
            desks: (0..self.api_keys)
                .map(|_| Desk::new(tenant.clone(), stamp(Duration::ZERO)))
                .collect(),
            node_of: (0..self.api_keys).map(|key| node_of(key, self.nodes)).collect(),
            nodes: vec![Node::default(); self.nodes],
            arrivals: vec![Vec::new(); self.api_keys],
            questions: 0,
            counts: false,
            tenant,
        };
        run.begin();
        run.until(WARM_UP);
        run.counts = true;
        run.until(WARM_UP + span);
        run.carried(span)
    }
}

impl Run {
    fn begin(&mut self) {
        for instance in 0..self.plan.instances {
            let at = ms(self.chance.between(0.0, 500.0));
            self.push(at, Event::Beat(instance));
        }
        for member in 0..self.members.len() {
            let at = ms(self.chance.between(500.0, 1_500.0));
            self.push(at, Event::Timer(member));
        }
    }

    fn push(&mut self, at: Duration, event: Event) {
        self.order += 1;
        self.events.insert((at, self.order), event);
    }

    fn way(&mut self) -> Duration {
        let (least, more) = WAY_MS;
        ms(least + more * self.chance.unit() * self.chance.unit())
    }

    /// A node does something that takes so many microseconds: when it begins and ends.
    fn work(&mut self, node: usize, mean: f64, now: Duration) -> (Duration, Duration) {
        let mut takes = ms(mean * self.chance.between(0.5, 1.5) / 1_000.0);
        let worked = takes;
        if self.chance.unit() < 1.0 / STANDS_STILL {
            takes += ms(STILL_MS);
        }
        let node = &mut self.nodes[node];
        let begins = node.free_at.max(now);
        node.free_at = begins + takes;
        if self.counts {
            node.worked += worked;
        }
        (begins, node.free_at)
    }

    fn until(&mut self, end: Duration) {
        while let Some(first) = self.events.first_entry()
            && first.key().0 < end
        {
            let ((now, _), event) = first.remove_entry();
            self.step(event, now);
        }
    }

    fn step(&mut self, event: Event, now: Duration) {
        let both = now_at(now);
        match event {
            Event::Timer(member) => {
                self.members[member].set_to = Mono::NEVER;
                self.members[member].scheduler.handle_timeout(both);
                self.fill(member, now);
                self.carry_out(member, now);
            }
            Event::Asked(member, ask, asked) => self.asked(member, &ask, asked, now),
            Event::Told(member, told, asked) => {
                if self.counts {
                    let node = self.node_of[self.api_key(member)];
                    self.nodes[node].trips.push(now.saturating_sub(asked));
                }
                self.members[member].scheduler.told(Some(*told), both);
                self.carry_out(member, now);
            }
            Event::Turn(member, turn) => {
                self.members[member].scheduler.turn(turn, both);
                self.carry_out(member, now);
            }
            Event::Answered(member, call) => {
                let good = Outcome::Answered(Health::Good);
                self.members[member].scheduler.settle(call, good, both);
                self.fill(member, now);
                self.carry_out(member, now);
            }
            Event::Passed(node, word) => {
                let (_, ends) = self.work(node, PASSED_ON, now);
                self.hear(node, word, ends);
            }
            Event::Beat(instance) => {
                for api_key in 0..self.plan.api_keys {
                    let member = self.member(api_key, instance);
                    let roll = Roll::default();
                    self.members[member].scheduler.read_roll(Some((&roll, both.mono)), both);
                    self.carry_out(member, now);
                }
                self.push(now + BEAT_EVERY, Event::Beat(instance));
            }
        }
    }

    fn member(&self, api_key: usize, instance: Instance) -> usize {
        api_key * self.plan.instances + instance
    }

    fn api_key(&self, member: usize) -> usize {
        member / self.plan.instances
    }

    /// As many calls wait as callers do.
    fn fill(&mut self, member: usize, now: Duration) {
        while self.members[member].waiting < WAITING {
            let call = CallId::new(self.call_next);
            self.call_next += 1;
            let arrival = Arrival {
                tenant: self.tenant.clone(),
                class: Class::Normal,
                deadline: Mono::new(now).plus(Duration::from_mins(10)),
                entry: Entry::Back,
            };
            let member = &mut self.members[member];
            member.scheduler.enqueue(call, &arrival, now_at(now)).expect("there is room");
            member.waiting += 1;
        }
    }

    fn carry_out(&mut self, member: usize, now: Duration) {
        while let Some(command) = self.members[member].scheduler.poll_command() {
            match command {
                Command::Grant { call, .. } => self.send(member, call, now),
                Command::Ask(ask) => {
                    let at = now + self.way();
                    self.push(at, Event::Asked(member, ask, now));
                }
                Command::Refuse { .. }
                | Command::Claim(_)
                | Command::Release { .. }
                | Command::Demand { .. } => panic!("not here: {command:?}"),
                Command::Tell(_) => {}
            }
        }
        let due = self.members[member].scheduler.poll_timeout().unwrap_or(Mono::NEVER);
        if due < self.members[member].set_to {
            self.members[member].set_to = due;
            let late = ms(self.chance.between(0.0, TIMER_LATE_MS));
            self.push(due.since_start().max(now) + late, Event::Timer(member));
        }
    }

    fn send(&mut self, member: usize, call: CallId, now: Duration) {
        self.members[member].waiting -= 1;
        self.members[member].scheduler.sent(call, now_at(now));
        let arrives = now + Network::Lan.way(&mut self.chance);
        if self.counts {
            let instance = member % self.plan.instances;
            let api_key = self.api_key(member);
            self.arrivals[api_key].push((arrives, instance));
        }
        let answers = arrives + Server::Short.takes(&mut self.chance);
        let answered = answers + Network::Lan.way(&mut self.chance);
        self.push(answered, Event::Answered(member, call));
    }

    fn asked(&mut self, member: usize, ask: &Ask, asked: Duration, now: Duration) {
        let (api_key, instance) = (self.api_key(member), member % self.plan.instances);
        let home = self.node_of[api_key];
        let (begins, ends) = self.work(home, QUESTION, now);
        self.questions += u64::from(self.counts);
        let (told, word) = self.desks[api_key].ask(instance, ask, stamp(begins));
        let at = ends + self.way();
        self.push(at, Event::Told(member, Box::new(told), asked));
        let Some((whose, due)) = word else { return };
        let word = Word { api_key, whose, due };
        self.hear(home, word, ends);
        for node in (0..self.plan.nodes).filter(|node| *node != home) {
            let (_, passed_on) = self.work(home, PASSING_ON, ends);
            let at = passed_on + self.way();
            self.push(at, Event::Passed(node, word));
        }
    }

    /// Those that listen to a node hear what it has at `at`.
    fn hear(&mut self, node: usize, word: Word, at: Duration) {
        let Word { api_key, whose, due } = word;
        for instance in (node..self.plan.instances).step_by(self.plan.nodes) {
            let whose = if whose == instance { Whose::Mine } else { Whose::Another };
            let (heard, member) = (at + self.way(), self.member(api_key, instance));
            self.push(heard, Event::Turn(member, Turn { whose, due }));
        }
    }

    fn carried(mut self, span: Duration) -> Carried {
        let (keys, instances) = (self.plan.api_keys, self.plan.instances);
        let allowed = f64::from(self.plan.calls) * span.as_secs_f64();
        let calls: usize = self.arrivals.iter().map(Vec::len).sum();
        let least = self.arrivals.iter().map(Vec::len).min().unwrap_or_default();
        let of_node = |node| self.node_of.iter().filter(|home| **home == node).count();
        let most_keys = (0..self.plan.nodes).map(of_node).max().unwrap_or_default();
        let busiest = self.nodes.iter_mut().max_by_key(|node| node.worked).expect("one at least");
        busiest.trips.sort_unstable();
        let answered_in = busiest.trips[busiest.trips.len() * 99 / 100];
        let uneven = self.arrivals.iter().flat_map(|arrivals| {
            let equal = as_f64(arrivals.len()) / as_f64(instances);
            (0..instances).map(move |instance| {
                let own = arrivals.iter().filter(|(_, of)| *of == instance).count();
                (as_f64(own) / equal - 1.0) * 100.0
            })
        });
        Carried {
            share: as_f64(calls) / (allowed * as_f64(keys)) * 100.0,
            least: as_f64(least) / allowed * 100.0,
            questions: as_f64(self.questions) / as_f64(calls),
            most_keys,
            busiest: busiest.worked.as_secs_f64() / span.as_secs_f64() * 100.0,
            answered_in,
            uneven: uneven.fold(0.0, f64::max),
            most_in_a_second: self
                .arrivals
                .iter()
                .map(|of| most_in_a_second(of))
                .max()
                .unwrap_or(0),
        }
    }
}

fn most_in_a_second(arrivals: &[(Duration, Instance)]) -> usize {
    let mut times: Vec<Duration> = arrivals.iter().map(|(at, _)| *at).collect();
    times.sort_unstable();
    let within = |from: &Duration| {
        let first = times.partition_point(|at| at < from);
        times.partition_point(|at| *at < *from + Duration::from_secs(1)) - first
    };
    times.iter().map(within).max().unwrap_or_default()
}

fn as_f64(count: impl TryInto<u32>) -> f64 {
    f64::from(count.try_into().unwrap_or(u32::MAX))
}

fn now_at(now: Duration) -> Now {
    Now { mono: Mono::new(now), unix: START.plus(now) }
}

fn stamp(now: Duration) -> u64 {
    micros(START.since_epoch() + now)
}

/// Where an API key lies: nodes have equal parts of the hash slots, one after the other (Redis
/// Cluster specification, "Key distribution model").
fn node_of(api_key: usize, nodes: usize) -> usize {
    let tag = format!("k{api_key}");
    let crc = crc16::State::<crc16::XMODEM>::calculate(tag.as_bytes());
    usize::from(crc) % HASH_SLOTS * nodes / HASH_SLOTS
}
