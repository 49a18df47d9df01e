//! A tenant as the keeper's task holds it: the grant with its secrets, and tokens that are not
//! stored yet.

use std::sync::Arc;

use super::endpoint::Received;
use super::{TenantState, claims};
use crate::engine::Unix;
use crate::engine::token::Known;
use crate::store::{Grant, GrantState, Tokens};

/// Tokens that came and are not known to be stored.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) tokens: Tokens,
    pub(super) received_at: Unix,
}

#[derive(Debug)]
pub(super) struct Record {
    pub(super) grant: Grant,
    pub(super) pending: Option<Arc<Pending>>,
    /// The state and reason that observers were last told.
    pub(super) told: Option<(TenantState, Option<String>)>,
}

impl Record {
    pub(super) const fn new(grant: Grant) -> Self {
        Self { grant, pending: None, told: None }
    }

    /// Takes received tokens into custody; returns when the access token ends.
    pub(super) fn receive(&mut self, received: Received, now: Unix) -> Option<Unix> {
        let access_expires_at = received
            .access
            .as_ref()
            .map(|access| claims::expiry(access.expose(), received.expires_in, now));
        let refresh = received.refresh.unwrap_or_else(|| self.grant.tokens.refresh.clone());
        let tokens = Tokens { access: received.access, access_expires_at, refresh };
        self.pending = Some(Arc::new(Pending { tokens, received_at: now }));
        access_expires_at
    }

    /// The pending tokens are durable as `version`.
    pub(super) fn stored(&mut self, version: u64) {
        if let Some(pending) = self.pending.take() {
            self.grant.tokens = pending.tokens.clone();
            self.grant.last_refreshed_at = Some(pending.received_at);
            self.grant.state = GrantState::Ready;
            self.grant.refresh_begun_at = None;
            self.grant.version = version;
        }
    }

    /// What the machine is told of it.
    pub(super) fn known(grant: &Grant) -> Known {
        Known {
            api_key: grant.api_key.clone(),
            version: grant.version,
            access_expires_at: grant.tokens.access.as_ref().and(grant.tokens.access_expires_at),
            last_refreshed_at: grant.last_refreshed_at,
            refresh_begun: grant.refresh_begun_at.is_some(),
            needs_authorization: match &grant.state {
                GrantState::Ready => None,
                GrantState::NeedsAuthorization { reason } => Some(Arc::from(reason.as_str())),
            },
        }
    }
}
