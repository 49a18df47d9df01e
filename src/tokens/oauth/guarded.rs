//! The body of a token request, which leaves only while it may.
//!
//! Between the decision to send and the sending a connection is opened, and a process can be
//! stopped there for as long as anybody likes. The body has the refresh token or the code in it, so
//! it is the body that asks, when the connection takes it.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use crate::tokens::endpoint::MayLeave;

/// A body in one piece.
pub(super) struct Guarded {
    content: Option<Bytes>,
    may_leave: Option<MayLeave>,
    kept_back: Arc<AtomicBool>,
}

/// The body did not leave.
#[derive(Debug)]
pub(super) struct KeptBack;

impl Guarded {
    pub(super) fn new(content: Bytes, may_leave: Option<MayLeave>) -> Self {
        Self { content: Some(content), may_leave, kept_back: Arc::default() }
    }

    /// Becomes true when the body did not leave.
    pub(super) fn kept_back(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.kept_back)
    }
}

impl Body for Guarded {
    type Data = Bytes;
    type Error = KeptBack;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, KeptBack>>> {
        let Some(content) = self.content.take() else { return Poll::Ready(None) };
        if self.may_leave.as_ref().is_some_and(|may_leave| !may_leave()) {
            self.kept_back.store(true, Ordering::Relaxed);
            return Poll::Ready(Some(Err(KeptBack)));
        }
        Poll::Ready(Some(Ok(Frame::data(content))))
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let len = self.content.as_ref().map_or(0, Bytes::len);
        SizeHint::with_exact(u64::try_from(len).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for KeptBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("another instance may have the token lane by now")
    }
}

impl Error for KeptBack {}
