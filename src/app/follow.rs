//! Follows what other instances change in a store that is shared, and tells the shells.
//!
//! It knows up to which revision everything is known here and asks for what came after: each
//! second, when the store says that there is something, and when somebody is about to be refused as
//! unknown. What could not be read is asked for again. A store that does not know any more what was
//! changed is read as a whole. So is one that has lost what it knew, and that gets it again: what
//! it was told since counts, and of everything else what is known here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::clients::Clients;
use crate::clock::Clock;
use crate::engine::{ApiKeyName, ClientName, TenantName};
use crate::gate::Gate;
use crate::store::{Changed, Missing, News, NewsAsked, Revision, Since, Store, StoreError};
use crate::tokens::Tokens;

/// How often the store is asked in any case; with a store that says when there is something, what
/// counts only after its word was lost.
const ASKED_EVERY: Duration = Duration::from_secs(1);
/// Least time between two looks that the store called for: many changes are one look.
const TOLD_APART: Duration = Duration::from_millis(50);
/// Least time between a look and one that somebody unknown called for: wrong keys cost the store no
/// more than four questions a second, and what was just made elsewhere is found before a caller
/// gives up.
const UNKNOWN_APART: Duration = Duration::from_millis(250);

/// Those who are told.
pub(super) struct Shells {
    pub(super) gate: Gate,
    pub(super) tokens: Tokens,
    pub(super) clients: Clients,
}

/// What follows a shared store.
pub(super) struct Follower {
    store: Arc<dyn Store>,
    since: Revision,
    asked: NewsAsked,
    failing: bool,
}

impl Follower {
    /// Notes where the store stands, before anything else is read from it: what comes later is told
    /// of. `None` for a store that this instance has for itself.
    pub(super) async fn before_reading(
        store: &Arc<dyn Store>,
    ) -> Result<(News, Option<Self>), StoreError> {
        if !store.is_shared() {
            return Ok((News::none(), None));
        }
        let since = store.changes(None).await?.revision;
        let (news, asked) = News::followed();
        Ok((news, Some(Self { store: store.clone(), since, asked, failing: false })))
    }

    pub(super) fn start(
        mut self,
        shells: Shells,
        clock: &Clock,
        tracker: &TaskTracker,
        stopped: &CancellationToken,
    ) {
        let (clock, stopped) = (clock.clone(), stopped.clone());
        tracker.spawn(async move {
            let (store, bell) = (self.store.clone(), Notify::new());
            tokio::select! {
                () = self.follow(&shells, &bell, &clock) => {}
                () = listen(&store, &bell) => {}
                () = stopped.cancelled() => {}
            }
        });
    }

    async fn follow(&mut self, shells: &Shells, bell: &Notify, clock: &Clock) {
        let mut last = clock.mono();
        loop {
            let mut waiting = Vec::new();
            tokio::select! {
                () = clock.sleep_until(last.plus(ASKED_EVERY)) => {}
                () = bell.notified() => clock.sleep_until(last.plus(TOLD_APART)).await,
                Some(asked) = self.asked.next() => {
                    waiting.push(asked);
                    clock.sleep_until(last.plus(UNKNOWN_APART)).await;
                }
            }
            while let Some(asked) = self.asked.another() {
                waiting.push(asked);
            }
            last = clock.mono();
            let looked = self.look(shells).await;
            match &looked {
                Err(error) if self.failing => debug!(%error, "store failed"),
                Err(error) => warn!(%error, "what other instances change cannot be read"),
                Ok(()) => {}
            }
            self.failing = looked.is_err();
            for asked in waiting {
                // whoever asked may have left
                let _ = asked.send(());
            }
        }
    }

    /// Tells the shells what has been changed since the last look.
    async fn look(&mut self, shells: &Shells) -> Result<(), StoreError> {
        let changes = self.store.changes(Some(self.since)).await?;
        match changes.since {
            Since::Changed(things) => self.read(shells, Told::of(things)).await?,
            Since::Forgotten => {
                self.read_everything(shells, Missing::IsGone, Told::default()).await?;
            }
            Since::Lost(things) => {
                warn!("the store was emptied or started again; what it has lost is restored");
                let lost = Missing::IsLost { noticed: changes.revision };
                self.read_everything(shells, lost, Told::of(things)).await?;
            }
        }
        self.since = changes.revision;
        Ok(())
    }

    async fn read(&self, shells: &Shells, told: Told) -> Result<(), StoreError> {
        if !told.clients.is_empty() {
            shells.clients.reread(|_| Missing::AsTold { known: self.since }).await?;
        }
        if !told.api_keys.is_empty() {
            let paused = self.store.paused_api_keys().await?;
            for gate in &shells.gate.api_keys() {
                if told.api_keys.contains(gate.name()) {
                    gate.pause(paused.contains(gate.name()));
                }
            }
        }
        if !told.tenants.is_empty() {
            shells.tokens.look(told.tenants.into_iter().collect(), self.since).await;
        }
        Ok(())
    }

    /// Reads everything; what it means when it is not as it is known here is `missing`, but for
    /// what the history tells of.
    async fn read_everything(
        &self,
        shells: &Shells,
        missing: Missing,
        told: Told,
    ) -> Result<(), StoreError> {
        let as_told = Missing::AsTold { known: self.since };
        let meaning = |is_told| if is_told { as_told } else { missing };
        shells.clients.reread(|name| meaning(told.clients.contains(name))).await?;
        let paused = self.store.paused_api_keys().await?;
        for gate in &shells.gate.api_keys() {
            let (name, there) = (gate.name(), paused.contains(gate.name()));
            let ours = gate.snapshot().await.map_or(there, |ours| ours.paused);
            let thing = Changed::ApiKey(name.clone());
            let meaning = meaning(told.api_keys.contains(name));
            if ours != there && meaning.counts_here(self.store.as_ref(), &thing).await? {
                self.store.pause_api_key(name, ours).await?;
            } else {
                gate.pause(there);
            }
        }
        let grants = self.store.grants().await?;
        shells.tokens.compare(grants, missing, (told.tenants, self.since)).await;
        Ok(())
    }
}

/// What was changed, by its kind.
#[derive(Default)]
struct Told {
    tenants: BTreeSet<TenantName>,
    api_keys: BTreeSet<ApiKeyName>,
    clients: BTreeSet<ClientName>,
}

impl Told {
    fn of(things: Vec<Changed>) -> Self {
        let mut told = Self::default();
        for thing in things {
            match thing {
                Changed::Tenant(name) => drop(told.tenants.insert(name)),
                Changed::ApiKey(name) => drop(told.api_keys.insert(name)),
                Changed::Client(name) => drop(told.clients.insert(name)),
            }
        }
        told
    }
}

/// Rings for every word of the store, also for one that comes during a look.
async fn listen(store: &Arc<dyn Store>, bell: &Notify) {
    loop {
        store.changed().await;
        bell.notify_one();
    }
}

#[cfg(test)]
mod tests;
