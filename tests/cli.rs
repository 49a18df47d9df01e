//! The command line: exit codes of the program, and the commands that ask a running proxy, against
//! a server that speaks the contract's shapes.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

#[path = "support/fake_admin.rs"]
mod fake_admin;

use std::collections::BTreeMap;
use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use clap::Parser as _;
use serde_json::{Value, json};

use ctct_proxy::cli::{self, Cli, Console};

use fake_admin::Admin;

/// What a command printed and its exit code.
struct Ran {
    code: u8,
    out: String,
    err: String,
}

fn run_with(args: &[&str], input: &str, env: &[(&str, &str)], interactive: bool) -> Ran {
    let cli = Cli::try_parse_from(std::iter::once(&"ctct-proxy").chain(args)).unwrap();
    let env: BTreeMap<_, _> = env.iter().copied().collect();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut console = Console {
        input: &mut input.as_bytes(),
        out: &mut out,
        err: &mut err,
        env: &|name| env.get(name).map(|value| (*value).to_owned()),
        interactive,
        redraws: false,
        watched: false,
    };
    let code = cli::run(&cli, &mut console);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code, out: text(out), err: text(err) }
}

fn run(args: &[&str]) -> Ran {
    run_with(args, "", &[], false)
}

/// Runs a command that asks `admin`.
fn ask(admin: &Admin, args: &[&str]) -> Ran {
    run_with(args, "", &[("CTCT_PROXY_ADMIN_URL", &admin.url)], false)
}

#[test]
fn status_shows_keys_and_all_pages_of_tenants() {
    let admin = Admin::start();
    let ran = ask(&admin, &["status"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let lines: Vec<Vec<&str>> = ran.out.lines().map(|l| l.split_whitespace().collect()).collect();
    let key = ["default", "open", "12", "0.3/1.6/62.0s", "3", "345", "10000"];
    let day =
        ["2026-11-25T00:00:00Z", "2026-11-24T21:00:00Z", "(2026-11-24T20:00:00Z", "to", "the"];
    assert_eq!(lines[1], [&key[..], &day, &["reset)", "1", "2"]].concat());
    assert_eq!(lines[4], ["acme", "default", "ready", "4", "77", "2026-11-24T20:00:00Z"]);
    assert_eq!(lines[5][0], "zeta");
    let times = ["2026-11-24T06:00:00Z", "2026-11-24T07:00:00Z"];
    let instance = ["10.0.0.1:8080", "127.0.0.1:9090", "0.1.0", times[0], times[1]];
    assert_eq!(lines[8], [&["node", "here", "(this", "one)"][..], &instance].concat());
    assert_eq!(lines[9], [&["node", "silent"][..], &instance].concat());
    let json: Value = serde_json::from_str(&ask(&admin, &["status", "--json"]).out).unwrap();
    assert_eq!(json["tenants"].as_array().map(Vec::len), Some(2));
    assert_eq!(json["api_keys"][0]["day"]["used"], 345);
    assert_eq!(json["instances"].as_array().map(Vec::len), Some(2));
}

#[test]
fn the_proxy_is_found_through_its_configuration_with_its_token() {
    let admin = Admin::start();
    let dir = tempfile::tempdir().unwrap();
    let (token, config) = (dir.path().join("token"), dir.path().join("proxy.toml"));
    std::fs::write(&token, "t0ken\n").unwrap();
    let text = format!(
        "[server]\nadmin_listen = \"{}\"\nfrom_another_version = 1\n[admin]\ntoken_file = '{}'\n",
        admin.url.trim_start_matches("http://"),
        token.display()
    );
    std::fs::write(&config, text).unwrap();
    let ran = run(&["tenant", "show", "acme", "--config", config.to_str().unwrap()]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert!(ran.out.contains("today.calls"), "{}", ran.out);
    assert_eq!(admin.asked()[0].0, "GET /v1/tenants/acme Bearer t0ken");
}

#[test]
fn a_tenant_is_added_with_tokens_that_are_not_on_the_command_line() {
    let admin = Admin::start();
    let env = [("CTCT_PROXY_ADMIN_URL", admin.url.as_str())];
    let add =
        ["tenant", "add", "new", "--api-key", "k", "--refresh-token-file", "-", "--weight", "2"];
    let ran = run_with(&add, "r3fresh\n", &env, false);
    assert_eq!((ran.code, ran.out.as_str()), (0, "tenant new added to API key k\n"));
    let expected = json!({"api_key": "k", "refresh_token": "r3fresh", "weight": 2});
    assert_eq!(admin.asked(), [("PUT /v1/tenants/new".to_owned(), expected)]);
    let missing = ["tenant", "add", "new", "--api-key", "k", "--refresh-token-file", "r3fresh"];
    let ran = run_with(&missing, "", &env, false);
    assert_eq!(ran.code, 1);
    assert!(!ran.err.contains("r3fresh"), "{}", ran.err);
    assert!(
        Cli::try_parse_from(["ctct-proxy", "tenant", "add", "../x", "--api-key", "k"]).is_err()
    );
}

#[test]
fn lists_follow_the_cursor_and_pass_filters() {
    let admin = Admin::start();
    let ran = ask(&admin, &["tenant", "list", "--api-key", "default", "--state", "ready"]);
    assert_eq!(ran.out.lines().count(), 3, "{}", ran.out);
    let asked: Vec<_> = admin.asked().into_iter().map(|(line, _)| line).collect();
    assert_eq!(
        asked,
        [
            "GET /v1/tenants?limit=500&api_key=default&state=ready",
            "GET /v1/tenants?limit=500&api_key=default&state=ready&cursor=next"
        ]
    );
}

#[test]
fn a_tenant_is_removed_only_when_somebody_agrees() {
    let admin = Admin::start();
    let env = [("CTCT_PROXY_ADMIN_URL", admin.url.as_str())];
    let ran = ask(&admin, &["tenant", "remove", "acme"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("--yes"), "{}", ran.err);
    assert_eq!(run_with(&["tenant", "remove", "acme"], "n\n", &env, true).code, 1);
    assert!(admin.asked().is_empty());
    assert_eq!(run_with(&["tenant", "remove", "acme"], "y\n", &env, true).code, 0);
    assert_eq!(ask(&admin, &["tenant", "remove", "acme", "--yes"]).code, 0);
    let ran = ask(&admin, &["tenant", "remove", "nobody", "--yes"]);
    assert_eq!((ran.code, ran.err.as_str()), (1, "error: there is no such thing\n"));
}

#[test]
fn an_import_goes_on_after_a_bad_line_and_names_it() {
    let admin = Admin::start();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tenants.csv");
    let file = path.to_str().unwrap();
    let text = "api_key,tenant,refresh_token,access_token\n\
                k,one,r3fresh-1,\nk,bad name,r3fresh-2,\nk,stranger,r3fresh-3,\nk,two\n\
                k,known,r3fresh-4,\nk,three,r3fresh-5,acc3ss\n";
    std::fs::write(&path, text).unwrap();
    let ran = ask(&admin, &["tenant", "import", file, "--at-once", "1"]);
    let tally = "2 created, 0 replaced, 1 unchanged, 0 skipped, 3 failed\n";
    assert_eq!((ran.code, ran.out.as_str()), (1, tally));
    let numbers: Vec<_> = ran.err.lines().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(numbers, ["line 3", "line 4", "line 5"]);
    assert!(ran.err.contains("line 4: the token belongs to another API key"), "{}", ran.err);
    assert!(!ran.err.contains("r3fresh"), "{}", ran.err);
    let asked = admin.asked();
    assert_eq!(asked.len(), 4);
    let last = json!({"api_key": "k", "refresh_token": "r3fresh-5", "access_token": "acc3ss"});
    let target = "PUT /v1/tenants/three?on_conflict=fail&dry_run=false";
    assert_eq!(asked[3], (target.to_owned(), last));

    let errors = dir.path().join("errors.txt");
    let ran = ask(
        &admin,
        &[
            ["tenant", "import", file, "--dry-run", "--on-conflict"],
            ["replace", "--errors", errors.to_str().unwrap(), "--at-once", "32"],
        ]
        .concat(),
    );
    assert_eq!(ran.out, format!("nothing was changed; it would be: {tally}"));
    assert_eq!((ran.code, ran.err.as_str()), (1, ""));
    assert_eq!(std::fs::read_to_string(&errors).unwrap().lines().count(), 3);
    let asked = admin.asked();
    assert!(asked.iter().all(|(line, _)| line.ends_with("?on_conflict=replace&dry_run=true")));
    assert_eq!(asked.len(), 4);
}

#[test]
fn an_import_ends_when_the_proxy_can_take_no_line() {
    let admin = Admin::start();
    let env = [("CTCT_PROXY_ADMIN_URL", admin.url.as_str())];
    let lines: Vec<_> = (0..100).map(|number| format!("t{number},k,token-{number}")).collect();
    let text =
        format!("tenant,api_key,refresh_token\none,k,r1\nburnt,k,r2\n{}\n", lines.join("\n"));
    let ran = run_with(&["tenant", "import", "-"], &text, &env, false);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    let told = "error: the store could not store a grant now (at line 3; before it: 1 created";
    assert!(ran.err.starts_with(told), "{}", ran.err);
    assert!(ran.err.contains("start the import again with the same file"), "{}", ran.err);
    assert!(admin.asked().len() < 40, "the rest of the file is not tried");
}

#[test]
fn an_import_reads_json_lines() {
    let admin = Admin::start();
    let env = [("CTCT_PROXY_ADMIN_URL", admin.url.as_str())];
    let text = "{\"tenant\":\"one\",\"api_key\":\"k\",\"refresh_token\":\"r\",\"weight\":3}\n\n\
                {\"tenant\":\"two\",\"api_key\":\"k\",\"refresh_token\":{\"t0ken\":1}}\nt0ken\n";
    let ran = run_with(&["tenant", "import", "-"], text, &env, false);
    let tally = "1 created, 0 replaced, 0 unchanged, 0 skipped, 2 failed\n";
    assert_eq!((ran.code, ran.out.as_str()), (1, tally));
    assert!(ran.err.starts_with("line 3: refresh_token is no text\nline 4: is no JSON"));
    assert!(!ran.err.contains("t0ken"), "{}", ran.err);
    let body = json!({"api_key": "k", "refresh_token": "r", "weight": 3});
    assert_eq!(admin.asked()[0].1, body);
}

#[test]
fn a_file_without_header_is_refused_without_showing_its_tokens() {
    let ran = run_with(&["tenant", "import", "-", "--dry-run"], "acme,k,t0ken\n", &[], false);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("no header") && !ran.err.contains("t0ken"), "{}", ran.err);
}

#[test]
fn a_new_clients_key_is_the_only_output() {
    let admin = Admin::start();
    let ran = ask(&admin, &["client", "add", "app", "--tenants", "acme,zeta"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "ctp_key\n"));
    assert_eq!(admin.asked()[0].1, json!({"name": "app", "tenants": ["acme", "zeta"]}));
    ask(&admin, &["client", "add", "app", "--all-tenants"]);
    assert_eq!(admin.asked()[0].1, json!({"name": "app", "tenants": "*"}));
    assert!(Cli::try_parse_from(["ctct-proxy", "client", "add", "app"]).is_err());
    ask(&admin, &["client", "add", "app", "--all-tenants", "--expires-in", "90d"]);
    assert_eq!(admin.asked()[0].1["expires_in"], 7_776_000);
    let ran = ask(&admin, &["client", "rotate", "app", "--overlap", "10m"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "ctp_key\n"));
    let (line, body) = admin.asked().remove(0);
    assert!(line.starts_with("POST /v1/clients/app/rotate"), "{line}");
    assert!(ran.err.contains("the old key does not work any more"), "{}", ran.err);
    assert_eq!(body, json!({"overlap": 600}));
    assert!(ask(&admin, &["client", "list"]).out.contains("acme,zeta"));
    assert_eq!(ask(&admin, &["client", "remove", "app"]).code, 0);
}

#[test]
fn a_proxy_that_does_not_run_is_named() {
    // bound and dropped again: nobody listens there
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ran = run(&["status", "--admin-url", &format!("http://{address}")]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("no proxy answers at http://127.0.0.1"), "{}", ran.err);
    assert!(ran.err.contains("is this its --admin-listen?"), "{}", ran.err);
}

fn jwt(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.c2lnbmF0dXJl", part(&json!({"alg": "none"})), part(claims))
}

#[test]
fn a_token_shows_its_claims_and_not_itself() {
    let token = jwt(&json!({
        "exp": "4102444800", "iat": 1_700_000_000.5, "cid": "id", "sub": "me", "scp": ["a", "b"]
    }));
    for (args, input) in [
        (vec!["token", "inspect", &token], String::new()),
        (vec!["token", "inspect", "-"], format!("{token}\n")),
        (vec!["token", "inspect"], format!("Bearer {token}")),
    ] {
        let ran = run_with(&args, &input, &[], false);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
        for part in ["2100-01-01T00:00:00Z", "2023-11-14T22:13:20Z", "id", "a b", "me", "time left"]
        {
            assert!(ran.out.contains(part), "{part}: {}", ran.out);
        }
        assert!(!ran.out.contains(token.split('.').nth(1).unwrap()));
    }
    let ran = run(&["token", "inspect", &jwt(&json!({"exp": 1}))]);
    assert!(ran.out.contains("none, expired "), "{}", ran.out);
}

#[test]
fn what_is_no_token_is_said_without_repeating_it() {
    for text in ["opaque-s3cret", "a.s3cret.c", ""] {
        let ran = run_with(&["token", "inspect"], text, &[], false);
        assert_eq!((ran.code, ran.out.as_str()), (1, ""));
        assert!(!ran.err.contains("s3cret") && ran.err.starts_with("error: "), "{}", ran.err);
    }
}

fn program(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ctct-proxy")).args(args).env_clear().output().unwrap()
}

#[test]
fn keys_are_32_random_bytes() {
    let (one, two) = (program(&["keygen"]).stdout, program(&["keygen"]).stdout);
    assert_ne!(one, two);
    assert_eq!(STANDARD.decode(one.trim_ascii()).unwrap().len(), 32);
}

#[test]
fn check_ends_with_0_or_with_2_and_all_mistakes() {
    let good = program(&["check", "--client-id", "id", "--allow-anonymous"]);
    assert_eq!(good.status.code(), Some(0));
    let text = String::from_utf8(good.stdout).unwrap();
    assert!(text.contains("allow_anonymous = true # --allow-anonymous"), "{text}");
    let bad = program(&["check", "--max-wait", "soon", "--store", "redis://h"]);
    assert_eq!((bad.status.code(), bad.stdout.len()), (Some(2), 0));
    let text = String::from_utf8(bad.stderr).unwrap();
    for part in ["queue.max_wait (--max-wait)", "store.encryption_key_file (--store)", "api_keys"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let missing = program(&["serve", "--config", "/nowhere/proxy.toml"]);
    assert_eq!(missing.status.code(), Some(2));
}

#[test]
fn a_flag_that_does_not_exist_ends_with_2() {
    for flag in ["--tls-cert=x", "--no-passthrough", "--otlp-endpoint=x", "--colour"] {
        assert_eq!(program(&["serve", flag]).status.code(), Some(2), "{flag}");
    }
}

#[test]
fn help_shows_default_environment_and_key_of_every_setting() {
    let text = String::from_utf8(program(&["serve", "--help"]).stdout).unwrap();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for setting in ctct_proxy::config::settings::ALL {
        assert!(text.contains(&format!("--{}", setting.flag)), "{}", setting.flag);
        assert!(text.contains(&format!("[env: {}]", setting.env())), "{}", setting.flag);
        if let Some(default) = setting.default {
            assert!(text.contains(&format!("[default: {default}]")), "{}", setting.flag);
        }
    }
}

#[test]
fn the_command_line_is_well_formed() {
    use clap::CommandFactory as _;
    Cli::command().debug_assert();
    let sandbox = ["ctct-proxy", "sandbox", "--fail", "0.05:503", "--window", "sliding"];
    assert!(Cli::try_parse_from(sandbox).is_ok());
    assert!(Cli::try_parse_from(["ctct-proxy", "sandbox", "--fail", "2:503"]).is_err());
    assert!(Cli::try_parse_from(["ctct-proxy", "demo", "--for", "20s"]).is_ok());
}
