//! A real cluster of `redis-server` processes on loopback.
//!
//! Each node is a [`RedisServer`], so that one can be killed, stopped and started again like any
//! server. The slots are split among the first three nodes; further ones are their replicas.

use std::time::{Duration, Instant};

use crate::redis_process::{RedisServer, free_port};

/// Longest time until the nodes agree, on a busy machine.
const AGREED_BY: Duration = Duration::from_secs(30);
/// A node that is silent for so long is replaced by its replica.
const NODE_TIMEOUT_MS: &str = "1000";
/// Between two looks at the nodes.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Slots of a cluster.
const SLOTS: u32 = 16_384;
/// Nodes that have slots.
const PRIMARIES: usize = 3;

/// A running cluster.
pub(crate) struct RedisCluster {
    nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Three nodes with a third of the slots each.
    pub(crate) fn start() -> Self {
        Self::start_nodes(PRIMARIES)
    }

    /// The same, each with a replica.
    pub(crate) fn start_with_replicas() -> Self {
        Self::start_nodes(2 * PRIMARIES)
    }

    fn start_nodes(count: usize) -> Self {
        let start = |_| {
            let bus = free_port().to_string();
            let more = ["--cluster-enabled", "yes", "--cluster-port", &bus];
            let timeout = ["--cluster-node-timeout", NODE_TIMEOUT_MS];
            (RedisServer::start_with(&[&more[..], &timeout].concat()), bus)
        };
        let (nodes, buses): (Vec<_>, Vec<_>) = (0..count).map(start).unzip();
        let cluster = Self { nodes };
        let third = SLOTS / 3 + 1;
        for (node, first) in cluster.nodes.iter().zip((0..SLOTS).step_by(third as usize)) {
            let last = (first + third).min(SLOTS) - 1;
            let (first, last) = (first.to_string(), last.to_string());
            assert_eq!(node.cmd(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]), "+OK");
            let epoch = (first.parse::<u32>().expect("a number") / third + 1).to_string();
            assert_eq!(node.cmd(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]), "+OK");
        }
        for (node, bus) in cluster.nodes.iter().zip(&buses).skip(1) {
            let meet = ["CLUSTER", "MEET", "127.0.0.1", &node.port().to_string(), bus];
            assert_eq!(cluster.nodes[0].cmd(&meet), "+OK");
        }
        let known = format!("cluster_known_nodes:{count}\r");
        cluster.agrees(|node| {
            let info = node.cmd(&["CLUSTER", "INFO"]);
            info.contains("cluster_state:ok") && info.contains(&known)
        });
        for (replica, of) in cluster.nodes[PRIMARIES..].iter().zip(&cluster.nodes) {
            let id = of.cmd(&["CLUSTER", "MYID"]);
            assert_eq!(replica.cmd(&["CLUSTER", "REPLICATE", &id]), "+OK");
        }
        cluster.agrees(Self::is_well);
        // every node knows the part of every other
        let replicas = count - PRIMARIES;
        cluster.agrees(|node| node.cmd(&["CLUSTER", "NODES"]).matches("slave").count() == replicas);
        cluster
    }

    /// `redis://127.0.0.1:PORT` of the first node.
    pub(crate) fn url(&self) -> String {
        self.nodes[0].url()
    }

    /// All nodes.
    pub(crate) fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// The node that has the slot of a key.
    pub(crate) fn node_of(&self, key: &str) -> &RedisServer {
        let has = |node: &&RedisServer| {
            let info = node.cmd(&["INFO", "replication"]);
            info.contains("role:master") && node.cmd(&["EXISTS", key]).starts_with(':')
        };
        self.nodes.iter().find(has).expect("somebody has it")
    }

    /// The replica of that node.
    pub(crate) fn replica_of(&self, key: &str) -> &RedisServer {
        let primary = self.node_of(key);
        self.nodes.iter().find(|node| follows(node, primary)).expect("it has one")
    }

    /// Has that replica take over, and returns when it has. Nodes agree to this once in two
    /// seconds.
    pub(crate) fn fail_over(&self, key: &str) {
        let (primary, replica) = (self.node_of(key), self.replica_of(key));
        assert_eq!(replica.cmd(&["CLUSTER", "FAILOVER"]), "+OK");
        self.agrees(|_| follows(primary, replica));
        self.agrees(Self::is_well);
    }

    /// Kills the node at a port.
    pub(crate) fn kill(&mut self, port: u16) {
        let node = self.nodes.iter_mut().find(|node| node.port() == port);
        node.expect("it is one of ours").kill();
    }

    /// Whether a node has a part, and as a replica all that it is to have.
    fn is_well(node: &RedisServer) -> bool {
        let info = node.cmd(&["INFO", "replication"]);
        let is_ok = node.cmd(&["CLUSTER", "INFO"]).contains("cluster_state:ok");
        is_ok && (info.contains("role:master") || info.contains("master_link_status:up"))
    }

    #[expect(clippy::disallowed_methods, reason = "a cluster says nothing when it is ready")]
    fn agrees(&self, holds: impl Fn(&RedisServer) -> bool) {
        let deadline = Instant::now() + AGREED_BY;
        while !self.nodes.iter().all(&holds) {
            assert!(Instant::now() < deadline, "the nodes do not agree");
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}

/// Whether `node` is a replica of `primary`.
fn follows(node: &RedisServer, primary: &RedisServer) -> bool {
    let of = format!("master_port:{}\r", primary.port());
    node.cmd(&["INFO", "replication"]).contains(&of)
}
