//! The instances that share this one's store, as the roll of the store has them.
//!
//! Each says of itself where it listens and what it is; the store says when it last heard it.
//! While the store is lost the last roll that was read is shown, with the moment of it. An instance
//! with a store of its own is the only one.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{RawQuery, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::schema::Object;

use super::document::one_of;
use super::errors::AdminError;
use super::page::{Page, Piece, Query};
use super::{Desk, Shared, answers};
use crate::engine::Unix;
use crate::engine::turnstile::{Away, Member, Roll, Stamp};
use crate::telemetry::events::rfc3339;

/// The states of an instance that are counted; one that is back is here too.
pub(super) const COUNTED: [&str; 2] = ["here", "silent"];
const STATES: [&str; 3] = ["here", "silent", "back"];
const STORES: [&str; 2] = ["shared", "own"];

/// An instance as operators see it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Instance)]
pub(super) struct InstanceView {
    /// Tells its process from all others.
    id: String,
    /// Where it listens, on which host.
    name: String,
    #[serde(flatten)]
    details: Details,
    /// `silent` is one that the store has not heard for some seconds: its part of the limits is
    /// left to it. `back` is one that was, a moment ago.
    #[schema(schema_with = states)]
    state: &'static str,
    #[schema(format = DateTime)]
    last_seen_at: String,
    /// Whether it is the one that answers.
    #[serde(rename = "self")]
    is_self: bool,
    /// Calls a window, by API key, that it may go on with by itself should it lose the store. None
    /// where it would refuse.
    slots: BTreeMap<String, u32>,
    #[schema(schema_with = stores)]
    store: &'static str,
}

/// What an instance says of itself; another version may not say all of it.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
struct Details {
    #[schema(required)]
    host: Option<String>,
    /// Where calls go.
    #[schema(required)]
    listen: Option<String>,
    #[schema(required)]
    admin_listen: Option<String>,
    #[schema(required)]
    version: Option<String>,
    #[schema(required, format = DateTime)]
    started_at: Option<String>,
}

/// A piece of the list, and when the store was last heard.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Instances {
    #[serde(flatten)]
    page: Page<InstanceView>,
    /// The store's clock when this was read from it.
    #[schema(format = DateTime)]
    read_at: String,
    /// Whether the store does not answer: then this is what was known before.
    store_lost: bool,
}

fn states() -> Object {
    one_of(STATES)
}

fn stores() -> Object {
    one_of(STORES)
}

/// Lists the instances that share the store
///
/// In the order of their ids. An instance that has its store for itself is alone on it.
#[utoipa::path(
    get,
    path = "/v1/instances",
    operation_id = "list_instances",
    tag = "monitoring",
    params(Piece),
    responses(
        (status = 200, description = "A piece of the list.", body = Instances),
        answers::Asked
    )
)]
pub(super) async fn list(
    State(shared): Desk,
    RawQuery(query): RawQuery,
) -> Result<Json<Instances>, AdminError> {
    let query = Query::read(query.as_deref())?;
    let roll = shared.parts.gate.roll();
    let (views, read_at) = match &roll {
        Some(roll) => (of_roll(&shared, roll), moment(roll.at)),
        None => alone(&shared),
    };
    let page = query.cut(views, |view| &view.id);
    let store_lost = shared.parts.gate.has_lost_store();
    Ok(Json(Instances { page, read_at, store_lost }))
}

/// How many instances are here and how many are silent.
pub(super) fn counts(shared: &Shared) -> [usize; 2] {
    let Some(roll) = shared.parts.gate.roll() else { return [1, 0] };
    let is_silent = |member: &&Member| member.away == Some(Away::Silent);
    let silent = roll.members.iter().filter(is_silent).count();
    [roll.members.len() - silent, silent]
}

fn of_roll(shared: &Shared, roll: &Roll) -> Vec<InstanceView> {
    let limits = limits(shared);
    let view = |member: &Member| {
        let is_self = member.id == shared.parts.instance.id;
        // what it was last given; of itself an instance knows whether it heard that
        let part = if is_self { roll.part } else { member.parts[1] };
        let slots = limits.iter().map(|(name, calls)| (name.clone(), part.slots(*calls)));
        InstanceView {
            id: member.id.clone(),
            name: member.name.clone(),
            details: details(&member.details),
            state: match member.away {
                None => "here",
                Some(Away::Silent) => "silent",
                Some(Away::Back(_)) => "back",
            },
            last_seen_at: moment(if is_self { roll.at } else { member.seen }),
            is_self,
            slots: slots.collect(),
            store: "shared",
        }
    };
    let mut views: Vec<_> = roll.members.iter().map(view).collect();
    views.sort_by(|one, other| one.id.cmp(&other.id));
    views
}

/// The only one, or one of several that has not heard of the others yet.
fn alone(shared: &Shared) -> (Vec<InstanceView>, String) {
    let now = rfc3339(shared.parts.clock.now().unix);
    let (instance, is_shared) = (&shared.parts.instance, shared.parts.store.is_shared());
    let calls = |calls: u32| if is_shared { 0 } else { calls };
    let slots = limits(shared).into_iter().map(|(name, all)| (name, calls(all)));
    let view = InstanceView {
        id: instance.id.clone(),
        name: instance.name.clone(),
        details: details(&instance.details),
        state: "here",
        last_seen_at: now.clone(),
        is_self: true,
        slots: slots.collect(),
        store: if is_shared { "shared" } else { "own" },
    };
    (vec![view], now)
}

/// The calls of a window of each API key.
fn limits(shared: &Shared) -> Vec<(String, u32)> {
    let config = shared.parts.config.load();
    config.api_keys.iter().map(|key| (key.name.to_string(), key.rate.calls())).collect()
}

fn details(text: &str) -> Details {
    serde_json::from_str(text).unwrap_or_default()
}

fn moment(at: Stamp) -> String {
    rfc3339(Unix::new(std::time::Duration::from_micros(at.0)))
}
