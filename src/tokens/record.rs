//! A tenant as the keeper's task holds it: the grant with its secrets, and tokens that are not
//! stored yet.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tracing::info;

use super::endpoint::Received;
use super::{TenantState, claims};
use crate::engine::Unix;
use crate::engine::token::{Known, Unstored};
use crate::store::{Grant, GrantState, OpenRefresh, RefreshStep, Tokens};

/// Tokens that came and are not known to be stored.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) tokens: Tokens,
    pub(super) received_at: Unix,
    /// They are in the journal, so that a crash does not lose them.
    pub(super) journalled: AtomicBool,
}

#[derive(Debug)]
pub(super) struct Record {
    pub(super) grant: Grant,
    pub(super) pending: Option<Arc<Pending>>,
    /// When the begin of a refresh was last journalled here.
    pub(super) begun_at: Option<Unix>,
    /// The state and reason that observers were last told.
    pub(super) told: Option<(TenantState, Option<String>)>,
}

impl Record {
    pub(super) const fn new(grant: Grant) -> Self {
        Self { grant, pending: None, begun_at: None, told: None }
    }

    /// A tenant whose last refresh may have been cut off: what the journal knows of it counts.
    pub(super) fn recovered(mut grant: Grant, left: Option<OpenRefresh>) -> Self {
        let left = left.filter(|left| left.version == grant.version);
        if grant.refresh_begun_at.is_none() && left.is_none() {
            return Self::new(grant);
        }
        let step = left.map(|left| left.step);
        info!(
            tenant = %grant.tenant,
            api_key = %grant.api_key,
            step = step.as_ref().map_or("begun", RefreshStep::as_str),
            "the process stopped during a refresh"
        );
        let mut pending = None;
        match step {
            Some(RefreshStep::Received { tokens, at }) => {
                let journalled = AtomicBool::new(true);
                pending = Some(Arc::new(Pending { tokens, received_at: at, journalled }));
            }
            // What was not about to be sent was not sent.
            Some(RefreshStep::Begun) => grant.refresh_begun_at = None,
            Some(RefreshStep::Posted) | None => {}
        }
        Self { pending, ..Self::new(grant) }
    }

    /// Takes received tokens into custody; returns when the access token ends.
    pub(super) fn receive(&mut self, received: Received, now: Unix) -> Option<Unix> {
        let access_expires_at = received
            .access
            .as_ref()
            .map(|access| claims::expiry(access.expose(), received.expires_in, now));
        let refresh = received.refresh.unwrap_or_else(|| self.grant.tokens.refresh.clone());
        let tokens = Tokens { access: received.access, access_expires_at, refresh };
        let journalled = AtomicBool::new(false);
        self.pending = Some(Arc::new(Pending { tokens, received_at: now, journalled }));
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
    pub(super) fn known(&self) -> Known {
        let grant = &self.grant;
        let unstored = self
            .pending
            .as_ref()
            .map(|pending| Unstored { access_expires_at: pending.tokens.access_expires_at });
        Known {
            api_key: grant.api_key.clone(),
            version: grant.version,
            access_expires_at: grant.tokens.access.as_ref().and(grant.tokens.access_expires_at),
            last_refreshed_at: grant.last_refreshed_at,
            last_used_at: grant.last_used_at,
            refresh_begun: grant.refresh_begun_at.is_some(),
            unstored,
            needs_authorization: match &grant.state {
                GrantState::Ready => None,
                GrantState::NeedsAuthorization { reason } => Some(Arc::from(reason.as_str())),
            },
        }
    }
}
