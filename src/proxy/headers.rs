//! Which headers pass, in both directions.
//!
//! Hop-by-hop headers (RFC 9110 section 7.6.1) and those that `Connection` names belong to one
//! connection. What names or authenticates the caller ends here; the API sees the tenant's bearer
//! token and nothing of ours.

use http::header::{
    self, AUTHORIZATION, CONNECTION, COOKIE, EXPECT, FORWARDED, HOST, HeaderMap, HeaderName,
    HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};

/// The client key, when `Authorization` is needed for something else.
pub(super) const CTCT_PROXY_KEY: HeaderName = HeaderName::from_static("ctct-proxy-key");
/// The tenant.
pub(super) const CTCT_TENANT: HeaderName = HeaderName::from_static("ctct-tenant");
/// RFC 9218.
pub(super) const PRIORITY: HeaderName = HeaderName::from_static("priority");
/// RFC 7240.
pub(super) const PREFER: HeaderName = HeaderName::from_static("prefer");
/// The caller's name for the request.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
/// The same, as most tools write it.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The entry that this proxy adds to `Via` (RFC 9110 section 7.6.3).
const VIA_ENTRY: &str = "1.1 ctct-proxy";

static HOP_BY_HOP: [HeaderName; 7] =
    [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

/// End here: the caller's own credentials and address, and what it asks of the proxy.
static FOR_THE_PROXY: [HeaderName; 12] = [
    HOST,
    AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    COOKIE,
    EXPECT,
    FORWARDED,
    CTCT_PROXY_KEY,
    CTCT_TENANT,
    PRIORITY,
    PREFER,
    REQUEST_ID,
    X_REQUEST_ID,
];

/// Takes out what belongs to the connection.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    remove(headers, |name| HOP_BY_HOP.contains(name));
}

/// Takes out what belongs to the connection and all that is `unwanted`. Most heads have few of
/// either, so the headers are gone through, not the lists.
fn remove(headers: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    let named = named_by_connection(headers);
    let present: Vec<HeaderName> = headers.keys().filter(|name| unwanted(name)).cloned().collect();
    for name in named.iter().chain(&present) {
        headers.remove(name);
    }
}

fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect()
}

/// The headers of a request as they go to the API, but for `Host` and `Authorization`.
pub(super) fn for_upstream(headers: &mut HeaderMap, path: &str) {
    let is_partner = path.starts_with("/v3/partner/");
    remove(headers, |name| {
        HOP_BY_HOP.contains(name)
            || FOR_THE_PROXY.contains(name)
            || (*name == X_API_KEY && !is_partner)
            || name.as_str().starts_with("x-forwarded-")
    });
    let via = if headers.contains_key(VIA) {
        let before = headers.get_all(VIA).iter().map(HeaderValue::as_bytes);
        let entries: Vec<&[u8]> = before.chain([VIA_ENTRY.as_bytes()]).collect();
        HeaderValue::from_bytes(&entries.join(&b", "[..])).expect("values joined are a value")
    } else {
        HeaderValue::from_static(VIA_ENTRY)
    };
    headers.insert(VIA, via);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn what_belongs_to_the_connection_or_names_the_caller_ends_here() {
        let mut headers = map(&[
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("te", "trailers"),
            ("keep-alive", "timeout=5"),
            ("authorization", "Bearer ctp_x"),
            ("cookie", "a=b"),
            ("forwarded", "for=1.2.3.4"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-proto", "https"),
            ("x-api-key", "k"),
            ("ctct-tenant", "acme"),
            ("prefer", "wait=3"),
            ("x-request-id", "r"),
            ("host", "proxy"),
            ("content-type", "application/json"),
            ("x-own", "stays"),
            ("user-agent", "sdk/1"),
        ]);
        for_upstream(&mut headers, "/v3/contacts");
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-type", "user-agent", "via", "x-own"]);
        assert_eq!(headers[VIA], "1.1 ctct-proxy");
    }

    #[test]
    fn partner_calls_keep_their_api_key_and_via_grows() {
        let mut headers = map(&[("x-api-key", "k"), ("via", "2 edge"), ("via", "1.1 front")]);
        for_upstream(&mut headers, "/v3/partner/accounts");
        assert_eq!(headers["x-api-key"], "k");
        assert_eq!(headers[VIA], "2 edge, 1.1 front, 1.1 ctct-proxy");
    }

    #[test]
    fn what_connection_names_ends_here_beside_bytes_that_name_nothing() {
        let mut headers = map(&[("x-hop", "1"), ("x-own", "stays")]);
        headers.insert(CONNECTION, HeaderValue::from_bytes(b"\xe9, X-Hop").unwrap());
        for_upstream(&mut headers, "/v3/contacts");
        assert!(!headers.contains_key("x-hop") && headers.contains_key("x-own"));
    }
}
