//! `GET /openapi.json`: what this listener can be asked and what it may answer, in OpenAPI 3.1.
//!
//! The routes write it: `routes!` takes a handler into the router and its description into the
//! document in one step, and readers take from a description which fields and parameters they know.
//! What holds for every path is added here, once: who is let in, and what a bug answers.

use axum::extract::State;
use axum::response::IntoResponse;
use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use utoipa::ToSchema;
use utoipa::openapi::info::{InfoBuilder, License};
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::schema::{ComponentsBuilder, Object, ObjectBuilder, Schema, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{OpenApi, OpenApiBuilder, RefOr, Required};

use super::{Desk, answers, auth, names};

/// What the bearer token is called in the document.
const TOKEN: &str = "admin_token";
/// Calls that may come without a body, though they have one.
const BODY_OPTIONAL: [&str; 1] = ["rotate_client"];
/// The groups of calls, in the order in which a reader needs them.
const TAGS: [(&str, &str); 6] = [
    ("monitoring", "Does it live, is it ready, what does it count, what happens."),
    ("api-keys", "Constant Contact applications: their limits, queues and days."),
    ("tenants", "Connected accounts: their tokens and states."),
    ("connect", "How the owner of an account connects it."),
    ("clients", "Programs that may call."),
    ("custody", "Grants and keys: what leaves, sealed, and what seals."),
];
const ABOUT: &str = "\
What operators and monitors ask of ctct-proxy, on the address `server.admin_listen`.

Times are RFC 3339 in UTC. Lists come in pieces, in the order of names: `next_cursor` of an answer \
is `cursor` of the next request, and null at the end. Every error is an `Error`; its message says \
what to do and never repeats a value that was sent.

With a token configured, every path but those without `security` wants it. Without one, as where \
this document names none, the listener is on loopback and answers only to names of this machine in \
`Host`. A \
path that is not in this document answers 404, a method that a path does not have 405 with \
`Allow`; `HEAD` is answered where `GET` is, but at `/oauth/callback`. A request head that is \
longer than 8 KiB or is no HTTP is refused with a status alone. Answers may have more fields than \
a reader knows.";

/// The document before the first route.
pub(super) fn opened() -> OpenApi {
    let mut license = License::new("MIT OR Apache-2.0");
    license.identifier = Some("MIT OR Apache-2.0".to_owned());
    let info = InfoBuilder::new()
        .title("ctct-proxy admin API")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT))
        .license(Some(license))
        .build();
    let token = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("The content of the file that `admin.token_file` names."))
        .build();
    let components = ComponentsBuilder::new()
        .security_scheme(TOKEN, SecurityScheme::Http(token))
        .schema_from::<answers::ErrorBody>()
        .schema_from::<names::TenantName>()
        .responses_from_iter(answers::all());
    let tag = |(name, about)| TagBuilder::new().name(name).description(Some(about)).build();
    OpenApiBuilder::new()
        .info(info)
        .components(Some(components.build()))
        .security(Some([SecurityRequirement::new(TOKEN, [] as [&str; 0])]))
        .tags(Some(TAGS.map(tag)))
        .build()
}

/// The document after the last route, as it is served by a listener that wants a token or none.
pub(super) fn closed(mut document: OpenApi, wants_token: bool) -> Bytes {
    if !wants_token {
        document.security = None;
        if let Some(components) = &mut document.components {
            components.security_schemes.clear();
        }
    }
    for (path, item) in &mut document.paths.paths {
        let is_open = auth::OPEN.contains(&path.as_str());
        for operation in operations(item) {
            if operation.operation_id.as_deref().is_some_and(|id| BODY_OPTIONAL.contains(&id))
                && let Some(RefOr::T(body)) = &mut operation.request_body
            {
                body.required = Some(Required::False);
            }
            let answers = &mut operation.responses.responses;
            answers.extend(answers::of_every_path());
            if !is_open {
                answers.extend(answers::of_every_guarded_path(wants_token));
            } else if wants_token {
                operation.security = Some(Vec::new());
            }
        }
    }
    document.to_json().expect("texts, numbers and lists are JSON").into()
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, options, head, patch, trace, .. } = item;
    [get, put, post, delete, options, head, patch, trace].into_iter().flatten()
}

/// Shows this document
///
/// It is made from the routes themselves.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "read_document",
    tag = "monitoring",
    responses((status = 200, description = "OpenAPI 3.1.", body = Object))
)]
pub(super) async fn read(State(shared): Desk) -> impl IntoResponse {
    let json = HeaderValue::from_static("application/json");
    ([(CONTENT_TYPE, json)], shared.document.clone())
}

/// A text that is one of a few.
pub(super) fn one_of(words: impl IntoIterator<Item = &'static str>) -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words)).build()
}

/// The names of the fields of an object, whichever of its forms has them.
pub(super) fn fields<T: ToSchema>() -> Vec<String> {
    let mut names = Vec::new();
    collect(&T::schema(), &mut names);
    names
}

fn collect(schema: &RefOr<Schema>, names: &mut Vec<String>) {
    match schema {
        RefOr::T(Schema::Object(object)) => {
            for name in object.properties.keys() {
                if !names.contains(name) {
                    names.push(name.clone());
                }
            }
        }
        RefOr::T(Schema::OneOf(forms)) => {
            forms.items.iter().for_each(|form| collect(form, names));
        }
        RefOr::T(_) | RefOr::Ref(_) => {}
    }
}
