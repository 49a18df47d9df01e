//! New tokens are kept on this machine until the server surely has them.
//!
//! What is promised: a server that is killed, cut from its power, or replaced by an older copy just
//! after it took new tokens gets them again. One with `appendfsync everysec` may lose what it was
//! given in the last second or two, so the journal's record of a refresh is ended only when the
//! grant still has its tokens once they are synced. A server that can say so (`WAITAOF`) is asked;
//! of another that is believed after [`SETTLE_TIME`]. If the grant has older tokens then, the new
//! ones are written again, by the instance that got them; if this process has died meanwhile, its
//! next start finds them in the journal. If the server does not have their version then, they wait
//! there until it does: until another instance has written the grant again, which is not done here.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::Server;
use super::changes;
use super::grants::{self, Change};
use crate::engine::{TenantName, Unix};
use crate::store::journal::Journal;
use crate::store::{Changed, OpenRefresh, RefreshStep, Tokens};

/// After so long a server that syncs each second has synced, one second late included.
pub(super) const SETTLE_TIME: Duration = Duration::from_secs(2);

/// How often a server that has lost a grant is asked whether it has it again.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Tokens that a refresh brought and that were written to the server.
pub(super) struct Written {
    tenant: TenantName,
    /// The version that was refreshed; the tokens are of the next one.
    version: u64,
    tokens: Tokens,
    at: Unix,
    /// They were left by a process that died, and the server is behind.
    is_ahead: bool,
}

impl Written {
    pub(super) fn new(tenant: &TenantName, version: u64, tokens: &Tokens, at: Unix) -> Self {
        Self { tenant: tenant.clone(), version, tokens: tokens.clone(), at, is_ahead: false }
    }

    /// What a process before this one left; `None` when no tokens had come.
    pub(super) fn left(left: OpenRefresh) -> Option<Self> {
        let OpenRefresh { tenant, version, step } = left;
        let RefreshStep::Received { tokens, at } = step else { return None };
        Some(Self { tenant, version, tokens, at, is_ahead: true })
    }
}

/// Watches over what was written until it is settled; what is not when the store closes stays in
/// the journal.
pub(super) async fn settle(
    server: &Server,
    journal: &Journal,
    closed: &CancellationToken,
    written: &Written,
) {
    let settling = async {
        while written.is_ahead && is_behind(server, written).await {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        loop {
            if !server.link.is_synced(&server.names.synced(), SETTLE_TIME).await {
                tokio::time::sleep(SETTLE_TIME).await;
            }
            if is_settled(server, written).await {
                journal.ended_of(&written.tenant, written.version).await;
                return;
            }
        }
    };
    tokio::select! {
        () = settling => {}
        () = closed.cancelled() => {}
    }
}

/// Whether the server has not got the version back yet that the tokens came for. It gets them when
/// it has that one or one before; a tenant that was removed needs none.
async fn is_behind(server: &Server, written: &Written) -> bool {
    match grants::version(server, &written.tenant).await {
        Ok(None) => {
            let tenant = Changed::Tenant(written.tenant.clone());
            !changes::last_told(server, &tenant).await.is_ok_and(|told| told.at.is_some())
        }
        Ok(Some(_)) => !is_settled(server, written).await,
        Err(_) => true,
    }
}

async fn is_settled(server: &Server, written: &Written) -> bool {
    let Written { tenant, version, tokens, at, .. } = written;
    let next = version.saturating_add(1);
    match grants::version(server, tenant).await {
        // it was removed, or the server came back empty: there is nothing to put the tokens into
        Ok(None) => true,
        Ok(Some(stored)) if stored >= next => true,
        Ok(Some(older)) => {
            warn!(%tenant, "the Redis server came back without the newest tokens; writing them");
            let change = Change::finish(server, tenant, next, tokens, *at);
            if let Err(error) = grants::change(server, tenant, older, &change).await {
                error!(%tenant, %error, "new tokens are not in the Redis store; trying again");
            }
            false
        }
        Err(_) => false,
    }
}
