//! The programs that may call: a table from the digest of a key to the client that holds it.
//!
//! Read on every request, changed by an operator now and then; each change is in the store before
//! it is in the table. A key is known here only by its digest.

use std::sync::Arc;

use dashmap::DashMap;

use crate::clock::Clock;
use crate::engine::{ClientName, TenantName};
use crate::secret::{ClientKey, ClientKeyDigest};
use crate::store::{Client, Store, StoreError, TenantScope};

/// The clients; clones share the table.
#[derive(Clone)]
pub struct Clients {
    store: Arc<dyn Store>,
    clock: Clock,
    table: Arc<DashMap<ClientKeyDigest, Arc<Client>>>,
}

impl Clients {
    /// The clients in the store.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    pub async fn load(store: Arc<dyn Store>, clock: Clock) -> Result<Self, StoreError> {
        let table = DashMap::new();
        for client in store.clients().await? {
            table.insert(client.key, Arc::new(client));
        }
        Ok(Self { store, clock, table: Arc::new(table) })
    }

    /// The client that holds `key`.
    #[must_use]
    pub fn holder(&self, key: &str) -> Option<Arc<Client>> {
        if !ClientKey::has_form(key) {
            return None;
        }
        self.table.get(&ClientKeyDigest::of(key)).map(|client| client.clone())
    }

    /// The client of this name, for a caller whose certificate says it. Looked for one by one:
    /// clients are few, and no second table can disagree with the first.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<Arc<Client>> {
        let found = self.table.iter().find(|client| client.name.as_str() == name);
        found.map(|client| client.clone())
    }

    /// Adds a client and returns its key, which nobody can show again.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when the name is taken, or the store cannot be written.
    pub async fn add(
        &self,
        name: ClientName,
        tenants: TenantScope,
    ) -> Result<ClientKey, StoreError> {
        let key = ClientKey::generate();
        let created_at = self.clock.now().unix;
        let client = Client { name, key: key.digest(), tenants, created_at };
        self.store.add_client(client.clone()).await?;
        self.table.insert(client.key, Arc::new(client));
        Ok(key)
    }

    /// Removes a client: its key is refused from now on. `false` when there is none of that name.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be written.
    pub async fn remove(&self, name: &ClientName) -> Result<bool, StoreError> {
        let removed = self.store.remove_client(name).await?;
        self.table.retain(|_, client| client.name != *name);
        Ok(removed)
    }

    /// All clients, by name.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Client>> {
        let mut clients: Vec<_> = self.table.iter().map(|client| client.value().clone()).collect();
        clients.sort_by(|one, other| one.name.cmp(&other.name));
        clients
    }
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
