//! `PUT /v1/tenants/{tenant}?on_conflict=…&dry_run=…`: a grant whose tenant may be there already.
//!
//! What imports use. The token keeper compares and decides; this file reads the terms and words the
//! answer, which says what was done and not how the tenant is now: thousands are asked in a row.

use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use serde::Serialize;
use tracing::info;
use utoipa::openapi::schema::Object;
use utoipa::{IntoParams, ToSchema};

use super::document::one_of;
use super::errors::AdminError;
use super::tenants::forgive;
use super::{AUDIT, Shared, names, page};
use crate::store::NewGrant;
use crate::tokens::{HandedIn, OnConflict, Terms};

/// The names of what is done with a tenant that is there with other tokens.
const CONFLICTS: [(&str, OnConflict); 3] =
    [("replace", OnConflict::Replace), ("skip", OnConflict::Skip), ("fail", OnConflict::Fail)];

/// On what terms a grant is handed in.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it describes what `terms` reads")]
pub(super) struct TermsAsked {
    /// For a tenant that may be there with other tokens: give it these, leave it, or refuse with
    /// 409.
    #[param(schema_with = conflicts)]
    on_conflict: Option<String>,
    /// Say what would be done, and do nothing.
    dry_run: Option<bool>,
}

fn conflicts() -> Object {
    one_of(CONFLICTS.map(|(name, _)| name))
}

/// What was done with a grant, or would be.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Outcome)]
pub(super) struct OutcomeView {
    #[schema(value_type = names::TenantName)]
    tenant: String,
    /// `unchanged` is a tenant that is there with this grant, or with one that came from it.
    #[schema(schema_with = outcomes)]
    outcome: &'static str,
}

fn outcomes() -> Object {
    one_of(HandedIn::ALL.map(HandedIn::as_str))
}

/// The terms in a query; `None` when it names none.
pub(super) fn terms(query: Option<&str>) -> Result<Option<Terms>, AdminError> {
    let given = page::parameters::<TermsAsked>(query)?;
    let on_conflict = given.get("on_conflict").map(|text| read_conflict(text)).transpose()?;
    let dry_run = given.get("dry_run").map(|text| read_switch(text)).transpose()?;
    if on_conflict.is_none() && dry_run.is_none() {
        return Ok(None);
    }
    Ok(Some(Terms {
        on_conflict: on_conflict.unwrap_or(OnConflict::Replace),
        dry_run: dry_run.unwrap_or(false),
    }))
}

/// Hands the grant in and says what was done, or would be.
pub(super) async fn hand_in(
    shared: Arc<Shared>,
    grant: NewGrant,
    terms: Terms,
) -> Result<Response, AdminError> {
    let whole = shared.clone();
    let change = async move {
        let (tenant, api_key) = (grant.tenant.clone(), grant.api_key.clone());
        let outcome = shared.parts.tokens.hand_in(grant, terms).await?;
        let changed = matches!(outcome, HandedIn::Created | HandedIn::Replaced) && !terms.dry_run;
        if changed {
            forgive(&shared, &tenant);
            let change = outcome.as_str();
            info!(target: AUDIT, %tenant, %api_key, change, "tenant handed in by an operator");
        }
        let code = match outcome {
            HandedIn::Created if changed => StatusCode::CREATED,
            _ => StatusCode::OK,
        };
        let answer = OutcomeView { tenant: tenant.as_str().to_owned(), outcome: outcome.as_str() };
        Ok((code, Json(answer)).into_response())
    };
    whole.change(change).await
}

fn read_conflict(text: &str) -> Result<OnConflict, AdminError> {
    let found = CONFLICTS.into_iter().find(|(name, _)| *name == text);
    found
        .map(|(_, on_conflict)| on_conflict)
        .ok_or_else(|| AdminError::bad_request("query: on_conflict is replace, skip or fail"))
}

fn read_switch(text: &str) -> Result<bool, AdminError> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(AdminError::bad_request("query: dry_run is true or false")),
    }
}
