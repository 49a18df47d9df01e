//! What instances on one server learn of each other's changes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use ctct_proxy::engine::ClientName;
use ctct_proxy::secret::ClientKey;
use ctct_proxy::store::{Changed, Changes, Client, ClientKeys, Revision, Store, TenantScope};

use crate::redis_process::RedisServer;
use crate::support::{Place, SharedPlace, api_key, new_grant, secs, tenant, tokens};

/// Far more than a message takes, far less than a look every now and then.
const SOON: Duration = Duration::from_millis(400);

type Any = Arc<dyn Store>;

async fn since(store: &Any, revision: Option<Revision>) -> Changes {
    store.changes(revision).await.expect("answered")
}

/// Everything is known up to the revision that is returned.
async fn caught_up(store: &Any) -> Revision {
    let Changes { revision, changed } = since(store, None).await;
    assert_eq!(changed, None, "whoever knows nothing reads everything");
    revision
}

/// Asks for what came after `revision` and moves it on.
async fn news(store: &Any, revision: &mut Revision) -> Option<BTreeSet<Changed>> {
    let changes = since(store, Some(*revision)).await;
    *revision = changes.revision;
    changes.changed.map(|all| all.into_iter().collect())
}

fn of<const N: usize>(all: [Changed; N]) -> BTreeSet<Changed> {
    BTreeSet::from(all)
}

fn acme() -> Changed {
    Changed::Tenant(tenant("acme"))
}

fn client(name: &ClientName, keys: ClientKeys) -> Client {
    let (tenants, created_at) = (TenantScope::All, secs(1));
    Client { name: name.clone(), tenants, created_at, keys, last_used_at: None }
}

fn new_keys() -> ClientKeys {
    ClientKeys { current: ClientKey::generate().digest(), expires_at: None, previous: None }
}

#[tokio::test]
async fn every_change_is_told_to_another_instance_and_use_is_none() {
    let place = SharedPlace::new();
    let (one, other) = (place.open().await, place.open_another("other").await);
    assert!(one.is_shared());
    let mut known = caught_up(&other).await;
    assert_eq!(news(&other, &mut known).await, Some(of([])));
    let acme_name = tenant("acme");
    let version = one.put_grant(new_grant("acme", tokens("1"))).await.expect("stored").1.version;
    assert_eq!(news(&other, &mut known).await, Some(of([acme()])));
    one.pause_tenant(&acme_name, true).await.expect("paused");
    assert_eq!(news(&other, &mut known).await, Some(of([acme()])));
    one.begin_refresh(&acme_name, version, secs(1)).await.expect("begun");
    one.abort_refresh(&acme_name, version).await.expect("aborted");
    one.record_use(&[(acme_name.clone(), secs(5))]).await.expect("recorded");
    assert_eq!(news(&other, &mut known).await, Some(of([])), "none of this is a change");
    one.finish_refresh(&acme_name, version, &tokens("2"), secs(2)).await.expect("finished");
    assert_eq!(news(&other, &mut known).await, Some(of([acme()])));
    one.fail_grant(&acme_name, version + 1, "dead").await.expect("failed");
    assert_eq!(news(&other, &mut known).await, Some(of([acme()])));
    one.remove_grant(&acme_name).await.expect("removed");
    assert_eq!(news(&other, &mut known).await, Some(of([acme()])));
    let crm = ClientName::new("crm").expect("a valid name");
    one.add_client(client(&crm, new_keys())).await.expect("added");
    let of_crm = || Some(of([Changed::Client(crm.clone())]));
    assert_eq!(news(&other, &mut known).await, of_crm());
    one.change_client_keys(&crm, new_keys()).await.expect("changed");
    assert_eq!(news(&other, &mut known).await, of_crm());
    one.record_client_use(&[(crm.clone(), secs(9))]).await.expect("recorded");
    assert_eq!(news(&other, &mut known).await, Some(of([])));
    one.remove_client(&crm).await.expect("removed");
    assert_eq!(news(&other, &mut known).await, of_crm());
    one.pause_api_key(&api_key("default"), true).await.expect("paused");
    let of_key = Some(of([Changed::ApiKey(api_key("default"))]));
    assert_eq!(news(&other, &mut known).await, of_key);
    one.pause_api_key(&api_key("default"), true).await.expect("paused already");
    assert_eq!(news(&other, &mut known).await, Some(of([])));
}

#[tokio::test]
async fn what_changed_often_is_told_once_and_the_newest_come_after_any_revision() {
    let place = SharedPlace::new();
    let store = place.open().await;
    let mut known = caught_up(&store).await;
    for mark in ["1", "2", "3"] {
        store.put_grant(new_grant("acme", tokens(mark))).await.expect("stored");
    }
    store.put_grant(new_grant("bolt", tokens("1"))).await.expect("stored");
    let changes = since(&store, Some(known)).await;
    assert_eq!(changes.changed, Some(vec![acme(), Changed::Tenant(tenant("bolt"))]));
    assert!(changes.revision > known);
    assert_eq!(news(&store, &mut known).await.expect("known").len(), 2);
    assert_eq!(news(&store, &mut known).await, Some(of([])));
}

#[tokio::test]
async fn a_revision_that_is_not_of_this_history_has_everything_read_again() {
    let place = SharedPlace::new();
    let store = place.open().await;
    store.put_grant(new_grant("acme", tokens("1"))).await.expect("stored");
    let now = caught_up(&store).await;
    for strange in [Revision(now.0 + 1), Revision(0), Revision(u64::MAX)] {
        let changes = since(&store, Some(strange)).await;
        assert_eq!((changes.changed, changes.revision), (None, now), "{strange:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_ten_thousand_are_kept() {
    let place = SharedPlace::new();
    let store = place.open().await;
    let first = {
        store.put_grant(new_grant("acme", tokens("1"))).await.expect("stored");
        caught_up(&store).await
    };
    let mut tasks = JoinSet::new();
    for task in 0..20 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            for number in 0..500 {
                let name = api_key(&format!("k{task}-{number}"));
                store.pause_api_key(&name, true).await.expect("paused");
            }
        });
    }
    tasks.join_all().await;
    let told = since(&store, Some(first)).await.changed.expect("all are kept");
    assert_eq!(told.len(), 10_000);
    store.pause_api_key(&api_key("one-more"), true).await.expect("paused");
    assert_eq!(since(&store, Some(first)).await.changed, None, "the oldest is forgotten");
    let after = Revision(first.0 + 1);
    assert_eq!(since(&store, Some(after)).await.changed.expect("is known").len(), 10_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_came_back_empty_or_was_started_again_has_everything_read_again() {
    let mut place = SharedPlace::on(Arc::new(RedisServer::start()));
    let store = place.open().await;
    let mut known = caught_up(&store).await;
    store.put_grant(new_grant("acme", tokens("1"))).await.expect("stored");
    assert!(news(&store, &mut known).await.is_some());
    place.server.cmd(&["FLUSHALL"]);
    assert_eq!(since(&store, Some(known)).await.changed, None);
    store.put_grant(new_grant("bolt", tokens("1"))).await.expect("stored");
    assert_eq!(news(&store, &mut known).await, None, "also once there is a history again");
    assert_eq!(news(&store, &mut known).await, Some(of([])));
    Arc::get_mut(&mut place.server).expect("nobody else has it").restart();
    while store.ping().await.is_err() {}
    assert_eq!(news(&store, &mut known).await, None, "it may have forgotten the last ones");
    assert_eq!(news(&store, &mut known).await, Some(of([])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_another_instance_is_heard_at_once() {
    let place = SharedPlace::new();
    let (one, other) = (place.open().await, place.open_another("other").await);
    // it says once that it has begun to listen
    timeout(Duration::from_secs(5), other.changed()).await.expect("it listens");
    assert!(timeout(SOON, other.changed()).await.is_err(), "nothing has happened");
    one.put_grant(new_grant("acme", tokens("1"))).await.expect("stored");
    timeout(SOON, other.changed()).await.expect("heard");
    one.pause_tenant(&tenant("acme"), true).await.expect("paused");
    one.pause_tenant(&tenant("acme"), false).await.expect("released");
    timeout(SOON, other.changed()).await.expect("heard, although nobody waited then");
    let place = Place::new();
    let alone = place.open();
    assert!(timeout(SOON, alone.changed()).await.is_err());
    assert_eq!(since(&alone, Some(Revision(7))).await.changed, Some(vec![]));
}
