//! The process from its start to its end: signals, exit codes, what a restart keeps.

use std::time::Duration;

use futures_util::future::{join, join_all};
use http::Method;
use serde_json::json;

use ctct_proxy::clock::Clock;
use ctct_proxy::sandbox::{Fault, FaultKind, Options, Sandbox, Target, Verdict};

use crate::support::{Process, Program, Reply, judge, raw, until};

const PATH: &str = "/v3/contacts?limit=1";

pub(crate) async fn sandbox(change: impl FnOnce(&mut Options)) -> Sandbox {
    let mut options = Options {
        listen: ([127, 0, 0, 1], 0).into(),
        per_second: 50,
        per_day: 1_000_000,
        latency: Duration::from_millis(4),
        jitter: Duration::from_millis(2),
        token_latency: Duration::from_millis(4),
        token_interval: Duration::from_millis(20),
        contacts: 20,
        seed: Some(1),
        ..Options::default()
    };
    change(&mut options);
    Sandbox::start(options, Clock::system()).await.unwrap()
}

pub(crate) fn program(sandbox: &Sandbox) -> Program {
    Program::new(sandbox).flag("per-second", "50").flag("refresh-interval", "40ms")
}

/// A running program with tenant t0 and the key of a client.
pub(crate) async fn ready(program: &Program, sandbox: &Sandbox) -> (Process, String) {
    let process = program.start().await;
    process.put_tenant("t0", &sandbox.connect_tenant("app", "t0")).await;
    let key = process.add_client("all").await;
    (process, key)
}

async fn get(process: &Process, key: &str) -> Reply {
    process.http.send(process.call(Method::GET, key, "t0", PATH)).await
}

async fn api_key(process: &Process) -> serde_json::Value {
    process.admin(Method::GET, "/v1/api-keys/default", &json!(null)).await.json()
}

async fn depth(process: &Process, wanted: u64) {
    until(&format!("{wanted} wait"), async || api_key(process).await["queue"]["depth"] == wanted)
        .await;
}

#[tokio::test]
async fn a_stop_serves_those_who_wait_and_refuses_those_who_come() {
    let sandbox = sandbox(|options| options.latency = Duration::from_millis(300)).await;
    let program = program(&sandbox).flag("per-second", "10");
    let (mut process, key) = ready(&program, &sandbox).await;
    get(&process, &key).await.expect(200);
    // open before the stop, as a load balancer's connections are
    let mut open = raw::connect(process.data()).await;
    let waiting = join_all((0..30).map(|_| get(&process, &key)));
    let stopping = async {
        until("the calls have begun", async || judge::arrivals(&sandbox) > 2).await;
        process.signal("TERM").await;
        process.says("stopping").await;
        let ready = process.admin(Method::GET, "/readyz", &json!(null)).await;
        assert_eq!(ready.status, 503, "{ready:?}");
        process.admin(Method::GET, "/livez", &json!(null)).await.expect(200);
        let call = format!(
            "GET /t/t0/v3/contacts HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n"
        );
        raw::send(&mut open, &call).await;
        let refused = raw::read_head(&mut open).await;
        assert_eq!(raw::status(&refused), 503, "{refused}");
        assert!(refused.contains("details=\"shutting_down\""), "{refused}");
        assert!(refused.contains("retry-after: 1\r\n"), "{refused}");
    };
    let (replies, ()) = join(waiting, stopping).await;
    assert!(replies.iter().all(|reply| reply.status == 200), "{replies:?}");
    assert_eq!(process.end().await.code(), Some(0), "{}", process.log());
    assert_eq!(judge::arrivals(&sandbox), 31);
}

#[tokio::test]
async fn those_who_wait_too_long_for_a_stop_are_refused_after_half_of_its_time() {
    let sandbox = sandbox(|_| {}).await;
    let program = program(&sandbox).flag("per-second", "1").flag("drain-timeout", "4s");
    let (mut process, key) = ready(&program, &sandbox).await;
    let waiting = join_all((0..20).map(|_| get(&process, &key)));
    let stopping = async {
        depth(&process, 19).await;
        process.signal("INT").await;
    };
    let (replies, ()) = join(waiting, stopping).await;
    let (served, refused): (Vec<_>, Vec<_>) = replies.iter().partition(|r| r.status == 200);
    assert!((1..=4).contains(&served.len()), "{} served", served.len());
    assert!(refused.iter().all(|r| (r.status, r.reason()) == (503, "shutting_down")));
    assert_eq!(process.end().await.code(), Some(0), "{}", process.log());
}

#[tokio::test]
async fn a_second_signal_ends_at_once_with_1() {
    let sandbox = sandbox(|_| {}).await;
    let (mut process, key) = ready(&program(&sandbox), &sandbox).await;
    sandbox.add_fault(Fault::new(Target::Api, FaultKind::Hang));
    let call = process.http.try_send(process.call(Method::GET, &key, "t0", PATH));
    let ending = async {
        until("it was sent", async || judge::arrivals(&sandbox) == 1).await;
        process.signal("TERM").await;
        process.says("stopping").await;
        process.signal("TERM").await;
        process.says("a second time").await;
    };
    let _ = join(call, ending).await;
    assert_eq!(process.end().await.code(), Some(1), "{}", process.log());
}

#[tokio::test]
async fn a_stop_that_takes_too_long_ends_with_1() {
    let sandbox = sandbox(|_| {}).await;
    let program = program(&sandbox).flag("drain-timeout", "1s");
    let (mut process, key) = ready(&program, &sandbox).await;
    sandbox.add_fault(Fault::new(Target::Api, FaultKind::Hang));
    let call = process.http.try_send(process.call(Method::GET, &key, "t0", PATH));
    let ending = async {
        until("it was sent", async || judge::arrivals(&sandbox) == 1).await;
        process.signal("TERM").await;
    };
    let _ = join(call, ending).await;
    assert_eq!(process.end().await.code(), Some(1), "{}", process.log());
}

#[tokio::test]
async fn an_idle_proxy_stops_at_once_whatever_connections_are_open() {
    let sandbox = sandbox(|_| {}).await;
    let program = program(&sandbox);
    for open in ["silent", "half a head", "half a preface", "events", "used", "http2"] {
        let (mut process, key) = (program.start().await, "none");
        let (data, admin) = (process.data(), process.admin_address());
        let mut stream = raw::connect(if open == "events" { admin } else { data }).await;
        let h2 = crate::support::Http::h2();
        match open {
            "half a head" => drop(raw::send(&mut stream, "GET /v3 HTTP/1.1\r\nHost: x\r\n").await),
            "half a preface" => drop(raw::send(&mut stream, "PRI * HTTP/2.0\r\n").await),
            "events" => {
                let call = "GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
                raw::send(&mut stream, call).await;
                assert_eq!(raw::status(&raw::read_head(&mut stream).await), 200);
            }
            "used" => {
                raw::send(&mut stream, "GET /v3 HTTP/1.1\r\nHost: x\r\n\r\n").await;
                assert_eq!(raw::status(&raw::read_head(&mut stream).await), 401);
            }
            "http2" => {
                let call = process.call(Method::GET, key, "t0", PATH);
                h2.send(call).await.expect(401);
            }
            _ => {}
        }
        let watch = crate::support::Watch::start();
        process.signal("TERM").await;
        assert_eq!(process.end().await.code(), Some(0), "{open}: {}", process.log());
        assert!(watch.elapsed() < Duration::from_secs(5), "{open}: {:?}", watch.elapsed());
    }
}

#[tokio::test]
async fn a_refresh_under_way_is_finished_and_stored_before_the_end() {
    let sandbox = sandbox(|_| {}).await;
    let program = program(&sandbox);
    let (mut process, key) = ready(&program, &sandbox).await;
    process.put_tenant("t1", &sandbox.connect_expired_tenant("app", "t1")).await;
    get(&process, &key).await.expect(200);
    sandbox.add_fault(Fault::new(Target::Token, FaultKind::Delay { ms: 1_500 }));
    let waiting = process.http.send(process.call(Method::GET, &key, "t1", PATH));
    let stopping = async {
        until("asked", async || judge::token_requests(&sandbox).len() == 1).await;
        process.signal("TERM").await;
    };
    let (reply, ()) = join(waiting, stopping).await;
    reply.expect(200);
    assert_eq!(process.end().await.code(), Some(0), "{}", process.log());
    let process = program.start().await;
    process.http.send(process.call(Method::GET, &key, "t1", PATH)).await.expect(200);
    assert_eq!(judge::token_requests(&sandbox).len(), 1, "the stored tokens are the new ones");
}

#[tokio::test]
async fn a_call_that_outlives_a_stop_costs_neither_a_refresh_nor_the_days_count() {
    let sandbox = sandbox(|_| {}).await;
    let program = program(&sandbox).flag("drain-timeout", "2s");
    let (mut process, key) = ready(&program, &sandbox).await;
    process.put_tenant("t1", &sandbox.connect_expired_tenant("app", "t1")).await;
    sandbox.add_fault(Fault::new(Target::Api, FaultKind::Hang));
    sandbox.add_fault(Fault::new(Target::Token, FaultKind::Delay { ms: 4_000 }));
    let hanging = process.http.try_send(process.call(Method::GET, &key, "t0", PATH));
    let refreshing = process.http.send(process.call(Method::GET, &key, "t1", PATH));
    let stopping = async {
        until("sent", async || judge::arrivals(&sandbox) == 1).await;
        until("asked", async || judge::token_requests(&sandbox).len() == 1).await;
        process.signal("TERM").await;
    };
    let (_, reply, ()) = futures_util::future::join3(hanging, refreshing, stopping).await;
    reply.expect_refusal(503, "shutting_down");
    assert_eq!(process.end().await.code(), Some(1), "{}", process.log());
    let process = program.start().await;
    assert_eq!(api_key(&process).await["day"]["used"], 1, "what did not leave is not counted");
    process.http.send(process.call(Method::GET, &key, "t1", PATH)).await.expect(200);
    assert_eq!(judge::token_requests(&sandbox).len(), 1, "the stored tokens are the new ones");
}

#[tokio::test]
async fn counts_tenants_clients_and_holds_survive_a_restart() {
    let sandbox = sandbox(|_| {}).await;
    let program = program(&sandbox).flag("per-day", "60");
    let (mut process, key) = ready(&program, &sandbox).await;
    process.put_tenant("t1", &sandbox.connect_tenant("app", "t1")).await;
    for _ in 0..7 {
        get(&process, &key).await.expect(200);
    }
    process.admin(Method::POST, "/v1/tenants/t1/pause", &json!(null)).await.expect(204);
    process.signal("TERM").await;
    assert_eq!(process.end().await.code(), Some(0), "{}", process.log());
    let mut process = program.start().await;
    assert_eq!(api_key(&process).await["day"]["used"], 7, "what did not leave is not counted");
    let tenant = process.admin(Method::GET, "/v1/tenants/t1", &json!(null)).await.json();
    assert_eq!(tenant["state"], "paused");
    let tenant = process.admin(Method::GET, "/v1/tenants/t0", &json!(null)).await.json();
    assert!(tenant["last_used_at"].is_string(), "{tenant}");
    get(&process, &key).await.expect(200);
    process.admin(Method::POST, "/v1/api-keys/default/pause", &json!(null)).await.expect(204);
    process.kill().await;
    process.end().await;
    let process = program.start().await;
    let after = api_key(&process).await;
    assert_eq!(after["paused"], true);
    let used = after["day"]["used"].as_u64().unwrap();
    assert!((8..=8 + 50).contains(&used), "{used} after a kill: at most a second's calls too high");
    process.admin(Method::POST, "/v1/api-keys/default/resume", &json!(null)).await.expect(204);
    let mut served = 8;
    while get(&process, &key).await.status == 200 {
        served += 1;
    }
    assert!(served <= 60, "{served} in a day of 60");
    assert_eq!(sandbox.counts().of(Verdict::Ok), served);
}

#[tokio::test]
async fn a_stopped_process_makes_up_for_nothing_when_it_goes_on() {
    let sandbox = sandbox(|options| options.per_second = 20).await;
    let program = program(&sandbox).flag("per-second", "20").flag("max-wait", "60s");
    let (process, key) = ready(&program, &sandbox).await;
    let calls = join_all((0..100).map(|_| get(&process, &key)));
    let pausing = async {
        for pause_ms in [300, 900, 1_500] {
            let before = judge::arrivals(&sandbox);
            until("it goes on", async || judge::arrivals(&sandbox) > before + 5).await;
            process.signal("STOP").await;
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            process.signal("CONT").await;
        }
    };
    let (replies, ()) = join(calls, pausing).await;
    assert!(replies.iter().all(|reply| reply.status == 200));
    judge::assert_no_429(&sandbox);
}

#[tokio::test]
async fn no_core_is_dumped() {
    let sandbox = sandbox(|_| {}).await;
    let process = program(&sandbox).start().await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.id())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(line.split_whitespace().filter(|word| *word == "0").count(), 2, "{line}");
    assert!(!process.log().contains("core dumps"), "{}", process.log());
    // still seen by itself
    let page = process.admin(Method::GET, "/metrics", &json!(null)).await.expect(200);
    let page = String::from_utf8(page.body.to_vec()).unwrap();
    assert!(page.contains("process_open_fds ") && page.contains("process_max_fds "), "{page}");
}
