//! Opening a connection: TLS where the listener has it, and what is spoken.
//!
//! Nothing here is bounded in time; who calls bounds it. Plain text is only looked at. Over TLS the
//! protocol is what both ends agreed on by ALPN, HTTP/1.1 when a caller asks for none.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::debug;

use super::tls::{ALPN_H2, CertifiedName};

/// What an HTTP/2 connection begins with (RFC 9113 section 3.4).
const H2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Wait before a preface that has come in part is looked at again.
const PREFACE_PAUSE: Duration = Duration::from_millis(20);

/// A connection on which a caller has begun to speak.
pub(super) struct Opened {
    pub(super) stream: Stream,
    pub(super) protocol: Protocol,
    /// What the caller's certificate names, if it has shown one.
    pub(super) certified: Option<CertifiedName>,
}

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// The bytes of a connection, in the clear.
pub(super) enum Stream {
    Plain(TcpStream),
    /// Boxed: it is many times as large.
    Tls(Box<Sealed>),
}

/// A connection over TLS.
pub(super) struct Sealed {
    stream: TlsStream<TcpStream>,
    /// What was read to see that HTTP/2 begins, and how much of it has been given on.
    begun: [u8; H2_PREFACE.len()],
    given: usize,
}

/// Opens a connection; `None` when the caller has gone, or is not one to be served.
pub(super) async fn open(stream: TcpStream, tls: Option<Arc<ServerConfig>>) -> Option<Opened> {
    if let Some(config) = tls {
        // boxed: a handshake is large, and connections without TLS need none
        return Box::pin(open_tls(stream, config)).await;
    }
    let protocol = protocol(&stream).await?;
    Some(Opened { stream: Stream::Plain(stream), protocol, certified: None })
}

async fn open_tls(stream: TcpStream, config: Arc<ServerConfig>) -> Option<Opened> {
    let accepted = TlsAcceptor::from(config).accept(stream).await;
    let mut stream = accepted
        .inspect_err(|error| debug!(%error, "a caller's connection was not opened by TLS"))
        .ok()?;
    let connection = stream.get_ref().1;
    let certified = CertifiedName::of(connection);
    let (mut begun, mut given) = ([0; H2_PREFACE.len()], H2_PREFACE.len());
    let protocol = match connection.alpn_protocol() {
        Some(ALPN_H2) => {
            // what serves HTTP/2 would wait for it without end
            stream.read_exact(&mut begun).await.ok()?;
            given = 0;
            Protocol::Http2
        }
        Some(_) | None => Protocol::Http1,
    };
    let stream = Stream::Tls(Box::new(Sealed { stream, begun, given }));
    Some(Opened { stream, protocol, certified })
}

/// Waits until a caller has begun to speak and its protocol is plain; `None` when it has gone.
/// Nothing is taken from the stream.
async fn protocol(stream: &TcpStream) -> Option<Protocol> {
    let mut begin = [0; H2_PREFACE.len()];
    loop {
        match stream.peek(&mut begin).await {
            Ok(0) | Err(_) => return None,
            Ok(len) if len == begin.len() && begin == *H2_PREFACE => return Some(Protocol::Http2),
            Ok(len) if len < begin.len() && H2_PREFACE.starts_with(&begin[..len]) => {
                // what has been looked at stays readable, so there is nothing to wait for but time
                tokio::time::sleep(PREFACE_PAUSE).await;
            }
            Ok(_) => return Some(Protocol::Http1),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Tls(sealed) => {
                let rest = &sealed.begun[sealed.given..];
                if rest.is_empty() {
                    return Pin::new(&mut sealed.stream).poll_read(cx, into);
                }
                let len = rest.len().min(into.remaining());
                into.put_slice(&rest[..len]);
                sealed.given += len;
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(sealed) => Pin::new(&mut sealed.stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
            Self::Tls(sealed) => Pin::new(&mut sealed.stream).poll_write_vectored(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(sealed) => sealed.stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(sealed) => Pin::new(&mut sealed.stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(sealed) => Pin::new(&mut sealed.stream).poll_shutdown(cx),
        }
    }
}
