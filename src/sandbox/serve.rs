//! The sandbox on the wire: connections, routes, and the waiting between arrival and answer.
//!
//! HTTP/1.1 and HTTP/2 with prior knowledge on plain text. Every task is tracked. A request's
//! moment is read as soon as its head is; the model is locked for moments only and never across a
//! wait.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::engine::{Mono, Now};

use super::answer::{Answer, Body, Closed, too_large};
use super::control;
use super::device::{ACTIVATE_PATH, DEVICE_PATH};
use super::model::Model;
use super::oauth::{AUTHORIZE_PATH, KEYS_PATH, TOKEN_PATHS};
use super::play::Play;

/// What the gateway takes in; AWS API Gateway's own limit.
const BODY_MAX: usize = 10 * 1024 * 1024;
/// How long connections get to finish when the sandbox stops.
const STOP_GRACE: Duration = Duration::from_secs(1);
/// Pause after the system could not hand over a connection, for example for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

type Sent = Result<Response<Body>, Closed>;

/// What all connections of a sandbox share.
#[derive(Debug)]
pub(super) struct Shared {
    clock: Clock,
    model: Mutex<Model>,
    pub(super) stop: CancellationToken,
}

impl Shared {
    pub(super) fn new(model: Model, clock: Clock) -> Self {
        Self { clock, model: Mutex::new(model), stop: CancellationToken::new() }
    }

    /// The model, for a moment; a panic of another holder does not make it unusable.
    pub(super) fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Now {
        self.clock.now()
    }

    async fn wait_until(&self, at: Mono) {
        if self.now().mono < at {
            self.clock.sleep_until(at).await;
        }
    }

    async fn perform(&self, play: Play, at: Mono) -> Sent {
        if let Play::Hang = play {
            self.stop.cancelled().await;
            return Err(Closed);
        }
        self.wait_until(at).await;
        match play {
            Play::Answer(answer) => Ok(answer.into_response()),
            Play::Cut(answer) => Ok(answer.into_cut_response()),
            Play::Close | Play::Hang => Err(Closed),
        }
    }
}

/// Accepts connections until the sandbox stops.
pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>, tasks: TaskTracker) {
    let server = auto::Builder::new(Tracked(tasks.clone()));
    loop {
        let accepted = tokio::select! {
            () = shared.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            shared.wait_until(shared.now().mono.plus(ACCEPT_PAUSE)).await;
            continue;
        };
        tasks.spawn(connection(server.clone(), stream, Arc::clone(&shared)));
    }
}

async fn connection(server: auto::Builder<Tracked>, stream: TcpStream, shared: Arc<Shared>) {
    // Without it the kernel may hold small answers back, which would look like latency.
    let _ = stream.set_nodelay(true);
    let calls = Arc::clone(&shared);
    let service = service_fn(move |request| handle(Arc::clone(&calls), request));
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    // How a connection ends is the peer's business and often the purpose of a test.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = shared.stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        _ = connection => {}
        () = shared.wait_until(shared.now().mono.plus(STOP_GRACE)) => {}
    }
}

async fn handle(shared: Arc<Shared>, request: Request<Incoming>) -> Sent {
    let now = shared.now();
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    if path == "/v3" || path.starts_with("/v3/") {
        return api(&shared, now, &parts, body).await;
    }
    if TOKEN_PATHS.contains(&path) || path == DEVICE_PATH {
        return token(&shared, now, &parts, body).await;
    }
    let answer = match path {
        AUTHORIZE_PATH => shared.model().authorize(now, &parts),
        ACTIVATE_PATH => shared.model().activate(now, &parts),
        KEYS_PATH => shared.model().keys(now, &parts),
        _ if path.starts_with("/sandbox/") => match read(body).await? {
            Ok(body) => control::serve(&shared, &parts, &body),
            Err(refusal) => refusal,
        },
        _ => shared.model().outside(now, &parts),
    };
    Ok(answer.into_response())
}

async fn api(shared: &Shared, now: Now, parts: &Parts, body: Incoming) -> Sent {
    let arrived = shared.model().arrive(now, parts);
    let body = read(body).await?;
    let (play, latency) = shared.model().serve(arrived, shared.now(), parts, body);
    shared.perform(play, now.mono.plus(latency)).await
}

async fn token(shared: &Shared, now: Now, parts: &Parts, body: Incoming) -> Sent {
    let body = match read(body).await? {
        Ok(body) => body,
        Err(refusal) => return Ok(refusal.into_response()),
    };
    let turn = shared.model().token(now, parts, &body);
    let _turn_end = turn.occupies.map(|client_id| TurnEnd { shared, client_id });
    shared.perform(turn.play, now.mono.plus(turn.latency)).await
}

/// Reports the end of a token request also when the peer is gone before it.
struct TurnEnd<'a> {
    shared: &'a Shared,
    client_id: String,
}

impl Drop for TurnEnd<'_> {
    fn drop(&mut self) {
        let now = self.shared.now();
        self.shared.model().token_answered(&self.client_id, now);
    }
}

/// The whole body; a refusal when it is too large, an end when the peer is gone.
async fn read(body: Incoming) -> Result<Result<Bytes, Answer>, Closed> {
    match Limited::new(body, BODY_MAX).collect().await {
        Ok(body) => Ok(Ok(body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Ok(Err(too_large())),
        Err(_) => Err(Closed),
    }
}

/// Runs hyper's own tasks where they can be waited for.
#[derive(Clone, Debug)]
struct Tracked(TaskTracker);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}
