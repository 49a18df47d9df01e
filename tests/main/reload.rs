//! `SIGHUP`: limits, queue, logging and API keys change; nothing that waits is lost.

use std::fmt::Write as _;
use std::time::Duration;

use futures_util::future::{join, join_all};
use http::Method;
use serde_json::json;

use ctct_proxy::sandbox::Sandbox;

use crate::life::{ready, sandbox};
use crate::support::{Process, Program, Reply, judge, until};

const PATH: &str = "/v3/contacts?limit=1";

/// A configuration file with these API keys: name and calls per second.
fn write(program: &Program, sandbox: &Sandbox, more: &str, keys: &[(&str, u32)]) {
    let mut text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n[upstream]\n\
         url = \"{}\"\n[oauth]\ntoken_url = \"{}\"\nrefresh_interval = \"40ms\"\n[store]\n\
         url = \"sqlite:{}\"\n{more}\n",
        sandbox.url(),
        sandbox.token_url(),
        program.path("proxy.db").display()
    );
    for (name, rate) in keys {
        let client_id = if *name == "default" { "app" } else { name };
        let _ = write!(
            text,
            "[[api_keys]]\nname = \"{name}\"\nclient_id = \"{client_id}\"\nper_second = {rate}\n"
        );
    }
    std::fs::write(program.path("proxy.toml"), text).unwrap();
}

/// A program that takes everything from its file.
fn program(sandbox: &Sandbox) -> Program {
    let program = Program::new(sandbox);
    let file = program.path("proxy.toml");
    let all = ["listen", "admin-listen", "upstream-url", "token-url", "store", "client-id"];
    let program = all.into_iter().fold(program, Program::without);
    program.flag("config", file.to_str().unwrap())
}

async fn api_keys(process: &Process) -> Vec<String> {
    let list = process.admin(Method::GET, "/v1/api-keys", &json!(null)).await.json();
    let items = list["items"].as_array().unwrap();
    items.iter().map(|key| key["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn changed_limits_hold_at_once_and_no_waiting_call_or_count_is_lost() {
    let sandbox = sandbox(|options| options.per_second = 1_000).await;
    let program = program(&sandbox);
    write(&program, &sandbox, "", &[("default", 5)]);
    let (process, key) = ready(&program, &sandbox).await;
    let call = || process.call(Method::GET, &key, "t0", PATH);
    let waiting = join_all((0..100).map(|_| process.http.send(call())));
    let changing = async {
        until("they have begun", async || judge::arrivals(&sandbox) >= 5).await;
        write(&program, &sandbox, "", &[("default", 40)]);
        process.signal("HUP").await;
        process.says("reloaded").await;
        judge::arrivals(&sandbox)
    };
    let (replies, before) = join(waiting, changing).await;
    assert!(replies.iter().all(|reply| reply.status == 200));
    let calls = judge::api_calls(&sandbox);
    let (slow, fast) = (judge::rate(&calls[..5]), judge::rate(&calls[before + 5..]));
    assert!(slow < 6.0 && fast > 30.0, "{slow:.1}, then {fast:.1} a second");
    let key = process.admin(Method::GET, "/v1/api-keys/default", &json!(null)).await.json();
    assert_eq!((&key["day"]["used"], &key["per_second"]), (&100.into(), &40.into()));
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_the_log_says_what_is_wrong() {
    let sandbox = sandbox(|_| {}).await;
    let program = program(&sandbox);
    write(&program, &sandbox, "", &[("default", 7)]);
    let (process, key) = ready(&program, &sandbox).await;
    for (number, bad) in ["this is no TOML", "[queue]\nmax_wait = \"soon\"\n"].iter().enumerate() {
        if number == 0 {
            std::fs::write(program.path("proxy.toml"), bad).unwrap();
        } else {
            write(&program, &sandbox, bad, &[("default", 9)]);
        }
        process.signal("HUP").await;
        until("the log says so", async || {
            process.log().matches("the one before stays in force").count() == number + 1
        })
        .await;
        process.http.send(process.call(Method::GET, &key, "t0", PATH)).await.expect(200);
        let key = process.admin(Method::GET, "/v1/api-keys/default", &json!(null)).await.json();
        assert_eq!(key["per_second"], 7);
    }
    assert!(process.log().contains("queue.max_wait"), "{}", process.log());
    assert!(!process.log().contains("this is no TOML"), "the file may hold secrets");
    std::fs::remove_file(program.path("proxy.toml")).unwrap();
    process.signal("HUP").await;
    process.says("cannot be read").await;
    process.http.send(process.call(Method::GET, &key, "t0", PATH)).await.expect(200);
}

#[tokio::test]
async fn api_keys_come_and_go_with_the_file() {
    let sandbox = sandbox(|_| {}).await;
    let program = program(&sandbox);
    write(&program, &sandbox, "", &[("default", 50)]);
    let (process, key) = ready(&program, &sandbox).await;
    let grant = sandbox.connect_tenant("second", "b");
    let body = json!({"api_key": "second", "refresh_token": grant.refresh_token,
        "access_token": grant.access_token});
    let refused = process.admin(Method::PUT, "/v1/tenants/b", &body).await;
    assert!((400..500).contains(&refused.status), "{refused:?}");
    write(&program, &sandbox, "", &[("default", 50), ("second", 20)]);
    process.signal("HUP").await;
    until("the second is there", async || api_keys(&process).await == ["default", "second"]).await;
    process.admin(Method::PUT, "/v1/tenants/b", &body).await.expect(201);
    let of_b = || process.call(Method::GET, &key, "b", PATH);
    process.http.send(of_b()).await.expect(200);
    process.admin(Method::POST, "/v1/api-keys/second/pause", &json!(null)).await.expect(204);
    let waiting = join_all((0..5).map(|_| process.http.send(of_b())));
    let removing = async {
        until("they wait", async || {
            let key = process.admin(Method::GET, "/v1/api-keys/second", &json!(null)).await;
            key.json()["queue"]["depth"] == 5
        })
        .await;
        write(&program, &sandbox, "", &[("default", 50)]);
        process.signal("HUP").await;
        until("the second is gone", async || api_keys(&process).await == ["default"]).await;
    };
    let (replies, ()) = join(waiting, removing).await;
    let gone = |reply: &Reply| (reply.status, reply.reason()) == (404, "tenant_unknown");
    assert!(replies.iter().all(gone), "{replies:?}");
    let gone = process.http.send(of_b()).await;
    assert!((400..=404).contains(&gone.status), "{gone:?}");
    process.http.send(process.call(Method::GET, &key, "t0", PATH)).await.expect(200);
    // and back again, with its tenant
    write(&program, &sandbox, "", &[("default", 50), ("second", 20)]);
    process.signal("HUP").await;
    until("the second is back", async || api_keys(&process).await == ["default", "second"]).await;
    process.admin(Method::POST, "/v1/api-keys/second/resume", &json!(null)).await.expect(204);
    process.http.send(of_b()).await.expect(200);
}

#[tokio::test]
async fn many_reloads_under_load_disturb_nobody() {
    let sandbox = sandbox(|options| options.per_second = 40).await;
    let program = program(&sandbox);
    write(&program, &sandbox, "", &[("default", 40)]);
    let (process, key) = ready(&program, &sandbox).await;
    let call = || process.call(Method::GET, &key, "t0", PATH);
    let waiting = join_all((0..150).map(|_| process.http.send(call())));
    let reloading = async {
        for number in 0..20 {
            let level = if number % 2 == 0 { "debug" } else { "info" };
            let rate = if number % 3 == 0 { 30 } else { 40 };
            let more = format!("[log]\nlevel = \"{level}\"");
            write(&program, &sandbox, &more, &[("default", rate)]);
            process.signal("HUP").await;
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
    };
    let (replies, ()) = join(waiting, reloading).await;
    assert!(replies.iter().all(|reply| reply.status == 200));
    judge::assert_no_429(&sandbox);
}
