//! A keeper for tests that want one and refresh nothing.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::{KeyAuth, NoObserver, Parts, RefreshAnswer, TokenEndpoint};
use crate::clock::Clock;
use crate::engine::{ApiKeyName, token};
use crate::secret::Secret;
use crate::store::Store;

/// An endpoint that cannot be reached.
struct Nowhere;

#[async_trait]
impl TokenEndpoint for Nowhere {
    async fn refresh(&self, _: &KeyAuth, _: &Secret<String>) -> RefreshAnswer {
        RefreshAnswer::NotSent { detail: "nobody listens".into() }
    }
}

/// What such a keeper is made of.
pub(crate) fn parts(
    store: &Arc<dyn Store>,
    clock: &Clock,
    keys: Vec<(ApiKeyName, KeyAuth)>,
    tracker: &TaskTracker,
) -> Parts {
    Parts {
        store: store.clone(),
        clock: clock.clone(),
        exchange: Arc::new(Nowhere),
        keys,
        settings: token::Settings {
            refresh_interval: Duration::from_secs(1),
            refresh_margin: Duration::from_secs(300),
            refresh_ahead: Duration::ZERO,
            keep_alive_after: Duration::ZERO,
        },
        seed: 1,
        changes: mpsc::unbounded_channel().0,
        observer: Arc::new(NoObserver),
        tracker: tracker.clone(),
    }
}
