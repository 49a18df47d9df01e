//! Two instances over one store, each with its shells and a follower.

use std::collections::BTreeSet;

use tokio::sync::mpsc;

use super::*;
use crate::config::AuthStyle;
use crate::engine::Unix;
use crate::gate;
use crate::gate::tests::limits;
use crate::store::{MemoryStore, NewGrant, TenantScope};
use crate::telemetry::{Events, Metrics};
use crate::tokens::{KeyAuth, TenantState, idle};

struct Instance {
    gate: Gate,
    tokens: Tokens,
    clients: Clients,
    news: News,
    stopped: CancellationToken,
}

fn api_key() -> ApiKeyName {
    ApiKeyName::new("main").unwrap()
}

fn tenant() -> TenantName {
    TenantName::new("acme").unwrap()
}

fn key_auth() -> KeyAuth {
    KeyAuth {
        client_id: "client".into(),
        secret: None,
        auth_style: AuthStyle::Public,
        token_url: "http://127.0.0.1:1/token".parse().unwrap(),
    }
}

async fn instance(store: &Arc<dyn Store>, clock: &Clock) -> Instance {
    let (news, follower) = Follower::before_reading(store).await.unwrap();
    let (tracker, stopped) = (TaskTracker::new(), CancellationToken::new());
    let parts = gate::Parts {
        store: store.clone(),
        sharing: None,
        clock: clock.clone(),
        metrics: Metrics::new("test"),
        events: Events::new(clock.clone()),
        demands: mpsc::unbounded_channel().0,
        tracker: tracker.clone(),
        stopped: stopped.clone(),
        seed: 1,
    };
    let gate = Gate::start(parts, vec![(api_key(), limits())], &BTreeSet::new());
    let parts = idle::parts(store, clock, vec![(api_key(), key_auth())], &tracker);
    let tokens = Tokens::start(parts).await.unwrap();
    let clients = Clients::load(store.clone(), clock.clone()).await.unwrap();
    let shells = Shells { gate: gate.clone(), tokens: tokens.clone(), clients: clients.clone() };
    if let Some(follower) = follower {
        follower.start(shells, clock, &tracker, &stopped);
    }
    Instance { gate, tokens, clients, news, stopped }
}

async fn two() -> (Instance, Instance, Arc<MemoryStore>, Clock) {
    let clock = Clock::starting_at(Unix::from_secs(1_800_000_000));
    let memory = Arc::new(MemoryStore::shared(clock.clone()));
    let store: Arc<dyn Store> = memory.clone();
    (instance(&store, &clock).await, instance(&store, &clock).await, memory, clock)
}

fn new_grant() -> NewGrant {
    let tokens =
        crate::store::Tokens { access: None, access_expires_at: None, refresh: "refresh".into() };
    NewGrant { tenant: tenant(), api_key: api_key(), tokens, weight: None }
}

fn client_name(name: &str) -> ClientName {
    ClientName::new(name).unwrap()
}

async fn is_paused(instance: &Instance) -> bool {
    instance.gate.api_key(&api_key()).unwrap().snapshot().await.unwrap().paused
}

async fn soon() {
    tokio::time::sleep(Duration::from_millis(60)).await;
}

#[tokio::test(start_paused = true)]
async fn tenants_clients_and_pauses_are_told_to_the_shells() {
    let (one, other, store, _) = two().await;
    one.tokens.put(new_grant()).await.unwrap();
    let name = client_name("crm");
    let (key, _) = one.clients.add(name.clone(), TenantScope::All, None).await.unwrap();
    store.pause_api_key(&api_key(), true).await.unwrap();
    soon().await;
    assert!(other.tokens.tenant("acme").is_some());
    assert_eq!(other.clients.holder(key.expose()).unwrap().name, name);
    assert!(is_paused(&other).await && is_paused(&one).await);
    other.tokens.remove(&tenant()).await.unwrap();
    other.clients.remove(&name).await.unwrap();
    store.pause_api_key(&api_key(), false).await.unwrap();
    soon().await;
    assert!(one.tokens.tenant("acme").is_none());
    assert!(one.clients.holder(key.expose()).is_err());
    assert!(!is_paused(&one).await);
}

#[tokio::test(start_paused = true)]
async fn what_was_just_made_elsewhere_is_known_when_a_look_has_ended() {
    let (one, other, _, clock) = two().await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    one.tokens.put(new_grant()).await.unwrap();
    let asked = clock.mono();
    other.news.look().await;
    assert!(other.tokens.tenant("acme").is_some());
    assert!(clock.mono().since(asked) <= UNKNOWN_APART);
}

#[tokio::test(start_paused = true)]
async fn looks_that_many_ask_for_are_one_and_keep_their_distance() {
    let (_one, other, _, clock) = two().await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let begun = clock.mono();
    for _ in 0..8 {
        let asking = (0..100).map(|_| other.news.look());
        futures_util::future::join_all(asking).await;
    }
    let took = clock.mono().since(begun);
    assert!(took >= UNKNOWN_APART * 7 && took <= UNKNOWN_APART * 9, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_came_back_older_is_read_as_a_whole_and_given_back_what_it_lost() {
    let (one, other, store, _) = two().await;
    let past = store.now();
    one.tokens.put(new_grant()).await.unwrap();
    soon().await;
    store.come_back(&past);
    assert!(store.grant(&tenant()).await.unwrap().is_none());
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(store.grant(&tenant()).await.unwrap().is_some());
    for instance in [&one, &other] {
        let status = instance.tokens.status(&tenant()).await.unwrap();
        assert_eq!(status.state, TenantState::Ready);
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_that_an_instance_wrote_is_not_lost_with_a_store_that_nobody_had_read() {
    let (one, other, store, _) = two().await;
    let past = store.now();
    one.tokens.put(new_grant()).await.unwrap();
    let (key, _) = one.clients.add(client_name("crm"), TenantScope::All, None).await.unwrap();
    one.gate.api_key(&api_key()).unwrap().pause(true);
    store.pause_api_key(&api_key(), true).await.unwrap();
    store.come_back(&past);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(store.grant(&tenant()).await.unwrap().is_some());
    for instance in [&one, &other] {
        assert!(instance.tokens.tenant("acme").is_some());
        assert!(instance.clients.holder(key.expose()).is_ok());
        assert!(is_paused(instance).await);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_removed_just_before_a_store_was_started_again_stays_removed() {
    let (one, other, store, _) = two().await;
    one.tokens.put(new_grant()).await.unwrap();
    let (key, _) = one.clients.add(client_name("crm"), TenantScope::All, None).await.unwrap();
    soon().await;
    one.tokens.remove(&tenant()).await.unwrap();
    one.clients.remove(&client_name("crm")).await.unwrap();
    store.come_back(&store.now());
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(store.grant(&tenant()).await.unwrap().is_none());
    for instance in [&one, &other] {
        assert!(instance.tokens.tenant("acme").is_none());
        assert!(instance.clients.holder(key.expose()).is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn an_emptied_store_is_given_back_tenants_clients_and_what_is_held() {
    let (one, other, store, _) = two().await;
    let empty = store.now();
    let (crm, shop) = (client_name("crm"), client_name("shop"));
    let (key, _) = one.clients.add(crm.clone(), TenantScope::All, None).await.unwrap();
    one.tokens.put(NewGrant { weight: Some(3), ..new_grant() }).await.unwrap();
    one.tokens.pause(&tenant(), true).await.unwrap();
    one.gate.api_key(&api_key()).unwrap().pause(true);
    store.pause_api_key(&api_key(), true).await.unwrap();
    let before = store.grant(&tenant()).await.unwrap().unwrap();
    soon().await;
    store.come_back(&empty);
    // an operator was faster than the loss was noticed
    let (_, added) = other.clients.add(shop.clone(), TenantScope::All, None).await.unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let after = store.grant(&tenant()).await.unwrap().expect("it is there again");
    assert_eq!((after.version, after.paused, after.weight), (before.version, true, 3));
    assert!(store.paused_api_keys().await.unwrap().contains(&api_key()));
    let names: Vec<_> = store.clients().await.unwrap().into_iter().map(|it| it.name).collect();
    assert_eq!(names, [crm, added.name.clone()]);
    for instance in [&one, &other] {
        assert!(instance.clients.holder(key.expose()).is_ok());
        assert!(instance.clients.named("shop").is_some());
        assert!(is_paused(instance).await);
        let status = instance.tokens.status(&tenant()).await.unwrap();
        assert_eq!(status.state, TenantState::Paused);
    }
}

#[tokio::test(start_paused = true)]
async fn an_older_store_gets_newer_keys_and_holds_again_and_older_ones_go() {
    let (one, other, store, _) = two().await;
    let crm = client_name("crm");
    let (first, _) = one.clients.add(crm.clone(), TenantScope::All, None).await.unwrap();
    store.pause_api_key(&api_key(), true).await.unwrap();
    one.tokens.put(new_grant()).await.unwrap();
    one.tokens.pause(&tenant(), true).await.unwrap();
    let past = store.now();
    let (second, _) = one.clients.rotate(&crm, Duration::ZERO, None).await.unwrap().unwrap();
    store.pause_api_key(&api_key(), false).await.unwrap();
    one.tokens.pause(&tenant(), false).await.unwrap();
    soon().await;
    store.come_back(&past);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(store.paused_api_keys().await.unwrap().is_empty());
    assert!(!store.grant(&tenant()).await.unwrap().unwrap().paused);
    for instance in [&one, &other] {
        assert!(instance.clients.holder(first.expose()).is_err());
        assert!(instance.clients.holder(second.expose()).is_ok());
        assert!(!is_paused(instance).await);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_removed_stays_so_though_a_store_has_lost_other_things() {
    let (one, other, store, _) = two().await;
    let (crm, shop) = (client_name("crm"), client_name("shop"));
    one.clients.add(crm.clone(), TenantScope::All, None).await.unwrap();
    one.tokens.put(new_grant()).await.unwrap();
    soon().await;
    let past = store.now();
    one.clients.add(shop.clone(), TenantScope::All, None).await.unwrap();
    soon().await;
    store.come_back(&past);
    // before any instance has noticed
    assert!(store.remove_client(&crm).await.unwrap());
    assert!(store.remove_grant(&tenant()).await.unwrap());
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(store.grant(&tenant()).await.unwrap().is_none());
    for instance in [&one, &other] {
        assert!(instance.clients.named("crm").is_none());
        assert!(instance.clients.named("shop").is_some());
        assert!(instance.tokens.tenant("acme").is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_removed_before_anybody_has_restored_it_is_not_restored() {
    let (one, other, store, _) = two().await;
    let past = store.now();
    let (key, _) = one.clients.add(client_name("crm"), TenantScope::All, None).await.unwrap();
    one.tokens.put(new_grant()).await.unwrap();
    soon().await;
    store.come_back(&past);
    assert!(!other.tokens.remove(&tenant()).await.unwrap(), "it is not there");
    assert!(!other.clients.remove(&client_name("crm")).await.unwrap());
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(store.grant(&tenant()).await.unwrap().is_none());
    assert!(store.clients().await.unwrap().is_empty());
    for instance in [&one, &other] {
        assert!(instance.tokens.tenant("acme").is_none());
        assert!(instance.clients.holder(key.expose()).is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_a_store_has_lost_is_made_again() {
    let (one, other, store, _) = two().await;
    let (key, _) = one.clients.add(client_name("crm"), TenantScope::All, None).await.unwrap();
    one.tokens.put(new_grant()).await.unwrap();
    soon().await;
    let past = store.now();
    one.tokens.remove(&tenant()).await.unwrap();
    one.clients.remove(&client_name("crm")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    store.come_back(&past);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(store.grant(&tenant()).await.unwrap().is_none());
    assert!(store.clients().await.unwrap().is_empty());
    for instance in [&one, &other] {
        assert!(instance.tokens.tenant("acme").is_none());
        assert!(instance.clients.holder(key.expose()).is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_made_anew_under_the_name_of_something_removed_stays() {
    let (one, other, store, _) = two().await;
    let empty = store.now();
    one.clients.add(client_name("crm"), TenantScope::All, None).await.unwrap();
    one.tokens.put(new_grant()).await.unwrap();
    soon().await;
    one.tokens.remove(&tenant()).await.unwrap();
    one.clients.remove(&client_name("crm")).await.unwrap();
    soon().await;
    store.come_back(&empty);
    let mut grant = new_grant();
    grant.tokens.refresh = "another".into();
    store.put_grant(grant).await.unwrap();
    let (key, _) = other.clients.add(client_name("crm"), TenantScope::All, None).await.unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    for instance in [&one, &other] {
        assert!(instance.tokens.tenant("acme").is_some());
        assert!(instance.clients.holder(key.expose()).is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_of_one_instance_is_not_followed() {
    let clock = Clock::starting_at(Unix::from_secs(1_800_000_000));
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let alone = instance(&store, &clock).await;
    assert!(!alone.news.is_followed());
    alone.news.look().await;
    assert!(alone.tokens.status(&tenant()).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_a_follower_that_has_ended_does_not_wait() {
    let (one, ..) = two().await;
    one.stopped.cancel();
    soon().await;
    one.news.look().await;
}
