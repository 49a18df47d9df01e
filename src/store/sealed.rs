//! Tokens in the form in which they may be written down.
//!
//! Each token is sealed for its own place: the table, the tenant and the field are its associated
//! data, so that a token copied to another tenant or field by whoever can write the store does not
//! open. Names hold no NUL (`engine::ids`), which makes the places unambiguous. Any store that
//! leaves the process uses this form.

use crate::engine::TenantName;
use crate::secret::{KeyRing, SEALED_EXTRA, SealError, Secret};
use crate::store::Tokens;

/// The table of the places below, the same in every store.
const TABLE: &str = "tokens";

/// The two tokens of a grant, sealed.
pub(super) struct SealedTokens {
    /// The access token, if there is one.
    pub(super) access: Option<Vec<u8>>,
    /// The refresh token.
    pub(super) refresh: Vec<u8>,
}

impl SealedTokens {
    /// Seals the tokens of `tenant`.
    pub(super) fn seal(keys: &KeyRing, tenant: &TenantName, tokens: &Tokens) -> Self {
        let seal = |field, token: &Secret<String>| {
            keys.seal(&place(tenant, field), token.expose().as_bytes())
        };
        Self {
            access: tokens.access.as_ref().map(|token| seal("access", token)),
            refresh: seal("refresh", &tokens.refresh),
        }
    }

    /// Bytes that `tokens` take when they are sealed.
    pub(super) fn len_of(tokens: &Tokens) -> usize {
        let access = tokens.access.as_ref().map_or(0, |token| token.expose().len() + SEALED_EXTRA);
        tokens.refresh.expose().len() + SEALED_EXTRA + access
    }

    /// Opens the access and the refresh token of `tenant`.
    pub(super) fn open(
        &self,
        keys: &KeyRing,
        tenant: &TenantName,
    ) -> Result<(Option<Secret<String>>, Secret<String>), SealError> {
        let open = |field, sealed: &[u8]| {
            let plain = keys.open(&place(tenant, field), sealed)?;
            let text = std::str::from_utf8(plain.expose()).map_err(|_| SealError::Damaged)?;
            Ok(Secret::from(text))
        };
        let access = self.access.as_deref().map(|sealed| open("access", sealed)).transpose()?;
        Ok((access, open("refresh", &self.refresh)?))
    }
}

fn place(tenant: &TenantName, field: &str) -> Vec<u8> {
    [TABLE, tenant.as_str(), field].join("\0").into_bytes()
}
