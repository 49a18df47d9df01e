//! A cluster of Redis or Valkey servers: its nodes, and the connection that knows where keys are.
//!
//! Whether there is one is asked of the server that the URL names; the others are then known from
//! it. A call that did not reach the node with its keys is not sent again by the crate, which would
//! also do that with one whose answer was lost: the link does, when an error says that nothing was
//! done.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use redis::aio::{ConnectionLike, PubSub};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo, SingleNodeRoutingInfo};
use redis::{
    Cmd, ErrorKind, FromRedisValue, ProtocolVersion, RedisError, RedisResult, ServerErrorKind,
    Value,
};

use super::{CALL_TIME, CONNECT_TIME, client, tcp};
use crate::config::RedisUrl;

/// Asks a node which nodes have which keys.
static SLOTS: LazyLock<Cmd> = LazyLock::new(|| {
    let mut slots = redis::cmd("CLUSTER");
    slots.arg("SLOTS");
    slots
});

/// Whether the server is a node of a cluster; one that may not be asked is taken for none.
pub(super) async fn is_one(server: &mut impl ConnectionLike) -> bool {
    let facts = redis::cmd("INFO").arg("cluster").query_async::<String>(server).await;
    facts.is_ok_and(|facts| facts.lines().any(|line| line.trim_end() == "cluster_enabled:1"))
}

/// Connects to all nodes of the cluster that `server`, the one at `url`, belongs to.
pub(super) async fn connect(
    url: &RedisUrl,
    server: &mut impl ConnectionLike,
) -> RedisResult<ClusterConnection> {
    let urls = nodes(url, &SLOTS.query_async(server).await?);
    let infos: RedisResult<Vec<_>> =
        urls.iter().map(|url| Ok(client(url)?.get_connection_info().clone())).collect();
    ClusterClientBuilder::new(infos?)
        .use_protocol(ProtocolVersion::RESP3)
        .tcp_settings(tcp())
        .connection_timeout(CONNECT_TIME)
        .response_timeout(CALL_TIME)
        .retries(0)
        .build()?
        .get_async_connection()
        .await
}

/// The answers of all nodes to `command`.
pub(super) async fn ask_all_nodes<T: FromRedisValue>(
    cluster: &mut ClusterConnection,
    command: &Cmd,
) -> RedisResult<Vec<T>> {
    let all = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllNodes, None));
    match cluster.route_command(command.clone(), all).await? {
        Value::Map(answers) => {
            answers.into_iter().map(|(_, answer)| Ok(T::from_redis_value(answer)?)).collect()
        }
        answer => Ok(vec![T::from_redis_value(answer)?]),
    }
}

/// A connection to some node, which hears what is published on `channel` anywhere in the cluster.
pub(super) async fn listen(
    url: &RedisUrl,
    cluster: &mut ClusterConnection,
    channel: &str,
) -> RedisResult<PubSub> {
    let any = RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random);
    let urls = nodes(url, &cluster.route_command(SLOTS.clone(), any).await?);
    // whichever is the first to take us: one that is dead may not even refuse
    let tries = urls.iter().map(|url| {
        Box::pin(async {
            let mut messages = client(url)?.get_async_pubsub().await?;
            messages.subscribe(channel).await?;
            Ok(messages)
        })
    });
    futures_util::future::select_ok(tries).await.map(|(messages, _)| messages)
}

/// Whether an error says that nothing was done, and that the call may be sent again.
pub(super) fn was_turned_away(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::ClusterConnectionNotFound => true,
        ErrorKind::Server(kind) => matches!(
            kind,
            ServerErrorKind::Moved
                | ServerErrorKind::Ask
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::ReadOnly
        ),
        _ => false,
    }
}

/// The nodes in an answer to `CLUSTER SLOTS`, and the one at `url` before them.
fn nodes(url: &RedisUrl, slots: &Value) -> Vec<RedisUrl> {
    let ranges = if let Value::Array(ranges) = slots { ranges.as_slice() } else { &[] };
    let of_range = |range: &Value| match range {
        // first and last slot, then nodes
        Value::Array(parts) => parts.iter().skip(2).filter_map(address).collect(),
        _ => Vec::new(),
    };
    let found: BTreeSet<(String, u16)> = ranges.iter().flat_map(of_range).collect();
    let others = found.into_iter().filter(|(host, port)| (host, *port) != (&url.host, url.port));
    let known = others.map(|(host, port)| {
        // a node that does not know its own name is where it was asked
        let host = if host.is_empty() { url.host.clone() } else { host };
        RedisUrl { host, port, ..url.clone() }
    });
    std::iter::once(url.clone()).chain(known).collect()
}

fn address(node: &Value) -> Option<(String, u16)> {
    let Value::Array(parts) = node else { return None };
    let host = match parts.first()? {
        Value::BulkString(host) => String::from_utf8(host.clone()).ok()?,
        Value::SimpleString(host) => host.clone(),
        _ => String::new(),
    };
    let Value::Int(port) = parts.get(1)? else { return None };
    Some((host, u16::try_from(*port).ok()?))
}
