//! Where a call goes: the request target, checked and cut, never rewritten.
//!
//! `/v3` and everything below it is forwarded byte for byte; `/t/{tenant}` before it names the
//! tenant. What an origin and a proxy could read in two ways (dot segments, plain or encoded;
//! another host) is refused.

use std::str::FromStr as _;

use http::uri::PathAndQuery;
use http::{Method, Request, Version, header};
use percent_encoding::percent_decode_str;

use crate::engine::TenantName;
use crate::listen::LocalPort;
use crate::rejection::{Reason, Rejection};

/// Longest request target; the gateway in front of the API takes 8,192 characters.
const TARGET_LEN_MAX: usize = 8_192;

/// A request target below `/v3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Path and query as they go to the API.
    pub(super) path_and_query: PathAndQuery,
    /// The tenant that the path names.
    pub(super) tenant: Option<TenantName>,
}

impl Target {
    pub(super) fn of<B>(request: &Request<B>) -> Result<Self, Rejection> {
        refuse_other_ways(request)?;
        let whole = request.uri().path_and_query().ok_or_else(not_found)?;
        if whole.as_str().len() > TARGET_LEN_MAX {
            return Err(bad(format!("the request target is longer than {TARGET_LEN_MAX} bytes")));
        }
        if has_dot_segment(whole.path()) {
            return Err(bad("the path has a dot segment; send it without"));
        }
        if is_api(whole.path()) {
            return Ok(Self { path_and_query: whole.clone(), tenant: None });
        }
        let (tenant, rest) = cut_tenant(whole.as_str()).ok_or_else(not_found)?;
        let path_and_query =
            PathAndQuery::from_str(rest).map_err(|_| bad("the path cannot be read"))?;
        if !is_api(path_and_query.path()) {
            return Err(not_found());
        }
        let name = percent_decode_str(tenant).decode_utf8().ok();
        let name = name.and_then(|name| TenantName::new(&name).ok());
        let tenant = name.ok_or_else(|| bad("the path names a tenant that can be none"))?;
        Ok(Self { path_and_query, tenant: Some(tenant) })
    }
}

/// CONNECT, upgrades and targets of another host: things that other kinds of proxies do.
fn refuse_other_ways<B>(request: &Request<B>) -> Result<(), Rejection> {
    if request.method() == Method::CONNECT {
        return Err(bad("CONNECT is not served: use the proxy as the base URL"));
    }
    if request.headers().contains_key(header::UPGRADE) {
        return Err(bad("Upgrade is not served; send the request without it"));
    }
    let hosts = request.headers().get_all(header::HOST).iter().count();
    if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        // RFC 9112 section 3.2
        return Err(bad("an HTTP/1.1 request has exactly one Host header"));
    }
    let absolute = request.uri().authority().is_some() && request.version() < Version::HTTP_2;
    if absolute && !names_this_proxy(request) {
        return Err(bad("the request target names another host: use the proxy as the base URL"));
    }
    Ok(())
}

/// Whether an absolute-form target is one of this proxy, not of a host that somebody would have it
/// fetch from: it must have a port, be what `Host` says, and the port must be that of the
/// connection.
fn names_this_proxy<B>(request: &Request<B>) -> bool {
    let authority = request.uri().authority();
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let port = request.extensions().get::<LocalPort>();
    match (authority, port) {
        (Some(authority), Some(LocalPort(port))) => {
            authority.port_u16() == Some(*port) && host == Some(authority.as_str())
        }
        (Some(_) | None, _) => false,
    }
}

fn is_api(path: &str) -> bool {
    path == "/v3" || path.starts_with("/v3/")
}

/// `/t/acme/v3/contacts?limit=1` → `acme`, `/v3/contacts?limit=1`
fn cut_tenant(target: &str) -> Option<(&str, &str)> {
    let rest = target.strip_prefix("/t/")?;
    let slash = rest.find('/')?;
    rest.split_at_checked(slash)
}

/// Whether a segment is `.` or `..`, however it is written: `%2e` for a dot, `%2f`, `%5c` or `\`
/// for a slash, a parameter behind it.
fn has_dot_segment(path: &str) -> bool {
    if !path.contains(['.', '%', '\\']) {
        return false;
    }
    let decoded: Vec<u8> = percent_decode_str(path).collect();
    decoded.split(|byte| matches!(byte, b'/' | b'\\')).any(|segment| {
        let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
        name == b"." || name == b".." || segment.contains(&0)
    })
}

fn bad(message: impl Into<String>) -> Rejection {
    Rejection::new(Reason::BadRequest, message)
}

fn not_found() -> Rejection {
    Rejection::new(
        Reason::NotFound,
        "only paths below /v3 and /t/{tenant}/v3 are served here; the admin API has a listener of \
         its own",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(uri: &str) -> Result<Target, Reason> {
        let request = Request::builder().uri(uri).header("host", "proxy").body(()).unwrap();
        Target::of(&request).map_err(|rejection| rejection.reason())
    }

    #[test]
    fn bytes_below_v3_go_as_they_came() {
        for uri in ["/v3", "/v3/", "/v3/contacts?cursor=bGltaXQ%3D&x=%2F..", "/v3//a%20b/é%41?"] {
            let Ok(uri) = uri.parse::<http::Uri>() else { continue };
            assert_eq!(target(&uri.to_string()).unwrap().path_and_query.as_str(), uri.to_string());
        }
    }

    #[test]
    fn a_tenant_in_the_path_is_cut_off() {
        let found = target("/t/acme/v3/contacts?limit=1").unwrap();
        assert_eq!(found.path_and_query.as_str(), "/v3/contacts?limit=1");
        assert_eq!(found.tenant, TenantName::new("acme").ok());
        assert_eq!(target("/t/a%40b.c/v3").unwrap().tenant, TenantName::new("a@b.c").ok());
    }

    #[test]
    fn other_paths_are_not_found() {
        for uri in ["/", "/v2/contacts", "/v33", "/V3/contacts", "/t/acme", "/t/acme/v2", "/x/v3"] {
            assert_eq!(target(uri), Err(Reason::NotFound), "{uri}");
        }
    }

    #[test]
    fn dot_segments_are_refused_however_they_are_written() {
        let dots = ["/v3/../x", "/v3/.", "/v3/%2e%2E/x", "/v3/a/.%2e", "/v3/..%2fx", "/v3/..;a/x"];
        for uri in dots.into_iter().chain(["/v3/..%5cx", "/t/../v3", "/v3/a%00b"]) {
            assert_eq!(target(uri), Err(Reason::BadRequest), "{uri}");
        }
        assert!(target("/v3/a.b/...?x=../y").is_ok());
    }

    #[test]
    fn a_request_has_one_host() {
        let none = Request::builder().uri("/v3").body(()).unwrap();
        let two = Request::builder().uri("/v3").header("host", "a").header("host", "b");
        for request in [none, two.body(()).unwrap()] {
            let refused = Target::of(&request).unwrap_err();
            assert_eq!(refused.reason(), Reason::BadRequest);
        }
    }

    #[test]
    fn targets_of_other_hosts_are_refused() {
        assert_eq!(target("http://api.cc.email/v3/contacts"), Err(Reason::BadRequest));
        let mut own = Request::builder().uri("http://localhost:8080/v3/contacts").body(()).unwrap();
        own.headers_mut().insert(header::HOST, "localhost:8080".parse().unwrap());
        own.extensions_mut().insert(LocalPort(8080));
        assert!(Target::of(&own).is_ok());
        own.extensions_mut().insert(LocalPort(9999));
        assert!(Target::of(&own).is_err());
    }
}
