//! Who may talk to the admin listener.
//!
//! With a token configured, whoever shows it; it is compared in constant time, and an address that
//! shows too many wrong ones is not looked at for a while. Without one the
//! listener is on loopback, and a browser is the only stranger: a page that rebinds its name to
//! 127.0.0.1 is found by its `Host`, one that posts across sites by `Sec-Fetch-Site` or `Origin`.
//! What monitors ask (`/livez`, `/readyz`, `/metrics`) is open, and so is `/oauth/callback`, which
//! is protected by a state that works once.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header::{AUTHORIZATION, HeaderMap};
use http::uri::Authority;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tracing::{Instrument as _, info_span, warn};

use super::errors::{AdminError, Kind};
use super::{AUDIT, Shared};
use crate::listen::{Logins, Peer, origin};
use crate::secret::Secret;

/// Paths that need no token.
pub(super) const OPEN: [&str; 4] = ["/livez", "/readyz", "/metrics", "/oauth/callback"];

/// The digest of the admin token: what is compared has one length, whatever is shown.
pub(super) struct AdminToken([u8; 32]);

impl AdminToken {
    pub(super) fn new(token: &Secret<String>) -> Self {
        Self(Sha256::digest(token.expose().as_bytes()).into())
    }

    fn is(&self, shown: &[u8]) -> bool {
        let shown: [u8; 32] = Sha256::digest(shown).into();
        self.0.ct_eq(&shown).into()
    }
}

/// Lets a request through or answers it.
pub(super) async fn guard(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response {
    if OPEN.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let host = origin::host(&request);
    let listen = shared.parts.config.load().server.admin_listen;
    let site = check_site(&request, host.as_ref());
    let peer = Peer::of(&request);
    let verdict = site.and_then(|()| match &shared.token {
        Some(token) => check_token(token, request.headers(), &shared.parts.logins, peer),
        None => check_host(host.as_ref(), listen),
    });
    match verdict {
        Ok(()) => next.run(request).instrument(info_span!("operator", from = %peer)).await,
        Err(refused) => refused.into_response(),
    }
}

fn check_token(
    token: &AdminToken,
    headers: &HeaderMap,
    logins: &Logins,
    peer: IpAddr,
) -> Result<(), AdminError> {
    let mut shown = headers.get_all(AUTHORIZATION).iter();
    let (first, more) = (shown.next(), shown.next());
    if first.is_some() {
        logins.check(peer).map_err(AdminError::blocked)?;
    }
    let bearer = first.map(http::HeaderValue::as_bytes).and_then(bearer);
    match (bearer, more) {
        (Some(bearer), None) if token.is(bearer) => return Ok(()),
        (Some(_), None) => {
            warn!(target: AUDIT, from = %peer, "somebody showed a wrong admin token");
            logins.failed(peer).map_err(AdminError::blocked)?;
        }
        (Some(_), Some(_)) | (None, _) => {}
    }
    Err(AdminError::new(
        Kind::Unauthorized,
        "send Authorization: Bearer with the admin token, the content of admin.token_file",
    ))
}

/// The credentials of an `Authorization: Bearer` value; the scheme is not case-sensitive.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| rest.trim_ascii())
}

fn check_host(host: Option<&Authority>, listen: SocketAddr) -> Result<(), AdminError> {
    if host.is_some_and(|host| origin::is_local(host, listen)) {
        return Ok(());
    }
    Err(AdminError::new(
        Kind::Forbidden,
        "without an admin token this listener answers only to localhost, loopback addresses and \
         its own address in Host; set admin.token_file to use another name",
    ))
}

/// Refuses changes that a page of another site makes its reader's browser ask for.
fn check_site(request: &Request, host: Option<&Authority>) -> Result<(), AdminError> {
    if origin::is_from_another_site(request.method(), request.headers(), host) {
        let message = "a page of another site may not change anything here";
        return Err(AdminError::new(Kind::Forbidden, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_is_read_whatever_the_case_of_its_scheme() {
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bearer  abc "), Some(&b"abc"[..]));
        for other in [&b"Basic abc"[..], b"Bearer", b"Bearerabc", b""] {
            assert_eq!(bearer(other), None);
        }
    }
}
