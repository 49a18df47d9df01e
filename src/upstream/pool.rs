//! The idle connections to one destination.
//!
//! HTTP/1.1 connections are handed out one caller at a time, the last used first, so that a quiet
//! time closes the others; of HTTP/2 there is one for all. An idle connection is dropped before the
//! far side is likely to.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::uri::{Authority, Scheme};
use http::{HeaderValue, Request, Uri};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::{ConnectError, Connector, OutBody, Parts, Sender};
use crate::clock::Clock;
use crate::engine::Mono;

/// Idle time after which a connection is dropped: below the 60 s after which gateways usually
/// close.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// How often idle connections are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

pub(super) struct Pool {
    pub(super) host: HeaderValue,
    scheme: Scheme,
    authority: Authority,
    url: Uri,
    connector: Connector,
    connect_timeout: Duration,
    clock: Clock,
    tracker: TaskTracker,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    h1: Vec<(http1::SendRequest<OutBody>, Mono)>,
    h2: Option<http2::SendRequest<OutBody>>,
}

/// A connection that is in use; it goes back when this is dropped.
pub struct Lease(Option<(http1::SendRequest<OutBody>, Arc<Pool>)>);

impl Lease {
    pub(super) fn h1(sender: http1::SendRequest<OutBody>, pool: Arc<Pool>) -> Self {
        Self(Some((sender, pool)))
    }

    pub(super) fn shared() -> Self {
        Self(None)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some((sender, pool)) = self.0.take()
            && !sender.is_closed()
        {
            let at = pool.clock.mono();
            pool.idle().h1.push((sender, at));
        }
    }
}

impl Pool {
    pub(super) fn start(parts: Parts) -> Arc<Self> {
        let uri = parts.url.clone().into_parts();
        let authority = uri.authority.expect("a valid configuration has an upstream authority");
        let pool = Arc::new(Self {
            host: HeaderValue::from_str(authority.as_str()).expect("an authority is visible ASCII"),
            scheme: uri.scheme.expect("a valid configuration has an upstream scheme"),
            authority,
            url: parts.url,
            connector: parts.connector,
            connect_timeout: parts.connect_timeout,
            clock: parts.clock,
            tracker: parts.tracker.clone(),
            idle: Mutex::default(),
        });
        let (swept, stopped) = (Arc::downgrade(&pool), parts.stopped);
        parts.tracker.spawn(async move {
            while let Some(pool) = swept.upgrade() {
                pool.sweep();
                let next = pool.clock.mono().plus(SWEEP_EVERY);
                let clock = pool.clock.clone();
                drop(pool);
                tokio::select! {
                    () = clock.sleep_until(next) => {}
                    () = stopped.cancelled() => break,
                }
            }
            if let Some(pool) = swept.upgrade() {
                *pool.idle() = Idle::default();
            }
        });
        pool
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        // the guard is held for pushes and pops only, none of which leaves the list half changed
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take_idle(&self) -> Option<Sender> {
        let mut idle = self.idle();
        if let Some(sender) = &idle.h2 {
            if !sender.is_closed() {
                return Some(Sender::H2(sender.clone()));
            }
            idle.h2 = None;
        }
        while let Some((sender, since)) = idle.h1.pop() {
            if !sender.is_closed() && self.clock.mono().since(since) < IDLE_MAX {
                return Some(Sender::H1(sender));
            }
        }
        None
    }

    fn sweep(&self) {
        let now = self.clock.mono();
        let mut idle = self.idle();
        idle.h1.retain(|(sender, since)| !sender.is_closed() && now.since(*since) < IDLE_MAX);
        idle.h1.shrink_to(16);
    }

    pub(super) async fn connect(&self) -> Result<Sender, ConnectError> {
        tokio::time::timeout(self.connect_timeout, self.handshake())
            .await
            .map_err(|_| ConnectError::TimedOut(self.connect_timeout))?
    }

    async fn handshake(&self) -> Result<Sender, ConnectError> {
        let connected = self.connector.connect(self.url.clone()).await?;
        let is_h2 = connected.is_h2();
        let io = connected.into_io();
        if is_h2 {
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(Duration::from_secs(20))
                .handshake(io)
                .await
                .map_err(ConnectError::Handshake)?;
            self.drive(connection);
            self.idle().h2 = Some(sender.clone());
            return Ok(Sender::H2(sender));
        }
        let (mut sender, connection) =
            http1::Builder::new().handshake(io).await.map_err(ConnectError::Handshake)?;
        self.drive(connection);
        sender.ready().await.map_err(ConnectError::Handshake)?;
        Ok(Sender::H1(sender))
    }

    fn drive<C>(&self, connection: C)
    where
        C: Future<Output = Result<(), hyper::Error>> + Send + 'static,
    {
        // not awaited by a stop: an idle connection ends when its sender is dropped
        self.tracker.spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "a connection to the upstream ended");
            }
        });
    }

    /// HTTP/2 names scheme and authority in the request itself.
    pub(super) fn absolute(&self, request: &mut Request<OutBody>) {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        *request.uri_mut() =
            Uri::from_parts(parts).expect("a request target with scheme and authority is a URI");
        request.headers_mut().remove(http::header::HOST);
        *request.version_mut() = http::Version::HTTP_2;
    }
}
