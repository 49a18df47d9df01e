//! Grants that leave for another place: looked at, and held here where that is wished.
//!
//! The desk has set the tenant aside, so that no refresh is under way: a refresh token that is
//! being spent never leaves. A grant that is dead, or of which nobody knows whether its refresh
//! token is spent, is worth nothing elsewhere and stays.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::Tokens;
use super::actor::Request;
use super::desk::Job;
use crate::engine::TenantName;
use crate::store::{Grant, GrantState, Store, StoreError};

/// What becomes of a tenant here when its grant was taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// It goes on, and whoever refreshes first spends the other's refresh token.
    GoesOn,
    /// Its calls are held and nothing is refreshed until an operator says so.
    Held,
}

/// Why a grant was not taken out.
#[derive(Debug, thiserror::Error)]
pub enum TakeOutError {
    /// There is no such tenant.
    #[error("there is no such tenant")]
    UnknownTenant,
    /// Its refresh token is dead.
    #[error("its grant is dead: the account must be connected again")]
    NeedsAuthorization,
    /// The answer to a refresh was lost.
    #[error(
        "the answer to a refresh was lost, so its refresh token may be spent; order a refresh and \
         export it when it is ready"
    )]
    Doubtful,
    /// The store could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keeper has stopped, or whoever asked has left.
    #[error("the token keeper has stopped")]
    Stopped,
}

/// What is sent to those who asked.
pub(super) type Taken = Result<Box<Grant>, TakeOutError>;

impl Tokens {
    /// Gives a copy of a tenant's grant, and holds the tenant when that is wished. Waits for a
    /// refresh that is under way; when the caller leaves meanwhile, nothing is done.
    ///
    /// # Errors
    /// [`TakeOutError`] says why the grant is worth nothing elsewhere.
    pub async fn take_out(&self, tenant: &TenantName, afterwards: Afterwards) -> Taken {
        let ask = |reply| Request::Job(tenant.clone(), Job::TakeOut { afterwards, reply });
        self.ask(ask).await.unwrap_or(Err(TakeOutError::Stopped))
    }
}

/// Looks at the grant of a tenant that is set aside.
pub(super) async fn take_out(
    store: &Arc<dyn Store>,
    tenant: &TenantName,
    afterwards: Afterwards,
    reply: &oneshot::Sender<Taken>,
) -> Taken {
    if reply.is_closed() {
        // whoever asked has left: a tenant that is held for nobody would be held for nothing
        return Err(TakeOutError::Stopped);
    }
    let grant = store.grant(tenant).await?.ok_or(TakeOutError::UnknownTenant)?;
    match grant.state {
        GrantState::NeedsAuthorization { .. } => return Err(TakeOutError::NeedsAuthorization),
        GrantState::Ready if grant.refresh_begun_at.is_some() => {
            return Err(TakeOutError::Doubtful);
        }
        GrantState::Ready => {}
    }
    if afterwards == Afterwards::Held && !store.pause_tenant(tenant, true).await? {
        return Err(TakeOutError::UnknownTenant);
    }
    Ok(Box::new(grant))
}
