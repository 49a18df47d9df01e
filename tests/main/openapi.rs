//! The admin API against its own document: `schemathesis` reads `GET /openapi.json`, asks all that
//! it describes and what it forbids, and compares the answers with it.
//!
//! What it checks, and what it is given to ask with, stands in `tests/openapi/schemathesis.toml`.
//! The seed is fixed, so that a run that fails can be repeated. Its packages are pinned and kept in
//! the target folder.

use std::path::Path;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use ctct_proxy::clock::Clock;
use ctct_proxy::sandbox::{Options, Sandbox};

use crate::support::python::{self, Python};
use crate::support::{Call, Process, Program, Reply};

const ADMIN_TOKEN: &str = "the-token-of-the-operator";
/// The names that `schemathesis.toml` asks for.
const TENANTS: [&str; 4] = ["t0", "t1", "t2", "t3"];
const CLIENTS: [&str; 2] = ["crm", "shop"];

/// What must have happened, or too few requests were more than refused.
const CHANGES: [&str; 11] = [
    "API key held or released by an operator",
    "client removed by an operator",
    "client's key replaced by an operator",
    "grants exported by an operator",
    "link to connect made for an operator",
    "refresh ordered by an operator",
    "tenant handed in by an operator",
    "tenant held or released by an operator",
    "tenant put by an operator",
    "tenant removed by an operator",
    "the encryption key was rotated",
];

const CONFIG: &str = r#"
[oauth]
return_to_origins = ["https://app.example"]
# asking for devices' codes is not to wait for the refreshes that are ordered beside it
refresh_interval = "1ms"

[[api_keys]]
name = "default"
client_id = "app"
redirect_uri = "https://proxy.example/oauth/callback"

[[api_keys]]
name = "mute"
client_id = "other"
"#;

impl Process {
    async fn ask(&self, method: Method, path: &str, body: &Value) -> Reply {
        let url = format!("http://{}{path}", self.admin_address());
        self.http.send(Call::new(method, url).bearer(ADMIN_TOKEN).json(body)).await
    }
}

async fn sandbox() -> Sandbox {
    let options = Options {
        listen: ([127, 0, 0, 1], 0).into(),
        latency: Duration::ZERO,
        jitter: Duration::ZERO,
        token_latency: Duration::ZERO,
        // what it asks in a row, an operator asks in an hour
        token_interval: Duration::ZERO,
        contacts: 1,
        seed: Some(1),
        ..Options::default()
    };
    Sandbox::start(options, Clock::system()).await.unwrap()
}

fn program(sandbox: &Sandbox) -> Program {
    let program = Program::new(sandbox);
    let (config, token) = (program.path("proxy.toml"), program.path("admin-token"));
    std::fs::write(&config, CONFIG).unwrap();
    std::fs::write(&token, ADMIN_TOKEN).unwrap();
    program
        .without("client-id")
        .flag("config", config.to_str().unwrap())
        .flag("admin-token-file", token.to_str().unwrap())
        // it shows a wrong token to each path
        .flag("failed-logins", "0")
        .flag("device-authorize-url", sandbox.device_authorize_url())
}

/// Puts what `schemathesis.toml` names.
async fn furnish(process: &Process, sandbox: &Sandbox) {
    for tenant in TENANTS {
        let grant = sandbox.connect_tenant("app", tenant);
        let body = json!({
            "api_key": "default",
            "refresh_token": grant.refresh_token,
            "access_token": grant.access_token,
        });
        process.ask(Method::PUT, &format!("/v1/tenants/{tenant}"), &body).await.expect(201);
    }
    for client in CLIENTS {
        let body = json!({ "name": client, "tenants": "*" });
        process.ask(Method::POST, "/v1/clients", &body).await.expect(201);
    }
}

#[tokio::test]
async fn the_admin_api_answers_as_its_document_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openapi");
    let python = Python::with("python-openapi", &folder.join("requirements.txt")).await;
    let sandbox = sandbox().await;
    let program = program(&sandbox);
    let mut process = program.start().await;
    furnish(&process, &sandbox).await;
    let document = process.ask(Method::GET, "/openapi.json", &Value::Null).await;
    let calls: usize = {
        let document = document.json();
        let paths = document["paths"].as_object().unwrap();
        paths.values().map(|path| path.as_object().unwrap().len()).sum()
    };
    // one that it got by the network it would not ask for again
    let file = program.path("openapi.json");
    std::fs::write(&file, document.body).unwrap();
    let config = folder.join("schemathesis.toml");
    let url = format!("http://{}", process.admin_address());
    let header = format!("Authorization: Bearer {ADMIN_TOKEN}");
    let args = [
        "--config-file",
        config.to_str().unwrap(),
        "run",
        file.to_str().unwrap(),
        "--url",
        &url,
        "--header",
        &header,
    ];
    // what it keeps goes with the folder
    let told = python::try_run(&python.program("schemathesis"), &args, program.folder()).await;
    let told = told.unwrap_or_else(|told| panic!("{told}\n{}", process.log()));
    // all was asked
    assert!(told.contains(&format!("Tested: {calls}")), "{told}");
    assert!(told.contains("No issues found"), "{told}");

    process.ask(Method::GET, "/readyz", &Value::Null).await.expect(200);
    let log = process.log();
    for change in CHANGES {
        assert!(log.contains(change), "never: {change}\n{told}");
    }
    for line in log.lines() {
        assert!(!line.contains("ERROR") && !line.contains("panicked"), "{line}");
        assert!(!line.contains(ADMIN_TOKEN), "{line}");
    }
    process.signal("TERM").await;
    assert!(process.end().await.success(), "{}", process.log());
}
