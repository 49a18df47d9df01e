//! Who goes next in a lane, what its trouble means for all of its tenants, and when old tokens
//! serve.

use super::*;

impl World {
    /// Lets the tenant whose intent was ordered have new tokens, and says whose turn it is after
    /// the rest.
    fn next_after(&mut self, n: usize) -> TenantName {
        self.keeper.begun(&tenant(n), 1, Write::Done(()), self.now);
        let access_expires_at = Some(self.now.unix.plus(DAY));
        let received = RefreshResult::Received { access_expires_at };
        self.keeper.refreshed(&tenant(n), 1, received, self.now);
        self.keeper.persisted(&tenant(n), 1, Write::Done(2), self.now);
        self.orders();
        self.pass(secs(1));
        let Command::Begin { tenant, .. } = self.order() else { panic!("no intent") };
        tenant
    }

    fn not_sent(&mut self, n: usize) {
        self.exchange(n, RefreshResult::NotSent);
        assert_eq!(self.order(), Command::Abort { tenant: tenant(n), version: 1 });
        self.keeper.aborted(&tenant(n), 1, Write::Done(()), self.now);
    }

    fn wanting(&self) -> usize {
        self.keeper.lanes[&key()].wanting.len()
    }
}

#[test]
fn the_earliest_deadline_to_come_of_all_who_wait_for_a_tenant_counts() {
    // of the first tenant; each after so many seconds, for so many
    let histories: [&[(u64, u64)]; 4] = [
        &[(0, 30), (0, 100)],
        &[(0, 100), (0, 30)],
        &[(0, 10), (0, 100), (20, 30)],
        &[(0, 10), (0, 100), (10, 30)],
    ];
    for history in histories {
        let mut world = World::with_life(secs(0));
        world.load(1, None);
        world.load(2, None);
        world.demand(0, secs(300));
        assert!(matches!(world.order(), Command::Begin { .. }));
        for (after, wait) in history {
            world.pass(secs(*after));
            world.demand(1, secs(*wait));
        }
        world.demand(2, secs(50));
        assert_eq!(world.next_after(0), tenant(1), "{history:?}");
    }
}

#[test]
fn who_can_wait_no_longer_yields_to_who_can() {
    let mut world = World::with_life(secs(0));
    world.load(1, None);
    world.load(2, None);
    world.demand(0, secs(300));
    assert!(matches!(world.order(), Command::Begin { .. }));
    world.demand(1, secs(1));
    world.demand(2, secs(2));
    assert_eq!(world.next_after(0), tenant(2));
}

#[test]
fn a_tenant_is_in_the_lane_while_it_wants_a_token() {
    let mut world = World::with_life(secs(0));
    world.load(1, Some(DAY));
    assert_eq!(world.wanting(), 0);
    world.demand(0, secs(30));
    assert_eq!(world.wanting(), 1);
    world.refuse(0);
    world.demand(0, secs(30));
    assert_eq!(world.wanting(), 0);
}

#[test]
fn an_endpoint_that_works_again_works_for_all_tenants() {
    let mut world = World::with_life(secs(0));
    world.load(1, None);
    world.demand(0, secs(300));
    world.demand(1, secs(400));
    world.not_sent(0);
    for n in [0, 1] {
        assert!(matches!(world.readiness(n), Readiness::Failing { .. }));
    }
    world.pass(secs(1));
    world.receive(1, 1);
    world.orders();
    assert_eq!(world.readiness(0), Readiness::Waiting);
}

#[test]
fn a_tenant_that_goes_with_its_request_under_way_leaves_the_lane_a_rest() {
    let mut world = World::with_life(secs(0));
    world.load(1, None);
    world.demand(0, secs(300));
    world.demand(1, secs(400));
    world.not_sent(0);
    world.pass(secs(1));
    assert_eq!(world.order(), Command::Begin { tenant: tenant(1), version: 1 });
    world.keeper.begun(&tenant(1), 1, Write::Done(()), world.now);
    world.pass(secs(5));
    world.keeper.remove(&tenant(1), world.now);
    let retry_at = world.now.mono.plus(secs(1));
    let cause = Cause::Unreachable;
    assert_eq!(world.readiness(0), Readiness::Failing { retry_at, cause });
}

#[test]
fn a_lost_answer_is_repeated_promptly_however_long_the_endpoint_has_failed() {
    let mut world = World::with_life(secs(0));
    world.demand(0, secs(3_600));
    for _ in 0..6 {
        world.not_sent(0);
        world.pass(secs(60));
    }
    world.exchange(0, RefreshResult::Lost);
    assert_eq!(world.orders(), []);
    world.pass(secs(1));
    assert_eq!(world.order(), Command::Begin { tenant: tenant(0), version: 1 });
}

#[test]
fn a_token_serves_longer_while_its_key_is_not_configured() {
    let mut world = World::with_life(secs(200));
    assert_eq!(world.readiness(0), Readiness::Waiting);
    world.keeper.remove_key(&key(), world.now);
    assert!(world.is_ready(0));
}

#[test]
fn a_token_serves_longer_while_its_successor_cannot_be_stored() {
    let mut world = World::with_life(secs(200));
    world.demand(0, secs(30));
    let access_expires_at = Some(world.now.unix.plus(DAY));
    world.exchange(0, RefreshResult::Received { access_expires_at });
    world.orders();
    assert_eq!(world.readiness(0), Readiness::Waiting);
    world.keeper.persisted(&tenant(0), 1, Write::Failed, world.now);
    assert!(world.is_ready(0));
}

#[test]
fn a_token_serves_longer_when_its_refresh_token_may_be_spent() {
    let mut world = World::with_life(secs(290));
    world.load(1, None);
    world.demand(0, secs(30));
    world.exchange(0, RefreshResult::Lost);
    world.pass(secs(1));
    world.exchange(0, RefreshResult::Lost);
    world.pass(secs(61));
    world.demand(1, secs(30));
    world.receive(1, 1);
    world.orders();
    assert!(world.is_ready(0));
}

#[test]
fn a_clock_that_is_apart_by_more_than_a_second_has_stepped() {
    for (back, ready) in [(secs(1), false), (Duration::from_millis(1_001), true)] {
        let mut world = World::with_life(secs(301));
        world.pass(Duration::from_millis(500));
        assert_eq!(world.readiness(0), Readiness::Waiting);
        world.now.unix = world.now.unix.minus(back);
        world.keeper.handle_timeout(world.now);
        assert_eq!(world.is_ready(0), ready, "{back:?}");
    }
}

#[test]
fn a_refresh_that_changes_nothing_for_callers_is_not_told_and_moves_the_timer() {
    let mut world = World::with_life(secs(1_000));
    world.orders();
    let told = world.changes.len();
    assert!(world.keeper.refresh_now(&tenant(0), world.now));
    world.receive(0, 1);
    world.orders();
    assert_eq!((world.changes.len(), world.keeper.expiries.len()), (told, 1));
}

#[test]
fn who_has_been_served_wants_nothing_more() {
    let mut world = World::with_life(secs(0));
    world.demand(0, secs(300));
    world.receive(0, 1);
    assert_eq!(world.wanting(), 0);
}

#[test]
fn a_token_of_two_seconds_is_of_use_and_a_shorter_one_is_not() {
    for (life, alarms) in [(2_000, vec![]), (1_999, vec![Alarm::UselessToken])] {
        let mut world = World::with_life(secs(0));
        world.demand(0, secs(30));
        let access_expires_at = Some(world.now.unix.plus(Duration::from_millis(life)));
        world.exchange(0, RefreshResult::Received { access_expires_at });
        world.orders();
        world.keeper.persisted(&tenant(0), 1, Write::Done(2), world.now);
        world.orders();
        assert_eq!(world.alarms, alarms, "{life} ms");
    }
}

#[test]
fn an_answer_without_tokens_is_told_and_other_trouble_is_not() {
    for (trouble, alarms) in
        [(Trouble::NotTokens, vec![Alarm::NotTokens]), (Trouble::ServerError, vec![])]
    {
        let mut world = World::with_life(secs(0));
        world.demand(0, secs(30));
        world.exchange(0, RefreshResult::Trouble(trouble));
        world.orders();
        assert_eq!(world.alarms, alarms);
    }
}

#[test]
fn an_answer_that_fits_nothing_under_way_is_passed_over() {
    let mut world = World::with_life(secs(0));
    world.demand(0, secs(30));
    assert_eq!(world.order(), Command::Begin { tenant: tenant(0), version: 1 });
    world.keeper.begun(&tenant(0), 2, Write::Done(()), world.now);
    world.keeper.refreshed(&tenant(0), 1, RefreshResult::InvalidGrant, world.now);
    assert_eq!(world.orders(), []);
    world.keeper.begun(&tenant(0), 1, Write::Done(()), world.now);
    assert!(matches!(world.order(), Command::Refresh { .. }));
}

#[test]
fn a_rejection_of_tokens_that_were_replaced_is_no_news_however_late() {
    let mut world = World::with_life(DAY);
    world.keeper.rejected(&tenant(0), 1, world.now);
    world.receive(0, 1);
    world.pass(secs(600));
    world.keeper.rejected(&tenant(0), 1, world.now);
    assert_eq!(world.orders(), []);
}

#[test]
fn rejections_are_a_row_until_none_came_for_a_minute() {
    let minute = secs(60);
    let longer = Duration::from_millis(60_001);
    for (after, rest) in [(secs(1), secs(2)), (minute, secs(2)), (longer, secs(1))] {
        let mut world = World::with_life(DAY);
        world.keeper.rejected(&tenant(0), 1, world.now);
        world.receive(0, 1);
        world.pass(after);
        world.keeper.rejected(&tenant(0), 2, world.now);
        world.receive(0, 2);
        world.pass(rest.saturating_sub(Duration::from_millis(1)));
        world.keeper.rejected(&tenant(0), 3, world.now);
        assert_eq!(world.orders(), [], "{after:?}");
        world.pass(Duration::from_millis(1));
        world.keeper.rejected(&tenant(0), 3, world.now);
        assert_eq!(world.order(), Command::Begin { tenant: tenant(0), version: 3 });
    }
}

#[test]
fn it_is_told_until_when_a_token_serves_and_whether_it_is_being_renewed() {
    let mut world = World::with_life(secs(1_000));
    let end = Unix::from_secs(START + 1_000);
    let usable_until = Some((end.minus(secs(300)), end.minus(secs(30))));
    assert_eq!(world.keeper.usable_until(&tenant(0)), usable_until);
    let is_refreshing = |world: &World| world.keeper.is_refreshing(&tenant(0), world.now);
    assert!(!is_refreshing(&world));
    world.load(1, None);
    world.demand(1, secs(30));
    assert!(matches!(world.order(), Command::Begin { .. }));
    world.keeper.refresh_now(&tenant(0), world.now);
    assert!(is_refreshing(&world), "it waits for its turn");
    assert_eq!(world.next_after(1), tenant(0));
    assert!(is_refreshing(&world), "it is under way");
}

#[test]
fn each_alarm_has_a_public_name_of_its_own() {
    let names = [
        (Alarm::TokensNotStored, "tokens_not_stored"),
        (Alarm::IntentNotStored, "intent_not_stored"),
        (Alarm::VerdictNotStored, "verdict_not_stored"),
        (Alarm::GrantNotRead, "grant_not_read"),
        (Alarm::ClientRefused, "client_refused"),
        (Alarm::NotTokens, "not_tokens"),
        (Alarm::AnswerLost, "answer_lost"),
        (Alarm::AnswerLostAgain, "answer_lost_again"),
        (Alarm::UselessToken, "useless_token"),
        (Alarm::RefreshTokenAgeing, "refresh_token_ageing"),
    ];
    for (alarm, name) in names {
        assert_eq!(alarm.as_str(), name);
    }
}
