//! `GET /oauth/callback`: where an owner's browser comes back to after the consent.
//!
//! Open to everybody: what protects it is the state, which was given out once and works once. It
//! answers with a page in plain words, or sends the owner on to a page that was allowed when the
//! link was made. Nothing that a browser sent is ever shown; what is shown is escaped all the same.
//! The page runs no script, loads nothing, is kept by no cache, and names no address to others.

use axum::extract::{RawQuery, State};
use axum::response::{Html, IntoResponse as _, Response};
use http::header::{ALLOW, CONTENT_SECURITY_POLICY, LOCATION, REFERRER_POLICY};
use http::{HeaderValue, Method, StatusCode};

use super::Desk;
use super::errors::AdminError;
use crate::connect::{Blame, CameBack, Connected, Failure, NotConnected};
use crate::phase::Phase;
use crate::secret::Secret;

/// Longest query that is looked at; a code has some hundred characters.
const QUERY_LEN_MAX: usize = 4 * 1024;
/// Lookups of states at a time: whoever floods this page does not keep operators from the store.
pub(super) const AT_A_TIME: usize = 64;

/// The look of the page.
const STYLE: &str = "body{font:1.1rem/1.5 system-ui,sans-serif;max-width:34rem;\
    margin:15vh auto;padding:0 1rem}\
    @media(prefers-color-scheme:dark){body{background:#111;color:#ddd}a{color:#8bf}}";
/// Only [`STYLE`], known by its SHA-256, has an effect.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; \
     style-src 'sha256-Wu/lcNr6n6o9NZuBJqrVAzoAuLCa5aHk+nHABDsiFdU='; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// What an authorization server sends a browser back with (RFC 6749 section 4.1.2). Others are
/// passed over.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it describes what `read` reads")]
pub(super) struct Answered {
    /// Which consent was asked for; it works once.
    state: Option<String>,
    /// What is exchanged for tokens.
    code: Option<String>,
    /// Why there is no code.
    error: Option<String>,
}

/// Takes an owner back who has consented
///
/// Opened by a browser, not by programs. The answer is a page in plain words.
#[utoipa::path(
    get,
    path = "/oauth/callback",
    operation_id = "come_back",
    tag = "connect",
    params(Answered),
    responses(
        (status = 200, description = "Connected.", body = String, content_type = "text/html"),
        (
            status = 303,
            description = "Connected, and on to the page that was named at the beginning.",
            headers(("Location" = String, description = "That page."))
        ),
        (
            status = 400,
            description = "The link was used, is too old or is none, or there is no consent.",
            body = String,
            content_type = "text/html"
        ),
        (
            status = 502,
            description = "The token endpoint could not be reached.",
            body = String,
            content_type = "text/html"
        ),
        (
            status = 503,
            description = "Too much is going on, or the proxy is being stopped.",
            body = String,
            content_type = "text/html"
        )
    )
)]
pub(super) async fn come_back(
    State(shared): Desk,
    method: Method,
    RawQuery(query): RawQuery,
) -> Response {
    // a look ahead must not use the state up
    if method != Method::GET {
        let mut answer = AdminError::method_not_allowed().into_response();
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return answer;
    }
    if shared.parts.phase.get() == Phase::Draining {
        return page(StatusCode::SERVICE_UNAVAILABLE, "Just a moment", STOPPING, None);
    }
    let Some(came) = read(query.as_deref().unwrap_or_default()) else {
        return failed(Failure::NotAsked.into());
    };
    let Ok(_place) = shared.callbacks.try_acquire() else {
        return page(StatusCode::SERVICE_UNAVAILABLE, "Just a moment", CROWDED, None);
    };
    match shared.parts.connect.finish(came).await {
        Ok(connected) => succeeded(&connected),
        Err(not) => failed(not),
    }
}

const STOPPING: &str = "The service is being restarted. Please load this page again in a minute.";
const CROWDED: &str = "Too many accounts are being connected. Please load this page again.";

/// What a browser came back with; `None` when it is no answer of an authorization server.
fn read(query: &str) -> Option<CameBack> {
    if query.len() > QUERY_LEN_MAX {
        return None;
    }
    let mut came = CameBack::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let value = value.into_owned();
        // RFC 6749 section 3.1: no parameter comes twice
        let twice = match &*name {
            "state" => came.state.replace(value).is_some(),
            "code" => came.code.replace(Secret::new(value)).is_some(),
            "error" => came.error.replace(value).is_some(),
            _ => false,
        };
        if twice {
            return None;
        }
    }
    Some(came)
}

fn succeeded(connected: &Connected) -> Response {
    if let Some(link) = &connected.return_to
        && let Ok(location) = HeaderValue::try_from(link)
    {
        let mut answer = StatusCode::SEE_OTHER.into_response();
        answer.headers_mut().insert(LOCATION, location);
        return guarded(answer);
    }
    let words = "Your Constant Contact account is connected. You can close this page.";
    page(StatusCode::OK, "Connected", words, None)
}

fn failed(NotConnected { failure, return_to }: NotConnected) -> Response {
    let status = match failure.blame() {
        Blame::Request => StatusCode::BAD_REQUEST,
        Blame::Upstream => StatusCode::BAD_GATEWAY,
        Blame::Proxy => StatusCode::SERVICE_UNAVAILABLE,
    };
    page(status, "Not connected", words(&failure), return_to.as_deref())
}

/// What an owner is told: what happened, and what to do.
const fn words(failure: &Failure) -> &'static str {
    match failure {
        Failure::NotAsked => {
            "This link was used already, or is not one of ours. Please go back to where you \
             started and connect your account again."
        }
        Failure::Late => {
            "This took longer than ten minutes, and the link no longer works. Please go back to \
             where you started and connect your account again."
        }
        Failure::Denied => {
            "You did not give your consent, so your account was not connected. If that was not \
             what you wanted, please connect it again."
        }
        Failure::Refused { .. } | Failure::NoCode => {
            "Constant Contact did not allow the connection. Please try again, and tell those who \
             sent you here if it happens again: their log says why."
        }
        Failure::Busy => {
            "Too much is going on here at the moment. Please connect your account again in a few \
             minutes."
        }
        Failure::CodeRefused => {
            "Constant Contact did not confirm your consent; it may have come too late. Please \
             connect your account again, and tell those who sent you here if it happens again."
        }
        Failure::Endpoint(_) => {
            "Constant Contact could not be reached to complete the connection. Please connect \
             your account again in a few minutes."
        }
        Failure::NoRefreshToken => {
            "Constant Contact gave access for a day only, so the connection was not kept. Please \
             tell those who sent you here: their application needs the scope offline_access."
        }
        Failure::NotTaken(_) => {
            "What Constant Contact gave could not be used, so your account was not connected. \
             Please tell those who sent you here: their log says why."
        }
        Failure::Store(_) => {
            "The connection could not be stored. Please connect your account again in a few \
             minutes."
        }
        Failure::Cancelled => {
            "Connecting this account was called off. Please go back to where you started."
        }
        Failure::Bug => {
            "Something is wrong here. Please tell those who sent you here: their log says more."
        }
    }
}

fn page(status: StatusCode, title: &str, words: &str, back: Option<&str>) -> Response {
    let back = back.map_or_else(String::new, |link| {
        format!("<p><a rel=\"noreferrer\" href=\"{}\">Go back</a></p>", escaped(link))
    });
    let (title, words) = (escaped(title), escaped(words));
    let html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
         <style>{STYLE}</style></head>\n<body><h1>{title}</h1><p>{words}</p>{back}</body></html>\n"
    );
    guarded((status, Html(html)).into_response())
}

fn guarded(mut answer: Response) -> Response {
    let headers = answer.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    answer
}

/// Text that is safe between tags and in quoted attributes.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use sha2::{Digest as _, Sha256};

    use super::*;

    #[test]
    fn the_policy_knows_the_style_by_its_digest() {
        let digest = STANDARD.encode(Sha256::digest(STYLE.as_bytes()));
        assert!(POLICY.to_str().unwrap().contains(&format!("'sha256-{digest}'")), "{digest}");
    }

    #[test]
    fn what_comes_twice_or_is_too_long_is_no_answer() {
        let came = read("code=a%2Bb&state=s&x=1&x=2").unwrap();
        assert_eq!(came.code.unwrap().expose(), "a+b");
        for query in ["state=a&state=b", "code=a&code=a&state=s", "error=a&error=b"] {
            assert!(read(query).is_none(), "{query}");
        }
        assert!(read(&"x".repeat(QUERY_LEN_MAX + 1)).is_none());
    }

    #[test]
    fn markup_is_escaped() {
        assert_eq!(escaped(r#"<a href="x">&'"#), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
    }
}
