//! The body of an answer: our own few bytes, or the upstream's as they come.
//!
//! An upstream that sends nothing for too long ends its body with an error, so that neither the
//! caller nor a stop waits for ever. The time runs only while somebody reads and nothing is there.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use crate::upstream::Lease;

/// The upstream's body did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The connection broke.
    #[error("the upstream's body broke off: {0}")]
    Broken(#[from] hyper::Error),
    /// Nothing came for too long.
    #[error("no byte of the upstream's body came for {0:?}")]
    Stalled(Duration),
}

/// How long the next part of a body may take.
pub struct Patience {
    longest: Duration,
    /// Set while nothing is there; most parts are there when they are asked for.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    /// As long as `longest`.
    pub(super) const fn new(longest: Duration) -> Self {
        Self { longest, timer: None }
    }

    /// What is there, or an error when that took too long.
    fn bound<T>(
        &mut self,
        cx: &mut Context<'_>,
        next: Poll<Option<Result<T, hyper::Error>>>,
    ) -> Poll<Option<Result<T, AnswerError>>> {
        if let Poll::Ready(next) = next {
            self.timer = None;
            return Poll::Ready(next.map(|part| part.map_err(AnswerError::Broken)));
        }
        let longest = self.longest;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(longest)));
        timer.as_mut().poll(cx).map(|()| Some(Err(AnswerError::Stalled(longest))))
    }
}

/// The body of an answer.
pub enum AnswerBody {
    /// Bytes that are at hand.
    Whole(Option<Bytes>),
    /// The upstream's: what has been looked at, then the rest. The connection goes back when the
    /// last byte has been read, or with the body when the caller leaves before.
    Upstream {
        /// What has been looked at.
        read: Option<Bytes>,
        /// The rest.
        rest: Incoming,
        /// The connection that it comes over.
        lease: Option<Lease>,
        /// How long the next part may take.
        patience: Patience,
    },
}

impl From<Bytes> for AnswerBody {
    fn from(bytes: Bytes) -> Self {
        Self::Whole((!bytes.is_empty()).then_some(bytes))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Upstream { read, rest, lease, patience } => {
                if let Some(read) = read.take() {
                    return Poll::Ready(Some(Ok(Frame::data(read))));
                }
                let next = Pin::new(&mut *rest).poll_frame(cx);
                let frame = std::task::ready!(patience.bound(cx, next));
                // a body is often not polled again after its last byte
                if frame.is_none() || rest.is_end_stream() {
                    drop(lease.take());
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Upstream { read, rest, .. } => read.is_none() && rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(len(bytes)),
            Self::Upstream { read, rest, .. } => match rest.size_hint().exact() {
                Some(rest) => SizeHint::with_exact(len(read).saturating_add(rest)),
                None => SizeHint::default(),
            },
        }
    }
}
