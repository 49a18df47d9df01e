//! Callers that bring an access token of their own.

use futures_util::future::join_all;
use http::Method;
use serde_json::json;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use ctct_proxy::config::settings;
use ctct_proxy::sandbox::{Sandbox, Verdict, fingerprint};

use crate::life::{program, sandbox};
use crate::support::{Call, Http, Rig, RigBuilder, judge};

const PATH: &str = "/v3/contacts?limit=1";

fn build(mode: &str) -> RigBuilder {
    Rig::build().set(&settings::PASSTHROUGH, mode)
}

fn token(sandbox: &Sandbox, account: &str) -> String {
    sandbox.connect_tenant("app", account).access_token
}

impl Rig {
    /// A call with a client key and a token of the caller's own.
    fn own(&self, token: &str) -> Call {
        Call::get(self.url(PATH)).bearer(token).header("ctct-proxy-key", self.key.as_str())
    }

    fn keys_fetched(&self) -> usize {
        self.sandbox.log().iter().filter(|entry| entry.path.ends_with("/keys")).count()
    }
}

/// The token with another header or other claims, its signature as it was.
fn changed(token: &str, part: usize, to: impl Fn(&mut serde_json::Value)) -> String {
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    let mut json: serde_json::Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(&parts[part]).unwrap()).unwrap();
    to(&mut json);
    parts[part] = URL_SAFE_NO_PAD.encode(json.to_string());
    parts.join(".")
}

#[tokio::test]
async fn a_token_of_a_configured_key_is_forwarded_as_it_is() {
    let rig = build("true").tenants(1).start().await;
    let own = token(&rig.sandbox, "visitor");
    let reply = rig.http.send(rig.own(&own)).await.expect(200);
    assert!(reply.header("ratelimit").starts_with("\"day\";r="));
    let calls = judge::api_calls(&rig.sandbox);
    assert_eq!(calls[0].account.as_deref(), Some("visitor"));
    assert_eq!(calls[0].fingerprint.as_deref(), Some(fingerprint(&own).as_str()));
    // connected tenants go on as ever, beside it
    rig.get("t0", PATH).await.expect(200);
    assert_eq!(judge::token_requests(&rig.sandbox).len(), 0);
    assert_eq!(rig.app.tokens().list().await.len(), 1, "nothing was stored");
    let used = rig.admin(Method::GET, "/v1/api-keys/default").await.json();
    assert_eq!(used["day"]["used"], 2, "{used}");
}

#[tokio::test]
async fn a_caller_without_a_client_key_is_refused_unless_anonymous_ones_are_served() {
    let rig = build("true").start().await;
    let own = token(&rig.sandbox, "visitor");
    let bare = |rig: &Rig| Call::get(rig.url(PATH)).bearer(&own);
    rig.http.send(bare(&rig)).await.expect_refusal(401, "client_unauthenticated");
    let wrong = bare(&rig).header("ctct-proxy-key", format!("ctp_{}", "A".repeat(43)));
    rig.http.send(wrong).await.expect_refusal(401, "client_unauthenticated");
    assert_eq!(judge::arrivals(&rig.sandbox), 0);
    let open = build("true").set(&settings::ALLOW_ANONYMOUS, "true").start().await;
    let own = token(&open.sandbox, "visitor");
    open.http.send(Call::get(open.url(PATH)).bearer(&own)).await.expect(200);
}

#[tokio::test]
async fn other_bearers_are_what_they_were_and_two_accounts_are_one_too_many() {
    let rig = build("true").tenants(1).start().await;
    let own = token(&rig.sandbox, "visitor");
    let foreign = rig.sandbox.connect_tenant("another-app", "foreign").access_token;
    let only = rig.client("only", &["t0"]).await;
    let with_key = |bearer: &str| {
        Call::get(rig.url(PATH)).bearer(bearer).header("ctct-proxy-key", only.as_str())
    };
    for bearer in [foreign.as_str(), "anything", "a.b.c", "..", &only] {
        rig.http.send(with_key(bearer)).await.expect(200);
    }
    assert!(judge::api_calls(&rig.sandbox).iter().all(|c| c.account.as_deref() == Some("t0")));
    let both = rig.own(&own).header("ctct-tenant", "t0");
    rig.http.send(both).await.expect_refusal(400, "bad_request");
    // nobody can name a visitor
    let named = rig.own(&only).header("ctct-tenant", "~abc");
    rig.http.send(named).await.expect_refusal(400, "bad_request");
    let off = build("false").tenants(1).start().await;
    let own = token(&off.sandbox, "visitor");
    let call = Call::get(off.url(PATH)).bearer(&own);
    off.http.send(call).await.expect_refusal(401, "client_unauthenticated");
}

#[tokio::test]
async fn a_token_that_has_ended_is_refused_unasked_and_the_apis_401_is_passed_on() {
    let rig = build("true").start().await;
    let ended = rig.sandbox.connect_expired_tenant("app", "ended").access_token;
    rig.http.send(rig.own(&ended)).await.expect_refusal(401, "token_expired");
    assert_eq!(judge::arrivals(&rig.sandbox), 0);
    let revoked = token(&rig.sandbox, "revoked");
    rig.sandbox.revoke("revoked");
    let reply = rig.http.send(rig.own(&revoked)).await.expect(401);
    assert_eq!((reply.reason(), reply.json()["error_key"].as_str()), ("", Some("unauthorized")));
    assert_eq!(judge::arrivals(&rig.sandbox), 1, "sent once");
    assert_eq!(judge::token_requests(&rig.sandbox).len(), 0);
}

#[tokio::test]
async fn accounts_take_turns_and_a_tenant_of_the_same_name_is_another() {
    let rig = build("true").per_second(10).tenants(1).start().await;
    // a connected tenant that is held, and a visitor whose login is called the same
    rig.admin(Method::POST, "/v1/tenants/t0/pause").await.expect(204);
    let (many, one) = (token(&rig.sandbox, "t0"), token(&rig.sandbox, "one"));
    let (rig, many) = (&rig, &many);
    let flood = join_all((0..30).map(|_| async move {
        rig.http.send(rig.own(many).header("prefer", "wait=20")).await.expect(200);
    }));
    let single = async {
        crate::support::until("the flood waits", async || {
            let key = rig.admin(Method::GET, "/v1/api-keys/default").await.json();
            key["queue"]["depth"].as_u64().is_some_and(|depth| depth > 15)
        })
        .await;
        rig.http.send(rig.own(&one)).await.expect(200);
        judge::arrivals(&rig.sandbox)
    };
    let (_, before) = tokio::join!(flood, single);
    assert!(before < 25, "served among the first, not after the flood: {before}");
    judge::assert_no_429(&rig.sandbox);
}

#[tokio::test]
async fn only_what_the_issuer_signed_for_the_api_passes_when_that_is_asked_for() {
    let rig = build("verified").start().await;
    let own = token(&rig.sandbox, "visitor");
    rig.http.send(rig.own(&own)).await.expect(200);
    let (message, signature) = own.rsplit_once('.').unwrap();
    let forged = [
        changed(&own, 1, |claims| claims["sub"] = "somebody else".into()),
        changed(&own, 1, |claims| claims["exp"] = 4_000_000_000_u64.into()),
        changed(&own, 0, |header| header["alg"] = "HS256".into()),
        changed(&own, 0, |header| header["alg"] = "none".into()),
        changed(&own, 0, |header| header["alg"] = "ES256".into()),
        changed(&own, 0, |header| header["alg"] = "RS512".into()),
        changed(&own, 0, |header| header["kid"] = serde_json::Value::Null),
        format!("{message}."),
        format!("{message}.{}", signature.chars().rev().collect::<String>()),
    ];
    for token in &forged {
        let reply = rig.http.send(rig.own(token)).await;
        reply.expect_refusal(401, "client_unauthenticated");
    }
    let strangers = (0..20).map(|number| {
        let kid = format!("unknown-{number}");
        changed(&own, 0, move |header| header["kid"] = kid.as_str().into())
    });
    join_all(strangers.map(|token| {
        let (http, call): (&Http, Call) = (&rig.http, rig.own(&token));
        async move { http.send(call).await.expect_refusal(401, "client_unauthenticated") }
    }))
    .await;
    assert_eq!(judge::arrivals(&rig.sandbox), 1, "no forged token left");
    assert_eq!(rig.keys_fetched(), 1, "unknown keys are no reason to ask within a minute");
    rig.http.send(rig.own(&own)).await.expect(200);
}

#[tokio::test]
async fn another_issuer_or_audience_is_refused_and_keys_that_cannot_be_had_are_told() {
    let refused = [
        (&settings::ISSUER, "https://other.example", 401, "client_unauthenticated"),
        (&settings::AUDIENCE, "https://other.example/v3", 401, "client_unauthenticated"),
        (&settings::JWKS_URL, "http://127.0.0.1:1/keys", 503, "token_unavailable"),
    ];
    for (setting, value, status, reason) in refused {
        let rig = build("verified").set(setting, value).start().await;
        let own = token(&rig.sandbox, "visitor");
        rig.http.send(rig.own(&own)).await.expect_refusal(status, reason);
        assert_eq!(judge::arrivals(&rig.sandbox), 0);
    }
}

#[tokio::test]
async fn a_token_of_a_callers_own_is_never_logged() {
    let sandbox = sandbox(|_| {}).await;
    let program = program(&sandbox).flag("log-level", "trace");
    let path = program.path("proxy.toml");
    std::fs::write(&path, "[server]\npassthrough = true\n").unwrap();
    let program = program.flag("config", path.to_str().unwrap());
    let mut process = program.start().await;
    let key = process.add_client("all").await;
    let own = token(&sandbox, "visitor@example.com");
    let ended = sandbox.connect_expired_tenant("app", "ended").access_token;
    sandbox.revoke("ended");
    for (token, status) in [(&own, 200), (&ended, 401)] {
        let url = format!("http://{}{PATH}", process.data());
        let call = Call::get(url).bearer(token).header("ctct-proxy-key", key.as_str());
        process.http.send(call).await.expect(status);
    }
    let tenants = process.admin(Method::GET, "/v1/tenants", &json!(null)).await.expect(200);
    assert_eq!(tenants.json()["items"], json!([]));
    process.signal("TERM").await;
    assert_eq!(process.end().await.code(), Some(0));
    let log = process.log();
    assert!(log.contains("token_expired"), "{log}");
    for token in [&own, &ended] {
        assert!(!log.contains(token.rsplit('.').next().unwrap()), "a token is in the log");
    }
    assert!(!log.contains("eyJ") && !log.contains("visitor@example.com"), "{log}");
    assert_eq!(sandbox.counts().of(Verdict::Ok), 1);
}
