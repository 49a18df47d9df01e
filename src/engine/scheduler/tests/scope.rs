//! A refusal holds what it concerns and nothing else.

use std::collections::BTreeMap;

use super::*;
use crate::engine::chance::Chance;
use crate::engine::foreign::ForeignUse;
use crate::engine::scheduler::Hold;

const FORBIDDEN: Outcome = Outcome::Answered(Health::Forbidden);
const UNAUTHORIZED: Outcome = Outcome::Answered(Health::Unauthorized);
const MIN: Duration = Duration::from_secs(60);

impl World {
    fn call_as(&mut self, tenant: &str, class: Class, wait: Duration) -> Result<CallId, Refusal> {
        let deadline = self.now.mono.plus(wait);
        self.enqueue(&Arrival { tenant: name(tenant), class, deadline, entry: Entry::Back })
    }

    /// Lets a call of an otherwise idle key go, and ends it.
    fn end_one(&mut self, tenant: &str, class: Class, outcome: Outcome) {
        self.granted.clear();
        let call = self.call_as(tenant, class, MIN).unwrap();
        self.pass(Duration::from_secs(2));
        assert_eq!(self.granted.pop().map(|(_, id)| id), Some(call), "{tenant} {class:?}");
        self.send(call, outcome);
    }

    /// How long the tenant's calls are held from now, as a new call is told.
    fn held_for(&mut self, tenant: &str, class: Class) -> Duration {
        match self.call_as(tenant, class, Duration::ZERO) {
            Err(Refusal::WaitTooLong { estimate }) => estimate,
            other => {
                self.granted.clear();
                panic!("{other:?}")
            }
        }
    }

    /// The holds that were told, without their spans.
    fn holds(&self) -> Vec<(&str, Hold)> {
        let told = self.news.iter().filter_map(|news| match news {
            News::Held { tenant, hold, .. } => Some((tenant.as_str(), *hold)),
            News::Alone { .. } | News::Forecast { .. } | News::ForeignUse(_) => None,
        });
        told.collect()
    }

    fn new_token(&mut self, tenant: &str) {
        self.scheduler.token_refused(&name(tenant), self.now);
        self.pass(Duration::from_millis(100));
        self.scheduler.set_tenant(&name(tenant), &Readiness::Ready, false, 1, self.now);
        self.settle_commands();
    }
}

#[track_caller]
fn is_about(span: Duration, least: Duration) {
    assert!(span + Duration::from_secs(3) >= least && span <= least + least / 4, "{span:?}");
}

#[test]
fn throttled_closes_the_key_for_a_window_for_everybody() {
    let mut world = World::new(limits("10")).ready(&["a", "b", "c"]);
    let first = world.call_as("a", Class::Bulk, MIN).unwrap();
    for class in Class::ALL {
        for tenant in ["a", "b", "c"] {
            world.call_as(tenant, class, MIN).unwrap();
        }
    }
    world.granted.clear();
    let refused_at = world.now.mono;
    world.send(first, Outcome::Throttled);
    world.pass(Duration::from_secs(5));
    assert_eq!(world.granted.len(), 9);
    let first = world.granted[0].0.since(refused_at);
    assert!(first >= Duration::from_millis(1_060) && first <= Duration::from_millis(1_100));
}

#[test]
fn a_limit_behind_the_gateway_holds_the_bulk_calls_of_its_tenant() {
    let mut world = World::new(limits("4")).ready(&["a", "b"]);
    world.end_one("a", Class::Bulk, Outcome::Capped);
    assert_eq!(world.holds(), [("a", Hold::Capped)]);
    is_about(world.held_for("a", Class::Bulk), MIN);
    for (tenant, class) in
        [("a", Class::Interactive), ("a", Class::Normal), ("b", Class::Bulk), ("b", Class::Normal)]
    {
        world.end_one(tenant, class, GOOD);
    }
    let seen = world.scheduler.tenant(&name("a"), world.now).unwrap();
    assert!(seen.capped_until.is_some() && seen.denied_until.is_none());
    // one that may wait so long goes when the pause is over
    let patient = world.call_as("a", Class::Bulk, MIN * 2).unwrap();
    world.granted.clear();
    world.pass(MIN + MIN / 4);
    assert_eq!(world.granted.pop().map(|(_, id)| id), Some(patient));
    world.end_one("a", Class::Normal, GOOD);
    world.send(patient, Outcome::Capped);
    is_about(world.held_for("a", Class::Bulk), MIN * 2);
    world.pass(MIN * 3);
    world.end_one("a", Class::Bulk, GOOD);
    world.end_one("a", Class::Bulk, Outcome::Capped);
    is_about(world.held_for("a", Class::Bulk), MIN);
}

#[test]
fn a_limit_behind_the_gateway_holds_nothing_where_no_bulk_call_met_it() {
    let mut world = World::new(limits("4")).ready(&["a"]);
    world.end_one("a", Class::Normal, Outcome::Capped);
    assert_eq!(world.holds(), []);
    for _ in 0..2 {
        world.end_one("a", Class::Bulk, GOOD);
    }
    assert_eq!(world.scheduler.tenant(&name("a"), world.now).unwrap().errors_today, 1);
}

#[test]
fn a_row_of_refused_calls_pauses_their_tenant_alone() {
    let mut world = World::new(limits("4")).ready(&["a", "b"]);
    for _ in 0..9 {
        world.end_one("a", Class::Normal, FORBIDDEN);
    }
    world.end_one("a", Class::Normal, GOOD);
    for _ in 0..9 {
        world.end_one("a", Class::Normal, FORBIDDEN);
        world.end_one("b", Class::Normal, FORBIDDEN);
        world.end_one("b", Class::Normal, GOOD);
    }
    assert_eq!(world.holds(), []);
    world.end_one("a", Class::Normal, FORBIDDEN);
    assert_eq!(world.holds(), [("a", Hold::Denied)]);
    for class in Class::ALL {
        is_about(world.held_for("a", class), MIN);
        world.end_one("b", class, GOOD);
    }
    world.pass(MIN * 2);
    world.end_one("a", Class::Normal, FORBIDDEN);
    is_about(world.held_for("a", Class::Normal), MIN * 2);
    assert!(world.scheduler.tenant(&name("a"), world.now).unwrap().denied_until.is_some());
    // another token may be the cure; if it is not, the next pause is longer still
    world.new_token("a");
    world.end_one("a", Class::Normal, FORBIDDEN);
    is_about(world.held_for("a", Class::Normal), MIN * 4);
    world.scheduler.forgive(&name("a"), world.now);
    for _ in 0..9 {
        world.end_one("a", Class::Normal, FORBIDDEN);
    }
    assert_eq!(world.holds().len(), 3);
}

#[test]
fn a_repeat_that_cannot_outlive_a_pause_is_told_at_once() {
    let mut world = World::new(limits("4")).ready(&["a"]);
    for _ in 0..10 {
        world.end_one("a", Class::Normal, FORBIDDEN);
    }
    let first = CallId::new(0);
    let mut again = |wait| {
        let deadline = world.now.mono.plus(wait);
        let entry = Entry::Again { first };
        world.enqueue(&Arrival { tenant: name("a"), class: Class::Normal, deadline, entry })
    };
    assert!(matches!(again(MIN / 2), Err(Refusal::WaitTooLong { .. })));
    assert!(again(MIN * 2).is_ok());
}

#[test]
fn calls_that_left_with_one_token_refuse_it_once() {
    let mut world = World::new(limits("10")).ready(&["a"]);
    for _ in 0..12 {
        world.call_as("a", Class::Normal, MIN).unwrap();
    }
    world.pass(Duration::from_secs(3));
    for (_, call) in std::mem::take(&mut world.granted) {
        world.send(call, UNAUTHORIZED);
    }
    assert_eq!(world.holds(), []);
    world.new_token("a");
    world.end_one("a", Class::Normal, GOOD);
}

#[test]
fn a_tenant_whose_every_token_is_refused_pauses_and_more_tokens_do_not_help() {
    let mut world = World::new(limits("10")).ready(&["a", "b"]);
    for _ in 0..9 {
        world.end_one("a", Class::Normal, UNAUTHORIZED);
        world.new_token("a");
    }
    assert_eq!(world.holds(), []);
    world.end_one("a", Class::Normal, UNAUTHORIZED);
    world.new_token("a");
    assert_eq!(world.holds(), [("a", Hold::Denied)]);
    is_about(world.held_for("a", Class::Normal), MIN);
    world.end_one("b", Class::Normal, GOOD);
    world.scheduler.forgive(&name("a"), world.now);
    world.end_one("a", Class::Normal, GOOD);
}

#[test]
fn an_operators_pause_and_the_upstreams_do_not_end_each_other() {
    let mut world = World::new(limits("4")).ready(&["a"]);
    for _ in 0..10 {
        world.end_one("a", Class::Normal, FORBIDDEN);
    }
    let waits = world.call_as("a", Class::Normal, MIN * 9).unwrap();
    let set = |world: &mut World, paused| {
        world.scheduler.set_tenant(&name("a"), &Readiness::Ready, paused, 1, world.now);
        world.settle_commands();
    };
    set(&mut world, true);
    world.pass(MIN * 2);
    assert_eq!(world.granted, []);
    set(&mut world, false);
    assert_eq!(world.granted.pop().map(|(_, id)| id), Some(waits));
}

#[test]
fn an_edge_pauses_the_key_for_longer_each_time_and_briefly_after_a_good_answer() {
    let mut world = World::new(limits("10")).ready(&["a"]);
    let mut pause = Duration::ZERO;
    for least in [1, 2, 4, 8, 16, 32, 60, 60] {
        let call = world.call("a", 120_000).unwrap();
        world.granted.clear();
        world.send(call, Outcome::Edge);
        pause = world.held_for("a", Class::Interactive);
        let least = Duration::from_secs(least);
        assert!(pause >= least && pause <= least + least / 4, "{pause:?} for {least:?}");
        world.pass(pause);
    }
    assert_ne!(pause, Duration::from_secs(60), "without jitter");
    world.end_one("a", Class::Normal, GOOD);
    world.end_one("a", Class::Normal, Outcome::Edge);
    assert!(world.held_for("a", Class::Normal) < Duration::from_secs(2));
}

#[test]
fn slow_refusals_of_an_edge_do_not_make_its_pause_longer() {
    let mut world = World::new(limits("10")).ready(&["a"]);
    let calls: Vec<_> = (0..6).map(|_| world.call("a", 60_000).unwrap()).collect();
    world.pass(Duration::from_secs(1));
    for call in &calls {
        world.scheduler.sent(*call, world.now);
    }
    for call in calls {
        world.scheduler.settle(call, Outcome::Edge, world.now);
        world.pass(Duration::from_secs(5));
    }
    world.granted.clear();
    let next = world.call("a", 60_000).unwrap();
    assert_eq!(world.granted.pop().map(|(_, id)| id), Some(next));
}

#[test]
fn a_day_spent_by_others_is_told_and_the_next_one_leaves_room_for_them() {
    let mut world = World::new(Limits { per_day: 100, ..limits("4") }).ready(&["a"]);
    let count = |world: &mut World, class| {
        let mut sent = 0;
        while let Ok(call) = world.call_as("a", class, MIN) {
            world.granted.clear();
            world.pass(Duration::from_secs(1));
            if !world.refused.iter().any(|(id, _)| *id == call) {
                world.send(call, GOOD);
                sent += 1;
            }
        }
        sent
    };
    for _ in 0..69 {
        world.end_one("a", Class::Normal, GOOD);
    }
    world.end_one("a", Class::Normal, Outcome::QuotaExceeded);
    let since = Some(world.now.unix);
    let seen = ForeignUse { since, calls_today: 30 };
    assert_eq!(world.news, [News::ForeignUse(seen)]);
    assert_eq!(world.scheduler.snapshot(world.now).foreign, seen);
    assert_eq!(world.call("a", 30_000), Err(Refusal::DaySpent), "no loop of refusals");
    world.pass(Duration::from_secs(43_200));
    world.pass(Duration::from_secs(31));
    let snapshot = world.scheduler.snapshot(world.now);
    assert_eq!((snapshot.foreign.since, snapshot.foreign.calls_today), (since, 0));
    assert_eq!((snapshot.day_limit, snapshot.day_remaining), (100, 100), "the limit stays");
    for _ in 0..85 {
        world.end_one("a", Class::Interactive, GOOD);
    }
    assert_eq!(world.call("a", 60_000), Err(Refusal::DayKept));
    assert_eq!(count(&mut world, Class::Bulk), 0);
    assert_eq!(count(&mut world, Class::Interactive), 15);
    world.pass(Duration::from_secs(86_400));
    world.pass(Duration::from_secs(3));
    let quiet = News::ForeignUse(ForeignUse::default());
    assert_eq!(world.news.last(), Some(&quiet));
    for _ in 0..93 {
        world.end_one("a", Class::Interactive, GOOD);
    }
    assert_eq!(world.call("a", 60_000), Err(Refusal::DayKept));
    assert_eq!(count(&mut world, Class::Interactive), 7);
}

#[test]
fn throttled_three_times_in_a_row_is_told_once() {
    let mut world = World::new(limits("4")).ready(&["a"]);
    for told in [0, 0, 1, 1] {
        world.end_one("a", Class::Normal, Outcome::Throttled);
        world.pass(Duration::from_secs(2));
        assert_eq!(world.news.len(), told);
    }
    assert_eq!(world.scheduler.snapshot(world.now).foreign.calls_today, 4);
}

#[test]
fn a_day_refused_just_after_its_turn_is_no_sign_of_others() {
    let mut world = World::new(limits("4")).ready(&["a"]);
    world.pass(Duration::from_secs(43_203));
    world.end_one("a", Class::Normal, Outcome::QuotaExceeded);
    assert_eq!(world.news, []);
}

/// When the calls of `quiet` were granted, while those of `loud` ended as `ends` says; `loud` has
/// so many more of them in each class.
fn grants_of_the_quiet(
    seed: u64,
    more: usize,
    mut ends: impl FnMut() -> Outcome,
) -> BTreeMap<i32, Mono> {
    let mut chance = Chance::new(seed);
    let mut below = |bound: u64| {
        let part = chance.stretch(Duration::from_millis(1_024)).as_millis() - 1_024;
        u64::try_from(part).unwrap() % bound
    };
    // the day is no matter here
    let large = Limits { per_day: 1_000_000, ..limits("4") };
    let mut world = World::new(large).ready(&["quiet", "loud"]);
    let mut owners = BTreeMap::new();
    let mut moments = BTreeMap::new();
    for (number, class) in (1_000..).zip(Class::ALL.repeat(more)) {
        let call = world.call_as("loud", class, MIN * 30).unwrap();
        owners.insert(call, ("loud", number));
    }
    for number in 0..900 {
        if number < 300 {
            let class = Class::ALL[usize::try_from(below(3)).unwrap()];
            let tenant = if below(3) == 0 { "quiet" } else { "loud" };
            let call = world.call_as(tenant, class, MIN * 30).unwrap();
            owners.insert(call, (tenant, number));
        }
        world.pass(Duration::from_millis(100 + below(400)));
        for (at, call) in std::mem::take(&mut world.granted) {
            let (tenant, number) = owners[&call];
            let outcome = if tenant == "loud" { ends() } else { GOOD };
            if tenant == "quiet" {
                moments.insert(number, at);
            }
            world.send(call, outcome);
        }
    }
    moments
}

#[test]
fn what_is_refused_to_one_tenant_delays_no_other() {
    // a bulk call's turn comes once in twelve slots, and every other one of them is the neighbour's
    let tolerance = Duration::from_millis(2 * 12 * 265);
    for seed in 1..=40 {
        // with a neighbour that never has nothing to send, a tenant gets its fair share and no more
        let share = grants_of_the_quiet(seed, 500, || GOOD);
        for refusal in [Outcome::Capped, FORBIDDEN, UNAUTHORIZED] {
            let mut chance = Chance::new(seed);
            let moments = grants_of_the_quiet(seed, 0, || {
                let often = chance.stretch(Duration::from_secs(1)) > Duration::from_millis(1_060);
                if often { refusal } else { GOOD }
            });
            for (number, latest) in &share {
                let at = moments[number];
                assert!(at <= latest.plus(tolerance), "seed {seed} {refusal:?}: {at:?} {latest:?}");
            }
        }
    }
}
