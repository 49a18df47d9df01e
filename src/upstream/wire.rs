//! The TCP stream below a connection, which counts what is written to it.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A TCP stream; TLS, if any, is above it.
pub(crate) struct Wire {
    stream: TokioIo<TcpStream>,
    socket: Option<Arc<Socket>>,
}

/// What is known of a stream for as long as it is open.
#[derive(Debug)]
pub(super) struct Socket {
    /// For what the kernel knows.
    pub(super) fd: OwnedFd,
    written: AtomicU64,
}

impl Socket {
    /// The bytes that the kernel was given since the stream was made.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }
}

impl Wire {
    pub(super) fn new(stream: TokioIo<TcpStream>) -> Self {
        // no descriptor is left: calls go all the same, their acknowledgements are not seen
        let fd = stream.inner().as_fd().try_clone_to_owned().ok();
        let socket = fd.map(|fd| Arc::new(Socket { fd, written: AtomicU64::new(0) }));
        Self { stream, socket }
    }

    /// What does not keep the stream open.
    pub(super) fn socket(&self) -> Weak<Socket> {
        self.socket.as_ref().map(Arc::downgrade).unwrap_or_default()
    }

    fn count(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let (Poll::Ready(Ok(count)), Some(socket)) = (&written, &self.socket) {
            socket.written.fetch_add(*count as u64, Ordering::Release);
        }
        written
    }
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        self.stream.connected()
    }
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl Write for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, buffer);
        self.count(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
