//! What operators do: put, remove, hold, refresh, change API keys; and what must never be seen.

use std::io;
use std::sync::Mutex;

use super::upstream::Turn;
use super::*;
use crate::secret::Secret;

fn new_grant(n: usize, refresh: Secret<String>, access: Option<&str>) -> NewGrant {
    let access = access.map(Secret::from);
    let tokens = crate::store::Tokens { access, access_expires_at: None, refresh };
    NewGrant { tenant: name(n), api_key: key(), tokens, weight: None }
}

#[tokio::test(start_paused = true)]
async fn a_put_grant_is_usable_at_once() {
    let mut house = House::with_tenants(0).await;
    let access = jwt(&json!({ "exp": START + 86_400, "cid": "client" }));
    let refresh = house.upstream.connect(&name(0));
    let (put, status) = house.tokens.put(new_grant(0, refresh, Some(&access))).await.unwrap();
    assert_eq!((put, status.state), (Put::Created, TenantState::Ready));
    assert_eq!(status.access_token_expires_at, Some(Unix::from_secs(START + 86_400)));
    house.assert_current(0);
    assert_eq!(house.changes.recv().await.unwrap().readiness, Some(Readiness::Ready));
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_cannot_work_is_refused() {
    let house = House::with_tenants(0).await;
    let refused = async |grant| house.tokens.put(grant).await.unwrap_err();
    let good = || Secret::from("refresh-t0-1");
    let other =
        NewGrant { api_key: ApiKeyName::new("other").unwrap(), ..new_grant(0, good(), None) };
    assert!(matches!(refused(other).await, PutError::UnknownApiKey));
    assert!(matches!(refused(new_grant(0, "".into(), None)).await, PutError::NoRefreshToken));
    assert!(matches!(refused(new_grant(0, "a b".into(), None)).await, PutError::Malformed(_)));
    let bad = Some("line\nbreak");
    assert!(matches!(refused(new_grant(0, good(), bad)).await, PutError::Malformed(_)));
    let foreign = jwt(&json!({ "cid": "somebody else" }));
    let error = refused(new_grant(0, good(), Some(&foreign))).await;
    assert!(matches!(error, PutError::OtherApiKey { .. }), "{error}");
    let useless = jwt(&json!({ "cid": "client", "platform_user_id": "UNASSIGNED" }));
    assert!(matches!(refused(new_grant(0, good(), Some(&useless))).await, PutError::Unassigned));
    house.store.fail("put");
    assert!(matches!(refused(new_grant(0, good(), None)).await, PutError::Store(_)));
    assert!(house.tokens.tenant("t0").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_put_waits_for_the_refresh_under_way_and_wins() {
    let house = House::with_tenants(1).await;
    house.upstream.script([Turn::Good(secs(10))]);
    house.demand(0, secs(10));
    house.upstream.arrived.notified().await;
    let put = house.tokens.put(new_grant(0, "refresh-t0-9".into(), None));
    let (put, _) = put.await.unwrap();
    assert_eq!(put, Put::Replaced);
    let row = house.store.row(&name(0));
    assert_eq!((row.version, row.tokens.refresh.expose().as_str()), (3, "refresh-t0-9"));
}

#[tokio::test(start_paused = true)]
async fn a_dead_tenant_lives_again_with_new_tokens() {
    let house = House::with_tenants(1).await;
    let good = house.upstream.connect(&name(0));
    house.demand(0, secs(10));
    tokio::time::sleep(secs(5)).await;
    assert!(matches!(house.state(0), Readiness::NeedsAuthorization { .. }));
    let refused = house.tokens.refresh(&name(0)).await;
    assert_eq!(refused, Err(RefreshError::NeedsAuthorization));
    house.tokens.put(new_grant(0, good, None)).await.unwrap();
    house.demand(0, secs(10));
    tokio::time::sleep(secs(5)).await;
    house.assert_current(0);
}

#[tokio::test(start_paused = true)]
async fn operators_remove_hold_and_refresh() {
    let mut house = House::with_tenants(2).await;
    while house.changes.try_recv().is_ok() {}
    assert!(house.tokens.pause(&name(0), true).await.unwrap());
    let change = house.changes.recv().await.unwrap();
    assert!(change.paused && change.tenant == name(0));
    assert_eq!(house.tokens.status(&name(0)).await.unwrap().state, TenantState::Paused);
    assert!(house.tokens.remove(&name(0)).await.unwrap());
    assert!(!house.tokens.remove(&name(0)).await.unwrap());
    assert!(house.tokens.tenant("t0").is_none());
    assert_eq!(house.changes.recv().await.unwrap().readiness, None);
    house.tokens.refresh(&name(1)).await.unwrap();
    assert_eq!(house.tokens.status(&name(1)).await.unwrap().state, TenantState::Refreshing);
    tokio::time::sleep(secs(2)).await;
    house.assert_current(1);
    assert_eq!(house.tokens.refresh(&name(7)).await, Err(RefreshError::UnknownTenant));
}

#[tokio::test(start_paused = true)]
async fn api_keys_come_change_and_go() {
    let house = House::with_tenants(1).await;
    house.tokens.reload_keys(Vec::new(), settings()).await;
    house.demand(0, secs(10));
    tokio::time::sleep(secs(60)).await;
    assert_eq!(house.upstream.seen().len(), 0);
    let refusal = RefreshAnswer::InvalidClient { detail: String::new() };
    house.upstream.script((0..9).map(|_| Turn::Answer(refusal.clone())));
    house.tokens.reload_keys(vec![(key(), auth())], settings()).await;
    tokio::time::sleep(secs(600)).await;
    house.upstream.forget_callers();
    let renewed = KeyAuth { secret: Some("another".into()), ..auth() };
    house.tokens.reload_keys(vec![(key(), renewed)], settings()).await;
    tokio::time::sleep(secs(2)).await;
    house.assert_current(0);
}

#[tokio::test(start_paused = true)]
async fn a_shorter_margin_lets_tokens_serve_longer() {
    let house = House::with_tenants(0).await;
    let access = jwt(&json!({ "exp": START + 600, "cid": "client" }));
    let refresh = house.upstream.connect(&name(0));
    house.tokens.put(new_grant(0, refresh, Some(&access))).await.unwrap();
    let shorter = Settings { refresh_margin: secs(5), ..settings() };
    house.tokens.reload_keys(vec![(key(), auth())], shorter).await;
    tokio::time::sleep(secs(590)).await;
    assert_eq!(house.version(0), Some(1), "sent until 5 s before its end");
    tokio::time::sleep(secs(6)).await;
    assert_eq!(house.version(0), None);
    assert_eq!(house.upstream.seen().len(), 0);
}

/// Collects what is logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn no_secret_is_logged_or_printed() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let house = House::with_tenants(2).await;
    house.store.fail("finish");
    house.upstream.connect(&name(1));
    house.demand(0, secs(10));
    house.demand(1, secs(10));
    tokio::time::sleep(secs(10)).await;
    house.store.mend();
    tokio::time::sleep(secs(60)).await;
    let bearer = house.tokens.bearer(&name(0)).unwrap();
    let access = bearer.header.to_str().unwrap().trim_start_matches("Bearer ").to_owned();
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("refreshed") && text.contains("must be connected again"), "{text}");
    let printed = format!("{bearer:?} {:?} {:?}", auth(), house.store.row(&name(0)));
    for secret in [access.as_str(), "refresh-t", "very-secret"] {
        assert!(!text.contains(secret), "{secret} in {text}");
        assert!(!printed.contains(secret), "{secret} in {printed}");
    }
}
