//! Shares and starvation: who is served how often when everybody wants more.

use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, proptest};

use crate::engine::queue::{FairQueue, TenantIx};
use crate::engine::rate::Class;

/// Tenants that wait for turns, each call standing for its tenant and class.
struct Backlog {
    queue: FairQueue<(usize, Class)>,
    tenants: Vec<TenantIx>,
    order: u64,
}

impl Backlog {
    fn new(weights: &[u32]) -> Self {
        let mut queue = FairQueue::default();
        let tenants: Vec<_> = weights.iter().map(|weight| queue.add_tenant(*weight)).collect();
        for ix in &tenants {
            queue.unhold(*ix);
        }
        Self { queue, tenants, order: 1 }
    }

    fn push(&mut self, tenant: usize, class: Class) {
        self.queue.push(self.tenants[tenant], class, self.order, (tenant, class));
        self.order += 1;
    }

    /// Takes the next call and puts another in its place.
    fn turn(&mut self) -> (usize, Class) {
        let (tenant, class) = self.queue.pop([true; 3]).unwrap();
        self.push(tenant, class);
        (tenant, class)
    }
}

fn class() -> impl Strategy<Value = Class> {
    proptest::sample::select(Class::ALL.to_vec())
}

proptest! {
    #[test]
    fn tenants_share_by_weight_within_one_quantum_over_any_interval(
        weights in proptest::collection::vec(1..6_u32, 2..7),
        skipped in 0..60_usize,
        interval in 1..200_usize,
    ) {
        let mut backlog = Backlog::new(&weights);
        for tenant in 0..weights.len() {
            (0..8).for_each(|_| backlog.push(tenant, Class::Normal));
        }
        for _ in 0..skipped {
            backlog.turn();
        }
        let mut served = vec![0_u32; weights.len()];
        (0..interval).for_each(|_| served[backlog.turn().0] += 1);
        for (one, of_one) in served.iter().zip(&weights) {
            for (other, of_other) in served.iter().zip(&weights) {
                let apart = (one * of_other).abs_diff(other * of_one);
                prop_assert!(apart <= of_one * of_other, "{served:?} of {weights:?}");
            }
        }
    }

    #[test]
    fn classes_share_exactly_in_any_twelve(skipped in 0..40_usize, tenants in 1..5_usize) {
        let mut backlog = Backlog::new(&vec![1; tenants]);
        for tenant in 0..tenants {
            for class in Class::ALL {
                (0..30).for_each(|_| backlog.push(tenant, class));
            }
        }
        let classes: Vec<Class> = (0..skipped + 12).map(|_| backlog.turn().1).collect();
        let of = |class| classes[skipped..].iter().filter(|other| **other == class).count();
        prop_assert_eq!(Class::ALL.map(of), [8, 3, 1]);
    }

    #[test]
    fn nobody_starves_whatever_arrives_after(
        weights in proptest::collection::vec(1..4_u32, 2..6),
        own in 0..6_usize,
        class in class(),
        before in proptest::collection::vec((1..6_usize, class()), 0..60),
        after in proptest::collection::vec((1..6_usize, class()), 2_000),
    ) {
        let count = weights.len();
        let mut backlog = Backlog::new(&weights);
        for (tenant, class) in before {
            backlog.push(1 + tenant % (count - 1), class);
        }
        (0..=own).for_each(|_| backlog.push(0, class));
        let depth = backlog.queue.tenant_depth(backlog.tenants[0]);
        // its turns, in each of which every tenant of the class has one, and one begun before
        let turns = u32::try_from(depth).unwrap() / weights[0] + 2;
        let of_class = turns * weights.iter().sum::<u32>();
        let share = [8, 3, 1][class as usize];
        let bound = usize::try_from((of_class / share + 2) * 12).unwrap();
        let mut left = depth;
        for (pops, pushes) in after.chunks(2).enumerate() {
            for (tenant, class) in pushes {
                backlog.push(1 + tenant % (count - 1), *class);
            }
            left -= usize::from(backlog.queue.pop([true; 3]).unwrap().0 == 0);
            if left == 0 {
                break;
            }
            prop_assert!(pops < bound, "{left} of {depth} wait after {pops} calls");
        }
        prop_assert_eq!(left, 0);
    }
}
