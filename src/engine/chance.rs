//! Chance in the engine: a seed that replays exactly, and waits that are spread by it.

use std::time::Duration;

/// A small generator (splitmix64; Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", 2014). Not for secrets.
#[derive(Clone, Copy, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The generator of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A part of `span`, less than the whole, in steps of a 65,536th.
    pub fn part_of(&mut self, span: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // the last step of the original changes none of the upper bits
        let parts = u32::try_from(z >> 48).unwrap_or_default();
        span.checked_div(65_536).unwrap_or_default().saturating_mul(parts)
    }

    /// `span`, longer by less than a quarter.
    pub fn stretch(&mut self, span: Duration) -> Duration {
        span.saturating_add(self.part_of(span.checked_div(4).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_replays_and_another_differs() {
        let spans = |seed| {
            let mut chance = Chance::new(seed);
            [(); 8].map(|()| chance.stretch(Duration::from_secs(60)))
        };
        assert_eq!(spans(3), spans(3));
        assert_ne!(spans(3), spans(4));
    }

    #[test]
    fn the_parts_are_those_of_splitmix64() {
        // the reference's first numbers for the seed 0: e220a8397b1dcdaf 6e789e6aa1b965f4
        // 06c45d188009454f
        let mut chance = Chance::new(0);
        let parts = [(); 3].map(|()| chance.part_of(Duration::from_secs(65_536)).as_secs());
        assert_eq!(parts, [0xe220, 0x6e78, 0x06c4]);
    }

    #[test]
    fn parts_are_less_than_the_whole_and_spread_over_it() {
        let mut chance = Chance::new(1);
        let parts: Vec<u64> =
            (0..1_000).map(|_| chance.part_of(Duration::from_secs(256)).as_secs()).collect();
        assert!(parts.iter().all(|part| *part < 256));
        for quarter in 0..4 {
            let within = parts.iter().filter(|part| **part / 64 == quarter).count();
            assert!((180..320).contains(&within), "{within} in quarter {quarter}");
        }
    }
}
