//! Shares of tenants and classes, and order within them.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

mod estimate;

fn queue(weights: &[u32]) -> (FairQueue<u32>, Vec<TenantIx>) {
    let mut queue = FairQueue::default();
    let tenants: Vec<_> = weights.iter().map(|weight| queue.add_tenant(*weight)).collect();
    for ix in &tenants {
        queue.unhold(*ix);
    }
    (queue, tenants)
}

/// The orders of calls that arrive one after the other; the first is 1, so that 0 is before all.
fn next() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn drain(queue: &mut FairQueue<u32>) -> Vec<u32> {
    std::iter::from_fn(|| queue.pop([true; 3])).take(1_000).collect()
}

#[test]
fn tenants_take_turns_and_keep_their_order() {
    let (mut queue, tenants) = queue(&[1, 1, 1]);
    for call in 0..5 {
        queue.push(tenants[0], Class::Normal, next(), call);
    }
    queue.push(tenants[1], Class::Normal, next(), 10);
    queue.push(tenants[2], Class::Normal, next(), 20);
    queue.push(tenants[2], Class::Normal, next(), 21);
    assert_eq!(drain(&mut queue), [0, 10, 20, 1, 21, 2, 3, 4]);
}

#[test]
fn a_tenant_that_comes_back_at_once_waits_for_the_others() {
    let (mut queue, tenants) = queue(&[1, 1]);
    queue.push(tenants[0], Class::Normal, next(), 0);
    queue.push(tenants[1], Class::Normal, next(), 10);
    queue.push(tenants[1], Class::Normal, next(), 11);
    assert_eq!(queue.pop([true; 3]), Some(0));
    queue.push(tenants[0], Class::Normal, next(), 1);
    assert_eq!(drain(&mut queue), [10, 1, 11]);
}

#[test]
fn weights_are_calls_per_turn() {
    let (mut queue, tenants) = queue(&[2, 1]);
    for call in 0..4 {
        queue.push(tenants[0], Class::Normal, next(), call);
        queue.push(tenants[1], Class::Normal, next(), 10 + call);
    }
    assert_eq!(drain(&mut queue), [0, 1, 10, 2, 3, 11, 12, 13]);
}

#[test]
fn classes_share_eight_three_one() {
    let (mut queue, tenants) = queue(&[1]);
    for _ in 0..24 {
        for (call, class) in (0..).zip(Class::ALL) {
            queue.push(tenants[0], class, next(), call);
        }
    }
    let first: Vec<u32> = (0..24).filter_map(|_| queue.pop([true; 3])).collect();
    let of = |class| first.iter().filter(|call| **call == class).count();
    assert_eq!((of(0), of(1), of(2)), (16, 6, 2));
}

#[test]
fn a_held_tenant_gets_no_turn_and_loses_nothing() {
    let (mut queue, tenants) = queue(&[1, 1]);
    queue.push(tenants[0], Class::Normal, next(), 0);
    queue.push(tenants[0], Class::Normal, next(), 1);
    queue.push(tenants[1], Class::Normal, next(), 10);
    queue.hold(tenants[0]);
    assert_eq!(drain(&mut queue), [10]);
    assert!(!Class::ALL.into_iter().any(|class| queue.is_ready(class)));
    queue.unhold(tenants[0]);
    assert_eq!(drain(&mut queue), [0, 1]);
}

#[test]
fn a_tenant_has_one_place_and_from_its_first_call_on() {
    let (mut queue, tenants) = queue(&[1, 1]);
    queue.push(tenants[1], Class::Normal, next(), 10);
    queue.push(tenants[0], Class::Normal, next(), 0);
    assert_eq!(drain(&mut queue), [10, 0]);
    for call in 0..3 {
        queue.push(tenants[0], Class::Normal, next(), call);
        queue.push(tenants[1], Class::Normal, next(), 10 + call);
    }
    queue.hold(tenants[0]);
    queue.unhold(tenants[0]);
    assert_eq!(drain(&mut queue), [0, 10, 1, 11, 2, 12]);
}

#[test]
fn a_repeat_goes_first_and_a_leaver_frees_its_place() {
    let (mut queue, tenants) = queue(&[1]);
    queue.push(tenants[0], Class::Normal, next(), 0);
    let leaver = queue.push(tenants[0], Class::Normal, next(), 1);
    queue.push(tenants[0], Class::Normal, 0, 9);
    assert_eq!(queue.remove(leaver), Some(1));
    assert_eq!(queue.remove(leaver), None);
    assert_eq!(queue.depth(Class::Normal), 2);
    assert_eq!(drain(&mut queue), [9, 0]);
}

#[test]
fn the_estimate_is_the_number_of_calls_that_leave_before() {
    let (mut queue, tenants) = queue(&[1, 1, 1]);
    for call in 0..50 {
        queue.push(tenants[0], Class::Normal, next(), call);
    }
    for call in 0..3 {
        queue.push(tenants[1], Class::Normal, next(), 100 + call);
    }
    for (ix, expected) in [(2, 2), (1, 7), (0, 53)] {
        let ahead = queue.ahead(Some(tenants[ix]), Class::Normal);
        assert_eq!(ahead, expected, "tenant {ix}");
    }
    let place = queue.push(tenants[2], Class::Normal, next(), 999);
    let before = drain(&mut queue).iter().position(|call| *call == 999).unwrap();
    assert!(before <= 2);
    assert_eq!(queue.remove(place), None);
    assert_eq!(queue.ahead(Some(tenants[2]), Class::Normal), 0);
}

#[test]
fn a_lowered_weight_counts_from_the_next_turn() {
    let (mut queue, tenants) = queue(&[3, 1]);
    for call in 0..5 {
        queue.push(tenants[0], Class::Normal, next(), call);
    }
    assert_eq!(queue.pop([true; 3]), Some(0));
    queue.set_weight(tenants[0], 1);
    assert_eq!(queue.ahead(Some(tenants[1]), Class::Normal), 2);
    queue.push(tenants[1], Class::Normal, next(), 10);
    assert_eq!(queue.ahead(Some(tenants[1]), Class::Normal), 4);
    queue.push(tenants[1], Class::Normal, next(), 11);
    assert_eq!(drain(&mut queue), [1, 2, 10, 3, 11, 4]);
}

#[test]
fn a_removed_tenant_returns_its_calls() {
    let (mut queue, tenants) = queue(&[1, 1]);
    queue.push(tenants[0], Class::Bulk, next(), 7);
    queue.push(tenants[1], Class::Bulk, next(), 8);
    assert_eq!(queue.remove_tenant(tenants[0]), [7]);
    assert_eq!(queue.depth(Class::Bulk), 1);
    let again = queue.add_tenant(1);
    assert_eq!(again.index(), tenants[0].index());
    assert_ne!(again, tenants[0], "an old index finds nothing of the new tenant");
    assert_eq!(drain(&mut queue), [8]);
}

#[test]
fn a_removed_tenant_leaves_no_place_to_its_successor() {
    let (mut queue, tenants) = queue(&[1, 1, 1]);
    for ix in &tenants {
        queue.push(*ix, Class::Normal, next(), 0);
    }
    queue.remove_tenant(tenants[0]);
    let again = queue.add_tenant(1);
    queue.unhold(again);
    queue.push(again, Class::Normal, next(), 0);
    queue.push(again, Class::Normal, next(), 0);
    assert_eq!(queue.ahead(Some(tenants[1]), Class::Normal), 3);
}

#[test]
fn a_class_that_may_not_go_keeps_its_calls_its_order_and_its_credit() {
    let mut queue = FairQueue::default();
    let ix = queue.add_tenant(1);
    queue.unhold(ix);
    for number in 0..40 {
        queue.push(ix, Class::Normal, number, number);
        queue.push(ix, Class::Bulk, 100 + number, 100 + number);
    }
    let without_bulk: Vec<u64> = (0..20).filter_map(|_| queue.pop([true, true, false])).collect();
    assert_eq!(without_bulk, (0..20).collect::<Vec<_>>());
    assert_eq!((queue.pop([true, false, false]), queue.depth(Class::Bulk)), (None, 40));
    let both: Vec<u64> = (0..8).filter_map(|_| queue.pop([true; 3])).collect();
    let bulk: Vec<u64> = both.into_iter().filter(|call| *call >= 100).collect();
    assert_eq!(bulk, [100, 101], "three to one again, from the first on");
}
