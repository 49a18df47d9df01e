//! API keys: their limits, queues and days, and the switch that holds them.
//!
//! A view joins the configuration, the gate's snapshot and the token keeper's counts. A hold is in
//! the store before it takes effect, so that a restart does not release a key that an operator
//! holds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{RawQuery, State};
use http::StatusCode;
use serde::Serialize;
use serde_json::Number;
use tracing::info;

use super::body::Named;
use super::errors::AdminError;
use super::page::{Page, Query};
use super::{AUDIT, Desk, Shared};
use crate::config::{ApiKey, Plan};
use crate::engine::scheduler::Snapshot;
use crate::engine::{ApiKeyName, Class, Rate, Unix};
use crate::telemetry::Event;
use crate::telemetry::events::rfc3339;
use crate::tokens::TenantState;

/// An API key as operators see it.
#[derive(Debug, Serialize)]
pub(super) struct ApiKeyView {
    name: String,
    client_id: String,
    plan: &'static str,
    per_second: Number,
    per_day: u64,
    paused: bool,
    queue: QueueView,
    day: DayView,
    upstream: UpstreamView,
    foreign_use: ForeignView,
    token_lane: LaneView,
    tenants: TenantCounts,
}

/// What others seem to use of the key.
#[derive(Debug, Serialize)]
struct ForeignView {
    suspected: bool,
    calls_today: u64,
    since: Option<String>,
}

#[derive(Debug, Serialize)]
struct QueueView {
    depth: usize,
    by_class: BTreeMap<&'static str, usize>,
    oldest_wait_ms: u64,
    /// Of a new call of a new tenant.
    estimated_wait_ms: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Serialize)]
struct DayView {
    used: u64,
    remaining: u64,
    resets_at: String,
    forecast_exhausted_at: Option<String>,
    /// The earliest and the latest likely moment; the latter `null` when it is past the reset.
    forecast_exhausted_between: Option<[Option<String>; 2]>,
}

#[derive(Debug, Serialize)]
struct UpstreamView {
    in_flight: usize,
    throttled_total: u64,
    guard_ms: u64,
}

#[derive(Debug, Serialize)]
struct LaneView {
    depth: usize,
    /// When the last of them will be done.
    done_at: Option<String>,
}

/// Tenants that can be used or are about to be, and those that must be connected again; tenants
/// that are held are in neither.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct TenantCounts {
    ready: usize,
    needs_authorization: usize,
}

/// `GET /v1/api-keys`
pub(super) async fn list(
    State(shared): Desk,
    RawQuery(query): RawQuery,
) -> Result<Json<Page<ApiKeyView>>, AdminError> {
    let query = Query::read(query.as_deref(), &[])?;
    let views = views(&shared).await;
    Ok(Json(query.cut(views, |view| &view.name)))
}

/// `GET /v1/api-keys/{name}`
pub(super) async fn show(
    State(shared): Desk,
    Named(name): Named<ApiKeyName>,
) -> Result<Json<ApiKeyView>, AdminError> {
    let view = views(&shared).await.into_iter().find(|view| view.name == name.as_str());
    view.map(Json).ok_or_else(|| AdminError::not_found("API key", &name))
}

/// `POST /v1/api-keys/{name}/pause`
pub(super) async fn pause(
    State(shared): Desk,
    Named(name): Named<ApiKeyName>,
) -> Result<StatusCode, AdminError> {
    hold(shared, name, true).await
}

/// `POST /v1/api-keys/{name}/resume`
pub(super) async fn resume(
    State(shared): Desk,
    Named(name): Named<ApiKeyName>,
) -> Result<StatusCode, AdminError> {
    hold(shared, name, false).await
}

async fn hold(
    shared: Arc<Shared>,
    name: ApiKeyName,
    paused: bool,
) -> Result<StatusCode, AdminError> {
    let whole = shared.clone();
    let change = async move {
        let parts = &shared.parts;
        let _order = shared.order.lock().await;
        let key = parts.gate.api_key(&name).ok_or(AdminError::not_found("API key", &name))?;
        parts.store.pause_api_key(&name, paused).await?;
        let before = key.snapshot().await.is_some_and(|snapshot| snapshot.paused);
        key.pause(paused);
        if before != paused {
            parts.events.publish(Event::ApiKeyPaused { api_key: name.clone(), paused });
        }
        info!(target: AUDIT, api_key = %name, paused, "API key held or released by an operator");
        Ok(StatusCode::NO_CONTENT)
    };
    whole.change(change).await
}

/// All API keys now, in the order of their names.
pub(super) async fn views(shared: &Shared) -> Vec<ApiKeyView> {
    let parts = &shared.parts;
    let config = parts.config.load_full();
    let mut keys: Vec<&ApiKey> = config.api_keys.iter().collect();
    keys.sort_by(|one, other| one.name.cmp(&other.name));
    let tenants = count_tenants(shared).await;
    let lanes: BTreeMap<_, _> = parts.tokens.lanes().await.into_iter().collect();
    let mut views = Vec::with_capacity(keys.len());
    for key in keys {
        // A key that is configured and has no gate is being added or removed in this moment.
        let Some(gate) = parts.gate.api_key(&key.name) else { continue };
        let Some(snapshot) = gate.snapshot().await else { continue };
        let lane = lanes.get(&key.name);
        let lane = LaneView {
            depth: lane.map_or(0, |lane| lane.depth),
            done_at: lane.and_then(|lane| lane.done_at).map(rfc3339),
        };
        let tenants = tenants.get(&key.name).copied().unwrap_or_default();
        views.push(view(key, &snapshot, lane, tenants));
    }
    views
}

async fn count_tenants(shared: &Shared) -> BTreeMap<ApiKeyName, TenantCounts> {
    let mut counts: BTreeMap<ApiKeyName, TenantCounts> = BTreeMap::new();
    for status in shared.parts.tokens.list().await {
        let count = counts.entry(status.api_key).or_default();
        match status.state {
            TenantState::Ready | TenantState::Refreshing => count.ready += 1,
            TenantState::NeedsAuthorization => count.needs_authorization += 1,
            TenantState::Paused => {}
        }
    }
    counts
}

fn view(
    key: &ApiKey,
    snapshot: &Snapshot,
    token_lane: LaneView,
    tenants: TenantCounts,
) -> ApiKeyView {
    let by_class = Class::ALL.into_iter().map(Class::as_str).zip(snapshot.depth).collect();
    let estimates =
        Class::ALL.into_iter().map(Class::as_str).zip(snapshot.estimated_wait.map(whole_ms));
    let outlook = snapshot.day_outlook;
    let band = |(early, late): (Unix, Option<Unix>)| [Some(rfc3339(early)), late.map(rfc3339)];
    ApiKeyView {
        name: key.name.as_str().to_owned(),
        client_id: key.client_id.clone(),
        plan: match key.plan {
            Plan::Standard => "standard",
            Plan::Partner => "partner",
        },
        per_second: per_second(key.rate),
        per_day: key.per_day,
        paused: snapshot.paused,
        queue: QueueView {
            depth: snapshot.depth.iter().sum(),
            by_class,
            oldest_wait_ms: whole_ms(snapshot.oldest_wait),
            estimated_wait_ms: estimates.collect(),
        },
        day: DayView {
            used: snapshot.day_used,
            remaining: snapshot.day_remaining,
            resets_at: rfc3339(snapshot.day_resets_at),
            forecast_exhausted_at: outlook.exhausted_at.map(rfc3339),
            forecast_exhausted_between: outlook.between.map(band),
        },
        upstream: UpstreamView {
            in_flight: snapshot.in_flight,
            throttled_total: snapshot.throttled_total,
            guard_ms: whole_ms(snapshot.guard),
        },
        foreign_use: ForeignView {
            suspected: snapshot.foreign.since.is_some(),
            calls_today: snapshot.foreign.calls_today,
            since: snapshot.foreign.since.map(rfc3339),
        },
        token_lane,
        tenants,
    }
}

/// A rate as a JSON number, `4` rather than `4.0`.
fn per_second(rate: Rate) -> Number {
    rate.to_string().parse().expect("a rate is written as a decimal number")
}

fn whole_ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_without_needless_digits() {
        for (text, number) in [("4", "4"), ("0.5", "0.5"), ("90/min", "1.5"), ("10.25", "10.25")] {
            assert_eq!(per_second(text.parse().unwrap()).to_string(), number);
        }
    }
}
