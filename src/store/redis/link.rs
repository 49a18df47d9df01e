//! The connection to a Redis or Valkey server: one for all calls, made again when it is lost.
//!
//! Commands of many tasks go over it one behind the other and are answered in order, so nothing
//! that blocks the server's side of a connection may be sent. Every call ends within [`CALL_TIME`],
//! whatever the server or the network does; what a call that ended so has done is unknown. Scripts
//! are called by their digest and sent again to a server that does not know them (any more). No
//! message holds a password, an argument or an answer.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use redis::aio::{ConnectionManager, ConnectionManagerConfig, PubSub};
use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ErrorKind, FromRedisValue,
    IntoConnectionInfo as _, Pipeline, ProtocolVersion, RedisConnectionInfo, RedisError,
    RedisResult, ScriptInvocation, ServerErrorKind,
};

use crate::config::RedisUrl;
use crate::secret::Secret;
use crate::store::StoreError;

/// Longest time that a call takes, waiting for a new connection included.
pub(in crate::store) const CALL_TIME: Duration = Duration::from_secs(1);
/// Longest time that one try to connect takes; several fit no call, but the tries go on.
const CONNECT_TIME: Duration = Duration::from_secs(1);
/// Longest pause between two tries to connect: a server that is back is found within it.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// A peer that says nothing for so long is gone: without this, a connection through a network that
/// drops everything would be believed in for a quarter of an hour.
const SILENCE: Duration = Duration::from_secs(5);

/// A connection; clones share it.
#[derive(Clone)]
pub(in crate::store) struct Link {
    calls: Arc<ArcSwap<ConnectionManager>>,
    client: Client,
}

impl Link {
    /// Connects to the server at `url`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] with host and port when it cannot be reached or does not let us
    /// in.
    pub(in crate::store) async fn open(url: &RedisUrl) -> Result<Self, StoreError> {
        let place = url.place();
        let explain = |error: &RedisError| StoreError::Unavailable {
            attempt: "connect to the Redis server",
            cause: format!("{place}: {}", reason(error)),
        };
        let client = client(url).map_err(|error| explain(&error))?;
        // the manager would try for ever and not say why
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIME))
            .set_response_timeout(Some(CALL_TIME));
        let first = async {
            let mut calls = client.get_multiplexed_async_connection_with_config(&config).await?;
            // a server that wants a password lets anybody connect
            redis::cmd("PING").exec_async(&mut calls).await
        };
        match tokio::time::timeout(2 * CALL_TIME, first).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(explain(&error)),
            Err(_) => {
                return Err(StoreError::Unavailable {
                    attempt: "connect to the Redis server",
                    cause: format!("{place}: no answer within {:?}", 2 * CALL_TIME),
                });
            }
        }
        let calls = manager(&client).map_err(|error| explain(&error))?;
        Ok(Self { calls: Arc::new(ArcSwap::from_pointee(calls)), client })
    }

    /// Runs a script. Its errors and time-outs say what was attempted, never with what.
    pub(in crate::store) async fn run<T: FromRedisValue>(
        &self,
        attempt: &'static str,
        call: &ScriptInvocation<'_>,
    ) -> Result<T, StoreError> {
        let mut calls = ConnectionManager::clone(&self.calls.load());
        self.within(attempt, call.invoke_async(&mut calls)).await
    }

    /// Sends one command.
    pub(in crate::store) async fn ask<T: FromRedisValue>(
        &self,
        attempt: &'static str,
        command: &Cmd,
    ) -> Result<T, StoreError> {
        let mut calls = ConnectionManager::clone(&self.calls.load());
        self.within(attempt, command.query_async(&mut calls)).await
    }

    /// Sends several commands one behind the other; others may come between.
    pub(in crate::store) async fn ask_all<T: FromRedisValue>(
        &self,
        attempt: &'static str,
        commands: &Pipeline,
    ) -> Result<T, StoreError> {
        let mut calls = ConnectionManager::clone(&self.calls.load());
        self.within(attempt, commands.query_async(&mut calls)).await
    }

    /// A connection of its own that hears what is published on `channel`.
    pub(in crate::store) async fn listen(&self, channel: &str) -> Result<PubSub, StoreError> {
        let listening = async {
            let mut messages = self.client.get_async_pubsub().await?;
            messages.subscribe(channel).await?;
            Ok(messages)
        };
        self.within("listen for changes", listening).await
    }

    async fn within<T>(
        &self,
        attempt: &'static str,
        call: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, StoreError> {
        let cause = match tokio::time::timeout(CALL_TIME, call).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => {
                if is_of_replica(&error)
                    && let Ok(anew) = manager(&self.client)
                {
                    self.calls.store(Arc::new(anew));
                }
                reason(&error)
            }
            Err(_) => format!("the Redis server did not answer within {CALL_TIME:?}"),
        };
        Err(StoreError::Unavailable { attempt, cause })
    }
}

/// A connection that is made with the first call and again whenever it is lost.
fn manager(client: &Client) -> RedisResult<ConnectionManager> {
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(CONNECT_TIME))
        .set_response_timeout(Some(CALL_TIME))
        .set_max_delay(RETRY_PAUSE)
        .set_number_of_retries(usize::MAX);
    ConnectionManager::new_lazy_with_config(client.clone(), config)
}

/// Whether the server may not write (any more): after a fail-over the address may lead to another
/// one while the connection still leads to this. Scripts of older servers say it in their text
/// only.
fn is_of_replica(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
        || error.to_string().contains("READONLY")
}

/// What went wrong, without anything that was sent or answered.
fn reason(error: &RedisError) -> String {
    match error.kind() {
        ErrorKind::UnexpectedReturnType | ErrorKind::Parse => {
            "the answer of the Redis server is not as expected".to_owned()
        }
        _ if error.is_timeout() => "the Redis server did not answer in time".to_owned(),
        _ if error.is_cluster_error() => {
            format!("the server is a node of a cluster and does not hold these keys ({error})")
        }
        _ => error.to_string(),
    }
}

fn client(url: &RedisUrl) -> RedisResult<Client> {
    let (host, port) = (url.host.clone(), url.port);
    let address = if url.tls {
        // The crate takes the process's provider: it is set here, since with several or none in the
        // tree there would be no default. Whoever set one before is right too.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(host, port)
    };
    // in this protocol a lost connection is noticed and made again before somebody needs it
    let mut us = RedisConnectionInfo::default()
        .set_db(i64::from(url.database))
        .set_protocol(ProtocolVersion::RESP3);
    if let Some(user) = &url.user {
        us = us.set_username(user);
    }
    if let Some(password) = url.password.as_ref().map(Secret::expose) {
        us = us.set_password(password);
    }
    let alive = TcpKeepalive::new().with_time(SILENCE).with_interval(CALL_TIME);
    let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(alive);
    #[cfg(target_os = "linux")]
    let tcp = tcp.set_user_timeout(SILENCE);
    let info = address.into_connection_info()?.set_redis_settings(us).set_tcp_settings(tcp);
    Client::open(info)
}
