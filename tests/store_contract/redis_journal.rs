//! The journal of an instance on a server: what is not needed any more leaves it, and tokens that
//! came stay in it while the server is behind.

use std::sync::Arc;
use std::time::Duration;

use ctct_proxy::store::{Grant, RefreshStep, Store, StoreError};

use crate::redis_server::{own_place, put, refresh_token};
use crate::support::{SharedPlace, long_tokens, new_grant, secs, tenant, tokens};

/// Longer than a server that is behind goes without a look, and than it is given to sync.
const SOON: Duration = Duration::from_secs(6);

type Any = Arc<dyn Store>;

/// Whether nothing is open in the journal of an instance: it is removed then.
async fn is_clear(place: &SharedPlace, store: Any) -> bool {
    store.close().await.expect("closes");
    !place.path().join("refreshes").exists()
}

async fn becomes(store: &Any, token: &str) {
    let reads = async {
        while store.grant(&tenant("acme")).await.expect("read").is_none()
            || refresh_token(store, "acme").await != token
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, reads).await.expect("in time");
}

#[tokio::test]
async fn a_begin_that_the_server_refused_and_a_refresh_that_another_made_leave_nothing_behind() {
    let place = SharedPlace::new();
    let (store, other) = (place.open().await, place.open_another("other").await);
    let acme = tenant("acme");
    let version = put(&store, "acme", "1").await;
    let refused = store.begin_refresh(&acme, version + 1, secs(1)).await;
    assert!(matches!(refused, Err(StoreError::Conflict { .. })));
    assert!(is_clear(&place, store).await);

    let store = place.open().await;
    store.begin_refresh(&acme, version, secs(1)).await.expect("begun");
    store.post_refresh(&acme, version, secs(1)).await.expect("posted");
    other.finish_refresh(&acme, version, &tokens("2"), secs(2)).await.expect("finished");
    let refused = store.begin_refresh(&acme, version, secs(3)).await;
    assert!(matches!(refused, Err(StoreError::Conflict { .. })));
    store.forget_refresh(&acme, version + 1).await.expect("no other");
    drop(store);
    let store = place.open().await;
    store.begin_refresh(&acme, version + 1, secs(4)).await.expect("begun");
    store.forget_refresh(&acme, version + 1).await.expect("forgotten");
    assert!(is_clear(&place, store).await);
}

#[tokio::test]
async fn a_begin_that_was_refused_does_not_hide_the_request_before() {
    let place = SharedPlace::new();
    let store = place.open().await;
    let acme = tenant("acme");
    let version = put(&store, "acme", "1").await;
    store.begin_refresh(&acme, version, secs(1)).await.expect("begun");
    store.post_refresh(&acme, version, secs(1)).await.expect("posted");
    let grant = store.grant(&acme).await.expect("read").expect("is there");
    place.server.cmd(&["DEL", &format!("{}{{custody}}:grant:acme", place.prefix())]);
    assert!(store.begin_refresh(&acme, version, secs(2)).await.is_err());
    assert!(store.restore_grant(&grant).await.expect("answered"));
    drop(store);
    let open = place.open().await.open_refreshes().await.expect("read");
    assert!(matches!(open[..], [ref open] if matches!(open.step, RefreshStep::Posted)), "{open:?}");
}

#[tokio::test]
async fn a_journal_in_which_something_stays_open_does_not_grow() {
    let place = SharedPlace::new();
    let store = place.open().await;
    let version = put(&store, "acme", "1").await;
    store.begin_refresh(&tenant("acme"), version, secs(1)).await.expect("begun");
    store.post_refresh(&tenant("acme"), version, secs(1)).await.expect("posted");
    let (bolt, came) = (tenant("bolt"), long_tokens(60 * 1024));
    let version_of_bolt = put(&store, "bolt", "1").await;
    for _ in 0..60 {
        store.begin_refresh(&bolt, version_of_bolt, secs(1)).await.expect("begun");
        store.receive_refresh(&bolt, version_of_bolt, &came, secs(1)).await.expect("received");
        store.abort_refresh(&bolt, version_of_bolt).await.expect("aborted");
    }
    let len = std::fs::metadata(place.path().join("refreshes")).expect("is there").len();
    assert!(len < 2 * 1024 * 1024, "{len} bytes");
    drop(store);
    let open = place.open().await.open_refreshes().await.expect("read");
    assert_eq!((open.len(), &open[0].tenant), (1, &tenant("acme")), "what is open has stayed");
}

/// An instance has new tokens in its journal and dies; what it knew of the grant.
async fn dies_with_new_tokens(place: &SharedPlace) -> Grant {
    let store = place.open().await;
    let acme = tenant("acme");
    let version = put(&store, "acme", "1").await;
    let grant = store.grant(&acme).await.expect("read").expect("is there");
    store.begin_refresh(&acme, version, secs(1)).await.expect("begun");
    store.post_refresh(&acme, version, secs(1)).await.expect("posted");
    store.receive_refresh(&acme, version, &tokens("2"), secs(2)).await.expect("received");
    grant
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_in_a_journal_wait_for_a_server_that_came_back_empty_to_get_its_grants_again() {
    let place = own_place(&[]);
    let other = place.open_another("other").await;
    let grant = dies_with_new_tokens(&place).await;
    place.server.cmd(&["FLUSHALL"]);
    for _ in 0..2 {
        let store = place.open().await;
        assert!(store.open_refreshes().await.expect("read").is_empty(), "of nothing that is there");
        store.close().await.expect("closes");
    }
    let store = place.open().await;
    assert!(other.restore_grant(&grant).await.expect("answered"));
    becomes(&other, "refresh-2").await;
    let there = other.grant(&grant.tenant).await.expect("read").expect("is there");
    assert_eq!(there.version, grant.version + 1);
    tokio::time::sleep(SOON).await;
    assert!(is_clear(&place, store).await, "and are then forgotten here");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_in_a_journal_are_written_over_an_older_grant() {
    let place = own_place(&[]);
    let other = place.open_another("other").await;
    let mut grant = dies_with_new_tokens(&place).await;
    place.server.cmd(&["FLUSHALL"]);
    grant.version -= 3;
    assert!(other.restore_grant(&grant).await.expect("answered"));
    let _store = place.open().await;
    becomes(&other, "refresh-2").await;
    let there = other.grant(&grant.tenant).await.expect("read").expect("is there");
    assert_eq!(there.version, grant.version + 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_in_a_journal_go_when_their_tenant_was_removed_or_has_others() {
    let place = SharedPlace::new();
    let other = place.open_another("other").await;
    let grant = dies_with_new_tokens(&place).await;
    other.remove_grant(&grant.tenant).await.expect("removed");
    let store = place.open().await;
    tokio::time::sleep(SOON).await;
    assert!(is_clear(&place, store).await);

    dies_with_new_tokens(&place).await;
    other.put_grant(new_grant("acme", tokens("9"))).await.expect("stored");
    assert!(is_clear(&place, place.open().await).await);
    assert_eq!(refresh_token(&other, "acme").await, "refresh-9");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_begin_with_tokens_that_the_server_has_lost_does_not_hide_how_they_came() {
    let place = own_place(&[]);
    let grant = dies_with_new_tokens(&place).await;
    let (acme, version) = (&grant.tenant, grant.version);
    let store = place.open().await;
    let next = store.finish_refresh(acme, version, &tokens("2"), secs(2)).await.expect("finished");
    store.begin_refresh(acme, next, secs(3)).await.expect("begun at once again");
    store.post_refresh(acme, next, secs(3)).await.expect("posted");
    drop(store);
    place.server.cmd(&["FLUSHALL"]);
    let other = place.open_another("other").await;
    assert!(other.restore_grant(&grant).await.expect("answered"));
    let open = place.open().await.open_refreshes().await.expect("read");
    let [open] = &open[..] else { panic!("{open:?}") };
    assert!(matches!(open.step, RefreshStep::Received { .. }) && open.version == version);
}
