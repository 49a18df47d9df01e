//! Rotating the encryption key of a running proxy: under load, killed at any moment, by command.

use std::time::Duration;

use futures_util::future::{join, join_all};
use http::Method;
use serde_json::{Value, json};

use ctct_proxy::sandbox::Sandbox;

use crate::life::sandbox;
use crate::support::{Dice, Process, Program, judge, until};
use crate::transfer::{quiet, run, tenants, text};

const PATH: &str = "/v3/contacts?limit=1";
const TENANTS: usize = 120;
const KILLS: usize = 50;

/// A running program with tenants, the first four of which have access tokens.
async fn filled(program: &Program, sandbox: &Sandbox) -> Process {
    let process = program.start().await;
    join_all((0..TENANTS).map(async |number| {
        let name = format!("t{number}");
        let grant = sandbox.connect_tenant("app", &name);
        if number < 4 {
            process.put_tenant(&name, &grant).await;
        } else {
            let body = json!({"api_key": "default", "refresh_token": grant.refresh_token});
            let path = format!("/v1/tenants/{name}");
            process.admin(Method::PUT, &path, &body).await.expect(201);
        }
    }))
    .await;
    process
}

async fn rotate(process: &Process) -> Value {
    process.admin(Method::POST, "/v1/key/rotate", &json!(null)).await.expect(200).json()
}

/// Nobody must be connected again, and the tokens are those that the upstream issued last.
async fn assert_all_good(process: &Process, refreshed: &[&str]) {
    for tenant in refreshed {
        let path = format!("/v1/tenants/{tenant}/refresh");
        process.admin(Method::POST, &path, &json!(null)).await.expect(202);
    }
    for tenant in refreshed {
        // one by one: those that are called all the time are renewed all the time
        until(&format!("{tenant} is ready"), async || {
            let path = format!("/v1/tenants/{tenant}");
            let view = process.admin(Method::GET, &path, &json!(null)).await.expect(200).json();
            view["state"] == "ready" && !view["last_refreshed_at"].is_null()
        })
        .await;
    }
    let all = tenants(process).await;
    assert_eq!(all.len(), TENANTS);
    let dead = all.iter().find(|tenant| tenant["state"] == "needs_authorization");
    assert!(dead.is_none(), "{dead:?}\n{}", process.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_rotated_while_calls_and_refreshes_go_on() {
    let sandbox = sandbox(|options| options.access_token_life = Duration::from_secs(3)).await;
    let program = quiet(&sandbox).flag("refresh-margin", "2s");
    let process = filled(&program, &sandbox).await;
    let key = process.add_client("all").await;
    let before = judge::token_requests(&sandbox).len();
    let calls = join_all((0..4).map(async |number| {
        let tenant = format!("t{number}");
        for _ in 0..40 {
            let call = process.call(Method::GET, &key, &tenant, PATH);
            process.http.send(call).await.expect(200);
        }
    }));
    let rotations = async {
        let mut ids = vec![];
        for _ in 0..5 {
            let done = rotate(&process).await;
            assert_eq!((&done["resumed"], &done["note"]), (&json!(false), &json!(null)));
            ids.push(done["key_id"].as_str().unwrap().to_owned());
        }
        ids
    };
    let (_, ids) = join(calls, rotations).await;
    assert!(judge::token_requests(&sandbox).len() > before + 3, "refreshes went on");
    let shown = run(&process, &["key", "show"]).await;
    assert_eq!(text(&shown.stdout), format!("encryption key {}\n", ids.last().unwrap()));
    assert!(ids.iter().all(|id| ids.iter().filter(|other| *other == id).count() == 1));
    assert_all_good(&process, &["t0", "t5", "t119"]).await;

    let ran = run(&process, &["key", "rotate"]).await;
    assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
    let told = text(&ran.stdout);
    let words = format!("the tokens of {TENANTS} tenants were sealed anew, given up: {}", ids[4]);
    assert!(told.contains(&words), "{told}");
    assert!(text(&ran.stderr).contains("keep a copy of the key file"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_kills_during_rotations_lose_no_grant() {
    let sandbox = sandbox(|_| {}).await;
    let program = quiet(&sandbox);
    let mut process = filled(&program, &sandbox).await;
    let (mut dice, mut finished, mut several) = (Dice::new(17), 0, 0);
    for kill in 0..KILLS {
        let tenant = format!("t{}", dice.below(TENANTS as u64));
        let path = format!("/v1/tenants/{tenant}/refresh");
        process.admin(Method::POST, &path, &json!(null)).await.expect(202);
        until("it was refreshed", async || {
            tenants(&process).await.iter().all(|tenant| tenant["state"] == "ready")
        })
        .await;
        let moment = Duration::from_micros(dice.below(120_000));
        let url = format!("http://{}/v1/key/rotate", process.admin_address());
        let rotating = process.http.try_send(crate::support::Call::post(url, ""));
        let killing = async {
            tokio::time::sleep(moment).await;
            process.signal("KILL").await;
        };
        let (answer, ()) = join(rotating, killing).await;
        finished += usize::from(answer.is_ok_and(|reply| reply.status == 200));
        process.end().await;
        // a start opens every grant, or is refused
        process = program.start().await;
        let keys = process.admin(Method::GET, "/v1/key", &json!(null)).await.expect(200).json();
        several += usize::from(keys["older_key_ids"] != json!([]));
        assert_eq!(tenants(&process).await.len(), TENANTS, "kill {kill}");
    }
    println!("{KILLS} kills: {finished} rotations were finished, {several} cut in the middle");
    assert!(several > 0, "no kill came in the middle of a rotation");
    rotate(&process).await;
    assert_all_good(&process, &["t0", "t1", "t60", "t119"]).await;
    let file = std::fs::read_to_string(program.path("proxy.db.key")).unwrap();
    assert_eq!(file.lines().count(), 1, "older keys are given up in the end");
}

#[tokio::test]
async fn a_wrong_or_missing_key_refuses_the_start_and_says_what_to_do() {
    let sandbox = sandbox(|_| {}).await;
    let program = quiet(&sandbox);
    let mut process = filled(&program, &sandbox).await;
    process.signal("TERM").await;
    assert_eq!(process.end().await.code(), Some(0));
    let file = program.path("proxy.db.key");
    let good = std::fs::read_to_string(&file).unwrap();
    let refused = async |words: &[&str]| {
        let mut process = program.spawn();
        assert_eq!(process.end().await.code(), Some(1));
        until("the log is read", async || words.iter().all(|word| process.log().contains(word)))
            .await;
    };
    std::fs::remove_file(&file).unwrap();
    refused(&["proxy.db.key does not", "--encryption-key-file"]).await;
    std::fs::write(&file, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n").unwrap();
    refused(&["holds tokens sealed with encryption key", "use the key file"]).await;
    std::fs::write(&file, "no key\n").unwrap();
    refused(&["does not hold a key in each line", "ctct-proxy keygen"]).await;
    std::fs::write(&file, format!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n{good}")).unwrap();
    let process = program.start().await;
    let done = rotate(&process).await;
    assert_eq!((&done["resumed"], &done["sealed_anew"]), (&json!(true), &json!(TENANTS)));
    assert_all_good(&process, &["t3"]).await;
}
