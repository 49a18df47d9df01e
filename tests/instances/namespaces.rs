//! Three hosts, each a network namespace, of which one loses the way to the server and keeps the
//! one to the API.
//!
//! Needs root and `ip` of iproute2, as CI has. Elsewhere it says that it did nothing.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::Duration;

use tokio::task::JoinHandle;

use ctct_proxy::sandbox::Sandbox;

use crate::chaos::is_set;
use crate::fleet::MACHINE;
use crate::processes::{World, programs_key, sandbox_at};
use crate::redis::RedisServer;
use crate::support::{Process, Program, judge};

/// Where the server and where the API is, as the hosts see it: addresses of their own, so that the
/// way to one can be lost without the other.
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 231, 1, 1);
const API: Ipv4Addr = Ipv4Addr::new(10, 231, 2, 1);
/// Where callers are.
const CALLERS: Ipv4Addr = Ipv4Addr::new(10, 231, 3, 1);
const HOSTS: u8 = 3;

fn ip(words: &str) -> bool {
    let done = Command::new("ip").args(words.split(' ')).output();
    done.is_ok_and(|done| done.status.success())
}

fn must_ip(words: &str) {
    assert!(ip(words), "ip {words}");
}

/// The address in the network of a test: several may run side by side.
fn own(address: Ipv4Addr, number: u8) -> Ipv4Addr {
    let [a, b, c, d] = address.octets();
    Ipv4Addr::new(a, b + number, c, d)
}

/// The hosts; gone when dropped.
struct Network {
    name: String,
}

impl Network {
    /// `None` where it is not allowed.
    fn new(number: u8) -> Option<Self> {
        let name = format!("ctct{}{number}", std::process::id() % 10_000);
        if !ip(&format!("netns add {name}h1")) {
            return None;
        }
        let network = Self { name };
        let bridge = network.bridge();
        must_ip(&format!("link add {bridge} type bridge"));
        // the first is where this side's connections come from
        for address in [CALLERS, SERVER, API] {
            let address = own(address, number);
            must_ip(&format!("address add {address}/16 dev {bridge}"));
        }
        must_ip(&format!("link set {bridge} up"));
        for host in 1..=HOSTS {
            let space = network.host(host);
            if host > 1 {
                must_ip(&format!("netns add {space}"));
            }
            let (near, far) = (format!("{space}a"), format!("{space}b"));
            must_ip(&format!("link add {near} type veth peer name {far}"));
            must_ip(&format!("link set {near} master {bridge} up"));
            must_ip(&format!("link set {far} netns {space}"));
            let at = own(Ipv4Addr::new(10, 231, 0, 10 + host), number);
            must_ip(&format!("-n {space} address add {at}/16 dev {far}"));
            must_ip(&format!("-n {space} link set {far} up"));
            must_ip(&format!("-n {space} link set lo up"));
        }
        Some(network)
    }

    fn bridge(&self) -> String {
        format!("{}br", self.name)
    }

    fn host(&self, host: u8) -> String {
        format!("{}h{host}", self.name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in 1..=HOSTS {
            ip(&format!("netns delete {}", self.host(host)));
        }
        ip(&format!("link delete {}", self.bridge()));
    }
}

struct Fleet {
    network: Network,
    server: Ipv4Addr,
    sandbox: Sandbox,
    hosts: Vec<Process>,
    key: String,
    /// Server and key file go with the rest.
    _held: (RedisServer, tempfile::NamedTempFile),
}

impl Fleet {
    async fn start(number: u8, on_loss: &str) -> Option<Self> {
        let network = Network::new(number);
        if network.is_none() {
            assert!(!is_set("CI"), "CI makes network namespaces: run as root with iproute2");
            drop(writeln!(std::io::stderr(), "no network namespaces here: nothing is tested"));
        }
        let network = network?;
        let (server_at, api) = (own(SERVER, number), own(API, number));
        let bind = server_at.to_string();
        let server =
            RedisServer::start_with(&["--bind", "127.0.0.1", &bind, "--protected-mode", "no"]);
        let sandbox = sandbox_at(IpAddr::V4(api), |_| {}).await;
        let key_file = programs_key();
        let program = |url: String| {
            Program::new(&sandbox)
                .flag("store", url)
                .flag("encryption-key-file", key_file.path().to_str().expect("a path"))
                .flag("per-second", "20")
                .flag("per-day", "1000000")
                .flag("on-store-loss", on_loss)
        };
        // one that is only there to take in tenants and client
        let mut first = program(server.url()).start().await;
        for tenant in ["t1", "t2", "t3"] {
            first.put_tenant(tenant, &sandbox.connect_tenant("app", tenant)).await;
        }
        let key = first.add_client("all").await;
        first.signal("TERM").await;
        assert!(first.end().await.success());
        let url = format!("redis://{server_at}:{}", server.port());
        let mut hosts = Vec::new();
        for host in 1..=HOSTS {
            let at = own(Ipv4Addr::new(10, 231, 0, 10 + host), number);
            let space = network.host(host);
            let program = program(url.clone())
                .flag("listen", format!("{at}:8080"))
                .run_by(&["ip", "netns", "exec", &space]);
            hosts.push(program.start().await);
        }
        let held = (server, key_file);
        Some(Self { network, server: server_at, sandbox, hosts, key, _held: held })
    }

    fn load(&self) -> Vec<JoinHandle<Vec<String>>> {
        let callers = self
            .hosts
            .iter()
            .zip(["t1", "t2", "t3"])
            .flat_map(|(host, tenant)| World::callers_of(host, &self.key, tenant, 8));
        callers.collect()
    }

    /// Cuts the first host off under load; what arrives from each then.
    async fn cut_off_under_load(&self) -> (Vec<JoinHandle<Vec<String>>>, [usize; 3]) {
        let callers = self.load();
        tokio::time::sleep(Duration::from_secs(3)).await;
        self.cut_off();
        tokio::time::sleep(Duration::from_secs(8)).await;
        (callers, self.shares(Duration::from_secs(5)).await)
    }

    fn cut_off(&self) {
        let space = self.network.host(1);
        must_ip(&format!("-n {space} route add blackhole {}/32", self.server));
    }

    fn join_again(&self) {
        let space = self.network.host(1);
        must_ip(&format!("-n {space} route delete blackhole {}/32", self.server));
    }

    /// Calls that arrive from each host in a while.
    async fn shares(&self, span: Duration) -> [usize; 3] {
        let before = judge::api_calls(&self.sandbox).len();
        tokio::time::sleep(span).await;
        let calls = judge::api_calls(&self.sandbox);
        ["t1", "t2", "t3"].map(|tenant| {
            let of =
                |call: &&ctct_proxy::sandbox::LogEntry| call.account.as_deref() == Some(tenant);
            calls.iter().skip(before).filter(of).count()
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_cut_off_keeps_to_its_part_and_shares_again_when_it_is_not() {
    let _alone = MACHINE.lock().await;
    let Some(fleet) = Fleet::start(0, "degraded").await else { return };
    let (callers, apart) = fleet.cut_off_under_load().await;
    let all: usize = apart.iter().sum();
    assert!((25..=35).contains(&apart[0]) && all >= 85, "{apart:?}:\n{}", fleet.hosts[1].log());
    fleet.join_again();
    tokio::time::sleep(Duration::from_secs(6)).await;
    let together = fleet.shares(Duration::from_secs(6)).await;
    let all: usize = together.iter().sum();
    let equal = together.iter().all(|share| (share * 3).abs_diff(all) <= all / 10 + 3);
    assert!(equal && all >= 108, "{together:?}");
    callers.iter().for_each(JoinHandle::abort);
    judge::assert_no_429(&fleet.sandbox);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_cut_off_refuses_where_that_is_set_and_the_others_have_the_whole_rate() {
    let _alone = MACHINE.lock().await;
    let Some(fleet) = Fleet::start(1, "closed").await else { return };
    let (callers, apart) = fleet.cut_off_under_load().await;
    let all: usize = apart.iter().sum();
    assert!(apart[0] == 0 && all >= 90, "{apart:?}");
    assert!(fleet.hosts[0].log().contains("store_unavailable"), "it refuses and says why");
    callers.iter().for_each(JoinHandle::abort);
    judge::assert_no_429(&fleet.sandbox);
}
