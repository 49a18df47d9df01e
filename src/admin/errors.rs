//! Every answer of the admin listener that is an error: key, status, words.
//!
//! The form is the data plane's: one object with `error_key` and `error_message`. The message says
//! what happened and what to do; it never repeats a value that was sent.

use std::fmt;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use tracing::{error, warn};

use super::answers::ErrorBody;
use crate::listen::Blocked;
use crate::store::StoreError;
use crate::tokens::{ChangeError, PutError, RefreshError};

/// What a client of this listener is to do without a token.
const CHALLENGE: HeaderValue = HeaderValue::from_static(r#"Bearer realm="ctct-proxy-admin""#);

/// Which error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    Conflict,
    PayloadTooLarge,
    UnsupportedMediaType,
    TooManyRequests,
    StoreUnavailable,
    UpstreamUnavailable,
    Internal,
}

impl Kind {
    pub(super) const ALL: [Self; 12] = [
        Self::BadRequest,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Conflict,
        Self::PayloadTooLarge,
        Self::UnsupportedMediaType,
        Self::TooManyRequests,
        Self::StoreUnavailable,
        Self::UpstreamUnavailable,
        Self::Internal,
    ];

    pub(super) const fn key(self) -> &'static str {
        match self {
            Self::BadRequest => "admin.bad_request",
            Self::Unauthorized => "admin.unauthorized",
            Self::Forbidden => "admin.forbidden",
            Self::NotFound => "admin.not_found",
            Self::MethodNotAllowed => "admin.method_not_allowed",
            Self::Conflict => "admin.conflict",
            Self::PayloadTooLarge => "admin.payload_too_large",
            Self::UnsupportedMediaType => "admin.unsupported_media_type",
            Self::TooManyRequests => "admin.too_many_requests",
            Self::StoreUnavailable => "admin.store_unavailable",
            Self::UpstreamUnavailable => "admin.upstream_unavailable",
            Self::Internal => "admin.internal",
        }
    }

    pub(super) const fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict => StatusCode::CONFLICT,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::StoreUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            // RFC 4918 section 11.4: nothing here has failed, and nothing was changed
            Self::UpstreamUnavailable => StatusCode::FAILED_DEPENDENCY,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// An error, ready to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AdminError {
    kind: Kind,
    message: String,
    /// In seconds.
    retry_after: Option<u64>,
}

impl AdminError {
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Self {
        let retry_after = (kind == Kind::StoreUnavailable).then_some(1);
        Self { kind, message: message.into(), retry_after }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Kind::BadRequest, message)
    }

    pub(super) fn not_found(kind_of_thing: &str, name: &impl fmt::Display) -> Self {
        Self::new(Kind::NotFound, format!("there is no {kind_of_thing} {name}"))
    }

    /// An address has shown too many wrong tokens.
    pub(super) fn blocked(Blocked(left): Blocked) -> Self {
        let message = "too many wrong admin tokens came from this address; wait as long as \
                       Retry-After says";
        let secs = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        Self { retry_after: Some(secs), ..Self::new(Kind::TooManyRequests, message) }
    }

    pub(super) fn nothing_here() -> Self {
        let message = "there is nothing at this path; the admin API is below /v1: api-keys, \
                       tenants, clients, events";
        Self::new(Kind::NotFound, message)
    }

    pub(super) fn method_not_allowed() -> Self {
        let message = "this path has other methods; the Allow header names them";
        Self::new(Kind::MethodNotAllowed, message)
    }

    pub(super) fn internal() -> Self {
        Self::new(Kind::Internal, "a bug in the proxy or a damaged store; the log says more")
    }

    pub(super) fn stopping() -> Self {
        Self::new(Kind::StoreUnavailable, "the proxy is being stopped; ask again when it runs")
    }
}

impl IntoResponse for AdminError {
    fn into_response(self) -> Response {
        let body = ErrorBody { error_key: self.kind.key(), error_message: self.message };
        let mut response = (self.kind.status(), Json(body)).into_response();
        let headers = response.headers_mut();
        if self.kind == Kind::Unauthorized {
            headers.insert(WWW_AUTHENTICATE, CHALLENGE);
        }
        if let Some(secs) = self.retry_after {
            headers.insert(RETRY_AFTER, secs.into());
        }
        response
    }
}

impl From<StoreError> for AdminError {
    fn from(fault: StoreError) -> Self {
        match &fault {
            StoreError::Exists { .. } => {
                Self::new(Kind::Conflict, format!("{fault}; remove it first or take another name"))
            }
            StoreError::Conflict { .. } => {
                Self::new(Kind::Conflict, format!("{fault} in this moment; look and try again"))
            }
            StoreError::Unavailable { attempt, .. } => {
                warn!(%fault, "the store did not take a change of an operator");
                let message = format!("the store could not {attempt} now; try again");
                Self::new(Kind::StoreUnavailable, message)
            }
            StoreError::Corrupt { .. } => {
                error!(%fault, "the store did not take a change of an operator");
                Self::internal()
            }
        }
    }
}

impl From<PutError> for AdminError {
    fn from(fault: PutError) -> Self {
        match fault {
            PutError::Store(fault) => fault.into(),
            PutError::Stopped => Self::stopping(),
            PutError::UnknownApiKey => Self::bad_request(format!(
                "{fault}; name one of those that GET /v1/api-keys lists, or configure it first"
            )),
            PutError::NoRefreshToken | PutError::Unassigned => Self::bad_request(fault.to_string()),
            PutError::Conflict { .. } => Self::new(
                Kind::Conflict,
                format!(
                    "{fault}; on_conflict=replace gives it this one, on_conflict=skip leaves it"
                ),
            ),
            PutError::Spent => Self::new(Kind::Conflict, fault.to_string()),
            PutError::Malformed(_) => {
                Self::bad_request(format!("{fault}; send it as it came from the token endpoint"))
            }
            PutError::OtherApiKey { .. } => {
                Self::bad_request(format!("{fault}; put the tenant under the API key of that id"))
            }
        }
    }
}

impl From<ChangeError> for AdminError {
    fn from(fault: ChangeError) -> Self {
        match fault {
            ChangeError::Store(fault) => fault.into(),
            ChangeError::Stopped => Self::stopping(),
        }
    }
}

impl From<RefreshError> for AdminError {
    fn from(fault: RefreshError) -> Self {
        match fault {
            RefreshError::UnknownTenant => Self::new(Kind::NotFound, fault.to_string()),
            RefreshError::NeedsAuthorization => Self::new(
                Kind::Conflict,
                "the refresh token of this tenant is dead; connect the account again and PUT the \
                 new grant",
            ),
            RefreshError::Stopped => Self::stopping(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_wrong_in_the_store_decides_the_answer_and_its_cause_stays_in_the_log() {
        let cause = || "disk sda1 is full".to_owned();
        let attempt = "store a grant";
        for (fault, kind) in [
            (StoreError::Exists { what: "client crm".into() }, Kind::Conflict),
            (StoreError::Conflict { what: "tenant acme".into() }, Kind::Conflict),
            (StoreError::Unavailable { attempt, cause: cause() }, Kind::StoreUnavailable),
            (StoreError::Corrupt { attempt, cause: cause() }, Kind::Internal),
        ] {
            let error = AdminError::from(fault);
            assert_eq!(error.kind, kind);
            assert!(!error.message.contains("sda1"), "{}", error.message);
        }
    }

    #[test]
    fn a_keeper_that_has_stopped_is_a_503_for_every_change() {
        for error in [
            AdminError::from(PutError::Stopped),
            AdminError::from(ChangeError::Stopped),
            AdminError::from(RefreshError::Stopped),
        ] {
            assert_eq!(error.kind, Kind::StoreUnavailable);
            assert!(error.message.contains("being stopped"));
        }
    }
}
