//! One run in virtual time: the pacer of the engine, a queue that is never empty, a network and an
//! upstream that counts what arrives.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use ctct_proxy::engine::pacer::{Pacer, Slot};
use ctct_proxy::engine::{Guard, Mono};

use crate::network::{Chance, Network, Server, behind_edge, ms};
use crate::upstream::{Model, Upstream};

/// A timer fires up to this late, in milliseconds.
const TIMER_LATE_MS: f64 = 1.0;
/// An acknowledgement waits up to this long for an answer to travel with, in milliseconds.
const DELAYED_ACK_MS: f64 = 40.0;
/// Calls under way at one time, at most.
const UNDER_WAY_MAX: usize = 1_024;

/// Whether the transport's acknowledgements are told to the pacer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acknowledgements {
    Told,
    Hidden,
    /// They are told, and are an edge's: the upstream counts the call only when the edge has
    /// passed it on.
    OfEdge,
}

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene {
    pub(crate) calls: u32,
    pub(crate) network: Network,
    pub(crate) server: Server,
    pub(crate) acknowledgements: Acknowledgements,
    pub(crate) model: Model,
    /// Which of many runs of the same.
    pub(crate) seed: u32,
}

impl Scene {
    /// Chance of its own, so that each may be run alone.
    fn chance(self) -> Chance {
        let Self { calls, network, server, acknowledgements, model, seed } = self;
        let parts = format!(
            "Scene {{ calls: {calls}, network: {network:?}, server: {server:?}, \
             acknowledgements: {acknowledgements:?}, model: {model:?}, seed: {seed} }}"
        );
        // FNV-1a, 64 bits
        Chance::new(parts.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        }))
    }
}

/// What came of a part of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) arrived: u32,
    pub(crate) refused: u32,
    pub(crate) took: Duration,
}

impl Tally {
    /// Calls that passed, in percent of what the upstream allows in that time.
    pub(crate) fn share(&self, calls: u32) -> f64 {
        let allowed = self.took.as_secs_f64() * f64::from(calls);
        f64::from(self.arrived - self.refused) / allowed * 100.0
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Timer,
    Arrival(usize),
    Acknowledgement(usize),
    Answer { call: usize, passed: bool },
}

struct Run {
    scene: Scene,
    chance: Chance,
    pacer: Pacer,
    upstream: Upstream,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    order: u64,
    slots: Vec<Option<Slot>>,
    call_next: usize,
    /// What the timer is set to.
    timer_for: Mono,
}

/// Runs until `parts` times `calls_each` calls have arrived, and tallies each part.
pub(crate) fn run(scene: Scene, parts: usize, calls_each: u32) -> Vec<Tally> {
    let mut chance = scene.chance();
    let phase = ms(chance.between(0.0, 1_000.0));
    let rate = scene.calls.to_string().parse().expect("a rate");
    let mut run = Run {
        scene,
        pacer: Pacer::new(rate, Guard::Auto, Mono::default()),
        upstream: Upstream::new(scene.model, scene.calls, phase),
        chance,
        events: BinaryHeap::new(),
        order: 0,
        slots: vec![None; UNDER_WAY_MAX],
        call_next: 0,
        timer_for: Mono::NEVER,
    };
    let mut tallies = Vec::with_capacity(parts);
    run.release(Duration::ZERO);
    let mut part_from = run.pacer.ready_at().since_start();
    for _ in 0..parts {
        let mut tally = Tally::default();
        while tally.arrived < calls_each {
            let now = run.step(&mut tally);
            tally.took = now.saturating_sub(part_from);
        }
        part_from += tally.took;
        tallies.push(tally);
    }
    tallies
}

impl Run {
    fn push(&mut self, at: Duration, event: Event) {
        self.order += 1;
        self.events.push(Reverse((at, self.order, event)));
    }

    /// Does what is next and returns when that was.
    fn step(&mut self, tally: &mut Tally) -> Duration {
        let Reverse((now, _, event)) = self.events.pop().expect("a timer or a call is under way");
        let mono = Mono::new(now);
        match event {
            Event::Timer => {}
            Event::Arrival(call) => {
                let passed = self.upstream.passes(now);
                tally.arrived += 1;
                tally.refused += u32::from(!passed);
                self.answer(call, passed, now);
            }
            Event::Acknowledgement(call) => {
                if let Some(slot) = self.slots[call] {
                    self.slots[call] = Some(self.pacer.acknowledged(slot, mono));
                }
            }
            Event::Answer { call, passed } => {
                let slot = self.slots[call].take().expect("a call is answered once");
                self.pacer.answered(slot, mono);
                if passed {
                    self.pacer.clean();
                } else {
                    self.pacer.throttled(mono);
                }
            }
        }
        self.release(now);
        now
    }

    /// The upstream took a call at `now`; its answer leaves when it is made, the acknowledgement
    /// with it or before.
    fn answer(&mut self, call: usize, passed: bool, now: Duration) {
        let network = self.scene.network;
        let server = if passed { self.scene.server } else { Server::Short };
        let takes = server.takes(&mut self.chance);
        let answered = now + takes + network.way(&mut self.chance);
        let answered = match self.scene.acknowledgements {
            Acknowledgements::OfEdge => answered + behind_edge(&mut self.chance),
            Acknowledgements::Told | Acknowledgements::Hidden => answered,
        };
        if self.scene.acknowledgements == Acknowledgements::Told {
            let delayed = ms(self.chance.between(0.0, DELAYED_ACK_MS));
            let alone = now + delayed + network.way(&mut self.chance);
            let at = if delayed < takes { alone.min(answered) } else { answered };
            self.push(at, Event::Acknowledgement(call));
        }
        self.push(answered, Event::Answer { call, passed });
    }

    /// An edge has a call at `now` and acknowledges it; it takes so long to pass it on.
    fn edge(&mut self, call: usize, now: Duration) -> Duration {
        let delayed = ms(self.chance.between(0.0, DELAYED_ACK_MS));
        let at = now + delayed + self.scene.network.way(&mut self.chance);
        self.push(at, Event::Acknowledgement(call));
        behind_edge(&mut self.chance)
    }

    /// Lets leave what may, and sets the timer for the next.
    fn release(&mut self, now: Duration) {
        let mono = Mono::new(now);
        while self.pacer.ready_at() <= mono {
            let slot = self.pacer.take(mono);
            let call = self.call_next % UNDER_WAY_MAX;
            self.call_next += 1;
            assert!(self.slots[call].is_none(), "too many calls under way");
            self.slots[call] = Some(self.pacer.sent(slot, mono));
            let way = self.scene.network.way(&mut self.chance);
            let behind = match self.scene.acknowledgements {
                Acknowledgements::OfEdge => self.edge(call, now + way),
                Acknowledgements::Told | Acknowledgements::Hidden => Duration::ZERO,
            };
            self.push(now + way + behind, Event::Arrival(call));
        }
        let ready_at = self.pacer.ready_at();
        if ready_at != self.timer_for {
            self.timer_for = ready_at;
            let late = ms(self.chance.between(0.0, TIMER_LATE_MS));
            self.push(ready_at.since_start() + late, Event::Timer);
        }
    }
}
