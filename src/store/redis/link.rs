//! The connection to a Redis or Valkey server: one for all calls, made again when it is lost.
//!
//! Commands of many tasks go over it one behind the other and are answered in order, so nothing
//! that blocks the server's side of a connection may be sent. Every call ends within [`CALL_TIME`],
//! whatever the server or the network does; what a call that ended so has done is unknown. Scripts
//! are called by their digest and sent again to a server that does not know them (any more). No
//! message holds a password, an argument or an answer. Where the server is a node of a cluster,
//! each call goes to the node that has its keys.

mod cluster;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use redis::aio::{ConnectionManager, ConnectionManagerConfig, PubSub};
use redis::cluster_async::ClusterConnection;
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

/// For how long the mark stays that is written to be waited for.
const MARK_SECS: u64 = 60;

/// The server does not know the script, although it was sent right before.
const NO_SCRIPT: ErrorKind = ErrorKind::Server(ServerErrorKind::NoScript);

/// Pause before a call is sent again that a cluster turned away: the nodes are asked meanwhile who
/// has its keys now.
const AGAIN_PAUSE: Duration = Duration::from_millis(25);

/// A connection; clones share it.
#[derive(Clone)]
pub(in crate::store) struct Link {
    calls: Arc<ArcSwap<Calls>>,
    client: Client,
    url: Arc<RedisUrl>,
}

/// What calls go over.
#[derive(Clone)]
enum Calls {
    /// One server.
    Server(ConnectionManager),
    /// The nodes of a cluster.
    Cluster(ClusterConnection),
}

/// Does the same over either.
macro_rules! over {
    ($calls:ident, $connection:ident => $call:expr) => {
        match $calls {
            Calls::Server(mut $connection) => $call,
            Calls::Cluster(mut $connection) => $call,
        }
    };
}

impl Link {
    /// Connects to the server at `url`, and to the cluster that it belongs to, if it does.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] with host and port when it cannot be reached or does not let us
    /// in.
    pub(in crate::store) async fn open(url: &RedisUrl) -> Result<Self, StoreError> {
        let place = url.place();
        let unavailable = |cause: String| StoreError::Unavailable {
            attempt: "connect to the Redis server",
            cause: format!("{place}: {cause}"),
        };
        let client = client(url).map_err(|error| unavailable(reason(&error)))?;
        // the manager would try for ever and not say why
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIME))
            .set_response_timeout(Some(CALL_TIME));
        let first = async {
            let mut server = client.get_multiplexed_async_connection_with_config(&config).await?;
            // a server that wants a password lets anybody connect
            redis::cmd("PING").exec_async(&mut server).await?;
            if cluster::is_one(&mut server).await {
                cluster::connect(url, &mut server).await.map(Calls::Cluster)
            } else {
                manager(&client).map(Calls::Server)
            }
        };
        let calls = match tokio::time::timeout(2 * CALL_TIME, first).await {
            Ok(calls) => calls.map_err(|error| unavailable(reason(&error)))?,
            Err(_) => return Err(unavailable(format!("no answer within {:?}", 2 * CALL_TIME))),
        };
        let calls = Arc::new(ArcSwap::from_pointee(calls));
        Ok(Self { calls, client, url: Arc::new(url.clone()) })
    }

    /// Runs a script. Its errors and time-outs say what was attempted, never with what.
    pub(in crate::store) async fn run<T: FromRedisValue>(
        &self,
        attempt: &'static str,
        call: &ScriptInvocation<'_>,
    ) -> Result<T, StoreError> {
        self.within(attempt, |calls| async move {
            over!(calls, connection => loop {
                match call.invoke_async(&mut connection).await {
                    // forgotten again between the two: it has not run
                    Err(error) if error.kind() == NO_SCRIPT => {}
                    answer => break answer,
                }
            })
        })
        .await
    }

    /// Sends one command.
    pub(in crate::store) async fn ask<T: FromRedisValue>(
        &self,
        attempt: &'static str,
        command: &Cmd,
    ) -> Result<T, StoreError> {
        self.within(attempt, |calls| async move {
            over!(calls, connection => command.query_async(&mut connection).await)
        })
        .await
    }

    /// Sends several commands one behind the other; others may come between. In a cluster all of
    /// their keys have one hash tag.
    pub(in crate::store) async fn ask_all<T: FromRedisValue>(
        &self,
        attempt: &'static str,
        commands: &Pipeline,
    ) -> Result<T, StoreError> {
        self.within(attempt, |calls| async move {
            over!(calls, connection => commands.query_async(&mut connection).await)
        })
        .await
    }

    /// Sends one command to every node, or to the one server that there is.
    pub(in crate::store) async fn ask_each<T: FromRedisValue>(
        &self,
        attempt: &'static str,
        command: &Cmd,
    ) -> Result<Vec<T>, StoreError> {
        self.within(attempt, |calls| async move {
            match calls {
                Calls::Server(mut server) => Ok(vec![command.query_async(&mut server).await?]),
                Calls::Cluster(mut nodes) => cluster::ask_all_nodes(&mut nodes, command).await,
            }
        })
        .await
    }

    /// A connection of its own that hears what is published on `channel`.
    pub(in crate::store) async fn listen(&self, channel: &str) -> Result<PubSub, StoreError> {
        self.within("listen for changes", |calls| async move {
            match calls {
                Calls::Server(_) => {
                    let mut messages = self.client.get_async_pubsub().await?;
                    messages.subscribe(channel).await?;
                    Ok(messages)
                }
                Calls::Cluster(mut nodes) => cluster::listen(&self.url, &mut nodes, channel).await,
            }
        })
        .await
    }

    /// Waits until the server's disk holds all that was written before (`WAITAOF`, Redis 7.2 and
    /// Valkey), on a connection of its own, which it blocks. `false` where that is not known in
    /// time: from an older server, from one without an append-only file, or in a cluster, where it
    /// is not asked.
    pub(in crate::store) async fn is_synced(&self, mark: &str, time: Duration) -> bool {
        if matches!(**self.calls.load(), Calls::Cluster(_)) {
            return false;
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIME))
            .set_response_timeout(Some(time + CALL_TIME));
        let mut asking = redis::pipe();
        // what is waited for is this write, and with it all before
        asking.cmd("SET").arg(mark).arg(1).arg("EX").arg(MARK_SECS).ignore();
        asking.cmd("WAITAOF").arg(1).arg(0).arg(time.as_millis().to_string());
        let answer = async {
            let mut own = self.client.get_multiplexed_async_connection_with_config(&config).await?;
            let ((local, _),): ((u64, u64),) = asking.query_async(&mut own).await?;
            Ok::<_, RedisError>(local >= 1)
        };
        let answer = tokio::time::timeout(time + CALL_TIME, answer).await;
        answer.is_ok_and(|synced| synced.unwrap_or(false))
    }

    async fn within<T, F: Future<Output = RedisResult<T>>>(
        &self,
        attempt: &'static str,
        call: impl Fn(Calls) -> F,
    ) -> Result<T, StoreError> {
        let cause = match tokio::time::timeout(CALL_TIME, self.until_taken(call)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => {
                if is_of_replica(&error)
                    && matches!(**self.calls.load(), Calls::Server(_))
                    && let Ok(anew) = manager(&self.client)
                {
                    self.calls.store(Arc::new(Calls::Server(anew)));
                }
                reason(&error)
            }
            Err(_) => format!("the Redis server did not answer within {CALL_TIME:?}"),
        };
        Err(StoreError::Unavailable { attempt, cause })
    }

    /// Sends a call again for as long as a cluster turns it away.
    async fn until_taken<T, F: Future<Output = RedisResult<T>>>(
        &self,
        call: impl Fn(Calls) -> F,
    ) -> RedisResult<T> {
        loop {
            let calls = Calls::clone(&self.calls.load());
            let is_cluster = matches!(calls, Calls::Cluster(_));
            match call(calls).await {
                Err(error) if is_cluster && cluster::was_turned_away(&error) => {
                    tokio::time::sleep(AGAIN_PAUSE).await;
                }
                answer => return answer,
            }
        }
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
        _ => without_arguments(&error.to_string()).to_owned(),
    }
}

/// A server repeats the arguments of a command that it does not know, and the first command of a
/// connection has the password among them.
fn without_arguments(text: &str) -> &str {
    text.split_once(", with args").map_or(text, |(before, _)| before)
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
    let info = address.into_connection_info()?.set_redis_settings(us).set_tcp_settings(tcp());
    Client::open(info)
}

fn tcp() -> TcpSettings {
    let alive = TcpKeepalive::new().with_time(SILENCE).with_interval(CALL_TIME);
    let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(alive);
    #[cfg(target_os = "linux")]
    let tcp = tcp.set_user_timeout(SILENCE);
    tcp
}
