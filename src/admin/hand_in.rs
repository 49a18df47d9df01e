//! `PUT /v1/tenants/{tenant}?on_conflict=…&dry_run=…`: a grant whose tenant may be there already.
//!
//! What imports use. The token keeper compares and decides; this file reads the terms and words the
//! answer, which says what was done and not how the tenant is now: thousands are asked in a row.

use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use serde_json::json;
use tracing::info;

use super::body::unknown_name;
use super::errors::AdminError;
use super::tenants::forgive;
use super::{AUDIT, Shared};
use crate::store::NewGrant;
use crate::tokens::{HandedIn, OnConflict, Terms};

/// The terms in a query; `None` when it names none.
pub(super) fn terms(query: Option<&str>) -> Result<Option<Terms>, AdminError> {
    let (mut on_conflict, mut dry_run) = (None, None);
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match &*name {
            "on_conflict" => on_conflict = Some(read_conflict(&value)?),
            "dry_run" => dry_run = Some(read_switch(&value)?),
            other => {
                let what = unknown_name(other);
                let message = format!("query: {what}; known are on_conflict, dry_run");
                return Err(AdminError::bad_request(message));
            }
        }
    }
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
        let answer = json!({ "tenant": tenant.as_str(), "outcome": outcome.as_str() });
        Ok((code, Json(answer)).into_response())
    };
    whole.change(change).await
}

fn read_conflict(text: &str) -> Result<OnConflict, AdminError> {
    match text {
        "replace" => Ok(OnConflict::Replace),
        "skip" => Ok(OnConflict::Skip),
        "fail" => Ok(OnConflict::Fail),
        _ => Err(AdminError::bad_request("query: on_conflict is replace, skip or fail")),
    }
}

fn read_switch(text: &str) -> Result<bool, AdminError> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(AdminError::bad_request("query: dry_run is true or false")),
    }
}
