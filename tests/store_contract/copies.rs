//! `ctct-proxy store copy` as a process, between databases and a real server.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use ctct_proxy::engine::Day;
use ctct_proxy::secret::KeyRing;
use ctct_proxy::store::{Grant, Store};

use crate::redis_process::RedisServer;
use crate::support::{ClusterPlace, Place, SharedPlace, api_key, new_grant, secs, tenant, tokens};
use crate::whole::{client, grant, text_of};

/// Tenants of a copy that takes long enough to be killed in.
const MANY: usize = 3_000;

fn sqlite(place: &Place) -> String {
    format!("sqlite:{}", place.db().display())
}

fn redis(place: &SharedPlace) -> String {
    format!("{}?prefix={}", place.server.url(), place.prefix())
}

fn key_of(place: &SharedPlace) -> String {
    let path = place.settings.encryption_key_file.as_ref().expect("is named");
    path.display().to_string()
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ctct-proxy"));
    command.args(["store", "copy"]).args(args).stdin(Stdio::null());
    command
}

/// What a copy printed, both streams, and its exit code.
fn copy(args: &[&str]) -> (i32, String) {
    let Output { status, stdout, stderr } = command(args).output().expect("it starts");
    let text = [stdout, stderr].map(|bytes| String::from_utf8(bytes).expect("a text")).concat();
    assert!(!text.contains("access-") && !text.contains("refresh-"), "no token in: {text}");
    (status.code().expect("an exit code"), text)
}

/// From a database to a server.
fn copy_to(from: &Place, to: &SharedPlace, more: &[&str]) -> (i32, String) {
    let (from, to, key) = (sqlite(from), redis(to), key_of(to));
    copy(&[&[from.as_str(), &to, "--to-key-file", &key], more].concat())
}

/// From a server to a database.
fn copy_back(from: &SharedPlace, to: &Place, more: &[&str]) -> (i32, String) {
    let (from, to, key) = (redis(from), sqlite(to), key_of(from));
    copy(&[&[from.as_str(), &to, "--from-key-file", &key], more].concat())
}

/// The numbers of a row: copied, there already, left alone.
fn row(text: &str, of: &str) -> [usize; 3] {
    let line = text.lines().find(|line| line.starts_with(of));
    let line = line.unwrap_or_else(|| panic!("no {of} in: {text}"));
    let numbers: Vec<usize> =
        line[of.len()..].split_whitespace().map(|n| n.parse().expect("a number")).collect();
    numbers.try_into().expect("three numbers")
}

async fn texts(store: &Arc<dyn Store>) -> Vec<String> {
    store.grants().await.expect("read").iter().map(text_of).collect()
}

async fn write(store: &Arc<dyn Store>, grant: &Grant) {
    let whole = store.whole().expect("it can be copied");
    whole.write_grant(grant, None).await.expect("written");
}

/// Some of everything, with refreshes that did not end.
async fn fill(place: &Place) {
    let store = place.open();
    for name in ["acme", "bolt"] {
        write(&store, &grant(name, name)).await;
    }
    for name in ["begun", "came", "posted"] {
        let version =
            store.put_grant(new_grant(name, tokens(name))).await.expect("stored").1.version;
        store.begin_refresh(&tenant(name), version, secs(70)).await.expect("begun");
        if name != "begun" {
            store.post_refresh(&tenant(name), version, secs(70)).await.expect("posted");
        }
        if name == "came" {
            let came = tokens("that-came");
            store.receive_refresh(&tenant(name), version, &came, secs(71)).await.expect("received");
        }
    }
    let dead = store.put_grant(new_grant("dead", tokens("dead"))).await.expect("stored").1;
    store.fail_grant(&tenant("dead"), dead.version, "revoked").await.expect("failed");
    let whole = store.whole().expect("it can be copied");
    whole.write_client(&client("crm"), None).await.expect("written");
    whole.write_client(&client("shop"), None).await.expect("written");
    store.pause_api_key(&api_key("held"), true).await.expect("paused");
    for (name, calls) in [("main", 5), ("held", 6), ("lonely", 7)] {
        store.reserve(&api_key(name), Day::new(20_000), calls, 10).await.expect("reserved");
    }
    store.close().await.expect("closes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_goes_to_a_server_and_back_and_is_the_same() {
    let (first, second) = (Place::new(), Place::new());
    let server = SharedPlace::on(Arc::new(RedisServer::start()));
    fill(&first).await;
    let config = first.path().join("proxy.toml");
    let lonely = "[[api_keys]]\nname = \"lonely\"\nclient_id = \"x\"\nauth_style = \"public\"\n";
    std::fs::write(&config, lonely).expect("written");
    let config = ["--config", config.to_str().expect("a text")];
    let (code, text) = copy_to(&first, &server, &config);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("TO holds all that FROM holds"), "{text}");
    assert!(text.contains("tenant came: with the tokens of a refresh"), "{text}");
    assert!(text.contains("tenant posted: the answer to its last refresh is lost"), "{text}");
    assert_eq!(row(&text, "tenants"), [6, 0, 0]);
    let (code, text) = copy_to(&first, &server, &config);
    let rows = ["tenants", "clients", "held API keys", "counted days"].map(|of| row(&text, of));
    assert_eq!((code, rows), (0, [[0, 6, 0], [0, 2, 0], [0, 1, 0], [0, 3, 0]]), "{text}");
    let aof = String::from_utf8_lossy(&server.server.append_only_bytes()).into_owned();
    assert!(aof.contains("acme") && !aof.contains("refresh-") && !aof.contains("access-"));
    // the doubt about `posted` is known by no journal that a server has
    let (code, text) = copy_back(&server, &second, &config);
    assert_eq!((code, row(&text, "tenants")), (1, [5, 0, 1]), "{text}");
    assert!(text.contains("left alone: tenant posted: a refresh was under way"), "{text}");
    let (here, there) = (first.open(), second.open());
    let as_taken = |grant: Grant| match grant.tenant.as_str() {
        "posted" => None,
        "begun" => Some(Grant { refresh_begun_at: None, ..grant }),
        "came" => Some(Grant {
            tokens: tokens("that-came"),
            last_refreshed_at: Some(secs(71)),
            refresh_begun_at: None,
            ..grant
        }),
        _ => Some(grant),
    };
    let taken = here.grants().await.expect("read").into_iter().filter_map(as_taken);
    let expected: Vec<String> = taken.map(|grant| text_of(&grant)).collect();
    assert_eq!(texts(&there).await, expected);
    let [one, two] = [&here, &there].map(async |store| {
        let clients = store.clients().await.expect("read");
        let keys: Vec<_> = clients.iter().map(|client| client.keys).collect();
        (format!("{clients:?}"), keys, store.paused_api_keys().await.expect("read"))
    });
    assert_eq!(one.await, two.await);
    for (name, calls) in [("main", 5), ("held", 6), ("lonely", 7)] {
        let days = there.whole().expect("whole").days(&api_key(name)).await.expect("read");
        assert_eq!(days, BTreeMap::from([(Day::new(20_000), calls)]), "{name}");
    }
    for (path, bytes) in second.files() {
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("refresh-") && !text.contains("access-"), "{}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_was_killed_is_finished_by_another_one() {
    let (from, back) = (Place::new(), Place::new());
    let to = SharedPlace::on(Arc::new(RedisServer::start()));
    let store = from.open();
    let grants: Vec<Grant> =
        (0..MANY).map(|n| grant(&format!("t{n:04}"), &format!("of-{n}"))).collect();
    let whole = store.whole().expect("it can be copied");
    let writing = grants.iter().map(|grant| whole.write_grant(grant, None));
    futures_util::future::try_join_all(writing).await.expect("written");
    let expected = texts(&store).await;
    store.close().await.expect("closes");
    let (url, key) = (redis(&to), key_of(&to));
    let args = [sqlite(&from).as_str(), &url, "--to-key-file", &key].map(str::to_owned);
    let mut child = command(&args.each_ref().map(String::as_str))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let index = format!("{}{{custody}}:tenants", to.prefix());
    let count = || to.server.cmd(&["ZCARD", &index])[1..].parse::<usize>().expect("a number");
    while count() < 100 {
        assert!(child.try_wait().expect("asked").is_none(), "it ended before it was killed");
    }
    child.kill().expect("killed");
    child.wait().expect("gone");
    let there = count();
    assert!((100..MANY).contains(&there), "killed in the middle: {there}");
    let (code, text) = copy_to(&from, &to, &[]);
    assert_eq!((code, row(&text, "tenants")), (0, [MANY - there, there, 0]), "{text}");
    let (code, text) = copy_back(&to, &back, &[]);
    assert_eq!((code, row(&text, "tenants")), (0, [MANY, 0, 0]), "{text}");
    assert_eq!(texts(&back.open()).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_copied_is_refused_and_changes_nothing() {
    let (from, to) = (Place::new(), SharedPlace::new());
    let refused = |result: (i32, String), code: i32, says: &[&str]| {
        assert_eq!(result.0, code, "{}", result.1);
        let missing: Vec<_> = says.iter().filter(|says| !result.1.contains(**says)).collect();
        assert!(missing.is_empty(), "{missing:?} not in: {}", result.1);
    };
    refused(copy_to(&from, &to, &[]), 1, &["FROM (sqlite:", "there is none at"]);
    assert!(from.files().is_empty(), "nothing was made");
    fill(&from).await;
    let running = from.open();
    let says = ["is used by another process", "Stop every proxy on FROM", "works once"];
    refused(copy_to(&from, &to, &[]), 1, &says);
    drop(running);
    let (url, key) = (redis(&to), key_of(&to));
    refused(copy(&[&sqlite(&from), &url]), 2, &["--to-key-file"]);
    refused(copy(&[&sqlite(&from), &sqlite(&from)]), 2, &["are the same store"]);
    refused(copy(&[&sqlite(&from), "memory:"]), 2, &["TO is memory:"]);
    let hidden = copy(&["redis://u:hunter2@h:0", "redis://u:hunter2@h/x"]);
    assert!(!hidden.1.contains("hunter2"), "{}", hidden.1);
    refused(hidden, 2, &["FROM", "TO"]);
    let other = from.path().join("other");
    std::fs::write(&other, KeyRing::generate().text().expose()).expect("written");
    let other = other.to_str().expect("a text");
    let wrong = copy_to(&from, &to, &["--from-key-file", other]);
    refused(wrong, 1, &["FROM (sqlite:", "sealed with encryption key"]);
    // a trial writes nothing, and says what would be written
    let (code, text) = copy_to(&from, &to, &["--dry-run"]);
    assert_eq!((code, row(&text, "tenants"), row(&text, "clients")), (0, [6, 0, 0], [2, 0, 0]));
    assert!(text.contains("TO COPY") && text.contains("nothing was written"), "{text}");
    assert_eq!(to.server.cmd(&["KEYS", &format!("{}*", to.prefix())]), "");
    let back = Place::new();
    refused(copy_back(&to, &back, &[]), 1, &["FROM (redis://", "has none under test-"]);
    assert_eq!(copy_to(&from, &to, &[]).0, 0);
    let wrong = copy(&[&sqlite(&from), &url, "--to-key-file", other]);
    refused(wrong, 1, &["TO (redis://", "sealed with encryption key", "--to-key-file"]);
    let wrong = copy(&[&url, &sqlite(&back), "--from-key-file", other]);
    refused(wrong, 1, &["FROM (redis://", "sealed with encryption key"]);
    let (code, text) = copy(&[&url, &sqlite(&back), "--from-key-file", &key, "--dry-run"]);
    assert_eq!((code, row(&text, "tenants")), (1, [5, 0, 1]), "{text}");
    assert!(back.files().is_empty(), "nothing was made");
    let instance = to.open().await;
    let channel = format!("{}changes", to.prefix());
    while !to.server.cmd(&["PUBSUB", "NUMSUB", &channel]).ends_with(":1") {}
    refused(copy_back(&to, &back, &[]), 1, &["used by 1 running instances", "Stop every proxy"]);
    instance.close().await.expect("closes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_there_is_left_alone_or_overwritten_but_never_by_spent_tokens() {
    let (from, to) = (Place::new(), Place::new());
    let (here, there) = (from.open(), to.open());
    for name in ["acme", "bolt", "cone"] {
        write(&here, &grant(name, "here")).await;
    }
    write(&there, &Grant { handed_in: None, ..grant("acme", "there") }).await;
    write(&there, &Grant { last_refreshed_at: Some(secs(51)), ..grant("bolt", "later") }).await;
    let crm = client("crm");
    here.whole().expect("whole").write_client(&crm, None).await.expect("written");
    let till = ctct_proxy::store::Client { keys: crm.keys, ..client("till") };
    there.whole().expect("whole").write_client(&till, None).await.expect("written");
    drop((here, there));
    let (one, two) = (sqlite(&from), sqlite(&to));
    let (code, text) = copy(&[&one, &two]);
    assert_eq!((code, row(&text, "tenants"), row(&text, "clients")), (1, [1, 0, 2], [0, 0, 1]));
    assert!(
        text.contains("left alone: tenant acme: is in TO with other content (tokens"),
        "{text}"
    );
    assert!(text.contains("left alone: tenant bolt: is in TO and was refreshed there"), "{text}");
    assert!(text.contains("left alone: client crm: has the key of client till"), "{text}");
    let (code, text) = copy(&[&one, &two, "--overwrite"]);
    assert_eq!((code, row(&text, "tenants")), (1, [1, 1, 1]), "{text}");
    let refresh = async |name: &str| {
        let grant = to.open().grant(&tenant(name)).await.expect("reads").expect("is there");
        grant.tokens.refresh.expose().clone()
    };
    let tokens = [refresh("acme").await, refresh("bolt").await, refresh("cone").await];
    assert_eq!(tokens, ["refresh-here", "refresh-later", "refresh-here"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_only_the_journal_of_a_killed_instance_has_are_copied_from_it() {
    let (from, to) = (SharedPlace::new(), Place::new());
    let instance = from.open().await;
    let put = instance.put_grant(new_grant("acme", tokens("1"))).await.expect("stored").1;
    instance.begin_refresh(&put.tenant, put.version, secs(5)).await.expect("begun");
    instance.post_refresh(&put.tenant, put.version, secs(5)).await.expect("posted");
    let came = tokens("that-came");
    instance.receive_refresh(&put.tenant, put.version, &came, secs(6)).await.expect("received");
    instance.close().await.expect("closes");
    let journal = from.settings.refresh_journal.as_deref().expect("is named");
    let before = std::fs::read(journal).expect("reads");
    idle(&from);
    let (code, text) = copy_back(&from, &to, &[]);
    assert_eq!((code, row(&text, "tenants")), (1, [0, 0, 1]), "{text}");
    assert!(text.contains("name that with --from-journal"), "{text}");
    let named = ["--from-journal", journal.to_str().expect("a text")];
    let (code, text) = copy_back(&from, &to, &named);
    assert_eq!((code, row(&text, "tenants")), (0, [1, 0, 0]), "{text}");
    assert_eq!(std::fs::read(journal).expect("reads"), before, "it stays as it was");
    let grant = to.open().grant(&put.tenant).await.expect("reads").expect("is there");
    assert_eq!(grant.tokens.refresh.expose(), "refresh-that-came");
    assert_eq!((grant.refresh_begun_at, grant.last_refreshed_at), (None, Some(secs(6))));
    let missing: &Path = &to.path().join("no.refreshes");
    let named = ["--from-journal", missing.to_str().expect("a text")];
    assert!(copy_back(&from, &to, &named).1.contains("no.refreshes"), "a wrong name is told");
}

/// Returns when the server has noticed that the instances are gone.
fn idle(place: &SharedPlace) {
    let channel = format!("{}changes", place.prefix());
    while !place.server.cmd(&["PUBSUB", "NUMSUB", &channel]).ends_with(":0") {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_copied_to_and_from_and_not_while_it_is_used() {
    let (from, back, cluster) = (Place::new(), Place::new(), ClusterPlace::new());
    fill(&from).await;
    let key = cluster.settings.encryption_key_file.as_ref().expect("is named");
    let key = key.to_str().expect("a text");
    let url = format!("{}?prefix={}", cluster.cluster.url(), cluster.prefix());
    let (code, text) = copy(&[&sqlite(&from), &url, "--to-key-file", key]);
    assert_eq!((code, row(&text, "tenants")), (0, [6, 0, 0]), "{text}");
    let instance = cluster.open("refreshes").await;
    let users = || {
        let channel = format!("{}changes", cluster.prefix());
        let of = |node: &RedisServer| node.cmd(&["PUBSUB", "NUMSUB", &channel]).ends_with(":1");
        cluster.cluster.nodes().iter().filter(|node| of(node)).count()
    };
    while users() != 1 {}
    let args = [url.as_str(), &sqlite(&back), "--from-key-file", key].map(str::to_owned);
    let args = args.each_ref().map(String::as_str);
    let (code, text) = copy(&args);
    assert!(code == 1 && text.contains("used by 1 running instances"), "{text}");
    instance.close().await.expect("closes");
    while users() != 0 {}
    let (code, text) = copy(&args);
    assert_eq!((code, row(&text, "tenants")), (1, [5, 0, 1]), "{text}");
}
