//! The queue as somebody sees it who decides whose turn it is elsewhere: where calls wait, what of
//! that has changed, and calls taken out of turn.

use std::collections::BTreeSet;

use super::{FairQueue, Place, TenantIx, of};
use crate::engine::rate::Class;

impl<T: Copy> FairQueue<T> {
    /// Takes the first call of a tenant and class out of turn; `None` while it has none or is held.
    pub fn pop_of(&mut self, ix: TenantIx, class: Class) -> Option<T> {
        let tenant = self.tenant(ix).filter(|tenant| !*of(&tenant.held, class))?;
        let (order, _) = of(&tenant.waiting, class).first_key_value()?;
        self.remove(Place { tenant: ix, class, order: *order })
    }

    /// Remembers from now on where something changes, for [`FairQueue::take_changed`].
    pub fn watch(&mut self) {
        self.changed = Some(BTreeSet::new());
        self.change_all();
    }

    /// All places count as changed.
    pub fn change_all(&mut self) {
        let known = self.tenants.iter().enumerate();
        let known = known.filter_map(|(index, tenant)| {
            Some(TenantIx { index, generation: tenant.as_ref()?.generation })
        });
        for ix in known {
            for class in Class::ALL {
                note(&mut self.changed, ix, class);
            }
        }
    }

    /// Where the number of calls that may go may have changed since this was last asked.
    pub fn take_changed(&mut self) -> BTreeSet<(TenantIx, Class)> {
        self.changed.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Calls of a tenant and class that may go.
    #[must_use]
    pub fn free(&self, ix: TenantIx, class: Class) -> usize {
        let tenant = self.tenant(ix).filter(|tenant| !*of(&tenant.held, class));
        tenant.map_or(0, |tenant| of(&tenant.waiting, class).len())
    }

    /// A tenant's share.
    #[must_use]
    pub fn weight(&self, ix: TenantIx) -> u32 {
        self.tenant(ix).map_or(1, |tenant| tenant.weight)
    }
}

/// Remembers a change, where anybody watches.
pub(super) fn note(changed: &mut Option<BTreeSet<(TenantIx, Class)>>, ix: TenantIx, class: Class) {
    if let Some(changed) = changed {
        changed.insert((ix, class));
    }
}
