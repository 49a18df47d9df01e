//! Asking for the news of a shared store before somebody is refused as unknown.
//!
//! What was made on another instance a moment ago is not known here until whoever follows the store
//! has looked. A face that does not know a name or a key asks for a look and then decides. Looks
//! are shared by all who ask, and the follower keeps them apart, so that wrong keys cannot flood
//! the store. Where nothing is followed, nothing is asked and nobody waits.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

/// Those who may wait for a look to begin; more wait to ask.
const ASKED_MAX: usize = 256;
/// Nobody waits longer to be told that it is unknown: some looks of a store that is well.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// The handle of those who ask.
#[derive(Clone, Debug, Default)]
pub struct News(Option<mpsc::Sender<oneshot::Sender<()>>>);

/// What they have asked, for the follower.
#[derive(Debug)]
pub struct NewsAsked(mpsc::Receiver<oneshot::Sender<()>>);

impl News {
    /// A handle and what comes of it.
    #[must_use]
    pub fn followed() -> (Self, NewsAsked) {
        let (asking, asked) = mpsc::channel(ASKED_MAX);
        (Self(Some(asking)), NewsAsked(asked))
    }

    /// Nobody follows anything: the store is used by this instance alone.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    /// Whether there may be news.
    #[must_use]
    pub const fn is_followed(&self) -> bool {
        self.0.is_some()
    }

    /// Returns when a look that began after this was called has ended, whatever came of it; or
    /// after a while, when the store does not answer.
    pub async fn look(&self) {
        let Some(asking) = &self.0 else { return };
        let look = async {
            let (done, looked) = oneshot::channel();
            // a follower that has ended looks no more
            if asking.send(done).await.is_ok() {
                let _ = looked.await;
            }
        };
        let _ = tokio::time::timeout(LOOK_MAX, look).await;
    }
}

impl NewsAsked {
    /// Waits until somebody asks; `None` when nobody ever will.
    pub async fn next(&mut self) -> Option<oneshot::Sender<()>> {
        self.0.recv().await
    }

    /// Another one who has asked already.
    pub fn another(&mut self) -> Option<oneshot::Sender<()>> {
        self.0.try_recv().ok()
    }
}
