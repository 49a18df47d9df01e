//! Connections to the API: one destination, kept while they are of use.
//!
//! A slot is counted from the moment its bytes leave, so a caller first takes a [`Connection`] in
//! hand and only then spends its slot: no handshake stands between the two. While a call waits for
//! a slot it holds none. A connection tells apart what certainly was not sent from what may have
//! been.

mod body;
mod connect;
mod pool;
mod watch;
mod wire;

use std::sync::{Arc, Weak};
use std::time::Duration;

use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;

pub use body::{BodyError, OutBody};
pub use connect::{ConnectError, Connector, TlsError, no_tls, tls};
pub use pool::Lease;
use pool::Pool;
pub use watch::Watch;
use wire::Socket;

/// What the connections are made with.
pub struct Parts {
    /// Scheme and authority of the API.
    pub url: Uri,
    /// Makes connections.
    pub connector: Connector,
    /// For a connection to be made, TLS included.
    pub connect_timeout: Duration,
    /// Reads time.
    pub clock: Clock,
    /// Runs the connections.
    pub tracker: TaskTracker,
    /// Ends the task that drops idle connections.
    pub stopped: CancellationToken,
}

/// The API behind the proxy; clones share its connections.
#[derive(Clone)]
pub struct Upstream {
    pool: Arc<Pool>,
}

/// A connection in hand: ready to send one request.
pub struct Connection {
    link: Link,
    pool: Arc<Pool>,
}

/// One end of a connection.
struct Link {
    sender: http1::SendRequest<OutBody>,
    socket: Weak<Socket>,
}

/// How long an idle connection may take to be ready. One that is not ready at once still sends the
/// body of an earlier request, whose caller may never end it.
const READY_MAX: Duration = Duration::from_millis(50);

/// A request did not get its answer.
#[derive(Debug)]
pub enum SendError {
    /// The connection had closed: no byte was sent.
    NotSent(Box<Request<OutBody>>),
    /// The connection broke after the request had begun to leave; it may have been served.
    Lost(hyper::Error),
}

impl Upstream {
    /// No connection is made yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self { pool: Pool::start(parts) }
    }

    /// The authority, for the `Host` header.
    #[must_use]
    pub fn host(&self) -> &http::HeaderValue {
        &self.pool.host
    }

    /// A connection that is ready: an idle one, or a new one.
    ///
    /// # Errors
    /// When none can be made within the connect time-out; nothing was sent.
    pub async fn connection(&self) -> Result<Connection, ConnectError> {
        while let Some(mut link) = self.pool.take_idle() {
            let sender = &mut link.sender;
            let ready = sender.is_ready()
                || matches!(tokio::time::timeout(READY_MAX, sender.ready()).await, Ok(Ok(())));
            if ready {
                return Ok(Connection { link, pool: self.pool.clone() });
            }
        }
        // boxed: a handshake is large, and most calls need none
        let link = Box::pin(self.pool.connect()).await?;
        Ok(Connection { link, pool: self.pool.clone() })
    }
}

impl Connection {
    /// Watches for the acknowledgement of a request that is sent next; `None` where it is not to
    /// be seen.
    #[must_use]
    pub fn watch(&self, request: &Request<OutBody>) -> Option<Watch> {
        Watch::start(&self.link.socket, request)
    }

    /// Sends the request and waits for the head of its answer. The lease gives the connection back
    /// when it is dropped, which is to be when the answer's body has been read or is not wanted.
    ///
    /// # Errors
    /// [`SendError`], which says whether anything was sent.
    pub async fn send(
        mut self,
        mut request: Request<OutBody>,
    ) -> Result<(Response<Incoming>, Lease), SendError> {
        *request.version_mut() = http::Version::HTTP_11;
        let answer = self.link.sender.try_send_request(request).await;
        let lease = Lease::new(self.link, self.pool);
        answer.map_or_else(|error| Err(send_error(error)), |answer| Ok((answer, lease)))
    }
}

fn send_error(mut error: hyper::client::conn::TrySendError<Request<OutBody>>) -> SendError {
    match error.take_message() {
        Some(request) => SendError::NotSent(Box::new(request)),
        None => SendError::Lost(error.into_error()),
    }
}
