//! Callers and tenants that are not known here, and may have been made on another instance a moment
//! ago: before they are refused, the store is asked once.
//!
//! Only a store that instances share has such news. It decides nothing: who is identified, and how
//! somebody unknown is refused, is `identify`'s.

use http::Request;

use super::headers::{CTCT_PROXY_KEY, CTCT_TENANT};
use super::identify::{bearer, is_key, only_tenant, single};
use crate::clients::{Clients, KeyRefused};
use crate::engine::TenantName;
use crate::listen::CertifiedName;
use crate::tokens::Tokens;

/// Whether the request names a client or a tenant that is not known here.
pub(super) fn are_named_by<B>(
    request: &Request<B>,
    in_path: Option<&TenantName>,
    clients: &Clients,
    tokens: &Tokens,
) -> bool {
    let headers = request.headers();
    let certified = request.extensions().get::<CertifiedName>().and_then(CertifiedName::get);
    let in_header = single(headers, &CTCT_PROXY_KEY).ok().flatten();
    let key = in_header.or_else(|| bearer(headers).ok().flatten()).filter(|key| is_key(key));
    let client = match (key.map(|key| clients.holder(key)), certified) {
        (Some(Err(KeyRefused::Unknown)), _) => return true,
        (Some(Err(KeyRefused::Expired)), _) => return false,
        (Some(Ok(client)), _) => Some(client),
        (None, Some(name)) => match clients.named(name) {
            None => return true,
            known => known,
        },
        (None, None) => None,
    };
    let named = single(headers, &CTCT_TENANT).ok().flatten();
    let named = in_path.cloned().or_else(|| TenantName::new(named?).ok());
    let tenant = named.or_else(|| only_tenant(client.as_deref()).ok());
    tenant.is_some_and(|tenant| {
        let may = client.is_none_or(|client| client.may_act_for(&tenant));
        may && tokens.tenant(tenant.as_str()).is_none()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::header::AUTHORIZATION;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::clock::Clock;
    use crate::engine::{ApiKeyName, ClientName, Unix};
    use crate::secret::ClientKey;
    use crate::store::{MemoryStore, NewGrant, Store, TenantScope};
    use crate::tokens::idle;

    fn tenant(name: &str) -> TenantName {
        TenantName::new(name).unwrap()
    }

    /// A store with tenant `acme`, and what knows it.
    async fn known() -> (Clients, Tokens) {
        let clock = Clock::starting_at(Unix::from_secs(1_800_000_000));
        let store: Arc<dyn Store> = Arc::new(MemoryStore::shared(clock.clone()));
        let tokens = crate::store::Tokens {
            access: None,
            access_expires_at: None,
            refresh: "refresh".into(),
        };
        let api_key = ApiKeyName::new("main").unwrap();
        let grant = NewGrant { tenant: tenant("acme"), api_key, tokens, weight: None };
        store.put_grant(grant).await.unwrap();
        let parts = idle::parts(&store, &clock, Vec::new(), &TaskTracker::new());
        let tokens = Tokens::start(parts).await.unwrap();
        (Clients::load(store, clock).await.unwrap(), tokens)
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_keys_and_tenants_are_strangers_and_what_is_known_or_forbidden_is_not() {
        let (clients, tokens) = known().await;
        let add = async |name: &str, scope| {
            let name = ClientName::new(name).unwrap();
            clients.add(name, scope, None).await.unwrap().0.expose().to_owned()
        };
        let all = add("all", TenantScope::All).await;
        let one = add("one", TenantScope::Some([tenant("acme")].into())).await;
        let new = add("new", TenantScope::Some([tenant("newer")].into())).await;
        let other = ClientKey::generate().expose().to_owned();
        let strange = |key: Option<&str>, header: Option<&str>, path: Option<&str>| {
            let mut request = Request::builder().uri("/v3/contacts");
            if let Some(key) = key {
                request = request.header(AUTHORIZATION, format!("Bearer {key}"));
            }
            if let Some(name) = header {
                request = request.header(CTCT_TENANT, name);
            }
            let path = path.map(tenant);
            are_named_by(&request.body(()).unwrap(), path.as_ref(), &clients, &tokens)
        };
        assert!(strange(Some(&other), Some("acme"), None), "a key of another instance, or none");
        assert!(!strange(Some("no key at all"), Some("acme"), None));
        assert!(!strange(Some(&all), Some("acme"), None));
        assert!(strange(Some(&all), Some("newer"), None));
        assert!(strange(Some(&all), None, Some("newer")));
        assert!(!strange(Some(&all), None, None), "no tenant is named");
        assert!(!strange(Some(&one), None, None), "its only tenant is known");
        assert!(!strange(Some(&one), Some("newer"), None), "it is refused in any case");
        assert!(strange(Some(&new), None, None), "its only tenant is not known yet");
        assert!(strange(None, Some("newer"), None), "callers may be anonymous");
    }
}
