//! The programs that may call: a table from the digest of a key to the client that holds it.
//!
//! Read on every request, changed by an operator now and then; each change is in the store before
//! it is in the table. A key is known here only by its digest. While a client changes its key the
//! old one works a while longer. When clients last called is remembered here and written now and
//! then. Where other instances change clients too, the table is brought to the store's now and
//! then, and what that has lost is written again.

mod follow;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dashmap::DashMap;
use tracing::warn;

use crate::clock::Clock;
use crate::engine::{ClientName, Unix};
use crate::secret::{ClientKey, ClientKeyDigest};
use crate::store::{
    Client, ClientKeys, Missing, PreviousKey, Removals, Revision, Store, StoreError, TenantScope,
};

/// The clients; clones share the table.
#[derive(Clone)]
pub struct Clients {
    store: Arc<dyn Store>,
    clock: Clock,
    by_key: Arc<DashMap<ClientKeyDigest, Held>>,
    by_name: Arc<DashMap<ClientName, Held>>,
    /// By when they were made, which tells them from later ones.
    removals: Arc<Mutex<Removals<ClientName, Unix>>>,
}

/// Why a key opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefused {
    /// Nobody holds it.
    #[error("the client key is not one that this proxy has given out")]
    Unknown,
    /// Its time is over.
    #[error("the client key has expired; an operator makes a new one with client rotate")]
    Expired,
}

impl Clients {
    /// The clients in the store.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    pub async fn load(store: Arc<dyn Store>, clock: Clock) -> Result<Self, StoreError> {
        let read = store.clients().await?;
        let (by_key, by_name, removals) = (Arc::default(), Arc::default(), Arc::default());
        let clients = Self { store, clock, by_key, by_name, removals };
        for client in read {
            clients.hold(client);
        }
        Ok(clients)
    }

    /// The client that holds `key`; it is taken down that it called.
    ///
    /// # Errors
    /// [`KeyRefused`] when nobody does, or not any more.
    pub fn holder(&self, key: &str) -> Result<Arc<Client>, KeyRefused> {
        if !ClientKey::has_form(key) {
            return Err(KeyRefused::Unknown);
        }
        let digest = ClientKeyDigest::of(key);
        let held = self.by_key.get(&digest).map(|held| held.clone()).ok_or(KeyRefused::Unknown)?;
        let now = self.clock.now().unix;
        if held.client.keys.end_of(&digest).is_some_and(|end| end <= now) {
            return Err(KeyRefused::Expired);
        }
        held.uses.now(now);
        Ok(held.client)
    }

    /// The client of this name, for a caller whose certificate says it; it is taken down that it
    /// called. When keys end is not looked at: a certificate has an end of its own.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<Arc<Client>> {
        let name = ClientName::new(name).ok()?;
        let held = self.by_name.get(&name).map(|held| held.clone())?;
        held.uses.now(self.clock.now().unix);
        Some(held.client)
    }

    /// Adds a client and returns its key, which nobody can show again. It works for `life`, or for
    /// ever.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when the name is taken, or the store cannot be written.
    pub async fn add(
        &self,
        name: ClientName,
        tenants: TenantScope,
        life: Option<Duration>,
    ) -> Result<(ClientKey, Arc<Client>), StoreError> {
        let key = ClientKey::generate();
        let created_at = self.clock.now().unix;
        let expires_at = life.map(|life| created_at.plus(life));
        let keys = ClientKeys { current: key.digest(), expires_at, previous: None };
        let client = Client { name, tenants, created_at, keys, last_used_at: None };
        self.store.add_client(client.clone()).await?;
        Ok((key, self.hold(client)))
    }

    /// Gives a client a new key, which works for `life` or for ever; the old one works for
    /// `overlap` longer, if it does not end before. `None` when there is no client of that name.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be written; the old key is the client's then.
    pub async fn rotate(
        &self,
        name: &ClientName,
        overlap: Duration,
        life: Option<Duration>,
    ) -> Result<Option<(ClientKey, Arc<Client>)>, StoreError> {
        if self.store.is_shared() {
            // its key may have been changed elsewhere a moment ago
            self.reread(|_| Missing::AsTold { known: Revision(u64::MAX) }).await?;
        }
        let Some(held) = self.by_name.get(name).map(|held| held.clone()) else { return Ok(None) };
        let (key, now) = (ClientKey::generate(), self.clock.now().unix);
        let until = now.plus(overlap);
        let until = held.client.keys.expires_at.map_or(until, |end| end.min(until));
        let previous = PreviousKey { digest: held.client.keys.current, until };
        let keys = ClientKeys {
            current: key.digest(),
            expires_at: life.map(|life| now.plus(life)),
            previous: (until > now).then_some(previous),
        };
        if !self.store.change_client_keys(name, keys).await? {
            return Ok(None);
        }
        let client = Client { keys, last_used_at: held.uses.last(), ..(*held.client).clone() };
        Ok(Some((key, self.hold(client))))
    }

    /// Removes a client: its key is refused from now on. `false` when there is none of that name.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be written.
    pub async fn remove(&self, name: &ClientName) -> Result<bool, StoreError> {
        let removed = self.store.remove_client(name).await?;
        if let Some((_, held)) = self.by_name.remove(name) {
            self.remember_removal(&held.client);
        }
        self.by_key.retain(|_, held| held.client.name != *name);
        Ok(removed)
    }

    /// All clients, by name.
    #[must_use]
    pub fn list(&self) -> Vec<Client> {
        let whole =
            |held: &Held| Client { last_used_at: held.uses.last(), ..(*held.client).clone() };
        let mut clients: Vec<_> = self.by_name.iter().map(|held| whole(&held)).collect();
        clients.sort_by(|one, other| one.name.cmp(&other.name));
        clients
    }

    /// Writes down who has called since the last time; what cannot be written now is written later.
    pub async fn record_use(&self) {
        let mut news = Vec::new();
        for held in self.by_name.iter() {
            if let Some(at) = held.uses.news() {
                news.push((held.client.name.clone(), at, held.uses.clone()));
            }
        }
        if news.is_empty() {
            return;
        }
        let used: Vec<_> = news.iter().map(|(name, at, _)| (name.clone(), *at)).collect();
        match self.store.record_client_use(&used).await {
            Ok(()) => news.iter().for_each(|(_, at, uses)| uses.written(*at)),
            Err(error) => warn!(%error, "when clients last called could not be written down"),
        }
    }

    /// Takes a client into the table, in the place of one of the same name. At no moment is a key
    /// unknown that works before and after.
    fn hold(&self, client: Client) -> Arc<Client> {
        let client = Arc::new(client);
        let held = Held { client: client.clone(), uses: Uses::since(client.last_used_at) };
        let keys = client.keys;
        for digest in keys.digests() {
            self.by_key.insert(digest, held.clone());
        }
        self.by_key.retain(|digest, held| {
            held.client.name != client.name || keys.digests().any(|known| known == *digest)
        });
        self.by_name.insert(client.name.clone(), held);
        client
    }
}

impl ClientKeys {
    fn digests(&self) -> impl Iterator<Item = ClientKeyDigest> + use<> {
        std::iter::once(self.current).chain(self.previous.map(|previous| previous.digest))
    }

    /// When the key of `digest` stops working, if ever.
    fn end_of(&self, digest: &ClientKeyDigest) -> Option<Unix> {
        if self.current == *digest {
            return self.expires_at;
        }
        self.previous.map(|previous| previous.until)
    }
}

#[derive(Clone)]
struct Held {
    client: Arc<Client>,
    uses: Uses,
}

/// When a client last called, and what of that is written down, in milliseconds since the epoch; 0
/// is never.
#[derive(Clone)]
struct Uses(Arc<(AtomicU64, AtomicU64)>);

impl Uses {
    fn since(last: Option<Unix>) -> Self {
        let last = last.map_or(0, millis);
        Self(Arc::new((AtomicU64::new(last), AtomicU64::new(last))))
    }

    fn now(&self, at: Unix) {
        self.0.0.fetch_max(millis(at), Ordering::Relaxed);
    }

    fn last(&self) -> Option<Unix> {
        let last = self.0.0.load(Ordering::Relaxed);
        (last > 0).then(|| Unix::new(Duration::from_millis(last)))
    }

    /// The last call, if it is not written down.
    fn news(&self) -> Option<Unix> {
        let written = self.0.1.load(Ordering::Relaxed);
        self.last().filter(|last| millis(*last) > written)
    }

    fn written(&self, at: Unix) {
        self.0.1.fetch_max(millis(at), Ordering::Relaxed);
    }
}

fn millis(at: Unix) -> u64 {
    u64::try_from(at.since_epoch().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
