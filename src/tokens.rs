//! The token keeper's shell: who has which token, and the work of keeping them good.
//!
//! One task owns the machine of `engine::token` and all secrets; everybody else holds a [`Tokens`]
//! handle and reads a table of what is usable. Store calls and token requests run in tasks of their
//! own, so that a slow store stops nobody and a caller that leaves cancels nothing. Always true:
//! journal the intent, ask, store, and only then is a token in the table; tokens that could not be
//! stored stay in memory and in the journal, serve, and the write is repeated for ever.

mod actor;
pub mod claims;
mod desk;
mod endpoint;
mod errand;
mod hand_in;
mod lane;
mod look;
pub mod oauth;
mod record;
mod shared;
mod table;
mod take_out;
mod work;

#[cfg(test)]
pub(crate) mod idle;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use http::HeaderValue;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::engine::token::{Alarm, LaneOutlook, Readiness, Settings};
use crate::engine::{ApiKeyName, Mono, TenantName, Unix};
use crate::store::{NewGrant, Put, Store, StoreError};
use actor::{Actor, Request};
use desk::Job;
use table::Table;

pub use endpoint::{KeyAuth, MayLeave, Received, RefreshAnswer, TokenEndpoint};
pub use errand::{Errand, NoTurn};
pub use hand_in::{HandedIn, OnConflict, Terms};
pub use oauth::HttpTokenEndpoint;
pub use take_out::{Afterwards, TakeOutError};

/// Questions of operators that may wait for the task; more wait to be taken.
const REQUESTS_MAX: usize = 64;

/// An access token, ready to be sent.
#[derive(Clone, Debug)]
pub struct Bearer {
    /// The value of `Authorization`; marked as sensitive.
    pub header: HeaderValue,
    /// The version of the tokens, for [`Tokens::rejected`].
    pub version: u64,
}

/// What the data plane needs to know of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantView {
    /// The API key that it belongs to.
    pub api_key: ApiKeyName,
    /// Whether its calls can be sent.
    pub state: Readiness,
}

/// A tenant came, changed or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantChange {
    /// The tenant.
    pub tenant: TenantName,
    /// The API key that it belongs to.
    pub api_key: ApiKeyName,
    /// Whether its calls can be sent; `None` when it was removed.
    pub readiness: Option<Readiness>,
    /// Its calls are held.
    pub paused: bool,
    /// Its share among the tenants of its API key.
    pub weight: u32,
}

/// A tenant's state in admin answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TenantState {
    /// Its calls are sent.
    Ready,
    /// A refresh is under way or due.
    Refreshing,
    /// The account's owner must connect again.
    NeedsAuthorization,
    /// Its calls are held.
    Paused,
}

impl TenantState {
    /// Its public name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Refreshing => "refreshing",
            Self::NeedsAuthorization => "needs_authorization",
            Self::Paused => "paused",
        }
    }
}

/// What the keeper knows of a tenant, without its tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantStatus {
    /// The tenant.
    pub tenant: TenantName,
    /// The API key that it belongs to.
    pub api_key: ApiKeyName,
    /// Its state.
    pub state: TenantState,
    /// Why it cannot be used, in words for an operator.
    pub state_reason: Option<String>,
    /// When the access token ends.
    pub access_token_expires_at: Option<Unix>,
    /// When the tokens were last refreshed.
    pub last_refreshed_at: Option<Unix>,
    /// When a call last left, as known at the start or when the grant last came from the store.
    pub last_used_at: Option<Unix>,
    /// When the refresh token dies if it is not used; `None` when its age is not known.
    pub refresh_token_expires_at: Option<Unix>,
    /// Its share.
    pub weight: u32,
    /// Its calls are held.
    pub paused: bool,
}

/// Why a grant was not taken.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// The API key is not configured. What was given is not repeated: it may be a token that
    /// slipped into the wrong field.
    #[error("there is no API key of the name that was given")]
    UnknownApiKey,
    /// Without a refresh token the grant would end with its access token.
    #[error("the grant has no refresh token: ask for the scope offline_access when connecting")]
    NoRefreshToken,
    /// The text cannot be a token.
    #[error("the {0} is no token: it has characters that no token has")]
    Malformed(&'static str),
    /// The token was issued to another application.
    #[error(
        "the access token was issued to client id {cid}, which is not the one of API key {api_key}"
    )]
    OtherApiKey {
        /// The `cid` of the token.
        cid: String,
        /// The API key that was named.
        api_key: ApiKeyName,
    },
    /// The login is not linked to an account.
    #[error(
        "the access token belongs to a login without an account (platform_user_id is UNASSIGNED)"
    )]
    Unassigned,
    /// The tenant is there with other tokens, which are to be kept.
    #[error("tenant {tenant} is there already with another grant")]
    Conflict {
        /// The tenant.
        tenant: TenantName,
    },
    /// The refresh token has been used since it was handed in.
    #[error(
        "this refresh token was handed in before and has been renewed since, so it is spent; \
         the tenant keeps the tokens that came in its place"
    )]
    Spent,
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keeper has stopped.
    #[error("the token keeper has stopped")]
    Stopped,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keeper has stopped.
    #[error("the token keeper has stopped")]
    Stopped,
}

/// Why a refresh was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefreshError {
    /// There is no such tenant.
    #[error("there is no such tenant")]
    UnknownTenant,
    /// Its refresh token is dead.
    #[error("the tenant must be connected again")]
    NeedsAuthorization,
    /// The keeper has stopped.
    #[error("the token keeper has stopped")]
    Stopped,
}

/// Who is told what happens, for metrics and events. Called by the keeper's task: it must return at
/// once.
pub trait Observer: Send + Sync + 'static {
    /// A token request has ended.
    fn refreshed(&self, api_key: &ApiKeyName, outcome: &'static str);
    /// Somebody should look; of the tenant it was noticed at.
    fn alarm(&self, tenant: &TenantName, api_key: &ApiKeyName, alarm: Alarm);
    /// How many tenants are being refreshed or wait for it.
    fn lane_depth(&self, api_key: &ApiKeyName, n: usize);
    /// How many tenants have a refresh token that dies soon if it is not used.
    fn ageing(&self, api_key: &ApiKeyName, n: usize);
    /// How many tenants have a live grant, and how many must be connected again.
    fn tenants(&self, api_key: &ApiKeyName, ready: usize, needs_authorization: usize);
    /// A tenant's state has changed.
    fn state_changed(
        &self,
        tenant: &TenantName,
        api_key: &ApiKeyName,
        state: &'static str,
        reason: Option<&str>,
    );
}

/// An observer that does not look.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoObserver;

impl Observer for NoObserver {
    fn refreshed(&self, _: &ApiKeyName, _: &'static str) {}
    fn alarm(&self, _: &TenantName, _: &ApiKeyName, _: Alarm) {}
    fn lane_depth(&self, _: &ApiKeyName, _: usize) {}
    fn ageing(&self, _: &ApiKeyName, _: usize) {}
    fn tenants(&self, _: &ApiKeyName, _: usize, _: usize) {}
    fn state_changed(&self, _: &TenantName, _: &ApiKeyName, _: &'static str, _: Option<&str>) {}
}

/// What a keeper is made of.
pub struct Parts {
    /// Where grants live.
    pub store: Arc<dyn Store>,
    /// The clock.
    pub clock: Clock,
    /// The token endpoint.
    pub exchange: Arc<dyn TokenEndpoint>,
    /// The configured API keys.
    pub keys: Vec<(ApiKeyName, KeyAuth)>,
    /// When tokens are refreshed, and what spreads repeats.
    pub settings: Settings,
    /// Spreads repeats; any number.
    pub seed: u64,
    /// Told of every tenant at the start and of every change. The reader must keep up.
    pub changes: mpsc::UnboundedSender<TenantChange>,
    /// Told what happens.
    pub observer: Arc<dyn Observer>,
    /// Where tasks are spawned.
    pub tracker: TaskTracker,
}

/// The handle; clones share one keeper. When the last one is dropped the keeper finishes and stores
/// what is under way, and ends.
#[derive(Clone)]
pub struct Tokens {
    table: Arc<Table>,
    requests: mpsc::Sender<Request>,
    /// Other instances change the store too.
    is_shared: bool,
}

impl Tokens {
    /// Loads all grants, tells [`Parts::changes`] of each, and starts the keeper's task.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn start(parts: Parts) -> Result<Self, StoreError> {
        let grants = parts.store.grants().await?;
        let left = parts.store.open_refreshes().await?;
        let table = Arc::new(Table::new(parts.clock.clone()));
        let (requests, inbox) = mpsc::channel(REQUESTS_MAX);
        let (tracker, is_shared) = (parts.tracker.clone(), parts.store.is_shared());
        let mailbox = (requests.downgrade(), inbox);
        let actor = Actor::new(parts, grants, left, Arc::clone(&table), mailbox);
        tracker.spawn(actor.run());
        Ok(Self { table, requests, is_shared })
    }

    /// What is known of a tenant; returns at once.
    #[must_use]
    pub fn tenant(&self, name: &str) -> Option<TenantView> {
        self.table.view(name)
    }

    /// The tenant's access token when it can be used now; returns at once.
    #[must_use]
    pub fn bearer(&self, tenant: &TenantName) -> Option<Bearer> {
        self.table.bearer(tenant)
    }

    /// Somebody waits for the tenant's token until `deadline`; returns at once.
    pub fn demand(&self, tenant: &TenantName, deadline: Mono) {
        self.table.demand(tenant, deadline);
    }

    /// The upstream did not accept the access token of `version`; returns at once.
    pub fn rejected(&self, tenant: &TenantName, version: u64) {
        self.table.rejected(tenant, version);
    }

    /// Takes a grant: durable and usable when it returns. Waits for a refresh of the tenant that is
    /// under way.
    ///
    /// # Errors
    /// [`PutError`] says what is wrong with the grant, or that it could not be stored.
    pub async fn put(&self, grant: NewGrant) -> Result<(Put, TenantStatus), PutError> {
        let tenant = grant.tenant.clone();
        let ask = |reply| Request::Job(tenant, Job::Put { grant: Box::new(grant), reply });
        self.ask(ask).await.unwrap_or(Err(PutError::Stopped))
    }

    /// Removes a tenant; `false` when there is none.
    ///
    /// # Errors
    /// [`ChangeError`] when it could not be stored.
    pub async fn remove(&self, tenant: &TenantName) -> Result<bool, ChangeError> {
        let ask = |reply| Request::Job(tenant.clone(), Job::Remove { reply });
        self.ask(ask).await.unwrap_or(Err(ChangeError::Stopped))
    }

    /// Holds or releases a tenant; `false` when there is none.
    ///
    /// # Errors
    /// [`ChangeError`] when it could not be stored.
    pub async fn pause(&self, tenant: &TenantName, paused: bool) -> Result<bool, ChangeError> {
        let ask = |reply| Request::Job(tenant.clone(), Job::Pause { paused, reply });
        self.ask(ask).await.unwrap_or(Err(ChangeError::Stopped))
    }

    /// Orders a refresh; it has its turn in the lane and is not waited for.
    ///
    /// # Errors
    /// [`RefreshError`] when it cannot be ordered.
    pub async fn refresh(&self, tenant: &TenantName) -> Result<(), RefreshError> {
        self.look_if_unknown(tenant).await;
        let ask = |reply| Request::Refresh(tenant.clone(), reply);
        self.ask(ask).await.unwrap_or(Err(RefreshError::Stopped))
    }

    /// All tenants in the order of their names; none when the keeper has stopped.
    pub async fn list(&self) -> Vec<TenantStatus> {
        self.ask(Request::List).await.unwrap_or_default()
    }

    /// One tenant.
    pub async fn status(&self, tenant: &TenantName) -> Option<TenantStatus> {
        self.look_if_unknown(tenant).await;
        self.ask(|reply| Request::Status(tenant.clone(), reply)).await.flatten()
    }

    /// The API keys, how many of their tenants are being refreshed or wait for it, and until when.
    pub async fn lanes(&self) -> Vec<(ApiKeyName, LaneOutlook)> {
        self.ask(Request::Lanes).await.unwrap_or_default()
    }

    /// Takes changed settings: API keys that came, changed or went, and times. Nothing under way is
    /// lost.
    pub async fn reload_keys(&self, keys: Vec<(ApiKeyName, KeyAuth)>, settings: Settings) {
        self.ask(|reply| Request::Reload { keys, settings, reply }).await.unwrap_or_default();
    }

    /// Begins no further refresh, and returns when what is under way is finished and stored. The
    /// keeper ends with it; [`Tokens::bearer`] still gives what is usable.
    pub async fn drain(&self) {
        self.ask(Request::Drain).await.unwrap_or_default();
    }

    /// Asks the task; `None` when it has ended.
    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.ok()?;
        answer.await.ok()
    }
}
