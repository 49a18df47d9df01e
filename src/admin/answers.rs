//! The answers that are errors, as the document describes them.
//!
//! Each kind of error is described once and referred to; a handler names the groups that it can
//! give. The form of all is one, and the document's list of keys is the code's own.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};
use utoipa::openapi::{ContentBuilder, Header, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

use super::document::one_of;
use super::errors::Kind;

/// What every error looks like.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Error)]
pub(super) struct ErrorBody {
    /// Which error, for programs.
    #[schema(schema_with = keys)]
    pub(super) error_key: &'static str,
    /// What happened and what to do, for people.
    pub(super) error_message: String,
}

fn keys() -> Object {
    one_of(Kind::ALL.map(Kind::key))
}

type Answers = BTreeMap<String, RefOr<Response>>;

macro_rules! groups {
    ($($(#[$doc:meta])* $group:ident: $($kind:ident),+;)+) => {$(
        $(#[$doc])*
        pub(super) struct $group;

        impl IntoResponses for $group {
            fn responses() -> Answers {
                refer(&[$(Kind::$kind),+])
            }
        }
    )+};
}

groups! {
    /// Of a query that is read.
    Asked: BadRequest;
    /// Of a path with a name in it that may be nobody's.
    Named: BadRequest, NotFound;
    /// Of a body that is read, in a path with or without a name of something new.
    Told: BadRequest, PayloadTooLarge, UnsupportedMediaType;
    /// Of what the state of things may forbid.
    Contended: Conflict;
    /// Of what needs the store or the token keeper.
    Kept: StoreUnavailable;
    /// Of what asks the upstream while the operator waits.
    Passed: UpstreamUnavailable;
    /// Of what may be nobody's without being in the path.
    Sought: NotFound;
}

/// What a bug answers anywhere.
pub(super) fn of_every_path() -> Answers {
    refer(&[Kind::Internal])
}

/// What those are answered who are not let in, with a token configured or without one.
pub(super) fn of_every_guarded_path(wants_token: bool) -> Answers {
    if wants_token {
        return refer(&[Kind::Unauthorized, Kind::Forbidden, Kind::TooManyRequests]);
    }
    refer(&[Kind::Forbidden])
}

/// All of them, by the names under which they are referred to.
pub(super) fn all() -> impl Iterator<Item = (&'static str, Response)> {
    Kind::ALL.into_iter().map(|kind| (name(kind), describe(kind)))
}

fn refer(kinds: &[Kind]) -> Answers {
    let reference = |kind: Kind| RefOr::Ref(Ref::from_response_name(name(kind)));
    kinds.iter().map(|kind| (kind.status().as_str().to_owned(), reference(*kind))).collect()
}

const fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::BadRequest => "BadRequest",
        Kind::Unauthorized => "Unauthorized",
        Kind::Forbidden => "Forbidden",
        Kind::NotFound => "NotFound",
        Kind::MethodNotAllowed => "MethodNotAllowed",
        Kind::Conflict => "Conflict",
        Kind::PayloadTooLarge => "PayloadTooLarge",
        Kind::UnsupportedMediaType => "UnsupportedMediaType",
        Kind::TooManyRequests => "TooManyRequests",
        Kind::StoreUnavailable => "StoreUnavailable",
        Kind::UpstreamUnavailable => "UpstreamUnavailable",
        Kind::Internal => "Internal",
    }
}

const fn meaning(kind: Kind) -> &'static str {
    match kind {
        Kind::BadRequest => "The path, the query or the body is not as described.",
        Kind::Unauthorized => "The admin token is missing or is another one.",
        Kind::Forbidden => {
            "A page of another site asked for a change, or, without a token, `Host` is no name of \
             this machine."
        }
        Kind::NotFound => "There is nothing of this name.",
        Kind::MethodNotAllowed => "The path has other methods.",
        Kind::Conflict => "The state of things does not allow it; the message says what does.",
        Kind::PayloadTooLarge => "The body is longer than 64 KiB.",
        Kind::UnsupportedMediaType => "The body is announced as something else than JSON.",
        Kind::TooManyRequests => "Too many wrong admin tokens came from the address that asks.",
        Kind::StoreUnavailable => "The store cannot be used now, or the proxy is being stopped.",
        Kind::UpstreamUnavailable => {
            "The upstream, which had to be asked, did not answer as it should."
        }
        Kind::Internal => "A bug or a damaged store; the log says more.",
    }
}

fn describe(kind: Kind) -> Response {
    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("Error"))).build();
    let answer = ResponseBuilder::new().description(meaning(kind)).content(JSON, body);
    let answer = match kind {
        Kind::Unauthorized => {
            let text = ObjectBuilder::new().schema_type(Type::String).build();
            answer.header("WWW-Authenticate", header("How to show who asks.", text))
        }
        Kind::MethodNotAllowed => {
            let text = ObjectBuilder::new().schema_type(Type::String).build();
            answer.header("Allow", header("The methods that the path has.", text))
        }
        Kind::TooManyRequests | Kind::StoreUnavailable => {
            let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).build();
            answer.header("Retry-After", header("Seconds after which to ask again.", seconds))
        }
        Kind::BadRequest
        | Kind::Forbidden
        | Kind::NotFound
        | Kind::Conflict
        | Kind::PayloadTooLarge
        | Kind::UnsupportedMediaType
        | Kind::UpstreamUnavailable
        | Kind::Internal => answer,
    };
    answer.build()
}

const JSON: &str = "application/json";

fn header(about: &str, schema: Object) -> Header {
    HeaderBuilder::new().schema(Some(schema)).description(Some(about)).build()
}
