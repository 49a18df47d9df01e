//! Why an account was not connected, in words for its operator, and which of them are whose fault.
//!
//! Of what a browser or the upstream sent only known codes are repeated.

use std::fmt;

use crate::store::StoreError;
use crate::tokens::PutError;

/// Longest error code of the upstream that is repeated.
const CODE_LEN_MAX: usize = 40;

/// Why an account was not connected.
#[derive(Debug)]
pub enum Failure {
    /// The state is none, is used, or was never given out.
    NotAsked,
    /// The time is over.
    Late,
    /// The owner did not consent.
    Denied,
    /// The upstream refused to ask the owner, or to go on.
    Refused {
        /// Its code, when it is one.
        code: Option<String>,
    },
    /// The browser came back without a code.
    NoCode,
    /// The token lane has no turn in time.
    Busy,
    /// The upstream does not accept the code.
    CodeRefused,
    /// The token endpoint failed.
    Endpoint(String),
    /// The answer had no refresh token.
    NoRefreshToken,
    /// The keeper did not take the grant.
    NotTaken(PutError),
    /// The store failed.
    Store(StoreError),
    /// The tenant was removed, or another flow was begun for it.
    Cancelled,
    /// A bug; the log has it.
    Bug,
}

/// Whose turn it is after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The owner: begin again.
    Request,
    /// The upstream.
    Upstream,
    /// The proxy, for now.
    Proxy,
}

impl Failure {
    /// What the upstream's error code means (RFC 6749 section 4.1.2.1, RFC 8628 section 3.5).
    #[must_use]
    pub fn of_code(code: &str) -> Self {
        match code {
            "access_denied" => Self::Denied,
            "expired_token" => Self::Late,
            _ => {
                let plain = |b: u8| b.is_ascii_lowercase() || b == b'_';
                let known = code.len() <= CODE_LEN_MAX && code.bytes().all(plain);
                Self::Refused { code: known.then(|| code.to_owned()) }
            }
        }
    }

    /// Whose turn it is.
    #[must_use]
    pub const fn blame(&self) -> Blame {
        match self {
            Self::NotTaken(PutError::Store(_) | PutError::Stopped)
            | Self::Busy
            | Self::Store(_)
            | Self::Bug => Blame::Proxy,
            Self::Endpoint(_) => Blame::Upstream,
            Self::NotAsked
            | Self::Late
            | Self::Denied
            | Self::Refused { .. }
            | Self::NoCode
            | Self::CodeRefused
            | Self::NoRefreshToken
            | Self::NotTaken(_)
            | Self::Cancelled => Blame::Request,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::NotAsked => "the link was used already, or is not one that was given out",
            Self::Late => "the link was opened too late; ask for a new one",
            Self::Denied => "the owner of the account did not consent",
            Self::Refused { code: Some(code) } => {
                return write!(f, "the authorization server refused: {code}");
            }
            Self::Refused { code: None } => "the authorization server refused",
            Self::NoCode => "the browser came back without a code",
            Self::Busy => "too many token requests wait, or the proxy is stopping; try again",
            Self::CodeRefused => {
                "the token endpoint does not accept the code: it was used, came too late, or the \
                 redirect_uri or the secret of the API key are not those of the application"
            }
            Self::Endpoint(detail) => return f.write_str(detail),
            Self::NoRefreshToken => {
                "the authorization server gave no refresh token: allow the application the scope \
                 offline_access, and keep it in api_keys.scopes"
            }
            Self::NotTaken(error) => return error.fmt(f),
            Self::Store(error) => return error.fmt(f),
            Self::Cancelled => "the tenant was removed, or connecting it was begun anew",
            Self::Bug => "a bug in the proxy; its log says more",
        };
        f.write_str(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_codes_are_repeated() {
        assert!(matches!(Failure::of_code("access_denied"), Failure::Denied));
        let text = Failure::of_code("invalid_scope").to_string();
        assert_eq!(text, "the authorization server refused: invalid_scope");
        for odd in ["<script>", "", "A b", &"x".repeat(41)] {
            let text = Failure::of_code(odd).to_string();
            assert!(odd.is_empty() || !text.contains(odd), "{text}");
        }
    }
}
