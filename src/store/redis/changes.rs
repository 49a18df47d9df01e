//! What other instances have changed, and how an instance is told of it at once.
//!
//! Every change has a revision and is published with it. A message that is lost delays an instance
//! to its next look, no more: what was changed is always read from the history. A server that was
//! started again, or another one in its place, may have forgotten the last changes, which no
//! revision shows; its run id does, and then everything is to be read again.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::names::read_mark;
use super::{Server, scripts};
use crate::store::{Changed, Changes, Revision, StoreError};

/// Pause before a connection that hears of changes is made again.
const LISTEN_AGAIN: Duration = Duration::from_millis(500);

/// What an instance knows of the history and hears of it.
#[derive(Default)]
pub(super) struct News {
    /// The run of the server that was asked last.
    run: Mutex<Option<String>>,
    published: Notify,
}

impl News {
    /// What came after `since`.
    pub(super) async fn since(
        &self,
        server: &Server,
        since: Option<Revision>,
    ) -> Result<Changes, StoreError> {
        let names = &server.names;
        let mut call = scripts::CHANGES.prepare_invoke();
        call.key(names.revision()).key(names.changes());
        call.arg(since.map_or_else(String::new, |since| since.0.to_string()));
        let (revision, known, marks, run): (u64, bool, Vec<String>, String) =
            server.link.run("read the changes", &call).await?;
        let mut last = self.run.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = last.as_deref() == Some(run.as_str());
        *last = Some(run);
        let changed: Option<Vec<Changed>> = marks.iter().map(|mark| read_mark(mark)).collect();
        let changed = changed.filter(|_| known && is_same);
        Ok(Changes { revision: Revision(revision), changed })
    }

    /// Waits until something is published, if nothing was since the last time.
    pub(super) async fn heard(&self) {
        self.published.notified().await;
    }

    /// Hears what is published until the store is closed.
    pub(super) async fn listen(self: Arc<Self>, server: Arc<Server>, closed: CancellationToken) {
        let listening = async {
            loop {
                self.listen_once(&server).await;
                tokio::time::sleep(LISTEN_AGAIN).await;
            }
        };
        tokio::select! {
            () = listening => {}
            () = closed.cancelled() => {}
        }
    }

    async fn listen_once(&self, server: &Server) {
        let Ok(mut messages) = server.link.listen(&server.names.channel()).await else { return };
        // something may have been published while nobody listened
        self.published.notify_one();
        let mut messages = pin!(messages.on_message());
        while messages.next().await.is_some() {
            self.published.notify_one();
        }
    }
}
