//! Clients: the programs that may call, and the answers that show a key.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use http::{HeaderMap, StatusCode};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use tracing::info;
use utoipa::ToSchema;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::openapi::{Ref, RefOr};

use super::body::{Fields, Named};
use super::errors::AdminError;
use super::page::{Page, Piece, Query};
use super::{AUDIT, Desk, answers, names};
use crate::engine::{ClientName, TenantName};
use crate::secret::ClientKey;
use crate::store::{Client, TenantScope};
use crate::telemetry::Event;
use crate::telemetry::events::rfc3339;

/// A client as operators see it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Client)]
pub(super) struct ClientView {
    #[schema(value_type = names::ClientName)]
    name: String,
    #[serde(serialize_with = "scope")]
    #[schema(schema_with = scope_schema)]
    tenants: TenantScope,
    #[schema(format = DateTime)]
    created_at: String,
    /// When its key stops working.
    #[schema(required, format = DateTime)]
    expires_at: Option<String>,
    /// Until when the key before it works too.
    #[schema(required, format = DateTime)]
    previous_key_until: Option<String>,
    #[schema(required, format = DateTime)]
    last_used_at: Option<String>,
}

/// A program that is to call.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it describes what `add` reads")]
struct NewClient {
    #[schema(value_type = names::ClientName)]
    name: String,
    #[schema(schema_with = scope_schema)]
    tenants: TenantScope,
    /// Seconds after which its key stops working; without it the key works until it is replaced.
    #[schema(minimum = 1, maximum = 316_224_000)]
    expires_in: Option<u64>,
}

/// How a key is replaced.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it describes what `rotate` reads")]
struct KeyRotation {
    /// Seconds for which the key that is replaced works too; a day when it is not given.
    #[schema(minimum = 0, maximum = 7_776_000)]
    overlap: Option<u64>,
    /// Seconds after which the new key stops working.
    #[schema(minimum = 1, maximum = 316_224_000)]
    expires_in: Option<u64>,
}

/// The answer that shows a key.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NewKey)]
pub(super) struct NewKeyView {
    #[schema(value_type = names::ClientName)]
    name: String,
    #[serde(serialize_with = "scope")]
    #[schema(schema_with = scope_schema)]
    tenants: TenantScope,
    /// What the program sends as its bearer token. It is shown this once.
    key: String,
    #[schema(required, format = DateTime)]
    expires_at: Option<String>,
    /// Until when the key before it works too.
    #[schema(required, format = DateTime)]
    previous_key_until: Option<String>,
}

/// The tenants that a client may call for: `"*"`, or a list of at least one name.
fn scope_schema() -> RefOr<Schema> {
    let all = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["*"]));
    let some = ArrayBuilder::new()
        .items(Ref::from_schema_name(names::TenantName::name()))
        .min_items(Some(1));
    OneOfBuilder::new().item(all).item(some).into()
}

/// Longest life of a key and longest time for which the key before it works too, in seconds.
const LIFE_SECS_MAX: u64 = 10 * 366 * 86_400;
const OVERLAP_SECS_MAX: u64 = 90 * 86_400;
/// How long a replaced key works when the operator does not say: a day for a rollout.
const OVERLAP: Duration = Duration::from_secs(86_400);

/// Lists the clients
#[utoipa::path(
    get,
    path = "/v1/clients",
    operation_id = "list_clients",
    tag = "clients",
    params(Piece),
    responses(
        (status = 200, description = "A piece of the list.", body = Page<ClientView>),
        answers::Asked
    )
)]
pub(super) async fn list(
    State(shared): Desk,
    RawQuery(query): RawQuery,
) -> Result<Json<Page<ClientView>>, AdminError> {
    let query = Query::read(query.as_deref())?;
    let page = query.cut(shared.parts.clients.list(), |client| client.name.as_str());
    Ok(Json(page.map(|client| ClientView {
        name: client.name.as_str().to_owned(),
        tenants: client.tenants.clone(),
        created_at: rfc3339(client.created_at),
        expires_at: client.keys.expires_at.map(rfc3339),
        previous_key_until: previous_until(&client),
        last_used_at: client.last_used_at.map(rfc3339),
    })))
}

/// Makes a client
///
/// The answer is the only one that shows its key.
#[utoipa::path(
    post,
    path = "/v1/clients",
    operation_id = "add_client",
    tag = "clients",
    request_body = NewClient,
    responses(
        (
            status = 201,
            description = "It may call.",
            body = NewKeyView,
            links(
                ("rotate" = (
                    operation_id = "rotate_client",
                    parameters(("name" = "$response.body#/name"))
                )),
                ("remove" = (
                    operation_id = "remove_client",
                    parameters(("name" = "$response.body#/name"))
                ))
            )
        ),
        answers::Told,
        answers::Contended,
        answers::Kept
    )
)]
pub(super) async fn add(
    State(shared): Desk,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<NewKeyView>), AdminError> {
    let mut fields = Fields::read::<NewClient>(&headers, body).await?;
    let name: ClientName = fields.name("name")?;
    let tenants = read_scope(fields.take("tenants"))?;
    let life = fields.seconds("expires_in", 1..=LIFE_SECS_MAX)?;
    let whole = shared.clone();
    let change = async move {
        let _order = shared.order.lock().await;
        let (key, client) = shared.parts.clients.add(name.clone(), tenants, life).await?;
        shared.parts.events.publish(Event::ClientAdded { name: name.clone() });
        info!(target: AUDIT, client = %name, "client added by an operator");
        Ok((StatusCode::CREATED, Json(shown(&key, &client))))
    };
    whole.change(change).await
}

/// Replaces the key of a client
///
/// The key before it works on for a while.
#[utoipa::path(
    post,
    path = "/v1/clients/{name}/rotate",
    operation_id = "rotate_client",
    tag = "clients",
    params(("name" = names::ClientName, Path, description = "The client.")),
    request_body(content = KeyRotation, description = "None is an empty one."),
    responses(
        (status = 200, description = "The new key.", body = NewKeyView),
        answers::Named,
        answers::Told,
        answers::Kept
    )
)]
pub(super) async fn rotate(
    State(shared): Desk,
    Named(name): Named<ClientName>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<NewKeyView>, AdminError> {
    let mut fields = Fields::read_or_none::<KeyRotation>(&headers, body).await?;
    let overlap = fields.seconds("overlap", 0..=OVERLAP_SECS_MAX)?.unwrap_or(OVERLAP);
    let life = fields.seconds("expires_in", 1..=LIFE_SECS_MAX)?;
    let whole = shared.clone();
    let change = async move {
        let _order = shared.order.lock().await;
        let rotated = shared.parts.clients.rotate(&name, overlap, life).await?;
        let (key, client) = rotated.ok_or_else(|| AdminError::not_found("client", &name))?;
        shared.parts.events.publish(Event::ClientKeyRotated { name: name.clone() });
        info!(target: AUDIT, client = %name, "client's key replaced by an operator");
        Ok(Json(shown(&key, &client)))
    };
    whole.change(change).await
}

fn shown(key: &ClientKey, client: &Client) -> NewKeyView {
    NewKeyView {
        name: client.name.as_str().to_owned(),
        tenants: client.tenants.clone(),
        key: key.expose().to_owned(),
        expires_at: client.keys.expires_at.map(rfc3339),
        previous_key_until: previous_until(client),
    }
}

fn previous_until(client: &Client) -> Option<String> {
    client.keys.previous.map(|previous| rfc3339(previous.until))
}

/// Removes a client
///
/// Its key stops working.
#[utoipa::path(
    delete,
    path = "/v1/clients/{name}",
    operation_id = "remove_client",
    tag = "clients",
    params(("name" = names::ClientName, Path, description = "The client.")),
    responses((status = 204, description = "It is gone."), answers::Named, answers::Kept)
)]
pub(super) async fn remove(
    State(shared): Desk,
    Named(name): Named<ClientName>,
) -> Result<StatusCode, AdminError> {
    let whole = shared.clone();
    let change = async move {
        let _order = shared.order.lock().await;
        if !shared.parts.clients.remove(&name).await? {
            return Err(AdminError::not_found("client", &name));
        }
        shared.parts.events.publish(Event::ClientRemoved { name: name.clone() });
        info!(target: AUDIT, client = %name, "client removed by an operator");
        Ok(StatusCode::NO_CONTENT)
    };
    whole.change(change).await
}

/// `"*"`, or a list of at least one name.
fn read_scope(value: Option<Value>) -> Result<TenantScope, AdminError> {
    let refused = || {
        AdminError::bad_request(
            "tenants must be a list of at least one tenant name, or \"*\" for every tenant",
        )
    };
    match value {
        Some(Value::String(all)) if all == "*" => Ok(TenantScope::All),
        Some(Value::Array(names)) if !names.is_empty() => {
            let names = names.iter().map(|name| {
                let name = name.as_str().ok_or_else(refused)?;
                TenantName::new(name)
                    .map_err(|why| AdminError::bad_request(format!("tenants: {why}")))
            });
            names.collect::<Result<BTreeSet<_>, _>>().map(TenantScope::Some)
        }
        Some(_) | None => Err(refused()),
    }
}

fn scope_value(tenants: &TenantScope) -> Value {
    match tenants {
        TenantScope::All => json!("*"),
        TenantScope::Some(names) => names.iter().map(TenantName::as_str).collect(),
    }
}

fn scope<S: Serializer>(tenants: &TenantScope, serializer: S) -> Result<S::Ok, S::Error> {
    scope_value(tenants).serialize(serializer)
}
