//! Tenants: what the token keeper and the gate know of them, and their changes.
//!
//! All changes go through the keeper, which stores them, orders them and tells the gate; this file
//! reads requests. Tokens come in here and never go out.

mod joined;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use tracing::info;
use utoipa::ToSchema;

use super::body::{Fields, Named, whole};
use super::errors::AdminError;
use super::hand_in::{OutcomeView, TermsAsked};
use super::health::TENANT_STATES;
use super::page::{Page, Piece, Query};
use super::{AUDIT, Desk, Shared, answers, hand_in, names};
use crate::config::values;
use crate::engine::{ApiKeyName, TenantName};
use crate::phase::Phase;
use crate::store::{self, NewGrant, Put};
use crate::tokens::{TenantState, TenantStatus};

use joined::{TenantView, joined, seen, states, view};

/// Largest share of a tenant.
const WEIGHT_MAX: u64 = 100;

/// Which tenants.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it describes what `list` reads")]
pub(super) struct Wanted {
    /// Those of an API key.
    #[param(value_type = Option<names::ApiKeyName>)]
    api_key: Option<String>,
    /// Those in a state.
    #[param(schema_with = states)]
    state: Option<String>,
    /// Those whose refresh token dies of disuse within a span, such as `30d` or `1h 30m`.
    #[param(pattern = "^(0|([0-9]{1,9}(ms|s|m|h|d) ?){1,5})$", example = "30d")]
    refresh_token_expires_within: Option<String>,
}

/// A connected account: what its owner's consent gave.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Grant)]
#[expect(dead_code, reason = "it describes what `read_grant` reads")]
struct GrantHandedIn {
    #[schema(value_type = names::ApiKeyName)]
    api_key: String,
    /// As it came from the token endpoint.
    #[schema(pattern = "^[!-~]+$", min_length = 1)]
    refresh_token: String,
    /// As it came from the token endpoint. One that is a JWT must be of the API key.
    #[schema(pattern = "^[!-~]+$", min_length = 1)]
    access_token: Option<String>,
    /// Its share beside other tenants of the API key; 1 when a new tenant has none, and unchanged
    /// when one that is there has none.
    #[schema(minimum = 1, maximum = 100)]
    weight: Option<u32>,
}

/// What is answered to a grant: the tenant, or on terms what was done with it.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it describes what two handlers answer")]
enum PutAnswer {
    Tenant(TenantView),
    Outcome(OutcomeView),
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

/// Lists the tenants
#[utoipa::path(
    get,
    path = "/v1/tenants",
    operation_id = "list_tenants",
    tag = "tenants",
    params(Piece, Wanted),
    responses(
        (status = 200, description = "A piece of the list.", body = Page<TenantView>),
        answers::Asked
    )
)]
pub(super) async fn list(
    State(shared): Desk,
    RawQuery(query): RawQuery,
) -> Result<Json<Page<TenantView>>, AdminError> {
    let within = "refresh_token_expires_within";
    let query = Query::filtered::<Wanted>(query.as_deref())?;
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

/// Shows a tenant
#[utoipa::path(
    get,
    path = "/v1/tenants/{tenant}",
    operation_id = "show_tenant",
    tag = "tenants",
    params(("tenant" = names::TenantName, Path, description = "The tenant.")),
    responses(
        (status = 200, description = "How it stands.", body = TenantView),
        answers::Named,
        answers::Kept
    )
)]
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

/// Hands a grant in
///
/// The tenant is made, or gets the grant instead of its own. With a parameter in the query the
/// answer is what was done, or would be; without one it is the tenant.
#[utoipa::path(
    put,
    path = "/v1/tenants/{tenant}",
    operation_id = "put_tenant",
    tag = "tenants",
    params(("tenant" = names::TenantName, Path, description = "The tenant."), TermsAsked),
    request_body = GrantHandedIn,
    responses(
        (
            status = 200,
            description = "The tenant was there, or nothing was done.",
            body = PutAnswer
        ),
        (
            status = 201,
            description = "The tenant is new.",
            body = PutAnswer,
            links(
                ("show" = (
                    operation_id = "show_tenant",
                    parameters(("tenant" = "$request.path.tenant"))
                )),
                ("refresh" = (
                    operation_id = "refresh_tenant",
                    parameters(("tenant" = "$request.path.tenant"))
                )),
                ("connect" = (
                    operation_id = "show_connect",
                    parameters(("tenant" = "$request.path.tenant"))
                )),
                ("pause" = (
                    operation_id = "pause_tenant",
                    parameters(("tenant" = "$request.path.tenant"))
                )),
                ("resume" = (
                    operation_id = "resume_tenant",
                    parameters(("tenant" = "$request.path.tenant"))
                )),
                ("remove" = (
                    operation_id = "remove_tenant",
                    parameters(("tenant" = "$request.path.tenant"))
                ))
            )
        ),
        answers::Told,
        answers::Contended,
        answers::Kept
    )
)]
pub(super) async fn put(
    State(shared): Desk,
    Named(tenant): Named<TenantName>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, AdminError> {
    let terms = hand_in::terms(query.as_deref())?;
    let grant = read_grant(tenant, Fields::read::<GrantHandedIn>(&headers, body).await?)?;
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

/// Removes a tenant
///
/// Its tokens are forgotten, and its calls that wait are refused.
#[utoipa::path(
    delete,
    path = "/v1/tenants/{tenant}",
    operation_id = "remove_tenant",
    tag = "tenants",
    params(("tenant" = names::TenantName, Path, description = "The tenant.")),
    responses((status = 204, description = "It is gone."), answers::Named, answers::Kept)
)]
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

/// Orders a refresh of a tenant's tokens
///
/// It has its turn in the token lane of the API key and is not waited for.
#[utoipa::path(
    post,
    path = "/v1/tenants/{tenant}/refresh",
    operation_id = "refresh_tenant",
    tag = "tenants",
    params(("tenant" = names::TenantName, Path, description = "The tenant.")),
    responses(
        (status = 202, description = "It will be refreshed."),
        answers::Named,
        answers::Contended,
        answers::Kept
    )
)]
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

/// Holds a tenant
///
/// Its calls wait as long as they may, also after a restart.
#[utoipa::path(
    post,
    path = "/v1/tenants/{tenant}/pause",
    operation_id = "pause_tenant",
    tag = "tenants",
    params(("tenant" = names::TenantName, Path, description = "The tenant.")),
    responses((status = 204, description = "It is held."), answers::Named, answers::Kept)
)]
pub(super) async fn pause(
    State(shared): Desk,
    Named(tenant): Named<TenantName>,
) -> Result<StatusCode, AdminError> {
    hold(shared, tenant, true).await
}

/// Releases a tenant
#[utoipa::path(
    post,
    path = "/v1/tenants/{tenant}/resume",
    operation_id = "resume_tenant",
    tag = "tenants",
    params(("tenant" = names::TenantName, Path, description = "The tenant.")),
    responses((status = 204, description = "It is not held."), answers::Named, answers::Kept)
)]
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
    // The keeper reads the expiry from the token itself.
    let tokens = store::Tokens { access, access_expires_at: None, refresh };
    Ok(NewGrant { tenant, api_key, tokens, weight })
}

fn weight(value: &Value) -> Result<u32, AdminError> {
    let weight = whole(value).filter(|weight| (1..=WEIGHT_MAX).contains(weight));
    weight.and_then(|weight| u32::try_from(weight).ok()).ok_or_else(|| {
        AdminError::bad_request(format!("weight must be a whole number from 1 to {WEIGHT_MAX}"))
    })
}
