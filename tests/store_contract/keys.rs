//! Encryption keys of a SQLite store: several at a time, rotated, missing; and databases of before.
//!
//! What a rotation leaves behind when it is killed is made here by hand, state by state; that a
//! kill leaves nothing else is for the tests of the whole program.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use rusqlite::Connection;

use ctct_proxy::secret::KeyRing;
use ctct_proxy::store::{RefreshStep, RotateError, Store};

use crate::authorizations::asked;
use crate::support::{Place, memory, new_grant, secs, tenant, tokens};

const TENANTS: usize = 50;

fn key_file(place: &Place) -> PathBuf {
    place.path().join("store.db.key")
}

fn ring(place: &Place) -> KeyRing {
    KeyRing::read(&fs::read_to_string(key_file(place)).expect("reads")).expect("keys")
}

fn set_ring(place: &Place, ring: &KeyRing) {
    fs::write(key_file(place), ring.text().expose()).expect("written");
}

async fn fill(store: &dyn Store) {
    for number in 0..TENANTS {
        let name = format!("tenant-{number}");
        store.put_grant(new_grant(&name, tokens(&name))).await.expect("stored");
    }
}

/// Every grant opens and says what it said.
async fn assert_whole(store: &dyn Store) {
    let grants = store.grants().await.expect("all open");
    assert_eq!(grants.len(), TENANTS);
    for grant in grants {
        assert_eq!(grant.tokens.refresh.expose(), &format!("refresh-{}", grant.tenant));
        let access = grant.tokens.access.expect("is there");
        assert_eq!(access.expose(), &format!("access-{}", grant.tenant));
        assert_eq!(grant.version, 1, "sealing anew is no change");
    }
}

/// What lies beside the grants is sealed too: tokens that came and are not stored, and verifiers.
#[tokio::test]
async fn a_rotation_seals_open_refreshes_and_authorizations_anew() {
    let place = Place::new();
    let store = place.open();
    fill(&*store).await;
    let received = tenant("tenant-1");
    for name in ["tenant-0", "tenant-1", "tenant-2"] {
        store.begin_refresh(&tenant(name), 1, secs(1)).await.expect("begun");
        store.post_refresh(&tenant(name), 1, secs(1)).await.expect("posted");
    }
    store.receive_refresh(&received, 1, &tokens("came"), secs(2)).await.expect("received");
    let (early, late) = (asked("tenant-0", "early"), asked("tenant-0", "late"));
    store.begin_authorization(early.clone(), secs(1)).await.expect("remembered");
    store.rotate_key().await.expect("rotated");
    store.begin_authorization(late.clone(), secs(1)).await.expect("remembered");
    store.receive_refresh(&tenant("tenant-2"), 1, &tokens("later"), secs(3)).await.expect("too");
    drop(store);

    let half = place.path().join("store.db.refreshes.new");
    fs::write(&half, "a rotation that was killed").expect("written");
    let store = place.open();
    assert!(!half.exists());
    let came: Vec<_> = store
        .open_refreshes()
        .await
        .expect("all open")
        .into_iter()
        .map(|open| match open.step {
            RefreshStep::Received { tokens, .. } => tokens.refresh.expose().clone(),
            step => step.as_str().to_owned(),
        })
        .collect();
    assert_eq!(came, ["posted", "refresh-came", "refresh-later"]);
    for asked in [early, late] {
        let taken = store.take_authorization(&asked.state).await.expect("opens").expect("is there");
        assert_eq!(taken.verifier, asked.verifier);
    }
}

fn refusal(place: &Place) -> String {
    place.try_open().err().expect("the start is refused").to_string()
}

#[tokio::test]
async fn a_rotation_seals_everything_anew_and_gives_the_older_key_up() {
    let place = Place::new();
    let store = place.open();
    fill(&*store).await;
    let old = ring(&place);
    assert_eq!(store.key_ids(), [old.key_id()]);
    let done = store.rotate_key().await.expect("rotated");
    assert_eq!((done.sealed_anew, done.resumed), (TENANTS as u64, false));
    assert_eq!((done.given_up, done.still_in_file), (vec![old.key_id()], None));
    assert_eq!(store.key_ids(), [done.key_id]);
    assert_whole(&*store).await;
    store.finish_refresh(&tenant("tenant-0"), 1, &tokens("new"), secs(1)).await.expect("finished");
    store.put_grant(new_grant("tenant-0", tokens("tenant-0"))).await.expect("put");
    store.remove_grant(&tenant("tenant-0")).await.expect("removed");
    store.close().await.expect("closes");

    let new = ring(&place);
    assert_eq!((new.key_id(), new.older()), (done.key_id, vec![]));
    let mode = fs::metadata(key_file(&place)).expect("is there").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert_eq!(fs::read_dir(place.path()).expect("reads").count(), 2, "nothing is left behind");
    assert_eq!(place.open().grants().await.expect("all open").len(), TENANTS - 1);
    set_ring(&place, &old);
    let text = refusal(&place);
    let id = old.key_id().to_string();
    assert!(
        text.contains(&id) && text.contains("use the key file that it was made with"),
        "{text}"
    );
}

#[tokio::test]
async fn a_rotation_that_was_broken_off_at_any_step_is_finished_by_the_next() {
    let place = Place::new();
    let store = place.open();
    fill(&*store).await;
    store.close().await.expect("closes");
    let old = ring(&place);
    let both = old.with_new_key();
    // the new key was made and nothing is sealed with it yet
    set_ring(&place, &both);
    let opened = place.try_open().expect("opens");
    let told = opened.key.expect("a key").to_string();
    assert!(told.contains("older keys") && told.contains("ctct-proxy key rotate"), "{told}");
    assert_whole(&*opened.store).await;
    // some are: this is sealed with the first key of the file
    let store = opened.store;
    store.put_grant(new_grant("extra", tokens("extra"))).await.expect("stored");
    store.close().await.expect("closes");
    for (kept, missing) in [(both.current_alone(), &old), (old.clone(), &both)] {
        set_ring(&place, &kept);
        let text = refusal(&place);
        assert!(text.contains(&missing.key_id().to_string()), "{text}");
        assert!(text.contains("key file"), "{text}");
    }
    set_ring(&place, &both);
    let store = place.open();
    // a file that was being written when the process was killed
    fs::write(place.path().join("store.db.key.new"), "half a k").expect("written");
    let done = store.rotate_key().await.expect("rotated");
    assert_eq!((done.sealed_anew, done.resumed), (TENANTS as u64, true));
    assert_eq!((done.key_id, done.given_up), (both.key_id(), vec![old.key_id()]));
    store.remove_grant(&tenant("extra")).await.expect("removed");
    assert_whole(&*store).await;
    // everything is sealed anew, and the older key was not yet given up
    set_ring(&place, &both);
    let done = store.rotate_key().await.expect("rotated");
    assert_eq!((done.sealed_anew, done.resumed), (0, true));
    assert_eq!(ring(&place).older(), []);
}

#[tokio::test]
async fn a_key_file_that_may_not_be_changed_is_rotated_by_its_owner() {
    let place = Place::new();
    let store = place.open();
    fill(&*store).await;
    // where the new file would be written is something that is no file
    fs::create_dir(place.path().join("store.db.key.new")).expect("made");
    let old = ring(&place);
    let refused = store.rotate_key().await.expect_err("refused").to_string();
    assert!(refused.contains("nothing was done") && refused.contains("ctct-proxy keygen"));
    assert_eq!((ring(&place).key_id(), ring(&place).older()), (old.key_id(), vec![]));
    set_ring(&place, &old.with_new_key());
    let done = store.rotate_key().await.expect("rotated");
    let note = done.still_in_file.expect("a note");
    assert!(note.contains("store.db.key") && note.contains("by hand"), "{note}");
    assert_whole(&*store).await;
    set_ring(&place, &ring(&place).current_alone());
    store.close().await.expect("closes");
    assert_whole(&*place.open()).await;
}

#[tokio::test]
async fn a_key_file_without_the_key_in_use_is_not_rotated() {
    let place = Place::new();
    let store = place.open();
    fill(&*store).await;
    let old = ring(&place);
    set_ring(&place, &KeyRing::generate());
    let refused = store.rotate_key().await.expect_err("refused").to_string();
    assert!(refused.contains(&old.key_id().to_string()) && refused.contains("put it back"));
    assert!(matches!(memory().rotate_key().await, Err(RotateError::NothingSealed)));
}

#[tokio::test]
async fn a_database_of_the_first_schema_is_brought_up_to_date() {
    let place = Place::new();
    let store = place.open();
    fill(&*store).await;
    store.close().await.expect("closes");
    let back = "ALTER TABLE tokens DROP COLUMN handed_in; DROP TABLE authorizations;
        ALTER TABLE clients DROP COLUMN expires_at;
        ALTER TABLE clients DROP COLUMN previous_digest;
        ALTER TABLE clients DROP COLUMN previous_until;
        ALTER TABLE clients DROP COLUMN last_used_at;
        PRAGMA user_version = 1";
    Connection::open(place.db()).expect("opens").execute_batch(back).expect("changed");
    let store = place.open();
    assert_whole(&*store).await;
    assert!(store.grants().await.expect("read").iter().all(|grant| grant.handed_in.is_none()));
    store.rotate_key().await.expect("rotated");
    assert_whole(&*store).await;
    store.put_grant(new_grant("new", tokens("new"))).await.expect("stored");
    assert!(store.grant(&tenant("new")).await.expect("read").expect("there").handed_in.is_some());
}
