//! The link to the upstream's page of consent (RFC 6749 section 4.1.1, RFC 7636 section 4.3).

use http::Uri;

use crate::config::ApiKey;
use crate::secret::StateToken;

/// The link that asks for a consent to `key`. Scopes are joined by a literal `+`, the one form that
/// the upstream is known to take from everybody.
pub(super) fn authorize(
    page: &Uri,
    key: &ApiKey,
    redirect_uri: &str,
    state: &StateToken,
    challenge: Option<&str>,
) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query
        .append_pair("response_type", "code")
        .append_pair("client_id", &key.client_id)
        .append_pair("redirect_uri", redirect_uri)
        .append_pair("scope", &key.scopes)
        .append_pair("state", state.expose());
    if let Some(challenge) = challenge {
        query.append_pair("code_challenge", challenge).append_pair("code_challenge_method", "S256");
    }
    let glue = if page.query().is_some() { '&' } else { '?' };
    format!("{page}{glue}{}", query.finish())
}
