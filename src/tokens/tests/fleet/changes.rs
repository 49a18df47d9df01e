//! What is changed on one instance is so on the others.

use super::*;

fn drain(instance: &mut Instance) -> Vec<TenantChange> {
    std::iter::from_fn(|| instance.changes.try_recv().ok()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_was_put_elsewhere_is_there_when_it_is_asked_for() {
    let fleet = Fleet::with_tenants(0).await;
    fleet.instances[1].link.slow("changes", secs(60));
    fleet.instances[2].link.slow("changes", secs(60));
    let refresh = fleet.upstream.connect(&name(0));
    fleet.instances[0].tokens.put(new_grant(0, refresh)).await.unwrap();
    let status = fleet.instances[1].tokens.status(&name(0)).await.unwrap();
    assert_eq!(status.state, TenantState::Ready);
    fleet.instances[2].tokens.refresh(&name(0)).await.unwrap();
    let unknown = fleet.instances[2].tokens.refresh(&name(9)).await;
    assert_eq!(unknown, Err(RefreshError::UnknownTenant));
}

#[tokio::test(start_paused = true)]
async fn put_pause_and_remove_are_seen_everywhere_and_told_once() {
    let mut fleet = Fleet::with_tenants(0).await;
    let refresh = fleet.upstream.connect(&name(0));
    let grant = NewGrant { weight: Some(5), ..new_grant(0, refresh) };
    fleet.instances[0].tokens.put(grant).await.unwrap();
    let soon = Duration::from_millis(10);
    tokio::time::sleep(soon).await;
    for instance in &mut fleet.instances {
        let changes = drain(instance);
        assert!(changes.iter().all(|change| change.weight == 5 && !change.paused));
        assert_eq!(changes.last().unwrap().readiness, Some(Readiness::Waiting));
        assert_eq!(instance.times_told(), 1);
    }
    assert!(fleet.instances[1].tokens.pause(&name(0), true).await.unwrap());
    tokio::time::sleep(soon).await;
    for instance in &mut fleet.instances {
        assert!(drain(instance).last().unwrap().paused);
        assert_eq!(instance.times_told(), 2, "the pause");
        let status = instance.tokens.status(&name(0)).await.unwrap();
        assert_eq!((status.state, status.weight), (TenantState::Paused, 5));
        instance.demand(0, secs(10));
    }
    tokio::time::sleep(secs(20)).await;
    assert_eq!(fleet.upstream.seen().len(), 0, "held everywhere");
    assert!(fleet.instances[2].tokens.remove(&name(0)).await.unwrap());
    tokio::time::sleep(soon).await;
    for instance in &mut fleet.instances {
        assert_eq!(drain(instance).last().unwrap().readiness, None);
        assert!(instance.tokens.tenant("t0").is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_tenant_that_is_put_elsewhere_lives_again_here() {
    let fleet = Fleet::with_tenants(1).await;
    let good = fleet.upstream.connect(&name(0));
    fleet.instances[0].demand(0, secs(10));
    tokio::time::sleep(secs(5)).await;
    for instance in &fleet.instances {
        assert!(matches!(instance.state(0), Readiness::NeedsAuthorization { .. }));
    }
    fleet.instances[1].tokens.put(new_grant(0, good)).await.unwrap();
    tokio::time::sleep(secs(1)).await;
    fleet.instances[0].demand(0, secs(10));
    tokio::time::sleep(secs(5)).await;
    fleet.assert_current(0).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_waits_for_the_refresh_under_way_here() {
    let fleet = Fleet::with_tenants(1).await;
    fleet.upstream.script([Turn::Good(secs(10))]);
    fleet.instances[0].demand(0, secs(60));
    fleet.upstream.arrived.notified().await;
    fleet.instances[1].tokens.pause(&name(0), true).await.unwrap();
    tokio::time::sleep(secs(20)).await;
    fleet.assert_current(0).await;
    let status = fleet.instances[0].tokens.status(&name(0)).await.unwrap();
    assert_eq!(status.state, TenantState::Paused);
    assert_eq!(fleet.instances[0].alarms(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_read_is_read_again() {
    let fleet = Fleet::with_tenants(1).await;
    fleet.instances[1].link.fail("grant");
    fleet.instances[0].demand(0, secs(60));
    tokio::time::sleep(secs(5)).await;
    assert_eq!(fleet.instances[1].version(0), None);
    fleet.instances[1].link.mend();
    tokio::time::sleep(secs(2)).await;
    fleet.assert_current(0).await;
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_leaves_for_another_place_is_not_refreshed_elsewhere_meanwhile() {
    let fleet = Fleet::with_tenants(1).await;
    fleet.upstream.script([Turn::Good(secs(6))]);
    fleet.instances[0].demand(0, secs(60));
    fleet.upstream.arrived.notified().await;
    let taken = fleet.instances[1].tokens.take_out(&name(0), Afterwards::Held).await.unwrap();
    assert_eq!(taken.version, 2, "the one that came of the refresh under way");
    fleet.instances[0].demand(0, secs(600));
    fleet.instances[2].demand(0, secs(600));
    tokio::time::sleep(secs(60)).await;
    assert_eq!(fleet.upstream.seen().len(), 1);
    assert!(fleet.upstream.accepts(&name(0), &taken.tokens.refresh));
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_read_again_does_not_put_a_token_back_that_another_instance_is_renewing() {
    let fleet = Fleet::with_tenants(1).await;
    fleet.upstream.script([Turn::Good(secs(6))]);
    fleet.instances[0].demand(0, secs(60));
    fleet.upstream.arrived.notified().await;
    let refresh = fleet.row(0).await.tokens.refresh;
    let again = NewGrant { weight: Some(9), ..new_grant(0, refresh) };
    let terms = Terms { on_conflict: OnConflict::Replace, dry_run: false };
    let spent = fleet.instances[1].tokens.hand_in(again, terms).await;
    assert!(matches!(spent, Err(PutError::Spent)), "{spent:?}");
    tokio::time::sleep(secs(20)).await;
    fleet.assert_current(0).await;
    assert_eq!((fleet.row(0).await.version, fleet.upstream.seen().len()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn without_the_lane_nothing_is_held_for_an_export_or_replaced_by_an_import() {
    let fleet = Fleet::with_tenants(1).await;
    let one = &fleet.instances[1];
    one.link.fail("take_lane");
    let taken = one.tokens.take_out(&name(0), Afterwards::Held).await;
    assert!(matches!(taken, Err(TakeOutError::Store(_))), "{taken:?}");
    let other = new_grant(0, fleet.upstream.connect(&name(0)));
    let terms = Terms { on_conflict: OnConflict::Replace, dry_run: false };
    let handed_in = one.tokens.hand_in(other.clone(), terms).await;
    assert!(matches!(handed_in, Err(PutError::Store(_))), "{handed_in:?}");
    assert_eq!((fleet.row(0).await.version, fleet.row(0).await.paused), (1, false));
    one.link.mend();
    assert_eq!(one.tokens.hand_in(other, terms).await.unwrap(), HandedIn::Replaced);
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_has_not_been_heard_of_holds_all_the_same() {
    let fleet = Fleet::with_tenants(1).await;
    fleet.instances[1].link.slow("changes", secs(60));
    tokio::time::sleep(secs(5)).await;
    fleet.instances[0].tokens.pause(&name(0), true).await.unwrap();
    fleet.instances[1].demand(0, secs(30));
    tokio::time::sleep(secs(20)).await;
    assert_eq!(fleet.upstream.seen().len(), 0);
    assert_eq!(fleet.instances[1].alarms(), 0);
}
