//! What a SQLite store promises of its files: modes, keys, and that no wrong start changes
//! anything.
//!
//! Each refusal is held to three things: it is made, it names the file, and all files are as
//! before.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;
use tokio::task::JoinSet;

use ctct_proxy::engine::Day;
use ctct_proxy::secret::{KeyRing, Sealer, Secret};
use ctct_proxy::store::{GrantState, SqliteStore, StoreError, keys_for};

use crate::support::{Place, api_key, new_grant, secs, tenant, tokens};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("is there").permissions().mode() & 0o7777
}

/// The text of the error with which the place does not open; its files must be as they were.
fn refusal(place: &Place) -> String {
    let before = place.files();
    let error = place.try_open().err().expect("the start is refused");
    assert_eq!(place.files(), before, "nothing was changed ({error})");
    let text = error.to_string();
    assert!(text.contains(place.path().to_str().expect("a text")), "names the file: {text}");
    text
}

async fn fill(place: &Place) {
    let store = place.open();
    store.put_grant(new_grant("acme", tokens("one"))).await.expect("stored");
    for number in 0..40 {
        let name = format!("tenant-{number}");
        store.put_grant(new_grant(&name, tokens(&name))).await.expect("stored");
    }
    store.close().await.expect("closes");
}

#[tokio::test]
async fn everything_survives_a_restart() {
    let place = Place::new();
    let (acme, day) = (tenant("acme"), Day::new(9));
    let store = place.open();
    store.put_grant(new_grant("acme", tokens("1"))).await.expect("stored");
    store.finish_refresh(&acme, 1, &tokens("2"), secs(10)).await.expect("finished");
    store.begin_refresh(&acme, 2, secs(20)).await.expect("begun");
    store.put_grant(new_grant("bolt", tokens("b"))).await.expect("stored");
    store.fail_grant(&tenant("bolt"), 1, "why").await.expect("failed");
    store.reserve(&api_key("default"), day, 5, 10).await.expect("reserved");
    store.pause_api_key(&api_key("default"), true).await.expect("paused");
    drop(store);
    let store = place.open();
    let grants = store.grants().await.expect("read");
    assert_eq!((grants[0].version, grants[0].refresh_begun_at), (2, Some(secs(20))));
    assert_eq!(grants[0].last_refreshed_at, Some(secs(10)));
    assert_eq!(grants[0].tokens.refresh.expose(), "refresh-2");
    let dead = GrantState::NeedsAuthorization { reason: "why".to_owned() };
    assert_eq!(grants[1].state, dead);
    let count = store.reserve(&api_key("default"), Day::new(8), 9, 10).await.expect("reserved");
    assert_eq!((count.day, count.granted, count.total), (day, 5, 10));
    assert!(store.paused_api_keys().await.expect("read").contains("default"));
}

#[tokio::test]
async fn files_are_for_their_owner_alone_and_hold_no_token_in_plain() {
    let place = Place::new();
    let opened = place.try_open().expect("opens");
    let store = opened.store;
    store.put_grant(new_grant("acme", tokens("hunter2"))).await.expect("stored");
    store.finish_refresh(&tenant("acme"), 1, &tokens("hunter3"), secs(1)).await.expect("finished");
    let asked = crate::authorizations::asked("acme", "hunter4");
    store.begin_authorization(asked.clone(), secs(1)).await.expect("remembered");
    let files = place.files();
    assert!(files.iter().any(|(path, bytes)| path.ends_with("store.db-wal") && bytes.len() > 4096));
    assert!(!files.iter().any(|(path, _)| path.ends_with("store.db-shm")));
    for (path, bytes) in files {
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        assert!(!bytes.windows(6).any(|part| part == b"hunter"), "{}", path.display());
    }
    store.close().await.expect("closes");
    let files = place.files();
    assert_eq!(files.len(), 1, "a closed store is one file and its key");
    assert!(!files[0].1.windows(6).any(|part| part == b"hunter"));
    let source = opened.key.expect("a key");
    assert!(source.made && source.warning().is_none());
    assert_eq!((mode(&source.path), source.path.ends_with("store.db.key")), (0o600, true));
    let reopened = place.try_open().expect("opens");
    let taken = reopened.store.take_authorization(&asked.state).await.expect("reads");
    assert_eq!(taken.expect("it was remembered").verifier, asked.verifier);
    let again = reopened.key.expect("a key");
    assert_eq!((again.made, again.key_id), (false, source.key_id));
}

#[tokio::test]
async fn another_key_refuses_the_start() {
    let place = Place::new();
    fill(&place).await;
    let before = place.files();
    let other = KeyRing::new(Secret::new([7; 32]));
    let other_id = other.key_id().to_string();
    let error = SqliteStore::open(&place.db(), other).err().expect("refused");
    assert!(matches!(error, StoreError::Corrupt { .. }));
    assert!(error.to_string().contains(&other_id) && error.to_string().contains("key file"));
    assert_eq!(place.files(), before);
    let grant = place.open().grant(&tenant("acme")).await.expect("reads").expect("is there");
    assert_eq!(grant.tokens.refresh.expose(), "refresh-one");
}

#[tokio::test]
async fn a_database_without_its_key_file_is_refused() {
    let place = Place::new();
    fill(&place).await;
    fs::remove_file(place.path().join("store.db.key")).expect("removed");
    let text = refusal(&place);
    assert!(text.contains("store.db.key does not") && text.contains("--encryption-key-file"));
    assert!(!place.path().join("store.db.key").exists(), "no key is made for a database");
}

#[test]
fn key_files_are_read_strictly_and_open_ones_are_warned_of() {
    let place = Place::new();
    let file = place.path().join("given.key");
    let missing = keys_for(&place.db(), Some(&file)).expect_err("missing").to_string();
    assert!(missing.contains("given.key") && missing.contains("ctct-proxy keygen"), "{missing}");
    fs::write(&file, "hunter2").expect("written");
    let wrong = keys_for(&place.db(), Some(&file)).expect_err("no key").to_string();
    assert!(wrong.contains("32 bytes in base64") && !wrong.contains("hunter2"), "{wrong}");
    fs::write(&file, format!("  {}\n\n", Sealer::generate_key().expose())).expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("set");
    let (_, source) = keys_for(&place.db(), Some(&file)).expect("reads");
    let warning = source.warning().expect("a warning");
    assert!(warning.contains("given.key") && warning.contains("0640"), "{warning}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).expect("set");
    let (_, source) = keys_for(&place.db(), Some(&file)).expect("reads");
    assert_eq!((source.warning(), source.made), (None, false));
}

#[tokio::test]
async fn what_is_no_sound_database_is_refused_and_left_alone() {
    let place = Place::new();
    fill(&place).await;
    let sound = fs::read(place.db()).expect("reads");
    let damage: [(&str, Vec<u8>); 4] = [
        ("text", b"this is a letter\n".repeat(1000)),
        ("short", b"SQLite format 3".to_vec()),
        ("cut", sound[..sound.len() - 3 * 4096].to_vec()),
        ("holes", {
            let mut bytes = sound.clone();
            bytes[4096..].chunks_mut(4096).step_by(2).for_each(|page| page[..2000].fill(0xa5));
            bytes
        }),
    ];
    for (name, bytes) in damage {
        fs::write(place.db(), bytes).expect("written");
        let text = refusal(&place);
        assert!(text.contains("damaged") && text.contains("backup"), "{name}: {text}");
    }
    fs::write(place.db(), sound).expect("written");
    assert_eq!(place.open().grants().await.expect("read").len(), 41);
}

#[tokio::test]
async fn databases_of_other_programs_and_versions_are_refused() {
    let place = Place::new();
    fill(&place).await;
    let change = |sql| {
        Connection::open(place.db()).expect("opens").execute_batch(sql).expect("changed");
    };
    change("PRAGMA user_version = 99");
    let text = refusal(&place);
    assert!(text.contains("newer ctct-proxy (schema 99"), "{text}");
    change("PRAGMA user_version = 1; PRAGMA application_id = 1");
    let text = refusal(&place);
    assert!(text.contains("another program"), "{text}");
    fs::remove_file(place.db()).expect("removed");
    change("CREATE TABLE cookies (name)");
    assert!(refusal(&place).contains("another program"));
}

#[test]
fn places_where_no_database_can_be_are_named() {
    let place = Place::new();
    let open = |path: &Path| {
        let error = SqliteStore::open(path, KeyRing::new(Secret::new([7; 32]))).err();
        let error = error.expect("refused");
        assert!(matches!(error, StoreError::Unavailable { .. } | StoreError::Corrupt { .. }));
        error.to_string()
    };
    let text = open(&place.path().join("missing/store.db"));
    assert!(text.contains("missing/store.db") && text.contains("does not exist"), "{text}");
    assert!(open(place.path()).contains("is a directory"));
    fs::write(place.path().join("file"), "").expect("written");
    let text = open(&place.path().join("file/store.db"));
    assert!(text.contains("check its directory"), "{text}");
    // A directory in which not even root may make files.
    let text = open(Path::new("/sys/ctct-proxy-store.db"));
    assert!(text.contains("check its directory"), "{text}");
    fs::write(place.path().join("lost.db-wal"), "frames").expect("written");
    assert!(open(&place.path().join("lost.db")).contains("move the log away"));
    assert!(place.path().join("lost.db-wal").exists() && !place.path().join("lost.db").exists());
}

#[tokio::test]
async fn the_log_does_not_grow_without_end() {
    let place = Place::new();
    let store = place.open();
    let mut tasks = JoinSet::new();
    for number in 0..64_u32 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            for _ in 0..60 {
                let name = api_key(&format!("key-{number}"));
                store.reserve(&name, Day::new(1), 1, 1_000).await.expect("reserved");
            }
        });
    }
    tasks.join_all().await;
    let log = fs::metadata(place.path().join("store.db-wal")).expect("is there").len();
    // What is brought in at once, and the room of one batch.
    assert!(log < 4 * 1024 * 1024, "{log} bytes");
}

#[tokio::test(flavor = "current_thread")]
async fn a_write_does_not_hold_up_the_runtime() {
    let place = Place::new();
    let store = place.open();
    let name = api_key("default");
    let mut write = store.reserve(&name, Day::new(1), 1, 10);
    let mut turns = 0;
    let count = loop {
        tokio::select! {
            biased;
            count = &mut write => break count.expect("reserved"),
            () = tokio::task::yield_now() => turns += 1,
        }
    };
    assert_eq!(count.total, 1);
    assert!(turns > 0, "other work ran while the disk was written");
}
