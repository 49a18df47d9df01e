//! New tokens are kept on this machine until the server surely has them.
//!
//! What is promised: a server that is killed, cut from its power, or replaced by an older copy just
//! after it took new tokens gets them again. One with `appendfsync everysec` may lose what it was
//! given in the last second or two, so the journal's record of a refresh is ended only when the
//! grant still has its tokens once they are synced. A server that can say so (`WAITAOF`) is asked;
//! of another that is believed after [`SETTLE_TIME`]. If the grant has older tokens then, the new
//! ones are written again, by the instance that got them; if this process has died meanwhile, its
//! next start finds them in the journal. Grants that are gone altogether are not made again here.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::Server;
use super::grants::{self, Change};
use crate::engine::{TenantName, Unix};
use crate::store::Tokens;
use crate::store::journal::Journal;

/// After so long a server that syncs each second has synced, one second late included.
pub(super) const SETTLE_TIME: Duration = Duration::from_secs(2);

/// Tokens that a refresh brought and that were written to the server.
pub(super) struct Written {
    pub(super) tenant: TenantName,
    /// The version that was refreshed; the tokens are of the next one.
    pub(super) version: u64,
    pub(super) tokens: Tokens,
    pub(super) at: Unix,
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

async fn is_settled(server: &Server, written: &Written) -> bool {
    let Written { tenant, version, tokens, at } = written;
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
