//! Tokens in the form in which they may be written down.
//!
//! Each token is sealed for its own place: the table, the tenant and the field are its associated
//! data, so that a token copied to another tenant or field by whoever can write the store does not
//! open. Names hold no NUL (`engine::ids`), which makes the places unambiguous. Any store that
//! leaves the process uses this form.

use crate::engine::TenantName;
use crate::secret::{KeyRing, SEALED_EXTRA, SealError, Secret, StateDigest};
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

/// Seals the verifier of the authorization of `state`.
pub(super) fn seal_verifier(
    keys: &KeyRing,
    state: &StateDigest,
    verifier: &Secret<String>,
) -> Vec<u8> {
    keys.seal(&verifier_place(state), verifier.expose().as_bytes())
}

/// Opens what [`seal_verifier`] has sealed.
pub(super) fn open_verifier(
    keys: &KeyRing,
    state: &StateDigest,
    verifier: &[u8],
) -> Result<Secret<String>, SealError> {
    let plain = keys.open(&verifier_place(state), verifier)?;
    let text = std::str::from_utf8(plain.expose()).map_err(|_| SealError::Damaged)?;
    Ok(Secret::from(text))
}

fn verifier_place(state: &StateDigest) -> Vec<u8> {
    [b"authorizations\0".as_slice(), state.as_bytes(), b"\0verifier"].concat()
}

fn place(tenant: &TenantName, field: &str) -> Vec<u8> {
    [TABLE, tenant.as_str(), field].join("\0").into_bytes()
}
