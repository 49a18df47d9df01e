//! Callers and tenants that are not known here, and may have been made on another instance a moment
//! ago: before they are refused, the store is asked once.
//!
//! Only a store that instances share has such news. It decides nothing: who is identified, and how
//! somebody unknown is refused, is `identify`'s.

use http::Request;

use super::Inner;
use super::headers::{CTCT_PROXY_KEY, CTCT_TENANT};
use super::identify::{bearer, is_key, only_tenant, single};
use crate::clients::KeyRefused;
use crate::engine::TenantName;
use crate::listen::CertifiedName;

/// Whether the request names a client or a tenant of which there may be news.
pub(super) fn are_named_by<B>(
    proxy: &Inner,
    request: &Request<B>,
    in_path: Option<&TenantName>,
) -> bool {
    if !proxy.news.is_followed() {
        return false;
    }
    let headers = request.headers();
    let certified = request.extensions().get::<CertifiedName>().and_then(CertifiedName::get);
    let in_header = single(headers, &CTCT_PROXY_KEY).ok().flatten();
    let key = in_header.or_else(|| bearer(headers).ok().flatten()).filter(|key| is_key(key));
    let client = match (key.map(|key| proxy.clients.holder(key)), certified) {
        (Some(Err(KeyRefused::Unknown)), _) => return true,
        (Some(Err(KeyRefused::Expired)), _) => return false,
        (Some(Ok(client)), _) => Some(client),
        (None, Some(name)) => match proxy.clients.named(name) {
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
        may && proxy.tokens.tenant(tenant.as_str()).is_none()
    })
}
