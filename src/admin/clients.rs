//! Clients: the programs that may call, and the one answer that shows a key.

use std::collections::BTreeSet;

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
use super::{Desk, answers, names};
use crate::engine::{ClientName, TenantName};
use crate::store::TenantScope;
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
}

/// A client that was made.
#[derive(Serialize, ToSchema)]
pub(super) struct ClientMade {
    #[schema(value_type = names::ClientName)]
    name: String,
    #[serde(serialize_with = "scope")]
    #[schema(schema_with = scope_schema)]
    tenants: TenantScope,
    /// What the program sends as its bearer token. It is shown this once.
    key: String,
}

/// The tenants that a client may call for: `"*"`, or a list of at least one name.
fn scope_schema() -> RefOr<Schema> {
    let all = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["*"]));
    let some = ArrayBuilder::new()
        .items(Ref::from_schema_name(names::TenantName::name()))
        .min_items(Some(1));
    OneOfBuilder::new().item(all).item(some).into()
}

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
            body = ClientMade,
            links(("remove" = (
                operation_id = "remove_client",
                parameters(("name" = "$response.body#/name"))
            )))
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
) -> Result<(StatusCode, Json<ClientMade>), AdminError> {
    let mut fields = Fields::read::<NewClient>(&headers, body).await?;
    let name: ClientName = fields.name("name")?;
    let tenants = read_scope(fields.take("tenants"))?;
    let whole = shared.clone();
    let change = async move {
        let _order = shared.order.lock().await;
        let key = shared.parts.clients.add(name.clone(), tenants.clone()).await?;
        shared.parts.events.publish(Event::ClientAdded { name: name.clone() });
        info!(client = %name, "client added by an operator");
        let key = key.expose().to_owned();
        let shown = ClientMade { name: name.as_str().to_owned(), tenants, key };
        Ok((StatusCode::CREATED, Json(shown)))
    };
    whole.change(change).await
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
        info!(client = %name, "client removed by an operator");
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
