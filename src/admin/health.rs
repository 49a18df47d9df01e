//! What monitors ask: does it live, is it ready, what does it count.
//!
//! These three are open. Liveness depends on nothing, so that a slow store never has the process
//! killed; the gauges are brought up to date when they are read.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use serde_json::{Value, json};
use tracing::error;

use super::Desk;
use super::errors::AdminError;
use crate::phase::Phase;
use crate::telemetry;
use crate::tokens::TenantState;

pub(super) const TENANT_STATES: [TenantState; 4] = [
    TenantState::Ready,
    TenantState::Refreshing,
    TenantState::NeedsAuthorization,
    TenantState::Paused,
];

/// `GET /livez`
pub(super) async fn live() -> Json<Value> {
    Json(json!({ "status": "alive" }))
}

/// `GET /readyz`
pub(super) async fn ready(State(shared): Desk) -> Response {
    let phase = shared.parts.phase.get();
    let reason = match phase {
        Phase::Ready => return Json(json!({ "status": phase.as_str() })).into_response(),
        Phase::Starting => "the proxy is starting",
        Phase::StoreDown => "the store cannot be reached",
        Phase::Draining => "the proxy is being stopped",
    };
    let body = Json(json!({ "status": phase.as_str(), "reason": reason }));
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}

/// `GET /metrics`
pub(super) async fn metrics(
    State(shared): Desk,
    headers: HeaderMap,
) -> Result<impl IntoResponse, AdminError> {
    let parts = &shared.parts;
    parts.gate.publish().await;
    let mut tenants = BTreeMap::new();
    for status in parts.tokens.list().await {
        *tenants.entry((status.api_key, status.state)).or_insert(0_usize) += 1;
    }
    let lanes: BTreeMap<_, _> = parts.tokens.lanes().await.into_iter().collect();
    for key in parts.gate.api_keys() {
        let depth = lanes.get(key.name()).map_or(0, |lane| lane.depth);
        key.metrics().token_lane_depth(depth);
        for state in TENANT_STATES {
            let count = tenants.get(&(key.name().clone(), state)).copied().unwrap_or_default();
            key.metrics().tenants(state.as_str(), count);
        }
    }
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let (page, form) = if accept.contains("application/openmetrics-text") {
        (parts.metrics.encode(), telemetry::CONTENT_TYPE)
    } else {
        (parts.metrics.encode_text(), telemetry::TEXT_CONTENT_TYPE)
    };
    let page = page.map_err(|_| {
        error!("the metrics page could not be written");
        AdminError::internal()
    })?;
    Ok(([(CONTENT_TYPE, form)], page))
}
