//! Custody of tokens while the token endpoint, the callers or the disk behave badly: exactly the
//! requests that are allowed, nothing lost, good tokens serve on.

use std::time::Duration;

use futures_util::future::{join, join_all};
use http::Method;
use serde_json::json;
use tokio::process::Command;
use tokio_util::task::TaskTracker;

use ctct_proxy::config::settings;
use ctct_proxy::sandbox::{Fault, FaultKind, Target, Verdict};

use crate::life::{program, sandbox};
use crate::support::{Process, Rig, RigBuilder, judge, until};

const PATH: &str = "/v3/contacts?limit=1";
/// The first two pauses after trouble, each less a tenth that is left to chance.
const PAUSES: [Duration; 2] = [Duration::from_millis(900), Duration::from_millis(1_800)];

/// A lane of tokens that is quick.
fn quick() -> RigBuilder {
    Rig::build()
        .sandbox(|options| options.token_interval = Duration::from_millis(20))
        .set(&settings::REFRESH_INTERVAL, "40ms")
}

async fn state(rig: &Rig, tenant: &str) -> String {
    let view = rig.admin(Method::GET, &format!("/v1/tenants/{tenant}")).await.expect(200).json();
    view["state"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn fifty_callers_at_once_cost_one_token_request() {
    let rig = quick().tenants(0).expired(1).start().await;
    let replies = join_all((0..50).map(|_| rig.get("t0", PATH))).await;
    assert!(replies.iter().all(|reply| reply.status == 200), "{replies:?}");
    assert_eq!(judge::token_requests(&rig.sandbox).len(), 1);
    assert_eq!(rig.sandbox.counts().of(Verdict::Unauthorized), 0);
}

#[tokio::test]
async fn new_grants_are_tried_and_short_lives_renewed_before_anybody_waits() {
    let rig = quick()
        .tenants(0)
        .expired(6)
        .sandbox(|options| options.access_token_life = Duration::from_secs(4))
        .set(&settings::REFRESH_AHEAD, "2h")
        .start()
        .await;
    until("all are refreshed", async || judge::token_requests(&rig.sandbox).len() == 6).await;
    // those that call are renewed at half of their life, the others are left alone
    let calling = async || {
        rig.get("t0", PATH).await.expect(200);
        judge::token_requests(&rig.sandbox).len() >= 8
    };
    until("the one that calls is renewed twice", calling).await;
    let requests = judge::token_requests(&rig.sandbox);
    assert!(requests[6..].iter().all(|request| request.account.as_deref() == Some("t0")));
    assert_eq!(rig.sandbox.counts().of(Verdict::Unauthorized), 0);
}

#[tokio::test]
async fn callers_that_all_leave_a_millisecond_after_the_request_lose_nothing() {
    let rig = quick().tenants(0).expired(1).start().await;
    rig.sandbox.add_fault(Fault::new(Target::Token, FaultKind::Delay { ms: 300 }));
    let callers = TaskTracker::new();
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let (http, call) = (rig.http.clone(), rig.call(Method::GET, "t0", PATH));
            callers.spawn(async move { http.try_send(call).await })
        })
        .collect();
    until("the token request", async || !judge::token_requests(&rig.sandbox).is_empty()).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    calls.iter().for_each(tokio::task::JoinHandle::abort);
    until("the token is renewed", async || state(&rig, "t0").await == "ready").await;
    assert_eq!(judge::arrivals(&rig.sandbox), 0, "nobody was left to be served");
    rig.get("t0", PATH).await.expect(200);
    assert_eq!(judge::token_requests(&rig.sandbox).len(), 1);
}

/// Fifty callers of an expired tenant for four seconds, and one of a good tenant meanwhile.
async fn besieged(rig: &Rig) {
    let callers = join_all((0..50).map(async |_| {
        let call = rig.call(Method::GET, "t1", PATH).header("prefer", "wait=4");
        rig.http.send(call).await
    }));
    let good = async {
        for _ in 0..10 {
            rig.get("t0", PATH).await.expect(200);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    let (replies, ()) = join(callers, good).await;
    for reply in replies {
        assert_eq!((reply.status, reply.reason()), (503, "token_unavailable"), "{reply:?}");
        assert!(reply.retry_after().is_some(), "{reply:?}");
    }
}

async fn endpoint_fails_with(kind: FaultKind) {
    let rig = quick().tenants(1).expired(1).start().await;
    rig.get("t0", PATH).await.expect(200);
    rig.sandbox.add_fault(Fault::new(Target::Token, kind.clone()).times(1_000));
    besieged(&rig).await;
    // at once, and after pauses of one and two seconds; the next is at least 6.3 s after the first
    let requests = judge::token_requests(&rig.sandbox);
    assert!((2..=3).contains(&requests.len()), "{kind:?}: {requests:?}");
    for (pair, pause) in requests.windows(2).zip(PAUSES) {
        let gap = judge::gap(&pair[0], &pair[1]);
        assert!(gap >= pause, "{kind:?}: again after {gap:?}");
    }
    assert_ne!(state(&rig, "t1").await, "needs_authorization", "{kind:?}");
    rig.sandbox.clear_faults();
    until("the tenant works again", async || {
        let call = rig.call(Method::GET, "t1", PATH).header("prefer", "wait=9");
        rig.http.send(call).await.status == 200
    })
    .await;
    let counts = rig.sandbox.counts();
    assert_eq!(counts.of(Verdict::TokenInvalidGrant), 0, "{kind:?}: the grant was kept");
    assert_eq!(counts.of(Verdict::Unauthorized), 0, "{kind:?}: no dead token was sent");
    assert_eq!(counts.token["app"].most_at_once, 1, "{kind:?}");
}

#[tokio::test]
async fn an_endpoint_that_fails_is_asked_three_times_in_four_seconds_and_loses_nothing() {
    let status = |status| FaultKind::Status { status, retry_after: None, body: None };
    let kinds = [
        FaultKind::Html { status: 200 },
        FaultKind::Empty,
        FaultKind::Throttled,
        status(500),
        FaultKind::Html { status: 403 },
    ];
    join_all(kinds.map(endpoint_fails_with)).await;
}

#[tokio::test]
async fn an_endpoint_that_is_slow_or_silent_is_asked_once() {
    let slow = async {
        let rig = quick().tenants(1).expired(1).start().await;
        rig.sandbox.add_fault(Fault::new(Target::Token, FaultKind::Delay { ms: 5_000 }));
        besieged(&rig).await;
        rig.get("t1", PATH).await.expect(200);
        assert_eq!(judge::token_requests(&rig.sandbox).len(), 1);
    };
    let silent = async {
        let rig = quick().tenants(1).expired(1).start().await;
        rig.sandbox.add_fault(Fault::new(Target::Token, FaultKind::Hang));
        besieged(&rig).await;
        assert_eq!(judge::token_requests(&rig.sandbox).len(), 1, "the answer may still come");
        assert_eq!(state(&rig, "t1").await, "refreshing");
    };
    join(slow, silent).await;
}

/// Sets how large the program's files may grow; past it every write fails.
async fn limit_files(process: &Process, limit: &str) {
    let (id, limit) = (process.id().to_string(), format!("--fsize={limit}:unlimited"));
    let set = Command::new("prlimit").args(["--pid", &id, &limit]).status().await;
    assert!(set.is_ok_and(|status| status.success()), "prlimit, of util-linux, is needed");
}

#[tokio::test]
async fn tokens_that_cannot_be_written_are_told_of_kept_and_written_when_they_can_be() {
    let sandbox = sandbox(|options| options.token_latency = Duration::from_millis(600)).await;
    let ignoring = ["sh", "-c", r#"trap "" XFSZ; exec "$@""#, "sh"];
    let program = program(&sandbox).run_by(&ignoring);
    let process = program.start().await;
    process.put_tenant("t0", &sandbox.connect_expired_tenant("app", "t0")).await;
    let key = process.add_client("all").await;
    process.admin(Method::POST, "/v1/tenants/t0/refresh", &json!(null)).await.expect(202);
    until("the token request", async || !judge::token_requests(&sandbox).is_empty()).await;
    limit_files(&process, "0").await;
    let alarm = r#"token_alarms_total{api_key="default",reason="tokens_not_stored"}"#;
    until("the alarm", async || {
        let page = process.admin(Method::GET, "/metrics", &json!(null)).await;
        String::from_utf8_lossy(&page.body).contains(alarm)
    })
    .await;
    process.says("new tokens could not be stored").await;
    let view = process.admin(Method::GET, "/v1/tenants/t0", &json!(null)).await.json();
    assert_eq!(view["state"], "refreshing", "{view}");
    limit_files(&process, "unlimited").await;
    until("they are stored", async || {
        let view = process.admin(Method::GET, "/v1/tenants/t0", &json!(null)).await.json();
        view["state"] == "ready"
    })
    .await;
    let mut process = process;
    process.kill().await;
    let process = program.start().await;
    let call = process.call(Method::GET, &key, "t0", PATH);
    process.http.send(call).await.expect(200);
    assert_eq!(judge::token_requests(&sandbox).len(), 1, "nothing was lost and nothing repeated");
}
