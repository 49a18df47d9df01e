//! Accounts that their owners connect, and the process: killed, stopped, asked by its own command.

use http::Method;
use serde_json::json;
use tokio::io::AsyncBufReadExt as _;

use ctct_proxy::sandbox::{Fault, FaultKind, Sandbox, Target};

use crate::connect::{FILE, assert_page, build, consent};
use crate::life::sandbox;
use crate::support::{Call, Process, Program, Reply, Rig, judge, until};

fn program(sandbox: &Sandbox) -> Program {
    let program = Program::new(sandbox).without("client-id");
    let path = program.path("proxy.toml");
    std::fs::write(&path, FILE).unwrap();
    program.flag("config", path.to_str().unwrap()).flag("log-level", "trace")
}

async fn link_of(process: &Process) -> String {
    let body = json!({"api_key": "default"});
    let reply = process.admin(Method::POST, "/v1/tenants/acme/connect", &body).await.expect(200);
    reply.json()["authorize_url"].as_str().unwrap().to_owned()
}

async fn came_back(process: &Process, query: &str) -> Reply {
    let url = format!("http://{}/oauth/callback?{query}", process.admin_address());
    process.http.send(Call::get(url)).await
}

#[tokio::test]
async fn a_link_survives_a_killed_process_and_no_secret_of_it_is_seen() {
    let sandbox = sandbox(|_| {}).await;
    let program = program(&sandbox);
    let mut process = program.start().await;
    let link = link_of(&process).await;
    let query = consent(&process.http, &link, "acme").await;
    let log = process.log();
    process.kill().await;
    let mut process = program.start().await;
    assert_page(&came_back(&process, &query).await, 200, "is connected");
    let tenant = process.admin(Method::GET, "/v1/tenants/acme", &json!(null)).await.expect(200);
    assert_eq!(tenant.json()["state"], "ready");
    process.signal("TERM").await;
    assert_eq!(process.end().await.code(), Some(0));
    let log = format!("{log}{}", process.log());
    assert!(log.contains("connected by its owner"), "{log}");
    let files = std::fs::read_dir(program.folder()).unwrap();
    let stored = files.map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    let mut places: Vec<Vec<u8>> = stored.collect();
    places.push(log.into_bytes());
    let values = query.split('&').filter_map(|pair| pair.split_once('='));
    for (name, value) in values {
        let value = value.replace("%2D", "-").replace("%5F", "_");
        for place in &places {
            let found = place.windows(value.len()).any(|window| window == value.as_bytes());
            assert!(!found, "the {name} was kept or logged");
        }
    }
}

#[tokio::test]
async fn a_stop_waits_for_an_exchange_that_is_under_way_and_stores_it() {
    let sandbox = sandbox(|_| {}).await;
    let program = program(&sandbox);
    let mut process = program.start().await;
    let query = consent(&process.http, &link_of(&process).await, "acme").await;
    sandbox.add_fault(Fault::new(Target::Token, FaultKind::Delay { ms: 1_000 }));
    let (page, ()) = tokio::join!(came_back(&process, &query), async {
        until("the code is being exchanged", async || !judge::token_requests(&sandbox).is_empty())
            .await;
        process.signal("TERM").await;
    });
    assert_page(&page, 200, "is connected");
    assert_eq!(process.end().await.code(), Some(0));
    let process = program.start().await;
    let tenant = process.admin(Method::GET, "/v1/tenants/acme", &json!(null)).await.expect(200);
    assert_eq!(tenant.json()["state"], "ready");
}

/// The command line, waiting for an owner.
pub(crate) struct Waiting {
    child: tokio::process::Child,
    lines: tokio::io::Lines<tokio::io::BufReader<tokio::process::ChildStdout>>,
}

impl Waiting {
    pub(crate) fn start(rig: &Rig, args: &[&str]) -> Self {
        let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_ctct-proxy"))
            .args(["tenant", "connect", "acme", "--admin-url", &rig.admin_url("")])
            .args(args)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let out = child.stdout.take().expect("piped");
        Self { child, lines: tokio::io::BufReader::new(out).lines() }
    }

    pub(crate) async fn line(&mut self) -> String {
        self.lines.next_line().await.expect("text").expect("a line")
    }

    pub(crate) async fn end(&mut self) -> Option<i32> {
        self.child.wait().await.expect("a status").code()
    }
}

#[tokio::test]
async fn the_command_prints_the_link_and_waits_for_the_owner() {
    let rig = build().start().await;
    let mut waiting = Waiting::start(&rig, &["--api-key", "default"]);
    let query = rig.consent(&waiting.line().await, "acme").await;
    assert_page(&rig.come_back(&query).await, 200, "is connected");
    assert_eq!(waiting.line().await, "tenant acme is connected");
    assert_eq!(waiting.end().await, Some(0));
    let mut waiting = Waiting::start(&rig, &["--api-key", "default"]);
    let query = rig.consent(&waiting.line().await, "deny").await;
    assert_page(&rig.come_back(&query).await, 400, "did not give your consent");
    assert_eq!(waiting.end().await, Some(1));
    let mut waiting = Waiting::start(&rig, &["--api-key", "mute"]);
    assert_eq!(waiting.end().await, Some(1));
}
