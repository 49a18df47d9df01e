//! `POST /v1/export`: grants for another place, sealed to those who may open them.
//!
//! The one way by which tokens leave, and never in the clear: the answer is an age file of JSON
//! lines, as imports read them. All grants are taken out before the answer begins, so that its head
//! says how many are in it; each is copied while no refresh of it is under way. What is left out,
//! and who may open the file, stands in the log.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use futures_util::stream::{self, StreamExt as _};
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue};
use serde::Serialize;
use serde_json::Value;
use tracing::{info, warn};
use utoipa::ToSchema;
use utoipa::openapi::schema::{Array, ArrayBuilder, ObjectBuilder, Type};
use zeroize::Zeroizing;

use super::body::Fields;
use super::errors::{AdminError, Kind};
use super::{AUDIT, Desk, Shared, answers, names};
use crate::engine::{ApiKeyName, NameError, TenantName, Unix};
use crate::secret::age_file::{AgeKeyError, Recipients};
use crate::store::Grant;
use crate::tokens::{Afterwards, TakeOutError, TenantState, TenantStatus, Tokens};

/// How many grants are in the answer, and how many were to be and are not.
const EXPORTED: HeaderName = HeaderName::from_static("ctct-proxy-exported");
const LEFT_OUT: HeaderName = HeaderName::from_static("ctct-proxy-left-out");
/// Longest wait for a refresh that is under way: one that takes longer does not end well.
const REFRESH_WAIT: Duration = Duration::from_secs(60);
/// Tenants that are taken out at a time.
const AT_ONCE: usize = 16;

/// What is asked for.
struct Order {
    recipients: Recipients,
    /// `None` for all.
    tenants: Option<BTreeSet<TenantName>>,
    api_key: Option<ApiKeyName>,
    afterwards: Afterwards,
    dry_run: bool,
}

/// Which grants are to leave, and to whom.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Export)]
#[expect(dead_code, reason = "it describes what `Order` reads")]
struct OrderGiven {
    #[schema(schema_with = recipients)]
    recipients: Vec<String>,
    /// Those to export, all of which must be there and usable; without it all that are usable.
    #[schema(value_type = Option<Vec<names::TenantName>>)]
    tenants: Option<Vec<String>>,
    /// Only those of this API key.
    #[schema(value_type = Option<names::ApiKeyName>)]
    api_key: Option<String>,
    /// Hold the tenants here when they have left.
    pause: Option<bool>,
    /// Say what would be exported, and do nothing.
    dry_run: Option<bool>,
}

fn recipients() -> Array {
    let recipient = ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some("^age1[02-9ac-hj-np-z]{58}$"))
        .examples(["age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"]);
    ArrayBuilder::new()
        .items(recipient)
        .min_items(Some(1))
        .description(Some("Who may open the file."))
        .build()
}

/// What would be exported.
#[derive(Serialize, ToSchema)]
struct ExportPlan {
    #[schema(value_type = Vec<names::TenantName>)]
    tenants: Vec<String>,
    left_out: Vec<LeftOut>,
}

/// A tenant that is not exported, and why.
#[derive(Serialize, ToSchema)]
struct LeftOut {
    #[schema(value_type = names::TenantName)]
    tenant: String,
    reason: String,
}

/// A line of the file.
#[derive(Serialize)]
struct Line<'a> {
    tenant: &'a str,
    api_key: &'a str,
    refresh_token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_token: Option<&'a str>,
    weight: u32,
}

/// Exports grants
///
/// The answer is an age file of JSON lines, sealed to its recipients, as `ctct-proxy tenant import`
/// reads it. It is the one way by which tokens leave.
#[utoipa::path(
    post,
    path = "/v1/export",
    operation_id = "export_grants",
    tag = "custody",
    request_body = OrderGiven,
    responses(
        (
            status = 200,
            description = "The file, or the plan of a dry run.",
            content(
                ([u8] = "application/octet-stream"),
                (ExportPlan = "application/json")
            ),
            headers(
                ("Ctct-Proxy-Exported" = u64, description = "Grants in the file."),
                ("Ctct-Proxy-Left-Out" = u64, description = "Grants that should be and are not.")
            )
        ),
        answers::Told,
        answers::Sought,
        answers::Contended
    )
)]
pub(super) async fn export(
    State(shared): Desk,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, AdminError> {
    let order = Order::read(Fields::read::<OrderGiven>(&headers, body).await?)?;
    let (tenants, left_out) = choose(&order, &shared.parts.tokens.list().await)?;
    if order.dry_run {
        let tenants = tenants.iter().map(|tenant| tenant.as_str().to_owned()).collect();
        return Ok(Json(ExportPlan { tenants, left_out }).into_response());
    }
    let whole = shared.clone();
    whole.change(async move { seal(&shared, order, tenants, left_out).await }).await
}

async fn seal(
    shared: &Arc<Shared>,
    order: Order,
    tenants: Vec<TenantName>,
    mut left_out: Vec<LeftOut>,
) -> Result<Response, AdminError> {
    let tokens = &shared.parts.tokens;
    let take = |tenant| take(tokens.clone(), tenant, order.afterwards);
    let mut taking = stream::iter(tenants).map(take).buffered(AT_ONCE);
    let mut grants = Vec::new();
    while let Some(taken) = taking.next().await {
        match taken {
            Ok(grant) => grants.push(grant),
            Err((tenant, reason)) => {
                left_out.push(LeftOut { tenant: tenant.as_str().to_owned(), reason });
            }
        }
    }
    for LeftOut { tenant, reason } in &left_out {
        warn!(%tenant, %reason, "tenant left out of an export");
    }
    for grant in &grants {
        let held = order.afterwards == Afterwards::Held;
        info!(target: AUDIT, tenant = %grant.tenant, held, "tenant exported by an operator");
    }
    let recipients = order.recipients.texts().join(" ");
    let (exported, missing) = (grants.len(), left_out.len());
    info!(
        target: AUDIT,
        %recipients,
        exported,
        left_out = missing,
        "grants exported by an operator"
    );
    let now = shared.parts.clock.now().unix;
    let lines = grants.into_iter().map(move |grant| line(&grant, now));
    let file = order.recipients.seal(lines).map_err(|_| AdminError::internal())?;
    let mut answer = Body::from_stream(stream::iter(file)).into_response();
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(EXPORTED, exported.into());
    headers.insert(LEFT_OUT, missing.into());
    Ok(answer)
}

/// Takes one tenant out, or says why not.
async fn take(
    tokens: Tokens,
    tenant: TenantName,
    afterwards: Afterwards,
) -> Result<Box<Grant>, (TenantName, String)> {
    match tokio::time::timeout(REFRESH_WAIT, tokens.take_out(&tenant, afterwards)).await {
        Ok(Ok(grant)) => Ok(grant),
        Ok(Err(why)) => Err((tenant, why.to_string())),
        Err(_) => Err((tenant, "a refresh is under way and does not end".to_owned())),
    }
}

/// The tenants to be exported, and those that cannot be. Of tenants that are named, all must be
/// exportable.
fn choose(
    order: &Order,
    all: &[TenantStatus],
) -> Result<(Vec<TenantName>, Vec<LeftOut>), AdminError> {
    if let Some(named) = &order.tenants {
        let known: BTreeSet<&TenantName> = all.iter().map(|status| &status.tenant).collect();
        if let Some(unknown) = named.iter().find(|tenant| !known.contains(tenant)) {
            return Err(AdminError::not_found("tenant", unknown));
        }
    }
    let wanted = all.iter().filter(|status| {
        order.tenants.as_ref().is_none_or(|named| named.contains(&status.tenant))
            && order.api_key.as_ref().is_none_or(|api_key| *api_key == status.api_key)
    });
    let (dead, good): (Vec<&TenantStatus>, Vec<_>) =
        wanted.partition(|status| status.state == TenantState::NeedsAuthorization);
    let why = TakeOutError::NeedsAuthorization.to_string();
    if let Some(status) = dead.first().filter(|_| order.tenants.is_some()) {
        let message = format!("tenant {} is not exported: {why}", status.tenant);
        return Err(AdminError::new(Kind::Conflict, message));
    }
    if good.is_empty() {
        let message = "there is no tenant that could be exported";
        return Err(AdminError::new(Kind::Conflict, message));
    }
    let left_out = dead
        .iter()
        .map(|status| LeftOut { tenant: status.tenant.as_str().to_owned(), reason: why.clone() });
    Ok((good.iter().map(|status| status.tenant.clone()).collect(), left_out.collect()))
}

/// A line in memory that is wiped, large enough from the start: a buffer that grows would leave
/// copies behind.
fn line(grant: &Grant, now: Unix) -> Zeroizing<Vec<u8>> {
    let lives = grant.tokens.access_expires_at.is_some_and(|until| now < until);
    let access = grant.tokens.access.as_ref().filter(|_| lives);
    let line = Line {
        tenant: grant.tenant.as_str(),
        api_key: grant.api_key.as_str(),
        refresh_token: grant.tokens.refresh.expose(),
        access_token: access.map(|token| token.expose().as_str()),
        weight: grant.weight,
    };
    let tokens = line.refresh_token.len() + line.access_token.map_or(0, str::len);
    let mut text = Zeroizing::new(Vec::with_capacity(2 * tokens + 1_024));
    serde_json::to_writer(&mut *text, &line).expect("texts and numbers are JSON");
    text.push(b'\n');
    text
}

impl Order {
    fn read(mut fields: Fields) -> Result<Self, AdminError> {
        let recipients = texts(fields.take("recipients"), "recipients")?.unwrap_or_default();
        let recipients = Recipients::read(&recipients)?;
        let tenants = texts(fields.take("tenants"), "tenants")?;
        let tenants = tenants.map(|names| names.iter().map(|name| name.parse()).collect());
        let tenants = tenants.transpose().map_err(|error: NameError| {
            AdminError::bad_request(format!("tenants holds a name that is none: {error}"))
        })?;
        let api_key = match fields.take("api_key") {
            None => None,
            Some(Value::String(text)) => Some(text.parse().map_err(|error: NameError| {
                AdminError::bad_request(format!("api_key is no name: {error}"))
            })?),
            Some(_) => return Err(AdminError::bad_request("api_key must be text")),
        };
        let pause = switch(fields.take("pause").as_ref(), "pause")?;
        let afterwards = if pause { Afterwards::Held } else { Afterwards::GoesOn };
        let dry_run = switch(fields.take("dry_run").as_ref(), "dry_run")?;
        Ok(Self { recipients, tenants, api_key, afterwards, dry_run })
    }
}

fn texts(value: Option<Value>, field: &str) -> Result<Option<Vec<String>>, AdminError> {
    let wrong = || AdminError::bad_request(format!("{field} must be a list of texts"));
    let Some(value) = value else { return Ok(None) };
    let Value::Array(items) = value else { return Err(wrong()) };
    let texts = items.into_iter().map(|item| match item {
        Value::String(text) => Ok(text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Err(wrong())
        }
    });
    texts.collect::<Result<_, _>>().map(Some)
}

fn switch(value: Option<&Value>, field: &str) -> Result<bool, AdminError> {
    match value {
        None => Ok(false),
        Some(Value::Bool(on)) => Ok(*on),
        Some(_) => Err(AdminError::bad_request(format!("{field} must be true or false"))),
    }
}

impl From<AgeKeyError> for AdminError {
    fn from(fault: AgeKeyError) -> Self {
        Self::bad_request(format!("recipients: {fault}"))
    }
}
