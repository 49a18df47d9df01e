//! A store on a cluster: keys on several nodes, a node that dies, one that would forget.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use ctct_proxy::config::StoreUrl;
use ctct_proxy::engine::turnstile::{Ask, Beat, Memory, Place as InLine, Stamp, Terms};
use ctct_proxy::engine::{Class, Day, DayReset, Rate};
use ctct_proxy::store::{Changed, InstanceInfo, LaneTurn, RedisTurnstile, SharedTurnstile, Since};

use crate::cluster_process::RedisCluster;
use crate::redis_server::{fill, put, refresh_token};
use crate::support::{ClusterPlace, api_key, secs, tenant, tokens};

/// API keys whose keys lie on all nodes.
const API_KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
/// A node that died has been replaced by then, on a busy machine too.
const REPLACED_BY: Duration = Duration::from_secs(30);
/// Something is heard by then.
const HEARD_BY: Duration = Duration::from_secs(10);

fn terms() -> Terms {
    Terms {
        rate: Rate::per_second(NonZeroU32::new(4).expect("not zero")),
        calls: 4,
        unanswered: Duration::from_millis(10),
        spaced: Duration::ZERO,
        per_day: 100,
        day_reset: DayReset::new(Duration::ZERO),
        reserve_percent: 0,
        withheld: 0,
    }
}

/// Asks for a slot for a call of `acme`.
fn ask() -> Ask {
    let place = InLine { class: Class::Normal, tenant: tenant("acme"), weight: 1, count: 1 };
    Ask {
        wanted_until: Some(Stamp::NEVER),
        terms: terms(),
        life: Duration::from_millis(100),
        grace: Duration::from_secs(5),
        line: vec![place],
        anew: true,
        known: 0,
        number: 1,
        reports: Vec::new(),
        again: Vec::new(),
        memory: Memory::default(),
    }
}

async fn turnstile(place: &ClusterPlace, id: &str) -> RedisTurnstile {
    let StoreUrl::Redis(url) = &place.settings.url else { panic!("it is on a server") };
    let (id, details) = (id.to_owned(), "{}".to_owned());
    let instance = InstanceInfo { name: id.clone(), id, details };
    RedisTurnstile::open(url, &instance).await.expect("connects")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turnstiles_and_lanes_of_api_keys_lie_on_several_nodes_and_work() {
    let place = ClusterPlace::new();
    let (one, other) = (turnstile(&place, "one").await, turnstile(&place, "other").await);
    for name in API_KEYS {
        let name = api_key(name);
        let told = loop {
            let told = one.ask(&name, &ask()).await.expect("answered");
            if told.granted.is_some() {
                break told;
            }
            tokio::time::sleep(told.closed.max(Duration::from_millis(1))).await;
        };
        assert_eq!((told.granted, told.used), (Some((Class::Normal, tenant("acme"))), 1));
        let seen = other.ask(&name, &Ask { line: Vec::new(), ..ask() }).await.expect("answered");
        assert_eq!((seen.granted, seen.ticket, seen.used), (None, told.ticket, 1));
    }
    let store = place.open("refreshes").await;
    for name in API_KEYS {
        let (name, hold) = (api_key(name), Duration::from_secs(60));
        let days = store.whole().expect("whole").days(&name).await.expect("read");
        assert_eq!(days.into_values().collect::<Vec<_>>(), [1], "the same count");
        let lease = loop {
            match store.take_lane(&name, hold).await.expect("answered") {
                LaneTurn::Yours(lease) => break lease,
                LaneTurn::Busy { retry } => tokio::time::sleep(retry).await,
            }
        };
        assert!(store.keep_lane(&name, lease, hold).await.expect("answered"));
    }
    let used: BTreeSet<u16> = place.nodes_with_keys();
    assert_eq!(used.len(), 3, "keys lie on all nodes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_on_a_cluster_are_on_one_roll_and_hear_of_turns_and_changes() {
    let place = ClusterPlace::new();
    let (one, other) = (turnstile(&place, "one").await, turnstile(&place, "other").await);
    let beat = Beat::first(Duration::from_mins(10));
    one.beat(&beat).await.expect("answered");
    let roll = other.beat(&beat).await.expect("answered");
    assert_eq!(roll.members.len(), 2);
    let (telling, mut told) = mpsc::unbounded_channel();
    let listening = async { other.listen(telling).await };
    let asking = async {
        // each is told when the other's call changes whose turn it is
        let hear = async { told.recv().await.expect("it listens") };
        tokio::pin!(hear);
        loop {
            one.ask(&api_key("a"), &ask()).await.expect("answered");
            other.ask(&api_key("a"), &ask()).await.expect("answered");
            tokio::select! {
                word = &mut hear => return word,
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
        }
    };
    let word = tokio::select! {
        word = timeout(HEARD_BY, asking) => word.expect("heard in time"),
        () = listening => panic!("it listens for as long as somebody hears"),
    };
    assert_eq!(word.0, api_key("a"));

    let (here, there) = (place.open("one").await, place.open("other").await);
    let before = there.changes(None).await.expect("answered").revision;
    // its listener connects meanwhile
    timeout(HEARD_BY, there.changed()).await.expect("it listens");
    put(&here, "acme", "1").await;
    timeout(HEARD_BY, there.changed()).await.expect("heard in time");
    let changes = there.changes(Some(before)).await.expect("answered");
    assert_eq!(changes.since, Since::Changed(vec![Changed::Tenant(tenant("acme"))]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_hands_over_is_not_missed_and_one_that_dies_is_replaced() {
    let mut place = ClusterPlace::on(Arc::new(RedisCluster::start_with_replicas()));
    let custody = format!("{}{{custody}}:meta", place.prefix());
    // the node that the URL names takes over, and dies in the end
    let dying = place.cluster.replica_of(&custody).port();
    let StoreUrl::Redis(url) = &mut place.settings.url else { panic!("it is on a server") };
    url.port = dying;
    let (store, other) = (place.open("refreshes").await, place.open("other").await);
    fill(&store).await;
    let version = put(&store, "acme", "1").await;
    place.cluster.fail_over(&custody);
    // the first try is turned away and sent to the other node
    store.finish_refresh(&tenant("acme"), version, &tokens("2"), secs(9)).await.expect("stored");
    let primary = place.cluster.node_of(&custody);
    assert_eq!(primary.port(), dying);
    assert_eq!(primary.cmd(&["WAIT", "1", "5000"]), ":1", "its replica has everything");
    Arc::get_mut(&mut place.cluster).expect("nobody else has it").kill(dying);
    let replaced = async { while store.ping().await.is_err() {} };
    timeout(REPLACED_BY, replaced).await.expect("the replica takes over");
    assert_eq!(refresh_token(&store, "acme").await, "refresh-2");
    let hearing = async {
        // word of what came before may still be heard
        let mut version = put(&store, "acme", "3").await;
        while timeout(Duration::from_millis(100), other.changed()).await.is_err() {
            version = put(&store, "acme", "3").await;
        }
        version
    };
    let version = timeout(HEARD_BY, hearing).await.expect("changes are told again");
    store.finish_refresh(&tenant("acme"), version, &tokens("4"), secs(9)).await.expect("stored");
    assert_eq!(refresh_token(&other, "acme").await, "refresh-4");
    let count =
        store.reserve(&api_key("default"), Day::new(20_000), 1, 10).await.expect("reserved");
    assert_eq!(count.total, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_with_a_node_that_forgets_or_another_database_is_refused() {
    let mut place = ClusterPlace::on(Arc::new(RedisCluster::start()));
    place.cluster.nodes()[2].cmd(&["CONFIG", "SET", "appendonly", "no"]);
    let refused = place.try_open("refreshes").await.err().expect("refused").to_string();
    assert!(refused.contains("no append-only file"), "{refused}");
    place.settings.accept_volatile = true;
    let store = place.open("refreshes").await;
    store.close().await.expect("closes");
    let StoreUrl::Redis(url) = &mut place.settings.url else { panic!("it is on a server") };
    url.database = 1;
    let refused = place.try_open("refreshes").await.err().expect("refused").to_string();
    assert!(refused.contains("SELECT is not allowed in cluster mode"), "{refused}");
}
