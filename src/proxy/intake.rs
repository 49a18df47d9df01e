//! Reading a body while its call waits.
//!
//! A body up to `server.replay_buffer` is read and kept: the call can then be sent again after 401
//! or 429, and, over HTTP/1.1, a caller that leaves is noticed, which hyper does only while
//! somebody reads. A longer body is left unread and streams once. Kept bodies of all callers
//! together have a bound; past it bodies stream too.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::EXPECT;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Settings;
use crate::rejection::{Reason, Rejection};
use crate::upstream::{BodyError, OutBody};

/// Longest body that the upstream's bulk imports take; it cuts off the rest without a word
/// (<https://developer.constantcontact.com/api_guide/import_contacts.html>: 4 MB).
const IMPORT_MAX: u64 = 4_000_000;
/// The two calls that take a bulk import.
const IMPORTS: [&str; 2] =
    ["/v3/activities/contacts_json_import", "/v3/activities/contacts_file_import"];
/// Longest time without a byte of the body.
const STALL_MAX: Duration = Duration::from_secs(30);
/// Longest time that a refused body is read.
const DISCARD_TIME: Duration = Duration::from_secs(2);
/// Kept bodies of all callers together, in KiB.
const KEPT_KIB_MAX: usize = 256 * 1_024;

/// The room for kept bodies, shared by all callers.
pub(super) struct KeptBytes(Arc<Semaphore>);

impl Default for KeptBytes {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(KEPT_KIB_MAX)))
    }
}

/// What is to be done with a body, decided by its declared length alone.
pub(super) enum Plan {
    /// There is none.
    Empty,
    /// Read and keep it, at most so many bytes.
    Keep { incoming: Incoming, room: OwnedSemaphorePermit, limit: u64, max: u64, over: Reason },
    /// Send it as it comes, at most so many bytes.
    Stream { incoming: Incoming, max: u64 },
}

/// A body that has been taken in.
pub(super) enum Taken {
    /// None.
    Empty,
    /// All of it; can be sent as often as needed.
    Kept { bytes: Bytes, _room: OwnedSemaphorePermit },
    /// Goes once.
    Once(Option<OutBody>),
}

impl Taken {
    /// The body for one sending; `None` when it has gone already.
    pub(super) fn body(&mut self) -> Option<OutBody> {
        match self {
            Self::Empty => Some(OutBody::Empty),
            Self::Kept { bytes, .. } => Some(OutBody::Kept(Some(bytes.clone()))),
            Self::Once(body) => body.take(),
        }
    }

    /// Whether the body can be sent again.
    pub(super) const fn is_replayable(&self) -> bool {
        match self {
            Self::Empty | Self::Kept { .. } => true,
            Self::Once(body) => body.is_some(),
        }
    }
}

/// Decides what to do with a body; refuses one whose declared length is too much.
pub(super) fn plan(
    body: &mut Option<Incoming>,
    path: &str,
    settings: &Settings,
    kept: &KeptBytes,
) -> Result<Plan, Rejection> {
    let Some(declared) = body.as_ref().filter(|body| !body.is_end_stream()).map(declared) else {
        return Ok(Plan::Empty);
    };
    let is_import = IMPORTS.contains(&path.trim_end_matches('/'));
    let max = if is_import { IMPORT_MAX.min(settings.max_body) } else { settings.max_body };
    let over = if is_import && max == IMPORT_MAX {
        Reason::ImportTooLarge
    } else {
        Reason::RequestTooLarge
    };
    if declared.is_some_and(|len| len > max) {
        return Err(too_large(over, max));
    }
    // an import of unknown length must be read whole before a part of it may leave
    let limit = if is_import && declared.is_none() {
        settings.replay_buffer.max(max)
    } else {
        settings.replay_buffer
    };
    let room = if declared.is_some_and(|len| len > limit) {
        None
    } else {
        let room = kept.room_for(declared.unwrap_or(limit));
        if room.is_none() && is_import {
            return Err(Rejection::new(
                Reason::QueueFull,
                "too many bodies are waiting to be sent; send the call again later",
            ));
        }
        room
    };
    let Some(incoming) = body.take() else { return Ok(Plan::Empty) };
    Ok(match room {
        Some(room) => Plan::Keep { incoming, room, limit, max, over },
        None => Plan::Stream { incoming, max },
    })
}

fn declared(body: &Incoming) -> Option<u64> {
    body.size_hint().exact()
}

/// Reads a body that is not wanted, for a while: a caller that sends before it reads would find its
/// connection broken instead of the refusal. One that asked before sending is not told to send.
pub(super) async fn discard(mut body: Incoming, headers: &HeaderMap) {
    if headers.contains_key(EXPECT) {
        return;
    }
    let reading = async { while let Some(Ok(_)) = body.frame().await {} };
    // whoever is not done by then loses the refusal, not the proxy its time
    let _ = tokio::time::timeout(DISCARD_TIME, reading).await;
}

impl KeptBytes {
    fn room_for(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes.div_ceil(1_024)).ok()?;
        self.0.clone().try_acquire_many_owned(kib).ok()
    }
}

impl Plan {
    /// Whether the body must be read before the call can go.
    pub(super) const fn is_to_be_read(&self) -> bool {
        match self {
            Self::Keep { .. } => true,
            Self::Empty | Self::Stream { .. } => false,
        }
    }

    /// Reads what is to be kept.
    pub(super) async fn take_in(self) -> Result<Taken, Rejection> {
        match self {
            Self::Empty => Ok(Taken::Empty),
            Self::Stream { incoming, max } => Ok(Taken::Once(Some(OutBody::Stream {
                read: None,
                rest: incoming,
                left: max,
                max,
            }))),
            Self::Keep { incoming, room, limit, max, over } => {
                keep(incoming, room, limit, max, over).await
            }
        }
    }
}

async fn keep(
    mut incoming: Incoming,
    room: OwnedSemaphorePermit,
    limit: u64,
    max: u64,
    over: Reason,
) -> Result<Taken, Rejection> {
    let declared = incoming.size_hint().exact().unwrap_or_default();
    let mut read = BytesMut::with_capacity(usize::try_from(declared).unwrap_or_default());
    while !incoming.is_end_stream() {
        let frame = tokio::time::timeout(STALL_MAX, incoming.frame())
            .await
            .map_err(|_| unreadable(&BodyError::Stalled(STALL_MAX)))?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| unreadable(&BodyError::Broken(error)))?;
        let Ok(data) = frame.into_data() else { continue };
        read.extend_from_slice(&data);
        let len = read.len() as u64;
        if len > max {
            return Err(too_large(over, max));
        }
        if len > limit {
            // a stream is not kept
            drop(room);
            let left = max.saturating_sub(len);
            let read = Some(read.freeze());
            return Ok(Taken::Once(Some(OutBody::Stream { read, rest: incoming, left, max })));
        }
    }
    let bytes = read.freeze();
    Ok(Taken::Kept { _room: fitted(room, bytes.len()), bytes })
}

/// Gives back what `len` bytes do not need: room is taken for the longest that a body of unknown
/// length may become.
fn fitted(mut room: OwnedSemaphorePermit, len: usize) -> OwnedSemaphorePermit {
    let spare = room.num_permits().saturating_sub(len.div_ceil(1_024));
    drop(room.split(spare));
    room
}

pub(super) fn unreadable(error: &BodyError) -> Rejection {
    match error {
        BodyError::TooLarge(max) => too_large(Reason::RequestTooLarge, *max),
        BodyError::Broken(_) | BodyError::Stalled(_) => {
            Rejection::new(Reason::BadRequest, format!("the body could not be read: {error}"))
        }
    }
}

fn too_large(reason: Reason, max: u64) -> Rejection {
    let what = if reason == Reason::ImportTooLarge {
        "the API reads that much of a bulk import and drops the rest without a word; split it"
    } else {
        "send less, or raise server.max_body"
    };
    Rejection::new(reason, format!("the body is longer than {max} bytes: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_holds_no_more_room_than_it_fills() {
        let kept = KeptBytes::default();
        let room = kept.room_for(1_024 * 1_024).unwrap();
        assert_eq!(kept.0.available_permits(), KEPT_KIB_MAX - 1_024);
        let room = fitted(room, 1_025);
        assert_eq!(kept.0.available_permits(), KEPT_KIB_MAX - 2);
        drop(fitted(room, 0));
        assert_eq!(kept.0.available_permits(), KEPT_KIB_MAX);
    }
}
