//! Where a request says that it was sent to, and from which site: what tells a web page in
//! somebody's browser from a program.
//!
//! A page that rebinds its name to 127.0.0.1 is found by its `Host`, one that posts across sites by
//! `Sec-Fetch-Site` or `Origin`. What is refused for it, and in which words, is up to the listener.

use std::net::{IpAddr, SocketAddr};

use http::header::{HOST, HeaderMap, HeaderValue, ORIGIN};
use http::uri::Authority;
use http::{Method, Request, Uri};

/// The host that the request was sent to, as the sender wrote it; `None` when there is none, or
/// more than one.
pub fn host<B>(request: &Request<B>) -> Option<Authority> {
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => Authority::try_from(host.as_bytes()).ok(),
        (Some(_), Some(_)) => None,
        // HTTP/2 has it as `:authority`
        (None, _) => request.uri().authority().cloned(),
    }
}

/// Whether `host` is localhost, a loopback address, or the address that is listened on.
#[must_use]
pub fn is_local(host: &Authority, listen: SocketAddr) -> bool {
    match address(host) {
        Some(ip) => ip.is_loopback() || (ip, host.port_u16()) == (listen.ip(), Some(listen.port())),
        None => host.host().eq_ignore_ascii_case("localhost"),
    }
}

/// Whether `host` is a name that somebody can have point anywhere: neither an address nor
/// localhost.
#[must_use]
pub fn is_rebindable(host: &Authority) -> bool {
    address(host).is_none() && !host.host().eq_ignore_ascii_case("localhost")
}

fn address(host: &Authority) -> Option<IpAddr> {
    let ip: IpAddr = host.host().trim_matches(['[', ']']).parse().ok()?;
    Some(ip.to_canonical())
}

/// Whether the request is to change something and a page of another site has made its reader's
/// browser send it.
#[must_use]
pub fn is_from_another_site(
    method: &Method,
    headers: &HeaderMap,
    host: Option<&Authority>,
) -> bool {
    if [Method::GET, Method::HEAD, Method::OPTIONS].contains(method) {
        return false;
    }
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    let foreign_site = site.is_some_and(|site| site != b"same-origin" && site != b"none");
    let foreign_origin = headers.get_all(ORIGIN).iter().any(|origin| {
        let origin = Uri::try_from(origin.as_bytes()).ok();
        match (origin.as_ref().and_then(Uri::authority), host) {
            (Some(origin), Some(host)) => !origin.as_str().eq_ignore_ascii_case(host.as_str()),
            _ => true,
        }
    });
    foreign_site || foreign_origin
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_and_the_listener_itself_are_local() {
        let listen: SocketAddr = "10.0.0.5:9090".parse().unwrap();
        for good in
            ["localhost", "LOCALHOST:1", "127.0.0.1:9090", "127.8.8.8", "[::1]:9", "10.0.0.5:9090"]
        {
            assert!(is_local(&good.parse().unwrap(), listen), "{good}");
        }
        for bad in ["evil.example:9090", "localhost.evil.example", "10.0.0.5", "10.0.0.6:9090"] {
            assert!(!is_local(&bad.parse().unwrap(), listen), "{bad}");
        }
    }

    #[test]
    fn names_can_be_rebound_and_addresses_cannot() {
        let rebindable = |host: &str| is_rebindable(&host.parse().unwrap());
        for host in ["localhost:80", "LocalHost", "127.0.0.1:8080", "[::1]:1", "10.0.0.5"] {
            assert!(!rebindable(host), "{host}");
        }
        for host in ["evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example"] {
            assert!(rebindable(host), "{host}");
        }
    }
}
