//! Bulk activities: imports that change contacts, other bulk calls that only pretend, and their
//! states.
//!
//! An activity is `initialized` for a second and `processing` for two more; its effect on contacts
//! is there at once. A body over 4 MB is cut without a word, as the real service documents. An
//! account holds at most 1,000 unfinished activities.

use std::time::Duration;

use csv::ReaderBuilder;
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use crate::engine::{Mono, Now};

use super::account::{
    Call, Ids, Kind, Served, invalid, method_not_allowed, not_found, text, time_text,
};
use super::answer::{Answer, problem};
use super::contacts::Contacts;
use super::multipart;

/// What of an import's body is read; the documents say 4 MB.
const IMPORT_BYTES_MAX: usize = 4_000_000;
const QUEUED_MAX: usize = 1_000;
const LISTS_MAX: usize = 50;
const PAGE_MAX: usize = 500;
const INITIALIZED_FOR: Duration = Duration::from_secs(1);
const DONE_AFTER: Duration = Duration::from_secs(3);
/// Bulk calls that are accepted and have no effect.
const WITHOUT_EFFECT: [&str; 9] = [
    "add_list_memberships",
    "remove_list_memberships",
    "contact_delete",
    "contact_exports",
    "list_delete",
    "contacts_taggings_add",
    "contacts_taggings_remove",
    "contacts_tags_delete",
    "custom_fields_delete",
];

/// The activities of one account, oldest first.
#[derive(Debug)]
pub(super) struct Activities {
    ids: Ids,
    all: Vec<Activity>,
}

#[derive(Debug)]
struct Activity {
    at: Now,
    items: usize,
    source_file_name: Option<String>,
}

impl Activities {
    pub(super) fn new(ids: Ids) -> Self {
        Self { ids, all: Vec::new() }
    }

    /// `/activities` and `/activities/{id or name}`.
    pub(super) fn serve(
        &mut self,
        call: &Call<'_>,
        name: Option<&str>,
        contacts: &mut Contacts,
    ) -> Served {
        let method = &call.parts.method;
        let Some(name) = name else {
            return if method == Method::GET { self.list(call) } else { Err(method_not_allowed()) };
        };
        let activity = match name {
            "contacts_json_import" | "contacts_file_import" if method != Method::POST => {
                return Err(method_not_allowed());
            }
            "contacts_json_import" => import_json(call, contacts)?,
            "contacts_file_import" => import_file(call, contacts)?,
            _ if WITHOUT_EFFECT.contains(&name) && method == Method::POST => {
                call.json()?;
                Activity { at: call.now, items: 0, source_file_name: None }
            }
            id => return self.one(call, id),
        };
        let queued =
            self.all.iter().rev().take_while(|one| one.state(call.now.mono).0 != "completed");
        if queued.count() >= QUEUED_MAX {
            let text = "The account has 1,000 queued activities.";
            return Err(problem(
                StatusCode::TOO_MANY_REQUESTS,
                "contacts.api.too_many_requests",
                text,
            ));
        }
        self.all.push(activity);
        let place = self.all.len() - 1;
        Ok(Answer::json(StatusCode::CREATED, &self.json(place, call.now)))
    }

    fn one(&self, call: &Call<'_>, id: &str) -> Served {
        let place = self.ids.place(Kind::Activity, id).filter(|&at| at < self.all.len());
        let place = place.ok_or_else(|| not_found("The activity does not exist."))?;
        if call.parts.method != Method::GET {
            return Err(method_not_allowed());
        }
        Ok(Answer::json(StatusCode::OK, &self.json(place, call.now)))
    }

    fn list(&self, call: &Call<'_>) -> Served {
        let query = call.query();
        let param = |wanted: &str| query.iter().find(|(name, _)| name == wanted).map(|(_, v)| v);
        let limit = match param("limit") {
            None => PAGE_MAX,
            Some(limit) => limit
                .parse()
                .ok()
                .filter(|limit| (1..=PAGE_MAX).contains(limit))
                .ok_or_else(|| invalid("limit must be 1 to 500"))?,
        };
        let state = param("state");
        let fits = |&place: &usize| {
            state.is_none_or(|state| self.all[place].state(call.now.mono).0 == state)
        };
        let newest_first = (0..self.all.len()).rev().filter(fits).take(limit);
        let page: Vec<Value> = newest_first.map(|place| self.json(place, call.now)).collect();
        Ok(Answer::json(StatusCode::OK, &json!({"activities": page})))
    }

    fn json(&self, place: usize, now: Now) -> Value {
        let activity = &self.all[place];
        let id = self.ids.text(Kind::Activity, place);
        let (state, percent_done) = activity.state(now.mono);
        let created = activity.at.unix.as_secs();
        let mut body = json!({
            "activity_id": id,
            "state": state,
            "created_at": time_text(created),
            "updated_at": time_text(now.unix.as_secs()),
            "percent_done": percent_done,
            "activity_errors": [],
            "status": {
                "items_total_count": activity.items,
                "person_count": activity.items,
                "error_count": 0,
                "correctable_count": 0,
                "cannot_add_to_list_count": 0,
            },
            "_links": {"self": {"href": format!("/v3/activities/{id}")}},
        });
        if let Some(name) = &activity.source_file_name {
            body["source_file_name"] = json!(name);
        }
        if state != "initialized" {
            body["started_at"] = json!(time_text(created + INITIALIZED_FOR.as_secs()));
        }
        if state == "completed" {
            body["completed_at"] = json!(time_text(created + DONE_AFTER.as_secs()));
        }
        body
    }
}

impl Activity {
    /// Its state and how much of it is done, in percent.
    fn state(&self, now: Mono) -> (&'static str, u8) {
        let age = now.since(self.at.mono);
        if age < INITIALIZED_FOR {
            ("initialized", 1)
        } else if age < DONE_AFTER {
            ("processing", 50)
        } else {
            ("completed", 100)
        }
    }
}

fn import_json(call: &Call<'_>, contacts: &mut Contacts) -> Result<Activity, Answer> {
    let mut input = call.json()?;
    let lists = input.get("list_ids").and_then(Value::as_array).cloned().unwrap_or_default();
    check_lists(lists.len())?;
    let Some(Value::Array(rows)) = input.remove("import_data") else {
        return Err(invalid("import_data is required"));
    };
    let mut read = 0;
    let mut items = 0;
    for row in rows {
        read += serde_json::to_string(&row).map(|text| text.len() + 1).unwrap_or_default();
        if read > IMPORT_BYTES_MAX {
            break;
        }
        if let Value::Object(row) = row {
            items += usize::from(import_row(row, &lists, call.now, contacts));
        }
    }
    Ok(Activity { at: call.now, items, source_file_name: None })
}

fn import_file(call: &Call<'_>, contacts: &mut Contacts) -> Result<Activity, Answer> {
    let parts = multipart::parts(call.content_type(), call.body).ok_or_else(|| {
        let text = "The body must be multipart/form-data with file and list_ids.";
        problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "contacts.api.unsupported_media_type", text)
    })?;
    let part = |wanted: &str| parts.iter().find(|part| part.name == wanted);
    let file = part("file").ok_or_else(|| invalid("file is required"))?;
    let lists = part("list_ids").ok_or_else(|| invalid("list_ids is required"))?;
    let lists = String::from_utf8_lossy(lists.data);
    let lists: Vec<Value> =
        lists.split(',').map(str::trim).filter(|id| !id.is_empty()).map(Value::from).collect();
    check_lists(lists.len())?;
    let read = &file.data[..file.data.len().min(IMPORT_BYTES_MAX)];
    let mut rows = ReaderBuilder::new().flexible(true).from_reader(read);
    let names = rows.headers().cloned().map_err(|_| invalid("file is not CSV"))?;
    if !names.iter().any(|name| name == "email" || name == "sms_number") {
        return Err(invalid("file needs a column email or sms_number"));
    }
    let mut items = 0;
    for row in rows.records().filter_map(Result::ok) {
        let fields = names.iter().zip(row.iter());
        let fields = fields.map(|(name, value)| (name.to_owned(), value.into())).collect();
        items += usize::from(import_row(fields, &lists, call.now, contacts));
    }
    Ok(Activity { at: call.now, items, source_file_name: file.file_name.map(str::to_owned) })
}

fn check_lists(count: usize) -> Result<(), Answer> {
    if (1..=LISTS_MAX).contains(&count) { Ok(()) } else { Err(invalid("list_ids must be 1 to 50")) }
}

/// Creates or changes one contact; `false` when the row has no address.
fn import_row(
    mut row: Map<String, Value>,
    lists: &[Value],
    now: Now,
    contacts: &mut Contacts,
) -> bool {
    let Some(address) = text(&row, "email").map(str::to_owned) else { return false };
    row.remove("email");
    row.insert("list_memberships".to_owned(), lists.into());
    contacts.upsert(&address, "implicit", row, now.unix.as_secs());
    true
}
