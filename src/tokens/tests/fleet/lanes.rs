//! One token lane for all instances.

use super::*;
use crate::engine::token::Cause;

#[tokio::test(start_paused = true)]
async fn fifty_callers_on_each_of_three_instances_are_one_token_request() {
    let fleet = Fleet::with_tenants(1).await;
    fleet.upstream.script([Turn::Good(Duration::from_millis(700))]);
    for instance in &fleet.instances {
        assert_eq!(instance.state(0), Readiness::Waiting);
        (0..50).for_each(|wait| instance.demand(0, secs(10 + wait)));
    }
    tokio::time::sleep(Duration::from_millis(1_800)).await;
    fleet.assert_current(0).await;
    tokio::time::sleep(secs(100)).await;
    assert_eq!(fleet.upstream.seen().len(), 1);
    assert!(fleet.instances.iter().all(|instance| instance.alarms() == 0));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_ordered_on_two_instances_at_once_serves_both() {
    let fleet = Fleet::with_tenants(1).await;
    fleet.upstream.script([Turn::Good(secs(5))]);
    fleet.instances[0].tokens.refresh(&name(0)).await.unwrap();
    fleet.upstream.arrived.notified().await;
    fleet.instances[1].tokens.refresh(&name(0)).await.unwrap();
    fleet.instances[1].demand(0, secs(30));
    tokio::time::sleep(secs(60)).await;
    fleet.assert_current(0).await;
    assert_eq!(fleet.upstream.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn ten_tenants_in_demand_everywhere_keep_one_pace() {
    let fleet = Fleet::with_tenants(10).await;
    let delays = [0, 300, 1_700, 20];
    fleet.upstream.script((0..10).map(|n| Turn::Good(Duration::from_millis(delays[n % 4]))));
    for (n, instance) in (0..10).flat_map(|n| fleet.instances.iter().map(move |it| (n, it))) {
        instance.demand(n, secs(600 - n as u64));
    }
    tokio::time::sleep(secs(60)).await;
    assert_eq!(fleet.upstream.seen().len(), 10, "each tenant once");
    fleet.assert_paced();
    for n in 0..10 {
        fleet.assert_current(n).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_begins_before_the_new_tokens_are_stored() {
    let fleet = Fleet::with_tenants(1).await;
    fleet.instances[0].link.slow("finish_refresh", secs(25));
    fleet.instances[0].demand(0, secs(60));
    fleet.upstream.arrived.notified().await;
    fleet.instances[1].demand(0, secs(60));
    tokio::time::sleep(secs(60)).await;
    assert_eq!(fleet.upstream.seen().len(), 1, "the lane is held until then");
    fleet.assert_current(0).await;
}

#[tokio::test(start_paused = true)]
async fn tokens_that_cannot_be_stored_stop_the_others_for_two_minutes_at_most() {
    let fleet = Fleet::with_tenants(2).await;
    fleet.instances[0].link.fail("finish_refresh");
    fleet.instances[0].demand(0, secs(600));
    fleet.upstream.arrived.notified().await;
    fleet.instances[1].demand(1, secs(600));
    tokio::time::sleep(secs(100)).await;
    assert_eq!(fleet.upstream.seen().len(), 1);
    assert!(fleet.instances[0].version(0).is_some(), "they serve where they came");
    tokio::time::sleep(secs(30)).await;
    fleet.assert_current(1).await;
    fleet.instances[0].link.mend();
    tokio::time::sleep(secs(70)).await;
    fleet.assert_current(0).await;
}

#[tokio::test(start_paused = true)]
async fn an_errand_and_a_refresh_on_two_instances_share_the_lane() {
    let fleet = Fleet::with_tenants(1).await;
    let deadline = fleet.clock.mono().plus(secs(60));
    let mut errand = fleet.instances[0].tokens.errand(&key(), deadline).await.unwrap();
    let other = fleet.instances[2].tokens.clone();
    fleet.instances[1].demand(0, secs(60));
    tokio::time::sleep(secs(20)).await;
    assert_eq!(fleet.upstream.seen().len(), 0, "the lane is kept for as long as it is lent");
    errand.answered(&RefreshAnswer::InvalidGrant);
    let answered = fleet.clock.mono();
    tokio::time::sleep(secs(5)).await;
    let seen = fleet.upstream.seen();
    assert!(seen[0].arrived.since(answered) >= secs(1), "the rest after its answer");
    assert!(seen[0].arrived.since(answered) < secs(2), "{seen:?}");
    fleet.upstream.script([Turn::Good(secs(3))]);
    fleet.instances[1].tokens.refresh(&name(0)).await.unwrap();
    fleet.upstream.arrived.notified().await;
    let turn = other.errand(&key(), deadline).await.unwrap();
    let seen = fleet.upstream.seen();
    assert!(fleet.clock.mono().since(seen[1].answered) >= secs(1), "an errand waits as well");
    drop(turn);
}

#[tokio::test(start_paused = true)]
async fn an_errand_sends_nothing_once_its_lane_may_be_anothers() {
    let fleet = Fleet::with_tenants(1).await;
    let deadline = fleet.clock.mono().plus(secs(60));
    let mut errand = fleet.instances[0].tokens.errand(&key(), deadline).await.unwrap();
    tokio::time::sleep(secs(20)).await;
    let may_leave = errand.may_leave().await.expect("it has kept the lane");
    assert!(may_leave());
    fleet.instances[0].link.fail("keep_lane");
    fleet.instances[1].demand(0, secs(60));
    tokio::time::sleep(secs(15)).await;
    assert_eq!(fleet.upstream.seen().len(), 1, "another has the lane");
    assert!(!may_leave());
    let lost = errand.may_leave().await.map(drop);
    assert!(matches!(lost, Err(RefreshAnswer::LaneLost)), "{lost:?}");
    errand.answered(&RefreshAnswer::LaneLost);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_grant_does_not_hold_up_the_lane_of_its_api_key() {
    let fleet = Fleet::with_tenants(2).await;
    fleet.instances.iter().for_each(|instance| instance.link.damage(&name(0)));
    for instance in &fleet.instances {
        instance.demand(0, secs(600));
        instance.demand(1, secs(601));
    }
    tokio::time::sleep(secs(3)).await;
    fleet.assert_current(1).await;
    assert_eq!(fleet.upstream.seen().len(), 1);
    let Readiness::Failing { cause, .. } = fleet.instances[0].state(0) else { panic!("how?") };
    assert_eq!(cause, Cause::Store);
}

#[tokio::test(start_paused = true)]
async fn one_that_stops_in_order_leaves_the_lane_at_once() {
    let fleet = Fleet::with_tenants(2).await;
    fleet.upstream.script([Turn::Good(secs(2))]);
    fleet.instances[0].demand(0, secs(60));
    fleet.upstream.arrived.notified().await;
    fleet.instances[0].tokens.drain().await;
    fleet.instances[1].demand(1, secs(60));
    tokio::time::sleep(secs(3)).await;
    assert_eq!(fleet.upstream.seen().len(), 2);
    fleet.assert_paced();
}
