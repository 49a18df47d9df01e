//! Clients as the store has them: the programs that may call, known by digests of their keys.

use std::collections::BTreeSet;

use crate::engine::{ClientName, TenantName, Unix};
use crate::secret::ClientKeyDigest;

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
    /// The tenants that it may act for.
    pub tenants: TenantScope,
    /// When it was made.
    pub created_at: Unix,
    /// What it shows.
    pub keys: ClientKeys,
    /// When it last called, to within a minute or so.
    pub last_used_at: Option<Unix>,
}

/// What a client may show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientKeys {
    /// The digest of its key.
    pub current: ClientKeyDigest,
    /// When that key stops working, if ever.
    pub expires_at: Option<Unix>,
    /// The key before it, while both work.
    pub previous: Option<PreviousKey>,
}

/// A key that has been replaced and works a while longer, so that its holder need not stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreviousKey {
    /// The digest of the key.
    pub digest: ClientKeyDigest,
    /// When it stops working.
    pub until: Unix,
}

impl Client {
    /// Whether the client may act for `tenant`.
    #[must_use]
    pub fn may_act_for(&self, tenant: &TenantName) -> bool {
        match &self.tenants {
            TenantScope::All => true,
            TenantScope::Some(tenants) => tenants.contains(tenant),
        }
    }
}
