//! A tenant as operators see it: what the keeper knows of it, joined with what its gate knows.
//!
//! Nothing is asked or changed here but the gate, which may know nothing of a tenant that has not
//! called.

use std::collections::{BTreeSet, HashMap};

use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::schema::Object;

use super::super::document::one_of;
use super::super::health::TENANT_STATES;
use super::super::{Shared, names};
use crate::engine::scheduler::{Hold, TenantSnapshot};
use crate::engine::{ApiKeyName, TenantName, Unix};
use crate::gate::hold_reason;
use crate::telemetry::events::rfc3339;
use crate::tokens::{TenantState, TenantStatus};

/// A tenant as operators see it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tenant)]
pub(in crate::admin) struct TenantView {
    #[schema(value_type = names::TenantName)]
    tenant: String,
    #[schema(value_type = names::ApiKeyName)]
    api_key: String,
    #[schema(schema_with = states)]
    state: &'static str,
    /// Why, in words.
    #[schema(required)]
    state_reason: Option<String>,
    #[schema(required, format = DateTime)]
    access_token_expires_at: Option<String>,
    /// When the refresh token dies of disuse.
    #[schema(required, format = DateTime)]
    refresh_token_expires_at: Option<String>,
    #[schema(required, format = DateTime)]
    last_refreshed_at: Option<String>,
    #[schema(required, format = DateTime)]
    last_used_at: Option<String>,
    /// Its share beside other tenants of the API key.
    #[schema(minimum = 1, maximum = 100)]
    weight: u32,
    today: Today,
    /// Its calls that wait.
    queue_depth: usize,
}

/// Calls in this quota day.
#[derive(Debug, Serialize, ToSchema)]
struct Today {
    calls: u64,
    throttled: u64,
    errors: u64,
}

pub(in crate::admin) fn states() -> Object {
    one_of(TENANT_STATES.map(TenantState::as_str))
}

/// A tenant with what its gate knows of it.
pub(in crate::admin) async fn joined(shared: &Shared, status: TenantStatus) -> TenantView {
    let snapshot = match shared.parts.gate.api_key(&status.api_key) {
        Some(gate) => gate.tenant(status.tenant.clone()).await,
        None => None,
    };
    view(status, snapshot)
}

/// What the gates know of the tenants of these API keys.
pub(in crate::admin) async fn seen(
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

pub(in crate::admin) fn view(status: TenantStatus, snapshot: Option<TenantSnapshot>) -> TenantView {
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

/// Why calls of a tenant are held at its gate, in words for an operator.
fn held(seen: &TenantSnapshot) -> Option<String> {
    let why = |hold, until: Unix| format!("{}, until {}", hold_reason(hold), rfc3339(until));
    let denied = seen.denied_until.map(|until| why(Hold::Denied, until));
    let capped = seen.capped_until.map(|until| why(Hold::Capped, until));
    let both: Vec<String> = denied.into_iter().chain(capped).collect();
    (!both.is_empty()).then(|| both.join("; "))
}
