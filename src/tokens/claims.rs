//! What a token says about itself, read without checking its signature.
//!
//! The tokens come from the token endpoint over TLS or from an operator, and the upstream checks
//! them; here they are only read, for their expiry and to catch a token of the wrong application
//! early. An opaque token says nothing, which is no error. Numbers are read leniently: integer,
//! fraction or text.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::engine::Unix;

/// `platform_user_id` of a login that is not linked to an account: such a token is issued but
/// useless.
const UNASSIGNED: &str = "UNASSIGNED";
/// When the issuer's clock and ours differ by more, the token's life counts from its receipt.
const SKEW_MAX: Duration = Duration::from_mins(5);
/// The life of an access token that says nothing about it; the upstream's shortest documented one
/// is 8 hours.
const LIFE_ASSUMED: Duration = Duration::from_hours(1);

/// The claims that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// `exp`: when it ends.
    pub exp: Option<Unix>,
    /// `iat`: when it was made, on the issuer's clock.
    pub iat: Option<Unix>,
    /// `cid`: the OAuth client id that it was issued to.
    pub cid: Option<String>,
    /// `sub`: the login.
    pub sub: Option<String>,
    /// `scp`: the scopes.
    pub scp: Vec<String>,
    /// `platform_user_id`.
    pub platform_user_id: Option<String>,
}

impl Claims {
    /// The claims of `token`; `None` when it is no JWT.
    #[must_use]
    pub fn read(token: &str) -> Option<Self> {
        let claims = payload(token)?;
        let text = |name: &str| claims.get(name).and_then(Value::as_str).map(str::to_owned);
        let scp = match claims.get("scp").or_else(|| claims.get("scope")) {
            Some(Value::Array(items)) => {
                items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
            }
            Some(Value::String(list)) => list.split_whitespace().map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        Some(Self {
            exp: claims.get("exp").and_then(moment),
            iat: claims.get("iat").and_then(moment),
            cid: text("cid"),
            sub: text("sub"),
            scp,
            platform_user_id: text("platform_user_id"),
        })
    }

    /// Whether the login behind the token belongs to no account.
    #[must_use]
    pub fn is_unassigned(&self) -> bool {
        self.platform_user_id.as_deref() == Some(UNASSIGNED)
    }
}

/// What the second of a JWT's three parts holds; `None` when `token` is no JWT. The others are not
/// looked at: nothing is believed here for being signed. The library has a function for it, which
/// takes the part before the last one of however many.
#[must_use]
pub fn payload(token: &str) -> Option<Map<String, Value>> {
    let (_, rest) = token.split_once('.')?;
    let (payload, signature) = rest.split_once('.')?;
    let payload = URL_SAFE_NO_PAD.decode(payload).ok().filter(|_| !signature.contains('.'))?;
    serde_json::from_slice(&payload).ok()
}

/// When an access token that was just received ends, on our clock: its own `exp`; when the issuer's
/// clock and ours disagree, its life from receipt; for an opaque token `expires_in` from receipt.
#[must_use]
pub fn expiry(token: &str, expires_in: Option<Duration>, received_at: Unix) -> Unix {
    let claims = Claims::read(token).unwrap_or_default();
    match (claims.exp, claims.iat) {
        (Some(exp), Some(iat)) if iat < exp => {
            let skew = iat.since(received_at).max(received_at.since(iat));
            if skew > SKEW_MAX { received_at.plus(exp.since(iat)) } else { exp }
        }
        (Some(exp), _) => exp,
        (None, _) => received_at.plus(expires_in.unwrap_or(LIFE_ASSUMED)),
    }
}

/// Seconds as a number or as text, with or without a fraction.
#[must_use]
pub fn seconds(value: &Value) -> Option<Duration> {
    let from_text = |text: &str| {
        let text = text.trim();
        text.parse().map(Duration::from_secs).ok().or_else(|| {
            text.parse::<f64>().ok().and_then(|secs| Duration::try_from_secs_f64(secs).ok())
        })
    };
    match value {
        Value::Number(number) => from_text(&number.to_string()),
        Value::String(text) => from_text(text),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn moment(value: &Value) -> Option<Unix> {
    seconds(value).map(Unix::new)
}

#[cfg(test)]
mod tests {
    use super::super::tests::jwt;
    use super::*;
    use serde_json::json;

    #[test]
    fn claims_are_read_leniently() {
        let token = jwt(&json!({
            "exp": "1800000000", "iat": 1_799_913_600.5, "cid": "id", "sub": "someone",
            "scp": ["contact_data", "offline_access"], "platform_user_id": "UNASSIGNED",
        }));
        let claims = Claims::read(&token).unwrap();
        assert_eq!(claims.exp, Some(Unix::from_secs(1_800_000_000)));
        assert_eq!(claims.iat, Some(Unix::new(Duration::from_millis(1_799_913_600_500))));
        assert_eq!(claims.cid.as_deref(), Some("id"));
        assert_eq!(claims.scp, ["contact_data", "offline_access"]);
        assert!(claims.is_unassigned());
    }

    #[test]
    fn what_is_no_jwt_has_no_claims_and_odd_numbers_are_no_times() {
        for token in ["", "opaque", "a.b.c", "..", "a.e30"] {
            assert_eq!(Claims::read(token), None, "{token}");
        }
        for odd in [json!(-1), json!("soon"), json!(1e300), json!(null), json!("inf")] {
            let claims = Claims::read(&jwt(&json!({ "exp": odd }))).unwrap();
            assert_eq!(claims.exp, None, "{odd}");
        }
    }

    #[test]
    fn a_jwt_has_three_parts_and_the_second_is_base64url() {
        let token = jwt(&json!({ "exp": 1 }));
        let parts: Vec<&str> = token.split('.').collect();
        assert!(Claims::read(&token).is_some());
        for other in [
            format!("{}.{token}", parts[0]),
            format!("{token}.{}", parts[2]),
            format!("{}.{}", parts[1], parts[2]),
            format!("{}.{}=.{}", parts[0], parts[1], parts[2]),
            format!("{}.%.{}", parts[0], parts[2]),
        ] {
            assert_eq!(Claims::read(&other), None, "{other}");
        }
    }

    #[test]
    fn the_end_is_the_tokens_own_unless_the_clocks_disagree() {
        let now = Unix::from_secs(1_800_000_000);
        let token = |iat: u64| jwt(&json!({ "iat": iat, "exp": iat + 86_400 }));
        let hours = |n: u64| Duration::from_hours(n);
        assert_eq!(
            expiry(&token(1_800_000_200), None, now),
            Unix::from_secs(1_800_000_200).plus(hours(24))
        );
        assert_eq!(expiry(&token(1_700_000_000), None, now), now.plus(hours(24)));
        assert_eq!(expiry("opaque", Some(hours(8)), now), now.plus(hours(8)));
        assert_eq!(expiry("opaque", None, now), now.plus(hours(1)));
    }
}
