//! Accepting connections: one loop for both listeners.
//!
//! It holds a cap on connections, bounds the time of a handshake and of a request head, speaks
//! HTTP/1.1 and HTTP/2 (by ALPN over TLS, with prior knowledge on plain text), and on a stop lets
//! requests under way finish. An HTTP/1.1 message that could be delimited in two ways is refused
//! (`strict`). What a request means is not its business.

mod logins;
mod opening;
pub mod origin;
mod strict;
pub mod tls;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Request, Response, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

pub use logins::{Blocked, Logins};
use opening::{Opened, Protocol, open};
use strict::Strict;
pub use tls::{CertifiedName, Tls};

/// Wait after `accept` failed, as it does when no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a connection may take to end on a stop after its last answer.
const STOP_GRACE: Duration = Duration::from_millis(500);
/// Read and write buffer of an HTTP/1.1 connection: the least that hyper takes, and the most of a
/// request head.
const H1_BUFFER: usize = 8 * 1_024;
/// Most headers of a request.
const HEADERS_MAX: usize = 100;
/// Most of an HTTP/2 request's headers, in bytes.
const H2_HEADERS_MAX: u32 = 16 * 1_024;
/// Most requests at a time on an HTTP/2 connection.
const H2_STREAMS_MAX: u32 = 1_000;
/// How often an idle HTTP/2 connection is asked whether it lives.
const H2_PING_EVERY: Duration = Duration::from_secs(20);

/// Bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most connections at a time; more wait to be accepted.
    pub max_connections: usize,
    /// Longest time that a connection may go without a whole request head, idle or slow.
    pub header_timeout: Duration,
}

/// Who is at the other end of the connection that a request came over: an extension of each
/// request.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

impl Peer {
    /// The address that `request` came from; the unspecified one when it came over no connection.
    pub fn of<B>(request: &Request<B>) -> IpAddr {
        let peer = request.extensions().get::<Self>();
        peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0)
    }
}

/// The local port of the connection that a request came over: an extension of each request whose
/// target is in absolute form.
#[derive(Clone, Copy, Debug)]
pub struct LocalPort(pub u16);

/// A listener that is bound but does not serve yet.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    tls: Option<Tls>,
}

impl Listener {
    /// Binds `address`.
    ///
    /// # Errors
    /// What the system says, such as that the address is in use.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address, tls: None })
    }

    /// The same over `tls`, if there is any.
    #[must_use]
    pub fn with_tls(self, tls: Option<Tls>) -> Self {
        Self { tls, ..self }
    }

    /// The address, with the port that the system chose if 0 was asked for.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stopped`; then no connection is accepted, idle ones are closed, and this
    /// returns when the requests under way are answered.
    pub async fn serve<H, F, B>(
        self,
        bounds: Bounds,
        handle: H,
        tracker: TaskTracker,
        stopped: CancellationToken,
    ) where
        H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let builders = Arc::new((http1_builder(bounds), http2_builder()));
        let places = Arc::new(Semaphore::new(bounds.max_connections));
        let graceful = GracefulShutdown::new();
        loop {
            let accepted = tokio::select! {
                accepted = accept(&self.socket, &places) => accepted,
                () = stopped.cancelled() => break,
            };
            let Some((stream, peer, place)) = accepted else { continue };
            let (peer, port) = (Peer(peer.ip()), LocalPort(self.address.port()));
            let handle = handle.clone();
            let (builders, watcher) = (builders.clone(), graceful.watcher());
            let (tls, stopped) = (self.tls.as_ref().map(Tls::config), stopped.clone());
            tracker.spawn(async move {
                let opening = tokio::time::timeout(bounds.header_timeout, open(stream, tls));
                let opened = stopped.run_until_cancelled(opening).await;
                let Some(Ok(Some(Opened { stream, protocol, certified }))) = opened else { return };
                let busy = Arc::new(());
                let answering = Arc::downgrade(&busy);
                let service = service_fn(move |mut request: Request<Incoming>| {
                    request.extensions_mut().insert(peer);
                    // only an absolute-form target is checked against it
                    if request.version() < Version::HTTP_2 && request.uri().authority().is_some() {
                        request.extensions_mut().insert(port);
                    }
                    if let Some(certified) = &certified {
                        request.extensions_mut().insert(certified.clone());
                    }
                    let busy = busy.clone();
                    // not an async block, which would hold the future twice: once before its first
                    // poll
                    handle(request).map(move |answer| {
                        Ok::<_, Infallible>(answer.map(|body| Answering { body, _busy: busy }))
                    })
                });
                let serving = async {
                    match protocol {
                        Protocol::Http1 => {
                            let io = TokioIo::new(Strict::new(stream));
                            watcher.watch(builders.0.serve_connection(io, service)).await
                        }
                        Protocol::Http2 => {
                            let io = TokioIo::new(stream);
                            Box::pin(watcher.watch(builders.1.serve_connection(io, service))).await
                        }
                    }
                };
                tokio::select! {
                    ended = serving => if let Err(error) = ended {
                        debug!(%error, "a caller's connection ended");
                    },
                    () = left_alone(&stopped, &answering) => {}
                }
                drop(place);
            });
        }
        drop(self.socket);
        graceful.shutdown().await;
    }
}

type Place = tokio::sync::OwnedSemaphorePermit;

async fn accept(
    socket: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, Place)> {
    let place = places.clone().acquire_owned().await.ok()?;
    match socket.accept().await {
        Ok((stream, peer)) => {
            if let Err(error) = stream.set_nodelay(true) {
                debug!(%error, "a caller's connection could not be set to no delay");
            }
            Some((stream, peer, place))
        }
        Err(error) => {
            warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// The body of an answer, by which its connection is known to be in use.
struct Answering<B> {
    body: B,
    _busy: Arc<()>,
}

impl<B: Body + Unpin> Body for Answering<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Waits until the listener stops and nothing has been answered on the connection for a while: a
/// caller that has sent half of a head holds no stop up.
async fn left_alone(stopped: &CancellationToken, answering: &Weak<()>) {
    stopped.cancelled().await;
    // one is the service's own
    while answering.strong_count() > 1 {
        tokio::time::sleep(STOP_GRACE).await;
    }
    tokio::time::sleep(STOP_GRACE).await;
}

fn http1_builder(bounds: Bounds) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.header_timeout)
        .max_buf_size(H1_BUFFER)
        .max_headers(HEADERS_MAX);
    builder
}

fn http2_builder() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(H2_PING_EVERY)
        .max_concurrent_streams(H2_STREAMS_MAX)
        .max_header_list_size(H2_HEADERS_MAX);
    builder
}
