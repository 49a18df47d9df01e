//! The order of waiting calls: classes share 8 : 3 : 1, tenants of a class take turns, a tenant's
//! calls keep order.
//!
//! Deficit round robin (Shreedhar and Varghese, 1995) with calls of cost one: at its turn a tenant
//! may send as many calls as its weight. A tenant that is held keeps its calls and its order but
//! gets no turn. The queue knows neither time nor limits; what it returns may leave, and whether it
//! does is the scheduler's decision.

mod lane;
mod watch;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::rate::Class;
use lane::{Asker, Lane};
use watch::note;

/// Shares of the classes: interactive, normal, bulk.
const CLASS_WEIGHTS: [u32; 3] = [8, 3, 1];

/// A tenant's place in the queue's table; dense and reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TenantIx {
    index: usize,
    /// Tells the tenants apart that had this place one after the other.
    generation: u32,
}

impl TenantIx {
    /// Its number.
    #[must_use]
    pub const fn index(self) -> usize {
        self.index
    }
}

/// A call's place in its tenant's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    tenant: TenantIx,
    class: Class,
    order: u64,
}

#[derive(Debug)]
struct Tenant<T> {
    generation: u32,
    waiting: [BTreeMap<u64, T>; 3],
    /// Its place in the rings of the classes.
    ticket: [Option<u64>; 3],
    turn_left: [u32; 3],
    held: [bool; 3],
    weight: u32,
}

/// The queue of one API key; `T` stands for a waiting call.
#[derive(Debug)]
pub struct FairQueue<T> {
    tenants: Vec<Option<Tenant<T>>>,
    /// Places to be used again, with the generation that comes next there.
    vacant: Vec<(usize, u32)>,
    lanes: [Lane; 3],
    /// Where the number of calls that may go has changed, for somebody who watches.
    changed: Option<BTreeSet<(TenantIx, Class)>>,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { tenants: Vec::new(), vacant: Vec::new(), lanes: Default::default(), changed: None }
    }
}

/// One element of a table with an entry for each class.
fn of<T>(table: &[T; 3], class: Class) -> &T {
    let [interactive, normal, bulk] = table;
    match class {
        Class::Interactive => interactive,
        Class::Normal => normal,
        Class::Bulk => bulk,
    }
}

fn of_mut<T>(table: &mut [T; 3], class: Class) -> &mut T {
    let [interactive, normal, bulk] = table;
    match class {
        Class::Interactive => interactive,
        Class::Normal => normal,
        Class::Bulk => bulk,
    }
}

impl<T: Copy> FairQueue<T> {
    /// Adds a tenant, which is held at first.
    pub fn add_tenant(&mut self, weight: u32) -> TenantIx {
        let (index, generation) = self.vacant.pop().unwrap_or((self.tenants.len(), 0));
        let tenant = Tenant {
            generation,
            waiting: Default::default(),
            ticket: [None; 3],
            turn_left: [0; 3],
            held: [true; 3],
            weight: weight.max(1),
        };
        match self.tenants.get_mut(index) {
            Some(place) => *place = Some(tenant),
            None => self.tenants.push(Some(tenant)),
        }
        let ix = TenantIx { index, generation };
        for lane in &mut self.lanes {
            lane.set_weight(ix, weight.max(1));
        }
        ix
    }

    /// Removes a tenant and returns the calls that it had waiting, in order.
    pub fn remove_tenant(&mut self, ix: TenantIx) -> Vec<T> {
        self.hold(ix);
        if self.tenant(ix).is_none() {
            return Vec::new();
        }
        let Some(tenant) = self.tenants.get_mut(ix.index).and_then(Option::take) else {
            return Vec::new();
        };
        for lane in &mut self.lanes {
            lane.leave(ix);
        }
        for class in Class::ALL {
            let lane = of_mut(&mut self.lanes, class);
            lane.depth = lane.depth.saturating_sub(of(&tenant.waiting, class).len());
        }
        self.vacant.push((ix.index, ix.generation.wrapping_add(1)));
        tenant.waiting.into_iter().flat_map(BTreeMap::into_values).collect()
    }

    /// Sets a tenant's share; it counts from its next turn.
    pub fn set_weight(&mut self, ix: TenantIx, weight: u32) {
        let Some(tenant) = of_tenant(&mut self.tenants, ix) else { return };
        if tenant.weight == weight.max(1) {
            return;
        }
        tenant.weight = weight.max(1);
        for lane in &mut self.lanes {
            lane.set_weight(ix, weight.max(1));
        }
    }

    /// Gives a tenant no further turn; its calls stay.
    pub fn hold(&mut self, ix: TenantIx) {
        self.hold_classes(ix, [true; 3]);
    }

    /// Gives a held tenant turns again.
    pub fn unhold(&mut self, ix: TenantIx) {
        self.hold_classes(ix, [false; 3]);
    }

    /// Holds a tenant in these classes, in the order of [`Class::ALL`], and not in the others.
    pub fn hold_classes(&mut self, ix: TenantIx, held: [bool; 3]) {
        for class in Class::ALL {
            self.set_held(ix, class, *of(&held, class));
        }
    }

    fn set_held(&mut self, ix: TenantIx, class: Class, held: bool) {
        let Some(tenant) = of_tenant(&mut self.tenants, ix) else { return };
        if std::mem::replace(of_mut(&mut tenant.held, class), held) == held {
            return;
        }
        let lane = of_mut(&mut self.lanes, class);
        let len = of(&tenant.waiting, class).len();
        lane.set_free(ix, if held { 0 } else { len });
        note(&mut self.changed, ix, class);
        let ticket = of_mut(&mut tenant.ticket, class);
        if !held && len > 0 && ticket.is_none() {
            *ticket = Some(lane.join(ix));
        }
    }

    /// Puts a call where `order` says among its tenant's others of the class; no two calls have the
    /// same.
    pub fn push(&mut self, ix: TenantIx, class: Class, order: u64, call: T) -> Place {
        let place = Place { tenant: ix, class, order };
        let Some(tenant) = of_tenant(&mut self.tenants, ix) else { return place };
        let lane = of_mut(&mut self.lanes, class);
        let waiting = of_mut(&mut tenant.waiting, class);
        waiting.insert(order, call);
        let len = waiting.len();
        lane.depth = lane.depth.saturating_add(1);
        if *of(&tenant.held, class) {
            return place;
        }
        lane.set_free(ix, len);
        note(&mut self.changed, ix, class);
        let ticket = of_mut(&mut tenant.ticket, class);
        if ticket.is_none() {
            *ticket = Some(lane.join(ix));
        }
        place
    }

    /// Takes out a call that gives up its place.
    pub fn remove(&mut self, place: Place) -> Option<T> {
        let Place { tenant: ix, class, order } = place;
        let tenant = of_tenant(&mut self.tenants, ix)?;
        let call = of_mut(&mut tenant.waiting, class).remove(&order)?;
        let left = of(&tenant.waiting, class).len();
        let lane = of_mut(&mut self.lanes, class);
        lane.depth = lane.depth.saturating_sub(1);
        if !*of(&tenant.held, class) {
            lane.set_free(ix, left);
            note(&mut self.changed, ix, class);
        }
        Some(call)
    }

    /// Whether a call of a class could be taken now.
    pub fn is_ready(&mut self, class: Class) -> bool {
        self.front(class).is_some()
    }

    /// Takes the call whose turn it is among the classes that are `open`, in the order of
    /// [`Class::ALL`]. A class that is not keeps its calls and its order and spends no credit.
    pub fn pop(&mut self, open: [bool; 3]) -> Option<T> {
        let class = self.class_in_turn(open)?;
        let ix = self.front(class)?;
        let lane = of_mut(&mut self.lanes, class);
        lane.credit = lane.credit.saturating_sub(1);
        let tenant = of_tenant(&mut self.tenants, ix)?;
        let turn_left = of_mut(&mut tenant.turn_left, class);
        if *turn_left == 0 {
            *turn_left = tenant.weight;
        }
        *turn_left = turn_left.saturating_sub(1);
        let turn_over = *turn_left == 0;
        let (_, call) = of_mut(&mut tenant.waiting, class).pop_first()?;
        let left = of(&tenant.waiting, class).len();
        if left == 0 {
            lane.drop_first();
            *of_mut(&mut tenant.ticket, class) = None;
            *of_mut(&mut tenant.turn_left, class) = 0;
        } else if turn_over {
            *of_mut(&mut tenant.ticket, class) = lane.rotate();
        }
        lane.depth = lane.depth.saturating_sub(1);
        lane.set_free(ix, left);
        note(&mut self.changed, ix, class);
        Some(call)
    }

    /// The class to serve: the most urgent one with credit left. Credits are given anew when no
    /// class that has something to send has any.
    fn class_in_turn(&mut self, open: [bool; 3]) -> Option<Class> {
        let ready = Class::ALL.map(|class| *of(&open, class) && self.front(class).is_some());
        let with_credit = |lanes: &[Lane; 3]| {
            Class::ALL.into_iter().find(|class| *of(&ready, *class) && of(lanes, *class).credit > 0)
        };
        if let Some(class) = with_credit(&self.lanes) {
            return Some(class);
        }
        for class in Class::ALL {
            of_mut(&mut self.lanes, class).credit = *of(&CLASS_WEIGHTS, class);
        }
        with_credit(&self.lanes)
    }

    /// The tenant in turn in a class, after dropping those that have nothing to send.
    fn front(&mut self, class: Class) -> Option<TenantIx> {
        let lane = of_mut(&mut self.lanes, class);
        while let Some(ix) = lane.first() {
            let Some(tenant) = of_tenant(&mut self.tenants, ix) else {
                lane.drop_first();
                continue;
            };
            if !*of(&tenant.held, class) && !of(&tenant.waiting, class).is_empty() {
                return Some(ix);
            }
            lane.drop_first();
            *of_mut(&mut tenant.ticket, class) = None;
            *of_mut(&mut tenant.turn_left, class) = 0;
        }
        None
    }

    /// How many calls of its class leave before a new one of this tenant, as [`FairQueue::ahead`]
    /// counts.
    #[must_use]
    pub fn ahead_in_class(&self, ix: Option<TenantIx>, class: Class) -> usize {
        let tenant = ix.and_then(|ix| Some((ix, self.tenant(ix)?)));
        let asker = tenant.map(|(ix, tenant)| Asker {
            ix,
            ticket: *of(&tenant.ticket, class),
            own: of(&tenant.waiting, class).len(),
            weight: usize::try_from(tenant.weight).unwrap_or(usize::MAX),
        });
        let lane = of(&self.lanes, class);
        let first = lane.first().and_then(|first| self.tenant(first));
        let turn_left = first.map_or(0, |first| *of(&first.turn_left, class));
        lane.ahead(asker.as_ref(), usize::try_from(turn_left).unwrap_or(usize::MAX))
    }

    /// How many calls leave before a new one of this tenant and class, when nothing else arrives
    /// and the tenant, if it is held, is let go now. One that the queue does not know is taken for
    /// a new tenant of weight one.
    #[must_use]
    pub fn ahead(&self, ix: Option<TenantIx>, class: Class) -> usize {
        let tenant = ix.and_then(|ix| self.tenant(ix));
        let of_class = self.ahead_in_class(ix, class);
        let lane = of(&self.lanes, class);

        let number = |calls: &u32| usize::try_from(*calls).unwrap_or(usize::MAX);
        // the round of credits in which the call goes, counted from the one under way
        let share = number(of(&CLASS_WEIGHTS, class)).max(1);
        let round = match of_class.checked_sub(number(&lane.credit)) {
            None => 0,
            Some(rest) => rest.checked_div(share).unwrap_or(rest).saturating_add(1),
        };
        let before = Class::ALL.map(|other| {
            // more urgent classes go first in a round, the others last
            let rounds = match other.cmp(&class) {
                Ordering::Less => Some(round),
                Ordering::Equal => return of_class,
                Ordering::Greater => round.checked_sub(1),
            };
            let lane = of(&self.lanes, other);
            let held = tenant.filter(|tenant| *of(&tenant.held, other));
            let let_go = held.map_or(0, |tenant| of(&tenant.waiting, other).len());
            let turns = rounds.map_or(0, |rounds| {
                number(of(&CLASS_WEIGHTS, other))
                    .saturating_mul(rounds)
                    .saturating_add(number(&lane.credit))
            });
            turns.min(lane.free.saturating_add(let_go))
        });
        before.into_iter().fold(0, usize::saturating_add)
    }

    /// Calls waiting in a class, held ones included.
    #[must_use]
    pub fn depth(&self, class: Class) -> usize {
        of(&self.lanes, class).depth
    }

    /// Calls of a tenant that wait.
    #[must_use]
    pub fn tenant_depth(&self, ix: TenantIx) -> usize {
        self.tenant(ix).map_or(0, |tenant| tenant.waiting.iter().map(BTreeMap::len).sum())
    }

    /// A tenant's waiting calls, in order within each class.
    pub fn waiting(&self, ix: TenantIx) -> impl Iterator<Item = T> {
        self.tenant(ix)
            .into_iter()
            .flat_map(|tenant| tenant.waiting.iter().flat_map(|class| class.values().copied()))
    }

    fn tenant(&self, ix: TenantIx) -> Option<&Tenant<T>> {
        let tenant = self.tenants.get(ix.index)?.as_ref()?;
        (tenant.generation == ix.generation).then_some(tenant)
    }
}

/// The tenant at `ix`, unless the place has gone to another.
fn of_tenant<T>(tenants: &mut [Option<Tenant<T>>], ix: TenantIx) -> Option<&mut Tenant<T>> {
    let tenant = tenants.get_mut(ix.index)?.as_mut()?;
    (tenant.generation == ix.generation).then_some(tenant)
}

#[cfg(test)]
mod tests;
