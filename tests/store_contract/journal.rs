//! The journal of refreshes beside a database: what a next process finds of those that did not end.

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use ctct_proxy::store::{OpenRefresh, RefreshStep, Store};

use crate::support::{Place, long_tokens, new_grant, secs, tenant, tokens};

fn file(place: &Place) -> PathBuf {
    place.path().join("store.db.refreshes")
}

/// A store with tenants `a`, `b` and `c`.
async fn store(place: &Place) -> Arc<dyn Store> {
    let store = place.open();
    for name in ["a", "b", "c"] {
        store.put_grant(new_grant(name, tokens("1"))).await.expect("stored");
    }
    store
}

/// What the next process finds: tenant, version and step.
async fn found(place: &Place, store: Arc<dyn Store>) -> (Vec<OpenRefresh>, Vec<String>) {
    drop(store);
    let open = place.open().open_refreshes().await.expect("read");
    let texts = open
        .iter()
        .map(|open| format!("{} {} {}", open.tenant, open.version, open.step.as_str()))
        .collect();
    (open, texts)
}

#[tokio::test]
async fn each_step_is_found_and_what_came_is_whole() {
    let place = Place::new();
    let store = store(&place).await;
    for name in ["a", "b", "c"] {
        store.begin_refresh(&tenant(name), 1, secs(1)).await.expect("begun");
    }
    store.post_refresh(&tenant("b"), 1, secs(2)).await.expect("posted");
    store.post_refresh(&tenant("c"), 1, secs(2)).await.expect("posted");
    let came = tokens("2");
    store.receive_refresh(&tenant("c"), 1, &came, secs(3)).await.expect("received");
    let (open, texts) = found(&place, store).await;
    assert_eq!(texts, ["a 1 begun", "b 1 posted", "c 1 received"]);
    let RefreshStep::Received { tokens, at } = &open[2].step else { panic!("{texts:?}") };
    assert_eq!(*at, secs(3));
    assert_eq!(tokens.access_expires_at, came.access_expires_at);
    assert_eq!((&tokens.access, &tokens.refresh), (&came.access, &came.refresh));
    // and by the process after that
    let texts = found(&place, place.open()).await.1;
    assert_eq!(texts, ["a 1 begun", "b 1 posted", "c 1 received"]);
}

#[tokio::test]
async fn what_has_ended_is_not_found() {
    let place = Place::new();
    let store = store(&place).await;
    for name in ["a", "b", "c"] {
        store.begin_refresh(&tenant(name), 1, secs(1)).await.expect("begun");
        store.post_refresh(&tenant(name), 1, secs(2)).await.expect("posted");
    }
    store.receive_refresh(&tenant("a"), 1, &tokens("2"), secs(3)).await.expect("received");
    store.finish_refresh(&tenant("a"), 1, &tokens("2"), secs(3)).await.expect("finished");
    store.abort_refresh(&tenant("b"), 1).await.expect("aborted");
    store.fail_grant(&tenant("c"), 1, "dead").await.expect("failed");
    assert_eq!(found(&place, store).await.1, [""; 0]);
}

#[tokio::test]
async fn a_begin_does_not_hide_a_request_that_was_out_and_new_tokens_do() {
    let place = Place::new();
    let store = store(&place).await;
    for name in ["a", "b"] {
        store.begin_refresh(&tenant(name), 1, secs(1)).await.expect("begun");
        store.post_refresh(&tenant(name), 1, secs(2)).await.expect("posted");
    }
    store.begin_refresh(&tenant("a"), 1, secs(3)).await.expect("begun again");
    store.put_grant(new_grant("b", tokens("9"))).await.expect("replaced");
    assert_eq!(found(&place, store).await.1, ["a 1 posted"]);
}

#[tokio::test]
async fn tokens_lie_sealed_in_a_file_for_the_owner_alone_that_does_not_grow() {
    let place = Place::new();
    let store = store(&place).await;
    let came = long_tokens(40 * 1024);
    for version in 1..=25 {
        store.begin_refresh(&tenant("a"), version, secs(1)).await.expect("begun");
        store.post_refresh(&tenant("a"), version, secs(2)).await.expect("posted");
        store.receive_refresh(&tenant("a"), version, &came, secs(3)).await.expect("received");
        store.finish_refresh(&tenant("a"), version, &came, secs(3)).await.expect("finished");
    }
    let bytes = fs::read(file(&place)).expect("reads");
    assert!(bytes.len() <= 512 * 1024, "{} bytes", bytes.len());
    for needle in [&b"rrrrrrrr"[..], b"aaaaaaaa"] {
        assert!(!bytes.windows(needle.len()).any(|window| window == needle));
    }
    let mode = fs::metadata(file(&place)).expect("is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_record_that_was_cut_off_or_changed_is_passed_over_and_the_file_goes_on() {
    let place = Place::new();
    let store = store(&place).await;
    for name in ["a", "b"] {
        store.begin_refresh(&tenant(name), 1, secs(1)).await.expect("begun");
        store.post_refresh(&tenant(name), 1, secs(2)).await.expect("posted");
    }
    let whole = fs::read(file(&place)).expect("reads");
    store.receive_refresh(&tenant("b"), 1, &tokens("2"), secs(3)).await.expect("received");
    drop(store);
    // the first byte that the last record has changed is its length; one in its middle is damaged
    let bytes = fs::read(file(&place)).expect("reads");
    let at = whole.iter().zip(&bytes).position(|(old, new)| old != new).expect("a record") + 40;
    let mut journal = OpenOptions::new().read(true).write(true).open(file(&place)).expect("opens");
    let mut byte = [0];
    journal.seek(SeekFrom::Start(at as u64)).and_then(|_| journal.read(&mut byte)).expect("reads");
    journal.seek(SeekFrom::Start(at as u64)).expect("seeks");
    journal.write_all(&[byte[0] ^ 1]).expect("writes");
    drop(journal);
    let store = place.open();
    store.receive_refresh(&tenant("a"), 1, &tokens("3"), secs(4)).await.expect("goes on");
    assert_eq!(found(&place, store).await.1, ["a 1 received", "b 1 posted"]);
}

#[tokio::test]
async fn a_journal_that_cannot_be_written_keeps_refreshes_from_beginning() {
    let place = Place::new();
    fs::create_dir(file(&place)).expect("made");
    let refused = place.try_open().err().expect("refused").to_string();
    assert!(refused.contains("journal of refreshes"), "{refused}");
    fs::remove_dir(file(&place)).expect("removed");
    let store = store(&place).await;
    store.close().await.expect("closes");
    assert!(store.begin_refresh(&tenant("a"), 1, secs(1)).await.is_err());
    assert!(store.post_refresh(&tenant("a"), 1, secs(1)).await.is_err());
    assert!(store.open_refreshes().await.is_err());
}
