//! The body of a request on its way to the API: nothing, bytes that are kept, or a stream that goes
//! once.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// A body could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The caller's connection broke.
    #[error("the caller's body broke off: {0}")]
    Broken(#[from] hyper::Error),
    /// The body is longer than it may be.
    #[error("the body is longer than {0} bytes")]
    TooLarge(u64),
    /// No byte came for too long.
    #[error("no byte of the body came for {0:?}")]
    Stalled(std::time::Duration),
}

/// The body of a request to the API.
#[derive(Debug, Default)]
pub enum OutBody {
    /// None.
    #[default]
    Empty,
    /// Kept bytes, taken when they have been sent.
    Kept(Option<Bytes>),
    /// A stream: first what has been read of it, then the rest, at most so many bytes.
    Stream {
        /// What has been read.
        read: Option<Bytes>,
        /// The rest.
        rest: Incoming,
        /// Bytes that may still come.
        left: u64,
        /// Bytes that may come in all.
        max: u64,
    },
}

impl Body for OutBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Kept(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream { read, rest, left, max } => {
                if let Some(read) = read.take() {
                    return Poll::Ready(Some(Ok(Frame::data(read))));
                }
                let frame = std::task::ready!(Pin::new(rest).poll_frame(cx));
                Poll::Ready(frame.map(|frame| within(frame?, left, *max)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Kept(bytes) => bytes.is_none(),
            Self::Stream { read, rest, .. } => read.is_none() && rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Kept(bytes) => SizeHint::with_exact(len(bytes)),
            Self::Stream { read, rest, .. } => match rest.size_hint().exact() {
                Some(rest) => SizeHint::with_exact(len(read).saturating_add(rest)),
                None => SizeHint::default(),
            },
        }
    }
}

fn within(frame: Frame<Bytes>, left: &mut u64, max: u64) -> Result<Frame<Bytes>, BodyError> {
    let len = frame.data_ref().map_or(0, |data| data.len() as u64);
    *left = left.checked_sub(len).ok_or(BodyError::TooLarge(max))?;
    Ok(frame)
}
