//! What other instances have changed, and how an instance is told of it at once.
//!
//! Every change has a revision and is published with it. A message that is lost delays an instance
//! to its next look, no more: what was changed is always read from the history. What a server has
//! forgotten that was started again, or that stands in another's place, shows as a gap in it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::names::{mark, read_mark};
use super::{Server, scripts};
use crate::store::{Changed, Changes, LastTold, Revision, Since, StoreError};

const ATTEMPT: &str = "read the changes";
/// Pause before a connection that hears of changes is made again.
const LISTEN_AGAIN: Duration = Duration::from_millis(500);

/// What came after `since`.
pub(super) async fn since(server: &Server, since: Option<Revision>) -> Result<Changes, StoreError> {
    let names = &server.names;
    let mut call = scripts::CHANGES.prepare_invoke();
    call.key(names.revision()).key(names.changes());
    call.arg(since.map_or_else(String::new, |since| since.0.to_string()));
    let (revision, what, marks): (u64, String, Vec<String>) =
        server.link.run(ATTEMPT, &call).await?;
    let things: Option<Vec<Changed>> = marks.iter().map(|mark| read_mark(mark)).collect();
    let since = match (what.as_str(), things) {
        ("changed", Some(things)) => Since::Changed(things),
        ("lost", Some(things)) => Since::Lost(things),
        _ => Since::Forgotten,
    };
    Ok(Changes { revision: Revision(revision), since })
}

/// When the history last told of this thing.
pub(super) async fn last_told(server: &Server, thing: &Changed) -> Result<LastTold, StoreError> {
    let mut call = scripts::LAST_TOLD.prepare_invoke();
    call.key(server.names.revision()).key(server.names.changes()).arg(mark(thing));
    let (at, forgotten): (Option<u64>, u64) = server.link.run(ATTEMPT, &call).await?;
    Ok(LastTold { at: at.map(Revision), forgotten: Revision(forgotten) })
}

/// What an instance hears of the history.
#[derive(Default)]
pub(super) struct News {
    published: Notify,
}

impl News {
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
