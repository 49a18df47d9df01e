//! Encryption keys of a store on a Redis server: wrong, missing, several, rotated.

use std::fs;

use ctct_proxy::secret::KeyRing;
use ctct_proxy::store::{RefreshStep, StoreError};

use crate::redis_server::{fill, put, refresh_token};
use crate::support::{SharedPlace, secs, tenant, tokens};

#[tokio::test]
async fn another_encryption_key_is_refused_and_nothing_is_overwritten() {
    let place = SharedPlace::new();
    let store = place.open().await;
    fill(&store).await;
    store.close().await.expect("closes");
    let key = place.settings.encryption_key_file.as_deref().expect("is named");
    let right = fs::read_to_string(key).expect("reads");
    let ring = KeyRing::read(&right).expect("a key");
    let other = KeyRing::generate();
    fs::write(key, other.text().expose()).expect("written");
    let refused = place.try_open().await.err().expect("refused");
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");
    let text = refused.to_string();
    assert!(text.contains(&ring.key_id().to_string()), "{text}");
    assert!(text.contains(&other.key_id().to_string()), "{text}");
    // the check of the key alone is not trusted
    let meta = format!("{}{{custody}}:meta", place.prefix());
    place.server.cmd(&["DEL", &meta]);
    let text = place.refusal().await;
    assert!(text.contains("2 tokens") && text.contains(&ring.key_id().to_string()), "{text}");
    assert_eq!(place.server.cmd(&["EXISTS", &meta]), ":0", "nothing was written");
    // a ring that has it as an older key is right
    let both = format!("{}{right}", other.text().expose());
    fs::write(key, both).expect("written");
    let store = place.open().await;
    assert_eq!(refresh_token(&store, "acme").await, "refresh-secret-1");
    assert_eq!(store.key_ids(), [other.key_id(), ring.key_id()]);
    store.close().await.expect("closes");
    place.server.cmd(&["HSET", &meta, "form", "99"]);
    assert!(place.refusal().await.contains("newer ctct-proxy"));
}

#[tokio::test]
async fn a_start_without_the_key_of_a_refresh_under_way_is_refused_until_it_is_back() {
    let place = SharedPlace::new();
    let key = place.settings.encryption_key_file.as_deref().expect("is named");
    let old = KeyRing::read(&fs::read_to_string(key).expect("reads")).expect("a key");
    let store = place.open().await;
    let acme = tenant("acme");
    let version = put(&store, "acme", "1").await;
    store.begin_refresh(&acme, version, secs(1)).await.expect("begun");
    store.receive_refresh(&acme, version, &tokens("2"), secs(2)).await.expect("received");
    drop(store);
    // a rotation at another instance does not reach this one's journal
    let both = old.with_new_key();
    fs::write(key, both.text().expose()).expect("written");
    place.open_another("other").await.rotate_key().await.expect("rotated");
    fs::write(key, both.current_alone().text().expose()).expect("written");
    let refused = place.refusal().await;
    assert!(refused.contains(&old.key_id().to_string()), "{refused}");
    assert!(refused.contains("acme") && refused.contains("put that key back"), "{refused}");
    fs::write(key, both.text().expose()).expect("written");
    let store = place.open().await;
    let open = store.open_refreshes().await.expect("read");
    let RefreshStep::Received { tokens: came, .. } = &open[0].step else { panic!("{open:?}") };
    assert_eq!(came.refresh, tokens("2").refresh);
    let next = store.finish_refresh(&acme, version, came, secs(3)).await.expect("finished");
    drop(store);
    // what has ended needs no key
    fs::write(key, both.current_alone().text().expose()).expect("written");
    let store = place.open().await;
    assert!(store.open_refreshes().await.expect("read").is_empty());
    assert_eq!(store.grant(&acme).await.expect("read").map(|it| it.version), Some(next));
}

#[tokio::test]
async fn a_rotation_seals_everything_anew_once_every_instance_has_the_new_key() {
    let place = SharedPlace::new();
    let store = place.open().await;
    fill(&store).await;
    put(&store, "bolt", "2").await;
    let refused = store.rotate_key().await.expect_err("a key of this instance alone").to_string();
    assert!(refused.contains("every instance"), "{refused}");
    store.close().await.expect("closes");
    let key = place.settings.encryption_key_file.as_deref().expect("is named");
    let old = KeyRing::read(&fs::read_to_string(key).expect("reads")).expect("a key");
    let both = old.with_new_key();
    fs::write(key, both.text().expose()).expect("written");
    let store = place.open().await;
    let done = store.rotate_key().await.expect("rotated");
    assert_eq!((done.key_id, done.sealed_anew), (both.key_id(), 2));
    assert_eq!(done.given_up, [old.key_id()]);
    assert!(done.still_in_file.expect("a note").contains("every instance"));
    assert_eq!(store.rotate_key().await.expect("once more").sealed_anew, 0);
    store.close().await.expect("closes");
    fs::write(key, both.current_alone().text().expose()).expect("written");
    let store = place.open().await;
    assert_eq!(refresh_token(&store, "acme").await, "refresh-secret-1");
    assert_eq!(refresh_token(&store, "bolt").await, "refresh-2");
    store.close().await.expect("closes");
    fs::write(key, old.text().expose()).expect("written");
    assert!(place.refusal().await.contains(&both.key_id().to_string()));
}
