//! The part of the suite that is about things that are written as they are, for copies of a store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ctct_proxy::engine::{ClientName, Day};
use ctct_proxy::secret::{ClientKey, Secret, TokenDigest};
use ctct_proxy::store::{
    Client, ClientKeys, Grant, GrantState, PreviousKey, Store, StoreError, TenantScope, Tokens,
    WholeStore,
};

use crate::support::{api_key, new_grant, secs, tenant, tokens};

type Any = Arc<dyn Store>;

fn whole(store: &Any) -> &dyn WholeStore {
    store.whole().expect("it can be copied")
}

/// A grant that has been through everything.
pub(crate) fn grant(name: &str, mark: &str) -> Grant {
    Grant {
        tenant: tenant(name),
        api_key: api_key("main"),
        version: 7,
        tokens: tokens(mark),
        handed_in: Some(TokenDigest::of(&Secret::from("handed in"))),
        state: GrantState::Ready,
        refresh_begun_at: None,
        last_refreshed_at: Some(secs(50)),
        last_used_at: Some(secs(60)),
        paused: true,
        weight: 3,
    }
}

pub(crate) fn client(name: &str) -> Client {
    let digest = || ClientKey::generate().digest();
    let previous = Some(PreviousKey { digest: digest(), until: secs(80) });
    Client {
        name: ClientName::new(name).expect("a valid name"),
        tenants: TenantScope::Some(BTreeSet::from([tenant("acme"), tenant("bolt")])),
        created_at: secs(7),
        keys: ClientKeys { current: digest(), expires_at: Some(secs(90)), previous },
        last_used_at: Some(secs(40)),
    }
}

/// All of a grant but its version, as text.
pub(crate) fn text_of(grant: &Grant) -> String {
    let Grant { tenant, api_key, tokens, handed_in, state, .. } = grant;
    let access = tokens.access.as_ref().map(|token| token.expose().clone());
    let refresh = tokens.refresh.expose();
    let moments = (grant.refresh_begun_at, grant.last_refreshed_at, grant.last_used_at);
    format!(
        "{tenant} {api_key} {access:?} {:?} {refresh} {:?} {state:?} {moments:?} {} {}",
        tokens.access_expires_at,
        handed_in.as_ref().map(TokenDigest::as_bytes),
        grant.paused,
        grant.weight
    )
}

async fn read(store: &Any, name: &str) -> Grant {
    store.grant(&tenant(name)).await.expect("reads").expect("is there")
}

pub(crate) async fn a_grant_is_written_as_it_is(store: Any) {
    let bare = Tokens { access: None, access_expires_at: None, ..tokens("bare") };
    let dead = GrantState::NeedsAuthorization { reason: "revoked".to_owned() };
    let grants = [
        grant("acme", "1"),
        Grant { state: dead, handed_in: None, ..grant("dead", "2") },
        Grant { refresh_begun_at: Some(secs(70)), paused: false, ..grant("doubt", "3") },
        Grant { tokens: bare, last_refreshed_at: None, last_used_at: None, ..grant("new", "4") },
    ];
    for grant in &grants {
        let version = whole(&store).write_grant(grant, None).await.expect("written");
        let read = read(&store, grant.tenant.as_str()).await;
        assert_eq!((text_of(&read), read.version), (text_of(grant), version));
        assert!(version >= grant.version, "{version}");
    }
    assert_eq!(store.grants().await.expect("read").len(), grants.len());
    // what was there is gone whole
    let over = read(&store, "dead").await.version;
    let plain = Grant { tokens: grants[3].tokens.clone(), ..grant("dead", "5") };
    let version = whole(&store).write_grant(&plain, Some(over)).await.expect("written");
    let read = read(&store, "dead").await;
    assert_eq!((text_of(&read), read.version), (text_of(&plain), version));
    let next = store.finish_refresh(&tenant("dead"), version, &tokens("6"), secs(99)).await;
    assert_eq!(next.expect("it goes on from there"), version + 1);
}

pub(crate) async fn a_written_grant_has_a_version_above_all_before(store: Any) {
    let acme = tenant("acme");
    let mut last = 0;
    for round in 0..3 {
        let put = store.put_grant(new_grant("acme", tokens("1"))).await.expect("stored").1;
        assert!(put.version > last, "{round}");
        last = put.version;
        assert!(store.remove_grant(&acme).await.expect("removed"));
        let old = Grant { version: 1, ..grant("acme", "2") };
        let version = whole(&store).write_grant(&old, None).await.expect("written");
        assert!(version > last, "{round}: {version}");
        let over = whole(&store).write_grant(&old, Some(version)).await.expect("written");
        assert!(over > version, "{round}: {over}");
        let ahead = Grant { version: over + 1_000, ..old };
        last = whole(&store).write_grant(&ahead, Some(over)).await.expect("written");
        assert_eq!(last, over + 1_000);
        assert!(store.remove_grant(&acme).await.expect("removed"));
    }
}

pub(crate) async fn a_grant_is_written_over_nothing_but_what_is_named(store: Any) {
    let one = grant("acme", "1");
    let version = whole(&store).write_grant(&one, None).await.expect("written");
    let two = grant("acme", "2");
    for over in [None, Some(version + 1), Some(version - 1)] {
        let refused = whole(&store).write_grant(&two, over).await;
        assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
    }
    let nobody = whole(&store).write_grant(&grant("nobody", "3"), Some(version)).await;
    assert!(matches!(nobody, Err(StoreError::Conflict { .. })), "{nobody:?}");
    let read = read(&store, "acme").await;
    assert_eq!((text_of(&read), read.version), (text_of(&one), version));
    assert_eq!(store.grants().await.expect("read").len(), 1);
}

pub(crate) async fn a_client_is_written_over_nothing_but_what_is_named(store: Any) {
    let crm = client("crm");
    whole(&store).write_client(&crm, None).await.expect("written");
    let read = async || format!("{:?}", store.clients().await.expect("read"));
    // digests are not in this text, so they are compared beside
    let same = async |client: &Client| {
        let there = store.clients().await.expect("read");
        assert_eq!(format!("{there:?}"), format!("[{client:?}]"));
        assert_eq!(there[0].keys, client.keys);
    };
    same(&crm).await;
    let other = Client { tenants: TenantScope::All, last_used_at: None, ..client("crm") };
    for over in [None, Some(other.keys.current)] {
        let refused = whole(&store).write_client(&other, over).await;
        assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
    }
    let till = Client { keys: crm.keys, ..client("till") };
    let refused = whole(&store).write_client(&till, None).await;
    assert!(matches!(refused, Err(StoreError::Exists { .. })), "{refused:?}");
    same(&crm).await;
    whole(&store).write_client(&other, Some(crm.keys.current)).await.expect("written");
    same(&other).await;
    whole(&store).write_client(&till, None).await.expect("the old key is free");
    assert_eq!(read().await.matches("Client {").count(), 2);
}

pub(crate) async fn days_are_raised_and_never_go_down(store: Any) {
    let (main, day) = (api_key("main"), |after: u32| Day::new(20_000 + after));
    assert_eq!(whole(&store).days(&main).await.expect("read"), BTreeMap::new());
    store.reserve(&main, day(3), 5, 10).await.expect("reserved");
    let old = BTreeMap::from([(day(1), 7), (day(2), 8), (day(3), 4), (day(4), 9)]);
    whole(&store).raise_days(&main, &old).await.expect("written");
    let all = BTreeMap::from([(day(1), 7), (day(2), 8), (day(3), 5), (day(4), 9)]);
    assert_eq!(whole(&store).days(&main).await.expect("read"), all);
    let count = store.reserve(&main, day(4), 9, 10).await.expect("reserved");
    assert_eq!((count.granted, count.total), (1, 10), "they count");
    let later = BTreeMap::from([(day(0), 99), (day(5), 1)]);
    whole(&store).raise_days(&main, &later).await.expect("written");
    let newest = BTreeMap::from([(day(2), 8), (day(3), 5), (day(4), 10), (day(5), 1)]);
    assert_eq!(whole(&store).days(&main).await.expect("read"), newest, "the newest four are kept");
    assert_eq!(whole(&store).days(&api_key("other")).await.expect("read"), BTreeMap::new());
}
