//! The names of API keys, tenants and clients: one type each, checked once, cheap to clone.
//!
//! A name is 1 to 128 of `A-Z a-z 0-9 . _ ~ : @ -` and starts with a letter or a digit, so that it
//! fits a path segment, a header, a metric label and a file without escaping, and is never a dot
//! segment.

use std::fmt;
use std::sync::Arc;

/// Longest name, in bytes.
const NAME_LEN_MAX: usize = 128;

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameError;

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a name has 1 to 128 of the characters A-Z a-z 0-9 . _ ~ : @ - and starts with a \
             letter or digit",
        )
    }
}

impl std::error::Error for NameError {}

fn check(text: &str) -> Result<(), NameError> {
    let starts_well = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let allowed =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'~' | b':' | b'@' | b'-');
    if starts_well && text.len() <= NAME_LEN_MAX && text.bytes().all(allowed) {
        Ok(())
    } else {
        Err(NameError)
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name in `text`.
            ///
            /// # Errors
            /// [`NameError`] when `text` is not 1 to 128 of the allowed characters.
            pub fn new(text: &str) -> Result<Self, NameError> {
                check(text)?;
                Ok(Self(Arc::from(text)))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name! {
    /// The configured name of one Constant Contact application; both upstream limits belong to it.
    ApiKeyName
}
name! {
    /// The name of one connected Constant Contact account.
    TenantName
}
name! {
    /// The name of a program that calls the proxy.
    ClientName
}

impl TenantName {
    /// The name of a caller whose account nobody has connected here. It begins as no name does, so
    /// that it is never that of a connected tenant, and can be named by nobody.
    #[must_use]
    pub fn of_visitor(mark: &str) -> Self {
        Self(Arc::from(format!("~{mark}")))
    }

    /// A name of either kind, as another instance has written it.
    ///
    /// # Errors
    /// [`NameError`] when `text` is neither.
    pub fn of_any(text: &str) -> Result<Self, NameError> {
        match text.strip_prefix('~') {
            // a mark may begin with any of the characters
            Some(mark) => check(&format!("x{mark}")).map(|()| Self::of_visitor(mark)),
            None => Self::new(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_need_escaping_are_refused() {
        for bad in ["", ".", "..", "-a", "a/b", "a b", "ä", "a\n", &"x".repeat(129)] {
            assert_eq!(TenantName::new(bad), Err(NameError), "{bad:?}");
        }
        for good in ["a", "acme", "acme-2.eu", "user@example.com", &"x".repeat(128)] {
            assert_eq!(
                TenantName::new(good).map(|name| name.as_str().to_owned()),
                Ok(good.to_owned())
            );
        }
    }

    #[test]
    fn a_visitors_name_is_read_as_it_was_written_and_no_tenants() {
        for mark in ["-_aB3", "_x", "9"] {
            let name = TenantName::of_visitor(mark);
            assert_eq!(TenantName::of_any(name.as_str()), Ok(name.clone()));
            assert_eq!(TenantName::new(name.as_str()), Err(NameError));
        }
        assert_eq!(TenantName::of_any("acme"), TenantName::new("acme"));
        for bad in ["", "~a b", "~ä", "~~\0"] {
            assert_eq!(TenantName::of_any(bad), Err(NameError), "{bad:?}");
        }
    }
}
