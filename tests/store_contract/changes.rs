//! What instances on one server learn of each other's changes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use ctct_proxy::clock::Clock;
use ctct_proxy::engine::ClientName;
use ctct_proxy::secret::ClientKey;
use ctct_proxy::store::{
    Changed, Changes, Client, ClientKeys, LastTold, MemoryStore, NewGrant, Revision, Since, Store,
    TenantScope,
};

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
    let Changes { revision, since } = since(store, None).await;
    assert_eq!(since, Since::Forgotten, "whoever knows nothing reads everything");
    revision
}

/// Asks for what came after `revision` and moves it on.
async fn news(store: &Any, revision: &mut Revision) -> Option<BTreeSet<Changed>> {
    let changes = since(store, Some(*revision)).await;
    *revision = changes.revision;
    changed(changes).map(|all| all.into_iter().collect())
}

/// What was changed, of a store that has lost nothing.
fn changed(changes: Changes) -> Option<Vec<Changed>> {
    match changes.since {
        Since::Changed(things) => Some(things),
        Since::Forgotten | Since::Lost(_) => None,
    }
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
    assert!(changes.revision > known);
    assert_eq!(changed(changes), Some(vec![acme(), Changed::Tenant(tenant("bolt"))]));
    assert_eq!(news(&store, &mut known).await.expect("known").len(), 2);
    assert_eq!(news(&store, &mut known).await, Some(of([])));
}

#[tokio::test]
async fn a_revision_that_is_not_of_this_history_is_one_that_was_lost() {
    let place = SharedPlace::new();
    let store = place.open().await;
    store.put_grant(new_grant("acme", tokens("1"))).await.expect("stored");
    let now = caught_up(&store).await;
    for (strange, told) in [(now.0 + 1, vec![]), (u64::MAX, vec![]), (0, vec![acme()])] {
        let changes = since(&store, Some(Revision(strange))).await;
        assert_eq!((changes.since, changes.revision), (Since::Lost(told), now), "{strange}");
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
    let told = changed(since(&store, Some(first)).await).expect("all are kept");
    assert_eq!(told.len(), 10_000);
    // the tenant's own change, which was the first, is not
    let told = store.last_told(&acme()).await.expect("answered");
    assert_eq!(told, LastTold { at: None, forgotten: first });
    assert!(!told.is_after(first) && told.is_after(Revision(first.0 - 1)));
    store.pause_api_key(&api_key("one-more"), true).await.expect("paused");
    let oldest = since(&store, Some(first)).await;
    assert_eq!(oldest.since, Since::Forgotten, "the oldest is forgotten");
    let after = Revision(first.0 + 1);
    assert_eq!(changed(since(&store, Some(after)).await).expect("is known").len(), 10_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_emptied_says_so_until_it_is_known_and_what_it_was_told_since() {
    let place = SharedPlace::on(Arc::new(RedisServer::start()));
    let (store, other) = (place.open().await, place.open_another("other").await);
    let mut known = caught_up(&store).await;
    store.put_grant(new_grant("acme", tokens("1"))).await.expect("stored");
    assert!(news(&store, &mut known).await.is_some());
    place.server.cmd(&["FLUSHALL"]);
    let others = known;
    let changes = since(&store, Some(known)).await;
    assert_eq!(changes.since, Since::Lost(vec![]));
    assert_eq!(store.last_told(&acme()).await.expect("answered"), LastTold::default());
    store.put_grant(new_grant("bolt", tokens("1"))).await.expect("stored");
    let bolt = Changed::Tenant(tenant("bolt"));
    known = changes.revision;
    assert_eq!(news(&store, &mut known).await, Some(of([bolt.clone()])));
    assert_eq!(since(&other, Some(others)).await.since, Since::Lost(vec![bolt.clone()]));
    store.remove_grant(&tenant("bolt")).await.expect("removed");
    let told = other.last_told(&bolt).await.expect("answered").at;
    assert_eq!(told, Some(caught_up(&other).await), "it is gone, not lost");
    assert!(!store.remove_grant(&tenant("corp")).await.expect("answered"));
    let crm = ClientName::new("crm").expect("a valid name");
    assert!(!store.remove_client(&crm).await.expect("answered"));
    for absent in [Changed::Tenant(tenant("corp")), Changed::Client(crm)] {
        let told = other.last_told(&absent).await.expect("answered").at;
        assert!(told > Some(known), "somebody may be about to restore it");
    }
}

#[tokio::test]
async fn a_grant_that_was_lost_is_written_as_it_was_but_not_over_a_later_one() {
    let (place, another) = (SharedPlace::new(), SharedPlace::new());
    let (store, emptied) = (place.open().await, another.open().await);
    let acme_name = tenant("acme");
    let new = NewGrant { weight: Some(7), ..new_grant("acme", tokens("1")) };
    let version = store.put_grant(new).await.expect("stored").1.version;
    let read = async |store: &Any| store.grant(&acme_name).await.expect("answered");
    let first = read(&store).await.expect("is there");
    store.finish_refresh(&acme_name, version, &tokens("2"), secs(2)).await.expect("finished");
    store.pause_tenant(&acme_name, true).await.expect("paused");
    store.record_use(&[(acme_name.clone(), secs(5))]).await.expect("recorded");
    store.fail_grant(&acme_name, version + 1, "dead").await.expect("failed");
    let second = read(&store).await.expect("is there");
    let mut known = caught_up(&emptied).await;
    assert!(emptied.restore_grant(&first).await.expect("answered"));
    assert!(emptied.restore_grant(&second).await.expect("answered"), "it is of a later version");
    assert!(!emptied.restore_grant(&first).await.expect("answered"));
    assert_eq!(news(&emptied, &mut known).await, Some(of([acme()])));
    let restored = read(&emptied).await.expect("is there");
    assert_eq!(format!("{restored:?}"), format!("{second:?}"));
    assert_eq!(restored.tokens.refresh, tokens("2").refresh);
    assert_eq!(restored.tokens.access, tokens("2").access);
    assert_eq!(emptied.grants().await.expect("answered").len(), 1);
}

#[tokio::test]
async fn a_grant_that_is_restored_twice_keeps_what_was_written_in_between() {
    let place = SharedPlace::new();
    let in_memory: Any = Arc::new(MemoryStore::shared(Clock::system()));
    for store in [place.open().await, in_memory] {
        let name = tenant("acme");
        let grant = store.put_grant(new_grant("acme", tokens("1"))).await.expect("stored").1;
        store.remove_grant(&name).await.expect("removed");
        assert!(store.restore_grant(&grant).await.expect("answered"));
        store.begin_refresh(&name, grant.version, secs(5)).await.expect("begun");
        store.pause_tenant(&name, true).await.expect("paused");
        assert!(!store.restore_grant(&grant).await.expect("answered"), "another was first");
        let there = store.grant(&name).await.expect("answered").expect("is there");
        assert_eq!((there.refresh_begun_at, there.paused), (Some(secs(5)), true));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_started_again_has_lost_nothing_but_what_it_did_not_write() {
    let mut place =
        SharedPlace::on(Arc::new(RedisServer::start_with(&["--appendfsync", "always"])));
    let store = place.open().await;
    let mut known = caught_up(&store).await;
    store.put_grant(new_grant("acme", tokens("1"))).await.expect("stored");
    let before = known;
    let server = |place: &mut SharedPlace| {
        Arc::get_mut(&mut place.server).expect("nobody else has it").restart();
    };
    server(&mut place);
    while store.ping().await.is_err() {}
    let changes = since(&store, Some(known)).await;
    assert_eq!(changes.since, Since::Lost(vec![acme()]), "it has written that, and maybe no more");
    known = changes.revision;
    assert_eq!(news(&store, &mut known).await, Some(of([])), "once read past, it is past");
    // the same without the newest change, as another server has it that was not told in time
    let lost = Revision(known.0 + 1);
    server(&mut place);
    while store.ping().await.is_err() {}
    store.put_grant(new_grant("bolt", tokens("1"))).await.expect("stored");
    let bolt = Changed::Tenant(tenant("bolt"));
    // who wrote the change that is lost may not have read it
    for known in [lost, known] {
        assert_eq!(since(&store, Some(known)).await.since, Since::Lost(vec![bolt.clone()]));
    }
    let all = since(&store, Some(before)).await.since;
    assert_eq!(all, Since::Lost(vec![acme(), bolt]));
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
    assert_eq!(changed(since(&alone, Some(Revision(7))).await), Some(vec![]));
}
