//! The calls that a scheduler knows: those that wait, those that are granted, those in flight.
//!
//! Ids are never used twice, so one that outlived its call finds nothing. The table is looked into,
//! never walked through, and gives its memory back when a burst is over.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::engine::pacer::Slot;
use crate::engine::queue::{Place, TenantIx};
use crate::engine::rate::Class;
use crate::engine::time::{Day, Mono};
use crate::engine::turnstile::Ticket;

/// Places that an empty table keeps.
const IDLE_CAPACITY: usize = 512;

/// A call, for as long as the scheduler knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(u64);

impl CallId {
    /// The call with this number; the shell never gives one twice.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// Something for each call.
pub type CallTable<T> = HashMap<CallId, T, BuildHasherDefault<InOrder>>;

/// Spreads numbers that are given in order, and that nobody outside chooses, by one multiplication
/// (Fibonacci hashing; Knuth, The Art of Computer Programming, volume 3, section 6.4).
#[derive(Clone, Copy, Debug, Default)]
pub struct InOrder(u64);

impl Hasher for InOrder {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // 2^64 over the golden ratio
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Stage {
    /// Its body is being read.
    Preparing,
    /// It waits in the queue.
    Waiting(Place),
    /// It has a slot; nothing has left.
    Granted { held: Held },
    /// Its bytes have left.
    InFlight { held: Held },
}

/// What a granted call holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Held {
    /// A slot of this process's pacer, and a counted call of a day.
    Slot { slot: Slot, day: Day },
    /// Both, from the store that several instances share.
    Ticket(Ticket),
}

impl Held {
    /// The day in which the call is counted.
    pub(super) const fn day(self) -> Day {
        match self {
            Self::Slot { day, .. } => day,
            Self::Ticket(ticket) => ticket.day,
        }
    }

    /// When the call left; the start of the clock when it has not.
    pub(super) fn sent_at(self) -> Mono {
        match self {
            Self::Slot { slot, .. } => slot.sent_at(),
            Self::Ticket(ticket) => ticket.sent.unwrap_or_default(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) tenant: TenantIx,
    pub(super) class: Class,
    pub(super) arrived: Mono,
    pub(super) deadline: Mono,
    /// Its place among its tenant's calls.
    pub(super) order: u64,
    pub(super) stage: Stage,
}

#[derive(Debug, Default)]
pub(super) struct Calls {
    table: CallTable<Call>,
}

impl Calls {
    pub(super) fn insert(&mut self, id: CallId, call: Call) {
        self.table.insert(id, call);
    }

    pub(super) fn find(&self, id: CallId) -> Option<&Call> {
        self.table.get(&id)
    }

    pub(super) fn find_mut(&mut self, id: CallId) -> Option<&mut Call> {
        self.table.get_mut(&id)
    }

    pub(super) fn remove(&mut self, id: CallId) -> Option<Call> {
        let call = self.table.remove(&id);
        if self.table.is_empty() {
            self.table.shrink_to(IDLE_CAPACITY);
        }
        call
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }
}
