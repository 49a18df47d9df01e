//! Tenants whose calls are held by an operator: nothing is begun for them unasked.

use super::*;

/// A world where tenant 0 has no usable token and the lane is busy with another's.
fn busy() -> World {
    let mut world = World::new();
    world.load(0, None);
    world.load(1, None);
    world.pass(secs(1));
    world.demand(1, secs(30));
    assert_eq!(world.order(), Command::Begin { tenant: tenant(1), version: 1 });
    world
}

impl World {
    /// Ends the other's refresh and gives the lane its rest.
    fn free_the_lane(&mut self) {
        self.keeper.begun(&tenant(1), 1, Write::Done(()), self.now);
        assert!(matches!(self.order(), Command::Refresh { .. }));
        let access_expires_at = Some(self.now.unix.plus(DAY));
        let received = RefreshResult::Received { access_expires_at };
        self.keeper.refreshed(&tenant(1), 1, received, self.now);
        assert_eq!(self.order(), Command::Persist { tenant: tenant(1), version: 1 });
        self.keeper.persisted(&tenant(1), 1, Write::Done(2), self.now);
        self.pass(secs(1));
    }

    fn hold(&mut self, held: bool) {
        self.keeper.hold(&tenant(0), held, self.now);
    }
}

#[test]
fn a_held_tenant_is_not_refreshed_for_a_waiting_caller_until_it_is_released() {
    let mut world = busy();
    world.hold(true);
    world.demand(0, secs(30));
    world.free_the_lane();
    assert_eq!(world.orders(), []);
    world.hold(false);
    assert_eq!(world.order(), Command::Begin { tenant: tenant(0), version: 1 });
}

#[test]
fn an_order_of_before_is_dropped_and_one_of_after_is_carried_out() {
    let mut world = busy();
    world.keeper.refresh_now(&tenant(0), world.now);
    world.hold(true);
    world.free_the_lane();
    assert_eq!(world.orders(), [], "the order of before");
    world.hold(false);
    assert_eq!(world.orders(), [], "it does not come back");
    world.hold(true);
    world.keeper.refresh_now(&tenant(0), world.now);
    assert_eq!(world.order(), Command::Begin { tenant: tenant(0), version: 1 });
}

#[test]
fn a_release_changes_no_order() {
    let mut world = busy();
    world.hold(false);
    world.free_the_lane();
    assert_eq!(world.orders(), [], "a release orders nothing");
    let mut world = busy();
    world.keeper.refresh_now(&tenant(0), world.now);
    world.hold(false);
    world.free_the_lane();
    assert_eq!(world.order(), Command::Begin { tenant: tenant(0), version: 1 });
}
