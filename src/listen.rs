//! Accepting connections: one loop for both listeners.
//!
//! It holds a cap on connections, bounds the time of a request head, speaks HTTP/1.1 and HTTP/2 (on plain text
//! with prior knowledge), and on a stop lets requests under way finish. What a request means is not its business.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

/// Wait after `accept` failed, as it does when no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What an HTTP/2 connection begins with (RFC 9113 section 3.4).
const H2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Wait before a preface that has come in part is looked at again.
const PREFACE_PAUSE: Duration = Duration::from_millis(20);
/// Read and write buffer of an HTTP/1.1 connection: the least that hyper takes, and the most of a request head.
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
    /// Longest time from the start of a request head to its end.
    pub header_timeout: Duration,
}

/// The local port of the connection that a request came over; an extension of each request.
#[derive(Clone, Copy, Debug)]
pub struct LocalPort(pub u16);

/// A listener that is bound but does not serve yet.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds `address`.
    ///
    /// # Errors
    /// What the system says, such as that the address is in use.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// The address, with the port that the system chose if 0 was asked for.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stopped`; then no connection is accepted, idle ones are closed, and this returns when the
    /// requests under way are answered.
    pub async fn serve<H, F, B>(
        self,
        bounds: Bounds,
        handle: H,
        tracker: TaskTracker,
        stopped: CancellationToken,
    ) where
        H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let builder = Arc::new(builder(bounds));
        let places = Arc::new(Semaphore::new(bounds.max_connections));
        let graceful = GracefulShutdown::new();
        loop {
            let accepted = tokio::select! {
                accepted = accept(&self.socket, &places) => accepted,
                () = stopped.cancelled() => break,
            };
            let Some((stream, place)) = accepted else { continue };
            let port = LocalPort(self.address.port());
            let handle = handle.clone();
            let service = service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(port);
                let answer = handle(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let (builder, watcher) = (builder.clone(), graceful.watcher());
            let stopped = stopped.clone();
            tracker.spawn(async move {
                let begun = tokio::time::timeout(bounds.header_timeout, has_begun(&stream));
                let begun = stopped.run_until_cancelled(begun).await;
                if !matches!(begun, Some(Ok(true))) {
                    return;
                }
                let connection = builder.serve_connection(TokioIo::new(stream), service);
                if let Err(error) = watcher.watch(connection.into_owned()).await {
                    debug!(%error, "a caller's connection ended");
                }
                drop(place);
            });
        }
        drop(self.socket);
        graceful.shutdown().await;
    }
}

type Place = tokio::sync::OwnedSemaphorePermit;

async fn accept(socket: &TcpListener, places: &Arc<Semaphore>) -> Option<(TcpStream, Place)> {
    let place = places.clone().acquire_owned().await.ok()?;
    match socket.accept().await {
        Ok((stream, _)) => {
            if let Err(error) = stream.set_nodelay(true) {
                debug!(%error, "a caller's connection could not be set to no delay");
            }
            Some((stream, place))
        }
        Err(error) => {
            warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// Waits until a caller has begun to speak and its protocol is plain; hyper does so without a
/// bound. `false` when the caller has gone.
async fn has_begun(stream: &TcpStream) -> bool {
    let mut begin = [0; H2_PREFACE.len()];
    loop {
        match stream.peek(&mut begin).await {
            Ok(0) | Err(_) => return false,
            Ok(len) if len < begin.len() && H2_PREFACE.starts_with(&begin[..len]) => {
                // what has been looked at stays readable, so there is nothing to wait for but time
                tokio::time::sleep(PREFACE_PAUSE).await;
            }
            Ok(_) => return true,
        }
    }
}

fn builder(bounds: Bounds) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.header_timeout)
        .max_buf_size(H1_BUFFER)
        .max_headers(HEADERS_MAX)
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(H2_PING_EVERY)
        .max_concurrent_streams(H2_STREAMS_MAX)
        .max_header_list_size(H2_HEADERS_MAX);
    builder
}
