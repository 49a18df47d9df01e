//! A disk that is full while the proxy serves: nothing leaves uncounted, no token is spent, and it
//! heals when there is room again.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use http::Method;
use serde_json::json;
use tokio::process::Command;

use ctct_proxy::sandbox::Sandbox;

use crate::life::{program, sandbox};
use crate::support::{Process, Program, Reply, judge, until};

const PATH: &str = "/v3/contacts?limit=1";

/// Whether a small disk can be mounted in a namespace of one's own.
fn can_mount() -> bool {
    let script = "mount -t tmpfs -o size=1m none /mnt";
    let tried =
        std::process::Command::new("unshare").args(["-r", "-m", "sh", "-c", script]).output();
    tried.is_ok_and(|output| output.status.success())
}

/// Takes all the room there is.
fn fill(ballast: &Path) {
    let mut file = OpenOptions::new().append(true).create(true).open(ballast).unwrap();
    for len in [1 << 16, 1 << 12, 1 << 9] {
        while file.write_all(&vec![1; len]).is_ok() {}
    }
}

async fn get(process: &Process, key: &str, tenant: &str) -> Reply {
    let call = process.call(Method::GET, key, tenant, PATH).header("prefer", "wait=5");
    process.http.send(call).await
}

/// The reply is served, or refused because it could not be counted.
#[track_caller]
fn served_or_uncounted(reply: &Reply) -> bool {
    if reply.status == 200 {
        return true;
    }
    assert_eq!((reply.status, reply.reason()), (503, "store_unavailable"), "{reply:?}");
    assert!(reply.retry_after().is_some_and(|secs| (1..=30).contains(&secs)), "{reply:?}");
    false
}

/// A program with a good tenant t0, an expired one t1, and a client.
async fn start(program: &Program, sandbox: &Sandbox) -> (Process, String) {
    let process = program.start().await;
    process.put_tenant("t0", &sandbox.connect_tenant("app", "t0")).await;
    process.put_tenant("t1", &sandbox.connect_expired_tenant("app", "t1")).await;
    let key = process.add_client("all").await;
    get(&process, &key, "t0").await.expect(200);
    (process, key)
}

/// Everything works again, and nothing that arrived is uncounted.
async fn heals(process: &Process, sandbox: &Sandbox, key: &str) {
    for tenant in ["t0", "t1"] {
        until("calls are served again", async || get(process, key, tenant).await.status == 200)
            .await;
    }
    until("readyz tells", async || {
        process.admin(Method::GET, "/readyz", &json!(null)).await.status == 200
    })
    .await;
    assert_eq!(judge::token_requests(sandbox).len(), 1);
    let view = process.admin(Method::GET, "/v1/api-keys/default", &json!(null)).await.json();
    let (counted, arrived) = (view["day"]["used"].as_u64().unwrap(), judge::arrivals(sandbox));
    // whether a failed reservation counted is not known: never too low
    assert!(counted >= arrived as u64, "{counted} counted, {arrived} arrived");
}

/// Sets how large the program's files may grow; past it every write fails.
async fn limit_files(process: &Process, limit: &str) {
    let (id, limit) = (process.id().to_string(), format!("--fsize={limit}:unlimited"));
    let set = Command::new("prlimit").args(["--pid", &id, &limit]).status().await;
    assert!(set.is_ok_and(|status| status.success()), "prlimit, of util-linux, is needed");
}

#[tokio::test]
async fn calls_that_cannot_be_counted_are_refused_and_served_when_they_can_be() {
    let sandbox = sandbox(|_| {}).await;
    let ignoring = ["sh", "-c", r#"trap "" XFSZ; exec "$@""#, "sh"];
    let program = program(&sandbox).run_by(&ignoring);
    let (process, key) = start(&program, &sandbox).await;
    for _ in 0..2 {
        limit_files(&process, "0").await;
        let mut served = 0;
        while served_or_uncounted(&get(&process, &key, "t0").await) {
            served += 1;
            assert!(served <= 100, "more than a second's calls left uncounted");
        }
        let arrived = judge::arrivals(&sandbox);
        for _ in 0..5 {
            assert!(!served_or_uncounted(&get(&process, &key, "t0").await));
        }
        let asked = judge::token_requests(&sandbox).len();
        let refused = get(&process, &key, "t1").await;
        assert_eq!(refused.status, 503, "{refused:?}");
        assert_eq!(judge::token_requests(&sandbox).len(), asked, "a token spent for nothing");
        let put = json!({"api_key": "default", "refresh_token": "x".repeat(100)});
        process.admin(Method::PUT, "/v1/tenants/t2", &put).await.expect(503);
        until("readyz tells", async || {
            process.admin(Method::GET, "/readyz", &json!(null)).await.status == 503
        })
        .await;
        process.admin(Method::GET, "/livez", &json!(null)).await.expect(200);
        assert_eq!(judge::arrivals(&sandbox), arrived);
        limit_files(&process, "unlimited").await;
        heals(&process, &sandbox, &key).await;
    }
    process.admin(Method::GET, "/v1/tenants/t2", &json!(null)).await.expect(404);
}

#[tokio::test]
async fn a_full_disk_lets_nothing_leave_uncounted_and_spends_no_token() {
    if !can_mount() {
        println!("no small disk can be mounted here; the test before has shown the same");
        return;
    }
    let sandbox = sandbox(|_| {}).await;
    let program = program(&sandbox);
    let folder = program.folder().to_str().unwrap().to_owned();
    let script = r#"mount -t tmpfs -o size=4m none "$0" && exec "$@""#;
    let program = program.run_by(&["unshare", "-r", "-m", "sh", "-c", script, &folder]);
    let (process, key) = start(&program, &sandbox).await;
    // the disk is seen by the program only, and through it
    let inside = PathBuf::from(format!("/proc/{}/root{folder}/ballast", process.id()));
    fill(&inside);
    for _ in 0..150 {
        served_or_uncounted(&get(&process, &key, "t0").await);
    }
    let of_t1 = get(&process, &key, "t1").await;
    let asked = judge::token_requests(&sandbox).len();
    assert!((of_t1.status == 200) == (asked == 1), "a token spent for nothing: {of_t1:?}");
    std::fs::remove_file(&inside).unwrap();
    heals(&process, &sandbox, &key).await;
}
