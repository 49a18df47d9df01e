//! How the owner of an account connects it: the consent, and the grant that comes of it.
//!
//! A consent is asked for with a link that the owner opens ([`Connect::begin`]); the browser comes
//! back with a code, which is exchanged for tokens in the API key's token lane
//! ([`Connect::finish`]). What was asked for is in the store, so that a restart in between loses
//! nothing and a state works once. A grant is stored and put to use by the token keeper, as one
//! that an operator hands in. Always true: an exchange runs to its end also when the browser
//! leaves, and no code, verifier, state or token is in a log line, an event or an error.

mod device;
mod ledger;
mod link;
mod outcome;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::config::links::Origin;
use crate::config::{ApiKey, Config};
use crate::engine::{ApiKeyName, Mono, TenantName, Unix};
use crate::gate::Gate;
use crate::secret::{Secret, StateDigest, StateToken, Verifier};
use crate::store::{
    Authorization, Changed, NewGrant, Revision, Store, StoreError, Tokens as StoredTokens,
};
use crate::telemetry::{Event, Events};
use crate::tokens::{Errand, HttpTokenEndpoint, Received, RefreshAnswer, Tokens, claims};

use device::Devices;
use ledger::{FlowId, Ledger};

pub use device::DeviceCode;
pub use ledger::{Flow, Progress, Standing};
pub use outcome::{Blame, Failure};

/// How long a link works. The owner has to log in at the upstream within it.
const LINK_LIFE: Duration = Duration::from_mins(10);
/// Somebody looks at a browser that loads: where the exchange goes among calls that wait for
/// tokens.
const URGENCY: Duration = Duration::from_secs(5);
/// Longest wait for the lane; a browser gives up at about that time.
const TURN_WAIT_MAX: Duration = Duration::from_secs(60);
/// Longest link that an owner may be sent back to; browsers and servers take more.
const RETURN_TO_LEN_MAX: usize = 2_048;

/// What it stands on.
pub struct Parts {
    /// Remembers what was asked for.
    pub store: Arc<dyn Store>,
    /// Takes grants, and lends the token lanes.
    pub tokens: Tokens,
    /// Forgives a tenant what the upstream refused before.
    pub gate: Gate,
    /// Where codes are exchanged.
    pub endpoint: HttpTokenEndpoint,
    /// The configuration as it is now.
    pub config: Arc<ArcSwap<Config>>,
    /// Told how each ends.
    pub events: Events,
    /// Reads time.
    pub clock: Clock,
    /// Runs exchanges.
    pub tracker: TaskTracker,
    /// Ends what waits for owners.
    pub stopped: CancellationToken,
}

/// The handle; clones share everything.
#[derive(Clone)]
pub struct Connect(Arc<Inner>);

struct Inner {
    parts: Parts,
    ledger: Ledger,
    devices: Devices,
}

/// What an owner opens in a browser.
#[derive(Debug)]
pub struct Link {
    /// The upstream's page of consent.
    pub authorize_url: String,
    /// From then on it does not work.
    pub expires_at: Unix,
}

/// No consent was asked for.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// The API key is not configured.
    #[error("there is no API key of the name that was given")]
    UnknownApiKey,
    /// The API key has no address for browsers to come back to.
    #[error(
        "API key {0} has no redirect_uri: set api_keys.redirect_uri to the public address of \
         /oauth/callback that the application lists, or ask with {{\"flow\": \"device\"}}"
    )]
    NoRedirectUri(ApiKeyName),
    /// The link back is none, or leads where nobody may be sent.
    #[error("return_to {0}")]
    ReturnTo(String),
    /// The upstream gave no code for a device.
    #[error("{0}")]
    Upstream(Failure),
    /// As many device flows of the API key are under way as may be.
    #[error("{0} accounts of this API key are being connected by code; wait until one is done")]
    TooMany(usize),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a browser came back with.
#[derive(Debug, Default)]
pub struct CameBack {
    /// `state`, unchecked.
    pub state: Option<String>,
    /// `code`, unchecked.
    pub code: Option<Secret<String>>,
    /// `error`, unchecked.
    pub error: Option<String>,
}

/// An account that is connected.
#[derive(Debug, PartialEq, Eq)]
pub struct Connected {
    /// Its tenant.
    pub tenant: TenantName,
    /// Where its owner is to be sent.
    pub return_to: Option<String>,
}

/// A consent that came to nothing.
#[derive(Debug)]
pub struct NotConnected {
    /// Why.
    pub failure: Failure,
    /// Where its owner may go back to; known and allowed.
    pub return_to: Option<String>,
}

impl Connect {
    /// Nothing is under way.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let (ledger, devices) = (Ledger::default(), Devices::default());
        Self(Arc::new(Inner { parts, ledger, devices }))
    }

    /// A link for the owner of the account that is to be `tenant`.
    ///
    /// # Errors
    /// [`BeginError`] says what to set or to send.
    pub async fn begin(
        &self,
        tenant: TenantName,
        api_key: &ApiKeyName,
        return_to: Option<String>,
    ) -> Result<Link, BeginError> {
        let Parts { store, clock, .. } = &self.0.parts;
        let config = self.0.parts.config.load_full();
        let key = key_of(&config, api_key).ok_or(BeginError::UnknownApiKey)?;
        let redirect_uri =
            key.redirect_uri.clone().ok_or_else(|| BeginError::NoRedirectUri(api_key.clone()))?;
        if let Some(link) = &return_to {
            check_return_to(link, &config.oauth.return_to_origins).map_err(BeginError::ReturnTo)?;
        }
        let now = clock.now().unix;
        let expires_at = now.plus(LINK_LIFE);
        let state = StateToken::generate();
        let verifier = key.pkce.then(Verifier::generate);
        let challenge = verifier.as_ref().map(Verifier::challenge);
        let url = &config.oauth.authorize_url;
        let authorize_url = link::authorize(url, key, &redirect_uri, &state, challenge.as_deref());
        let asked = Authorization {
            state: state.digest(),
            tenant: tenant.clone(),
            api_key: api_key.clone(),
            redirect_uri,
            verifier: verifier.map(Verifier::into_secret),
            return_to,
            expires_at,
        };
        store.begin_authorization(asked, now).await?;
        let id = FlowId::of_state(&state.digest());
        self.0.ledger.begun(&tenant, id, Flow::Code, expires_at, now);
        info!(%tenant, %api_key, "a consent was asked for");
        Ok(Link { authorize_url, expires_at })
    }

    /// Connects the account whose owner's browser came back.
    ///
    /// # Errors
    /// [`NotConnected`] with what to tell the owner.
    pub async fn finish(&self, came: CameBack) -> Result<Connected, NotConnected> {
        let state = came.state.as_deref().and_then(StateDigest::of);
        let Some(state) = state else { return Err(Failure::NotAsked.into()) };
        let inner = Arc::clone(&self.0);
        // not the browser's own task: it may leave while the state is spent
        let finishing = self.0.parts.tracker.spawn(async move { inner.finish(&state, came).await });
        finishing.await.unwrap_or_else(|_| {
            error!("connecting an account panicked");
            Err(Failure::Bug.into())
        })
    }

    /// How connecting the account of `tenant` stands, or last ended; `None` when nobody tried
    /// since the start, or it is long ago.
    #[must_use]
    pub fn standing(&self, tenant: &TenantName) -> Option<Standing> {
        self.0.ledger.standing(tenant)
    }
}

impl Inner {
    async fn finish(&self, state: &StateDigest, came: CameBack) -> Result<Connected, NotConnected> {
        let since = self.revision().await.map_err(Failure::Store)?;
        let taken = self.parts.store.take_authorization(state).await;
        let asked = taken.map_err(Failure::Store)?.ok_or(Failure::NotAsked)?;
        let Authorization { tenant, api_key, return_to, .. } = &asked;
        let result = self.connect(&asked, came, since).await;
        self.tell(FlowId::of_state(state), tenant, api_key, result.as_ref().err());
        match result {
            Ok(()) => Ok(Connected { tenant: tenant.clone(), return_to: return_to.clone() }),
            Err(failure) => Err(NotConnected { failure, return_to: return_to.clone() }),
        }
    }

    async fn connect(
        &self,
        asked: &Authorization,
        came: CameBack,
        since: Revision,
    ) -> Result<(), Failure> {
        if asked.expires_at <= self.parts.clock.now().unix {
            return Err(Failure::Late);
        }
        if let Some(error) = came.error {
            return Err(Failure::of_code(&error));
        }
        let code = came.code.filter(|code| is_code(code.expose())).ok_or(Failure::NoCode)?;
        let mut errand = self.errand(&asked.api_key).await?;
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code.expose().as_str()),
            ("redirect_uri", &asked.redirect_uri),
        ];
        form.extend(asked.verifier.as_ref().map(|it| ("code_verifier", it.expose().as_str())));
        let answer = self.parts.endpoint.ask(&errand, &form).await;
        errand.answered(&answer);
        let received = match answer {
            RefreshAnswer::Received(received) => received,
            RefreshAnswer::InvalidGrant => return Err(Failure::CodeRefused),
            RefreshAnswer::LaneLost => return Err(Failure::Busy),
            RefreshAnswer::InvalidClient { .. }
            | RefreshAnswer::NotSent { .. }
            | RefreshAnswer::NotJournalled { .. }
            | RefreshAnswer::Lost { .. }
            | RefreshAnswer::Trouble { .. } => return Err(Failure::Endpoint(answer.to_string())),
        };
        self.store(errand, (&asked.tenant, since), &asked.api_key, received).await
    }

    /// Where the history of the store stands, to tell later what came after.
    async fn revision(&self) -> Result<Revision, StoreError> {
        self.parts.store.changes(None).await.map(|changes| changes.revision)
    }

    /// Whether the tenant was removed after `since`, at whichever instance of a shared store.
    async fn was_removed(&self, tenant: &TenantName, since: Revision) -> bool {
        let store = &self.parts.store;
        if !store.is_shared() {
            return false;
        }
        let told = store.last_told(&Changed::Tenant(tenant.clone())).await;
        let is_told = told.is_ok_and(|told| told.at.is_some_and(|at| at > since));
        // a store that fails decides nothing: tokens that came are worth a try to keep them
        is_told && matches!(store.grant(tenant).await, Ok(None))
    }

    /// The token lane of `api_key`, for a request that somebody waits for.
    async fn errand(&self, api_key: &ApiKeyName) -> Result<Errand, Failure> {
        let Parts { tokens, clock, .. } = &self.parts;
        let now: Mono = clock.mono();
        tokio::select! {
            turn = tokens.errand(api_key, now.plus(URGENCY)) => turn.map_err(|_| Failure::Busy),
            () = clock.sleep_until(now.plus(TURN_WAIT_MAX)) => Err(Failure::Busy),
        }
    }

    /// Has the keeper take what the upstream gave, unless the tenant was removed after `since`.
    async fn store(
        &self,
        errand: Errand,
        (tenant, since): (&TenantName, Revision),
        api_key: &ApiKeyName,
        received: Received,
    ) -> Result<(), Failure> {
        let Received { access, refresh, expires_in } = received;
        let now = self.parts.clock.now().unix;
        let ends = |access: &Secret<String>| claims::expiry(access.expose(), expires_in, now);
        let access_expires_at = access.as_ref().map(ends);
        let refresh = refresh.ok_or(Failure::NoRefreshToken)?;
        let tokens = StoredTokens { access, access_expires_at, refresh };
        if self.was_removed(tenant, since).await {
            return Err(Failure::Cancelled);
        }
        let (tenant, api_key) = (tenant.clone(), api_key.clone());
        let grant =
            NewGrant { tenant: tenant.clone(), api_key: api_key.clone(), tokens, weight: None };
        errand.put(grant).await.map_err(Failure::NotTaken)?;
        if let Some(gate) = self.parts.gate.api_key(&api_key) {
            gate.forgive(&tenant);
        }
        Ok(())
    }

    /// Tells operators how it ended.
    fn tell(&self, id: FlowId, tenant: &TenantName, api_key: &ApiKeyName, why: Option<&Failure>) {
        let now = self.parts.clock.now().unix;
        let reason = why.map(Failure::to_string);
        match &reason {
            None => info!(%tenant, %api_key, "an account was connected by its owner"),
            Some(reason) => warn!(%tenant, %api_key, reason, "an account was not connected"),
        }
        self.ledger.ended(tenant, id, reason.clone(), now);
        self.parts.events.publish(Event::TenantConnect {
            tenant: tenant.clone(),
            api_key: api_key.clone(),
            connected: why.is_none(),
            reason,
        });
    }
}

impl From<Failure> for NotConnected {
    fn from(failure: Failure) -> Self {
        Self { failure, return_to: None }
    }
}

fn key_of<'a>(config: &'a Config, name: &ApiKeyName) -> Option<&'a ApiKey> {
    config.api_keys.iter().find(|key| key.name == *name)
}

fn check_return_to(link: &str, allowed: &[Origin]) -> Result<(), String> {
    if link.len() > RETURN_TO_LEN_MAX {
        return Err(format!("is longer than {RETURN_TO_LEN_MAX} characters"));
    }
    let origin = Origin::of_link(link)?;
    if allowed.contains(&origin) {
        return Ok(());
    }
    Err("leads to an origin that oauth.return_to_origins does not list; add it there".to_owned())
}

/// Whether `text` can be a code: visible ASCII (RFC 6749 appendix A.11), and no novel.
fn is_code(text: &str) -> bool {
    (1..=2_048).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}
