//! The table beside a store that other instances change too, and that can lose what it had.
//!
//! The store's word counts, but for what it has lost: then a client is written again as it is known
//! here, with the keys that it had. Nobody can show a key again, so one that is lost would have to
//! be given out anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, MutexGuard, PoisonError};

use tracing::warn;

use super::{Clients, Held};
use crate::engine::{ClientName, Unix};
use crate::store::{Changed, Client, Fate, Missing, Removals, StoreError};

impl Clients {
    /// Reads the clients again, since another instance has changed some, or the store has lost
    /// some: `missing` says which. What is changed here meanwhile stays as it is: that change is
    /// told of too.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read or written.
    pub async fn reread(
        &self,
        missing: impl Fn(&ClientName) -> Missing + Send + Sync,
    ) -> Result<(), StoreError> {
        let name = |held: &Held| (held.client.name.clone(), held.client.clone());
        let mut before: BTreeMap<_, _> = self.by_name.iter().map(|held| name(&held)).collect();
        for there in self.store.clients().await? {
            let ours = before.remove(&there.name);
            let held = self.by_name.get(&there.name).map(|held| held.clone());
            match (ours, held) {
                (Some(ours), _) if ours.is_same_as(&there) => {}
                (None, None) => self.take_up(there, &missing).await?,
                (Some(ours), Some(held)) if Arc::ptr_eq(&ours, &held.client) => {
                    let thing = Changed::Client(there.name.clone());
                    if missing(&there.name).counts_here(self.store.as_ref(), &thing).await? {
                        self.change_back(&ours, &there).await?;
                    } else {
                        let last_used_at = there.last_used_at.max(held.uses.last());
                        self.hold(Client { last_used_at, ..there });
                    }
                }
                // changed here meanwhile
                (Some(_), Some(_) | None) | (None, Some(_)) => {}
            }
        }
        self.reread_absent(before.into_values().collect(), &missing).await
    }

    /// These are known here and were not in the store.
    async fn reread_absent(
        &self,
        absent: Vec<Arc<Client>>,
        missing: impl Fn(&ClientName) -> Missing,
    ) -> Result<(), StoreError> {
        let mut gone = Vec::new();
        for ours in absent {
            let (name, thing) = (&ours.name, Changed::Client(ours.name.clone()));
            match missing(name).fate(self.store.as_ref(), &thing).await? {
                Fate::Lost => self.add_again(&ours).await?,
                fate @ (Fate::Removed | Fate::Gone) => gone.push((ours, fate)),
            }
        }
        if gone.is_empty() {
            return Ok(());
        }
        // what was told of may be that another instance has restored it since they were read
        let there: BTreeSet<_> =
            self.store.clients().await?.into_iter().map(|it| it.name).collect();
        for (ours, fate) in gone.into_iter().filter(|(ours, _)| !there.contains(&ours.name)) {
            if fate == Fate::Removed {
                self.remember_removal(&ours);
            }
            let is_gone = |_: &ClientName, held: &Held| Arc::ptr_eq(&held.client, &ours);
            if self.by_name.remove_if(&ours.name, is_gone).is_some() {
                self.by_key.retain(|_, held| !Arc::ptr_eq(&held.client, &ours));
            }
        }
        Ok(())
    }

    /// Takes a client that is not known here, unless it was removed and has come back with a store
    /// that has lost that: then its key must open nothing again.
    async fn take_up(
        &self,
        there: Client,
        missing: impl Fn(&ClientName) -> Missing,
    ) -> Result<(), StoreError> {
        let thing = Changed::Client(there.name.clone());
        let was_removed = self.was_removed(&there);
        if was_removed && missing(&there.name).counts_here(self.store.as_ref(), &thing).await? {
            warn!(client = %there.name, "the store has lost its removal; it is removed again");
            return self.store.remove_client(&there.name).await.map(drop);
        }
        self.hold(there);
        Ok(())
    }

    pub(super) fn remember_removal(&self, client: &Client) {
        let (now, name) = (self.clock.mono(), client.name.clone());
        self.removals().remember(name, client.created_at, now);
    }

    fn was_removed(&self, there: &Client) -> bool {
        let now = self.clock.mono();
        self.removals().last(&there.name, now) == Some(&there.created_at)
    }

    fn removals(&self) -> MutexGuard<'_, Removals<ClientName, Unix>> {
        self.removals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn add_again(&self, ours: &Client) -> Result<(), StoreError> {
        warn!(client = %ours.name, "the store has lost a client; it is restored");
        taken(self.store.add_client(ours.clone()).await)
    }

    /// The store has a client as it was before.
    async fn change_back(&self, ours: &Client, there: &Client) -> Result<(), StoreError> {
        if there.created_at == ours.created_at && there.tenants == ours.tenants {
            warn!(client = %ours.name, "the store has lost a client's keys; they are restored");
            return taken(self.store.change_client_keys(&ours.name, ours.keys).await.map(drop));
        }
        // what had this name before was removed
        self.store.remove_client(&there.name).await?;
        self.add_again(ours).await
    }
}

impl Client {
    fn is_same_as(&self, other: &Self) -> bool {
        self.name == other.name
            && self.tenants == other.tenants
            && self.created_at == other.created_at
            && self.keys == other.keys
    }
}

/// Another instance may have been first, which is told of.
fn taken(written: Result<(), StoreError>) -> Result<(), StoreError> {
    match written {
        Ok(()) | Err(StoreError::Exists { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
