//! Instances that die or are stopped in the middle of a refresh, and a store that forgets.

use super::*;

/// The first instance dies with its request under way; the others wait for the token too.
async fn die_during_request(turn: Turn) -> Fleet {
    let mut fleet = Fleet::with_tenants(1).await;
    fleet.upstream.script([turn]);
    fleet.instances[0].demand(0, secs(60));
    fleet.upstream.arrived.notified().await;
    fleet.instances.remove(0).link.cut();
    fleet.upstream.forget_callers();
    for instance in &fleet.instances {
        instance.demand(0, secs(600));
    }
    tokio::time::sleep(secs(8)).await;
    assert_eq!(fleet.upstream.seen().len(), 1, "the lane is not free before its time");
    tokio::time::sleep(secs(60)).await;
    fleet
}

#[tokio::test(start_paused = true)]
async fn a_request_of_a_dead_instance_that_did_not_arrive_is_made_by_another() {
    let fleet = die_during_request(Turn::Vanished).await;
    let seen = fleet.upstream.seen();
    assert_eq!(seen.len(), 2);
    let took = seen[1].arrived.since(seen[0].arrived);
    assert!(took >= secs(13) && took <= secs(17), "its hold and half of one more: {took:?}");
    fleet.assert_current(0).await;
}

#[tokio::test(start_paused = true)]
async fn a_rotation_that_died_with_its_instance_is_tried_once_and_told_everywhere() {
    let fleet = die_during_request(Turn::Swallowed).await;
    assert_eq!(fleet.upstream.seen().len(), 2, "tried once, by one of them");
    for instance in &fleet.instances {
        let Readiness::NeedsAuthorization { reason } = instance.state(0) else {
            panic!("silent loss")
        };
        assert!(reason.starts_with("the process stopped between"), "{reason}");
        instance.demand(0, secs(600));
    }
    tokio::time::sleep(secs(600)).await;
    assert_eq!(fleet.upstream.seen().len(), 2, "and never again");
}

#[tokio::test(start_paused = true)]
async fn one_that_was_stopped_before_sending_sends_nothing_when_it_goes_on() {
    let fleet = Fleet::with_tenants(1).await;
    fleet.instances[0].link.stop_after("post_refresh", secs(60));
    fleet.instances[0].demand(0, secs(600));
    tokio::time::sleep(secs(2)).await;
    fleet.instances[1].demand(0, secs(600));
    tokio::time::sleep(secs(20)).await;
    assert_eq!(fleet.upstream.seen().len(), 1, "another has taken over");
    assert_eq!(fleet.instances[1].version(0), Some(2));
    tokio::time::sleep(secs(120)).await;
    assert_eq!(fleet.upstream.seen().len(), 1, "the spent token is not sent");
    fleet.assert_current(0).await;
}

#[tokio::test(start_paused = true)]
async fn an_intent_that_another_has_replaced_is_not_taken_back() {
    let fleet = Fleet::with_tenants(1).await;
    fleet.instances[0].link.stop_after("post_refresh", secs(30));
    fleet.instances[0].demand(0, secs(600));
    tokio::time::sleep(secs(2)).await;
    fleet.upstream.script([Turn::Good(secs(40))]);
    fleet.instances[1].demand(0, secs(600));
    tokio::time::sleep(secs(38)).await;
    assert!(fleet.row(0).await.refresh_begun_at.is_some(), "the other's request is under way");
    tokio::time::sleep(secs(60)).await;
    assert_eq!(fleet.upstream.seen().len(), 1);
    fleet.assert_current(0).await;
    assert_eq!(fleet.instances[0].link.forgotten()[0], (name(0), 1), "nor remembered here");
}

#[tokio::test(start_paused = true)]
async fn a_short_stop_costs_nothing_when_nobody_has_the_lane() {
    let fleet = Fleet::with_tenants(1).await;
    fleet.instances[0].link.stop_after("post_refresh", secs(7));
    fleet.instances[0].demand(0, secs(600));
    tokio::time::sleep(secs(10)).await;
    assert_eq!(fleet.upstream.seen().len(), 1, "the store says that the lane is still its own");
    fleet.assert_current(0).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_one_that_has_lost_the_lane_meanwhile_is_stored_all_the_same() {
    let mut fleet = Fleet::with_tenants(1).await;
    fleet.upstream.script([Turn::Good(secs(25))]);
    fleet.instances[0].link.fail("keep_lane");
    fleet.instances[0].demand(0, secs(600));
    tokio::time::sleep(secs(40)).await;
    assert_eq!(fleet.row(0).await.version, 2);
    fleet.instances.truncate(2);
    fleet.assert_current(0).await;
}

/// The store is away for `span` from just before the first instance has new tokens on, and two
/// others want the same token when it is back: the one that `asks_first` does so at that moment.
async fn away_for(span: Duration) -> Fleet {
    let fleet = Fleet::with_tenants(1).await;
    fleet.upstream.script([Turn::Good(secs(1))]);
    fleet.instances[0].demand(0, secs(600));
    fleet.upstream.arrived.notified().await;
    let set_away = |is_away| {
        fleet.instances.iter().for_each(|instance| instance.link.set_away(is_away));
    };
    set_away(true);
    tokio::time::sleep(span).await;
    set_away(false);
    for instance in &fleet.instances {
        instance.tokens.refresh(&name(0)).await.unwrap();
    }
    let terms = LaneTerms { hold: secs(10), rest_max: secs(1) };
    // whoever is first: a lane that is asked for at this moment
    let turn = fleet.store.take_lane(&key(), terms).await.unwrap();
    assert!(matches!(turn, LaneTurn::Busy { .. }), "the holder may come back");
    tokio::time::sleep(secs(90)).await;
    fleet
}

#[tokio::test(start_paused = true)]
async fn tokens_that_came_while_the_store_was_away_are_stored_before_anybody_sends_the_old_one() {
    for span in [2, 9, 11, 14, 16, 40, 119, 121, 300, 1_000] {
        let fleet = away_for(secs(span)).await;
        assert_eq!(fleet.upstream.seen().len(), 1, "after {span} s");
        fleet.assert_current(0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_store_has_lost_is_written_again_and_the_dead_token_is_not_taken_over() {
    let fleet = Fleet::with_tenants(2).await;
    let past = fleet.store.now();
    fleet.instances[0].demand(0, secs(60));
    tokio::time::sleep(secs(2)).await;
    fleet.assert_current(0).await;
    let removed = fleet.upstream.connect(&name(7));
    fleet.instances[1].tokens.put(new_grant(7, removed)).await.unwrap();
    tokio::time::sleep(secs(2)).await;
    fleet.store.come_back(&past);
    assert_eq!(fleet.row(0).await.version, 1, "with a token that is spent");
    tokio::time::sleep(secs(3)).await;
    assert_eq!(fleet.row(0).await.version, 2);
    fleet.assert_current(0).await;
    assert!(fleet.upstream.accepts(&name(7), &fleet.row(7).await.tokens.refresh));
    assert_eq!(fleet.upstream.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_is_removed_while_a_look_at_what_was_lost_waits_is_not_restored_by_it() {
    let fleet = Fleet::with_tenants(0).await;
    let empty = fleet.store.now();
    let refresh = fleet.upstream.connect(&name(0));
    fleet.instances[0].tokens.put(new_grant(0, refresh)).await.unwrap();
    tokio::time::sleep(secs(2)).await;
    fleet.upstream.script([Turn::Good(secs(20))]);
    fleet.instances[0].demand(0, secs(60));
    fleet.upstream.arrived.notified().await;
    fleet.store.come_back(&empty);
    tokio::time::sleep(secs(3)).await;
    assert_eq!(fleet.row(0).await.version, 1, "the others have restored it");
    assert!(fleet.instances[1].tokens.remove(&name(0)).await.unwrap());
    tokio::time::sleep(secs(60)).await;
    assert!(fleet.store.grant(&name(0)).await.unwrap().is_none());
    for instance in &fleet.instances {
        assert!(instance.tokens.tenant("t0").is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_another_restores_between_two_questions_is_not_taken_for_removed() {
    let fleet = Fleet::with_tenants(0).await;
    let empty = fleet.store.now();
    let refresh = fleet.upstream.connect(&name(0));
    fleet.instances[0].tokens.put(new_grant(0, refresh)).await.unwrap();
    tokio::time::sleep(secs(2)).await;
    // the last one looks first, and hears of a change when it asks what became of the tenant
    fleet.instances[0].link.slow("changes", secs(1));
    fleet.instances[1].link.slow("changes", secs(1));
    fleet.instances[2].link.slow("last_told", secs(4));
    fleet.store.come_back(&empty);
    tokio::time::sleep(secs(20)).await;
    assert_eq!(fleet.row(0).await.version, 1);
    for instance in &fleet.instances {
        assert!(instance.tokens.tenant("t0").is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_verdict_on_the_older_token_gives_way_to_the_newer() {
    let fleet = Fleet::with_tenants(1).await;
    // the others have not heard of the new tokens when the store forgets them
    fleet.instances[1].link.slow("changes", secs(2));
    fleet.instances[2].link.slow("changes", secs(2));
    tokio::time::sleep(secs(3)).await;
    let past = fleet.store.now();
    fleet.instances[0].link.stop_after("finish_refresh", secs(20));
    fleet.instances[0].demand(0, secs(60));
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(fleet.row(0).await.version, 2);
    fleet.store.come_back(&past);
    fleet.instances[2].demand(0, secs(60));
    tokio::time::sleep(secs(18)).await;
    assert_eq!(fleet.upstream.seen().len(), 2, "it could not know that the token is spent");
    assert!(matches!(fleet.instances[2].state(0), Readiness::NeedsAuthorization { .. }));
    tokio::time::sleep(secs(20)).await;
    fleet.assert_current(0).await;
    assert_eq!(fleet.upstream.seen().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_came_back_empty_gets_the_newest_that_any_instance_has() {
    let fleet = Fleet::with_tenants(0).await;
    let empty = fleet.store.now();
    let refresh = fleet.upstream.connect(&name(0));
    fleet.instances[0].tokens.put(new_grant(0, refresh)).await.unwrap();
    tokio::time::sleep(secs(2)).await;
    // the last one has not heard of the refresh
    fleet.instances[2].link.slow("changes", secs(2));
    tokio::time::sleep(secs(3)).await;
    fleet.instances[0].demand(0, secs(60));
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(fleet.row(0).await.version, 2);
    fleet.instances[2].link.slow("changes", secs(0));
    fleet.store.come_back(&empty);
    tokio::time::sleep(secs(20)).await;
    fleet.assert_current(0).await;
    assert_eq!(fleet.upstream.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_would_refresh_from_an_emptied_store_restores_the_grant_and_does_not_forget_it() {
    let fleet = Fleet::with_tenants(0).await;
    let empty = fleet.store.now();
    let refresh = fleet.upstream.connect(&name(0));
    fleet.instances[0].tokens.put(new_grant(0, refresh)).await.unwrap();
    tokio::time::sleep(secs(2)).await;
    // nobody hears of the loss before the refresh is wanted
    for instance in &fleet.instances {
        instance.link.slow("changes", secs(30));
    }
    tokio::time::sleep(secs(2)).await;
    fleet.store.come_back(&empty);
    fleet.instances[1].demand(0, secs(60));
    tokio::time::sleep(secs(4)).await;
    assert_eq!(fleet.upstream.seen().len(), 0, "nobody knows who had the lane");
    tokio::time::sleep(secs(3)).await;
    assert_eq!(fleet.instances[1].version(0), Some(2));
    tokio::time::sleep(secs(60)).await;
    fleet.assert_current(0).await;
    assert_eq!(fleet.upstream.seen().len(), 1);
}

/// The store is emptied while the first instance has a request out that takes `span`; what all want
/// then is another token. Whoever `is_deaf` does not hear of the loss by itself.
async fn emptied_while_tokens_came(span: Duration, is_deaf: bool) -> Fleet {
    let fleet = Fleet::with_tenants(0).await;
    let empty = fleet.store.now();
    let refresh = fleet.upstream.connect(&name(0));
    fleet.instances[0].tokens.put(new_grant(0, refresh)).await.unwrap();
    tokio::time::sleep(secs(2)).await;
    if is_deaf {
        fleet.instances[0].link.slow("changes", secs(30));
        tokio::time::sleep(secs(2)).await;
    }
    fleet.upstream.script([Turn::Good(span)]);
    fleet.instances[0].demand(0, secs(60));
    fleet.upstream.arrived.notified().await;
    fleet.store.come_back(&empty);
    fleet.instances.iter().skip(1).for_each(|instance| instance.demand(0, secs(60)));
    fleet
}

#[tokio::test(start_paused = true)]
async fn new_tokens_are_stored_though_the_store_was_emptied_while_they_came() {
    for (millis, is_deaf) in [(0, true), (300, true), (300, false), (2_000, true), (40_000, true)] {
        let fleet = emptied_while_tokens_came(Duration::from_millis(millis), is_deaf).await;
        tokio::time::sleep(secs(90)).await;
        fleet.assert_current(0).await;
        assert_eq!(fleet.upstream.seen().len(), 1, "{millis} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn an_emptied_store_is_told_of_the_request_that_is_out() {
    let fleet = emptied_while_tokens_came(secs(40), false).await;
    tokio::time::sleep(secs(3)).await;
    let row = fleet.row(0).await;
    assert_eq!((row.version, row.refresh_begun_at.is_some()), (1, true));
    assert_eq!(fleet.upstream.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_that_dies_after_the_store_was_emptied_leaves_a_doubt_there() {
    let mut fleet = emptied_while_tokens_came(secs(40), false).await;
    tokio::time::sleep(secs(8)).await;
    fleet.instances.remove(0).link.cut();
    fleet.upstream.forget_callers();
    tokio::time::sleep(secs(60)).await;
    assert_eq!(fleet.upstream.seen().len(), 2, "tried once more, when the lane was free");
    fleet.assert_current(0).await;
}
