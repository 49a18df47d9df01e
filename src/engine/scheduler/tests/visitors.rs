//! Callers with tokens of their own: served in turn, and forgotten.

use super::*;

fn visitor(mark: &str) -> TenantName {
    TenantName::of_visitor(mark)
}

impl World {
    fn visit(&mut self, mark: &str) -> CallId {
        self.scheduler.visit(&visitor(mark), self.now);
        let arrival = Arrival {
            tenant: visitor(mark),
            class: Class::Normal,
            deadline: self.now.mono.plus(Duration::from_secs(600)),
            entry: Entry::Back,
        };
        self.enqueue(&arrival).unwrap()
    }
}

#[test]
fn a_visitor_needs_no_token_and_shares_slots_in_turn() {
    let mut world = World::new(limits("4")).ready(&["a"]);
    for _ in 0..20 {
        world.call("a", 60_000).unwrap();
    }
    let many: Vec<_> = (0..20).map(|_| world.visit("many")).collect();
    let one = world.visit("one");
    world.serve(Duration::from_secs(2));
    let served: Vec<_> = world.served.iter().map(|(_, id)| *id).collect();
    assert!(served.iter().position(|id| *id == one).unwrap() <= 6, "{served:?}");
    assert!(served.iter().filter(|id| many.contains(id)).count() >= 2);
    assert_eq!(world.demanded, []);
}

#[test]
fn made_up_names_fill_no_memory_and_lose_no_waiting_call() {
    let mut world = World::new(limits("4"));
    world.scheduler.pause();
    let waiting = world.visit("waiting");
    for number in 0..5_000 {
        let id = world.visit(&number.to_string());
        world.scheduler.cancel(id, world.now);
        world.now.mono = world.now.mono.plus(Duration::from_millis(1));
    }
    assert!(world.scheduler.visitors() <= 4_096, "{}", world.scheduler.visitors());
    world.scheduler.resume(world.now);
    world.settle_commands();
    world.serve(Duration::from_secs(2));
    assert!(world.served.iter().any(|(_, id)| *id == waiting));
}

#[test]
fn idle_visitors_are_forgotten_and_connected_tenants_are_not() {
    let mut world = World::new(limits("4")).ready(&["a"]);
    for mark in ["x", "y"] {
        world.visit(mark);
    }
    world.call("a", 60_000).unwrap();
    world.serve(Duration::from_secs(5));
    world.pass(Duration::from_secs(14 * 60));
    world.visit("y");
    world.serve(Duration::from_secs(60));
    world.scheduler.forget_idle_visitors(world.now);
    assert_eq!(world.scheduler.visitors(), 1);
    let known: Vec<_> = world.scheduler.tenant_snapshots(world.now);
    let mut names: Vec<_> = known.iter().map(|seen| seen.tenant.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["a", "~y"]);
    let again = world.visit("x");
    world.serve(Duration::from_secs(2));
    assert!(world.served.iter().any(|(_, id)| *id == again));
}

#[test]
fn a_visitor_is_forgotten_when_it_was_idle_for_a_quarter_of_an_hour_to_the_moment() {
    let mut world = World::new(limits("4"));
    assert_eq!(world.scheduler.visitors(), 0);
    world.visit("x");
    world.visit("y");
    world.serve(Duration::from_secs(1));
    assert_eq!(world.scheduler.visitors(), 2);
    world.pass(Duration::from_millis(899_000 - 1));
    world.scheduler.forget_idle_visitors(world.now);
    assert_eq!(world.scheduler.visitors(), 2);
    world.pass(Duration::from_millis(1));
    world.scheduler.forget_idle_visitors(world.now);
    assert_eq!(world.scheduler.visitors(), 0);
}

#[test]
fn a_visitor_whose_call_is_still_being_read_is_not_forgotten() {
    let mut world = World::new(limits("4"));
    world.scheduler.visit(&visitor("slow"), world.now);
    let arrival = Arrival {
        tenant: visitor("slow"),
        class: Class::Normal,
        deadline: world.now.mono.plus(Duration::from_secs(3_600)),
        entry: Entry::WhenPrepared,
    };
    let id = world.enqueue(&arrival).unwrap();
    world.pass(Duration::from_secs(20 * 60));
    world.scheduler.forget_idle_visitors(world.now);
    assert_eq!(world.scheduler.visitors(), 1);
    world.scheduler.prepared(id, world.now);
    world.settle_commands();
    world.serve(Duration::from_secs(2));
    assert!(world.served.iter().any(|(_, served)| *served == id));
}
