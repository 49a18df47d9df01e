//! The suite that every store passes; each function is one sentence of the port's contract.
//!
//! A function gets an empty store and may use it as it likes; nothing here knows which store it is.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::task::JoinSet;

use ctct_proxy::engine::Day;
use ctct_proxy::store::{DayCount, GrantState, Put, Store, StoreError, Tokens};

use crate::support::{api_key, new_grant, secs, tenant, tokens};

type Any = Arc<dyn Store>;

const TODAY: Day = Day::new(20_000);

async fn taken(store: &Any, day: Day) -> DayCount {
    store.reserve(&api_key("default"), day, 0, u64::MAX).await.expect("the count reads")
}

async fn take(store: &Any, day: Day, want: u32, limit: u64) -> DayCount {
    store.reserve(&api_key("default"), day, want, limit).await.expect("calls are reserved")
}

/// Makes or replaces a grant and returns its version, which each store begins where it likes.
async fn put(store: &Any, name: &str, mark: &str) -> u64 {
    store.put_grant(new_grant(name, tokens(mark))).await.expect("stored").1.version
}

fn refresh_text(tokens: &Tokens) -> &str {
    tokens.refresh.expose()
}

pub(crate) async fn a_hundred_tasks_never_get_more_than_the_limit(store: Any) {
    let mut tasks = JoinSet::new();
    for want in 1..=100_u32 {
        let store = Arc::clone(&store);
        tasks.spawn(async move { take(&store, TODAY, want % 7 + 1, 250).await });
    }
    let counts = tasks.join_all().await;
    let granted: u64 = counts.iter().map(|count| u64::from(count.granted)).sum();
    assert_eq!(granted, 250, "all of the limit and not one more");
    assert!(counts.iter().all(|count| count.total <= 250 && count.day == TODAY));
    assert_eq!(taken(&store, TODAY).await.total, 250);
}

pub(crate) async fn a_reservation_grants_what_is_left_and_reads_without_taking(store: Any) {
    assert_eq!(taken(&store, TODAY).await, DayCount { day: TODAY, granted: 0, total: 0 });
    let first = take(&store, TODAY, 7, 10).await;
    assert_eq!(first, DayCount { day: TODAY, granted: 7, total: 7 });
    let second = take(&store, TODAY, 7, 10).await;
    assert_eq!(second, DayCount { day: TODAY, granted: 3, total: 10 });
    let third = take(&store, TODAY, 7, 10).await;
    assert_eq!(third, DayCount { day: TODAY, granted: 0, total: 10 });
    assert_eq!(taken(&store, TODAY).await.total, 10);
}

pub(crate) async fn a_limit_that_falls_below_the_count_grants_nothing(store: Any) {
    take(&store, TODAY, 8, 10).await;
    let count = take(&store, TODAY, 1, 5).await;
    assert_eq!(count, DayCount { day: TODAY, granted: 0, total: 8 });
}

pub(crate) async fn a_later_day_wins_over_a_clock_that_was_set_back(store: Any) {
    let tomorrow = Day::new(TODAY.number() + 1);
    take(&store, TODAY, 2, 10).await;
    take(&store, tomorrow, 4, 10).await;
    let count = take(&store, TODAY, 9, 10).await;
    assert_eq!(count, DayCount { day: tomorrow, granted: 6, total: 10 });
}

pub(crate) async fn days_too_far_ahead_are_moved_back_and_added(store: Any) {
    let day = |ahead: u32| Day::new(TODAY.number() + ahead);
    take(&store, TODAY, 3, 10).await;
    // a clock that is years ahead for some days, and is then set right
    assert_eq!(take(&store, day(5_000), 2, 10).await.total, 2);
    assert_eq!(take(&store, day(5_001), 1, 10).await.total, 1);
    assert_eq!(taken(&store, TODAY).await, DayCount { day: TODAY, granted: 0, total: 6 });
    let count = take(&store, TODAY, 9, 10).await;
    assert_eq!(count, DayCount { day: TODAY, granted: 4, total: 10 });
    assert_eq!(taken(&store, TODAY).await.total, 10, "added once");
    assert_eq!(take(&store, day(1), 1, 10).await.total, 1, "the next day begins with nothing");
    take(&store, day(3), 2, 10).await;
    let count = take(&store, TODAY, 1, 10).await;
    assert_eq!(count, DayCount { day: day(1), granted: 1, total: 4 });
}

pub(crate) async fn the_newest_four_days_are_kept(store: Any) {
    let day = |after: u32| Day::new(TODAY.number() + after);
    take(&store, TODAY, 5, 10).await;
    for after in 1..=4 {
        take(&store, day(after), 1, 10).await;
    }
    let name = api_key("default");
    store.release(&name, TODAY, 5).await.expect("the release of a forgotten day does nothing");
    let before = Day::new(TODAY.number() - 1);
    assert_eq!(taken(&store, before).await, DayCount { day: before, granted: 0, total: 4 });
}

pub(crate) async fn a_release_gives_back_at_most_what_was_taken(store: Any) {
    let name = api_key("default");
    take(&store, TODAY, 5, 10).await;
    store.release(&name, TODAY, 2).await.expect("released");
    assert_eq!(taken(&store, TODAY).await.total, 3);
    store.release(&name, Day::new(TODAY.number() - 1), 2).await.expect("released");
    assert_eq!(taken(&store, TODAY).await.total, 3, "another day");
    store.release(&name, TODAY, 9).await.expect("released");
    assert_eq!(taken(&store, TODAY).await.total, 0);
    assert_eq!(take(&store, TODAY, 99, 10).await.granted, 10);
}

pub(crate) async fn api_keys_count_apart(store: Any) {
    take(&store, TODAY, 5, 10).await;
    let other = store.reserve(&api_key("other"), TODAY, 8, 10).await.expect("reserved");
    assert_eq!((other.granted, other.total), (8, 8));
    assert_eq!(taken(&store, TODAY).await.total, 5);
}

pub(crate) async fn a_new_grant_is_ready_and_read_back(store: Any) {
    let (put, grant) = store.put_grant(new_grant("acme", tokens("1"))).await.expect("stored");
    assert_eq!((put, grant.weight, grant.paused), (Put::Created, 1, false));
    assert!(grant.version > 0);
    let read = store.grant(&tenant("acme")).await.expect("reads").expect("is there");
    assert_eq!((read.api_key.as_str(), read.version), ("default", grant.version));
    assert_eq!(read.state, GrantState::Ready);
    assert_eq!(read.tokens.access.as_ref().map(|token| token.expose().as_str()), Some("access-1"));
    assert_eq!(refresh_text(&read.tokens), "refresh-1");
    assert_eq!(read.tokens.access_expires_at, Some(secs(86_400)));
    let moments = (read.refresh_begun_at, read.last_refreshed_at, read.last_used_at);
    assert_eq!(moments, (None, None, None));
    assert!(store.grant(&tenant("nobody")).await.expect("reads").is_none());
    let bare = Tokens { access: None, access_expires_at: None, ..tokens("2") };
    let (_, grant) = store.put_grant(new_grant("bare", bare)).await.expect("stored");
    assert!(grant.tokens.access.is_none() && grant.tokens.access_expires_at.is_none());
}

pub(crate) async fn grants_come_in_the_order_of_their_names(store: Any) {
    for name in ["b", "Z", "a", "a.1"] {
        store.put_grant(new_grant(name, tokens(name))).await.expect("stored");
    }
    let grants = store.grants().await.expect("read");
    let names: Vec<_> = grants.iter().map(|grant| grant.tenant.as_str()).collect();
    assert_eq!(names, ["Z", "a", "a.1", "b"]);
    assert_eq!(refresh_text(&grants[2].tokens), "refresh-a.1");
}

pub(crate) async fn a_replaced_grant_keeps_pause_use_and_weight(store: Any) {
    let acme = tenant("acme");
    let mut first = new_grant("acme", tokens("1"));
    first.weight = Some(5);
    let version = store.put_grant(first).await.expect("stored").1.version;
    store.pause_tenant(&acme, true).await.expect("paused");
    store.record_use(&[(acme.clone(), secs(50))]).await.expect("recorded");
    store.fail_grant(&acme, version, "dead").await.expect("failed");
    store.begin_refresh(&acme, version, secs(60)).await.expect("begun");
    let mut second = new_grant("acme", tokens("2"));
    second.api_key = api_key("other");
    let (put, grant) = store.put_grant(second).await.expect("stored");
    assert_eq!((put, grant.version, grant.weight), (Put::Replaced, version + 1, 5));
    assert_eq!((grant.paused, grant.last_used_at), (true, Some(secs(50))));
    assert_eq!((grant.state, grant.refresh_begun_at), (GrantState::Ready, None));
    assert_eq!((grant.api_key.as_str(), refresh_text(&grant.tokens)), ("other", "refresh-2"));
    let mut third = new_grant("acme", tokens("3"));
    third.weight = Some(2);
    assert_eq!(store.put_grant(third).await.expect("stored").1.weight, 2);
}

pub(crate) async fn a_version_is_never_used_twice(store: Any) {
    let acme = tenant("acme");
    let first = put(&store, "acme", "1").await;
    store.begin_refresh(&acme, first, secs(1)).await.expect("begun");
    assert!(store.remove_grant(&acme).await.expect("removed"));
    assert!(!store.remove_grant(&acme).await.expect("nothing left to remove"));
    let late = store.finish_refresh(&acme, first, &tokens("late"), secs(2)).await;
    assert!(matches!(late, Err(StoreError::Conflict { .. })), "{late:?}");
    let (put, grant) = store.put_grant(new_grant("acme", tokens("2"))).await.expect("stored");
    assert_eq!((put, grant.refresh_begun_at), (Put::Created, None));
    assert!(grant.version > first, "{} after {first}", grant.version);
    let late = store.finish_refresh(&acme, first, &tokens("late"), secs(2)).await;
    assert!(matches!(late, Err(StoreError::Conflict { .. })), "{late:?}");
}

pub(crate) async fn a_refresh_begins_and_ends_with_new_tokens(store: Any) {
    let acme = tenant("acme");
    let first = put(&store, "acme", "1").await;
    store.begin_refresh(&acme, first, secs(100)).await.expect("begun");
    let grant = store.grant(&acme).await.expect("reads").expect("is there");
    assert_eq!((grant.version, grant.refresh_begun_at), (first, Some(secs(100))));
    assert_eq!(refresh_text(&grant.tokens), "refresh-1");
    let version = store.finish_refresh(&acme, first, &tokens("2"), secs(101)).await;
    assert_eq!(version.expect("finished"), first + 1);
    let grant = store.grant(&acme).await.expect("reads").expect("is there");
    assert_eq!((grant.version, grant.refresh_begun_at), (first + 1, None));
    assert_eq!(grant.last_refreshed_at, Some(secs(101)));
    assert_eq!(refresh_text(&grant.tokens), "refresh-2");
}

pub(crate) async fn an_aborted_refresh_leaves_everything_as_it_was(store: Any) {
    let acme = tenant("acme");
    let first = put(&store, "acme", "1").await;
    for _ in 0..2 {
        store.begin_refresh(&acme, first, secs(100)).await.expect("begun");
        store.begin_refresh(&acme, first, secs(100)).await.expect("a repeat is ok");
        store.abort_refresh(&acme, first).await.expect("aborted");
        store.abort_refresh(&acme, first).await.expect("a repeat is ok");
    }
    let grant = store.grant(&acme).await.expect("reads").expect("is there");
    assert_eq!((grant.version, grant.refresh_begun_at), (first, None));
    assert_eq!((grant.state, grant.last_refreshed_at), (GrantState::Ready, None));
    assert_eq!(refresh_text(&grant.tokens), "refresh-1");
}

pub(crate) async fn a_stale_version_changes_nothing(store: Any) {
    let acme = tenant("acme");
    let first = put(&store, "acme", "1").await;
    let current = put(&store, "acme", "2").await;
    let versions = [("acme", first), ("acme", current + 1), ("acme", 0), ("nobody", first)];
    for (name, version) in versions {
        let who = tenant(name);
        let results = [
            store.begin_refresh(&who, version, secs(9)).await,
            store.abort_refresh(&who, version).await,
            store.finish_refresh(&who, version, &tokens("x"), secs(9)).await.map(drop),
            store.fail_grant(&who, version, "dead").await,
        ];
        for result in results {
            assert!(matches!(result, Err(StoreError::Conflict { .. })), "{name} {version}");
        }
    }
    let grant = store.grant(&acme).await.expect("reads").expect("is there");
    assert_eq!((grant.version, grant.refresh_begun_at), (current, None));
    assert_eq!((grant.state, refresh_text(&grant.tokens)), (GrantState::Ready, "refresh-2"));
}

pub(crate) async fn one_of_many_refreshes_of_a_version_wins(store: Any) {
    let first = put(&store, "acme", "1").await;
    let mut tasks = JoinSet::new();
    for number in 0..50 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let new = tokens(&format!("of-{number}"));
            store.finish_refresh(&tenant("acme"), first, &new, secs(9)).await
        });
    }
    let won = tasks.join_all().await.into_iter().filter_map(Result::ok).collect::<Vec<_>>();
    assert_eq!(won, [first + 1]);
}

pub(crate) async fn a_repeated_finish_is_ok(store: Any) {
    let acme = tenant("acme");
    let first = put(&store, "acme", "1").await;
    for _ in 0..2 {
        let version = store.finish_refresh(&acme, first, &tokens("2"), secs(9)).await;
        assert_eq!(version.expect("stored, or stored already"), first + 1);
    }
    let other = store.finish_refresh(&acme, first, &tokens("3"), secs(9)).await;
    assert!(matches!(other, Err(StoreError::Conflict { .. })), "{other:?}");
}

pub(crate) async fn a_dead_grant_stays_dead_until_new_tokens_come(store: Any) {
    let acme = tenant("acme");
    let first = put(&store, "acme", "1").await;
    store.begin_refresh(&acme, first, secs(5)).await.expect("begun");
    store.fail_grant(&acme, first, "invalid_grant").await.expect("failed");
    store.fail_grant(&acme, first, "invalid_grant").await.expect("a repeat is ok");
    let grant = store.grant(&acme).await.expect("reads").expect("is there");
    let dead = GrantState::NeedsAuthorization { reason: "invalid_grant".to_owned() };
    assert_eq!((grant.state, grant.version, grant.refresh_begun_at), (dead, first, None));
    store.finish_refresh(&acme, first, &tokens("2"), secs(9)).await.expect("finished");
    let grant = store.grant(&acme).await.expect("reads").expect("is there");
    assert_eq!(grant.state, GrantState::Ready);
}

pub(crate) async fn use_and_pause_do_not_touch_the_tokens(store: Any) {
    let first = put(&store, "acme", "0").await;
    let mut tasks = JoinSet::new();
    for task in 0..100 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let acme = tenant("acme");
            for number in (task..10_000).step_by(100) {
                store.record_use(&[(acme.clone(), secs(number))]).await.expect("recorded");
            }
            store.pause_tenant(&acme, task % 2 == 0).await.expect("paused or not");
        });
    }
    for number in 1..=20 {
        let (new, version) = (tokens(&number.to_string()), first + number - 1);
        let next = store.finish_refresh(&tenant("acme"), version, &new, secs(9)).await;
        assert_eq!(next.expect("no writer beside gets between"), version + 1);
    }
    tasks.join_all().await;
    let grant = store.grant(&tenant("acme")).await.expect("reads").expect("is there");
    assert_eq!((grant.version, refresh_text(&grant.tokens)), (first + 20, "refresh-20"));
    assert_eq!(grant.last_used_at, Some(secs(9_999)));
}

pub(crate) async fn the_later_use_stays(store: Any) {
    let used: Vec<_> = (0..150).map(|n| (tenant(&format!("t{n}")), secs(100 + n))).collect();
    for (name, _) in &used[..149] {
        store.put_grant(new_grant(name.as_str(), tokens("1"))).await.expect("stored");
    }
    store.record_use(&used).await.expect("recorded, the unknown one passed over");
    store.record_use(&[(tenant("t7"), secs(5))]).await.expect("recorded");
    let grants = store.grants().await.expect("read");
    assert_eq!(grants.len(), 149);
    for grant in grants {
        let at = used.iter().find(|(name, _)| *name == grant.tenant).map(|(_, at)| *at);
        assert_eq!(grant.last_used_at, at);
    }
    assert!(!store.pause_tenant(&tenant("t149"), true).await.expect("answered"));
}

pub(crate) async fn paused_api_keys_are_remembered(store: Any) {
    let (one, two) = (api_key("one"), api_key("two"));
    for (name, paused) in [(&one, true), (&two, true), (&two, true), (&one, false), (&one, false)] {
        store.pause_api_key(name, paused).await.expect("paused or not");
    }
    assert_eq!(store.paused_api_keys().await.expect("read"), BTreeSet::from([two]));
}

pub(crate) async fn a_dropped_call_harms_nobody(store: Any) {
    for _ in 0..20 {
        tokio::select! {
            biased;
            _ = take(&store, TODAY, 1, 1_000) => {}
            () = std::future::ready(()) => {}
        }
    }
    let before = taken(&store, TODAY).await.total;
    assert!(before <= 20, "{before}");
    let count = take(&store, TODAY, 5, 1_000).await;
    assert_eq!((count.granted, count.total), (5, before + 5));
    store.ping().await.expect("writable");
}

pub(crate) async fn a_closed_store_refuses_and_closes_twice(store: Any) {
    store.ping().await.expect("writable");
    store.close().await.expect("closes");
    store.close().await.expect("closes twice");
    let refused = [
        store.ping().await,
        store.grants().await.map(drop),
        store.release(&api_key("default"), TODAY, 1).await,
    ];
    for result in refused {
        assert!(matches!(result, Err(StoreError::Unavailable { .. })), "{result:?}");
    }
}
