//! The program as several processes over one server: one limit, one refresh, nothing lost when
//! they come and go. The sandbox's log is the judge.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use http::Method;
use serde_json::json;
use tokio::task::JoinHandle;

use ctct_proxy::clock::Clock;
use ctct_proxy::sandbox::{Options, Sandbox, Window};

use crate::fleet::MACHINE;
use crate::redis::RedisServer;
use crate::support::{Call, Http, Process, Program, judge, until};
use crate::world::spawn;

pub(crate) const PATH: &str = "/v3/contacts?limit=1";

/// A server, an upstream that allows 20 calls in any second, and programs before it.
pub(crate) struct World {
    pub(crate) server: RedisServer,
    pub(crate) sandbox: Sandbox,
    key_file: tempfile::NamedTempFile,
    pub(crate) processes: Vec<Process>,
    /// How each was started.
    programs: Vec<Program>,
    pub(crate) client_key: String,
}

impl World {
    pub(crate) async fn start(instances: usize, change: impl FnOnce(&mut Options)) -> Self {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let (sandbox, key_file) = (sandbox_at(loopback, change).await, programs_key());
        let server = RedisServer::start();
        let mut world = Self {
            server,
            sandbox,
            key_file,
            processes: Vec::new(),
            programs: Vec::new(),
            client_key: String::new(),
        };
        for _ in 0..instances {
            world.join().await;
        }
        world.client_key = world.processes[0].add_client("all").await;
        world
    }

    fn program(&self) -> Program {
        Program::new(&self.sandbox)
            .flag("store", self.server.url())
            .flag("encryption-key-file", self.key_file.path().to_str().expect("a path"))
            .flag("per-second", "20")
            .flag("per-day", "1000000")
            .flag("refresh-interval", "1s")
            .flag("refresh-margin", "10s")
            .flag("device-authorize-url", self.sandbox.device_authorize_url())
    }

    pub(crate) async fn join(&mut self) {
        let program = self.program();
        self.processes.push(program.start().await);
        self.programs.push(program);
    }

    /// Kills a program, and starts it again in its folder after a while.
    pub(crate) async fn kill(&mut self, at: usize, gone_for: Duration) {
        self.processes[at].kill().await;
        tokio::time::sleep(gone_for).await;
        self.processes[at] = self.programs[at].start().await;
    }

    pub(crate) async fn connect(&self, tenant: &str) {
        let grant = self.sandbox.connect_tenant("app", tenant);
        self.processes[0].put_tenant(tenant, &grant).await;
    }

    /// Callers of a tenant at one process, each of whom calls again and again.
    pub(crate) fn callers(
        &self,
        at: usize,
        tenant: &str,
        count: usize,
    ) -> Vec<JoinHandle<Vec<String>>> {
        Self::callers_of(&self.processes[at], &self.client_key, tenant, count)
    }

    /// The same at any process.
    pub(crate) fn callers_of(
        process: &Process,
        key: &str,
        tenant: &str,
        count: usize,
    ) -> Vec<JoinHandle<Vec<String>>> {
        let caller = || {
            let http = Http::h1();
            let url = format!("http://{}{PATH}", process.data());
            let (tenant, key) = (tenant.to_owned(), key.to_owned());
            spawn(async move {
                let mut failures = Vec::new();
                loop {
                    let call = Call::get(&url).bearer(&key).header("ctct-tenant", &*tenant);
                    match http.try_send(call).await {
                        Ok(reply) if reply.status == 200 => {}
                        Ok(reply) if reply.reason() == "shutting_down" => return failures,
                        Ok(reply) => {
                            failures.push(format!("{reply:?}"));
                            tokio::time::sleep(Duration::from_millis(50)).await;
                        }
                        // the process has ended
                        Err(_) => return failures,
                    }
                }
            })
        };
        (0..count).map(|_| caller()).collect()
    }
}

/// An upstream that allows 20 calls in any second.
pub(crate) async fn sandbox_at(address: IpAddr, change: impl FnOnce(&mut Options)) -> Sandbox {
    let mut options = Options {
        listen: (address, 0).into(),
        per_second: 20,
        per_day: 1_000_000,
        window: Window::Sliding,
        latency: Duration::from_millis(20),
        jitter: Duration::from_millis(5),
        contacts: 5,
        seed: Some(1),
        ..Options::default()
    };
    change(&mut options);
    Sandbox::start(options, Clock::system()).await.expect("a sandbox")
}

/// The encryption key of all programs.
pub(crate) fn programs_key() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n").expect("written");
    file
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_processes_share_rate_tenants_clients_and_one_refresh() {
    let world = World::start(3, |_| {}).await;
    for tenant in ["a", "b"] {
        world.connect(tenant).await;
    }
    // no access token: its first calls need a refresh, and come at all three at once
    let grant = world.sandbox.connect_tenant("app", "fresh");
    let body = serde_json::json!({ "api_key": "default", "refresh_token": grant.refresh_token });
    let put = world.processes[0].admin(Method::PUT, "/v1/tenants/fresh", &body).await;
    assert_eq!(put.status, 201, "{put:?}");
    let first = join_all(world.processes.iter().map(async |process| {
        let call = process.call(Method::GET, &world.client_key, "fresh", PATH);
        process.http.send(call).await.status
    }));
    assert_eq!(first.await, [200, 200, 200]);
    assert_eq!(judge::token_requests(&world.sandbox).len(), 1, "one refresh for all");

    let mut callers = Vec::new();
    for at in 0..3 {
        for tenant in ["a", "b", "fresh"] {
            callers.extend(world.callers(at, tenant, 4));
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = judge::api_calls(&world.sandbox).len();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let served = judge::api_calls(&world.sandbox).len() - before;
    callers.iter().for_each(JoinHandle::abort);
    judge::assert_no_429(&world.sandbox);
    assert!(served >= 180, "{served} of 200");
    let day = world.processes[2].admin(Method::GET, "/v1/api-keys/default", &().into()).await;
    let used = day.json()["day"]["used"].as_u64().expect("a count");
    let sent = judge::api_calls(&world.sandbox).len() as u64;
    assert!(used.abs_diff(sent) <= 20, "{used} counted, {sent} sent");
}

/// Successes that callers of each process have, in a span of saturation.
async fn share_the_rate(instances: usize, span: Duration) {
    let mut world =
        World::start(1, |options| options.token_latency = Duration::from_millis(50)).await;
    let mut others = Vec::new();
    for _ in 1..instances {
        others.push(world.program());
    }
    // all at once, as a deployment starts them
    let started = join_all(others.iter().map(async |program| program.start().await)).await;
    world.processes.extend(started);
    // no access token: all of them want one for it at the same moment
    let grant = world.sandbox.connect_tenant("app", "a");
    let body = serde_json::json!({ "api_key": "default", "refresh_token": grant.refresh_token });
    let put = world.processes[0].admin(Method::PUT, "/v1/tenants/a", &body).await;
    assert_eq!(put.status, 201, "{put:?}");
    let counts: Vec<_> = (0..instances).map(|_| Arc::new(AtomicUsize::new(0))).collect();
    let callers: Vec<_> = world
        .processes
        .iter()
        .zip(&counts)
        .flat_map(|(process, count)| {
            (0..3).map(|_| {
                let (http, count) = (Http::h1(), count.clone());
                let key = world.client_key.clone();
                let url = format!("http://{}{PATH}", process.data());
                spawn(async move {
                    loop {
                        let call = Call::get(&url).bearer(&key).header("ctct-tenant", "a");
                        let reply = http.try_send(call).await;
                        if reply.is_ok_and(|reply| reply.status == 200) {
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
        })
        .collect();
    // the first token request on a new server waits until nobody can have another out
    tokio::time::sleep(Duration::from_secs(9)).await;
    let read = || counts.iter().map(|count| count.load(Ordering::Relaxed)).collect::<Vec<_>>();
    let (before, sent_before) = (read(), judge::api_calls(&world.sandbox).len());
    tokio::time::sleep(span).await;
    let (after, sent) = (read(), judge::api_calls(&world.sandbox).len() - sent_before);
    callers.iter().for_each(JoinHandle::abort);
    judge::assert_no_429(&world.sandbox);
    let wanted = 20 * usize::try_from(span.as_secs()).expect("short");
    assert!(sent * 10 >= wanted * 9, "{instances}: {sent} of {wanted}");
    assert_eq!(judge::token_requests(&world.sandbox).len(), 1, "one refresh for all");
    let shares: Vec<usize> =
        after.iter().zip(&before).map(|(after, before)| after - before).collect();
    let all: usize = shares.iter().sum();
    let equal =
        shares.iter().all(|share| (share * instances).abs_diff(all) <= (all / 10).max(instances));
    assert!(equal, "{shares:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_processes_saturate_the_rate_in_equal_shares() {
    share_the_rate(3, Duration::from_secs(30)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_processes_saturate_the_rate_in_equal_shares() {
    let _alone = MACHINE.lock().await;
    share_the_rate(20, Duration::from_secs(30)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_on_a_server_saturates_the_rate() {
    share_the_rate(1, Duration::from_secs(30)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_under_load_fails_no_call() {
    let mut world = World::start(3, |_| {}).await;
    world.connect("a").await;
    until("all know the tenant", async || {
        let known = join_all(world.processes.iter().map(async |process| {
            process.admin(Method::GET, "/v1/tenants/a", &().into()).await.status == 200
        }));
        known.await.iter().all(|known| *known)
    })
    .await;
    let mut callers = Vec::new();
    for at in 0..3 {
        callers.extend(world.callers(at, "a", 4));
    }
    for at in 0..3 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        world.join().await;
        let new = world.processes.len() - 1;
        callers.extend(world.callers(new, "a", 4));
        world.processes[at].signal("TERM").await;
        let status = world.processes[at].end().await;
        assert!(status.success(), "{status:?}:\n{}", world.processes[at].log());
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    for process in &mut world.processes[3..] {
        process.kill().await;
    }
    for caller in callers {
        assert_eq!(caller.await.expect("it ends"), Vec::<String>::new());
    }
    judge::assert_no_429(&world.sandbox);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_that_is_removed_at_another_instance_is_not_connected_by_its_code() {
    let world = World::start(2, |options| options.device_interval = Duration::from_secs(1)).await;
    let [one, other] = [&world.processes[0], &world.processes[1]];
    let ask = json!({ "api_key": "default", "flow": "device" });
    let connect = async |tenant: &str| {
        let path = format!("/v1/tenants/{tenant}/connect");
        one.admin(Method::POST, &path, &ask).await.expect(200).json()
    };
    let stands = async |tenant: &str, state: &str| {
        let path = format!("/v1/tenants/{tenant}/connect");
        until(&format!("{tenant} is {state}"), async || {
            one.admin(Method::GET, &path, &().into()).await.json()["state"] == *state
        })
        .await;
    };
    let activate = async |code: &serde_json::Value| {
        let page = code["verification_uri_complete"].as_str().expect("a page");
        one.http.send(Call::get(format!("{page}&login_hint=gone"))).await.expect(200);
    };
    let code = connect("gone").await;
    other.admin(Method::DELETE, "/v1/tenants/gone", &().into()).await.expect(404);
    activate(&code).await;
    stands("gone", "failed").await;
    one.admin(Method::GET, "/v1/tenants/gone", &().into()).await.expect(404);
    // what is begun after the removal is another matter
    let code = connect("gone").await;
    activate(&code).await;
    stands("gone", "connected").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_takes_nothing_of_the_rate_with_it() {
    let mut world = World::start(3, |_| {}).await;
    world.connect("a").await;
    let callers: Vec<_> = (1..3).flat_map(|at| world.callers(at, "a", 6)).collect();
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.processes[0].kill().await;
    // until it is silent, and those on its machine have seen its end
    tokio::time::sleep(Duration::from_secs(6)).await;
    let before = judge::api_calls(&world.sandbox).len();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let served = judge::api_calls(&world.sandbox).len() - before;
    callers.iter().for_each(JoinHandle::abort);
    judge::assert_no_429(&world.sandbox);
    assert!(served >= 90, "{served} of 100:\n{}", world.processes[1].log());
}
