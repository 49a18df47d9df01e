//! What must outlive the process: the day's counts, the tenants' grants, the clients. One port,
//! several stores.
//!
//! The contract of the port, which `tests/store_contract.rs` holds every store to:
//! - A call that returned `Ok` is durable: it survives `kill -9` and, where the store has a disk, a
//!   power cut. On a server it is as durable as that server's file, which may be a second behind;
//!   tokens that a refresh brought are kept on this machine until then. A call that returned `Err`
//!   or was dropped may or may not have happened; each is safe to repeat but [`Store::release`],
//!   which may then be counted twice: leave it, a count that is too high harms nobody.
//! - A day's count never goes down but by [`Store::release`], and no reservation takes it above the
//!   limit given with it.
//! - A grant's `version` goes up by one with each change of its tokens, and no version is used
//!   twice for one tenant, also when it was removed and made again. Changes of tokens and of their
//!   state name the version they were based on and fail with [`StoreError::Conflict`] when it is no
//!   longer the current one. Nothing else touches the tokens: use, pause and weight are written
//!   beside them.
//! - Tokens are sealed before they reach a disk or a wire; the caller gives and gets them in the
//!   clear.
//! - Moments are kept to the millisecond at least.

mod changes;
mod client;
mod copying;
mod days;
mod grant;
mod journal;
mod lane;
mod measured;
mod memory;
mod news;
mod opening;
mod redis;
mod removals;
mod rotating;
mod sealed;
mod sqlite;
mod turnstile;
mod whole;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::engine::{ApiKeyName, ClientName, Day, TenantName, Unix};
use crate::secret::{KeyId, Secret, StateDigest};
use days::{DAYS_KEPT, is_followed};

pub use changes::{Changed, Changes, Fate, LastTold, Missing, Revision, Since};
pub use client::{Client, ClientKeys, PreviousKey, TenantScope};
pub use copying::{CopyError, CopyOrder, Existing, Gone, LeftAlone, Place, Report, Tally, copy};
pub use days::DayCount;
pub use grant::{Grant, GrantState, NewGrant, OpenRefresh, Put, RefreshStep, Tokens};
pub use lane::{Forgotten, LaneLease, LaneTerms, LaneTurn};
pub use measured::Measured;
pub use memory::MemoryStore;
pub use news::{News, NewsAsked};
pub use opening::{Opened, open, open_sqlite};
pub use redis::{RedisStore, RedisTurnstile};
pub use removals::Removals;
pub use rotating::{KeyRotation, RotateError};
pub use sqlite::{KeySource, SqliteStore, keys_for};
pub use turnstile::{InstanceInfo, SharedTurnstile};
pub use whole::WholeStore;

/// What is said of a store that cannot be opened because of those who use it.
const USED_BY: &str = "is used by";

/// Authorizations that are kept at a time, in all and of one tenant; asking for more forgets the
/// oldest, so that a program that asks without end fills no disk.
pub const AUTHORIZATIONS_KEPT: usize = 1_000;
/// As above.
pub const AUTHORIZATIONS_KEPT_PER_TENANT: usize = 10;

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

/// The words that every store uses for the same refusal.
impl StoreError {
    fn grant_conflict(tenant: &TenantName) -> Self {
        Self::Conflict { what: format!("the grant of tenant {tenant}") }
    }

    fn client_conflict(name: &ClientName) -> Self {
        Self::Conflict { what: format!("client {name}") }
    }

    fn client_exists(name: &ClientName) -> Self {
        Self::Exists { what: format!("client {name}") }
    }

    fn client_key_exists() -> Self {
        Self::Exists { what: "a client with this key".to_owned() }
    }

    /// Whether it cannot be opened because of those who use it.
    fn is_in_use(&self) -> bool {
        matches!(self, Self::Unavailable { cause, .. } if cause.contains(USED_BY))
    }

    fn closed(attempt: &'static str) -> Self {
        Self::Unavailable { attempt, cause: "the store is closed".to_owned() }
    }
}

/// A consent that an account's owner was asked for and has not given yet.
#[derive(Clone, Debug)]
pub struct Authorization {
    /// What the browser comes back with, as a digest.
    pub state: StateDigest,
    /// Whose grant it is to become.
    pub tenant: TenantName,
    /// The API key that it is asked with.
    pub api_key: ApiKeyName,
    /// Where the browser was told to come back to; the exchange of the code repeats it.
    pub redirect_uri: String,
    /// What proves that the code was asked for here (RFC 7636).
    pub verifier: Option<Secret<String>>,
    /// Where the owner is sent in the end.
    pub return_to: Option<String>,
    /// From then on it is too late.
    pub expires_at: Unix,
}

/// The port; see the module for its contract.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Reserves up to `want` calls of `day` for `api_key`, as many as `limit` leaves; `want` may be
    /// 0 to read. The day after is counted in its place once it has been seen; what was counted in
    /// days beyond that, by a clock that was wrong, is moved into the counted day and added to it,
    /// so that no call is forgotten. Of an API key's days the newest four are kept.
    async fn reserve(
        &self,
        api_key: &ApiKeyName,
        day: Day,
        want: u32,
        limit: u64,
    ) -> Result<DayCount, StoreError>;

    /// Gives back `count` calls that were reserved in `day` and certainly did not leave; at most
    /// all of them.
    async fn release(&self, api_key: &ApiKeyName, day: Day, count: u32) -> Result<(), StoreError>;

    /// All grants, in the order of their names.
    async fn grants(&self) -> Result<Vec<Grant>, StoreError>;

    /// One grant, or `None`.
    async fn grant(&self, tenant: &TenantName) -> Result<Option<Grant>, StoreError>;

    /// Makes or replaces a grant. A replaced one keeps its pause and last use, is `Ready`, has no
    /// begun refresh and was never refreshed; its version goes up by one. A new one is not paused.
    async fn put_grant(&self, grant: NewGrant) -> Result<(Put, Grant), StoreError>;

    /// Removes a grant; `false` when there is none, which is told of too. Authorizations that were
    /// begun for the tenant go with it.
    async fn remove_grant(&self, tenant: &TenantName) -> Result<bool, StoreError>;

    /// Records that a refresh with `version` is about to be sent, and makes sure that there is room
    /// to store its answer: after `Ok` a full disk does not prevent [`Store::finish_refresh`] with
    /// tokens of up to 64 KiB.
    async fn begin_refresh(
        &self,
        tenant: &TenantName,
        version: u64,
        at: Unix,
    ) -> Result<(), StoreError>;

    /// Records on this machine that the request of a refresh is about to be sent.
    async fn post_refresh(
        &self,
        tenant: &TenantName,
        version: u64,
        at: Unix,
    ) -> Result<(), StoreError>;

    /// Records on this machine the tokens that a refresh brought, apart from where
    /// [`Store::finish_refresh`] puts them: should that fail, a crash does not lose them.
    async fn receive_refresh(
        &self,
        tenant: &TenantName,
        version: u64,
        tokens: &Tokens,
        at: Unix,
    ) -> Result<(), StoreError>;

    /// The refreshes of current versions that a process before this one on this machine did not
    /// end, as they were when the store was opened. Told once.
    async fn open_refreshes(&self) -> Result<Vec<OpenRefresh>, StoreError>;

    /// Takes back [`Store::begin_refresh`]: the token endpoint certainly did not rotate the token.
    async fn abort_refresh(&self, tenant: &TenantName, version: u64) -> Result<(), StoreError>;

    /// A refresh of `version` that was begun here is somebody else's by now, or is past: what this
    /// machine remembers of it is of no use any more. Nothing is changed in the store.
    async fn forget_refresh(&self, _tenant: &TenantName, _version: u64) -> Result<(), StoreError> {
        Ok(())
    }

    /// Stores the tokens that a refresh of `version` brought and returns the new version; the grant
    /// is `Ready` and its refresh ended. A repeat with the same tokens is `Ok` when they are
    /// already stored as the next version.
    async fn finish_refresh(
        &self,
        tenant: &TenantName,
        version: u64,
        tokens: &Tokens,
        at: Unix,
    ) -> Result<u64, StoreError>;

    /// Records that the refresh token of `version` is dead, which ends its refresh. The version
    /// stays.
    async fn fail_grant(
        &self,
        tenant: &TenantName,
        version: u64,
        reason: &str,
    ) -> Result<(), StoreError>;

    /// Takes the token lane of an API key, to be kept or left before the hold of `terms` ends; see
    /// [`LaneTurn`].
    async fn take_lane(
        &self,
        _api_key: &ApiKeyName,
        _terms: LaneTerms,
    ) -> Result<LaneTurn, StoreError> {
        Ok(LaneTurn::Yours(LaneLease::ALONE))
    }

    /// Keeps the lane for `hold` from now, also when its hold was over and nobody has taken it;
    /// `false` when it has gone to another instance, or was lost with what the store knew.
    async fn keep_lane(
        &self,
        _api_key: &ApiKeyName,
        _lease: LaneLease,
        _hold: Duration,
        _forgotten: Forgotten,
    ) -> Result<bool, StoreError> {
        Ok(true)
    }

    /// Leaves the lane, which nobody gets before `rest` is over; of a lease that has gone to
    /// another instance it does nothing.
    async fn leave_lane(
        &self,
        _api_key: &ApiKeyName,
        _lease: LaneLease,
        _rest: Duration,
    ) -> Result<(), StoreError> {
        Ok(())
    }

    /// What was changed after `since`; `None` for somebody who is about to read everything. A store
    /// of one instance has no changes to tell.
    async fn changes(&self, since: Option<Revision>) -> Result<Changes, StoreError> {
        Ok(Changes::none(since))
    }

    /// When the history last told of this thing: one that is missing has been removed then, and one
    /// of which nothing is told was lost.
    async fn last_told(&self, _thing: &Changed) -> Result<LastTold, StoreError> {
        Ok(LastTold { at: Some(Revision(u64::MAX)), forgotten: Revision(0) })
    }

    /// Writes a grant as it was, version and all, which a shared store has lost. `false` when there
    /// is one of this version or a later: another instance was first.
    async fn restore_grant(&self, _grant: &Grant) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// The turnstile that this instance shares with others; `None` for a store of one instance,
    /// which counts with [`Store::reserve`] alone.
    fn turnstile(&self, _instance: &InstanceInfo) -> Option<Arc<dyn SharedTurnstile>> {
        None
    }

    /// What reads and writes things as they are, so that all of them can be taken elsewhere; `None`
    /// for what only stands before a store.
    fn whole(&self) -> Option<&dyn WholeStore> {
        None
    }

    /// Waits until something is changed, by another instance or this one, if nothing was since the
    /// last time; for one task. It may miss some, so [`Store::changes`] is to be asked now and then
    /// all the same. A store of one instance never says anything.
    async fn changed(&self) {
        std::future::pending::<()>().await;
    }

    /// Whether other instances may use the store at the same time.
    fn is_shared(&self) -> bool {
        false
    }

    /// Holds or releases a tenant; `false` when there is none.
    async fn pause_tenant(&self, tenant: &TenantName, paused: bool) -> Result<bool, StoreError>;

    /// Records when tenants were last used; unknown ones are passed over, and the later moment
    /// stays.
    async fn record_use(&self, used: &[(TenantName, Unix)]) -> Result<(), StoreError>;

    /// Holds or releases an API key, across restarts.
    async fn pause_api_key(&self, api_key: &ApiKeyName, paused: bool) -> Result<(), StoreError>;

    /// The API keys that are held.
    async fn paused_api_keys(&self) -> Result<BTreeSet<ApiKeyName>, StoreError>;

    /// All clients, in the order of their names.
    async fn clients(&self) -> Result<Vec<Client>, StoreError>;

    /// Adds a client; [`StoreError::Exists`] when its name or its key is taken, but `Ok` for a
    /// repeat.
    async fn add_client(&self, client: Client) -> Result<(), StoreError>;

    /// Gives a client other keys; `false` when there is none of that name.
    /// [`StoreError::Exists`] when the new key is another client's.
    async fn change_client_keys(
        &self,
        name: &ClientName,
        keys: ClientKeys,
    ) -> Result<bool, StoreError>;

    /// Records when clients last called; unknown names are skipped.
    async fn record_client_use(&self, used: &[(ClientName, Unix)]) -> Result<(), StoreError>;

    /// Removes a client; `false` when there is none, which is told of too.
    async fn remove_client(&self, name: &ClientName) -> Result<bool, StoreError>;

    /// The encryption keys, the current one first; none when nothing is sealed.
    fn key_ids(&self) -> Vec<KeyId> {
        Vec::new()
    }

    /// Makes a new encryption key, seals everything anew with it and gives the older ones up; or
    /// finishes that where it was broken off. Everything else goes on meanwhile.
    async fn rotate_key(&self) -> Result<KeyRotation, RotateError> {
        Err(RotateError::NothingSealed)
    }

    /// Remembers that a consent was asked for; those that are too late at `now` may be forgotten.
    /// The newest [`AUTHORIZATIONS_KEPT`] are kept, and of a tenant the newest
    /// [`AUTHORIZATIONS_KEPT_PER_TENANT`]. The verifier is sealed like tokens are.
    async fn begin_authorization(&self, new: Authorization, now: Unix) -> Result<(), StoreError>;

    /// Takes the authorization of `state`, which nobody gets again, however many ask at a time;
    /// `None` when there is none. One that is too late is given too, as long as it is remembered.
    async fn take_authorization(
        &self,
        state: &StateDigest,
    ) -> Result<Option<Authorization>, StoreError>;

    /// Whether the store can be written now.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Finishes what is under way and closes; closing twice is `Ok`, all else is then
    /// [`StoreError::Unavailable`].
    async fn close(&self) -> Result<(), StoreError>;
}
