//! The number of calls ahead, against a queue that is drained to see.

use proptest::prelude::{Just, Strategy, prop_assert_eq, prop_oneof, proptest};

use super::*;

const TENANTS: usize = 6;

#[derive(Clone, Copy, Debug)]
enum Step {
    Push(usize, Class, u8),
    Pop(u8),
    Remove(usize),
    Hold(usize),
    Unhold(usize),
    Weight(usize, u32),
    Replace(usize),
}

fn class() -> impl Strategy<Value = Class> {
    proptest::sample::select(Class::ALL.to_vec())
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..TENANTS, class(), 1..6_u8)
            .prop_map(|(n, class, calls)| Step::Push(n, class, calls)),
        6 => (1..8_u8).prop_map(Step::Pop),
        2 => (0..200_usize).prop_map(Step::Remove),
        1 => (0..TENANTS).prop_map(Step::Hold),
        2 => (0..TENANTS).prop_map(Step::Unhold),
        1 => (0..TENANTS, 1..5_u32).prop_map(|(n, weight)| Step::Weight(n, weight)),
        1 => (0..TENANTS).prop_map(Step::Replace),
        1 => Just(Step::Pop(60)),
    ]
}

proptest! {
    #[test]
    fn the_calls_ahead_are_those_that_leave_before(
        steps in proptest::collection::vec(step(), 1..80),
        asker in 0..TENANTS,
        class in class(),
    ) {
        let (mut queue, mut tenants) = queue(&[1, 1, 2, 3, 1, 4]);
        let mut places = Vec::new();
        for (order, step) in (1..).zip(steps) {
            match step {
                Step::Push(n, class, calls) => {
                    for call in 0..u64::from(calls) {
                        places.push(queue.push(tenants[n], class, order * 10 + call, 0));
                    }
                }
                Step::Pop(calls) => { for _ in 0..calls { queue.pop([true; 3]); } }
                Step::Remove(at) if !places.is_empty() => {
                    queue.remove(places.swap_remove(at % places.len()));
                }
                Step::Remove(_) => {}
                Step::Hold(n) => queue.hold(tenants[n]),
                Step::Unhold(n) => queue.unhold(tenants[n]),
                Step::Weight(n, weight) => queue.set_weight(tenants[n], weight),
                Step::Replace(n) => {
                    queue.remove_tenant(tenants[n]);
                    tenants[n] = queue.add_tenant(2);
                }
            }
        }
        let ahead = queue.ahead(Some(tenants[asker]), class);
        queue.push(tenants[asker], class, u64::MAX, 1);
        queue.unhold(tenants[asker]);
        let left = drain(&mut queue).iter().position(|call| *call == 1);
        prop_assert_eq!(left, Some(ahead));
    }

    #[test]
    fn a_new_tenant_waits_for_one_turn_of_the_others(
        pushes in proptest::collection::vec((0..TENANTS, class()), 0..60),
        pops in 0..20_u8,
        class in class(),
    ) {
        let (mut queue, tenants) = queue(&[1, 1, 2, 3, 1, 4]);
        for (order, (n, class)) in (1..).zip(pushes) {
            queue.push(tenants[n], class, order, 0);
        }
        for _ in 0..pops { queue.pop([true; 3]); }
        let ahead = queue.ahead(None, class);
        let new = queue.add_tenant(1);
        queue.unhold(new);
        queue.push(new, class, 1_000, 1);
        prop_assert_eq!(drain(&mut queue).iter().position(|call| *call == 1), Some(ahead));
    }
}
