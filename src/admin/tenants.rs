//! Tenants: what the token keeper and the gate know of them, and their changes.
//!
//! All changes go through the keeper, which stores them, orders them and tells the gate; this file
//! reads requests and joins answers. Tokens come in here and never go out.

use std::collections::{BTreeSet, HashMap};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::Value;
use tracing::info;

use super::body::{Fields, Named};
use super::errors::AdminError;
use super::health::TENANT_STATES;
use super::page::{Page, Query};
use super::{AUDIT, Desk, Shared, hand_in};
use crate::config::values;
use crate::engine::scheduler::{Hold, TenantSnapshot};
use crate::engine::{ApiKeyName, TenantName, Unix};
use crate::gate::hold_reason;
use crate::phase::Phase;
use crate::store::{self, NewGrant, Put};
use crate::telemetry::events::rfc3339;
use crate::tokens::{TenantState, TenantStatus};

/// Largest share of a tenant.
const WEIGHT_MAX: u64 = 100;

/// A tenant as operators see it.
#[derive(Debug, Serialize)]
pub(super) struct TenantView {
    tenant: String,
    api_key: String,
    state: &'static str,
    state_reason: Option<String>,
    access_token_expires_at: Option<String>,
    /// When the refresh token dies of disuse.
    refresh_token_expires_at: Option<String>,
    last_refreshed_at: Option<String>,
    last_used_at: Option<String>,
    weight: u32,
    today: Today,
    queue_depth: usize,
}

#[derive(Debug, Serialize)]
struct Today {
    calls: u64,
    throttled: u64,
    errors: u64,
}

/// A state in a query.
struct StateFilter(TenantState);

impl FromStr for StateFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = TENANT_STATES.into_iter().find(|state| state.as_str() == text);
        found.map(Self).ok_or_else(|| {
            format!("a state is one of {}", TENANT_STATES.map(TenantState::as_str).join(", "))
        })
    }
}

/// A span of time in a query.
struct Span(Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let span = values::duration(text).map(Self);
        span.map_err(|problem| format!("{problem}; a span is such as 30d or 12h"))
    }
}

/// `GET /v1/tenants`
pub(super) async fn list(
    State(shared): Desk,
    RawQuery(query): RawQuery,
) -> Result<Json<Page<TenantView>>, AdminError> {
    let within = "refresh_token_expires_within";
    let query = Query::read(query.as_deref(), &["api_key", "state", within])?;
    let api_key: Option<ApiKeyName> = query.filter("api_key")?;
    let state: Option<StateFilter> = query.filter("state")?;
    let within: Option<Span> = query.filter(within)?;
    let now = shared.parts.clock.now().unix;
    let ageing = |status: &TenantStatus, Span(span): &Span| {
        let alive = status.state != TenantState::NeedsAuthorization;
        alive && status.refresh_token_expires_at.is_some_and(|at| at <= now.plus(*span))
    };
    let wanted = shared.parts.tokens.list().await.into_iter().filter(|status| {
        within.as_ref().is_none_or(|span| ageing(status, span))
            && api_key.as_ref().is_none_or(|api_key| status.api_key == *api_key)
            && state.as_ref().is_none_or(|state| status.state == state.0)
    });
    let page = query.cut(wanted, |status| status.tenant.as_str());
    let mut seen = seen(&shared, &page.items).await;
    Ok(Json(page.map(|status| {
        let snapshot = seen.remove(&(status.api_key.clone(), status.tenant.clone()));
        view(status, snapshot)
    })))
}

/// `GET /v1/tenants/{tenant}`
pub(super) async fn show(
    State(shared): Desk,
    Named(tenant): Named<TenantName>,
) -> Result<Json<TenantView>, AdminError> {
    let status = shared.parts.tokens.status(&tenant).await;
    // a keeper that has finished its work knows nobody, which says nothing of the tenant
    let status = status.ok_or_else(|| match shared.parts.phase.get() {
        Phase::Draining => AdminError::stopping(),
        Phase::Starting | Phase::Ready | Phase::StoreDown => {
            AdminError::not_found("tenant", &tenant)
        }
    })?;
    Ok(Json(joined(&shared, status).await))
}

/// `PUT /v1/tenants/{tenant}`
pub(super) async fn put(
    State(shared): Desk,
    Named(tenant): Named<TenantName>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, AdminError> {
    let terms = hand_in::terms(query.as_deref())?;
    let grant = read_grant(tenant, Fields::read(&headers, body).await?)?;
    if let Some(terms) = terms {
        return hand_in::hand_in(shared, grant, terms).await;
    }
    let whole = shared.clone();
    let change = async move {
        let (tenant, api_key) = (grant.tenant.clone(), grant.api_key.clone());
        let (put, status) = shared.parts.tokens.put(grant).await?;
        forgive(&shared, &tenant);
        let (code, change) = match put {
            Put::Created => (StatusCode::CREATED, "added"),
            Put::Replaced => (StatusCode::OK, "replaced"),
        };
        info!(target: AUDIT, %tenant, %api_key, change, "tenant put by an operator");
        Ok((code, Json(joined(&shared, status).await)).into_response())
    };
    whole.change(change).await
}

/// `DELETE /v1/tenants/{tenant}`
pub(super) async fn remove(
    State(shared): Desk,
    Named(tenant): Named<TenantName>,
) -> Result<StatusCode, AdminError> {
    let whole = shared.clone();
    let change = async move {
        shared.parts.connect.forget(&tenant);
        if !shared.parts.tokens.remove(&tenant).await? {
            return Err(AdminError::not_found("tenant", &tenant));
        }
        info!(target: AUDIT, %tenant, "tenant removed by an operator");
        Ok(StatusCode::NO_CONTENT)
    };
    whole.change(change).await
}

/// `POST /v1/tenants/{tenant}/refresh`
pub(super) async fn refresh(
    State(shared): Desk,
    Named(tenant): Named<TenantName>,
) -> Result<StatusCode, AdminError> {
    let whole = shared.clone();
    let change = async move {
        shared.parts.tokens.refresh(&tenant).await?;
        forgive(&shared, &tenant);
        info!(target: AUDIT, %tenant, "refresh ordered by an operator");
        Ok(StatusCode::ACCEPTED)
    };
    whole.change(change).await
}

/// `POST /v1/tenants/{tenant}/pause`
pub(super) async fn pause(
    State(shared): Desk,
    Named(tenant): Named<TenantName>,
) -> Result<StatusCode, AdminError> {
    hold(shared, tenant, true).await
}

/// `POST /v1/tenants/{tenant}/resume`
pub(super) async fn resume(
    State(shared): Desk,
    Named(tenant): Named<TenantName>,
) -> Result<StatusCode, AdminError> {
    hold(shared, tenant, false).await
}

async fn hold(
    shared: Arc<Shared>,
    tenant: TenantName,
    paused: bool,
) -> Result<StatusCode, AdminError> {
    let whole = shared.clone();
    let change = async move {
        if !shared.parts.tokens.pause(&tenant, paused).await? {
            return Err(AdminError::not_found("tenant", &tenant));
        }
        if !paused {
            forgive(&shared, &tenant);
        }
        info!(target: AUDIT, %tenant, paused, "tenant held or released by an operator");
        Ok(StatusCode::NO_CONTENT)
    };
    whole.change(change).await
}

/// What the API refused to the tenant before an operator's change holds it no longer.
pub(super) fn forgive(shared: &Shared, tenant: &TenantName) {
    let home = shared.parts.tokens.tenant(tenant.as_str());
    if let Some(gate) = home.and_then(|view| shared.parts.gate.api_key(&view.api_key)) {
        gate.forgive(tenant);
    }
}

/// Why calls of a tenant are held at its gate, in words for an operator.
fn held(seen: &TenantSnapshot) -> Option<String> {
    let why = |hold, until: Unix| format!("{}, until {}", hold_reason(hold), rfc3339(until));
    let denied = seen.denied_until.map(|until| why(Hold::Denied, until));
    let capped = seen.capped_until.map(|until| why(Hold::Capped, until));
    let both: Vec<String> = denied.into_iter().chain(capped).collect();
    (!both.is_empty()).then(|| both.join("; "))
}

fn read_grant(tenant: TenantName, mut fields: Fields) -> Result<NewGrant, AdminError> {
    let api_key = fields.name("api_key")?;
    let refresh = fields.secret("refresh_token")?.ok_or_else(|| {
        AdminError::bad_request(
            "the field refresh_token is missing: without one the grant would end with its access \
             token; connect the account with the scope offline_access",
        )
    })?;
    let access = fields.secret("access_token")?;
    let weight = fields.take("weight").as_ref().map(weight).transpose()?;
    fields.end("api_key, refresh_token, access_token, weight")?;
    // The keeper reads the expiry from the token itself.
    let tokens = store::Tokens { access, access_expires_at: None, refresh };
    Ok(NewGrant { tenant, api_key, tokens, weight })
}

fn weight(value: &Value) -> Result<u32, AdminError> {
    let weight = value.as_u64().filter(|weight| (1..=WEIGHT_MAX).contains(weight));
    weight.and_then(|weight| u32::try_from(weight).ok()).ok_or_else(|| {
        AdminError::bad_request(format!("weight must be a whole number from 1 to {WEIGHT_MAX}"))
    })
}

/// A tenant with what its gate knows of it.
async fn joined(shared: &Shared, status: TenantStatus) -> TenantView {
    let snapshot = match shared.parts.gate.api_key(&status.api_key) {
        Some(gate) => gate.tenant(status.tenant.clone()).await,
        None => None,
    };
    view(status, snapshot)
}

/// What the gates know of the tenants of these API keys.
async fn seen(
    shared: &Shared,
    tenants: &[TenantStatus],
) -> HashMap<(ApiKeyName, TenantName), TenantSnapshot> {
    let api_keys: BTreeSet<&ApiKeyName> = tenants.iter().map(|status| &status.api_key).collect();
    let mut seen = HashMap::new();
    for api_key in api_keys {
        let Some(gate) = shared.parts.gate.api_key(api_key) else { continue };
        for snapshot in gate.tenants().await {
            seen.insert((api_key.clone(), snapshot.tenant.clone()), snapshot);
        }
    }
    seen
}

fn view(status: TenantStatus, snapshot: Option<TenantSnapshot>) -> TenantView {
    let used_here = snapshot.as_ref().and_then(|snapshot| snapshot.last_used_at);
    let held = snapshot.as_ref().and_then(held);
    let (today, queue_depth) = match snapshot {
        Some(seen) => (
            Today {
                calls: seen.calls_today,
                throttled: seen.throttled_today,
                errors: seen.errors_today,
            },
            seen.queue_depth,
        ),
        None => (Today { calls: 0, throttled: 0, errors: 0 }, 0),
    };
    TenantView {
        tenant: status.tenant.as_str().to_owned(),
        api_key: status.api_key.as_str().to_owned(),
        state: status.state.as_str(),
        state_reason: status.state_reason.or(held),
        access_token_expires_at: status.access_token_expires_at.map(rfc3339),
        refresh_token_expires_at: status.refresh_token_expires_at.map(rfc3339),
        last_refreshed_at: status.last_refreshed_at.map(rfc3339),
        last_used_at: status.last_used_at.max(used_here).map(rfc3339),
        weight: status.weight,
        today,
        queue_depth,
    }
}
