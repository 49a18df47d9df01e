//! Who calls, for which tenant, and what the caller asks of the queue.
//!
//! A client key or a certificate says who calls and for whom it may; path, header or the client's
//! only tenant say for whom it does. Nothing here waits or touches the body.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderMap};
use http::{HeaderName, HeaderValue, Request};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

use super::headers::{CTCT_PROXY_KEY, CTCT_TENANT, PREFER, PRIORITY};
use super::passthrough::OwnToken;
use super::{Inner, Settings};
use crate::engine::scheduler::Arrival;
use crate::engine::{Class, TenantName};
use crate::gate::{KeyGate, Ticket};
use crate::listen::{Blocked, CertifiedName, Peer, origin};
use crate::rejection::{Reason, Rejection};
use crate::secret::ClientKey;
use crate::store::{Client, TenantScope};

/// A caller that may call.
pub(super) struct Caller {
    /// Who; `None` for an anonymous caller.
    pub(super) client: Option<Arc<Client>>,
    /// For whom.
    pub(super) tenant: TenantName,
    /// Where its calls wait.
    pub(super) key: KeyGate,
    /// The access token that it brought, in place of a connected tenant's.
    pub(super) own: Option<OwnToken>,
}

impl Caller {
    /// Asks for a slot.
    pub(super) fn enqueue(&self, arrival: Arrival) -> Ticket {
        match &self.own {
            Some(_) => self.key.enqueue_visitor(arrival),
            None => self.key.enqueue(arrival),
        }
    }
}

/// Finds the caller and the tenant.
pub(super) fn identify<B>(
    proxy: &Inner,
    settings: &Settings,
    request: &Request<B>,
    in_path: Option<TenantName>,
) -> Result<Caller, Rejection> {
    let headers = request.headers();
    let certified = request.extensions().get();
    let certified = certified.map(|certified| certified_client(proxy, certified)).transpose()?;
    let bearer = bearer(headers)?;
    let own = OwnToken::read(settings, bearer);
    let bearer = bearer.filter(|_| own.is_none());
    let presented = match single(headers, &CTCT_PROXY_KEY)? {
        Some(key) => Some(key),
        None => bearer.filter(|_| !settings.allow_anonymous || bearer.is_some_and(is_key)),
    };
    let client = match presented {
        Some(key) => {
            let client = holder(proxy, key, Peer::of(request))?;
            if certified.is_some_and(|certified| certified.name != client.name) {
                return Err(unauthenticated(
                    "the client key is another client's than the one that the certificate names",
                ));
            }
            Some(client)
        }
        None if certified.is_some() => certified,
        None if settings.allow_anonymous => None,
        None if own.is_some() => {
            return Err(unauthenticated("an access token is no client key, and none was sent"));
        }
        None => return Err(unauthenticated("no client key was sent")),
    };
    let in_header = single(headers, &CTCT_TENANT)?
        .map(|name| TenantName::new(name).map_err(|error| bad(format!("Ctct-Tenant: {error}"))))
        .transpose()?;
    if let Some(own) = own {
        return visitor(proxy, client, own, in_path.or(in_header).is_some());
    }
    let in_bearer = match &client {
        Some(_) => None,
        None => bearer.and_then(|name| TenantName::new(name).ok()),
    };
    let tenant = chosen(proxy, client.as_deref(), in_path, in_header, in_bearer)?;
    let key = home(proxy, client.as_deref(), &tenant)?;
    Ok(Caller { client, tenant, key, own: None })
}

/// The client that a caller's certificate names. A certificate that names none is refused, like a
/// client key that nobody holds, also where callers may be anonymous.
fn certified_client(proxy: &Inner, certified: &CertifiedName) -> Result<Arc<Client>, Rejection> {
    let refused = |message| Rejection::new(Reason::ClientUnauthenticated, message);
    let name = certified.get().ok_or_else(|| {
        refused("the certificate names no client: it needs exactly one DNS name, a client's name")
    })?;
    let client = proxy.clients.named(name);
    client.ok_or_else(|| refused("the DNS name of the certificate is not the name of a client"))
}

/// The client that holds `key`. A key that is right always is: nobody guesses 256 bits of chance,
/// and one broken program behind an address must not lock the others out.
fn holder(proxy: &Inner, key: &str, peer: IpAddr) -> Result<Arc<Client>, Rejection> {
    proxy.clients.holder(key).map_err(|refused| match proxy.logins.failed(peer) {
        Ok(()) => unauthenticated(refused),
        Err(Blocked(left)) => Rejection::new(
            Reason::LoginsLimited,
            format!("{refused}, and too many such keys came from this address; stop sending it"),
        )
        .retry_after(left),
    })
}

/// A caller that brings an access token of its own.
fn visitor(
    proxy: &Inner,
    client: Option<Arc<Client>>,
    own: OwnToken,
    names_tenant: bool,
) -> Result<Caller, Rejection> {
    if names_tenant {
        return Err(bad(
            "the call names a tenant and brings an access token of its own (server.passthrough); \
             send one of the two",
        ));
    }
    own.check_end(proxy.clock.now().unix)?;
    let key = proxy.gate.api_key(&own.api_key).ok_or_else(|| {
        let message = "the API key of the access token is not in the configuration any more";
        Rejection::new(Reason::TenantUnknown, message)
    })?;
    Ok(Caller { client, tenant: own.tenant.clone(), key, own: Some(own) })
}

/// Keeps web pages from calling without a key through their reader's browser, which shows a
/// certificate unasked. A listener that is not on loopback is open to its whole network, and has
/// names there; one with TLS has names that no page can take.
pub(super) fn refuse_pages<B>(settings: &Settings, request: &Request<B>) -> Result<(), Rejection> {
    let headers = request.headers();
    let certified = request.extensions().get::<CertifiedName>().is_some();
    if !(settings.allow_anonymous || certified)
        || headers.contains_key(CTCT_PROXY_KEY)
        || bearer(headers)?.is_some_and(is_key)
    {
        return Ok(());
    }
    let host = origin::host(request);
    if settings.on_loopback && !certified && host.as_ref().is_none_or(origin::is_rebindable) {
        return Err(bad(
            "without a client key only localhost or an IP address may be in Host; a page in a \
             browser could be behind another name",
        ));
    }
    if origin::is_from_another_site(request.method(), headers, host.as_ref()) {
        return Err(bad(
            "without a client key a page of another site may not change anything here (Origin, \
             Sec-Fetch-Site)",
        ));
    }
    Ok(())
}

pub(super) fn is_key(text: &str) -> bool {
    ClientKey::has_form(text)
}

/// The tenant that the request is for.
fn chosen(
    proxy: &Inner,
    client: Option<&Client>,
    in_path: Option<TenantName>,
    in_header: Option<TenantName>,
    in_bearer: Option<TenantName>,
) -> Result<TenantName, Rejection> {
    let named = match (in_path, in_header) {
        (Some(path), Some(header)) if path != header => {
            return Err(bad("the path and Ctct-Tenant name two different tenants"));
        }
        (Some(name), _) | (None, Some(name)) => Some(name),
        (None, None) => None,
    };
    match (named, in_bearer) {
        (Some(name), Some(bearer))
            if name != bearer && proxy.tokens.tenant(bearer.as_str()).is_some() =>
        {
            Err(bad("the bearer value and the path or Ctct-Tenant name two different tenants"))
        }
        (Some(name), _) | (None, Some(name)) => Ok(name),
        (None, None) => only_tenant(client),
    }
}

/// The only tenant of the client.
pub(super) fn only_tenant(client: Option<&Client>) -> Result<TenantName, Rejection> {
    if let Some(Client { tenants: TenantScope::Some(tenants), .. }) = client
        && tenants.len() == 1
        && let Some(tenant) = tenants.first()
    {
        return Ok(tenant.clone());
    }
    Err(bad(
        "no tenant is named, and the client may act for more than one: name it in Ctct-Tenant or \
         the path (/t/{tenant}/v3/…)",
    ))
}

/// The gate at which the tenant's calls wait.
fn home(proxy: &Inner, client: Option<&Client>, tenant: &TenantName) -> Result<KeyGate, Rejection> {
    if client.is_some_and(|client| !client.may_act_for(tenant)) {
        return Err(forbidden(tenant));
    }
    let view = proxy.tokens.tenant(tenant.as_str());
    let key = view.as_ref().and_then(|view| proxy.gate.api_key(&view.api_key));
    let sees_all = client.is_none_or(|client| client.tenants == TenantScope::All);
    match key {
        Some(key) => Ok(key),
        None if sees_all && view.is_some() => Err(Rejection::new(
            Reason::TenantUnknown,
            format!("the API key of tenant {tenant} is not in the configuration"),
        )),
        None if sees_all => Err(Rejection::new(
            Reason::TenantUnknown,
            format!("there is no tenant {tenant}; add it with: ctct-proxy tenant add {tenant}"),
        )),
        None => Err(forbidden(tenant)),
    }
}

fn forbidden(tenant: &TenantName) -> Rejection {
    Rejection::new(
        Reason::TenantForbidden,
        format!("this client may not act for tenant {tenant}, or it is not connected"),
    )
}

/// The value of `Authorization: Bearer`.
pub(super) fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Rejection> {
    let Some(value) = single(headers, &AUTHORIZATION)? else { return Ok(None) };
    let bearer = value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    Ok(bearer.map(|(_, token)| token.trim()))
}

/// A header that may come once.
pub(super) fn single<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a str>, Rejection> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(bad(format!("the header {name} is there twice")));
    }
    value.to_str().map(Some).map_err(|_| bad(format!("the header {name} is not visible ASCII")))
}

/// The class that `Priority: u=…` (RFC 9218) asks for. As the RFC says, what cannot be read is
/// ignored.
pub(super) fn class(headers: &HeaderMap) -> Class {
    if !headers.contains_key(PRIORITY) {
        return Class::default();
    }
    let joined = joined(headers, &PRIORITY);
    let urgency = Parser::new(&joined).parse::<Dictionary>().ok().and_then(|dictionary| {
        match dictionary.get("u") {
            Some(ListEntry::Item(item)) => match item.bare_item {
                BareItem::Integer(urgency) => u8::try_from(i64::from(urgency)).ok(),
                BareItem::Boolean(_)
                | BareItem::Decimal(_)
                | BareItem::String(_)
                | BareItem::ByteSequence(_)
                | BareItem::Token(_)
                | BareItem::Date(_)
                | BareItem::DisplayString(_) => None,
            },
            Some(ListEntry::InnerList(_)) | None => None,
        }
    });
    urgency.filter(|urgency| *urgency <= 7).map_or(Class::default(), Class::from_urgency)
}

/// How long the caller will wait: `Prefer: wait=…` (RFC 7240 section 4.3), or what the settings
/// say.
pub(super) fn wait(headers: &HeaderMap, settings: &Settings) -> Duration {
    if !headers.contains_key(PREFER) {
        return settings.max_wait;
    }
    let joined = joined(headers, &PREFER);
    // the first of several counts (RFC 7240 section 2)
    let asked = members(&joined).find_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        if !name.trim().eq_ignore_ascii_case("wait") {
            return None;
        }
        value.trim().trim_matches('"').parse::<u32>().ok()
    });
    match asked {
        Some(secs) => Duration::from_secs(u64::from(secs)).min(settings.max_wait_limit),
        None => settings.max_wait,
    }
}

/// The members of a list; a comma in a quoted string is part of it (RFC 9110 section 5.6.4).
fn members(list: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    list.split(move |c| {
        let is_plain = !std::mem::take(&mut escaped);
        escaped = quoted && is_plain && c == '\\';
        quoted ^= is_plain && c == '"';
        c == ',' && !quoted
    })
}

fn joined(headers: &HeaderMap, name: &HeaderName) -> String {
    let values = headers.get_all(name).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
    values.collect::<Vec<_>>().join(", ")
}

fn bad(message: impl Into<String>) -> Rejection {
    Rejection::new(Reason::BadRequest, message)
}

fn unauthenticated(what: impl fmt::Display) -> Rejection {
    Rejection::new(
        Reason::ClientUnauthenticated,
        format!("{what}; send one as Authorization: Bearer ctp_… or in Ctct-Proxy-Key"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &HeaderName, values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn urgency_makes_the_class() {
        let read = |value: &'static str| class(&headers(&PRIORITY, &[value]));
        assert_eq!(class(&HeaderMap::new()), Class::Normal);
        for value in ["u=0", "u=2, i", "i, u=1"] {
            assert_eq!(read(value), Class::Interactive, "{value}");
        }
        assert_eq!(read("u=5"), Class::Bulk);
        for value in ["", "i", "u=8", "u=-1", "u=x", "u=1.5", "u=(1)", "%%%"] {
            assert_eq!(read(value), Class::Normal, "{value}");
        }
    }

    #[test]
    fn wait_is_what_the_caller_prefers_within_the_limit() {
        let settings = crate::proxy::fuzzing::settings();
        let read = |values: &[&'static str]| wait(&headers(&PREFER, values), &settings).as_secs();
        assert_eq!(wait(&HeaderMap::new(), &settings).as_secs(), 30);
        assert_eq!(read(&["wait=10"]), 10);
        assert_eq!(read(&["respond-async, WAIT=\"7\"; x=y"]), 7);
        assert_eq!(read(&["wait=0"]), 0);
        assert_eq!(read(&[r#"x="a, wait=3""#]), 30, "in a quoted string");
        assert_eq!(read(&[r#"x="a\", wait=3", wait=4"#]), 4);
        assert_eq!(read(&["wait=5", "wait=9"]), 5);
        assert_eq!(read(&["wait=9999"]), 600);
        for value in ["wait", "wait=x", "wait=-1", "waits=3"] {
            assert_eq!(read(&[value]), 30, "{value}");
        }
    }
}
