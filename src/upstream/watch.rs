//! When the API's transport had a request, which tells a slow network from a slow API.

use std::sync::Weak;
use std::time::Duration;

use http::Request;
use http_body::Body as _;
use tcp_info::acknowledgements;

use super::OutBody;
use super::wire::Socket;

/// The longest tick of a kernel (100 a second): what the time since an acknowledgement may be too
/// long by.
const TICK: Duration = Duration::from_millis(10);

/// Looks for the acknowledgement of one request.
#[derive(Debug)]
pub struct Watch {
    socket: Weak<Socket>,
    /// Bytes that were written before the request.
    before: u64,
    /// Bytes that the request has at least.
    least: u64,
}

impl Watch {
    /// A watch for a request that has not left yet, where its length is known.
    pub(super) fn start(socket: &Weak<Socket>, request: &Request<OutBody>) -> Option<Self> {
        let least = least_len(request)?;
        let before = socket.upgrade()?.written();
        Some(Self { socket: socket.clone(), before, least })
    }

    /// How long ago the whole request was acknowledged, rather too short than too long; `None` when
    /// it was not yet.
    #[must_use]
    pub fn acknowledged(&self) -> Option<Duration> {
        let socket = self.socket.upgrade()?;
        // while hyper has not written it, the kernel misses nothing
        if socket.written().saturating_sub(self.before) < self.least {
            return None;
        }
        let seen = acknowledgements(&socket.fd).ok()?;
        seen.is_complete.then(|| seen.last_since.saturating_sub(TICK))
    }
}

/// The head's parts and the body, without what encodings add.
fn least_len(request: &Request<OutBody>) -> Option<u64> {
    let body = request.body().size_hint().exact()?;
    let fields = request.headers().iter();
    let fields: usize = fields.map(|(name, value)| name.as_str().len() + value.len()).sum();
    let head = request.uri().path().len().saturating_add(fields);
    Some(body.saturating_add(u64::try_from(head).ok()?))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use bytes::Bytes;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::{TcpListener, TcpStream};
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::clock::Clock;
    use crate::upstream::{Connection, Connector, Parts, Upstream, tls};

    async fn connected() -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let authority = listener.local_addr().expect("bound").to_string();
        let upstream = Upstream::new(Parts {
            url: format!("http://{authority}").parse().expect("a URL"),
            connector: Connector::new(tls(None).expect("the system's authorities")),
            connect_timeout: Duration::from_secs(5),
            clock: Clock::system(),
            tracker: TaskTracker::new(),
            stopped: tokio_util::sync::CancellationToken::new(),
        });
        let (connection, accepted) = tokio::join!(upstream.connection(), listener.accept());
        (connection.expect("it listens"), accepted.expect("it connected").0)
    }

    fn request(body: usize) -> Request<OutBody> {
        let body = OutBody::Kept(Some(Bytes::from(vec![b'x'; body])));
        Request::post("/v3/contacts").header("host", "api").body(body).expect("a request")
    }

    #[tokio::test]
    async fn a_request_that_was_taken_is_acknowledged_before_its_answer() {
        let (connection, mut far) = connected().await;
        let request = request(1_000);
        let watch = connection.watch(&request).expect("Linux tells");
        assert_eq!(watch.acknowledged(), None, "nothing has left");
        let sending = TaskTracker::new().spawn(connection.send(request));
        while watch.acknowledged().is_none() {
            far.readable().await.expect("connected");
            let _ = far.read(&mut [0; 4_096]).await.expect("connected");
        }
        assert!(!sending.is_finished(), "no answer was given");
    }

    #[tokio::test]
    async fn a_request_that_is_held_up_is_not_acknowledged() {
        let (connection, far) = connected().await;
        let request = request(64 << 20);
        let watch = connection.watch(&request).expect("Linux tells");
        let sending = TaskTracker::new().spawn(connection.send(request));
        far.readable().await.expect("connected");
        assert_eq!(watch.acknowledged(), None);
        sending.abort();
    }

    #[tokio::test]
    async fn a_connection_that_ended_tells_nothing_and_keeps_no_socket() {
        let (connection, far) = connected().await;
        let request = request(10);
        let watch = connection.watch(&request).expect("Linux tells");
        drop((connection, far));
        while watch.socket.upgrade().is_some() {
            tokio::task::yield_now().await;
        }
        assert_eq!(watch.acknowledged(), None);
    }
}
