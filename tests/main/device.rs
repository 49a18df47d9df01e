//! Accounts that their owners connect by typing in a code elsewhere; the tests play the owner.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use ctct_proxy::config::settings;
use ctct_proxy::sandbox::{Fault, FaultKind, Sandbox, Target, Verdict};

use crate::connect::build as with_keys;
use crate::connecting::Waiting;
use crate::life::{program, sandbox};
use crate::support::{Call, Http, Reply, Rig, RigBuilder, judge, until};

fn build() -> RigBuilder {
    with_keys()
        .sandbox(|options| {
            options.device_interval = Duration::from_secs(1);
            options.token_interval = Duration::from_millis(20);
        })
        .set(&settings::REFRESH_INTERVAL, "40ms")
}

impl Rig {
    async fn ask_code(&self, tenant: &str, body: &Value) -> Reply {
        let url = self.admin_url(&format!("/v1/tenants/{tenant}/connect"));
        self.http.send(Call::new(Method::POST, url).json(body)).await
    }

    async fn code(&self, tenant: &str) -> Value {
        let body = json!({"api_key": "mute", "flow": "device"});
        self.ask_code(tenant, &body).await.expect(200).json()
    }

    async fn stands(&self, tenant: &str, state: &str) -> Value {
        let path = format!("/v1/tenants/{tenant}/connect");
        until(&format!("{tenant} is {state}"), async || {
            self.admin(Method::GET, &path).await.json()["state"] == state
        })
        .await;
        self.admin(Method::GET, &path).await.json()
    }
}

/// The owner opens the page and consents as `account`.
async fn activate(http: &Http, code: &Value, account: &str) {
    let page = code["verification_uri_complete"].as_str().unwrap();
    http.send(Call::get(format!("{page}&login_hint={account}"))).await.expect(200);
}

fn polls(sandbox: &Sandbox) -> usize {
    judge::token_requests(sandbox).len()
}

#[tokio::test]
async fn a_key_without_an_address_connects_by_a_code() {
    let rig = build().start().await;
    let code = rig.code("acme").await;
    assert_eq!(code["user_code"].as_str().unwrap().len(), 9, "{code}");
    assert!(code["verification_uri"].as_str().unwrap().ends_with("/activate"));
    assert_eq!(code["interval"], 1);
    assert!(code["expires_at"].as_str().unwrap().ends_with('Z'));
    assert!(code.get("device_code").is_none(), "it is the proxy's own");
    let pending = rig.stands("acme", "pending").await;
    assert_eq!(pending["flow"], "device");
    until("it was asked in vain", async || polls(&rig.sandbox) > 0).await;
    activate(&rig.http, &code, "acme-account").await;
    rig.stands("acme", "connected").await;
    let tenant = rig.admin(Method::GET, "/v1/tenants/acme").await.expect(200).json();
    assert_eq!((&tenant["state"], &tenant["api_key"]), (&json!("ready"), &json!("mute")));
    rig.get("acme", "/v3/account/summary").await.expect(200);
    assert_eq!(judge::api_calls(&rig.sandbox)[0].account.as_deref(), Some("acme-account"));
    let counts = rig.sandbox.counts();
    let refused = [Verdict::TokenThrottled, Verdict::TokenSlowDown, Verdict::TokenInvalidGrant];
    assert_eq!(refused.map(|verdict| counts.of(verdict)), [0, 0, 0]);
    let requests = judge::token_requests(&rig.sandbox);
    for (one, next) in requests.iter().zip(requests.iter().skip(1)) {
        assert!(judge::gap(one, next) >= Duration::from_secs(1), "never sooner than told");
    }
}

#[tokio::test]
async fn what_the_owner_decides_or_lets_pass_is_seen_in_the_state() {
    let rig = build().start().await;
    let code = rig.code("denied").await;
    activate(&rig.http, &code, "deny").await;
    let standing = rig.stands("denied", "failed").await;
    assert_eq!(standing["reason"], "the owner of the account did not consent");
    rig.admin(Method::GET, "/v1/tenants/denied").await.expect(404);
    let rig = build().sandbox(|options| options.device_life = Duration::from_secs(2));
    let rig = rig.start().await;
    rig.code("late").await;
    let standing = rig.stands("late", "failed").await;
    assert!(standing["reason"].as_str().unwrap().contains("too late"), "{standing}");
}

#[tokio::test]
async fn a_tenant_that_is_removed_is_not_asked_for_any_more() {
    let rig = build().start().await;
    let gone = rig.code("gone").await;
    rig.admin(Method::DELETE, "/v1/tenants/gone").await.expect(404);
    let standing = rig.stands("gone", "failed").await;
    assert!(standing["reason"].as_str().unwrap().contains("removed"), "{standing}");
    activate(&rig.http, &gone, "gone").await;
    // another one, begun later, is connected; by then the first would have been
    let code = rig.code("other").await;
    activate(&rig.http, &code, "other").await;
    rig.stands("other", "connected").await;
    rig.admin(Method::GET, "/v1/tenants/gone").await.expect(404);
    assert_eq!(rig.sandbox.counts().of(Verdict::TokenOk), 1);
}

#[tokio::test]
async fn trouble_of_the_token_endpoint_delays_and_does_not_end_it() {
    let rig = build().start().await;
    let code = rig.code("acme").await;
    rig.sandbox.add_fault(Fault::new(Target::Token, FaultKind::Html { status: 503 }));
    activate(&rig.http, &code, "acme").await;
    rig.stands("acme", "connected").await;
    assert_eq!(rig.sandbox.counts().of(Verdict::TokenFault), 1);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_the_upstreams_refusal_is_told() {
    let rig = build().start().await;
    for body in [
        json!({"api_key": "mute", "flow": "telepathy"}),
        json!({"api_key": "nobody", "flow": "device"}),
        json!({"api_key": "mute", "flow": "device", "return_to": "https://app.example/"}),
        json!({"api_key": "mute", "flow": 7}),
    ] {
        rig.ask_code("acme", &body).await.expect(400);
    }
    let body = Some(json!({"error": "unauthorized_client"}).to_string());
    let kind = FaultKind::Status { status: 400, retry_after: None, body };
    rig.sandbox.add_fault(Fault::new(Target::Token, kind));
    let body = json!({"api_key": "mute", "flow": "device"});
    let reply = rig.ask_code("acme", &body).await.expect(424).json();
    assert!(reply["error_message"].as_str().unwrap().contains("unauthorized_client"), "{reply}");
}

#[tokio::test]
async fn a_stop_does_not_wait_for_an_owner() {
    let sandbox = sandbox(|_| {}).await;
    let program = program(&sandbox).flag("device-authorize-url", sandbox.device_authorize_url());
    let mut process = program.start().await;
    let body = json!({"api_key": "default", "flow": "device"});
    process.admin(Method::POST, "/v1/tenants/acme/connect", &body).await.expect(200);
    process.signal("TERM").await;
    assert_eq!(process.end().await.code(), Some(0));
}

#[tokio::test]
async fn the_command_shows_the_code_and_waits() {
    let rig = build().start().await;
    let mut waiting = Waiting::start(&rig, &["--api-key", "mute", "--device"]);
    let page = waiting.line().await;
    let code = waiting.line().await;
    assert!(page.ends_with(code.strip_prefix("code: ").unwrap()), "{page} {code}");
    activate(&rig.http, &json!({"verification_uri_complete": page}), "acme").await;
    assert_eq!(waiting.line().await, "tenant acme is connected");
    assert_eq!(waiting.end().await, Some(0));
}
