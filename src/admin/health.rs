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
use serde::Serialize;
use tracing::error;
use utoipa::ToSchema;
use utoipa::openapi::schema::Object;

use super::document::one_of;
use super::errors::AdminError;
use super::{Desk, instances};
use crate::phase::Phase;
use crate::telemetry;
use crate::tokens::TenantState;

pub(super) const TENANT_STATES: [TenantState; 4] = [
    TenantState::Ready,
    TenantState::Refreshing,
    TenantState::NeedsAuthorization,
    TenantState::Paused,
];

/// That the process lives.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Alive {
    /// Always `alive`.
    status: &'static str,
}

/// Whether the process is ready, and why not.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Readiness {
    #[schema(schema_with = phases)]
    status: &'static str,
    /// In words, when it is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason: Option<&'static str>,
}

fn phases() -> Object {
    one_of(Phase::ALL.map(Phase::as_str))
}

/// Says that the process lives
///
/// It depends on nothing: whoever restarts processes asks this.
#[utoipa::path(
    get,
    path = "/livez",
    operation_id = "live",
    tag = "monitoring",
    responses((status = 200, description = "It lives.", body = Alive))
)]
pub(super) async fn live() -> Json<Alive> {
    Json(Alive { status: "alive" })
}

/// Says whether calls are served
///
/// Whoever sends calls to processes asks this.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "ready",
    tag = "monitoring",
    responses(
        (status = 200, description = "Calls are served.", body = Readiness),
        (status = 503, description = "It starts, stops, or has no store.", body = Readiness)
    )
)]
pub(super) async fn ready(State(shared): Desk) -> Response {
    let phase = shared.parts.phase.get();
    let reason = match phase {
        Phase::Ready => {
            let body = Readiness { status: phase.as_str(), reason: None };
            return Json(body).into_response();
        }
        Phase::Starting => "the proxy is starting",
        Phase::StoreDown => "the store cannot be reached",
        Phase::Draining => "the proxy is being stopped",
    };
    let body = Readiness { status: phase.as_str(), reason: Some(reason) };
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}

/// Counts for Prometheus
///
/// In `OpenMetrics` for a scraper whose `Accept` names it.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    tag = "monitoring",
    responses((
        status = 200,
        description = "All metrics.",
        content((String = "text/plain"), (String = "application/openmetrics-text"))
    ))
)]
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
    parts.metrics.store_lost(parts.gate.has_lost_store());
    for (state, count) in instances::COUNTED.into_iter().zip(instances::counts(&shared)) {
        parts.metrics.instances(state, count);
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
