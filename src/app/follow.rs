//! Follows what other instances change in a store that is shared, and tells the shells.
//!
//! It knows up to which revision everything is known here and asks for what came after: each
//! second, when the store says that there is something, and when somebody is about to be refused as
//! unknown. What could not be read is asked for again. A store that does not know any more what was
//! changed, or came back older than it was, is read as a whole.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::clients::Clients;
use crate::clock::Clock;
use crate::engine::ApiKeyName;
use crate::gate::Gate;
use crate::store::{Changed, News, NewsAsked, Revision, Store, StoreError};
use crate::tokens::{Missing, Tokens};

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
        let Some(things) = changes.changed else {
            let is_older = changes.revision < self.since;
            self.read_everything(shells, is_older).await?;
            self.since = changes.revision;
            return Ok(());
        };
        let (mut tenants, mut api_keys, mut clients) = (Vec::new(), BTreeSet::new(), false);
        for thing in things {
            match thing {
                Changed::Tenant(tenant) => tenants.push(tenant),
                Changed::ApiKey(api_key) => drop(api_keys.insert(api_key)),
                Changed::Client(_) => clients = true,
            }
        }
        if clients {
            shells.clients.reread().await?;
        }
        if !api_keys.is_empty() {
            self.read_pauses(shells, |name| api_keys.contains(name)).await?;
        }
        if !tenants.is_empty() {
            shells.tokens.look(tenants).await;
        }
        self.since = changes.revision;
        Ok(())
    }

    async fn read_everything(&self, shells: &Shells, is_older: bool) -> Result<(), StoreError> {
        if is_older {
            warn!("the store has come back older than it was; what it has lost is restored");
        }
        shells.clients.reread().await?;
        self.read_pauses(shells, |_| true).await?;
        let missing = if is_older { Missing::IsLost } else { Missing::IsGone };
        shells.tokens.compare(self.store.grants().await?, missing).await;
        Ok(())
    }

    async fn read_pauses(
        &self,
        shells: &Shells,
        is_meant: impl Fn(&ApiKeyName) -> bool,
    ) -> Result<(), StoreError> {
        let paused = self.store.paused_api_keys().await?;
        for gate in shells.gate.api_keys().iter().filter(|gate| is_meant(gate.name())) {
            gate.pause(paused.contains(gate.name()));
        }
        Ok(())
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
