//! The words of the token keeper: what it is told, what it orders, and how it calls the state of a
//! tenant.
//!
//! Plain data; the rules are in the files beside this one. Nothing here holds a token: the machine
//! works on versions, and whoever drives it holds the secrets that belong to them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::{ApiKeyName, Mono, TenantName, Unix};

/// How the keeper is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Least time from a token answer to the next token request of the same API key.
    pub refresh_interval: Duration,
    /// A token with less life than this is refreshed before use.
    pub refresh_margin: Duration,
    /// Tokens of tenants in use, and new grants, are refreshed up to this long before they end;
    /// zero is never.
    pub refresh_ahead: Duration,
    /// Refresh tokens that were not used for so long are used; zero is never.
    pub keep_alive_after: Duration,
}

/// What is known of a tenant's grant, as a store or an operator gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The API key that it belongs to.
    pub api_key: ApiKeyName,
    /// The version of its tokens.
    pub version: u64,
    /// When the access token ends; `None` when there is none, or its end is not known.
    pub access_expires_at: Option<Unix>,
    /// When the tokens were last refreshed.
    pub last_refreshed_at: Option<Unix>,
    /// When a call last left.
    pub last_used_at: Option<Unix>,
    /// A request with this version was about to be sent, or was, and its end is not recorded.
    pub refresh_begun: bool,
    /// Tokens that came for this version and were not stored; whoever drives the machine has them.
    pub unstored: Option<Unstored>,
    /// The refresh token is dead, and why.
    pub needs_authorization: Option<Arc<str>>,
}

/// Tokens that wait for the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unstored {
    /// When the access token ends; `None` when there is none.
    pub access_expires_at: Option<Unix>,
}

/// The lane of an API key, as operators see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneOutlook {
    /// Tenants that are being refreshed or wait for it.
    pub depth: usize,
    /// When the last of them will be done; `None` when there is none or nothing can be asked.
    pub done_at: Option<Unix>,
}

/// How a write to the store ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write<T = ()> {
    /// It is durable.
    Done(T),
    /// It may or may not have happened; it can be repeated.
    Failed,
    /// The version that it was based on is not the current one.
    Conflict,
}

/// How a read of one grant ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// The grant.
    Found(Known),
    /// There is none.
    Gone,
    /// The store could not be read.
    Failed,
}

/// How a token request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshResult {
    /// New tokens are in the hands of whoever drives the machine.
    Received {
        /// When the new access token ends; `None` when the answer brought no usable one.
        access_expires_at: Option<Unix>,
    },
    /// The refresh token is not accepted (RFC 6749 section 5.2 `invalid_grant`): final.
    InvalidGrant,
    /// The API key is not accepted (`invalid_client`): no fault of the tenant.
    InvalidClient,
    /// No connection; nothing was sent.
    NotSent,
    /// That it is about to be sent could not be journalled; nothing was sent.
    NotJournalled,
    /// The lane had gone to another instance before anything was sent.
    LaneLost,
    /// Something was sent and no whole answer came: whether the token was rotated is unknown.
    Lost,
    /// A whole answer that is neither tokens nor a verdict.
    Trouble(Trouble),
}

/// Answers of a token endpoint that say nothing about the refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// 429.
    TooManyRequests,
    /// 5xx.
    ServerError,
    /// 403 without a verdict: something in front of the endpoint.
    Blocked,
    /// A success without tokens: empty, HTML, not JSON.
    NotTokens,
    /// Anything else.
    Unexpected,
}

impl Trouble {
    /// Whether the endpoint may have rotated the token all the same: a gateway's 504 can hide a
    /// success.
    #[must_use]
    pub const fn may_have_rotated(self) -> bool {
        match self {
            Self::ServerError | Self::NotTokens => true,
            Self::TooManyRequests | Self::Blocked | Self::Unexpected => false,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooManyRequests => "the token endpoint asks to slow down",
            Self::ServerError => "the token endpoint answers with a server error",
            Self::Blocked => "the token endpoint is blocked by something in front of it",
            Self::NotTokens => "the token endpoint answers without tokens",
            Self::Unexpected => "the token endpoint answers with something unexpected",
        })
    }
}

/// Why no token can be had now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The endpoint answers, but not with tokens.
    Endpoint(Trouble),
    /// The endpoint cannot be reached.
    Unreachable,
    /// Answers of the endpoint do not arrive.
    AnswerLost,
    /// The endpoint does not accept the API key.
    ClientRefused,
    /// The store cannot be written or read.
    Store,
    /// The new token is of no use now: it ended before it came (look at the clock), or there was
    /// none.
    UselessToken,
    /// The API key is not configured.
    ApiKeyUnknown,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Endpoint(trouble) => return trouble.fmt(f),
            Self::Unreachable => "the token endpoint cannot be reached",
            Self::AnswerLost => "the answer of the token endpoint did not arrive",
            Self::ClientRefused => {
                "the token endpoint does not accept the API key's client id or secret"
            }
            Self::Store => "the store cannot be written",
            Self::UselessToken => "the new access token had already ended when it came",
            Self::ApiKeyUnknown => "the tenant's API key is not configured",
        })
    }
}

/// Whether a tenant's calls can be sent now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// There is a usable access token.
    Ready,
    /// There is none; it is refreshed when somebody waits for it.
    Waiting,
    /// There is none, and none can be had now.
    Failing {
        /// The earliest moment of the next try.
        retry_at: Mono,
        /// What is wrong.
        cause: Cause,
    },
    /// The refresh token is dead; the account's owner must connect again.
    NeedsAuthorization {
        /// Why, in words for an operator.
        reason: Arc<str>,
    },
}

/// What somebody should look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// The store does not take new tokens. The write is repeated for ever; meanwhile the access
    /// token serves.
    TokensNotStored,
    /// A refresh cannot be journalled, so none is sent.
    IntentNotStored,
    /// That a refresh token is dead cannot be stored.
    VerdictNotStored,
    /// A grant cannot be read again.
    GrantNotRead,
    /// The endpoint does not accept the API key.
    ClientRefused,
    /// A success without tokens.
    NotTokens,
    /// An answer was lost; the refresh is tried once more.
    AnswerLost,
    /// The answer to the repeat was lost too; the tenant is left alone for a while.
    AnswerLostAgain,
    /// A new access token had already ended when it came, or there was none.
    UselessToken,
    /// A refresh token was not used for so long that it will soon be dead.
    RefreshTokenAgeing,
}

impl Alarm {
    /// Its public name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TokensNotStored => "tokens_not_stored",
            Self::IntentNotStored => "intent_not_stored",
            Self::VerdictNotStored => "verdict_not_stored",
            Self::GrantNotRead => "grant_not_read",
            Self::ClientRefused => "client_refused",
            Self::NotTokens => "not_tokens",
            Self::AnswerLost => "answer_lost",
            Self::AnswerLostAgain => "answer_lost_again",
            Self::UselessToken => "useless_token",
            Self::RefreshTokenAgeing => "refresh_token_ageing",
        }
    }
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TokensNotStored => {
                "new tokens could not be stored; they are kept, used and written again"
            }
            Self::IntentNotStored => "a refresh could not be journalled and was not sent",
            Self::VerdictNotStored => "that a refresh token is dead could not be stored",
            Self::GrantNotRead => "a grant could not be read again",
            Self::ClientRefused => {
                "the token endpoint does not accept the API key: check its id and secret"
            }
            Self::NotTokens => "the token endpoint answered with success but without tokens",
            Self::AnswerLost => "the answer to a refresh was lost; it is tried once more",
            Self::AnswerLostAgain => {
                "the answer to the repeat was lost too; the tenant is left alone for now"
            }
            Self::UselessToken => {
                "the new access token is missing or has already ended: check the clock"
            }
            Self::RefreshTokenAgeing => {
                "the refresh token dies of disuse within 30 days: call or refresh the tenant"
            }
        })
    }
}

/// What the machine orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Take the lane, where it is shared, and journal durably that a refresh of `version` is about
    /// to be sent; answered by `begun` or `occupied`.
    Begin {
        /// Whose.
        tenant: TenantName,
        /// Of which tokens.
        version: u64,
    },
    /// Send the token request; answered by `refreshed`.
    Refresh {
        /// Whose.
        tenant: TenantName,
        /// Of which tokens.
        version: u64,
        /// 1 for the first request with these tokens.
        attempt: u32,
    },
    /// Store the tokens that were received; answered by `persisted`. Repeated until it succeeds.
    Persist {
        /// Whose.
        tenant: TenantName,
        /// The version that was refreshed.
        version: u64,
    },
    /// Take the journalled intent back; answered by `aborted`.
    Abort {
        /// Whose.
        tenant: TenantName,
        /// Of which tokens.
        version: u64,
    },
    /// Read the grant again; answered by `reread`.
    Reread {
        /// Whose.
        tenant: TenantName,
        /// The version that is known.
        version: u64,
    },
    /// Store that the refresh token of `version` is dead; answered by `failed`.
    Fail {
        /// Whose.
        tenant: TenantName,
        /// Of which tokens.
        version: u64,
        /// Why, in words for an operator.
        reason: Arc<str>,
    },
    /// It is the errand's turn; answered by `errand_ended` or `errand_occupied`.
    Errand {
        /// In whose lane.
        api_key: ApiKeyName,
        /// Which.
        id: u64,
    },
    /// A tenant's readiness has changed.
    Changed {
        /// Whose.
        tenant: TenantName,
        /// What it is now.
        readiness: Readiness,
    },
    /// The tenant is gone from the store.
    Forget {
        /// Whose.
        tenant: TenantName,
    },
    /// Somebody should look.
    Alarm {
        /// The tenant that it was noticed at.
        tenant: TenantName,
        /// What.
        alarm: Alarm,
    },
}
