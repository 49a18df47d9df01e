//! Who shares an API key's limits, and which part of them each may use by itself.
//!
//! A part is an interval of a whole that stands for any limit: of a limit of `n` slots, those whose
//! middles lie in it. Parts that do not overlap have no slot in common, whatever the limit, so
//! instances that lost their store and go on with their parts never use more than there is.

use std::time::Duration;

use super::terms::Stamp;
use crate::engine::time::Mono;

/// What parts are parts of.
pub(super) const WHOLE: u64 = 1 << 32;

/// A part of every limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Its begin.
    pub from: u64,
    /// Its end, which is not in it.
    pub to: u64,
}

impl Part {
    /// How many slots of a limit of so many are in it.
    #[must_use]
    pub fn slots(self, limit: u32) -> u32 {
        slots_in(&[self], limit)
    }
}

/// How many of `slots` are in any of these parts.
#[must_use]
pub(super) fn slots_in(parts: &[Part], slots: u32) -> u32 {
    let mut parts = parts.to_vec();
    parts.sort_unstable_by_key(|part| part.from);
    let (mut counted, mut reached) = (0_u32, 0);
    for part in parts {
        let from = part.from.max(reached);
        let to = part.to.max(from);
        counted = counted.saturating_add(below(to, slots).saturating_sub(below(from, slots)));
        reached = to;
    }
    counted
}

/// How many of `slots` have their middle below `at`: the `k` with `(2k + 1) / 2n < at / WHOLE`.
fn below(at: u64, slots: u32) -> u32 {
    let whole = u128::from(WHOLE);
    let twice = u128::from(at).saturating_mul(u128::from(slots).saturating_mul(2));
    let count = twice.saturating_sub(whole).div_ceil(whole.saturating_mul(2));
    u32::try_from(count).unwrap_or(u32::MAX).min(slots)
}

/// An instance on the roll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What tells its process from all others.
    pub id: String,
    /// What it is called: where it listens, on which host.
    pub name: String,
    /// What else it says of itself.
    pub details: String,
    /// When it last heard the store.
    pub seen: Stamp,
    /// Its part is left to it by the others; `None` when it need not be.
    pub away: Option<Away>,
    /// After so long without word from it, it is dead.
    pub dead_after: Duration,
    /// The part that it uses, and the one that it was last given.
    pub parts: [Part; 2],
    /// For so long at most it may have sent calls by itself of which it did not tell.
    pub untold: Duration,
}

/// For how long an instance's part is left to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Away {
    /// It is not heard of.
    Silent,
    /// It came back, and what it sent by itself is over after this.
    Back(Duration),
}

/// The roll as an instance last read it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roll {
    /// The store's clock.
    pub at: Stamp,
    /// Tells one history of the store from another.
    pub epoch: String,
    /// The part that this instance may use by itself.
    pub part: Part,
    /// All instances.
    pub members: Vec<Member>,
    /// Those that have ended a short time ago without having told what they used by themselves.
    pub gone: Vec<Member>,
}

/// What follows from the roll for one API key's slots.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    /// When the roll was asked for: it is not older.
    pub(super) asked: Option<Mono>,
    /// When it was read: the store was last heard before.
    pub(super) heard_at: Option<Mono>,
    /// When the roll before it was asked for, whose answer the store knows to be heard.
    pub(super) known_from: Option<Mono>,
    /// This instance's part.
    pub(super) part: Part,
    /// Parts that are left to others, and until when.
    left: Vec<(Part, Mono)>,
}

impl Standing {
    /// `longer` is what the window exceeds the shortest by.
    pub(super) fn read(&mut self, roll: &Roll, longer: Duration, asked: Mono, now: Mono) {
        let left = roll.members.iter().filter_map(|member| {
            let until = match member.away? {
                Away::Silent => Mono::NEVER,
                Away::Back(span) => now.plus(span).plus(longer),
            };
            Some(member.parts.map(|part| (part, until)))
        });
        *self = Self {
            asked: Some(asked),
            heard_at: Some(now),
            known_from: self.asked,
            part: roll.part,
            left: left.flatten().collect(),
        };
    }

    /// When the next part need not be left any more.
    pub(super) fn next_end(&self) -> Option<Mono> {
        self.left.iter().map(|(_, until)| *until).min().filter(|until| *until != Mono::NEVER)
    }

    /// How many of `slots` are left to others now.
    pub(super) fn left(&self, slots: u32, now: Mono) -> u32 {
        let left = self.left.iter().filter(|(_, until)| *until > now);
        let parts: Vec<Part> = left.map(|(part, _)| *part).collect();
        slots_in(&parts, slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(count: u64) -> Vec<Part> {
        let at = |n: u64| n * WHOLE / count;
        (0..count).map(|n| Part { from: at(n), to: at(n + 1) }).collect()
    }

    #[test]
    fn parts_share_all_slots_and_none_twice() {
        for count in 1..=25 {
            for slots in 1..=40 {
                let each: Vec<u32> =
                    parts(count).iter().map(|part| slots_in(&[*part], slots)).collect();
                assert_eq!(each.iter().sum::<u32>(), slots, "{count} share {slots}");
                let (least, most) = (each.iter().min().unwrap(), each.iter().max().unwrap());
                assert!(most - least <= 1, "{count} share {slots}: {each:?}");
            }
        }
    }

    #[test]
    fn a_part_is_left_to_an_instance_while_it_is_away_and_a_moment_longer() {
        let now = Mono::new(Duration::from_secs(100));
        let member = |id: &str, part, away| Member {
            id: id.to_owned(),
            name: id.to_owned(),
            details: String::new(),
            seen: Stamp(0),
            away,
            dead_after: Duration::from_mins(10),
            parts: [part, Part::default()],
            untold: Duration::ZERO,
        };
        let [a, b, c]: [Part; 3] = parts(3).try_into().unwrap();
        let back = Away::Back(Duration::from_secs(1));
        let members = vec![
            member("a", a, None),
            member("b", b, Some(Away::Silent)),
            member("c", c, Some(back)),
        ];
        let roll = Roll { members, part: a, ..Roll::default() };
        let mut standing = Standing::default();
        standing.read(&roll, Duration::ZERO, now, now);
        assert_eq!(standing.left(20, now), 13);
        assert_eq!(standing.left(20, now.plus(Duration::from_secs(1))), 6);
    }
}
