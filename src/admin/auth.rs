//! Who may talk to the admin listener.
//!
//! With a token configured, whoever shows it; it is compared in constant time. Without one the
//! listener is on loopback, and a browser is the only stranger: a page that rebinds its name to
//! 127.0.0.1 is found by its `Host`, one that posts across sites by `Sec-Fetch-Site` or `Origin`.
//! What monitors ask (`/livez`, `/readyz`, `/metrics`) is open.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header::{AUTHORIZATION, HOST, HeaderMap, ORIGIN};
use http::uri::Authority;
use http::{Method, Uri};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::Shared;
use super::errors::{AdminError, Kind};
use crate::secret::Secret;

/// Paths that need no token.
const OPEN: [&str; 3] = ["/livez", "/readyz", "/metrics"];

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
    let host = host(&request);
    let listen = shared.parts.config.load().server.admin_listen;
    let site = check_site(request.method(), request.headers(), host.as_ref());
    let verdict = site.and_then(|()| match &shared.token {
        Some(token) => check_token(token, request.headers()),
        None => check_host(host.as_ref(), listen),
    });
    match verdict {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    }
}

fn check_token(token: &AdminToken, headers: &HeaderMap) -> Result<(), AdminError> {
    let mut shown = headers.get_all(AUTHORIZATION).iter();
    let (first, more) = (shown.next(), shown.next());
    let bearer = first.map(http::HeaderValue::as_bytes).and_then(bearer);
    match (bearer, more) {
        (Some(bearer), None) if token.is(bearer) => Ok(()),
        _ => Err(AdminError::new(
            Kind::Unauthorized,
            "send Authorization: Bearer with the admin token, the content of admin.token_file",
        )),
    }
}

/// The credentials of an `Authorization: Bearer` value; the scheme is not case-sensitive.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| rest.trim_ascii())
}

/// The host that the request was sent to, as the sender wrote it.
fn host(request: &Request) -> Option<Authority> {
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => Authority::try_from(host.as_bytes()).ok(),
        (Some(_), Some(_)) => None,
        // HTTP/2 has it as `:authority`
        (None, _) => request.uri().authority().cloned(),
    }
}

fn check_host(host: Option<&Authority>, listen: SocketAddr) -> Result<(), AdminError> {
    let known = host.is_some_and(|host| {
        let name = host.host().trim_matches(['[', ']']);
        match name.parse::<IpAddr>() {
            Ok(ip) => {
                let ip = ip.to_canonical();
                ip.is_loopback() || (ip == listen.ip() && host.port_u16() == Some(listen.port()))
            }
            Err(_) => name.eq_ignore_ascii_case("localhost"),
        }
    });
    if known {
        return Ok(());
    }
    Err(AdminError::new(
        Kind::Forbidden,
        "without an admin token this listener answers only to localhost, loopback addresses and \
         its own address in Host; set admin.token_file to use another name",
    ))
}

/// Refuses changes that a page of another site makes its reader's browser ask for.
fn check_site(
    method: &Method,
    headers: &HeaderMap,
    host: Option<&Authority>,
) -> Result<(), AdminError> {
    if [Method::GET, Method::HEAD, Method::OPTIONS].contains(method) {
        return Ok(());
    }
    let site = headers.get("sec-fetch-site").map(http::HeaderValue::as_bytes);
    let foreign_site = site.is_some_and(|site| site != b"same-origin" && site != b"none");
    let foreign_origin = headers.get_all(ORIGIN).iter().any(|origin| {
        let origin = Uri::try_from(origin.as_bytes()).ok();
        match (origin.as_ref().and_then(Uri::authority), host) {
            (Some(origin), Some(host)) => !origin.as_str().eq_ignore_ascii_case(host.as_str()),
            _ => true,
        }
    });
    if foreign_site || foreign_origin {
        let message = "a page of another site may not change anything here";
        return Err(AdminError::new(Kind::Forbidden, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_and_the_listener_itself_are_hosts_without_a_token() {
        let listen: SocketAddr = "10.0.0.5:9090".parse().unwrap();
        for good in
            ["localhost", "LOCALHOST:1", "127.0.0.1:9090", "127.8.8.8", "[::1]:9", "10.0.0.5:9090"]
        {
            let host: Authority = good.parse().unwrap();
            assert!(check_host(Some(&host), listen).is_ok(), "{good}");
        }
        for bad in ["evil.example:9090", "localhost.evil.example", "10.0.0.5", "10.0.0.6:9090"] {
            let host: Authority = bad.parse().unwrap();
            assert!(check_host(Some(&host), listen).is_err(), "{bad}");
        }
        assert!(check_host(None, listen).is_err());
    }

    #[test]
    fn a_bearer_is_read_whatever_the_case_of_its_scheme() {
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bearer  abc "), Some(&b"abc"[..]));
        for other in [&b"Basic abc"[..], b"Bearer", b"Bearerabc", b""] {
            assert_eq!(bearer(other), None);
        }
    }
}
