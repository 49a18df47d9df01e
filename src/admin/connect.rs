//! Connecting accounts: an operator asks for a consent, and sees how it stands.
//!
//! What happens is up to `connect`; this file reads requests and writes answers. Where a browser
//! comes back to is in `callback`.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::HeaderMap;
use serde::Serialize;
use serde_json::Value;
use tracing::info;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, SchemaType, Type};

use super::body::{Fields, Named};
use super::document::one_of;
use super::errors::{AdminError, Kind};
use super::{AUDIT, Desk, Shared, answers, names};
use crate::connect::{BeginError, Flow, Progress};
use crate::engine::{ApiKeyName, TenantName};
use crate::telemetry::events::rfc3339;

/// How an account is to be connected.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it describes what `begin` reads")]
enum Connecting {
    ByLink(#[schema(inline)] ByLink),
    ByCode(#[schema(inline)] ByCode),
}

/// The owner opens a link.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it describes what `begin` reads")]
struct ByLink {
    #[schema(value_type = names::ApiKeyName)]
    api_key: String,
    #[schema(schema_with = code_or_null)]
    flow: Option<String>,
    /// Where the owner is sent at the end: a page of an origin that `oauth.return_to_origins` has.
    #[schema(max_length = 2_048, format = "uri")]
    return_to: Option<String>,
}

/// The owner types a code in elsewhere.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it describes what `begin` reads")]
struct ByCode {
    #[schema(value_type = names::ApiKeyName)]
    api_key: String,
    #[schema(schema_with = device)]
    flow: String,
}

fn code_or_null() -> Object {
    let mut flow = one_of([Flow::Code.as_str()]);
    flow.schema_type = SchemaType::from_iter([Type::String, Type::Null]);
    flow.enum_values.get_or_insert_default().push(Value::Null);
    flow
}

fn device() -> Object {
    one_of([Flow::Device.as_str()])
}

/// What the owner is to be given.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it describes what `begin` answers")]
enum Begun {
    Link(LinkView),
    Code(CodeView),
}

/// What an owner opens.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Link)]
pub(super) struct LinkView {
    #[schema(format = "uri")]
    authorize_url: String,
    #[schema(format = DateTime)]
    expires_at: String,
}

/// What an owner types in.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Code)]
pub(super) struct CodeView {
    user_code: String,
    verification_uri: String,
    /// The same with the code in it, when the upstream names one.
    #[schema(required)]
    verification_uri_complete: Option<String>,
    #[schema(format = DateTime)]
    expires_at: String,
    /// Seconds between two questions of the proxy.
    interval: u64,
}

/// How connecting an account stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Standing)]
pub(super) struct StandingView {
    #[schema(schema_with = flows)]
    flow: &'static str,
    #[schema(schema_with = progress)]
    state: &'static str,
    /// Why it failed, in words.
    #[schema(required)]
    reason: Option<String>,
    #[schema(format = DateTime)]
    expires_at: String,
}

fn flows() -> Object {
    one_of([Flow::Code, Flow::Device].map(Flow::as_str))
}

fn progress() -> Object {
    one_of(["pending", "connected", "failed"])
}

/// Begins to connect an account
///
/// The tenant may be new or there; what was begun for it before does not count any more.
#[utoipa::path(
    post,
    path = "/v1/tenants/{tenant}/connect",
    operation_id = "begin_connect",
    tag = "connect",
    params(("tenant" = names::TenantName, Path, description = "The tenant.")),
    request_body = Connecting,
    responses(
        (
            status = 200,
            description = "A link or a code for the owner.",
            body = Begun,
            links(("standing" = (
                operation_id = "show_connect",
                parameters(("tenant" = "$request.path.tenant"))
            )))
        ),
        answers::Told,
        answers::Contended,
        answers::Passed,
        answers::Kept
    )
)]
pub(super) async fn begin(
    State(shared): Desk,
    Named(tenant): Named<TenantName>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, AdminError> {
    let mut fields = Fields::read::<Connecting>(&headers, body).await?;
    let api_key: ApiKeyName = fields.name("api_key")?;
    let return_to = text(&mut fields, "return_to")?;
    let flow = text(&mut fields, "flow")?;
    match (flow.as_deref(), return_to) {
        (None | Some("code"), return_to) => {
            let link = shared.parts.connect.begin(tenant.clone(), &api_key, return_to).await?;
            info!(target: AUDIT, %tenant, %api_key, "link to connect made for an operator");
            let expires_at = rfc3339(link.expires_at);
            Ok(Json(LinkView { authorize_url: link.authorize_url, expires_at }).into_response())
        }
        (Some("device"), None) => begin_device(shared, tenant, api_key).await,
        (Some("device"), Some(_)) => {
            Err(AdminError::bad_request("return_to goes with a link, not with flow device"))
        }
        (Some(_), _) => Err(AdminError::bad_request("flow is code (default) or device")),
    }
}

/// Runs to its end also when the operator leaves: the upstream counts each code.
async fn begin_device(
    shared: Arc<Shared>,
    tenant: TenantName,
    api_key: ApiKeyName,
) -> Result<Response, AdminError> {
    let whole = Arc::clone(&shared);
    let change = async move {
        let code = shared.parts.connect.begin_device(tenant.clone(), &api_key).await?;
        info!(target: AUDIT, %tenant, %api_key, "code to connect asked for by an operator");
        Ok(Json(CodeView {
            user_code: code.user_code,
            verification_uri: code.verification_uri,
            verification_uri_complete: code.verification_uri_complete,
            expires_at: rfc3339(code.expires_at),
            interval: code.interval.as_secs(),
        })
        .into_response())
    };
    whole.change(change).await
}

/// Shows how connecting an account stands
///
/// It is known for an hour.
#[utoipa::path(
    get,
    path = "/v1/tenants/{tenant}/connect",
    operation_id = "show_connect",
    tag = "connect",
    params(("tenant" = names::TenantName, Path, description = "The tenant.")),
    responses((status = 200, description = "How it stands.", body = StandingView), answers::Named)
)]
pub(super) async fn standing(
    State(shared): Desk,
    Named(tenant): Named<TenantName>,
) -> Result<Json<StandingView>, AdminError> {
    let standing = shared.parts.connect.standing(&tenant).ok_or_else(|| {
        let message = format!("nobody has asked to connect {tenant} lately; POST here to do so");
        AdminError::new(Kind::NotFound, message)
    })?;
    let (state, reason) = match standing.progress {
        Progress::Pending => ("pending", None),
        Progress::Connected => ("connected", None),
        Progress::Failed { reason } => ("failed", Some(reason)),
    };
    let (flow, expires_at) = (standing.flow.as_str(), rfc3339(standing.expires_at));
    Ok(Json(StandingView { flow, state, reason, expires_at }))
}

fn text(fields: &mut Fields, name: &str) -> Result<Option<String>, AdminError> {
    match fields.take(name) {
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(AdminError::bad_request(format!("{name} must be text"))),
        None => Ok(None),
    }
}

impl From<BeginError> for AdminError {
    fn from(fault: BeginError) -> Self {
        match fault {
            BeginError::UnknownApiKey => Self::bad_request(format!(
                "{fault}; name one of those that GET /v1/api-keys lists, or configure it first"
            )),
            BeginError::NoRedirectUri(_) | BeginError::TooMany(_) => {
                Self::new(Kind::Conflict, fault.to_string())
            }
            BeginError::Upstream(_) => Self::new(Kind::UpstreamUnavailable, fault.to_string()),
            BeginError::ReturnTo(_) => Self::bad_request(fault.to_string()),
            BeginError::Store(fault) => fault.into(),
        }
    }
}
