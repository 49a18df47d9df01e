//! All that a store holds, and what of it another does not hold.
//!
//! Moments are compared to the millisecond, which every store keeps. A grant whose refresh did not
//! end is taken as the proxy would find it at its next start: with the tokens that came, if they
//! are in the journal; and if only that the request was out is known, with the same doubt.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::LeftAlone;
use crate::engine::{ApiKeyName, ClientName, Day, TenantName, Unix};
use crate::store::{
    Client, DAYS_KEPT, Grant, GrantState, OpenRefresh, RefreshStep, StoreError, WholeStore,
};

/// The API key that is there without a file.
const DEFAULT: &str = "default";
/// Later moments are "never", which not every store keeps apart.
const MILLIS_MAX: u128 = 1 << 53;

/// What a store holds.
#[derive(Default)]
pub(super) struct Contents {
    pub(super) grants: BTreeMap<TenantName, Grant>,
    pub(super) clients: BTreeMap<ClientName, Client>,
    pub(super) held: BTreeSet<ApiKeyName>,
    pub(super) days: BTreeMap<ApiKeyName, BTreeMap<Day, u64>>,
}

/// A refresh that had not ended when its tenant was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// The tenant.
    pub tenant: TenantName,
    /// Whether its tokens came: then they were copied. If not, the answer is lost, and the proxy on
    /// TO asks once more, as that on FROM would have.
    pub came: bool,
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenant = &self.tenant;
        if self.came {
            write!(f, "tenant {tenant}: with the tokens of a refresh that was not stored yet")
        } else {
            write!(
                f,
                "tenant {tenant}: the answer to its last refresh is lost, and the proxy asks once \
                 more, as it would have without the copy"
            )
        }
    }
}

/// What became of refreshes that had not ended.
#[derive(Default)]
pub(super) struct Recovered {
    pub(super) gone_on: Vec<Gone>,
    pub(super) left_alone: Vec<LeftAlone>,
}

impl Contents {
    /// What `store` holds; days of the API keys that are named or that it knows.
    pub(super) async fn of(
        store: &dyn WholeStore,
        api_keys: &BTreeSet<ApiKeyName>,
    ) -> Result<Self, StoreError> {
        let grants = store.grants().await?.into_iter();
        let clients = store.clients().await?.into_iter();
        let mut contents = Self {
            grants: grants.map(|grant| (grant.tenant.clone(), grant)).collect(),
            clients: clients.map(|client| (client.name.clone(), client)).collect(),
            held: store.paused_api_keys().await?,
            days: BTreeMap::new(),
        };
        for api_key in contents.api_keys(api_keys) {
            let days = store.days(&api_key).await?;
            contents.days.insert(api_key, days);
        }
        Ok(contents)
    }

    /// All API keys that are known of.
    pub(super) fn api_keys(&self, named: &BTreeSet<ApiKeyName>) -> BTreeSet<ApiKeyName> {
        let of_grants = self.grants.values().map(|grant| &grant.api_key);
        let known = of_grants.chain(&self.held).chain(self.days.keys()).chain(named).cloned();
        known.chain(ApiKeyName::new(DEFAULT)).collect()
    }

    /// Brings the grants to what they are after the refreshes in `left`. A begun refresh of which
    /// nothing is known may have brought tokens that only another machine has, if the store
    /// `is_shared`: its tenant is taken out.
    pub(super) fn recover(&mut self, left: &[OpenRefresh], is_shared: bool) -> Recovered {
        let mut recovered = Recovered::default();
        self.grants.retain(|tenant, grant| {
            let left = left.iter().filter(|left| left.tenant == *tenant);
            let mut steps = left.filter(|left| left.version == grant.version).map(|l| &l.step);
            // of several journals the one with tokens counts
            let came = |step: &&RefreshStep| matches!(step, RefreshStep::Received { .. });
            let step = steps.clone().find(came).or_else(|| steps.next());
            let gone = match step {
                Some(RefreshStep::Received { tokens, at }) => {
                    grant.version = grant.version.saturating_add(1);
                    grant.tokens = tokens.clone();
                    grant.state = GrantState::Ready;
                    grant.last_refreshed_at = Some(*at);
                    grant.refresh_begun_at = None;
                    Gone { tenant: tenant.clone(), came: true }
                }
                // what was not about to be sent was not sent
                Some(RefreshStep::Begun) => {
                    grant.refresh_begun_at = None;
                    return true;
                }
                Some(RefreshStep::Posted) | None if grant.refresh_begun_at.is_none() => {
                    return true;
                }
                None if is_shared => {
                    recovered.left_alone.push(unknown_refresh(tenant));
                    return false;
                }
                Some(RefreshStep::Posted) | None => Gone { tenant: tenant.clone(), came: false },
            };
            recovered.gone_on.push(gone);
            true
        });
        recovered
    }

    /// What of this is not in `there`, but for what is named in `left`.
    pub(super) fn missing_in(&self, there: &Self, left: &BTreeSet<&str>) -> Vec<String> {
        let mut missing = Vec::new();
        let mut note = |what: String, differs: Option<Vec<&'static str>>| match differs {
            _ if left.contains(what.as_str()) => {}
            None => missing.push(format!("{what} is not in TO")),
            Some(differs) if differs.is_empty() => {}
            Some(differs) => missing.push(format!("{what} differs in {}", differs.join(", "))),
        };
        for (tenant, grant) in &self.grants {
            let differs = there.grants.get(tenant).map(|there| grant_differences(grant, there));
            note(format!("tenant {tenant}"), differs);
        }
        for (name, client) in &self.clients {
            let differs = there.clients.get(name).map(|there| client_differences(client, there));
            note(format!("client {name}"), differs);
        }
        for api_key in self.held.difference(&there.held) {
            missing.push(format!("API key {api_key} is not held in TO"));
        }
        for (api_key, days) in &self.days {
            let counted = there.days.get(api_key);
            for (day, total) in days {
                if counted.is_none_or(|counted| is_short(counted, *day, *total)) {
                    let day = day.number();
                    missing.push(format!("API key {api_key} has counted less in TO on day {day}"));
                }
            }
        }
        missing
    }
}

fn unknown_refresh(tenant: &TenantName) -> LeftAlone {
    let why = "a refresh was under way on an instance that was killed, and new tokens may be in \
               its journal alone: name that with --from-journal, or start and stop the proxy on \
               its machine, which ends the refresh";
    LeftAlone { what: format!("tenant {tenant}"), why: why.to_owned() }
}

/// Whether a store that has counted `counted` knows of fewer than `total` calls of `day`, which it
/// would remember.
pub(super) fn is_short(counted: &BTreeMap<Day, u64>, day: Day, total: u64) -> bool {
    let is_forgotten =
        counted.len() >= DAYS_KEPT && counted.keys().next().is_some_and(|oldest| day < *oldest);
    !is_forgotten && counted.get(&day).copied().unwrap_or_default() < total
}

/// In what one grant differs from another of the same tenant. Versions belong to the stores.
pub(super) fn grant_differences(one: &Grant, other: &Grant) -> Vec<&'static str> {
    let same_tokens = one.tokens.same_as(&other.tokens)
        && is_same_moment(one.tokens.access_expires_at, other.tokens.access_expires_at);
    let same_refresh = is_same_moment(one.refresh_begun_at, other.refresh_begun_at);
    names_of_different([
        ("API key", one.api_key == other.api_key),
        ("tokens", same_tokens),
        ("the token that was handed in", one.handed_in == other.handed_in),
        ("state", one.state == other.state && same_refresh),
        ("last refresh", is_same_moment(one.last_refreshed_at, other.last_refreshed_at)),
        ("last use", is_same_moment(one.last_used_at, other.last_used_at)),
        ("pause", one.paused == other.paused),
        ("weight", one.weight == other.weight),
    ])
}

/// In what one client differs from another of the same name.
pub(super) fn client_differences(one: &Client, other: &Client) -> Vec<&'static str> {
    let (keys, others) = (&one.keys, &other.keys);
    let same_previous = match (keys.previous, others.previous) {
        (Some(one), Some(other)) => {
            one.digest == other.digest && is_same_moment(Some(one.until), Some(other.until))
        }
        (one, other) => one.is_none() && other.is_none(),
    };
    names_of_different([
        ("key", keys.current == others.current),
        ("previous key", same_previous),
        ("end", is_same_moment(keys.expires_at, others.expires_at)),
        ("tenants", one.tenants == other.tenants),
        ("creation", is_same_moment(Some(one.created_at), Some(other.created_at))),
        ("last use", is_same_moment(one.last_used_at, other.last_used_at)),
    ])
}

fn names_of_different<const N: usize>(pairs: [(&'static str, bool); N]) -> Vec<&'static str> {
    pairs.into_iter().filter(|(_, is_same)| !is_same).map(|(name, _)| name).collect()
}

fn is_same_moment(one: Option<Unix>, other: Option<Unix>) -> bool {
    let millis = |at: Unix| at.since_epoch().as_millis().min(MILLIS_MAX);
    one.map(millis) == other.map(millis)
}

/// Whether `there` is a later state of the very grant that `grant` is, whose refresh token is spent
/// then.
pub(super) fn is_later(there: &Grant, grant: &Grant) -> bool {
    let same_origin = there.handed_in.is_some() && there.handed_in == grant.handed_in;
    same_origin && there.last_refreshed_at > grant.last_refreshed_at
}
