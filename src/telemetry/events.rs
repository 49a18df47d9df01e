//! Changes of state, as they happen, for whoever listens: the admin API's event stream above all.
//!
//! [`Events`] is a bounded broadcast: a listener that is too slow loses the oldest notices and is
//! told how many; a publisher never waits. What must not be lost is in the store, not here. A
//! notice serializes as one flat JSON object with `time` and `type`.

use std::fmt::Display;

use serde::{Serialize, Serializer};
use tokio::sync::broadcast;

use crate::clock::Clock;
use crate::engine::{ApiKeyName, ClientName, TenantName, Unix};
use crate::telemetry::ThrottleScope;

/// Notices that a listener may be behind: some seconds of a busy proxy.
const BEHIND_MAX: usize = 1024;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// A tenant's state is another one now.
    TenantState {
        /// The tenant.
        #[serde(serialize_with = "text")]
        tenant: TenantName,
        /// Its API key.
        #[serde(serialize_with = "text")]
        api_key: ApiKeyName,
        /// The new state: `ready`, `refreshing`, `needs_authorization`, `paused` or `removed`.
        state: &'static str,
        /// Why, in words for an operator.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Connecting an account has ended.
    TenantConnect {
        /// The tenant.
        #[serde(serialize_with = "text")]
        tenant: TenantName,
        /// The API key that it was to be connected with.
        #[serde(serialize_with = "text")]
        api_key: ApiKeyName,
        /// Whether it is connected.
        connected: bool,
        /// Why not, in words for an operator.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Something about a tenant's tokens that somebody should look at.
    TokenAlarm {
        /// The tenant that it was noticed at.
        #[serde(serialize_with = "text")]
        tenant: TenantName,
        /// Its API key.
        #[serde(serialize_with = "text")]
        api_key: ApiKeyName,
        /// What, as in the metric.
        reason: &'static str,
        /// The same in words for an operator.
        message: String,
    },
    /// An API key is held or released by an operator.
    ApiKeyPaused {
        /// The API key.
        #[serde(serialize_with = "text")]
        api_key: ApiKeyName,
        /// Whether it is held now.
        paused: bool,
    },
    /// The upstream refused a call with 429.
    Throttled {
        /// The API key.
        #[serde(serialize_with = "text")]
        api_key: ApiKeyName,
        /// The limit that the upstream named.
        scope: ThrottleScope,
    },
    /// Calls of a tenant are held because of the upstream's answers.
    TenantHeld {
        /// The tenant.
        #[serde(serialize_with = "text")]
        tenant: TenantName,
        /// Its API key.
        #[serde(serialize_with = "text")]
        api_key: ApiKeyName,
        /// Which calls and why, in words for an operator.
        reason: &'static str,
        /// For how long, in seconds.
        secs: u64,
    },
    /// Refusals show that somebody else uses the API key, or do not show it any more.
    ForeignUse {
        /// The API key.
        #[serde(serialize_with = "text")]
        api_key: ApiKeyName,
        /// Whether it seems so.
        suspected: bool,
        /// Calls of others in this quota day, at least.
        calls_today: u64,
    },
    /// The calls of the day are used up.
    DaySpent {
        /// The API key.
        #[serde(serialize_with = "text")]
        api_key: ApiKeyName,
    },
    /// The day's calls will probably be used up before it turns, or last after all.
    DayForecast {
        /// The API key.
        #[serde(serialize_with = "text")]
        api_key: ApiKeyName,
        /// When they are used up; none when they last.
        #[serde(serialize_with = "time_if_any")]
        exhausted_at: Option<Unix>,
    },
    /// A client may call.
    ClientAdded {
        /// The client.
        #[serde(serialize_with = "text")]
        name: ClientName,
    },
    /// A client has a new key.
    ClientKeyRotated {
        /// The client.
        #[serde(serialize_with = "text")]
        name: ClientName,
    },
    /// A client may not call any more.
    ClientRemoved {
        /// The client.
        #[serde(serialize_with = "text")]
        name: ClientName,
    },
    /// The proxy is being stopped.
    Draining,
}

/// An event and its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// When it was published.
    #[serde(serialize_with = "time")]
    pub time: Unix,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// The stream; clones share it.
#[derive(Clone, Debug)]
pub struct Events {
    clock: Clock,
    sender: broadcast::Sender<Notice>,
}

impl Events {
    /// A stream without listeners, whose notices bear the time of `clock`.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, sender: broadcast::Sender::new(BEHIND_MAX) }
    }

    /// Tells all who listen now; never waits, and does nothing when nobody listens.
    pub fn publish(&self, event: Event) {
        if self.sender.receiver_count() == 0 {
            return;
        }
        let notice = Notice { time: self.clock.now().unix, event };
        // The last listener may have left since: then nobody misses it.
        drop(self.sender.send(notice));
    }

    /// All notices from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Notice> {
        self.sender.subscribe()
    }
}

/// `at` as RFC 3339 writes it, in UTC with milliseconds.
#[must_use]
pub fn rfc3339(at: Unix) -> String {
    let ms = i64::try_from(at.since_epoch().as_millis()).unwrap_or(i64::MAX);
    let at = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX);
    format!("{at:.3}")
}

fn text<T: Display, S: Serializer>(name: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(name)
}

fn time<S: Serializer>(at: &Unix, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*at))
}

#[expect(clippy::ref_option, reason = "the form in which serde calls it")]
fn time_if_any<S: Serializer>(at: &Option<Unix>, serializer: S) -> Result<S::Ok, S::Error> {
    at.map(rfc3339).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api_key() -> ApiKeyName {
        ApiKeyName::new("main").unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_notice_is_one_flat_json_object_with_time_and_type() {
        let events = Events::new(Clock::starting_at(Unix::from_secs(1_795_478_400)));
        let mut notices = events.subscribe();
        events.publish(Event::TenantState {
            tenant: TenantName::new("acme").unwrap(),
            api_key: api_key(),
            state: "ready",
            reason: None,
        });
        events.publish(Event::Throttled { api_key: api_key(), scope: ThrottleScope::Second });
        let exhausted_at = Some(Unix::from_secs(1_795_478_400));
        events.publish(Event::DayForecast { api_key: api_key(), exhausted_at });
        events.publish(Event::Draining);

        let mut next = || serde_json::to_value(notices.try_recv().unwrap()).unwrap();
        let time = "2026-11-24T00:00:00.000Z";
        let state = serde_json::json!({
            "time": time, "type": "tenant_state", "tenant": "acme", "api_key": "main",
            "state": "ready",
        });
        assert_eq!(next(), state);
        let throttled = serde_json::json!({
            "time": time, "type": "throttled", "api_key": "main", "scope": "second",
        });
        assert_eq!(next(), throttled);
        let forecast = serde_json::json!({
            "time": time, "type": "day_forecast", "api_key": "main", "exhausted_at": time,
        });
        assert_eq!(next(), forecast);
        assert_eq!(next(), serde_json::json!({ "time": time, "type": "draining" }));
    }

    #[tokio::test]
    async fn a_slow_listener_loses_the_oldest_and_is_told() {
        let events = Events::new(Clock::system());
        let mut notices = events.subscribe();
        for _ in 0..BEHIND_MAX + 3 {
            events.publish(Event::DaySpent { api_key: api_key() });
        }
        assert_eq!(notices.try_recv(), Err(broadcast::error::TryRecvError::Lagged(3)));
        assert!(notices.try_recv().is_ok());
    }
}
