//! The part of the suite about consents that were asked for.

use std::sync::Arc;

use tokio::task::JoinSet;

use ctct_proxy::secret::{Secret, StateToken};
use ctct_proxy::store::{
    AUTHORIZATIONS_KEPT, AUTHORIZATIONS_KEPT_PER_TENANT, Authorization, Store,
};

use crate::support::{api_key, new_grant, secs, tenant, tokens};

type Any = Arc<dyn Store>;

pub(crate) fn asked(name: &str, verifier: &str) -> Authorization {
    Authorization {
        state: StateToken::generate().digest(),
        tenant: tenant(name),
        api_key: api_key("default"),
        redirect_uri: "https://proxy.example/oauth/callback".into(),
        verifier: Some(Secret::from(verifier)),
        return_to: Some("https://app.example/done?x=1".into()),
        expires_at: secs(600),
    }
}

async fn begin(store: &Any, new: &Authorization) {
    store.begin_authorization(new.clone(), secs(0)).await.expect("remembered");
}

async fn take(store: &Any, of: &Authorization) -> Option<Authorization> {
    store.take_authorization(&of.state).await.expect("the store reads")
}

pub(crate) async fn an_authorization_comes_back_as_it_was(store: Any) {
    let one = asked("acme", "v");
    let other = Authorization { verifier: None, return_to: None, ..asked("acme", "v") };
    begin(&store, &one).await;
    begin(&store, &other).await;
    for asked in [one, other] {
        let taken = take(&store, &asked).await.expect("it was remembered");
        assert_eq!(format!("{taken:?}"), format!("{asked:?}"));
        assert_eq!(taken.verifier, asked.verifier);
    }
}

pub(crate) async fn an_authorization_is_taken_once_however_many_ask(store: Any) {
    let asked = asked("acme", "v");
    begin(&store, &asked).await;
    let mut tasks = JoinSet::new();
    for _ in 0..20 {
        let (store, asked) = (Arc::clone(&store), asked.clone());
        tasks.spawn(async move { take(&store, &asked).await.is_some() });
    }
    let taken = tasks.join_all().await;
    assert_eq!(taken.iter().filter(|taken| **taken).count(), 1);
    assert!(take(&store, &asked).await.is_none());
}

pub(crate) async fn a_late_authorization_is_told_from_none_and_then_forgotten(store: Any) {
    let (late, next) = (asked("acme", "v"), asked("other", "v"));
    begin(&store, &late).await;
    assert!(take(&store, &late).await.is_some(), "late or not is for the caller to say");
    begin(&store, &late).await;
    store.begin_authorization(next.clone(), secs(600)).await.expect("remembered");
    assert!(take(&store, &late).await.is_none());
    assert!(take(&store, &next).await.is_some());
}

pub(crate) async fn a_removed_tenant_takes_its_authorizations_with_it(store: Any) {
    let (one, other) = (asked("acme", "v"), asked("other", "v"));
    begin(&store, &one).await;
    begin(&store, &other).await;
    store.put_grant(new_grant("acme", tokens("1"))).await.expect("stored");
    assert!(store.remove_grant(&tenant("acme")).await.expect("removed"));
    assert!(take(&store, &one).await.is_none());
    assert!(!store.remove_grant(&tenant("other")).await.expect("asked"));
    assert!(take(&store, &other).await.is_none(), "also of a tenant that has no grant yet");
}

pub(crate) async fn authorizations_are_bounded(store: Any) {
    let of_one: Vec<_> = (0..=AUTHORIZATIONS_KEPT_PER_TENANT).map(|_| asked("acme", "v")).collect();
    for asked in &of_one {
        begin(&store, asked).await;
    }
    assert!(take(&store, &of_one[0]).await.is_none());
    assert!(take(&store, &of_one[1]).await.is_some());
    let last = of_one.last().expect("there are some");
    let mut tasks = JoinSet::new();
    for number in 0..AUTHORIZATIONS_KEPT {
        let store = Arc::clone(&store);
        tasks.spawn(async move { begin(&store, &asked(&format!("t{number}"), "v")).await });
    }
    tasks.join_all().await;
    assert!(take(&store, last).await.is_none(), "the oldest gave way");
}
