//! One class: whose turn comes when, and how many calls leave before a given one.
//!
//! The number of calls ahead is exact. A tenant's turns are known from its calls and its weight
//! alone, so `rounds[k]`, the calls that leave in the k-th turn of their tenant, changes by one
//! with each call; its sum is what the others send in as many turns. Who stands before a tenant in
//! the ring is found by ticket, and only the shorter side of the ring is looked at.

use std::collections::VecDeque;
use std::ops::Range;

use super::TenantIx;

/// A tenant in one class.
#[derive(Clone, Copy, Debug, Default)]
struct Member {
    /// Calls that may go: none while it is held.
    free: usize,
    weight: usize,
}

impl Member {
    /// Its calls that leave in its `turns` next turns.
    fn within(self, turns: usize) -> usize {
        self.free.min(self.weight.saturating_mul(turns))
    }

    /// Its calls that leave in a turn of which `turn_left` are left, and in `turns` more. They are
    /// more than full turns have when its weight was lowered meanwhile.
    fn after(self, turn_left: usize, turns: usize) -> usize {
        self.free.min(self.weight.saturating_mul(turns).saturating_add(turn_left))
    }
}

#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Tenants with a turn to come, with rising tickets; may hold tenants that have nothing left,
    /// which are passed over.
    ring: VecDeque<(u64, TenantIx)>,
    ticket_next: u64,
    pub(super) credit: u32,
    pub(super) depth: usize,
    /// Calls of tenants that are not held.
    pub(super) free: usize,
    members: Vec<Member>,
    /// Calls that leave in the k-th turn of their tenant, as if no turn were under way.
    rounds: Vec<u32>,
}

impl Lane {
    /// Puts a tenant last and returns its ticket.
    pub(super) fn join(&mut self, ix: TenantIx) -> u64 {
        let ticket = self.ticket_next;
        self.ticket_next = self.ticket_next.saturating_add(1);
        self.ring.push_back((ticket, ix));
        ticket
    }

    pub(super) fn first(&self) -> Option<TenantIx> {
        self.ring.front().map(|(_, ix)| *ix)
    }

    pub(super) fn drop_first(&mut self) {
        self.ring.pop_front();
    }

    /// The first goes last; its new ticket.
    pub(super) fn rotate(&mut self) -> Option<u64> {
        let (_, ix) = self.ring.pop_front()?;
        Some(self.join(ix))
    }

    pub(super) fn leave(&mut self, ix: TenantIx) {
        self.ring.retain(|(_, other)| *other != ix);
    }

    /// Sets how many calls of a tenant may go.
    pub(super) fn set_free(&mut self, ix: TenantIx, free: usize) {
        let Some(member) = self.members.get_mut(ix.index()) else { return };
        let before = std::mem::replace(&mut member.free, free);
        let weight = member.weight.max(1);
        self.free = self.free.saturating_sub(before).saturating_add(free);
        self.change_rounds(before..free, weight, u32::saturating_add);
        self.change_rounds(free..before, weight, u32::saturating_sub);
        while self.rounds.last() == Some(&0) {
            self.rounds.pop();
        }
    }

    fn change_rounds(&mut self, calls: Range<usize>, weight: usize, by_one: fn(u32, u32) -> u32) {
        for call in calls {
            let round = call.checked_div(weight).unwrap_or(call);
            if self.rounds.len() <= round {
                self.rounds.resize(round.saturating_add(1), 0);
            }
            if let Some(calls) = self.rounds.get_mut(round) {
                *calls = by_one(*calls, 1);
            }
        }
    }

    /// Sets a tenant's calls per turn.
    pub(super) fn set_weight(&mut self, ix: TenantIx, weight: u32) {
        if self.members.len() <= ix.index() {
            self.members.resize(ix.index().saturating_add(1), Member::default());
        }
        let free = self.member(ix).free;
        self.set_free(ix, 0);
        if let Some(member) = self.members.get_mut(ix.index()) {
            member.weight = usize::try_from(weight).unwrap_or(usize::MAX).max(1);
        }
        self.set_free(ix, free);
    }

    fn member(&self, ix: TenantIx) -> Member {
        self.members.get(ix.index()).copied().unwrap_or_default()
    }

    /// How many calls of this class leave before a new one of `asker`; of it, `own` wait already.
    /// `turn_left` is what is left of the turn of the first in the ring, zero when it has not
    /// begun.
    pub(super) fn ahead(&self, asker: Option<&Asker>, turn_left: usize) -> usize {
        let place = asker.and_then(|asker| self.place(asker.ticket?));
        let own = asker.map_or(0, |asker| asker.own);
        // the turn of the asker in which the call goes, counted from 0
        let own_first = if place == Some(0) { turn_left } else { 0 };
        let turn = asker.map_or(0, |asker| turn_of(own, asker.weight, own_first));
        // everybody's turns before, its own included, which are its calls
        let free_own = asker.map_or(0, |asker| self.member(asker.ix).within(turn));
        let everybody = self.in_turns(0, turn);
        let before = match place {
            None => self.in_turns(turn, turn.saturating_add(1)),
            Some(place) => self.before(place, turn),
        };
        let begun = self.first().filter(|_| turn_left > 0 && place != Some(0));
        let (full, rest) = begun.map_or((0, 0), |first| {
            let member = self.member(first);
            (member.within(turn.saturating_add(1)), member.after(turn_left, turn))
        });
        let others = everybody.saturating_sub(free_own).saturating_add(before);
        others.saturating_add(rest).saturating_sub(full).saturating_add(own)
    }

    fn place(&self, ticket: u64) -> Option<usize> {
        self.ring.binary_search_by_key(&ticket, |(ticket, _)| *ticket).ok()
    }

    /// Calls that leave in the turns from `from` up to, not with, `to` of their tenants.
    fn in_turns(&self, from: usize, to: usize) -> usize {
        let rounds = self.rounds.get(from..to.min(self.rounds.len())).unwrap_or_default();
        let calls: u64 = rounds.iter().map(|calls| u64::from(*calls)).sum();
        usize::try_from(calls).unwrap_or(usize::MAX)
    }

    fn in_turn(&self, ix: TenantIx, turn: usize) -> usize {
        let member = self.member(ix);
        member.within(turn.saturating_add(1)).saturating_sub(member.within(turn))
    }

    /// Calls that leave in turn `turn` of the tenants before `place`.
    fn before(&self, place: usize, turn: usize) -> usize {
        let sum = |from: usize, to: usize| -> usize {
            self.ring.range(from..to).map(|(_, ix)| self.in_turn(*ix, turn)).sum()
        };
        let len = self.ring.len();
        if place <= len.saturating_sub(place) {
            return sum(0, place);
        }
        let all = self.in_turns(turn, turn.saturating_add(1));
        all.saturating_sub(sum(place, len))
    }
}

/// Who asks how many calls are ahead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    pub(super) ix: TenantIx,
    pub(super) ticket: Option<u64>,
    pub(super) own: usize,
    pub(super) weight: usize,
}

/// The turn in which a tenant's call goes that has `own` before it, when `turn_left` calls are left
/// of a turn that has begun.
fn turn_of(own: usize, weight: usize, turn_left: usize) -> usize {
    let first = if turn_left > 0 { turn_left } else { weight.max(1) };
    match own.checked_sub(first) {
        None => 0,
        Some(rest) => rest.checked_div(weight.max(1)).unwrap_or(rest).saturating_add(1),
    }
}
