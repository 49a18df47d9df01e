//! Many tenants in: the command against the program, with the sandbox as judge of the tokens.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use ctct_proxy::sandbox::Sandbox;

use crate::life::{program, sandbox};
use crate::support::{Process, Program, until};

const PATH: &str = "/v3/contacts?limit=1";

/// A program that refreshes nothing of itself: grants whose age is not known would be kept alive.
pub(crate) fn quiet(sandbox: &Sandbox) -> Program {
    program(sandbox).flag("keep-alive-after", "0")
}

/// The program as a command that asks `process`.
pub(crate) fn command(process: &Process, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ctct-proxy"));
    command.args(args).arg("--admin-url").arg(format!("http://{}", process.admin_address()));
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

pub(crate) async fn run(process: &Process, args: &[&str]) -> Output {
    command(process, args).output().await.unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A file with the grants of tenants `t0` to the `n`th.
fn grants(sandbox: &Sandbox, n: usize) -> String {
    let mut csv = "tenant,api_key,refresh_token\r\n".to_owned();
    for number in 0..n {
        let grant = sandbox.connect_tenant("app", &format!("t{number}"));
        write!(csv, "t{number},default,{}\r\n", grant.refresh_token).unwrap();
    }
    csv
}

pub(crate) async fn tenants(process: &Process) -> Vec<Value> {
    let reply = process.admin(Method::GET, "/v1/tenants?limit=1000", &json!(null)).await;
    reply.expect(200).json()["items"].as_array().unwrap().clone()
}

fn import(process: &Process, file: &Path) -> Child {
    let mut command = command(process, &["tenant", "import", file.to_str().unwrap()]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_was_killed_goes_on_and_spends_no_token() {
    const ROWS: usize = 400;
    let sandbox = sandbox(|_| {}).await;
    let program = quiet(&sandbox);
    let process = program.start().await;
    let file = program.path("grants.csv");
    std::fs::write(&file, grants(&sandbox, ROWS)).unwrap();
    let mut first = import(&process, &file);
    until("some are imported", async || tenants(&process).await.len() > 10).await;
    first.kill().await.unwrap();
    let there = tenants(&process).await.len();
    assert!(there < ROWS, "it was killed too late");
    // renewed before the import goes on: their lines hold spent tokens now
    let key = process.add_client("all").await;
    for tenant in ["t0", "t1", "t2"] {
        process.http.send(process.call(Method::GET, &key, tenant, PATH)).await.expect(200);
    }
    let second = import(&process, &file).wait_with_output().await.unwrap();
    assert_eq!((second.status.code(), text(&second.stderr)), (Some(0), ""));
    assert_eq!(tenants(&process).await.len(), ROWS);
    let told = text(&second.stdout);
    let number = |what: &str| -> usize {
        let (before, _) = told.split_once(what).unwrap();
        before.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert_eq!(number(" created") + number(" unchanged"), ROWS, "{told}");
    assert!(number(" unchanged") >= there, "{told}");
    for tenant in ["t0", "t1", "t2", "t399"] {
        let path = format!("/v1/tenants/{tenant}/refresh");
        process.admin(Method::POST, &path, &json!(null)).await.expect(202);
    }
    until("their refresh tokens are good", async || {
        let all = tenants(&process).await;
        let fresh = |tenant: &&Value| !tenant["last_refreshed_at"].is_null();
        assert!(all.iter().all(|tenant| tenant["state"] != "needs_authorization"));
        let settled = all.iter().all(|tenant| tenant["state"] == "ready");
        settled && all.iter().filter(fresh).count() == 4
    })
    .await;
}

/// A token with these claims; nobody looks at its signature.
fn jwt(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.c2ln", part(&json!({ "alg": "RS256" })), part(claims))
}

#[tokio::test]
async fn a_dry_run_has_every_line_checked_and_changes_nothing() {
    let sandbox = sandbox(|_| {}).await;
    let program = quiet(&sandbox);
    let process = program.start().await;
    process.put_tenant("there", &sandbox.connect_tenant("app", "there")).await;
    let later = jwt(&json!({ "cid": "another-app", "exp": 4_102_444_800_u64 }));
    let nobody = jwt(&json!({ "cid": "app", "platform_user_id": "UNASSIGNED" }));
    let text_of_file = format!(
        "tenant,api_key,refresh_token,access_token\n\
         good,default,s3cret-1,\n\
         stranger,default,s3cret-2,{later}\n\
         unlinked,default,s3cret-3,{nobody}\n\
         lost,nowhere,s3cret-4,\n\
         there,default,s3cret-5,\n\
         short,default,,{later}\n"
    );
    let file = program.path("grants.csv");
    std::fs::write(&file, text_of_file).unwrap();
    let (file, errors) = (file.to_str().unwrap(), program.path("errors.txt"));
    let args = ["tenant", "import", file, "--dry-run", "--errors", errors.to_str().unwrap()];
    let ran = run(&process, &args).await;
    assert_eq!((ran.status.code(), text(&ran.stderr)), (Some(1), ""));
    let tally = "1 created, 0 replaced, 0 unchanged, 0 skipped, 5 failed\n";
    assert_eq!(text(&ran.stdout), format!("nothing was changed; it would be: {tally}"));
    let told = std::fs::read_to_string(&errors).unwrap();
    let lines: Vec<&str> = told.lines().collect();
    for (line, words) in lines.iter().zip([
        "line 3: the access token was issued to client id another-app",
        "line 4: the access token belongs to a login without an account (platform_user_id is",
        "line 5: there is no API key of the name that was given",
        "line 6: tenant there is there already with another grant",
        "line 7: refresh_token is empty",
    ]) {
        assert!(line.starts_with(words), "{line}");
    }
    assert_eq!(lines.len(), 5, "{told}");
    assert!(!told.contains("s3cret") && !told.contains("eyJ"), "{told}");
    assert_eq!(tenants(&process).await.len(), 1);

    let ran = run(&process, &["tenant", "import", file, "--on-conflict", "skip"]).await;
    let tally = "1 created, 0 replaced, 0 unchanged, 1 skipped, 4 failed\n";
    assert_eq!((ran.status.code(), text(&ran.stdout)), (Some(1), tally));
    assert_eq!(tenants(&process).await.len(), 2);
}

#[tokio::test]
async fn an_import_leaves_the_admin_api_to_others_too() {
    let sandbox = sandbox(|_| {}).await;
    let program = quiet(&sandbox);
    let process = program.start().await;
    let file = program.path("grants.csv");
    let mut csv = "tenant,api_key,refresh_token\n".to_owned();
    for number in 0..1_000 {
        writeln!(csv, "t{number},default,refresh-{number}").unwrap();
    }
    std::fs::write(&file, csv).unwrap();
    let mut importing = import(&process, &file);
    let mut slowest = Duration::ZERO;
    while importing.try_wait().unwrap().is_none() {
        let watch = crate::support::Watch::start();
        process.admin(Method::GET, "/v1/api-keys/default", &json!(null)).await.expect(200);
        slowest = slowest.max(watch.elapsed());
    }
    let ran = importing.wait_with_output().await.unwrap();
    assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
    println!("slowest other answer during an import: {slowest:?}");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
}
