//! The idle connections to one destination.
//!
//! They are handed out one caller at a time, the last used first, so that a quiet time closes the
//! others. An idle connection is dropped before the far side is likely to.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderValue, Uri};
use hyper::client::conn::http1;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::connect::wire;
use super::{ConnectError, Connector, Link, Parts};
use crate::clock::Clock;
use crate::engine::Mono;

/// Idle time after which a connection is dropped: below the 60 s after which gateways usually
/// close.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// How often idle connections are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

pub(super) struct Pool {
    pub(super) host: HeaderValue,
    url: Uri,
    connector: Connector,
    connect_timeout: Duration,
    clock: Clock,
    tracker: TaskTracker,
    idle: Mutex<Vec<(Link, Mono)>>,
}

/// A connection that is in use; it goes back when this is dropped.
pub struct Lease(Option<(Link, Arc<Pool>)>);

impl Lease {
    pub(super) fn new(link: Link, pool: Arc<Pool>) -> Self {
        Self(Some((link, pool)))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some((link, pool)) = self.0.take()
            && !link.sender.is_closed()
        {
            let at = pool.clock.mono();
            pool.idle().push((link, at));
        }
    }
}

impl Pool {
    pub(super) fn start(parts: Parts) -> Arc<Self> {
        let authority = parts.url.authority().expect("a configuration has an upstream authority");
        let pool = Arc::new(Self {
            host: HeaderValue::from_str(authority.as_str()).expect("an authority is visible ASCII"),
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
                pool.idle().clear();
            }
        });
        pool
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Link, Mono)>> {
        // the guard is held for pushes and pops only, none of which leaves the list half changed
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take_idle(&self) -> Option<Link> {
        let now = self.clock.now().mono;
        let mut idle = self.idle();
        while let Some((link, since)) = idle.pop() {
            if !link.sender.is_closed() && now.since(since) < IDLE_MAX {
                return Some(link);
            }
        }
        None
    }

    fn sweep(&self) {
        let now = self.clock.now().mono;
        let mut idle = self.idle();
        idle.retain(|(link, since)| !link.sender.is_closed() && now.since(*since) < IDLE_MAX);
        idle.shrink_to(16);
    }

    pub(super) async fn connect(&self) -> Result<Link, ConnectError> {
        tokio::time::timeout(self.connect_timeout, self.handshake())
            .await
            .map_err(|_| ConnectError::TimedOut(self.connect_timeout))?
    }

    async fn handshake(&self) -> Result<Link, ConnectError> {
        let io = self.connector.connect(self.url.clone()).await?;
        let socket = wire(&io).socket();
        let (mut sender, connection) =
            http1::Builder::new().handshake(io).await.map_err(ConnectError::Handshake)?;
        // not awaited by a stop: an idle connection ends when its sender is dropped
        self.tracker.spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "a connection to the upstream ended");
            }
        });
        sender.ready().await.map_err(ConnectError::Handshake)?;
        Ok(Link { sender, socket })
    }
}
