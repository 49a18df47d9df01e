//! Chance, and how long things take: one way over a network, in the upstream, until an
//! acknowledgement. Delays are independent of each other, so that calls may overtake.

use std::time::Duration;

/// Numbers that a seed decides (`SplitMix64`; Steele, Lea and Flood, "Fast splittable pseudorandom
/// number generators", 2014).
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// At least 0 and below 1.
    pub(crate) fn unit(&mut self) -> f64 {
        let high = u32::try_from(self.next() >> 32).expect("32 bits are left");
        f64::from(high) / (f64::from(u32::MAX) + 1.0)
    }

    pub(crate) fn between(&mut self, least: f64, most: f64) -> f64 {
        least + (most - least) * self.unit()
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    /// Drawn again for as long as it is above `most`.
    fn exponential_up_to(&mut self, mean: f64, most: f64) -> f64 {
        loop {
            let drawn = self.exponential(mean);
            if drawn <= most {
                return drawn;
            }
        }
    }

    /// Standard normal (Box and Muller, 1958).
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}

pub(crate) fn ms(ms: f64) -> Duration {
    Duration::from_secs_f64(ms / 1_000.0)
}

/// A path to the upstream and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// 1 to 5 ms each way, evenly.
    Lan,
    /// 5 to 50 ms each way: 5 ms and an exponential of mean 12 ms.
    Wan,
    /// The same, and 1 % of the ways take 50 to 300 ms more.
    Spikes,
    /// 20 to 400 ms each way: 20 ms and an exponential of mean 60 ms.
    Mobile,
}

impl Network {
    pub(crate) const ALL: [Self; 4] = [Self::Lan, Self::Wan, Self::Spikes, Self::Mobile];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lan => "lan",
            Self::Wan => "wan",
            Self::Spikes => "wan, spikes",
            Self::Mobile => "mobile",
        }
    }

    /// One way.
    pub(crate) fn way(self, chance: &mut Chance) -> Duration {
        ms(match self {
            Self::Lan => chance.between(1.0, 5.0),
            Self::Wan => 5.0 + chance.exponential_up_to(12.0, 45.0),
            Self::Spikes => {
                let spike = chance.unit() < 0.01;
                let extra = if spike { chance.between(50.0, 300.0) } else { 0.0 };
                5.0 + chance.exponential_up_to(12.0, 45.0) + extra
            }
            Self::Mobile => 20.0 + chance.exponential_up_to(60.0, 380.0),
        })
    }
}

/// From an edge in front of the upstream to what counts: 2 ms and an exponential of mean 20 ms, at
/// most 100 ms.
pub(crate) fn behind_edge(chance: &mut Chance) -> Duration {
    ms(2.0 + chance.exponential_up_to(20.0, 98.0))
}

/// What the upstream takes for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// 5 ms.
    Short,
    /// Lognormal of mean 300 ms; the logarithm spreads by 0.5.
    Slow,
    /// Exponential of mean 80 ms.
    Uneven,
}

impl Server {
    pub(crate) const ALL: [Self; 3] = [Self::Short, Self::Slow, Self::Uneven];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Short => "5 ms",
            Self::Slow => "300 ms lognormal",
            Self::Uneven => "80 ms exponential",
        }
    }

    pub(crate) fn takes(self, chance: &mut Chance) -> Duration {
        const SPREAD: f64 = 0.5;
        ms(match self {
            Self::Short => 5.0,
            // the mean of a lognormal lies above its median by exp(spread²/2)
            Self::Slow => 300.0 * (SPREAD * chance.normal() - SPREAD * SPREAD / 2.0).exp(),
            Self::Uneven => chance.exponential(80.0),
        })
    }
}
