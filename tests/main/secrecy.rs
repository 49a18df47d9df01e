//! Nothing that the program prints, stores or answers holds a token, a secret or a client key.

use std::path::Path;

use http::Method;
use serde_json::json;

use ctct_proxy::sandbox::{Fault, FaultKind, IssuedGrant, Sandbox, Target};

use crate::life::{program, sandbox};
use crate::support::{Call, Process, Program, raw, until};

const PATH: &str = "/v3/contacts?limit=1";
const CLIENT_SECRET: &str = "s3cret-of-the-application";
const ADMIN_TOKEN: &str = "t0ken-of-the-operator";

/// What must not be seen, with its name.
struct Secrets(Vec<(String, String)>);

impl Secrets {
    fn add(&mut self, name: &str, value: &str) {
        assert!(value.len() > 10, "{name}");
        self.0.push((name.to_owned(), value.to_owned()));
    }

    fn add_grant(&mut self, name: &str, grant: &IssuedGrant) {
        self.add(&format!("refresh token of {name}"), &grant.refresh_token);
        self.add(&format!("access token of {name}"), &grant.access_token);
        // a part of a token is as good as seen
        let signature = grant.access_token.rsplit('.').next().unwrap();
        self.add(&format!("signature of {name}"), signature);
    }

    #[track_caller]
    fn are_not_in(&self, place: &str, bytes: &[u8]) {
        assert!(!bytes.is_empty(), "{place} is empty");
        for (name, value) in &self.0 {
            let found = bytes.windows(value.len()).any(|window| window == value.as_bytes());
            assert!(!found, "{name} is in {place}");
        }
        // tokens that were issued meanwhile are not known here; all of them look like this
        let text = String::from_utf8_lossy(bytes);
        let jwt = text.find("eyJ").map(|at| &text[at..]);
        assert!(jwt.is_none(), "a token is in {place}: {:.60}", jwt.unwrap_or_default());
    }
}

async fn asks(process: &Process, method: Method, path: &str, body: &serde_json::Value) -> Vec<u8> {
    let url = format!("http://{}{path}", process.admin_address());
    let call = Call::new(method, url).json(body).bearer(ADMIN_TOKEN);
    process.http.send(call).await.body.to_vec()
}

/// Every file of the folder but those that the operator wrote.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let stored = entries.filter(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("proxy.db") && name != "proxy.db.key"
    });
    stored.map(|path| (path.display().to_string(), std::fs::read(path).unwrap())).collect()
}

/// Calls that succeed, that renew tokens, and that are refused in every way.
async fn exercise(process: &Process, secrets: &mut Secrets, sandbox: &Sandbox) {
    let mut put = async |name: &str, grant: &IssuedGrant| {
        let body = json!({
            "api_key": "default",
            "refresh_token": grant.refresh_token,
            "access_token": grant.access_token,
        });
        let answer = asks(process, Method::PUT, &format!("/v1/tenants/{name}"), &body).await;
        secrets.add_grant(name, grant);
        secrets.are_not_in("the answer to PUT", &answer);
    };
    put("fresh", &sandbox.connect_tenant("app", "fresh")).await;
    put("expired", &sandbox.connect_expired_tenant("app", "expired")).await;
    put("dead", &sandbox.connect_expired_tenant("app", "dead")).await;
    sandbox.revoke("dead");
    let body = json!({"name": "all", "tenants": "*"});
    let added = asks(process, Method::POST, "/v1/clients", &body).await;
    let added: serde_json::Value = serde_json::from_slice(&added).unwrap();
    let key = added["key"].as_str().unwrap().to_owned();
    secrets.add("client key", &key);
    let call = |tenant: &str, path: &str| process.call(Method::GET, &key, tenant, path);
    let send = async |call: Call| process.http.send(call).await.status;
    assert_eq!(send(call("fresh", PATH)).await, 200);
    assert_eq!(send(call("expired", PATH)).await, 200);
    assert_eq!(send(call("dead", PATH)).await, 401);
    for kind in [FaultKind::Unauthorized, FaultKind::Throttled, FaultKind::Close] {
        sandbox.add_fault(Fault::new(Target::Api, kind));
        assert_eq!(send(call("fresh", PATH)).await, 200);
    }
    assert_eq!(send(call("nobody", PATH)).await, 404);
    assert_eq!(send(call("fresh", "/v2/x")).await, 404);
    assert_eq!(send(call("fresh", &format!("/v3/contacts?x=1&access_token={key}"))).await, 200);
    let wrong = key.replace("ctp_", "ctp-");
    assert_eq!(
        send(Call::get(format!("http://{}{PATH}", process.data())).bearer(&wrong)).await,
        401
    );
    let malformed = format!("GET /v3/x HTTP/1.1\r\nAuthorization : Bearer {key}\r\n\r\n");
    raw::exchange(process.data(), malformed).await;
}

/// Bodies that an operator mistyped.
async fn mistype(process: &Process, secrets: &mut Secrets, sandbox: &Sandbox) {
    for path in ["/v1/tenants/fresh", "/v1/tenants/new"] {
        let grant = sandbox.connect_tenant("app", "mistyped");
        secrets.add_grant("mistyped", &grant);
        for body in [
            json!({"api_key": "default", "refresh-token": grant.refresh_token}),
            json!({"api_key": "default", "refresh_token": [grant.refresh_token]}),
            json!({"api_key": "default", "refresh_token": "a b", "access_token": 7}),
        ] {
            let answer = asks(process, Method::PUT, path, &body).await;
            secrets.are_not_in("the answer to a bad PUT", &answer);
        }
        // who sends a token as a name may get it back, but it is not to be kept
        let body = json!({"api_key": grant.refresh_token, "refresh_token": grant.access_token});
        asks(process, Method::PUT, path, &body).await;
        let other = sandbox.connect_tenant("another-app", "mistyped");
        secrets.add_grant("mistyped", &other);
        let body = json!({"api_key": "default", "refresh_token": other.refresh_token,
            "access_token": other.access_token});
        secrets.are_not_in("a refusal", &asks(process, Method::PUT, path, &body).await);
    }
}

/// Answers of the admin API, after a refresh.
async fn look(process: &Process, secrets: &Secrets) {
    asks(process, Method::POST, "/v1/tenants/fresh/refresh", &json!(null)).await;
    until("it was renewed", async || {
        let view = asks(process, Method::GET, "/v1/tenants/fresh", &json!(null)).await;
        let view: serde_json::Value = serde_json::from_slice(&view).unwrap();
        view["state"] == "ready" && view["last_refreshed_at"].is_string()
    })
    .await;
    for path in [
        "/v1/tenants",
        "/v1/tenants/fresh",
        "/v1/tenants/dead",
        "/v1/clients",
        "/v1/api-keys",
        "/v1/api-keys/default",
        "/metrics",
        "/readyz",
    ] {
        let answer = asks(process, Method::GET, path, &json!(null)).await;
        secrets.are_not_in(path, &answer);
    }
}

fn traced(sandbox: &Sandbox, format: &str) -> Program {
    let program = program(sandbox);
    let write = |name: &str, text: &str| {
        let path = program.path(name);
        std::fs::write(&path, format!("{text}\n")).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (secret, token) = (write("secret", CLIENT_SECRET), write("token", ADMIN_TOKEN));
    program
        .flag("client-secret-file", secret)
        .flag("admin-token-file", token)
        .flag("log-level", "trace")
        .flag("log-format", format)
}

#[tokio::test]
async fn a_run_at_trace_shows_no_secret_in_logs_files_metrics_or_answers() {
    for format in ["text", "json"] {
        let sandbox = sandbox(|_| {}).await;
        let program = traced(&sandbox, format);
        let mut secrets = Secrets(Vec::new());
        secrets.add("client secret", CLIENT_SECRET);
        secrets.add("admin token", ADMIN_TOKEN);
        let mut process = program.start().await;
        exercise(&process, &mut secrets, &sandbox).await;
        mistype(&process, &mut secrets, &sandbox).await;
        look(&process, &secrets).await;
        let log = process.log();
        assert!(log.contains("refreshed"), "the log tells of the work:\n{log}");
        let stored = files(program.folder());
        assert!(stored.iter().any(|(name, _)| name.ends_with("proxy.db-wal")), "{}", stored.len());
        for (name, bytes) in &stored {
            // the file of shared memory may be empty
            if !bytes.is_empty() {
                secrets.are_not_in(name, bytes);
            }
        }
        process.signal("HUP").await;
        process.says("reloaded").await;
        process.signal("TERM").await;
        assert_eq!(process.end().await.code(), Some(0));
        secrets.are_not_in("the log", process.log().as_bytes());
        for (name, bytes) in files(program.folder()) {
            secrets.are_not_in(&name, &bytes);
        }
    }
}
