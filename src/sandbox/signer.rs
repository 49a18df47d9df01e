//! Access tokens: RS256 JWTs with the claims of the real service, and the key set that verifies
//! them.
//!
//! The key is made when first needed and lives as long as the process; it is of no use outside of
//! it.

use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::{Value, json};

use super::log::fingerprint;

/// The issuer of the real service, which is not the address of its token endpoint.
const ISSUER: &str = "https://identity.constantcontact.com/oauth2/aus1lm3ry9mF7x2Ja0h8";
const AUDIENCE: &str = "https://api.cc.email/v3";

static KEY: LazyLock<Signer> = LazyLock::new(Signer::generate);

/// What an access token says.
#[derive(Debug)]
pub(super) struct Claims<'a> {
    pub(super) client_id: &'a str,
    pub(super) account: &'a str,
    pub(super) account_uuid: &'a str,
    pub(super) scopes: &'a str,
    pub(super) issued: u64,
    pub(super) expires: u64,
    /// Makes the token unlike any other.
    pub(super) id: &'a str,
}

struct Signer {
    key: KeyPair,
    kid: String,
}

impl Signer {
    fn generate() -> Self {
        let key = KeyPair::generate(KeySize::Rsa2048).expect("the machine can make an RSA key");
        let modulus = key.public_key().modulus().big_endian_without_leading_zero().to_vec();
        let kid = fingerprint(&URL_SAFE_NO_PAD.encode(modulus));
        Self { key, kid }
    }
}

/// Makes the key now rather than with the first token, which would answer late.
pub(super) fn prepare() {
    LazyLock::force(&KEY);
}

/// An access token in its compact form.
pub(super) fn sign(claims: &Claims<'_>) -> String {
    let header = json!({"kid": KEY.kid, "alg": "RS256"});
    let scopes: Vec<&str> = claims.scopes.split(' ').collect();
    let body = json!({
        "ver": 1,
        "jti": format!("AT.{}", claims.id),
        "iss": ISSUER,
        "aud": AUDIENCE,
        "iat": claims.issued,
        "exp": claims.expires,
        "cid": claims.client_id,
        "uid": claims.account_uuid,
        "scp": scopes,
        "auth_time": claims.issued,
        "sub": claims.account,
        "platform_user_id": claims.account_uuid,
    });
    let message = format!("{}.{}", encode(&header), encode(&body));
    let mut signature = vec![0; KEY.key.public_modulus_len()];
    KEY.key
        .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature)
        .expect("the signature is as long as the modulus");
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// The key set (RFC 7517 section 5) with which the tokens verify.
pub(super) fn key_set() -> Value {
    let public = KEY.key.public_key();
    let modulus = URL_SAFE_NO_PAD.encode(public.modulus().big_endian_without_leading_zero());
    let exponent = URL_SAFE_NO_PAD.encode(public.exponent().big_endian_without_leading_zero());
    json!({"keys": [{
        "kty": "RSA", "alg": "RS256", "use": "sig", "kid": KEY.kid, "n": modulus, "e": exponent,
    }]})
}

fn encode(part: &impl Serialize) -> String {
    let text = serde_json::to_vec(part).expect("these values have text keys and always serialize");
    URL_SAFE_NO_PAD.encode(text)
}
