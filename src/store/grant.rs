//! Grants as the store has them, and refreshes that did not end.

use crate::engine::{ApiKeyName, TenantName, Unix};
use crate::secret::{Secret, TokenDigest};

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

impl Tokens {
    /// Whether both tokens are the same as those of `other`.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        self.access == other.access && self.refresh == other.refresh
    }
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
    /// The refresh token that was handed in, which may have been renewed many times since; `None`
    /// for a grant of a version that did not keep it.
    pub handed_in: Option<TokenDigest>,
    /// Whether they can be used.
    pub state: GrantState,
    /// A refresh that was begun with this version and whose end is not recorded: the process died,
    /// and whether the upstream has rotated the token is unknown.
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

/// How far a refresh had come when the process ended.
#[derive(Clone, Debug)]
pub enum RefreshStep {
    /// Nothing was about to be sent.
    Begun,
    /// The request was about to be sent, or was.
    Posted,
    /// Tokens came at this moment and are not known to be stored.
    Received {
        /// What came.
        tokens: Tokens,
        /// When.
        at: Unix,
    },
}

impl RefreshStep {
    /// Its name in the log.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Posted => "posted",
            Self::Received { .. } => "received",
        }
    }
}

/// A refresh that a process before this one did not end.
#[derive(Clone, Debug)]
pub struct OpenRefresh {
    /// The tenant.
    pub tenant: TenantName,
    /// The version that was to be refreshed.
    pub version: u64,
    /// How far it had come.
    pub step: RefreshStep,
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
