//! What has to do with OAuth beyond the token endpoint: origins that an owner is sent back to, the
//! scopes that are asked for, and tokens that callers bring.
//!
//! Where a browser is sent is decided by comparing origins (RFC 6454 section 4), so a link is read
//! strictly: what two readers could take for two hosts is no link.

use std::fmt;

use http::Uri;

use super::{Passthrough, values};

/// Characters of a URL (RFC 3986 section 2) beside letters and digits.
const URL_MARKS: &[u8] = b"-._~:/?[]@!$&'()*+,;=%";
/// The scope without which no refresh token is given.
const OFFLINE_ACCESS: &str = "offline_access";

/// The origin of a web page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// The origin of the page at `link`, an `http` or `https` URL.
    ///
    /// # Errors
    /// What is wrong with the link.
    pub fn of_link(link: &str) -> Result<Self, String> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || URL_MARKS.contains(&b);
        if !link.bytes().all(allowed) {
            return Err("has a character that no URL has, or a fragment".into());
        }
        Self::of(&values::url(link)?).ok_or_else(|| "is no http:// or https:// URL".into())
    }

    fn of(uri: &Uri) -> Option<Self> {
        let scheme = uri.scheme_str()?.to_owned();
        let standard = if scheme == "https" { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(standard);
        Some(Self { scheme, host: uri.host()?.to_ascii_lowercase(), port })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        match (self.scheme.as_str(), self.port) {
            ("https", 443) | ("http", 80) => Ok(()),
            (_, port) => write!(f, ":{port}"),
        }
    }
}

/// Origins with commas between them.
///
/// # Errors
/// What is wrong with the text.
pub fn origins(text: &str) -> Result<Vec<Origin>, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let origin = |part: &str| {
        let uri = values::base_url(part)?;
        Origin::of(&uri).ok_or_else(|| "is no origin".to_owned())
    };
    let origins: Vec<Origin> = parts.map(origin).collect::<Result<_, _>>()?;
    if origins.is_empty() { Err("is empty".into()) } else { Ok(origins) }
}

/// Whether callers' own access tokens are forwarded.
///
/// # Errors
/// What is wrong with the text.
pub fn passthrough(text: &str) -> Result<Passthrough, String> {
    match text.trim() {
        "verified" => Ok(Passthrough::Verified),
        other => match values::switch(other) {
            Ok(true) => Ok(Passthrough::Unverified),
            Ok(false) => Ok(Passthrough::No),
            Err(_) => Err("is neither true, false nor verified".into()),
        },
    }
}

/// A URL that stands for something by its very characters.
///
/// # Errors
/// What is wrong with the text.
pub fn url_text(text: &str) -> Result<String, String> {
    values::url(text).map(|_| text.trim().to_owned())
}

/// Scopes with single spaces between them.
///
/// # Errors
/// What is wrong with the text.
pub fn scopes(text: &str) -> Result<String, String> {
    // RFC 6749 section 3.3
    let allowed = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
    let scopes: Vec<&str> = text.split_ascii_whitespace().collect();
    if scopes.is_empty() {
        return Err("is empty".into());
    }
    if !scopes.iter().all(|scope| scope.bytes().all(allowed)) {
        return Err("has a character that no scope has".into());
    }
    if !scopes.contains(&OFFLINE_ACCESS) {
        return Err(format!("has no {OFFLINE_ACCESS}, without which no refresh token is given"));
    }
    Ok(scopes.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_has_the_origin_that_a_browser_sees() {
        let app = &origins("https://app.example").unwrap()[0];
        for link in [
            "https://app.example",
            "https://app.example/",
            "https://APP.example:443/done?x=1&y=%20",
            "https://app.example?next=https://evil.example",
        ] {
            assert_eq!(Origin::of_link(link).as_ref(), Ok(app), "{link}");
        }
        for link in [
            "http://app.example/",
            "https://app.example:8443/",
            "https://app.example.evil.example/",
            "https://evil.example/app.example",
            "https://xapp.example",
        ] {
            assert_ne!(Origin::of_link(link).as_ref(), Ok(app), "{link}");
        }
    }

    #[test]
    fn what_two_readers_take_for_two_hosts_is_no_link() {
        for link in [
            "https://app.example@evil.example/",
            "https://evil.example\\@app.example/",
            "https://evil.example\\.app.example/",
            "//app.example/",
            "/done",
            "javascript:alert(1)",
            "https:app.example",
            "https:///app.example",
            "https://app.example/#done",
            " https://app.example/",
            "https://app.example/\r\nx",
            "https://app.example/ä",
            "",
        ] {
            assert!(Origin::of_link(link).is_err(), "{link}");
        }
    }

    #[test]
    fn origins_are_a_list_without_paths() {
        let two = origins("https://a.example, http://localhost:3000,").unwrap();
        let texts: Vec<String> = two.iter().map(Origin::to_string).collect();
        assert_eq!(texts, ["https://a.example", "http://localhost:3000"]);
        for bad in ["", ",", "a.example", "https://a.example/x", "https://*.example/*"] {
            assert!(origins(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn scopes_must_bring_a_refresh_token() {
        assert_eq!(scopes(" a  offline_access ").as_deref(), Ok("a offline_access"));
        for bad in ["", "contact_data", "a\"b offline_access", "ä offline_access"] {
            assert!(scopes(bad).is_err(), "{bad}");
        }
    }
}
