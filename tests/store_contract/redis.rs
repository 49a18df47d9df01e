//! What only a store on a Redis server meets: a server that dies, hangs, forgets, comes back older.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use ctct_proxy::engine::{ClientName, Day};
use ctct_proxy::secret::{ClientKey, Secret};
use ctct_proxy::store::{
    Client, ClientKeys, LaneTerms, LaneTurn, RefreshStep, Store, StoreError, TenantScope,
};

use crate::authorizations::asked;
use crate::redis_process::RedisServer;
use crate::support::{SharedPlace, api_key, new_grant, secs, tenant, tokens};

/// A call is over by then, whatever the server does; a second and what a busy machine adds.
pub(crate) const CALL_ENDS: Duration = Duration::from_millis(1_500);
/// A server that is back is used again by then.
const USED_AGAIN: Duration = Duration::from_secs(2);
/// What was lost is written again by then.
const WRITTEN_AGAIN: Duration = Duration::from_secs(15);

type Any = Arc<dyn Store>;

pub(crate) fn own_place(more: &[&str]) -> SharedPlace {
    SharedPlace::on(Arc::new(RedisServer::start_with(more)))
}

pub(crate) fn server(place: &mut SharedPlace) -> &mut RedisServer {
    Arc::get_mut(&mut place.server).expect("nobody else has it")
}

pub(crate) async fn put(store: &Any, name: &str, mark: &str) -> u64 {
    store.put_grant(new_grant(name, tokens(mark))).await.expect("stored").1.version
}

pub(crate) async fn refresh_token(store: &Any, name: &str) -> String {
    let grant = store.grant(&tenant(name)).await.expect("reads").expect("is there");
    grant.tokens.refresh.expose().clone()
}

/// Every kind of thing, some of it sealed.
pub(crate) async fn fill(store: &Any) -> u64 {
    let version = put(store, "acme", "secret-1").await;
    let name = ClientName::new("crm").expect("a valid name");
    let keys =
        ClientKeys { current: ClientKey::generate().digest(), expires_at: None, previous: None };
    let tenants = TenantScope::Some(BTreeSet::from([tenant("acme")]));
    let client = Client { name, tenants, created_at: secs(1), keys, last_used_at: None };
    store.add_client(client).await.expect("added");
    store.pause_api_key(&api_key("held"), true).await.expect("paused");
    store.begin_authorization(asked("acme", "secret-2"), secs(1)).await.expect("remembered");
    store.reserve(&api_key("default"), Day::new(20_000), 3, 10).await.expect("reserved");
    let terms = LaneTerms { hold: Duration::from_secs(9), rest_max: Duration::ZERO };
    store.take_lane(&api_key("default"), terms).await.expect("answered");
    version
}

async fn is_used_again(store: &Any) {
    let used = async { while store.ping().await.is_err() {} };
    timeout(USED_AGAIN, used).await.expect("a server that is back is used");
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-r").arg(from).arg(to).status().expect("cp is there");
    assert!(done.success());
}

/// What a power cut does to files that were not synced since `before` was copied from them.
fn power_cut(place: &mut SharedPlace, files: &Path, before: &Path) {
    server(place).kill();
    fs::remove_dir_all(files).expect("removed");
    copy(before, files);
    server(place).restart();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_that_the_server_forgets_are_sent_again() {
    let place = own_place(&[]);
    let store = place.open().await;
    let (done, server) = (CancellationToken::new(), place.server.clone());
    let _guard = done.clone().drop_guard();
    // also between a script and its call
    tokio::task::spawn_blocking(move || {
        while !done.is_cancelled() {
            server.cmd(&["SCRIPT", "FLUSH"]);
        }
    });
    for total in 1..=300_u64 {
        let count = store.reserve(&api_key("default"), Day::new(9), 1, 1_000).await;
        assert_eq!(count.expect("reserved").total, total);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_is_an_error_in_time_and_is_found_again_with_its_data() {
    let mut place = own_place(&["--appendfsync", "always"]);
    let store = place.open().await;
    fill(&store).await;
    server(&mut place).kill();
    for _ in 0..3 {
        let failed = timeout(CALL_ENDS, store.grant(&tenant("acme"))).await.expect("in time");
        assert!(matches!(failed, Err(StoreError::Unavailable { .. })), "{failed:?}");
    }
    server(&mut place).restart();
    is_used_again(&store).await;
    assert_eq!(refresh_token(&store, "acme").await, "refresh-secret-1");
    assert_eq!(store.clients().await.expect("read").len(), 1);
    put(&store, "bolt", "1").await;
    let count = store.reserve(&api_key("default"), Day::new(20_000), 0, 10).await.expect("read");
    assert_eq!(count.total, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_is_an_error_in_time_and_goes_on_afterwards() {
    let place = own_place(&[]);
    let store = place.open().await;
    put(&store, "acme", "1").await;
    place.server.stop();
    let calls = (0..20).map(|_| store.ping());
    let answers = timeout(CALL_ENDS, join_all(calls)).await.expect("in time");
    assert!(answers.iter().all(Result::is_err));
    let text = answers[0].as_ref().expect_err("failed").to_string();
    assert!(text.contains("did not answer"), "{text}");
    place.server.cont();
    is_used_again(&store).await;
    assert_eq!(refresh_token(&store, "acme").await, "refresh-1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forgets_is_refused_unless_that_is_accepted() {
    let mut place = own_place(&["--appendonly", "no"]);
    let refused = place.refusal().await;
    for part in ["appendonly yes", "--accept-volatile-store", &place.server.port().to_string()] {
        assert!(refused.contains(part), "{refused}");
    }
    place.settings.accept_volatile = true;
    put(&place.open().await, "acme", "1").await;

    let place = own_place(&[]);
    place.server.cmd(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let refused = place.refusal().await;
    assert!(refused.contains("allkeys-lru") && refused.contains("noeviction"), "{refused}");
    place.server.cmd(&["CONFIG", "SET", "maxmemory-policy", "volatile-ttl"]);
    drop(place.open().await);
    // grants have no time to live, but what keeps the limits has
    place.server.cmd(&["CONFIG", "SET", "maxmemory", "100mb"]);
    let refused = place.refusal().await;
    assert!(refused.contains("volatile-ttl") && refused.contains("noeviction"), "{refused}");
    place.server.cmd(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    // as managed servers do
    place.server.cmd(&["ACL", "SETUSER", "default", "-config"]);
    drop(place.open().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_has_become_a_replica_is_connected_to_anew() {
    let place = own_place(&[]);
    let store = place.open().await;
    let version = put(&store, "acme", "1").await;
    let ids = || {
        let list = place.server.cmd(&["CLIENT", "LIST", "TYPE", "normal"]);
        let id = |line: &str| line.split(' ').next().map(str::to_owned);
        // but the one that asks
        list.lines().filter(|line| !line.contains("cmd=client|list")).filter_map(id).collect()
    };
    let before: BTreeSet<String> = ids();
    // of a server that is not there, so that it stays as it is
    place.server.cmd(&["REPLICAOF", "127.0.0.1", "1"]);
    let failed = store.finish_refresh(&tenant("acme"), version, &tokens("2"), secs(1)).await;
    let text = failed.expect_err("nothing can be written").to_string();
    assert!(text.contains("read only replica"), "{text}");
    assert_eq!(refresh_token(&store, "acme").await, "refresh-1", "it is read");
    let after = ids();
    assert!(!after.is_empty() && after.is_disjoint(&before), "{before:?} {after:?}");
    place.server.cmd(&["REPLICAOF", "NO", "ONE"]);
    store.finish_refresh(&tenant("acme"), version, &tokens("2"), secs(1)).await.expect("finished");
}

#[tokio::test]
async fn prefixes_keep_two_deployments_apart() {
    let one = SharedPlace::new();
    let other = SharedPlace::on(Arc::clone(&one.server));
    let (first, second) = (one.open().await, other.open().await);
    fill(&first).await;
    assert!(second.grants().await.expect("read").is_empty());
    assert!(second.clients().await.expect("read").is_empty());
    assert!(second.paused_api_keys().await.expect("read").is_empty());
    let count = second.reserve(&api_key("default"), Day::new(20_000), 1, 10).await;
    assert_eq!(count.expect("reserved").total, 1);
    put(&second, "acme", "other").await;
    assert_eq!(refresh_token(&first, "acme").await, "refresh-secret-1");
}

#[tokio::test]
async fn what_counts_is_forgotten_in_the_end_and_custody_never() {
    let place = SharedPlace::new();
    let store = place.open().await;
    fill(&store).await;
    let all = place.server.cmd(&["KEYS", &format!("{}*", place.prefix())]);
    let (mut kept, mut forgotten) = (0, 0);
    for key in all.lines() {
        let ttl = place.server.cmd(&["TTL", key]);
        let ttl: i64 = ttl.trim_start_matches(':').parse().expect("a number");
        let forgets = !key.contains("{custody}") || key.contains("authorizations");
        assert_eq!(ttl > 0, forgets, "{key}: {ttl}");
        kept += u32::from(!forgets);
        forgotten += u32::from(forgets);
    }
    assert!(kept >= 8 && forgotten >= 6, "{kept} and {forgotten}: {all}");
    let days = place.server.cmd(&["TTL", &format!("{}{{default}}:days", place.prefix())]);
    let days: u64 = days.trim_start_matches(':').parse().expect("a number");
    assert!(days > 4 * 86_400, "{days}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_token_is_in_the_clear_in_the_files_of_the_server_or_ours() {
    let place = own_place(&["--appendfsync", "always"]);
    let store = place.open().await;
    let version = fill(&store).await;
    let acme = tenant("acme");
    store.begin_refresh(&acme, version, secs(1)).await.expect("begun");
    let came = tokens("secret-3");
    store.receive_refresh(&acme, version, &came, secs(2)).await.expect("received");
    store.finish_refresh(&acme, version, &came, secs(2)).await.expect("finished");
    let written = place.server.append_only_bytes();
    let journal = fs::read(place.path().join("refreshes")).expect("reads");
    let holds = |bytes: &[u8], text: &str| {
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    };
    assert!(holds(&written, "acme") && holds(&journal, "acme"), "these are the files");
    for secret in ["secret-1", "secret-2", "secret-3"] {
        assert!(!holds(&written, secret) && !holds(&journal, secret), "{secret}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_is_not_used_again_after_everything_is_gone() {
    let place = own_place(&[]);
    let store = place.open().await;
    let acme = tenant("acme");
    let mut last = put(&store, "acme", "1").await;
    for _ in 0..5 {
        last = store.finish_refresh(&acme, last, &tokens("2"), secs(1)).await.expect("finished");
    }
    place.server.cmd(&["FLUSHALL"]);
    let again = put(&store, "acme", "3").await;
    assert!(again > last, "{again} after {last}");
    let late = store.finish_refresh(&acme, last, &tokens("late"), secs(2)).await;
    assert!(matches!(late, Err(StoreError::Conflict { .. })), "{late:?}");
    assert_eq!(refresh_token(&store, "acme").await, "refresh-3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_a_server_lost_with_its_last_second_are_written_again() {
    let mut place = own_place(&["--appendfsync", "always"]);
    let store = place.open().await;
    let acme = tenant("acme");
    let version = put(&store, "acme", "1").await;
    store.begin_refresh(&acme, version, secs(1)).await.expect("begun");
    let (files, before) = (place.server.path().join("appendonlydir"), place.path().join("before"));
    copy(&files, &before);
    store.receive_refresh(&acme, version, &tokens("2"), secs(2)).await.expect("received");
    let next = store.finish_refresh(&acme, version, &tokens("2"), secs(2)).await.expect("finished");
    power_cut(&mut place, &files, &before);
    let written_again = async {
        loop {
            let grant = store.grant(&acme).await.ok().flatten();
            if grant.is_some_and(|grant| grant.version == next) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(WRITTEN_AGAIN, written_again).await.expect("the tokens are not lost");
    assert_eq!(refresh_token(&store, "acme").await, "refresh-2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_server_and_process_lost_together_are_in_the_journal() {
    let mut place = own_place(&["--appendfsync", "always"]);
    let store = place.open().await;
    let acme = tenant("acme");
    let version = put(&store, "acme", "1").await;
    store.begin_refresh(&acme, version, secs(1)).await.expect("begun");
    let (files, before) = (place.server.path().join("appendonlydir"), place.path().join("before"));
    copy(&files, &before);
    store.receive_refresh(&acme, version, &tokens("2"), secs(2)).await.expect("received");
    store.finish_refresh(&acme, version, &tokens("2"), secs(2)).await.expect("finished");
    drop(store);
    let kept = place.open().await;
    let open = kept.open_refreshes().await.expect("read");
    assert!(open.is_empty(), "a server that has them needs nothing: {open:?}");
    kept.close().await.expect("closes");

    let store = place.open().await;
    let version = version + 1;
    store.begin_refresh(&acme, version, secs(3)).await.expect("begun");
    fs::remove_dir_all(&before).expect("removed");
    copy(&files, &before);
    store.receive_refresh(&acme, version, &tokens("3"), secs(4)).await.expect("received");
    store.finish_refresh(&acme, version, &tokens("3"), secs(4)).await.expect("finished");
    drop(store);
    power_cut(&mut place, &files, &before);
    let store = place.open().await;
    let open = store.open_refreshes().await.expect("read");
    assert_eq!((open.len(), open[0].version), (1, version));
    let RefreshStep::Received { tokens, .. } = &open[0].step else { panic!("{open:?}") };
    assert_eq!(tokens.refresh, Secret::from("refresh-3"));
}

#[tokio::test]
async fn a_settled_refresh_leaves_no_journal_behind() {
    let place = SharedPlace::new();
    let store = place.open().await;
    let acme = tenant("acme");
    let version = put(&store, "acme", "1").await;
    store.begin_refresh(&acme, version, secs(1)).await.expect("begun");
    store.receive_refresh(&acme, version, &tokens("2"), secs(2)).await.expect("received");
    store.finish_refresh(&acme, version, &tokens("2"), secs(2)).await.expect("finished");
    let next = version + 1;
    store.begin_refresh(&acme, next, secs(3)).await.expect("begun at once again");
    store.post_refresh(&acme, next, secs(3)).await.expect("posted");
    // the first is settled meanwhile, and must not end the second
    tokio::time::sleep(Duration::from_secs(3)).await;
    drop(store);
    let store = place.open().await;
    let open = store.open_refreshes().await.expect("read");
    assert_eq!(open.len(), 1);
    assert!(matches!(open[0].step, RefreshStep::Posted) && open[0].version == next);
    store.abort_refresh(&acme, next).await.expect("aborted");
    store.close().await.expect("closes");
    assert!(!place.path().join("refreshes").exists());
}

#[tokio::test]
async fn a_journal_of_another_process_is_refused_by_its_name() {
    let place = SharedPlace::new();
    let _store = place.open().await;
    let refused = place.refusal().await;
    assert!(refused.contains("refreshes") && refused.contains("--refresh-journal"), "{refused}");
}

#[tokio::test]
async fn a_closed_store_refuses_lanes_and_changes_too() {
    let place = SharedPlace::new();
    let store = place.open().await;
    store.close().await.expect("closes");
    let terms = LaneTerms { hold: Duration::from_secs(1), rest_max: Duration::ZERO };
    let lane: Result<LaneTurn, _> = store.take_lane(&api_key("a"), terms).await;
    assert!(lane.is_err());
    assert!(store.changes(None).await.is_err());
}
