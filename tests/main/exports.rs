//! Tenants that move to another proxy: sealed on the way, held where they were, good where they go.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use age::secrecy::ExposeSecret as _;
use age::x25519::Identity;
use http::Method;
use serde_json::{Value, json};

use ctct_proxy::sandbox::Sandbox;

use crate::life::{program, sandbox};
use crate::support::{Process, judge, until};
use crate::transfer::{command, quiet, run, tenants, text};

const PATH: &str = "/v3/contacts?limit=1";

async fn put(process: &Process, sandbox: &Sandbox, tenant: &str) -> String {
    let grant = sandbox.connect_tenant("app", tenant);
    let body = json!({"api_key": "default", "refresh_token": grant.refresh_token, "weight": 3});
    let path = format!("/v1/tenants/{tenant}");
    process.admin(Method::PUT, &path, &body).await.expect(201);
    grant.refresh_token
}

async fn post(process: &Process, path: &str) {
    let reply = process.admin(Method::POST, path, &json!(null)).await;
    assert!([202, 204].contains(&reply.status), "{reply:?}");
}

async fn state(process: &Process, tenant: &str) -> Value {
    let path = format!("/v1/tenants/{tenant}");
    process.admin(Method::GET, &path, &json!(null)).await.expect(200).json()["state"].clone()
}

/// Writes the identity's file and gives its recipient.
fn identity(file: &Path) -> String {
    let identity = Identity::generate();
    std::fs::write(file, format!("# mine\n{}\n", identity.to_string().expose_secret())).unwrap();
    identity.to_public().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_that_move_are_held_here_and_good_there() {
    let sandbox = sandbox(|options| options.token_latency = Duration::from_millis(300)).await;
    let (old, new) = (program(&sandbox), quiet(&sandbox));
    let (here, there) = (old.start().await, new.start().await);
    let mut secrets = Vec::new();
    for tenant in ["a", "b", "c", "dead"] {
        secrets.push(put(&here, &sandbox, tenant).await);
    }
    sandbox.revoke("dead");
    post(&here, "/v1/tenants/dead/refresh").await;
    until("it is dead", async || state(&here, "dead").await == "needs_authorization").await;
    // under way when the export begins: what leaves is what comes back from it
    post(&here, "/v1/tenants/a/refresh").await;
    let (mine, file) = (old.path("identity.txt"), old.path("grants.age"));
    let recipient = identity(&mine);
    let (mine, path) = (mine.to_str().unwrap(), file.to_str().unwrap());
    let other = Identity::generate().to_public().to_string();
    let list = old.path("recipients.txt");
    std::fs::write(&list, format!("# theirs\n{other}\n")).unwrap();
    let args = ["tenant", "export", "--recipient", &recipient, "--output", path, "--and-pause"];
    let args = [&args[..], &["--recipients-file", list.to_str().unwrap()]].concat();
    let ran = run(&here, &args).await;
    let told = text(&ran.stderr);
    assert_eq!((ran.status.code(), text(&ran.stdout)), (Some(1), ""), "{told}");
    assert!(told.contains("tenant dead: its grant is dead"), "{told}");
    assert!(told.contains("3 tenants exported, 1 left out\n"), "{told}");
    assert!(told.contains("are held here"), "{told}");
    let sealed = std::fs::read(&file).unwrap();
    let head = String::from_utf8_lossy(&sealed).into_owned();
    assert!(head.starts_with("age-encryption.org/v1\n"), "{head}");
    assert_eq!(head.matches("-> X25519").count(), 2);
    for secret in &secrets {
        assert!(!head.contains(secret) && !here.log().contains(secret));
    }
    assert!(here.log().contains(&recipient), "who may open it is in the log");
    for tenant in ["a", "b", "c"] {
        assert_eq!(state(&here, tenant).await, "paused");
    }

    let blind = run(&there, &["tenant", "import", path]).await;
    assert_eq!(blind.status.code(), Some(1));
    assert!(text(&blind.stderr).contains("--identity"), "{}", text(&blind.stderr));
    let ran = run(&there, &["tenant", "import", path, "--identity", mine]).await;
    let tally = "3 created, 0 replaced, 0 unchanged, 0 skipped, 0 failed\n";
    assert_eq!((ran.status.code(), text(&ran.stdout)), (Some(0), tally), "{}", text(&ran.stderr));
    assert!(tenants(&there).await.iter().all(|tenant| tenant["weight"] == 3));

    // callers who still ask here wait; nothing is refreshed for them
    let (old_key, new_key) = (here.add_client("all").await, there.add_client("all").await);
    let before = judge::token_requests(&sandbox).len();
    for tenant in ["a", "b", "c"] {
        let waits = here.call(Method::GET, &old_key, tenant, PATH).header("prefer", "wait=1");
        let reply = here.http.send(waits).await;
        // the wait is over, or there is no token to wait for
        assert!(["wait_expired", "token_unavailable"].contains(&reply.reason()), "{reply:?}");
    }
    assert_eq!(judge::token_requests(&sandbox).len(), before, "the old place asked for a token");
    for tenant in ["a", "b", "c"] {
        post(&there, &format!("/v1/tenants/{tenant}/refresh")).await;
    }
    until("they are renewed there", async || {
        let all = tenants(&there).await;
        assert!(all.iter().all(|tenant| tenant["state"] != "needs_authorization"), "{all:?}");
        all.iter().all(|it| it["state"] == "ready" && !it["last_refreshed_at"].is_null())
    })
    .await;
    for tenant in ["a", "b", "c"] {
        there.http.send(there.call(Method::GET, &new_key, tenant, PATH)).await.expect(200);
    }
}

#[tokio::test]
async fn an_export_goes_into_a_pipe_and_is_refused_with_the_reason() {
    let sandbox = sandbox(|_| {}).await;
    let program = quiet(&sandbox);
    let process = program.start().await;
    let secret = put(&process, &sandbox, "a").await;
    put(&process, &sandbox, "b").await;
    let mine = program.path("identity.txt");
    let recipient = identity(&mine);
    let secret_key = std::fs::read_to_string(&mine).unwrap();
    let secret_key = secret_key.lines().last().unwrap();
    for (args, words) in [
        (vec![], "name who may open the file"),
        (vec!["--recipient", "age1nobody"], "key 1 is no age recipient"),
        (vec!["--recipient", secret_key], "key 1 is a secret key"),
        (vec!["--recipient", &recipient, "nobody"], "there is no tenant nobody"),
        (vec!["--recipient", &recipient, "--api-key", "x"], "no tenant that could be exported"),
    ] {
        let ran = run(&process, &[&["tenant", "export"], &args[..]].concat()).await;
        assert_eq!((ran.status.code(), ran.stdout.len()), (Some(1), 0));
        let told = text(&ran.stderr);
        assert!(told.contains(words) && !told.contains(secret_key), "{told}");
    }
    let args = ["tenant", "export", "a", "--recipient", &recipient];
    let dry = run(&process, &[&args[..], &["--dry-run", "--and-pause"]].concat()).await;
    assert_eq!(text(&dry.stdout), "1 tenants would be exported, 0 left out\n");
    assert_eq!(state(&process, "a").await, "ready");
    let ran = command(&process, &args).stdout(Stdio::piped()).output().await.unwrap();
    assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
    assert!(text(&ran.stderr).contains("whichever place refreshes first"));
    assert_eq!(state(&process, "a").await, "ready", "without --and-pause it goes on");
    let identities = ctct_proxy::secret::age_file::Identities::read(secret_key).unwrap();
    let plain = identities.open(&ran.stdout).unwrap();
    let line: Value = serde_json::from_slice(&plain).unwrap();
    let whole = json!({
        "tenant": "a", "api_key": "default", "refresh_token": secret, "weight": 3
    });
    assert_eq!(line, whole);
    // what the proxy hands out is known to it again
    let file = program.path("plain.jsonl");
    std::fs::write(&file, &plain).unwrap();
    let again = run(&process, &["tenant", "import", file.to_str().unwrap()]).await;
    let tally = "0 created, 0 replaced, 1 unchanged, 0 skipped, 0 failed\n";
    assert_eq!(text(&again.stdout), tally);
}
