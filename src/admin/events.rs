//! `GET /v1/events`: what happens, and once a second how things stand.
//!
//! One task, the hub, numbers all events and writes each once for all listeners; it looks at the
//! gates only while somebody listens. A listener that is too slow is told how many events it
//! missed and goes on. The numbers begin with the process.

use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, StreamExt as _};
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::{Desk, Parts, Shared, api_keys};
use crate::clock::Clock;
use crate::telemetry::Notice;

/// Time between two snapshots.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(1);
/// Events that a listener may be behind before it loses the oldest.
const BEHIND_MAX: usize = 256;

/// An event as it goes to every listener.
#[derive(Clone, Debug)]
struct Frame {
    id: u64,
    name: Arc<str>,
    data: Arc<str>,
}

/// Where listeners join.
pub(super) struct Feed(broadcast::Sender<Frame>);

/// The task that feeds them.
pub(super) struct Hub {
    notices: broadcast::Receiver<Notice>,
    frames: broadcast::Sender<Frame>,
    clock: Clock,
    stopped: CancellationToken,
    id_last: u64,
}

impl Feed {
    pub(super) fn new(parts: &Parts) -> (Self, Hub) {
        let frames = broadcast::Sender::new(BEHIND_MAX);
        let hub = Hub {
            notices: parts.events.subscribe(),
            frames: frames.clone(),
            clock: parts.clock.clone(),
            stopped: parts.stopped.clone(),
            id_last: 0,
        };
        (Self(frames), hub)
    }
}

/// An event, field by field as it stands in the stream.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what `stream` sends")]
struct EventSent {
    /// Counts up; `lagged` has none.
    #[schema(nullable = false)]
    id: Option<String>,
    /// `snapshot`, once a second, has all API keys as `GET /v1/api-keys` shows them; `lagged` tells
    /// how many events were `missed` by a listener that is too slow; all others are changes of
    /// state, whose data have `time` and `type`.
    event: String,
    /// One JSON object.
    #[schema(content_media_type = "application/json")]
    data: String,
}

/// Streams what happens
///
/// Server-sent events without an end.
#[utoipa::path(
    get,
    path = "/v1/events",
    operation_id = "stream_events",
    tag = "monitoring",
    responses((
        status = 200,
        description = "Events from now on.",
        body = EventSent,
        content_type = "text/event-stream"
    ))
)]
pub(super) async fn stream(
    State(shared): Desk,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let frames = BroadcastStream::new(shared.feed.0.subscribe());
    let events = frames.map(|frame| {
        Ok(match frame {
            Ok(frame) => {
                Event::default().id(frame.id.to_string()).event(&*frame.name).data(&*frame.data)
            }
            Err(BroadcastStreamRecvError::Lagged(missed)) => {
                Event::default().event("lagged").data(json!({ "missed": missed }).to_string())
            }
        })
    });
    let stopped = shared.parts.stopped.clone().cancelled_owned();
    Sse::new(events.take_until(stopped)).keep_alive(KeepAlive::default())
}

impl Hub {
    /// Feeds the listeners until the process stops or the router is gone.
    pub(super) async fn run(mut self, shared: Weak<Shared>) {
        let mut next = self.clock.now().mono.plus(SNAPSHOT_EVERY);
        loop {
            tokio::select! {
                biased;
                () = self.stopped.cancelled() => return,
                notice = self.notices.recv() => match notice {
                    Ok(notice) => self.tell(&notice),
                    Err(RecvError::Lagged(missed)) => {
                        self.send("lagged", &json!({ "missed": missed }));
                    }
                    Err(RecvError::Closed) => return,
                },
                () = self.clock.sleep_until(next) => {
                    next = self.clock.now().mono.plus(SNAPSHOT_EVERY);
                    let Some(shared) = shared.upgrade() else { return };
                    if self.frames.receiver_count() > 0 {
                        let api_keys = api_keys::views(&shared).await;
                        self.send("snapshot", &json!({ "api_keys": api_keys }));
                    }
                }
            }
        }
    }

    fn tell(&mut self, notice: &Notice) {
        let data = serde_json::to_value(notice).expect("a notice has only texts and numbers");
        let name = data.get("type").and_then(Value::as_str).unwrap_or("event").to_owned();
        self.send(&name, &data);
    }

    fn send(&mut self, name: &str, data: &Value) {
        self.id_last += 1;
        let data = data.to_string().into();
        // Nobody may be listening: then nobody misses it.
        drop(self.frames.send(Frame { id: self.id_last, name: name.into(), data }));
    }
}
