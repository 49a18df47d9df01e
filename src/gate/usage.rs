//! When tenants were last used, written to the store about once a minute and at the end.
//!
//! The date decides nothing by itself; losing a minute of it loses nothing. It is therefore never
//! on a call's path and never written beside a token. Visitors that have been idle for long are
//! forgotten at the same time.

use std::sync::Arc;
use std::time::Duration;

use tracing::debug;

use super::Gate;
use super::actor::Message;
use crate::engine::Unix;

/// Time between two writes.
const EVERY: Duration = Duration::from_secs(60);

pub(super) fn spawn(gate: &Gate) {
    let keys = Arc::downgrade(&gate.keys);
    let parts = Arc::downgrade(&gate.parts);
    let instances = gate.instances.clone();
    let tracker = gate.parts.tracker.clone();
    let clock = gate.parts.clock.clone();
    let stopped = gate.parts.stopped.clone();
    tracker.spawn(async move {
        loop {
            let next = clock.now().mono.plus(EVERY);
            tokio::select! {
                () = clock.sleep_until(next) => {}
                () = stopped.cancelled() => return,
            }
            let (Some(keys), Some(parts)) = (keys.upgrade(), parts.upgrade()) else { return };
            record(&Gate { parts, keys, instances: instances.clone() }).await;
        }
    });
}

/// Writes when the tenants were last used, of those that were used since the last time.
pub(super) async fn record(gate: &Gate) {
    let now = gate.parts.clock.now().unix;
    let since: Unix = now.minus(EVERY.saturating_mul(2));
    for key in gate.api_keys() {
        key.send(Message::ForgetIdleVisitors);
        let used: Vec<_> = key
            .tenants()
            .await
            .into_iter()
            .filter_map(|tenant| Some((tenant.tenant, tenant.last_used_at?)))
            .filter(|(_, at)| *at >= since)
            .collect();
        if used.is_empty() {
            continue;
        }
        if let Err(error) = gate.parts.store.record_use(&used).await {
            debug!(api_key = %key.name(), %error, "last uses were not recorded");
        }
    }
}
