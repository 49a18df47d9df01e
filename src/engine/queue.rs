//! The order of waiting calls: classes share 8 : 3 : 1, tenants of a class take turns, a tenant's
//! calls keep order.
//!
//! Deficit round robin (Shreedhar and Varghese, 1995) with calls of cost one: at its turn a tenant
//! may send as many calls as its weight. A tenant that is held keeps its calls and its order but
//! gets no turn. The queue knows neither time nor limits; what it returns may leave, and whether it
//! does is the scheduler's decision.

use std::collections::{BTreeMap, VecDeque};

use super::rate::Class;

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
    in_ring: [bool; 3],
    turn_left: [u32; 3],
    held: [bool; 3],
    weight: u32,
}

#[derive(Debug, Default)]
struct Lane {
    /// Tenants with a turn to come; may hold tenants that have nothing left, which are passed over.
    ring: VecDeque<TenantIx>,
    credit: u32,
    depth: usize,
    /// Calls of tenants that are not held.
    free: usize,
    /// `longer[k]`: tenants that are not held and have more than `k` calls waiting.
    longer: Vec<u32>,
}

/// The queue of one API key; `T` stands for a waiting call.
#[derive(Debug)]
pub struct FairQueue<T> {
    tenants: Vec<Option<Tenant<T>>>,
    /// Places to be used again, with the generation that comes next there.
    vacant: Vec<(usize, u32)>,
    lanes: [Lane; 3],
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { tenants: Vec::new(), vacant: Vec::new(), lanes: Default::default() }
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
            in_ring: [false; 3],
            turn_left: [0; 3],
            held: [true; 3],
            weight: weight.max(1),
        };
        match self.tenants.get_mut(index) {
            Some(place) => *place = Some(tenant),
            None => self.tenants.push(Some(tenant)),
        }
        TenantIx { index, generation }
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
            lane.ring.retain(|other| *other != ix);
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
        if let Some(tenant) = of_tenant(&mut self.tenants, ix) {
            tenant.weight = weight.max(1);
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
        if lane.longer.len() < len {
            lane.longer.resize(len, 0);
        }
        for tenants in lane.longer.iter_mut().take(len) {
            *tenants = if held { tenants.saturating_sub(1) } else { tenants.saturating_add(1) };
        }
        lane.free =
            if held { lane.free.saturating_sub(len) } else { lane.free.saturating_add(len) };
        if !held && len > 0 && !*of(&tenant.in_ring, class) {
            *of_mut(&mut tenant.in_ring, class) = true;
            lane.ring.push_back(ix);
        }
    }

    /// Puts a call where `order` says among its tenant's others of the class; no two calls have the
    /// same.
    pub fn push(&mut self, ix: TenantIx, class: Class, order: u64, call: T) -> Place {
        let place = Place { tenant: ix, class, order };
        let Some(tenant) = of_tenant(&mut self.tenants, ix) else { return place };
        let lane = of_mut(&mut self.lanes, class);
        let waiting = of_mut(&mut tenant.waiting, class);
        let len = waiting.len();
        waiting.insert(order, call);
        lane.depth = lane.depth.saturating_add(1);
        if lane.longer.len() <= len {
            lane.longer.resize(len.saturating_add(1), 0);
        }
        if *of(&tenant.held, class) {
            return place;
        }
        lane.free = lane.free.saturating_add(1);
        if let Some(tenants) = lane.longer.get_mut(len) {
            *tenants = tenants.saturating_add(1);
        }
        if !*of(&tenant.in_ring, class) {
            *of_mut(&mut tenant.in_ring, class) = true;
            lane.ring.push_back(ix);
        }
        place
    }

    /// Takes out a call that gives up its place.
    pub fn remove(&mut self, place: Place) -> Option<T> {
        let Place { tenant: ix, class, order } = place;
        let tenant = of_tenant(&mut self.tenants, ix)?;
        let call = of_mut(&mut tenant.waiting, class).remove(&order)?;
        let left = of(&tenant.waiting, class).len();
        let held = *of(&tenant.held, class);
        self.one_less(class, left, held);
        Some(call)
    }

    fn one_less(&mut self, class: Class, left: usize, held: bool) {
        let lane = of_mut(&mut self.lanes, class);
        lane.depth = lane.depth.saturating_sub(1);
        if !held {
            lane.free = lane.free.saturating_sub(1);
            if let Some(tenants) = lane.longer.get_mut(left) {
                *tenants = tenants.saturating_sub(1);
            }
        }
        while lane.longer.len() > 64 && lane.longer.last() == Some(&0) {
            lane.longer.pop();
        }
    }

    /// Whether a call could be taken now.
    pub fn is_ready(&mut self) -> bool {
        Class::ALL.into_iter().any(|class| self.front(class).is_some())
    }

    /// Takes the call whose turn it is.
    pub fn pop(&mut self) -> Option<T> {
        let class = self.class_in_turn()?;
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
            lane.ring.pop_front();
            *of_mut(&mut tenant.in_ring, class) = false;
            *of_mut(&mut tenant.turn_left, class) = 0;
        } else if turn_over {
            lane.ring.rotate_left(1);
        }
        self.one_less(class, left, false);
        Some(call)
    }

    /// The class to serve: the most urgent one with credit left. Credits are given anew when no
    /// class that has something to send has any.
    fn class_in_turn(&mut self) -> Option<Class> {
        let ready = Class::ALL.map(|class| self.front(class).is_some());
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
        while let Some(ix) = lane.ring.front().copied() {
            let Some(tenant) = of_tenant(&mut self.tenants, ix) else {
                lane.ring.pop_front();
                continue;
            };
            if !*of(&tenant.held, class) && !of(&tenant.waiting, class).is_empty() {
                return Some(ix);
            }
            lane.ring.pop_front();
            *of_mut(&mut tenant.in_ring, class) = false;
            *of_mut(&mut tenant.turn_left, class) = 0;
        }
        None
    }

    /// How many calls leave before a new one of this tenant and class, as things stand.
    #[must_use]
    pub fn ahead(&self, ix: TenantIx, class: Class) -> usize {
        let own = self.tenant(ix).map_or(0, |tenant| of(&tenant.waiting, class).len());
        let weight =
            self.tenant(ix).map_or(1, |tenant| usize::try_from(tenant.weight).unwrap_or(1));
        let lane = of(&self.lanes, class);
        // its turns until then; the others are taken to have a weight of one
        let rounds = own.checked_div(weight).unwrap_or(own).saturating_add(1);
        let held = self.tenant(ix).is_none_or(|tenant| *of(&tenant.held, class));
        let in_rounds: usize = lane
            .longer
            .iter()
            .take(rounds)
            .map(|tenants| usize::try_from(*tenants).unwrap_or(usize::MAX))
            .fold(0, usize::saturating_add);
        // of its own all are ahead, not one a turn
        let own_counted = if held { 0 } else { own.min(rounds) };
        let in_rounds = in_rounds.saturating_add(own).saturating_sub(own_counted);
        let own_turn = in_rounds.saturating_add(1);
        let share = usize::try_from(*of(&CLASS_WEIGHTS, class)).unwrap_or(1);
        Class::ALL.into_iter().filter(|other| *other != class).fold(in_rounds, |sum, other| {
            let weight = usize::try_from(*of(&CLASS_WEIGHTS, other)).unwrap_or(1);
            let turns = own_turn.saturating_mul(weight).div_ceil(share.max(1));
            sum.saturating_add(turns.min(of(&self.lanes, other).free))
        })
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
