//! The token endpoint as the keeper sees it: one question, and every way in which it can end.
//!
//! The difference that matters is whether the upstream may have rotated the refresh token: nothing
//! was sent, it was sent and the answer is lost, or there was an answer. Texts in answers are for
//! logs and hold no secret.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::Uri;

use crate::config::AuthStyle;
use crate::engine::token::{RefreshResult, Trouble};
use crate::secret::Secret;

/// How an API key authenticates at its token endpoint.
#[derive(Clone, Debug)]
pub struct KeyAuth {
    /// The OAuth `client_id`.
    pub client_id: String,
    /// The OAuth secret; a public client has none.
    pub secret: Option<Secret<String>>,
    /// Where id and secret go.
    pub auth_style: AuthStyle,
    /// The token endpoint.
    pub token_url: Uri,
}

impl KeyAuth {
    /// Whether both authenticate in the same way at the same place.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.client_id == other.client_id
            && self.secret == other.secret
            && self.auth_style == other.auth_style
            && self.token_url == other.token_url
    }
}

/// Tokens as they came.
#[derive(Clone, Debug)]
pub struct Received {
    /// The access token; `None` when the answer had none that can be used, while the refresh token
    /// was rotated.
    pub access: Option<Secret<String>>,
    /// The new refresh token; `None` when the old one stays (long-lived refresh tokens).
    pub refresh: Option<Secret<String>>,
    /// The life of the access token, as the answer states it.
    pub expires_in: Option<Duration>,
}

/// How a token request ended.
#[derive(Clone, Debug)]
pub enum RefreshAnswer {
    /// New tokens.
    Received(Received),
    /// The refresh token is not accepted.
    InvalidGrant,
    /// The API key is not accepted.
    InvalidClient {
        /// What the endpoint said.
        detail: String,
    },
    /// Nothing was sent.
    NotSent {
        /// Why.
        detail: String,
    },
    /// That it is about to be sent could not be journalled; nothing was sent.
    NotJournalled {
        /// Why.
        detail: String,
    },
    /// The lane had gone to another instance; nothing was sent.
    LaneLost,
    /// Something was sent and no whole answer came.
    Lost {
        /// What happened.
        detail: String,
    },
    /// A whole answer that is neither.
    Trouble {
        /// Which kind.
        trouble: Trouble,
        /// What the endpoint said.
        detail: String,
    },
}

impl RefreshAnswer {
    /// Its name in metrics.
    #[must_use]
    pub const fn outcome(&self) -> &'static str {
        match self {
            Self::Received(_) => "ok",
            Self::InvalidGrant => "invalid_grant",
            Self::InvalidClient { .. } => "invalid_client",
            Self::NotSent { .. } => "unreachable",
            Self::NotJournalled { .. } => "not_journalled",
            Self::LaneLost => "lane_lost",
            Self::Lost { .. } => "lost",
            Self::Trouble { trouble: Trouble::TooManyRequests, .. } => "throttled",
            Self::Trouble { .. } => "error",
        }
    }
}

impl RefreshAnswer {
    /// What a token lane learns from it; when tokens end is of no interest there.
    #[must_use]
    pub const fn result(&self) -> RefreshResult {
        match self {
            Self::Received(_) => RefreshResult::Received { access_expires_at: None },
            Self::InvalidGrant => RefreshResult::InvalidGrant,
            Self::InvalidClient { .. } => RefreshResult::InvalidClient,
            Self::NotSent { .. } => RefreshResult::NotSent,
            Self::NotJournalled { .. } => RefreshResult::NotJournalled,
            Self::LaneLost => RefreshResult::LaneLost,
            Self::Lost { .. } => RefreshResult::Lost,
            Self::Trouble { trouble, .. } => RefreshResult::Trouble(*trouble),
        }
    }
}

impl fmt::Display for RefreshAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Received(_) => f.write_str("new tokens"),
            Self::InvalidGrant => f.write_str("the refresh token is not accepted"),
            Self::LaneLost => f.write_str("another instance has taken the token lane over"),
            Self::InvalidClient { detail }
            | Self::NotSent { detail }
            | Self::NotJournalled { detail }
            | Self::Lost { detail }
            | Self::Trouble { detail, .. } => f.write_str(detail),
        }
    }
}

/// Whether a request may still leave; asked at the last moment.
pub type MayLeave = Arc<dyn Fn() -> bool + Send + Sync>;

/// A token endpoint, or a stand-in.
#[async_trait]
pub trait TokenEndpoint: Send + Sync + 'static {
    /// Exchanges `refresh_token` for new tokens. Runs to its end within a bounded time and is never
    /// repeated inside: the caller decides about repeats.
    async fn refresh(&self, key: &KeyAuth, refresh_token: &Secret<String>) -> RefreshAnswer;

    /// The same, but the token does not leave, and [`RefreshAnswer::LaneLost`] is the answer, when
    /// it may not by then. One that sends at once need not look again.
    async fn refresh_while(
        &self,
        key: &KeyAuth,
        refresh_token: &Secret<String>,
        may_leave: MayLeave,
    ) -> RefreshAnswer {
        if may_leave() { self.refresh(key, refresh_token).await } else { RefreshAnswer::LaneLost }
    }
}

/// Whether `text` can be a token: visible ASCII (RFC 6750 section 2.1 allows less).
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}
