//! The body of an answer: our own few bytes, or the upstream's as they come.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::upstream::Lease;

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
    },
}

impl From<Bytes> for AnswerBody {
    fn from(bytes: Bytes) -> Self {
        Self::Whole((!bytes.is_empty()).then_some(bytes))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Upstream { read, rest, lease } => {
                if let Some(read) = read.take() {
                    return Poll::Ready(Some(Ok(Frame::data(read))));
                }
                let frame = std::task::ready!(Pin::new(&mut *rest).poll_frame(cx));
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
