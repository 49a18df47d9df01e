//! What must hold of any head of a request, for `crate::fuzzing`.
//!
//! A head is written as it comes over the wire: `METHOD TARGET VERSION`, then a header a line. What
//! is decided here a second time is decided the slow and plain way, from bytes.

use std::collections::HashMap;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Version};

use super::headers::{CTCT_PROXY_KEY, CTCT_TENANT, PREFER, PRIORITY};
use super::passthrough::OwnToken;
use super::target::Target;
use super::{Settings, headers, identify, record};
use crate::config::Passthrough;
use crate::engine::{ApiKeyName, Class, TenantName};
use crate::listen::LocalPort;

/// The port of the listener.
const PORT: u16 = 8_080;
/// The client id of the one API key.
const CLIENT_ID: &str = "id";
/// End at the proxy, whatever `Connection` says.
const ENDS_HERE: &str = "connection keep-alive proxy-connection te trailer transfer-encoding \
    upgrade host authorization proxy-authorization cookie expect forwarded ctct-proxy-key \
    ctct-tenant priority prefer request-id x-request-id";

/// A target that is taken goes on byte for byte and cannot leave `/v3`, is for this proxy and asks
/// for nothing else; of its headers those go on that should, unchanged.
///
/// # Panics
/// When that does not hold.
pub fn target(input: &[u8]) {
    let Some((mut request, given)) = head(input) else { return };
    if let Ok(target) = Target::of(&request) {
        let sent = target.path_and_query.as_str();
        asks_for_nothing_else(&request);
        stays_below_v3(sent);
        assert_eq!(sent.as_bytes(), forwarded(given, target.tenant.as_ref()), "not as it came");
        *request.uri_mut() = sent.parse().expect("what is sent is a target");
        let again = Target::of(&request).expect("what is sent is taken again");
        assert_eq!((again.path_and_query.as_str(), again.tenant), (sent, None));
    }
    for path in ["/v3/contacts", "/v3/partner/accounts"] {
        let mut after = request.headers().clone();
        headers::for_upstream(&mut after, path);
        pass_as_they_should(request.headers(), &after, path);
    }
}

/// A class is what a plain `u` says and a wait is within its limit; a header that may come once is
/// read whole or refused; ids, names and tokens are fit for where they go.
///
/// # Panics
/// When that does not hold.
pub fn preferences(input: &[u8]) {
    let headers = header_lines(input.split(|byte| *byte == b'\n'));
    let settings = settings();
    let class = identify::class(&headers);
    match only(&headers, &PRIORITY) {
        Only::None => assert_eq!(class, Class::Normal, "nothing was asked for"),
        Only::One([b'u', b'=', urgency @ b'0'..=b'7']) => {
            assert_eq!(class, Class::from_urgency(urgency - b'0'));
        }
        Only::One(_) | Only::Several => {}
    }
    let wait = identify::wait(&headers, &settings);
    assert!(wait <= settings.max_wait_limit, "waits {wait:?}");
    match only(&headers, &PREFER) {
        Only::None => assert_eq!(wait, settings.max_wait, "nothing was asked for"),
        Only::One(value) => {
            let secs = value.strip_prefix(b"wait=").and_then(|secs| std::str::from_utf8(secs).ok());
            if let Some(secs) = secs.and_then(|secs| secs.parse::<u32>().ok()) {
                let asked = Duration::from_secs(u64::from(secs));
                assert_eq!(wait, asked.min(settings.max_wait_limit), "not what was asked for");
            }
        }
        Only::Several => {}
    }
    for name in [AUTHORIZATION, CTCT_PROXY_KEY, CTCT_TENANT] {
        match (identify::single(&headers, &name), only(&headers, &name)) {
            (Ok(None), Only::None) | (Err(_), Only::Several) => {}
            (Ok(Some(read)), Only::One(value)) => {
                assert_eq!(read.as_bytes(), value, "{name}");
                if let Ok(tenant) = TenantName::new(read) {
                    fits_everywhere(&tenant);
                }
            }
            (Err(_), Only::One(value)) => {
                assert!(value.iter().any(|b| !matches!(b, b' '..=b'~' | b'\t')), "{name}");
            }
            (read, _) => panic!("{name}: {read:?}"),
        }
    }
    let id = record::request_id(&headers);
    assert!((1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic));
    if let Ok(Some(bearer)) = identify::bearer(&headers) {
        own_token(&settings, bearer);
    }
}

/// A token of the caller's own goes on as it came, hidden, under a name that no tenant has.
fn own_token(settings: &Settings, bearer: &str) {
    assert_eq!(bearer, bearer.trim(), "white space around a token");
    let Some(own) = OwnToken::read(settings, Some(bearer)) else { return };
    assert_eq!(bearer.split('.').count(), 3, "{bearer:?}");
    assert_eq!(own.header, format!("Bearer {bearer}"));
    assert!(own.header.is_sensitive(), "could be printed");
    assert!(TenantName::new(own.tenant.as_str()).is_err(), "could be a tenant");
    let off = Settings { passthrough: Passthrough::No, ..settings.clone() };
    assert!(OwnToken::read(&off, Some(bearer)).is_none(), "forwarded though it is switched off");
}

/// A request, and its target as it was written.
fn head(input: &[u8]) -> Option<(Request<()>, &[u8])> {
    let mut lines = input.split(|byte| *byte == b'\n');
    let mut words = lines.next()?.split(|byte| *byte == b' ');
    let (method, target) = (words.next()?, words.next()?);
    let version = match words.next() {
        Some(b"HTTP/1.0") => Version::HTTP_10,
        Some(b"HTTP/2") => Version::HTTP_2,
        Some(_) | None => Version::HTTP_11,
    };
    let request = Request::builder().method(method).uri(target).version(version);
    let mut request = request.body(()).ok()?;
    *request.headers_mut() = header_lines(lines);
    request.extensions_mut().insert(LocalPort(PORT));
    Some((request, target))
}

/// The headers on `lines`; what is none is passed over.
fn header_lines<'a>(lines: impl Iterator<Item = &'a [u8]>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.take(100) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = line.split_at(colon);
        let name = HeaderName::from_bytes(name);
        let value = HeaderValue::from_bytes(value.get(1..).unwrap_or_default().trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}

fn asks_for_nothing_else(request: &Request<()>) {
    let hosts: Vec<_> = request.headers().get_all("host").iter().collect();
    assert!(request.method() != Method::CONNECT && !request.headers().contains_key("upgrade"));
    assert!(hosts.len() <= 1, "{hosts:?}");
    if request.version() >= Version::HTTP_2 {
        return;
    }
    assert!(request.version() < Version::HTTP_11 || hosts.len() == 1, "no Host");
    if let Some(authority) = request.uri().authority() {
        assert_eq!(hosts, [authority.as_str()], "the target is for another host");
        assert!(authority.as_str().ends_with(&format!(":{PORT}")), "{authority}");
    }
}

/// Neither as it stands nor decoded does the path have a segment that a server would resolve.
fn stays_below_v3(sent: &str) {
    assert!(sent.bytes().all(|byte| byte > b' ' && byte != 0x7f), "could split: {sent:?}");
    assert!(sent.len() <= 8_192, "{} bytes", sent.len());
    let path = sent.split('?').next().unwrap_or_default();
    for path in [path.as_bytes(), &decoded(path.as_bytes())] {
        let mut segments = path.split(|byte| matches!(byte, b'/' | b'\\'));
        assert_eq!((segments.next(), segments.next()), (Some(&b""[..]), Some(&b"v3"[..])));
        for segment in segments {
            let dots = segment.split(|byte| *byte == b';').next().unwrap_or_default();
            assert!(!matches!(dots, b"." | b".."), "could leave /v3: {sent:?}");
            assert!(!segment.contains(&0), "could end early: {sent:?}");
        }
    }
}

/// `%41` → `A`; what is no such sign stays.
fn decoded(path: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (mut rest, mut out) = (path, Vec::new());
    while let [byte, after @ ..] = rest {
        rest = after;
        out.push(match after {
            [high, low, after @ ..] if *byte == b'%' => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    rest = after;
                    high * 16 + low
                }
                _ => *byte,
            },
            _ => *byte,
        });
    }
    out
}

/// What of a target goes on: without the host of absolute form, without a fragment, which no target
/// has (RFC 9112 section 3.2), and without the tenant.
fn forwarded<'a>(given: &'a [u8], tenant: Option<&TenantName>) -> &'a [u8] {
    let given = given.split(|byte| *byte == b'#').next().unwrap_or_default();
    let host = if given.starts_with(b"/") {
        0
    } else {
        let scheme = given.windows(3).position(|three| three == b"://").expect("absolute form");
        scheme + 3
    };
    let from = |at: usize| at + given[at..].iter().position(|byte| *byte == b'/').expect("a path");
    let path = from(host);
    let Some(tenant) = tenant else { return &given[path..] };
    assert!(given[path..].starts_with(b"/t/"), "a tenant that the path does not name");
    let name = path + 3;
    let rest = from(name);
    assert_eq!(decoded(&given[name..rest]), tenant.as_str().as_bytes(), "another tenant");
    fits_everywhere(tenant);
    &given[rest..]
}

fn fits_everywhere(tenant: &TenantName) {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._~:@-".contains(&byte);
    let name = tenant.as_str();
    assert!((1..=128).contains(&name.len()) && name.bytes().all(fits), "{name:?}");
    assert!(name.as_bytes()[0].is_ascii_alphanumeric(), "{name:?}");
}

fn pass_as_they_should(before: &HeaderMap, after: &HeaderMap, path: &str) {
    let connection = before.get_all("connection").iter();
    let named: Vec<Vec<u8>> = connection
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|name| name.trim_ascii().to_ascii_lowercase())
        .collect();
    let passes = |name: &HeaderName| {
        let text = name.as_str();
        let ends = ENDS_HERE.split(' ').any(|other| other == text)
            || text.starts_with("x-forwarded-")
            || (text == "x-api-key" && !path.starts_with("/v3/partner/"));
        !ends && !named.iter().any(|other| other == text.as_bytes())
    };
    for name in after.keys().filter(|name| *name != "via") {
        assert!(passes(name) && before.contains_key(name), "{name} goes on");
    }
    for name in before.keys().filter(|name| *name != "via" && passes(name)) {
        let (given, sent) = (before.get_all(name), after.get_all(name));
        assert!(given.iter().eq(sent.iter()), "{name} does not go on as it came");
    }
    let via = before.get_all("via").iter().filter(|_| passes(&http::header::VIA));
    let mut expected: Vec<&[u8]> = via.map(HeaderValue::as_bytes).collect();
    expected.push(b"1.1 ctct-proxy");
    let sent: Vec<&[u8]> = after.get_all("via").iter().map(HeaderValue::as_bytes).collect();
    assert_eq!(sent, [expected.join(&b", "[..])], "Via");
}

/// How often a header is there.
enum Only<'a> {
    None,
    One(&'a [u8]),
    Several,
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Only<'a> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Only::None,
        (Some(value), None) => Only::One(value.as_bytes()),
        (Some(_), Some(_)) => Only::Several,
    }
}

/// What heads are read by here, and in unit tests.
pub(super) fn settings() -> Settings {
    let key = ApiKeyName::new("main").expect("a name");
    Settings {
        allow_anonymous: false,
        passthrough: Passthrough::Unverified,
        client_ids: HashMap::from([(CLIENT_ID.to_owned(), key)]),
        on_loopback: true,
        max_wait: Duration::from_secs(30),
        max_wait_limit: Duration::from_secs(600),
        max_body: 1,
        replay_buffer: 1,
        upstream_timeout: Duration::from_secs(60),
    }
}
