//! Faults that a test sets for the next calls, first set, first served.
//!
//! A fault touches only a call that would have been served: one over a limit, too early or without
//! a good token gets its true verdict and leaves the fault for the next. A call with a fault counts
//! like any other.

use http::StatusCode;
use serde::Deserialize;

/// A fault for the next `count` calls.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Fault {
    /// Which endpoint.
    pub target: Target,
    /// How many calls.
    #[serde(default = "once")]
    pub count: u32,
    /// Only calls of this account.
    #[serde(default)]
    pub account: Option<String>,
    /// What happens.
    #[serde(flatten)]
    pub kind: FaultKind,
}

impl Fault {
    /// One fault of this kind at this endpoint.
    #[must_use]
    pub fn new(target: Target, kind: FaultKind) -> Self {
        Self { target, count: 1, account: None, kind }
    }

    /// The same for `count` calls.
    #[must_use]
    pub fn times(self, count: u32) -> Self {
        Self { count, ..self }
    }
}

/// Where a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Below `/v3`.
    Api,
    /// At the token endpoint.
    Token,
    /// At the page of consent.
    Authorize,
}

/// What happens to a call.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FaultKind {
    /// A status with a JSON error.
    Status {
        /// The status, 200 to 599.
        status: u16,
        /// Value of `Retry-After`, seconds.
        #[serde(default)]
        retry_after: Option<u32>,
        /// The body in place of the usual one.
        #[serde(default)]
        body: Option<String>,
    },
    /// A page of HTML, as a front would answer.
    Html {
        /// The status, 200 to 599.
        #[serde(default = "too_many_requests")]
        status: u16,
    },
    /// No answer until somebody gives up.
    Hang,
    /// The connection is closed after the request was read.
    Close,
    /// The call is served so much later.
    Delay {
        /// Milliseconds on top of the latency.
        ms: u64,
    },
    /// 200 with an empty body.
    Empty,
    /// The refusal of the second's limit.
    Throttled,
    /// The refusal of the day's limit.
    QuotaExceeded,
    /// The refusal of a bad token.
    Unauthorized,
    /// The call is served, tokens rotate, and the connection is closed without the answer.
    LostAnswer,
    /// The call is served and the connection closed after half of the body.
    Cut,
    /// The owner does not consent.
    Denied,
}

/// The faults still to come.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    /// Adds a fault, or says what is wrong with it.
    pub(super) fn add(&mut self, fault: Fault) -> Result<(), &'static str> {
        match fault.kind {
            FaultKind::Status { status, .. } | FaultKind::Html { status } => {
                if !(200..=599).contains(&status) || StatusCode::from_u16(status).is_err() {
                    return Err("status must be 200 to 599");
                }
            }
            FaultKind::Hang
            | FaultKind::Close
            | FaultKind::Delay { .. }
            | FaultKind::Empty
            | FaultKind::Throttled
            | FaultKind::QuotaExceeded
            | FaultKind::Unauthorized
            | FaultKind::LostAnswer
            | FaultKind::Cut
            | FaultKind::Denied => {}
        }
        if fault.count > 0 {
            self.0.push(fault);
        }
        Ok(())
    }

    /// Takes the first fault that fits a call.
    pub(super) fn take(&mut self, target: Target, account: Option<&str>) -> Option<FaultKind> {
        let fits = |fault: &Fault| {
            fault.target == target
                && (fault.account.is_none() || fault.account.as_deref() == account)
        };
        let at = self.0.iter().position(fits)?;
        let fault = self.0.get_mut(at)?;
        let kind = fault.kind.clone();
        fault.count -= 1;
        if fault.count == 0 {
            self.0.remove(at);
        }
        Some(kind)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

const fn once() -> u32 {
    1
}

const fn too_many_requests() -> u16 {
    429
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_from_json_and_taken_in_order() {
        let mut faults = Faults::default();
        let texts = [
            r#"{"target":"api","count":2,"kind":"status","status":503}"#,
            r#"{"target":"token","kind":"html"}"#,
            r#"{"target":"api","account":"b","kind":"hang"}"#,
        ];
        for text in texts {
            faults.add(serde_json::from_str(text).unwrap()).unwrap();
        }
        let status = FaultKind::Status { status: 503, retry_after: None, body: None };
        assert_eq!(faults.take(Target::Api, Some("a")), Some(status.clone()));
        assert_eq!(faults.take(Target::Api, Some("b")), Some(status));
        assert_eq!(faults.take(Target::Api, Some("a")), None);
        assert_eq!(faults.take(Target::Api, Some("b")), Some(FaultKind::Hang));
        assert_eq!(faults.take(Target::Token, None), Some(FaultKind::Html { status: 429 }));
    }

    #[test]
    fn a_fault_with_an_impossible_status_is_refused() {
        let fault = Fault::new(Target::Api, FaultKind::Html { status: 101 });
        assert!(Faults::default().add(fault).is_err());
    }
}
