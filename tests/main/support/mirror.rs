//! An upstream that keeps what it was sent, byte for byte, and answers what a test wants.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// A request as it came.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) head: Parts,
    pub(crate) body: Bytes,
}

type Answer = dyn Fn(&Seen) -> Response<Bytes> + Send + Sync;

/// A running upstream; dropping it stops it.
pub(crate) struct Mirror {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    _stop: DropGuard,
}

impl Mirror {
    /// Answers every request with what `answer` makes of it.
    pub(crate) async fn start(
        answer: impl Fn(&Seen) -> Response<Bytes> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (log, answer): (_, Arc<Answer>) = (Arc::clone(&seen), Arc::new(answer));
        let stopped = stop.clone();
        tasks.clone().spawn(async move {
            let accepting = async {
                loop {
                    let (stream, _) = listener.accept().await.expect("a connection");
                    let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                    let service = service_fn(move |request| {
                        reply(request, Arc::clone(&log), Arc::clone(&answer))
                    });
                    tasks.spawn(async move {
                        let server = auto::Builder::new(TokioExecutor::new());
                        let _ = server.serve_connection(TokioIo::new(stream), service).await;
                    });
                }
            };
            stopped.run_until_cancelled(accepting).await;
        });
        Self { url, seen, _stop: stop.drop_guard() }
    }

    /// What has come since the last time this was asked.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().expect("nobody panicked"))
    }
}

async fn reply(
    request: Request<Incoming>,
    log: Arc<Mutex<Vec<Seen>>>,
    answer: Arc<Answer>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let seen = Seen { head, body };
    let answer = answer(&seen);
    log.lock().expect("nobody panicked").push(seen);
    Ok(answer.map(Full::new))
}
