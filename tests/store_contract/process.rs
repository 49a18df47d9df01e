//! What needs a second process: a lock, a kill at any moment, a disk that is full.
//!
//! Tests named `role_…` are what the child does: this binary starts itself with one of them and a
//! place in the environment. Without the place they do nothing.

use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use ctct_proxy::engine::Day;
use ctct_proxy::secret::{KeyRing, Secret};
use ctct_proxy::store::{SqliteStore, Store, StoreError};

use crate::support::{Place, api_key, long_tokens, new_grant, open_at, secs, tenant, tokens};

/// Names the database of a child.
const DB: &str = "CTCT_PROXY_TEST_STORE";
/// A child has come to the end of its role.
const DONE: &str = "role done";
/// Bytes of tokens that a full disk must not lose: what the port promises.
const PROMISED: usize = 64 * 1024;
const TODAY: Day = Day::new(9);

#[expect(clippy::disallowed_methods, reason = "a child is told its place by the environment")]
fn child_db() -> Option<PathBuf> {
    std::env::var_os(DB).map(PathBuf::from)
}

/// A call of this binary that plays `role`.
fn role(name: &str) -> Vec<String> {
    let program = std::env::current_exe().expect("this binary has a path");
    let name = format!("process::{name}");
    let mut args = vec![program.to_str().expect("a text").to_owned()];
    args.extend([name.as_str(), "--exact", "--nocapture", "--test-threads=1"].map(str::to_owned));
    args
}

fn start(name: &str, db: &Path) -> Child {
    let args = role(name);
    Command::new(&args[0])
        .args(&args[1..])
        .env(DB, db)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this binary starts")
}

/// What the child has told, up to `count` tellings.
fn tellings(child: &mut Child, count: usize) -> Vec<(String, u64)> {
    let output = BufReader::new(child.stdout.as_mut().expect("its output is ours"));
    output
        .lines()
        .map(|line| line.expect("a line"))
        .filter_map(|line| {
            let (_, telling) = line.rsplit_once("told ")?;
            let (what, number) = telling.split_once(' ')?;
            Some((what.to_owned(), number.parse().expect("a number")))
        })
        .take(count)
        .collect()
}

#[tokio::test]
async fn role_hold() {
    let Some(db) = child_db() else { return };
    let _store = open_at(&db).expect("opens").store;
    println!("told open 1");
    // Until the parent is gone or has killed this process.
    std::io::stdin().read_to_end(&mut Vec::new()).expect("reads");
}

#[tokio::test]
async fn a_second_process_is_refused_until_the_first_is_gone() {
    let place = Place::new();
    let mut child = start("role_hold", &place.db());
    assert_eq!(tellings(&mut child, 1), [("open".to_owned(), 1)]);
    let error = place.try_open().err().expect("refused");
    assert!(matches!(error, StoreError::Unavailable { .. }));
    assert!(error.to_string().contains("used by another process"), "{error}");
    child.kill().expect("killed");
    child.wait().expect("gone");
    let store = place.open();
    let error = place.try_open().err().expect("refused within one process too");
    assert!(error.to_string().contains("used by another process"), "{error}");
    store.ping().await.expect("the refused one took no lock away");
}

#[tokio::test]
async fn role_write() {
    let Some(db) = child_db() else { return };
    let store = open_at(&db).expect("opens").store;
    let acme = tenant("acme");
    let mut version = store.grant(&acme).await.expect("reads").expect("is there").version;
    loop {
        let count = store.reserve(&api_key("default"), TODAY, 1, u64::MAX).await;
        println!("told total {}", count.expect("reserved").total);
        store.begin_refresh(&acme, version, secs(version)).await.expect("begun");
        println!("told begun {version}");
        let new = tokens(&(version + 1).to_string());
        version = store.finish_refresh(&acme, version, &new, secs(5)).await.expect("finished");
        println!("told version {version}");
    }
}

#[tokio::test]
async fn a_killed_process_loses_nothing_that_it_was_told() {
    let place = Place::new();
    let (acme, default) = (tenant("acme"), api_key("default"));
    let store = place.open();
    store.put_grant(new_grant("acme", tokens("1"))).await.expect("stored");
    store.close().await.expect("closes");
    let (mut total, mut version) = (0, 1);
    for round in 1..=10 {
        let mut child = start("role_write", &place.db());
        let told = tellings(&mut child, round * 7);
        child.kill().expect("killed");
        child.wait().expect("gone");
        let latest = |what: &str| told.iter().rfind(|(w, _)| w == what).map(|(_, n)| *n);
        total = latest("total").unwrap_or(total);
        version = latest("version").unwrap_or(version);
        wrong_key_changes_nothing(&place);
        let store = place.open();
        let count = store.reserve(&default, TODAY, 0, u64::MAX).await.expect("reads").total;
        // The child goes on until the kill reaches it.
        assert!(count >= total, "round {round}: {count} stored, {total} told");
        let grant = store.grant(&acme).await.expect("reads").expect("is there");
        assert!(grant.version >= version, "round {round}: {} stored", grant.version);
        let expected = format!("refresh-{}", grant.version);
        assert_eq!(grant.tokens.refresh.expose(), &expected, "tokens and version fit");
        let begun_now = grant.refresh_begun_at.is_none_or(|at| at == secs(grant.version));
        assert!(begun_now, "an open refresh is one of the current version");
        (total, version) = (count, grant.version);
        drop(store);
    }
    assert!(total > 100 && version > 100, "the children did work: {total}, {version}");
}

/// Also the log that a killed process left behind stays as it is.
fn wrong_key_changes_nothing(place: &Place) {
    let before = place.files();
    assert!(before.iter().any(|(path, _)| path.ends_with("store.db-wal")));
    let error = SqliteStore::open(&place.db(), KeyRing::new(Secret::new([1; 32]))).err();
    assert!(matches!(error, Some(StoreError::Corrupt { .. })), "{error:?}");
    assert_eq!(place.files(), before);
}

/// Writes until the store has no more room; everything but "unavailable" is a mistake.
async fn exhaust(store: &dyn Store) {
    let mut stored = 0;
    let refused = loop {
        let name = format!("filler-{stored}");
        match store.put_grant(new_grant(&name, long_tokens(8 * 1024))).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 5_000, "the disk never got full");
    };
    assert!(matches!(refused, StoreError::Unavailable { .. }), "{refused}");
    for _ in 0..200 {
        let result = store.reserve(&api_key("default"), TODAY, 1, u64::MAX).await.map(drop);
        assert!(matches!(result, Ok(()) | Err(StoreError::Unavailable { .. })), "{result:?}");
        let again = store.put_grant(new_grant("filler-0", long_tokens(1024))).await.map(drop);
        assert!(matches!(again, Ok(()) | Err(StoreError::Unavailable { .. })), "{again:?}");
    }
}

/// Begins a refresh, lets `fill` and [`exhaust`] take all room, and finishes the refresh.
async fn refresh_on_a_full_disk(db: &Path, fill: impl AsyncFnOnce()) -> SqliteStore {
    let key = Secret::new([7; 32]);
    let store = SqliteStore::open(db, KeyRing::new(key)).expect("opens");
    for name in ["acme", "bolt", "cone"] {
        store.put_grant(new_grant(name, tokens("1"))).await.expect("stored");
    }
    store.begin_refresh(&tenant("acme"), 1, secs(1)).await.expect("begun");
    store.begin_refresh(&tenant("bolt"), 1, secs(1)).await.expect("begun");
    fill().await;
    exhaust(&store).await;
    for name in ["acme", "bolt"] {
        let version = store.finish_refresh(&tenant(name), 1, &long_tokens(PROMISED), secs(2)).await;
        assert_eq!(version.expect("the promised room is there"), 2);
    }
    let grant = store.grant(&tenant("acme")).await.expect("reads").expect("is there");
    assert_eq!(grant.tokens.refresh.expose().len(), PROMISED / 2);
    store
}

async fn check_after_full_disk(db: &Path) {
    let store = SqliteStore::open(db, KeyRing::new(Secret::new([7; 32]))).expect("opens");
    for name in ["acme", "bolt"] {
        let grant = store.grant(&tenant(name)).await.expect("reads").expect("is there");
        assert_eq!((grant.version, grant.tokens.refresh.expose().len()), (2, PROMISED / 2));
    }
}

#[tokio::test]
async fn role_file_that_cannot_grow() {
    let Some(db) = child_db() else { return };
    let store = refresh_on_a_full_disk(&db, async || ()).await;
    drop(store);
    check_after_full_disk(&db).await;
    println!("{DONE}");
}

/// The limit of file sizes needs no rights, so this runs everywhere.
#[test]
fn a_refresh_that_was_begun_is_stored_though_no_file_can_grow() {
    let place = Place::new();
    let script = r#"trap "" XFSZ; ulimit -f 4096; exec "$@""#;
    let output = Command::new("sh")
        .args(["-c", script, "sh"])
        .args(role("role_file_that_cannot_grow"))
        .env(DB, place.db())
        .output()
        .expect("sh starts");
    assert_done(&output.stdout, &output.stderr);
}

#[tokio::test]
async fn role_full_disk() {
    let Some(db) = child_db() else { return };
    let ballast = db.with_extension("ballast");
    let fill = async || {
        let mut file = OpenOptions::new().append(true).create(true).open(&ballast).expect("opens");
        for len in [1 << 16, 1 << 12] {
            while file.write_all(&vec![1; len]).is_ok() {}
        }
    };
    let store = refresh_on_a_full_disk(&db, fill).await;
    let cone = tenant("cone");
    let refused = store.begin_refresh(&cone, 1, secs(3)).await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    fs::remove_file(&ballast).expect("removed");
    store.ping().await.expect("goes on when space returns");
    store.begin_refresh(&cone, 1, secs(3)).await.expect("begun");
    store.finish_refresh(&cone, 1, &tokens("2"), secs(4)).await.expect("finished");
    store.put_grant(new_grant("late", long_tokens(8 * 1024))).await.expect("stored");
    store.close().await.expect("closes");
    check_after_full_disk(&db).await;
    println!("{DONE}");
}

#[test]
fn a_refresh_that_was_begun_is_stored_on_a_full_disk() {
    let place = Place::new();
    let script = r#"mount -t tmpfs -o size=8m none "$0" && echo mounted && exec "$@""#;
    let output = Command::new("unshare")
        .args(["-r", "-m", "sh", "-c", script])
        .arg(place.path())
        .args(role("role_full_disk"))
        .env(DB, place.db())
        .output();
    let mounted = output.as_ref().is_ok_and(|output| output.stdout.starts_with(b"mounted"));
    if let (true, Ok(output)) = (mounted, output) {
        assert_done(&output.stdout, &output.stderr);
    } else {
        // No user namespaces here. The limit of file sizes has shown the same promise above.
        println!("no small disk can be mounted here");
    }
}

fn assert_done(stdout: &[u8], stderr: &[u8]) {
    let (stdout, stderr) = (String::from_utf8_lossy(stdout), String::from_utf8_lossy(stderr));
    assert!(stdout.contains(DONE), "{stdout}\n{stderr}");
}
