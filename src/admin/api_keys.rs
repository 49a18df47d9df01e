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
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

use super::body::Named;
use super::document::one_of;
use super::errors::AdminError;
use super::page::{Page, Piece, Query};
use super::{AUDIT, Desk, Shared, answers, names};
use crate::config::{ApiKey, Plan};
use crate::engine::scheduler::Snapshot;
use crate::engine::{ApiKeyName, Class, Rate, Unix};
use crate::telemetry::Event;
use crate::telemetry::events::rfc3339;
use crate::tokens::TenantState;

/// An API key as operators see it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub(super) struct ApiKeyView {
    #[schema(value_type = names::ApiKeyName)]
    name: String,
    /// What Constant Contact calls it.
    client_id: String,
    #[schema(schema_with = plans)]
    plan: &'static str,
    /// Calls that may arrive in any second.
    #[schema(value_type = f64)]
    per_second: Number,
    /// Calls of a quota day.
    per_day: u64,
    /// Whether an operator holds it.
    paused: bool,
    queue: QueueView,
    day: DayView,
    upstream: UpstreamView,
    foreign_use: ForeignView,
    token_lane: LaneView,
    tenants: TenantCounts,
}

/// What others seem to use of the key.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ForeignUse)]
struct ForeignView {
    suspected: bool,
    /// Calls of others in this quota day, at least.
    calls_today: u64,
    #[schema(required, format = DateTime)]
    since: Option<String>,
}

/// Calls that wait.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Queue)]
struct QueueView {
    depth: usize,
    #[schema(schema_with = counts_by_class)]
    by_class: BTreeMap<&'static str, usize>,
    oldest_wait_ms: u64,
    /// Of a new call of a new tenant.
    #[schema(schema_with = counts_by_class)]
    estimated_wait_ms: BTreeMap<&'static str, u64>,
}

/// The quota day.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Day)]
struct DayView {
    used: u64,
    remaining: u64,
    #[schema(format = DateTime)]
    resets_at: String,
    /// When the day will be used up if callers go on as in the last hours; `null` if it lasts.
    #[schema(required, format = DateTime)]
    forecast_exhausted_at: Option<String>,
    /// The earliest and the latest likely moment; the latter `null` when it is past the reset.
    #[schema(required, value_type = Option<Vec<Option<String>>>, min_items = 2, max_items = 2)]
    forecast_exhausted_between: Option<[Option<String>; 2]>,
}

/// What is under way to the API.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UpstreamUse)]
struct UpstreamView {
    in_flight: usize,
    /// Answers with 429 since the start.
    throttled_total: u64,
    /// The margin that is kept to the limit.
    guard_ms: u64,
}

/// Tenants that are being refreshed or wait for it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TokenLane)]
struct LaneView {
    depth: usize,
    /// When the last of them will be done.
    #[schema(required, format = DateTime)]
    done_at: Option<String>,
}

/// Tenants that can be used or are about to be, and those that must be connected again; tenants
/// that are held are in neither.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
struct TenantCounts {
    ready: usize,
    needs_authorization: usize,
}

/// A number for each class.
fn counts_by_class() -> Object {
    Class::ALL
        .into_iter()
        .map(Class::as_str)
        .fold(ObjectBuilder::new(), |object, class| {
            let count = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0));
            object.property(class, count).required(class)
        })
        .build()
}

fn plans() -> Object {
    one_of([Plan::Standard, Plan::Partner].map(plan_name))
}

/// Lists the API keys
#[utoipa::path(
    get,
    path = "/v1/api-keys",
    operation_id = "list_api_keys",
    tag = "api-keys",
    params(Piece),
    responses(
        (status = 200, description = "A piece of the list.", body = Page<ApiKeyView>),
        answers::Asked
    )
)]
pub(super) async fn list(
    State(shared): Desk,
    RawQuery(query): RawQuery,
) -> Result<Json<Page<ApiKeyView>>, AdminError> {
    let query = Query::read(query.as_deref())?;
    let views = views(&shared).await;
    Ok(Json(query.cut(views, |view| &view.name)))
}

/// Shows an API key
#[utoipa::path(
    get,
    path = "/v1/api-keys/{name}",
    operation_id = "show_api_key",
    tag = "api-keys",
    params(("name" = names::ApiKeyName, Path, description = "The API key.")),
    responses((status = 200, description = "How it stands.", body = ApiKeyView), answers::Named)
)]
pub(super) async fn show(
    State(shared): Desk,
    Named(name): Named<ApiKeyName>,
) -> Result<Json<ApiKeyView>, AdminError> {
    let view = views(&shared).await.into_iter().find(|view| view.name == name.as_str());
    view.map(Json).ok_or_else(|| AdminError::not_found("API key", &name))
}

/// Holds an API key
///
/// Its calls wait as long as they may, also after a restart.
#[utoipa::path(
    post,
    path = "/v1/api-keys/{name}/pause",
    operation_id = "pause_api_key",
    tag = "api-keys",
    params(("name" = names::ApiKeyName, Path, description = "The API key.")),
    responses((status = 204, description = "It is held."), answers::Named, answers::Kept)
)]
pub(super) async fn pause(
    State(shared): Desk,
    Named(name): Named<ApiKeyName>,
) -> Result<StatusCode, AdminError> {
    hold(shared, name, true).await
}

/// Releases an API key
#[utoipa::path(
    post,
    path = "/v1/api-keys/{name}/resume",
    operation_id = "resume_api_key",
    tag = "api-keys",
    params(("name" = names::ApiKeyName, Path, description = "The API key.")),
    responses((status = 204, description = "It is not held."), answers::Named, answers::Kept)
)]
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
        plan: plan_name(key.plan),
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

const fn plan_name(plan: Plan) -> &'static str {
    match plan {
        Plan::Standard => "standard",
        Plan::Partner => "partner",
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
