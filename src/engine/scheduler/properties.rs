//! The promises of the scheduler over random histories, held to by a model that keeps its own log
//! of what left and its own list of who waits.

mod shares;
mod world;

use std::time::Duration;

use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

use super::Readiness;
use crate::engine::outcome::{Health, Outcome};
use crate::engine::rate::Class;
use world::{Event, How, TENANTS, World};

fn readiness() -> impl Strategy<Value = Option<Readiness>> {
    prop_oneof![
        4 => Just(Some(Readiness::Ready)),
        2 => Just(Some(Readiness::Waiting)),
        1 => Just(Some(Readiness::NeedsAuthorization { reason: "revoked".into() })),
        // gone
        1 => Just(None),
    ]
}

fn class() -> impl Strategy<Value = Class> {
    proptest::sample::select(Class::ALL.to_vec())
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        12 => Just(Outcome::Answered(Health::Good)),
        2 => Just(Outcome::Answered(Health::Error)),
        2 => Just(Outcome::Throttled),
        2 => Just(Outcome::NotSent),
        1 => Just(Outcome::Lost),
        1 => Just(Outcome::Edge),
        1 => Just(Outcome::Capped),
        1 => Just(Outcome::QuotaExceeded),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let how = prop_oneof![5 => Just(How::Back), 1 => Just(How::Unprepared), 1 => Just(How::Again)];
    prop_oneof![
        14 => (0..TENANTS, class(), how, 0_u64..40_000)
            .prop_map(|(tenant, class, how, wait)| Event::Arrive { tenant, class, how, wait }),
        3 => any::<usize>().prop_map(Event::Leave),
        3 => any::<usize>().prop_map(Event::Prepared),
        12 => any::<usize>().prop_map(Event::Send),
        12 => (any::<usize>(), outcome()).prop_map(|(at, outcome)| Event::End(at, outcome)),
        6 => any::<bool>().prop_map(Event::Claimed),
        2 => any::<bool>().prop_map(Event::Pause),
        4 => (0..TENANTS, readiness(), any::<bool>(), 1..4_u32)
            .prop_map(|(n, readiness, paused, weight)| Event::Tenant(n, readiness, paused, weight)),
        1 => (0..TENANTS).prop_map(Event::TokenRefused),
        1 => proptest::sample::select(vec!["1", "4", "10"]).prop_map(Event::Reload),
        1 => (-90_000_i64..90_000).prop_map(Event::Step),
        12 => (0_u64..900).prop_map(Event::Pass),
        1 => (1_000_u64..60_000).prop_map(Event::Pass),
    ]
}

proptest! {
    #[test]
    fn promises_hold_in_every_history(
        events in proptest::collection::vec(event(), 1..200),
        per_day in proptest::sample::select(vec![30_u64, 10_000, 1_000_000]),
        in_flight_max in proptest::sample::select(vec![2_usize, 64]),
    ) {
        let mut world = World::new(per_day, in_flight_max);
        for event in events {
            world.apply(event);
        }
        world.turn_good();
    }

    #[test]
    fn the_wait_that_is_foreseen_is_right_within_one_spacing(
        backlog in proptest::collection::vec((0..TENANTS, class()), 0..60),
        weights in proptest::collection::vec(1..4_u32, TENANTS),
        held in 0..TENANTS,
        rest in 0_u64..1_500,
        tenant in 0..TENANTS,
        class in class(),
    ) {
        let mut world = World::new(1_000_000, 64);
        for (n, weight) in weights.into_iter().enumerate() {
            world.apply(Event::Tenant(n, Some(Readiness::Ready), n == held && n != tenant, weight));
        }
        for (tenant, class) in backlog {
            world.apply(Event::Arrive { tenant, class, how: How::Back, wait: 600_000 });
        }
        world.serve(Duration::from_millis(rest));
        let wait = world.foreseen(tenant, class);
        let left = world.departure(tenant, class);
        let off = left.saturating_sub(wait).max(wait.saturating_sub(left));
        assert!(off <= Duration::from_millis(265), "foreseen {wait:?}, left after {left:?}");
    }
}
