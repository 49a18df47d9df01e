//! Callers that bring a Constant Contact access token of their own.
//!
//! A token whose `cid` is a configured client id is forwarded as it is; its call waits and counts
//! under that API key, its `sub` standing for the tenant. The name that it goes by is a digest and
//! begins as no stored tenant's can, so that the two never meet. Nothing here refreshes, stores or
//! logs a token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::HeaderValue;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{Inner, Settings};
use crate::config::Passthrough;
use crate::engine::{ApiKeyName, TenantName, Unix};
use crate::issuer::VerifyError;
use crate::rejection::{Reason, Rejection};
use crate::tokens::claims::Claims;

/// Longest token that is looked at; real ones have up to 1,200 characters.
const TOKEN_LEN_MAX: usize = 8 * 1024;
/// Bytes of the digest in a visitor's name: enough that no two of them meet.
const DIGEST_LEN: usize = 16;

/// A caller's own access token.
pub(super) struct OwnToken {
    /// The value of `Authorization`; marked as sensitive.
    pub(super) header: HeaderValue,
    /// The API key that it was issued to.
    pub(super) api_key: ApiKeyName,
    /// Whose it is.
    pub(super) tenant: TenantName,
    ends: Option<Unix>,
}

impl OwnToken {
    /// The token in `bearer`, when it is one of a configured API key and such are let through.
    pub(super) fn read(settings: &Settings, bearer: Option<&str>) -> Option<Self> {
        let bearer = match settings.passthrough {
            Passthrough::No => None,
            Passthrough::Unverified | Passthrough::Verified => bearer,
        }?;
        if bearer.len() > TOKEN_LEN_MAX || bearer.matches('.').count() != 2 {
            return None;
        }
        let claims = Claims::read(bearer)?;
        let api_key = settings.client_ids.get(claims.cid.as_deref()?)?.clone();
        let text = Zeroizing::new(format!("Bearer {bearer}").into_bytes());
        let mut header = HeaderValue::from_maybe_shared(Bytes::from_owner(text)).ok()?;
        header.set_sensitive(true);
        let tenant = visitor(&claims.sub.unwrap_or_default());
        Some(Self { header, api_key, tenant, ends: claims.exp })
    }

    /// Refuses one that has ended.
    pub(super) fn check_end(&self, now: Unix) -> Result<(), Rejection> {
        if self.ends.is_none_or(|ends| now < ends) {
            return Ok(());
        }
        let message = "the access token has ended; send a new one (it is not refreshed here)";
        Err(Rejection::new(Reason::TokenExpired, message))
    }

    /// Refuses one that the issuer has not signed, where that is asked for.
    pub(super) async fn check_signature(
        &self,
        proxy: &Inner,
        settings: &Settings,
    ) -> Result<(), Rejection> {
        match settings.passthrough {
            Passthrough::No | Passthrough::Unverified => return Ok(()),
            Passthrough::Verified => {}
        }
        let value = self.header.to_str().unwrap_or_default();
        let verified = proxy.issuer.verify(value.strip_prefix("Bearer ").unwrap_or_default()).await;
        verified.map_err(|error| match error {
            VerifyError::Refused(why) => Rejection::new(
                Reason::ClientUnauthenticated,
                format!("the access token is not accepted (server.passthrough): {why}"),
            ),
            VerifyError::NoKeys(_) => Rejection::new(
                Reason::TokenUnavailable,
                "the access token cannot be verified now: the keys of its issuer \
                 (oauth.jwks_url) cannot be had; send the call again",
            ),
        })
    }
}

/// The name by which a login waits.
fn visitor(login: &str) -> TenantName {
    let digest = Sha256::digest(login.as_bytes());
    let digest: &[u8] = digest.as_ref();
    TenantName::of_visitor(&URL_SAFE_NO_PAD.encode(digest.get(..DIGEST_LEN).unwrap_or(digest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visitor_has_a_name_that_no_stored_tenant_can_have() {
        let (one, two) = (visitor("user@example.com"), visitor("other@example.com"));
        assert_ne!(one, two);
        assert_eq!(one, visitor("user@example.com"));
        assert!(TenantName::new(one.as_str()).is_err());
        assert!(!one.as_str().contains("user"));
        assert_eq!(visitor("").as_str().len(), 23);
    }
}
