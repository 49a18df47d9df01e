//! The authorization server: tokens, rotation, reuse, pace, clients, consent.
//!
//! Tokens are verified with a JWT library that has no part in signing them.
//!
//! Tokens are verified with a JWT library that has no part in signing them.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use sha2::{Digest as _, Sha256};

use crate::sandbox::{OAuthClient, Verdict};

use super::*;

const INVALID_GRANT: &str = concat!(
    r#"{"error":"invalid_grant","#,
    r#""error_description":"The refresh token is invalid or expired."}"#
);
const SUMMARY: &str = "/v3/account/summary";

fn token_of(reply: &Reply, name: &str) -> String {
    reply.json()[name].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn access_tokens_verify_with_the_key_set_and_have_the_real_claims() {
    let bench = Bench::start(unlimited()).await;
    let token = bench.tenant().access_token;
    let path = "/oauth2/aus1lm3ry9mF7x2Ja0h8/v1/keys";
    let keys = bench.call(Method::GET, path, &[], "").await.unwrap();
    let keys: JwkSet = serde_json::from_slice(&keys.body).unwrap();
    let kid = decode_header(&token).unwrap().kid.unwrap();
    let key = DecodingKey::from_jwk(keys.find(&kid).unwrap()).unwrap();
    let mut rules = Validation::new(Algorithm::RS256);
    rules.set_audience(&["https://api.cc.email/v3"]);
    rules.set_issuer(&["https://identity.constantcontact.com/oauth2/aus1lm3ry9mF7x2Ja0h8"]);
    rules.validate_exp = false;
    let claims: Value = decode(&token, &key, &rules).unwrap().claims;
    assert_eq!((&claims["cid"], &claims["sub"]), (&KEY.into(), &"acme".into()));
    assert_eq!(claims["exp"].as_u64().unwrap(), NOON + 86_400);
    assert_eq!(claims["iat"].as_u64().unwrap(), NOON);
    assert_eq!(claims["scp"][0], "contact_data");
    for name in ["jti", "ver", "platform_user_id"] {
        assert!(!claims[name].is_null(), "{name}");
    }
    assert!((900..1_300).contains(&token.len()), "{}", token.len());
}

#[tokio::test(start_paused = true)]
async fn a_refresh_rotates_the_refresh_token() {
    let bench = Bench::start(unlimited()).await;
    let tenant = bench.sandbox.connect_expired_tenant(KEY, "acme");
    assert_eq!(bench.get(SUMMARY, &tenant.access_token).await.status, 401);
    let first = bench.refresh(&tenant.refresh_token).await;
    let answer = first.json();
    assert_eq!((first.status, &answer["token_type"]), (200, &"Bearer".into()));
    assert_eq!(answer["expires_in"], 86_400);
    assert!(answer["scope"].as_str().unwrap().contains("offline_access"));
    assert_eq!(bench.get(SUMMARY, &token_of(&first, "access_token")).await.status, 200);
    let next = token_of(&first, "refresh_token");
    assert_ne!(next, tenant.refresh_token);
    assert_eq!(bench.refresh(&next).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_used_refresh_token_kills_the_newest_one_and_all_access_tokens() {
    let bench = Bench::start(unlimited()).await;
    let tenant = bench.tenant();
    let newest = bench.refresh(&tenant.refresh_token).await;
    let again = bench.refresh(&tenant.refresh_token).await;
    assert_eq!((again.status, again.text()), (400, INVALID_GRANT));
    assert_eq!(bench.refresh(&token_of(&newest, "refresh_token")).await.status, 400);
    for token in [token_of(&newest, "access_token"), tenant.access_token] {
        assert_eq!(bench.get(SUMMARY, &token).await.status, 401);
    }
}

#[tokio::test(start_paused = true)]
async fn a_grace_period_forgives_the_previous_token_only_and_not_for_long() {
    let reuse_grace = Duration::from_secs(30);
    let bench = Bench::start(Options { reuse_grace, ..unlimited() }).await;
    let tenant = bench.tenant();
    let first = bench.refresh(&tenant.refresh_token).await;
    let repeated = bench.refresh(&tenant.refresh_token).await;
    assert_eq!(repeated.status, 200);
    let next = bench.refresh(&token_of(&repeated, "refresh_token")).await;
    assert_eq!(next.status, 200);
    assert_eq!(bench.refresh(&token_of(&first, "refresh_token")).await.status, 400);
    assert_eq!(bench.refresh(&token_of(&next, "refresh_token")).await.status, 400, "all dead");
}

#[tokio::test(start_paused = true)]
async fn a_long_lived_refresh_token_stays_the_same() {
    let bench = Bench::start(Options { rotating: false, ..unlimited() }).await;
    let tenant = bench.tenant();
    for _ in 0..2 {
        let reply = bench.refresh(&tenant.refresh_token).await;
        assert_eq!(token_of(&reply, "refresh_token"), tenant.refresh_token);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_dies_after_180_days_without_use() {
    let day = Duration::from_hours(24);
    let bench = Bench::start(unlimited()).await;
    let tenant = bench.tenant();
    bench.pass(day * 179).await;
    let reply = bench.refresh(&tenant.refresh_token).await;
    assert_eq!(reply.status, 200);
    bench.pass(day * 180).await;
    assert_eq!(bench.refresh(&token_of(&reply, "refresh_token")).await.status, 400);
}

#[tokio::test(start_paused = true)]
async fn one_token_request_a_second_from_answer_to_arrival() {
    let token_latency = Duration::from_millis(500);
    let bench = Bench::start(Options { token_latency, ..unlimited() }).await;
    let forms = ["acme", "globex", "initech"]
        .map(|account| refresh_form(&bench.sandbox.connect_tenant(KEY, account).refresh_token));
    let together = tokio::join!(bench.form(&forms[0]), bench.form(&forms[1]));
    let statuses = [together.0.unwrap().status, together.1.unwrap().status];
    assert_eq!(statuses.iter().filter(|&&status| status == 429).count(), 1, "{statuses:?}");
    bench.pass(Duration::from_millis(900)).await;
    let early = bench.form(&forms[2]).await.unwrap();
    assert_eq!((early.status, &early.json()["error"]), (429, &"too_many_requests".into()));
    bench.pass(Duration::from_millis(600)).await;
    assert_eq!(bench.form(&forms[2]).await.unwrap().status, 200);
    let counts = &bench.sandbox.counts().token[KEY];
    assert_eq!((counts.requests, counts.least_gap_ns, counts.most_at_once), (4, Some(0), 2));
    assert_eq!(bench.sandbox.counts().of(Verdict::TokenThrottled), 2);
}

#[tokio::test(start_paused = true)]
async fn clients_show_themselves_in_every_form_seen_in_the_wild() {
    let clients = vec![OAuthClient::new(KEY, Some("s3cret+/")), OAuthClient::new("pub", None)];
    let bench = Bench::start(Options { clients, ..unlimited() }).await;
    let path = "/oauth2/default/v1/token";
    let grant = |client: &str| {
        let token = bench.sandbox.connect_tenant(client, "acme").refresh_token;
        format!("grant_type=refresh_token&refresh_token={token}")
    };
    let form_type = ("content-type", "application/x-www-form-urlencoded");
    let basic = |secret: &str| format!("Basic {}", STANDARD.encode(format!("{KEY}:{secret}")));

    let right = basic("s3cret%2B%2F");
    let headers = [form_type, ("authorization", right.as_str())];
    let reply = bench.call(Method::POST, path, &headers, grant(KEY)).await.unwrap();
    assert_eq!(reply.status, 200, "basic");

    bench.pass(Duration::from_secs(1)).await;
    let body = format!("{}&client_id={KEY}&client_secret=s3cret%2B%2F", grant(KEY));
    assert_eq!(bench.form(&body).await.unwrap().status, 200, "body");

    bench.pass(Duration::from_secs(1)).await;
    let query = format!("{path}?{}", grant(KEY));
    let headers = [("authorization", right.as_str())];
    let reply = bench.call(Method::POST, &query, &headers, "").await.unwrap();
    assert_eq!(reply.status, 200, "query");

    let body = format!("{}&client_id=pub", grant("pub"));
    assert_eq!(bench.form(&body).await.unwrap().status, 200, "public");

    bench.pass(Duration::from_secs(1)).await;
    let wrong = basic("guess");
    let headers = [form_type, ("authorization", wrong.as_str())];
    let reply = bench.call(Method::POST, path, &headers, grant(KEY)).await.unwrap();
    assert_eq!((reply.status, &reply.json()["error"]), (401, &"invalid_client".into()));

    bench.pass(Duration::from_secs(1)).await;
    let body = format!("{}&client_id=pub", grant(KEY));
    let reply = bench.form(&body).await.unwrap();
    assert_eq!((reply.status, reply.text()), (400, INVALID_GRANT), "another client's token");
}

#[tokio::test(start_paused = true)]
async fn malformed_and_blocked_token_requests_are_told_apart() {
    let bench = Bench::start(unlimited()).await;
    let path = "/oauth2/default/v1/token";
    let json = [("content-type", "application/json")];
    let body = format!("{path}?client_id={KEY}");
    let reply = bench.call(Method::POST, &body, &json, "{}").await.unwrap();
    assert_eq!((reply.status, &reply.json()["error"]), (400, &"invalid_request".into()));
    bench.pass(Duration::from_secs(1)).await;
    let reply = bench.form(&format!("client_id={KEY}&grant_type=password")).await.unwrap();
    assert_eq!(reply.json()["error"], "unsupported_grant_type");
    let agent = [("user-agent", "Python-urllib/3.12")];
    let reply = bench.call(Method::POST, path, &agent, "").await.unwrap();
    assert_eq!(reply.status, 403);
    assert!(reply.text().starts_with("<!DOCTYPE html>"));
}

#[tokio::test(start_paused = true)]
async fn a_code_is_exchanged_once_with_its_verifier() {
    let bench = Bench::start(unlimited()).await;
    let verifier = "v".repeat(43);
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&verifier));
    let consent = async |scope: &str| {
        let path = format!(
            "/oauth2/default/v1/authorize?response_type=code&client_id={KEY}&state=s%2F1\
             &redirect_uri=http%3A%2F%2F127.0.0.1%2Fcb&code_challenge={challenge}\
             &code_challenge_method=S256&login_hint=globex&scope={scope}"
        );
        let reply = bench.call(Method::GET, &path, &[], "").await.unwrap();
        assert_eq!(reply.status, 302);
        let location = reply.headers["location"].to_str().unwrap();
        let (start, state) = location.split_once("&state=").unwrap();
        assert_eq!(state, "s%2F1");
        let code = start.strip_prefix("http://127.0.0.1/cb?code=").unwrap();
        code.to_owned()
    };
    let exchange = async |code: &str, verifier: &str| {
        bench.pass(Duration::from_secs(1)).await;
        let form = format!(
            "grant_type=authorization_code&client_id={KEY}&code={code}\
             &redirect_uri=http%3A%2F%2F127.0.0.1%2Fcb&code_verifier={verifier}"
        );
        bench.form(&form).await.unwrap()
    };
    let code = consent("contact_data+offline_access").await;
    let reply = exchange(&code, &verifier).await;
    assert_eq!(reply.status, 200);
    assert!(reply.json()["refresh_token"].is_string());
    let token = token_of(&reply, "access_token");
    assert_eq!(bench.get("/v3/contacts", &token).await.status, 200);
    assert_eq!(bench.get(SUMMARY, &token).await.status, 403, "the scope is missing");
    assert_eq!(exchange(&code, &verifier).await.status, 400, "used");
    let code = consent("contact_data").await;
    let reply = exchange(&code, &verifier).await;
    assert!(reply.json().get("refresh_token").is_none(), "without offline_access");
    let code = consent("contact_data").await;
    assert_eq!(exchange(&code, "guess").await.status, 400);
    let code = consent("contact_data").await;
    bench.pass(Duration::from_mins(5)).await;
    assert_eq!(exchange(&code, &verifier).await.status, 400, "too old");
}

#[tokio::test(start_paused = true)]
async fn an_owner_can_deny_and_a_stranger_is_not_redirected() {
    let bench = Bench::start(unlimited()).await;
    let path = "/oauth2/default/v1/authorize?response_type=code&client_id=a";
    let denied = format!("{path}&redirect_uri=http%3A%2F%2Fa%2F%3Fx&login_hint=deny&state=1");
    let reply = bench.call(Method::GET, &denied, &[], "").await.unwrap();
    assert_eq!(reply.headers["location"], "http://a/?x&error=access%5Fdenied&state=1");
    let reply = bench.call(Method::GET, path, &[], "").await.unwrap();
    assert_eq!(reply.status, 400);
}

#[tokio::test(start_paused = true)]
async fn a_revoked_account_has_no_good_token() {
    let bench = Bench::start(unlimited()).await;
    let (tenant, other) = (bench.tenant(), bench.sandbox.connect_tenant(KEY, "globex"));
    let body = serde_json::json!({"account": "acme"});
    let reply = bench.control(Method::POST, "/sandbox/revoke", &body).await;
    assert_eq!(reply.json()["revoked"], 1);
    assert_eq!(bench.get(SUMMARY, &tenant.access_token).await.status, 401);
    assert_eq!(bench.refresh(&tenant.refresh_token).await.text(), INVALID_GRANT);
    assert_eq!(bench.get(SUMMARY, &other.access_token).await.status, 200);
}
