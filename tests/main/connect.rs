//! Accounts that their owners connect in a browser; the tests play the browser.

use http::Method;
use serde_json::{Value, json};

use ctct_proxy::clock::Clock;
use ctct_proxy::config::settings;
use ctct_proxy::engine::{TenantName, Unix};
use ctct_proxy::sandbox::{Fault, FaultKind, Target, Verdict};

use crate::support::{Call, Http, Reply, Rig, RigBuilder, judge, until};

pub(crate) const FILE: &str = r#"
[oauth]
return_to_origins = ["https://app.example"]

[[api_keys]]
name = "default"
client_id = "app"
redirect_uri = "https://proxy.example/oauth/callback"

[[api_keys]]
name = "old"
client_id = "old-app"
client_secret = "old-secret"
redirect_uri = "https://proxy.example/oauth/callback"
pkce = false

[[api_keys]]
name = "mute"
client_id = "mute-app"
"#;

pub(crate) fn build() -> RigBuilder {
    Rig::build().file(FILE).set(&settings::MAX_WAIT, "20s")
}

impl Rig {
    async fn begin(&self, tenant: &str, body: &Value) -> Reply {
        let url = self.admin_url(&format!("/v1/tenants/{tenant}/connect"));
        self.http.send(Call::new(Method::POST, url).json(body)).await
    }

    /// A link for an owner.
    async fn link(&self, tenant: &str) -> String {
        let reply = self.begin(tenant, &json!({"api_key": "default"})).await.expect(200);
        reply.json()["authorize_url"].as_str().unwrap().to_owned()
    }

    /// Consents as `account`, and gives the query that the browser comes back with.
    pub(crate) async fn consent(&self, link: &str, account: &str) -> String {
        consent(&self.http, link, account).await
    }

    pub(crate) async fn come_back(&self, query: &str) -> Reply {
        let url = self.admin_url(&format!("/oauth/callback?{query}"));
        self.http.send(Call::get(url).header("host", "proxy.example")).await
    }

    async fn standing(&self, tenant: &str) -> Value {
        self.admin(Method::GET, &format!("/v1/tenants/{tenant}/connect")).await.expect(200).json()
    }

    async fn is_unknown(&self, tenant: &str) {
        self.admin(Method::GET, &format!("/v1/tenants/{tenant}")).await.expect(404);
    }
}

pub(crate) async fn consent(http: &Http, link: &str, account: &str) -> String {
    let reply = http.send(Call::get(format!("{link}&login_hint={account}"))).await.expect(302);
    let location = reply.header("location").to_owned();
    let (page, query) = location.split_once('?').expect("a query");
    assert_eq!(page, "https://proxy.example/oauth/callback");
    query.to_owned()
}

/// A page in plain words that no browser runs, keeps or tells others about.
#[track_caller]
pub(crate) fn assert_page(reply: &Reply, status: u16, words: &str) {
    let text = String::from_utf8_lossy(&reply.body);
    assert_eq!(reply.status, status, "{text}");
    assert!(text.contains(words), "{words:?} is not in {text}");
    assert!(reply.header("content-type").starts_with("text/html"));
    assert_guarded(reply);
}

#[track_caller]
fn assert_guarded(reply: &Reply) {
    assert_eq!(reply.header("cache-control"), "no-store");
    assert_eq!(reply.header("referrer-policy"), "no-referrer");
    assert_eq!(reply.header("x-content-type-options"), "nosniff");
    let policy = reply.header("content-security-policy");
    for part in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
}

#[tokio::test]
async fn an_owner_connects_an_account_and_its_calls_go() {
    let rig = build().start().await;
    let link = rig.link("acme").await;
    for part in ["response_type=code", "client_id=app", "code_challenge_method=S256"] {
        assert!(link.contains(part), "{link}");
    }
    assert!(link.contains("scope=contact_data+campaign_data+account_read+offline_access"));
    assert_eq!(rig.standing("acme").await["state"], "pending");
    let query = rig.consent(&link, "acme-account").await;
    assert_page(&rig.come_back(&query).await, 200, "is connected");
    let standing = rig.standing("acme").await;
    assert_eq!((&standing["state"], &standing["flow"]), (&json!("connected"), &json!("code")));
    let tenant = rig.admin(Method::GET, "/v1/tenants/acme").await.expect(200).json();
    assert_eq!((&tenant["state"], &tenant["api_key"]), (&json!("ready"), &json!("default")));
    assert!(tenant["access_token_expires_at"].is_string());
    rig.get("acme", "/v3/account/summary").await.expect(200);
    let calls = judge::api_calls(&rig.sandbox);
    assert_eq!(calls[0].account.as_deref(), Some("acme-account"));
    assert_eq!(judge::token_requests(&rig.sandbox).len(), 1);
    // the grant is a whole one: it can be refreshed
    rig.admin(Method::POST, "/v1/tenants/acme/refresh").await.expect(202);
    until("it was refreshed", async || {
        let tenant = rig.admin(Method::GET, "/v1/tenants/acme").await.json();
        tenant["last_refreshed_at"].is_string()
    })
    .await;
    assert_eq!(rig.sandbox.counts().of(Verdict::TokenThrottled), 0);
}

#[tokio::test]
async fn an_owner_is_sent_back_to_listed_origins_only() {
    let rig = build().start().await;
    let wish = |link: &str| json!({"api_key": "default", "return_to": link});
    for link in [
        "https://evil.example/",
        "http://app.example/",
        "https://app.example:444/",
        "https://app.example.evil.example/",
        "https://app.example@evil.example/",
        "//app.example/",
        "javascript:alert(1)",
        "https://app.example/\r\nSet-Cookie: a=b",
    ] {
        let reply = rig.begin("acme", &wish(link)).await.expect(400).json();
        assert_eq!(reply["error_key"], "admin.bad_request", "{link}");
    }
    let back = "https://app.example/accounts?id=7&x=%20";
    let reply = rig.begin("acme", &wish(back)).await.expect(200).json();
    let query = rig.consent(reply["authorize_url"].as_str().unwrap(), "a").await;
    let reply = rig.come_back(&query).await.expect(303);
    assert_eq!(reply.header("location"), back);
    assert_guarded(&reply);
    let reply = rig.begin("acme", &wish(back)).await.expect(200).json();
    let query = rig.consent(reply["authorize_url"].as_str().unwrap(), "deny").await;
    let page = rig.come_back(&query).await;
    assert_page(&page, 400, "href=\"https://app.example/accounts?id=7&amp;x=%20\"");
}

#[tokio::test]
async fn a_state_works_once_and_nothing_else_works_in_its_place() {
    let rig = build().start().await;
    let query = rig.consent(&rig.link("acme").await, "acme").await;
    let (_, code) = query.split_once("code=").unwrap();
    let code = code.split('&').next().unwrap();
    let wrong = "A".repeat(43);
    for bad in [
        String::new(),
        format!("code={code}"),
        format!("code={code}&state="),
        format!("code={code}&state={wrong}"),
        format!("code={code}&state=%3Cscript%3E"),
        format!("{query}&state={wrong}"),
        format!("{query}&code={code}"),
        format!("{query}&x={}", "x".repeat(5_000)),
    ] {
        let page = rig.come_back(&bad).await;
        assert_page(&page, 400, "connect your account again");
        assert!(!String::from_utf8_lossy(&page.body).contains("<script"), "{bad}");
    }
    let url = rig.admin_url(&format!("/oauth/callback?{query}"));
    rig.http.send(Call::new(Method::HEAD, &url)).await.expect(405);
    rig.http.send(Call::post(&url, "")).await.expect(405);
    rig.is_unknown("acme").await;
    assert_eq!(judge::token_requests(&rig.sandbox).len(), 0, "the upstream was not asked");
    assert_page(&rig.come_back(&query).await, 200, "is connected");
    assert_page(&rig.come_back(&query).await, 400, "used already");
    assert_eq!(judge::token_requests(&rig.sandbox).len(), 1);
}

#[tokio::test]
async fn what_comes_back_late_is_refused_and_stores_nothing() {
    let clock = Clock::starting_at(Unix::from_secs(1_795_500_000));
    let rig = build().clock(&clock).start().await;
    let query = rig.consent(&rig.link("acme").await, "acme").await;
    clock.step_ms(10 * 60 * 1_000);
    assert_page(&rig.come_back(&query).await, 400, "longer than ten minutes");
    assert_page(&rig.come_back(&query).await, 400, "used already");
    rig.is_unknown("acme").await;
    assert_eq!(judge::token_requests(&rig.sandbox).len(), 0);
    assert_eq!(rig.standing("acme").await["state"], "failed");
}

#[tokio::test]
async fn what_the_owner_or_the_upstream_refuses_is_said_in_plain_words() {
    let rig = build().start().await;
    rig.sandbox.add_fault(Fault::new(Target::Authorize, FaultKind::Denied));
    let query = rig.consent(&rig.link("acme").await, "acme").await;
    assert!(query.contains("error=access"), "{query}");
    assert_page(&rig.come_back(&query).await, 400, "did not give your consent");
    let standing = rig.standing("acme").await;
    assert_eq!(standing["reason"], "the owner of the account did not consent");
    for error in ["invalid_scope", "server_error", "%3Cb%3Ehello%3C%2Fb%3E"] {
        let link = rig.link("acme").await;
        let (_, state) = link.split_once("state=").unwrap();
        let state = state.split('&').next().unwrap();
        let query = format!("error={error}&error_description=%3Cb%3Ehello&state={state}");
        let page = rig.come_back(&query).await;
        assert_page(&page, 400, "did not allow the connection");
        assert!(!String::from_utf8_lossy(&page.body).contains("hello"));
    }
    rig.is_unknown("acme").await;
    assert_eq!(judge::token_requests(&rig.sandbox).len(), 0);
}

#[tokio::test]
async fn a_code_of_somebody_elses_link_is_refused() {
    let rig = build().start().await;
    // the thief's code, bound to the challenge of the thief's link, in the victim's browser
    let thief = rig.consent(&rig.link("thief").await, "thief").await;
    let victim = rig.consent(&rig.link("victim").await, "victim").await;
    let part = |query: &str, name: &str| {
        let (_, rest) = query.split_once(name).unwrap();
        rest.split('&').next().unwrap().to_owned()
    };
    let mixed = format!("code={}&state={}", part(&thief, "code="), part(&victim, "state="));
    assert_page(&rig.come_back(&mixed).await, 400, "did not confirm your consent");
    assert_eq!(rig.sandbox.counts().of(Verdict::TokenInvalidGrant), 1);
    rig.is_unknown("victim").await;
}

#[tokio::test]
async fn a_key_without_a_challenge_connects_and_one_without_an_address_says_what_to_set() {
    let rig = build().start().await;
    let reply = rig.begin("acme", &json!({"api_key": "old"})).await.expect(200).json();
    let link = reply["authorize_url"].as_str().unwrap();
    assert!(!link.contains("code_challenge"), "{link}");
    let query = rig.consent(link, "acme").await;
    assert_page(&rig.come_back(&query).await, 200, "is connected");
    rig.get("acme", "/v3/account/summary").await.expect(200);
    let reply = rig.begin("acme", &json!({"api_key": "mute"})).await.expect(409).json();
    assert!(reply["error_message"].as_str().unwrap().contains("api_keys.redirect_uri"));
    for body in [
        json!({"api_key": "nobody"}),
        json!({}),
        json!({"api_key": "default", "return_to": 7}),
        json!({"api_key": "default", "redirect_uri": "https://evil.example"}),
    ] {
        rig.begin("acme", &body).await.expect(400);
    }
}

#[tokio::test]
async fn a_grant_that_is_of_no_use_is_refused_with_the_reason() {
    let rig = build().start().await;
    let other = rig.sandbox.connect_tenant("other-app", "other");
    let answers = [
        (json!({"access_token": "a", "expires_in": 86_400}), "gave no refresh token", "a day only"),
        (
            json!({"access_token": other.access_token, "refresh_token": other.refresh_token}),
            "issued to client id other-app",
            "could not be used",
        ),
    ];
    for (answer, reason, words) in answers {
        let kind =
            FaultKind::Status { status: 200, retry_after: None, body: Some(answer.to_string()) };
        rig.sandbox.add_fault(Fault::new(Target::Token, kind));
        let query = rig.consent(&rig.link("acme").await, "acme").await;
        assert_page(&rig.come_back(&query).await, 400, words);
        let standing = rig.standing("acme").await;
        assert!(standing["reason"].as_str().unwrap().contains(reason), "{standing}");
        rig.is_unknown("acme").await;
    }
    let kind = FaultKind::Html { status: 503 };
    rig.sandbox.add_fault(Fault::new(Target::Token, kind));
    let query = rig.consent(&rig.link("acme").await, "acme").await;
    assert_page(&rig.come_back(&query).await, 502, "could not be reached");
    rig.is_unknown("acme").await;
}

#[tokio::test]
async fn a_browser_that_leaves_does_not_lose_the_grant() {
    let rig = build().start().await;
    let query = rig.consent(&rig.link("acme").await, "acme").await;
    rig.sandbox.add_fault(Fault::new(Target::Token, FaultKind::Delay { ms: 300 }));
    let leaves = tokio::select! {
        biased;
        _ = rig.come_back(&query) => false,
        () = until("the code is being exchanged", async || {
            !judge::token_requests(&rig.sandbox).is_empty()
        }) => true,
    };
    assert!(leaves);
    until("it is connected", async || {
        rig.app.tokens().status(&TenantName::new("acme").unwrap()).await.is_some()
    })
    .await;
    rig.get("acme", "/v3/account/summary").await.expect(200);
}

#[tokio::test]
async fn codes_are_exchanged_at_the_pace_of_the_token_lane_and_before_what_nobody_waits_for() {
    let rig = build().start().await;
    for tenant in ["t0", "t1", "t2"] {
        rig.connect("default", "app", tenant).await;
        rig.admin(Method::POST, &format!("/v1/tenants/{tenant}/refresh")).await.expect(202);
    }
    let one = rig.consent(&rig.link("a").await, "a").await;
    let two = rig.consent(&rig.link("b").await, "b").await;
    let (one, two) = tokio::join!(rig.come_back(&one), rig.come_back(&two));
    assert_page(&one, 200, "is connected");
    assert_page(&two, 200, "is connected");
    until("all were refreshed", async || judge::token_requests(&rig.sandbox).len() == 5).await;
    let requests = judge::token_requests(&rig.sandbox);
    let accounts: Vec<_> = requests.iter().filter_map(|entry| entry.account.as_deref()).collect();
    let place = |name: &str| accounts.iter().position(|account| *account == name).unwrap();
    assert!(place("a").max(place("b")) <= 2, "one refresh was under way at most: {accounts:?}");
    let lane = &rig.sandbox.counts().token["app"];
    assert_eq!((lane.requests, lane.most_at_once), (5, 1));
    assert_eq!(rig.sandbox.counts().of(Verdict::TokenThrottled), 0);
}

#[tokio::test]
async fn a_tenant_that_is_removed_takes_its_links_with_it() {
    let rig = build().start().await;
    rig.connect("default", "app", "acme").await;
    let query = rig.consent(&rig.link("acme").await, "acme").await;
    rig.admin(Method::DELETE, "/v1/tenants/acme").await.expect(204);
    assert_page(&rig.come_back(&query).await, 400, "used already");
    rig.is_unknown("acme").await;
}
