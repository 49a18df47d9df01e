//! The device flow (RFC 8628): for API keys without an address that browsers could come back to.
//!
//! The proxy shows a short code, the owner types it in at the upstream, and meanwhile the proxy
//! asks again and again, each time as an errand in the token lane and never sooner than it is told.
//! Under way in memory only: what a stop ends must be begun anew. It also ends when its tenant is
//! removed, at whichever instance, or when it is begun again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::ledger::{Flow, FlowId};
use super::{BeginError, Connect, Failure, Inner, key_of};
use crate::config::AuthStyle;
use crate::engine::token::{RefreshResult, Trouble};
use crate::engine::{ApiKeyName, TenantName, Unix};
use crate::secret::Secret;
use crate::store::Revision;
use crate::tokens::oauth::{classify, error_code};
use crate::tokens::{Errand, KeyAuth, Received, RefreshAnswer, claims};

/// Time between two polls when the answer names none (RFC 8628 section 3.2).
const INTERVAL_DEFAULT: Duration = Duration::from_secs(5);
/// What an answer may name; less would fill the token lane, more would outlive every code.
const INTERVAL_MAX: Duration = Duration::from_mins(1);
/// What is added when the upstream asks to slow down (RFC 8628 section 3.5).
const SLOWER: Duration = Duration::from_secs(5);
/// Longest life of a code that is believed.
const LIFE_MAX: Duration = Duration::from_hours(1);
/// A poll waits for nobody: where it goes among calls that wait for tokens.
const PATIENCE: Duration = Duration::from_mins(1);
/// Device flows of one API key at a time: at one token request a second, more would hold up its
/// refreshes.
const AT_A_TIME: usize = 16;

/// What an owner types in, and where.
#[derive(Debug)]
pub struct DeviceCode {
    /// The code.
    pub user_code: String,
    /// Where it is typed in.
    pub verification_uri: String,
    /// The same with the code in it.
    pub verification_uri_complete: Option<String>,
    /// From then on it does not work.
    pub expires_at: Unix,
    /// Time between two polls.
    pub interval: Duration,
}

/// RFC 8628 section 3.2.
#[derive(Deserialize)]
struct Codes {
    device_code: String,
    user_code: String,
    #[serde(alias = "verification_url")]
    verification_uri: String,
    verification_uri_complete: Option<String>,
    expires_in: Option<Value>,
    interval: Option<Value>,
}

/// A flow that polls.
struct Polling {
    tenant: TenantName,
    /// What was told of the tenant after this came after the begin.
    since: Revision,
    api_key: ApiKeyName,
    id: FlowId,
    device_code: Secret<String>,
    interval: Duration,
    expires_at: Unix,
}

/// The flows under way, by tenant.
#[derive(Default)]
pub(super) struct Devices(Mutex<Running>);

#[derive(Default)]
struct Running {
    id_last: u64,
    flows: BTreeMap<TenantName, (FlowId, ApiKeyName, CancellationToken)>,
}

/// What follows a poll.
#[derive(Debug)]
enum Next {
    Again(Duration),
    Granted(Received),
    Over(Failure),
}

impl Connect {
    /// A code for the owner of the account that is to be `tenant`, who has not to come back here.
    ///
    /// # Errors
    /// [`BeginError`] says what to do.
    pub async fn begin_device(
        &self,
        tenant: TenantName,
        api_key: &ApiKeyName,
    ) -> Result<DeviceCode, BeginError> {
        let config = self.0.parts.config.load_full();
        let key = key_of(&config, api_key).ok_or(BeginError::UnknownApiKey)?;
        if self.0.devices.of_key(api_key) >= AT_A_TIME {
            return Err(BeginError::TooMany(AT_A_TIME));
        }
        let since = self.0.revision().await?;
        let mut errand = self.0.errand(api_key).await.map_err(BeginError::Upstream)?;
        let mut form = client(errand.key());
        form.push(("scope", key.scopes.clone()));
        let url = &config.oauth.device_authorize_url;
        let posted = self.0.parts.endpoint.post(&errand, url, &pairs(&form)).await;
        let codes = read_codes(posted, &mut errand).map_err(BeginError::Upstream)?;
        drop(errand);
        Ok(self.0.clone().start((tenant, since), api_key.clone(), codes))
    }

    /// Ends what is under way for a tenant that is removed here; other instances find out.
    pub fn forget(&self, tenant: &TenantName) {
        self.0.devices.cancel(tenant);
    }
}

impl Inner {
    fn start(
        self: Arc<Self>,
        (tenant, since): (TenantName, Revision),
        api_key: ApiKeyName,
        codes: Codes,
    ) -> DeviceCode {
        let now = self.parts.clock.now().unix;
        let seconds = |value: Option<&Value>| value.and_then(claims::seconds);
        let life = seconds(codes.expires_in.as_ref()).unwrap_or(LIFE_MAX).min(LIFE_MAX);
        let interval = seconds(codes.interval.as_ref()).unwrap_or(INTERVAL_DEFAULT);
        let interval = interval.clamp(Duration::from_secs(1), INTERVAL_MAX);
        let expires_at = now.plus(life);
        let (id, cancelled) = self.devices.add(&tenant, &api_key);
        self.ledger.begun(&tenant, id, Flow::Device, expires_at, now);
        info!(%tenant, %api_key, "a consent was asked for, to be given with a code");
        let device_code = Secret::new(codes.device_code);
        let polling = Polling { tenant, since, api_key, id, device_code, interval, expires_at };
        let tracker = self.parts.tracker.clone();
        tracker.spawn(async move {
            let failed = tokio::select! {
                biased;
                () = cancelled.cancelled() => Some(Failure::Cancelled),
                () = self.parts.stopped.cancelled() => Some(Failure::Busy),
                ended = self.poll(&polling) => ended.err(),
            };
            self.devices.remove(&polling.tenant, polling.id);
            self.tell(polling.id, &polling.tenant, &polling.api_key, failed.as_ref());
        });
        DeviceCode {
            user_code: codes.user_code,
            verification_uri: codes.verification_uri,
            verification_uri_complete: codes.verification_uri_complete,
            expires_at,
            interval,
        }
    }

    /// Asks until the owner has decided.
    async fn poll(&self, polling: &Polling) -> Result<(), Failure> {
        let Polling { tenant, since, api_key, device_code, expires_at, .. } = polling;
        let clock = &self.parts.clock;
        let mut interval = polling.interval;
        loop {
            clock.sleep_until(clock.mono().plus(interval)).await;
            if clock.now().unix >= *expires_at {
                return Err(Failure::Late);
            }
            if self.was_removed(tenant, *since).await {
                return Err(Failure::Cancelled);
            }
            let deadline = clock.mono().plus(PATIENCE);
            let turn = self.parts.tokens.errand(api_key, deadline).await;
            let mut errand = turn.map_err(|_| Failure::Busy)?;
            let mut form = client(errand.key());
            form.push(("grant_type", "urn:ietf:params:oauth:grant-type:device_code".to_owned()));
            form.push(("device_code", device_code.expose().clone()));
            let url = errand.key().token_url.clone();
            let posted = self.parts.endpoint.post(&errand, &url, &pairs(&form)).await;
            match judge(posted, interval, &mut errand) {
                Next::Again(after) => interval = after,
                Next::Over(failure) => return Err(failure),
                Next::Granted(received) => {
                    return self.store(errand, (tenant, *since), api_key, received).await;
                }
            }
        }
    }
}

/// What names the API key in the form; one that authenticates in the body does so itself.
fn client(key: &KeyAuth) -> Vec<(&'static str, String)> {
    match key.auth_style {
        AuthStyle::Basic => vec![("client_id", key.client_id.clone())],
        AuthStyle::Body | AuthStyle::Public => Vec::new(),
    }
}

fn pairs<'a>(form: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
    form.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

type Posted = Result<(StatusCode, Secret<Vec<u8>>), RefreshAnswer>;

fn read_codes(posted: Posted, errand: &mut Errand) -> Result<Codes, Failure> {
    let refused = match posted {
        Ok((status, content)) if status.is_success() => {
            let codes: Option<Codes> = serde_json::from_slice(content.expose()).ok();
            if let Some(codes) = codes {
                errand.ended(RefreshResult::Received { access_expires_at: None }, "device_code");
                return Ok(codes);
            }
            let detail = "the device endpoint answered without codes".to_owned();
            RefreshAnswer::Trouble { trouble: Trouble::NotTokens, detail }
        }
        Ok((status, content)) => classify(status, content.expose()),
        Err(failed) => failed,
    };
    errand.answered(&refused);
    if matches!(refused, RefreshAnswer::LaneLost) {
        return Err(Failure::Busy);
    }
    Err(Failure::Endpoint(format!("{refused} (oauth.device_authorize_url)")))
}

/// What an answer to a poll means (RFC 8628 section 3.5), told to the lane as well.
fn judge(posted: Posted, interval: Duration, errand: &mut Errand) -> Next {
    let (next, result, outcome) = meaning(posted, interval);
    errand.ended(result, outcome);
    next
}

fn meaning(posted: Posted, interval: Duration) -> (Next, RefreshResult, &'static str) {
    let received = RefreshResult::Received { access_expires_at: None };
    let answer = match posted {
        Ok((status, content)) => {
            let code = error_code(content.expose());
            let asked = status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS;
            match code.as_deref().filter(|_| asked) {
                Some("authorization_pending") => {
                    return (Next::Again(interval), received, "pending");
                }
                Some("slow_down") => {
                    let slower = interval.saturating_add(SLOWER);
                    return (Next::Again(slower), received, "slow_down");
                }
                Some(code @ ("access_denied" | "expired_token")) => {
                    return (Next::Over(Failure::of_code(code)), received, "denied");
                }
                _ => classify(status, content.expose()),
            }
        }
        Err(failed) => failed,
    };
    let (result, outcome) = (answer.result(), answer.outcome());
    let next = match answer {
        RefreshAnswer::Received(received) => Next::Granted(received),
        RefreshAnswer::InvalidGrant => Next::Over(Failure::CodeRefused),
        RefreshAnswer::InvalidClient { .. }
        | RefreshAnswer::Trouble { trouble: Trouble::Unexpected, .. } => {
            Next::Over(Failure::Endpoint(answer.to_string()))
        }
        // nothing was decided: less often from now on, as the RFC asks for after time-outs
        RefreshAnswer::NotSent { .. }
        | RefreshAnswer::NotJournalled { .. }
        | RefreshAnswer::LaneLost
        | RefreshAnswer::Lost { .. }
        | RefreshAnswer::Trouble { .. } => {
            Next::Again(interval.saturating_mul(2).min(INTERVAL_MAX.max(interval)))
        }
    };
    (next, result, outcome)
}

impl Devices {
    fn add(&self, tenant: &TenantName, api_key: &ApiKeyName) -> (FlowId, CancellationToken) {
        let mut running = self.running();
        running.id_last += 1;
        let (id, cancelled) = (FlowId::of_number(running.id_last), CancellationToken::new());
        let flow = (id, api_key.clone(), cancelled.clone());
        if let Some((.., before)) = running.flows.insert(tenant.clone(), flow) {
            before.cancel();
        }
        (id, cancelled)
    }

    fn remove(&self, tenant: &TenantName, id: FlowId) {
        let mut running = self.running();
        if running.flows.get(tenant).is_some_and(|(there, ..)| *there == id) {
            running.flows.remove(tenant);
        }
    }

    fn cancel(&self, tenant: &TenantName) {
        if let Some((.., flow)) = self.running().flows.get(tenant) {
            flow.cancel();
        }
    }

    fn of_key(&self, api_key: &ApiKeyName) -> usize {
        self.running().flows.values().filter(|(_, key, _)| key == api_key).count()
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(status: u16, content: &str) -> Next {
        let status = StatusCode::from_u16(status).unwrap();
        let content = Secret::new(content.as_bytes().to_vec());
        meaning(Ok((status, content)), Duration::from_secs(5)).0
    }

    #[test]
    fn pending_waits_slow_down_waits_longer_and_both_go_on() {
        let wait = |content| match after(400, content) {
            Next::Again(wait) => wait.as_secs(),
            other => panic!("{other:?}"),
        };
        assert_eq!(wait(r#"{"error":"authorization_pending"}"#), 5);
        assert_eq!(wait(r#"{"error":"slow_down"}"#), 10);
    }

    #[test]
    fn trouble_of_the_endpoint_decides_nothing_and_a_refusal_does() {
        for (status, content) in [(503, ""), (429, r#"{"error":"slow_down"}"#), (200, "<html>")] {
            assert!(matches!(after(status, content), Next::Again(_)), "{status}");
        }
        let lost = RefreshAnswer::Lost { detail: String::new() };
        let (next, ..) = meaning(Err(lost), Duration::from_secs(50));
        assert!(matches!(next, Next::Again(wait) if wait == INTERVAL_MAX));
        for (content, words) in [
            (r#"{"error":"access_denied"}"#, "did not consent"),
            (r#"{"error":"expired_token"}"#, "too late"),
            (r#"{"error":"invalid_grant"}"#, "does not accept the code"),
            (r#"{"error":"invalid_client"}"#, "invalid_client"),
            (r#"{"error":"unauthorized_client"}"#, "unauthorized_client"),
        ] {
            match after(400, content) {
                Next::Over(failure) => assert!(failure.to_string().contains(words), "{failure}"),
                other => panic!("{other:?}"),
            }
        }
        let granted = r#"{"access_token":"a","refresh_token":"r"}"#;
        assert!(matches!(after(200, granted), Next::Granted(_)));
    }
}
