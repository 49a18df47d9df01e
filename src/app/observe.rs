//! What the token keeper tells of itself, as metrics and events.

use std::sync::Arc;

use crate::engine::token::Alarm;
use crate::engine::{ApiKeyName, TenantName};
use crate::telemetry::{Event, Events, Metrics};
use crate::tokens::Observer;

struct Watcher {
    metrics: Metrics,
    events: Events,
}

pub(super) fn observer(metrics: &Metrics, events: &Events) -> Arc<dyn Observer> {
    Arc::new(Watcher { metrics: metrics.clone(), events: events.clone() })
}

impl Observer for Watcher {
    fn refreshed(&self, api_key: &ApiKeyName, outcome: &'static str) {
        self.metrics.api_key(api_key).token_refresh(outcome);
    }

    fn alarm(&self, tenant: &TenantName, api_key: &ApiKeyName, alarm: Alarm) {
        self.metrics.api_key(api_key).token_alarm(alarm.as_str());
        self.events.publish(Event::TokenAlarm {
            tenant: tenant.clone(),
            api_key: api_key.clone(),
            reason: alarm.as_str(),
            message: alarm.to_string(),
        });
    }

    fn ageing(&self, api_key: &ApiKeyName, n: usize) {
        self.metrics.api_key(api_key).refresh_tokens_ageing(n);
    }

    fn lane_depth(&self, api_key: &ApiKeyName, n: usize) {
        self.metrics.api_key(api_key).token_lane_depth(n);
    }

    fn tenants(&self, api_key: &ApiKeyName, ready: usize, needs_authorization: usize) {
        let metrics = self.metrics.api_key(api_key);
        metrics.tenants("ready", ready);
        metrics.tenants("needs_authorization", needs_authorization);
    }

    fn state_changed(
        &self,
        tenant: &TenantName,
        api_key: &ApiKeyName,
        state: &'static str,
        reason: Option<&str>,
    ) {
        self.events.publish(Event::TenantState {
            tenant: tenant.clone(),
            api_key: api_key.clone(),
            state,
            reason: reason.map(str::to_owned),
        });
    }
}
