//! What must outlive the process: the day's counts, the tenants' grants, the clients. One port, several stores.
//!
//! The contract of the port, which `tests/store_contract.rs` holds every store to:
//! - A call that returned `Ok` is durable: it survives `kill -9` and, where the store has a disk, a power cut.
//!   A call that returned `Err` or was dropped may or may not have happened; each is safe to repeat.
//! - A day's count never goes down but by [`Store::release`], and never above the limit given with a reservation.
//! - A grant's `version` goes up by one with each change of its tokens. Changes of tokens and of their state name
//!   the version they were based on and fail with [`StoreError::Conflict`] when it is no longer the current one.
//!   Nothing else touches the tokens: use, pause and weight are written beside them.
//! - Tokens are sealed before they reach a disk or a wire; the caller gives and gets them in the clear.

use std::collections::BTreeSet;

use async_trait::async_trait;

use crate::engine::{ApiKeyName, ClientName, Day, TenantName, Unix};
use crate::secret::{ClientKeyDigest, Secret};

/// A store failed. The text names what was attempted, never a secret.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// What was to be changed has been changed by somebody else, or is gone.
    #[error("{what} was changed by somebody else")]
    Conflict {
        /// The thing that was to be changed.
        what: String,
    },
    /// A name that must be new exists.
    #[error("{what} exists already")]
    Exists {
        /// The thing that exists.
        what: String,
    },
    /// The store cannot be read or written now.
    #[error("could not {attempt}: {cause}")]
    Unavailable {
        /// What was attempted.
        attempt: &'static str,
        /// What the store said.
        cause: String,
    },
    /// What the store holds cannot be understood: damage, or another encryption key.
    #[error("could not {attempt}: {cause}")]
    Corrupt {
        /// What was attempted.
        attempt: &'static str,
        /// What is wrong.
        cause: String,
    },
}

/// How much of a day's limit is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DayCount {
    /// The day that was counted: the one asked for, or a later one that the store has already seen, since a
    /// clock that steps back must not reopen a day.
    pub day: Day,
    /// Calls granted by this reservation; less than asked when the limit is near, zero when it is reached.
    pub granted: u32,
    /// All calls reserved in that day, these included.
    pub total: u64,
}

/// An access token and the refresh token that came with it.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// The bearer token of the upstream; absent when only a refresh token was handed in.
    pub access: Option<Secret<String>>,
    /// When the access token ends, as read from it or reckoned from `expires_in`.
    pub access_expires_at: Option<Unix>,
    /// The refresh token; with rotation it works once.
    pub refresh: Secret<String>,
}

/// Whether a grant can still be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrantState {
    /// Its refresh token is believed good.
    Ready,
    /// Its refresh token is dead; the account's owner must connect again.
    NeedsAuthorization {
        /// Why, in words for an operator.
        reason: String,
    },
}

/// A tenant with all that is known of it.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The tenant.
    pub tenant: TenantName,
    /// The API key that it belongs to.
    pub api_key: ApiKeyName,
    /// Goes up with each change of the tokens.
    pub version: u64,
    /// The tokens.
    pub tokens: Tokens,
    /// Whether they can be used.
    pub state: GrantState,
    /// A refresh that was begun with this version and whose end is not recorded: the process died, and whether
    /// the upstream has rotated the token is unknown.
    pub refresh_begun_at: Option<Unix>,
    /// When the tokens were last refreshed.
    pub last_refreshed_at: Option<Unix>,
    /// When a call of this tenant last left, exact to about a minute.
    pub last_used_at: Option<Unix>,
    /// Its calls are held.
    pub paused: bool,
    /// Its share among the tenants of its API key.
    pub weight: u32,
}

/// A grant as it is handed in by an operator.
#[derive(Clone, Debug)]
pub struct NewGrant {
    /// The tenant.
    pub tenant: TenantName,
    /// The API key that it belongs to.
    pub api_key: ApiKeyName,
    /// The tokens.
    pub tokens: Tokens,
    /// Its share; `None` keeps what is there, or 1.
    pub weight: Option<u32>,
}

/// Whether a grant was made or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The tenant is new.
    Created,
    /// The tenant was there; its tokens are replaced and its state is ready.
    Replaced,
}

/// The tenants that a client may act for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantScope {
    /// Every tenant.
    All,
    /// These; never empty.
    Some(BTreeSet<TenantName>),
}

/// A client.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its name.
    pub name: ClientName,
    /// The digest of its key.
    pub key: ClientKeyDigest,
    /// The tenants that it may act for.
    pub tenants: TenantScope,
    /// When it was made.
    pub created_at: Unix,
}

/// The port; see the module for its contract.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Reserves up to `want` calls of `day` for `api_key`, as many as `limit` leaves; `want` may be 0 to read.
    async fn reserve(
        &self,
        api_key: &ApiKeyName,
        day: Day,
        want: u32,
        limit: u64,
    ) -> Result<DayCount, StoreError>;

    /// Gives back `count` calls that were reserved in `day` and certainly did not leave.
    async fn release(&self, api_key: &ApiKeyName, day: Day, count: u32) -> Result<(), StoreError>;

    /// All grants, in the order of their names.
    async fn grants(&self) -> Result<Vec<Grant>, StoreError>;

    /// One grant, or `None`.
    async fn grant(&self, tenant: &TenantName) -> Result<Option<Grant>, StoreError>;

    /// Makes or replaces a grant. A replaced one keeps its pause and last use, is `Ready` and has no begun refresh.
    async fn put_grant(&self, grant: NewGrant) -> Result<(Put, Grant), StoreError>;

    /// Removes a grant; `false` when there is none.
    async fn remove_grant(&self, tenant: &TenantName) -> Result<bool, StoreError>;

    /// Records that a refresh with `version` is about to be sent, and makes sure that there is room to store
    /// its answer: after `Ok` a full disk does not prevent [`Store::finish_refresh`].
    async fn begin_refresh(
        &self,
        tenant: &TenantName,
        version: u64,
        at: Unix,
    ) -> Result<(), StoreError>;

    /// Takes back [`Store::begin_refresh`]: the token endpoint certainly did not rotate the token.
    async fn abort_refresh(&self, tenant: &TenantName, version: u64) -> Result<(), StoreError>;

    /// Stores the tokens that a refresh of `version` brought and returns the new version.
    async fn finish_refresh(
        &self,
        tenant: &TenantName,
        version: u64,
        tokens: &Tokens,
        at: Unix,
    ) -> Result<u64, StoreError>;

    /// Records that the refresh token of `version` is dead.
    async fn fail_grant(
        &self,
        tenant: &TenantName,
        version: u64,
        reason: &str,
    ) -> Result<(), StoreError>;

    /// Holds or releases a tenant; `false` when there is none.
    async fn pause_tenant(&self, tenant: &TenantName, paused: bool) -> Result<bool, StoreError>;

    /// Records when tenants were last used; unknown ones are passed over.
    async fn record_use(&self, used: &[(TenantName, Unix)]) -> Result<(), StoreError>;

    /// Holds or releases an API key, across restarts.
    async fn pause_api_key(&self, api_key: &ApiKeyName, paused: bool) -> Result<(), StoreError>;

    /// The API keys that are held.
    async fn paused_api_keys(&self) -> Result<BTreeSet<ApiKeyName>, StoreError>;

    /// All clients, in the order of their names.
    async fn clients(&self) -> Result<Vec<Client>, StoreError>;

    /// Adds a client; [`StoreError::Exists`] when the name is taken.
    async fn add_client(&self, client: Client) -> Result<(), StoreError>;

    /// Removes a client; `false` when there is none.
    async fn remove_client(&self, name: &ClientName) -> Result<bool, StoreError>;

    /// Whether the store can be written now.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Finishes what is under way and closes.
    async fn close(&self) -> Result<(), StoreError>;
}
