//! Clients: the programs that may call, and the one answer that shows a key.

use std::collections::BTreeSet;

use axum::Json;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use http::{HeaderMap, StatusCode};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use tracing::info;

use super::Desk;
use super::body::{Fields, Named};
use super::errors::AdminError;
use super::page::{Page, Query};
use crate::engine::{ClientName, TenantName};
use crate::store::TenantScope;
use crate::telemetry::Event;
use crate::telemetry::events::rfc3339;

/// A client as operators see it.
#[derive(Debug, Serialize)]
pub(super) struct ClientView {
    name: String,
    #[serde(serialize_with = "scope")]
    tenants: TenantScope,
    created_at: String,
}

/// `GET /v1/clients`
pub(super) async fn list(
    State(shared): Desk,
    RawQuery(query): RawQuery,
) -> Result<Json<Page<ClientView>>, AdminError> {
    let query = Query::read(query.as_deref(), &[])?;
    let page = query.cut(shared.parts.clients.list(), |client| client.name.as_str());
    Ok(Json(page.map(|client| ClientView {
        name: client.name.as_str().to_owned(),
        tenants: client.tenants.clone(),
        created_at: rfc3339(client.created_at),
    })))
}

/// `POST /v1/clients`
pub(super) async fn add(
    State(shared): Desk,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), AdminError> {
    let mut fields = Fields::read(&headers, body).await?;
    let name: ClientName = fields.name("name")?;
    let tenants = read_scope(fields.take("tenants"))?;
    fields.end("name, tenants")?;
    let whole = shared.clone();
    let change = async move {
        let _order = shared.order.lock().await;
        let key = shared.parts.clients.add(name.clone(), tenants.clone()).await?;
        shared.parts.events.publish(Event::ClientAdded { name: name.clone() });
        info!(client = %name, "client added by an operator");
        let shown = json!({
            "name": name.as_str(),
            "tenants": scope_value(&tenants),
            "key": key.expose(),
        });
        Ok((StatusCode::CREATED, Json(shown)))
    };
    whole.change(change).await
}

/// `DELETE /v1/clients/{name}`
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
