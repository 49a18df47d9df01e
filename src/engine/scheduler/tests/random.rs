//! Random worlds: whatever happens, the limits hold. Each comes from a seed that a failure prints.

use std::time::Duration;

use super::super::{Limits, Readiness};
use super::{GOOD, World, limits, name};
use crate::engine::outcome::Outcome;
use crate::engine::time::Mono;

/// A small generator (Marsaglia's xorshift) whose seed is the whole random world.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// One step of a random world: something arrives, leaves, ends, fails, or time passes.
fn random_step(world: &mut World, chance: &mut Chance, sent: &mut Vec<Mono>) {
    let tenant = ["a", "b", "c"][usize::try_from(chance.below(3)).unwrap()];
    match chance.below(12) {
        0..=3 => drop(world.call(tenant, chance.below(20_000))),
        4 => {
            if let Some((_, id)) = world.granted.pop() {
                world.scheduler.cancel(id, world.now);
                world.settle_commands();
            }
        }
        5 => world.store_fails = chance.below(4) == 0,
        6 => {
            let readiness =
                if chance.below(2) == 0 { Readiness::Waiting } else { Readiness::Ready };
            world.scheduler.set_tenant(&name(tenant), &readiness, false, 1, world.now);
            world.settle_commands();
        }
        7 => world.now.unix = world.now.unix.minus(Duration::from_secs(chance.below(7_200))),
        _ => world.pass(Duration::from_millis(chance.below(400))),
    }
    while world.granted.len() > usize::try_from(chance.below(4)).unwrap() {
        let (_, id) = world.granted.remove(0);
        let outcome = match chance.below(20) {
            0 => Outcome::Throttled,
            1 => Outcome::Lost,
            2 => Outcome::NotSent,
            _ => GOOD,
        };
        if outcome != Outcome::NotSent {
            sent.push(world.now.mono);
        }
        world.send(id, outcome);
    }
}

#[test]
fn whatever_happens_the_limits_hold_and_nothing_is_stuck() {
    for seed in 1..=200 {
        let mut chance = Chance(seed);
        let mut world = World::new(Limits { per_day: 300, ..limits("4") }).ready(&["a", "b", "c"]);
        let mut sent = Vec::new();
        for _ in 0..400 {
            random_step(&mut world, &mut chance, &mut sent);
        }
        for five in sent.windows(5) {
            let span = five[4].since(five[0]);
            assert!(span >= Duration::from_millis(1_060), "seed {seed}: five in {span:?}");
        }
        let left = u64::try_from(sent.len()).unwrap();
        assert!(
            left <= world.counted && world.counted <= 300,
            "seed {seed}: {left} of {}",
            world.counted
        );
        for (_, id) in std::mem::take(&mut world.granted) {
            world.send(id, GOOD);
        }
        world.store_fails = false;
        for tenant in ["a", "b", "c"] {
            world.scheduler.set_tenant(&name(tenant), &Readiness::Ready, false, 1, world.now);
        }
        world.settle_commands();
        world.serve(Duration::from_secs(60));
        let snapshot = world.scheduler.snapshot(world.now);
        assert_eq!((snapshot.depth, snapshot.in_flight), ([0; 3], 0), "seed {seed}");
    }
}
