//! The contacts of one account: reading with cursors, single writes, and the sign-up form.
//!
//! A contact's place in the account is in its id, and a deleted one keeps its place and its
//! address, as the real service's soft delete does. Cursors carry their filters and the account's
//! mark; one of another account is refused.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::account::{
    Call, Ids, Kind, Served, conflict, invalid, method_not_allowed, not_found, text, time_text,
};
use super::answer::Answer;

const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: usize = 500;
/// What is shown only when `include` asks for it.
const SUBRESOURCES: [&str; 7] = [
    "custom_fields",
    "list_memberships",
    "taggings",
    "notes",
    "phone_numbers",
    "street_addresses",
    "sms_channel",
];
const STATUSES: [&str; 7] =
    ["all", "active", "deleted", "not_set", "pending_confirmation", "temp_hold", "unsubscribed"];

/// All contacts ever made in an account.
#[derive(Debug)]
pub(super) struct Contacts {
    ids: Ids,
    all: Vec<Contact>,
    by_address: HashMap<String, usize>,
}

#[derive(Debug)]
struct Contact {
    address: String,
    permission: String,
    /// Everything but the address, as it was sent.
    fields: Map<String, Value>,
    created: u64,
    updated: u64,
    deleted: bool,
}

/// Whether a write made a contact or changed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Created,
    Updated,
}

impl Contacts {
    /// So many contacts, all on the account's first list.
    pub(super) fn new(ids: Ids, count: usize, created: u64) -> Self {
        let mut contacts = Self { ids, all: Vec::new(), by_address: HashMap::new() };
        let lists = json!([ids.text(Kind::List, 0)]);
        for number in 0..count {
            let fields = Map::from_iter([
                ("first_name".to_owned(), json!("Contact")),
                ("last_name".to_owned(), json!(format!("No. {number}"))),
                ("list_memberships".to_owned(), lists.clone()),
            ]);
            contacts.add(format!("contact-{number}@mail.example"), "implicit", fields, created);
        }
        contacts
    }

    /// `/contacts`.
    pub(super) fn collection(&mut self, call: &Call<'_>) -> Served {
        match call.parts.method {
            Method::GET => self.page(call),
            Method::POST => self.create(call),
            _ => Err(method_not_allowed()),
        }
    }

    /// `/contacts/{id}`.
    pub(super) fn one(&mut self, call: &Call<'_>, id: &str) -> Served {
        let Some(place) = self.ids.place(Kind::Contact, id).filter(|&at| at < self.all.len())
        else {
            return Err(not_found("contact_id is in an invalid format."));
        };
        match call.parts.method {
            Method::GET | Method::DELETE if self.all[place].deleted => {
                Err(not_found("The contact was deleted."))
            }
            Method::GET => {
                let include = Filter::read(&call.query())?.include;
                Ok(Answer::json(StatusCode::OK, &self.json(place, |name| include.contains(name))))
            }
            Method::DELETE => {
                self.all[place].deleted = true;
                self.all[place].updated = call.now.unix.as_secs();
                Ok(Answer::bare(StatusCode::NO_CONTENT))
            }
            Method::PUT => self.replace(call, place),
            _ => Err(method_not_allowed()),
        }
    }

    /// `POST /contacts/sign_up_form`: creates or updates by address.
    pub(super) fn sign_up(&mut self, call: &Call<'_>) -> Served {
        let mut input = call.json()?;
        let address = text(&input, "email_address")
            .filter(|address| address.contains('@'))
            .ok_or_else(|| invalid("email_address is required"))?
            .to_owned();
        if input.get("list_memberships").and_then(Value::as_array).is_none_or(Vec::is_empty) {
            return Err(invalid("list_memberships is required"));
        }
        input.remove("email_address");
        let (place, action) = self.upsert(&address, "explicit", input, call.now.unix.as_secs());
        let (status, action) = match action {
            Action::Created => (StatusCode::CREATED, "created"),
            Action::Updated => (StatusCode::OK, "updated"),
        };
        let contact_id = self.ids.text(Kind::Contact, place);
        Ok(Answer::json(status, &json!({"contact_id": contact_id, "action": action})))
    }

    /// Creates a contact or changes the given fields of one; lists are added to those it is on.
    pub(super) fn upsert(
        &mut self,
        address: &str,
        permission: &str,
        mut fields: Map<String, Value>,
        now: u64,
    ) -> (usize, Action) {
        let address = address.to_lowercase();
        let Some(&place) = self.by_address.get(&address) else {
            return (self.add(address, permission, fields, now), Action::Created);
        };
        let contact = &mut self.all[place];
        if let Some(Value::Array(lists)) = fields.remove("list_memberships") {
            let known = contact.fields.entry("list_memberships").or_insert_with(|| json!([]));
            if let Value::Array(known) = known {
                let new: Vec<Value> =
                    lists.into_iter().filter(|list| !known.contains(list)).collect();
                known.extend(new);
            }
        }
        contact.fields.extend(fields);
        contact.updated = now;
        contact.deleted = false;
        (place, Action::Updated)
    }

    fn add(
        &mut self,
        address: String,
        permission: &str,
        fields: Map<String, Value>,
        now: u64,
    ) -> usize {
        let place = self.all.len();
        self.by_address.insert(address.clone(), place);
        let permission = permission.to_owned();
        let (created, updated) = (now, now);
        self.all.push(Contact { address, permission, fields, created, updated, deleted: false });
        place
    }

    fn create(&mut self, call: &Call<'_>) -> Served {
        let mut input = call.json()?;
        let (address, permission) = email_of(&input)?;
        if !matches!(text(&input, "create_source"), Some("Account" | "Contact")) {
            return Err(invalid("create_source must be Account or Contact"));
        }
        if self.by_address.contains_key(&address) {
            return Err(conflict("Validation failed: EmailAddress is not unique"));
        }
        input.remove("email_address");
        let place = self.add(address, &permission, input, call.now.unix.as_secs());
        Ok(Answer::json(StatusCode::CREATED, &self.json(place, |_| true)))
    }

    fn replace(&mut self, call: &Call<'_>, place: usize) -> Served {
        let mut input = call.json()?;
        let (address, permission) = email_of(&input)?;
        if !matches!(text(&input, "update_source"), Some("Account" | "Contact")) {
            return Err(invalid("update_source must be Account or Contact"));
        }
        if self.by_address.get(&address).is_some_and(|&other| other != place) {
            return Err(conflict("Validation failed: EmailAddress is not unique"));
        }
        input.remove("email_address");
        let contact = &mut self.all[place];
        for name in SUBRESOURCES {
            if let Some(kept) = contact.fields.remove(name) {
                input.entry(name).or_insert(kept);
            }
        }
        self.by_address.remove(&contact.address);
        self.by_address.insert(address.clone(), place);
        contact.address = address;
        contact.permission = permission;
        contact.fields = input;
        contact.updated = call.now.unix.as_secs();
        contact.deleted = false;
        Ok(Answer::json(StatusCode::OK, &self.json(place, |_| true)))
    }

    fn page(&self, call: &Call<'_>) -> Served {
        let filter = self.filter(&call.query())?;
        let fits = |&place: &usize| filter.fits(&self.all[place]);
        let mut places = (filter.from..self.all.len()).filter(fits);
        let page: Vec<Value> = places
            .by_ref()
            .take(filter.limit)
            .map(|place| self.json(place, |name| filter.include.contains(name)))
            .collect();
        let mut body = json!({"contacts": page});
        if filter.include_count {
            body["contacts_count"] = (0..self.all.len()).filter(fits).count().into();
        }
        if let Some(next) = places.next() {
            let cursor = filter.cursor(&self.ids.text(Kind::Contact, next));
            let href = format!("/v3/contacts?cursor={cursor}");
            body["_links"] = json!({"next": {"href": href}});
        }
        Ok(Answer::json(StatusCode::OK, &body))
    }

    /// What the query asks for, or what its cursor carries on with.
    fn filter(&self, query: &[(String, String)]) -> Result<Filter, Answer> {
        let Some((_, cursor)) = query.iter().find(|(name, _)| name == "cursor") else {
            return Filter::read(query);
        };
        let bad = || invalid("The cursor is not valid.");
        let carried = STANDARD.decode(cursor).map_err(|_| bad())?;
        let carried: Vec<_> = form_urlencoded::parse(&carried).into_owned().collect();
        let (_, next) = carried.iter().find(|(name, _)| name == "next").ok_or_else(bad)?;
        let from = self.ids.place(Kind::Contact, next).ok_or_else(bad)?;
        Ok(Filter { from, ..Filter::read(&carried)? })
    }

    fn json(&self, place: usize, includes: impl Fn(&str) -> bool) -> Value {
        let contact = &self.all[place];
        let (created, updated) = (time_text(contact.created), time_text(contact.updated));
        let mut body = contact.fields.clone();
        body.retain(|name, _| !SUBRESOURCES.contains(&name.as_str()) || includes(name));
        body.insert("contact_id".to_owned(), json!(self.ids.text(Kind::Contact, place)));
        body.insert(
            "email_address".to_owned(),
            json!({
                "address": contact.address,
                "permission_to_send": contact.permission,
                "created_at": created,
                "updated_at": updated,
                "opt_in_source": "Account",
                "opt_in_date": created,
                "confirm_status": "off",
            }),
        );
        if contact.deleted {
            let date: String = updated.chars().take("2026-11-24".len()).collect();
            body.insert("deleted_at".to_owned(), json!(date));
        }
        body.insert("created_at".to_owned(), json!(created));
        body.insert("updated_at".to_owned(), json!(updated));
        Value::Object(body)
    }
}

/// Which contacts are asked for, from which place on, and how they are shown.
#[derive(Debug, Default)]
struct Filter {
    from: usize,
    limit: usize,
    status: Option<String>,
    address: Option<String>,
    lists: Option<String>,
    include: String,
    include_count: bool,
}

impl Filter {
    fn read(query: &[(String, String)]) -> Result<Self, Answer> {
        let mut filter = Self { limit: LIMIT_DEFAULT, ..Self::default() };
        for (name, value) in query {
            match name.as_str() {
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
                    filter.limit = limit.ok_or_else(|| invalid("limit must be 1 to 500"))?;
                }
                "status" if STATUSES.contains(&value.as_str()) => {
                    filter.status = Some(value.clone());
                }
                "status" => return Err(invalid("status is not one of the known ones")),
                "email" => filter.address = Some(value.to_lowercase()),
                "lists" => filter.lists = Some(value.clone()),
                "include" => filter.include.clone_from(value),
                "include_count" => filter.include_count = value == "true",
                // The real service has more filters; the sandbox takes them and does nothing.
                _ => {}
            }
        }
        Ok(filter)
    }

    fn fits(&self, contact: &Contact) -> bool {
        let status = match self.status.as_deref() {
            None => !contact.deleted,
            Some("all") => true,
            Some("deleted") => contact.deleted,
            Some("active") => {
                !contact.deleted && matches!(contact.permission.as_str(), "explicit" | "implicit")
            }
            Some(permission) => !contact.deleted && contact.permission == permission,
        };
        let on_list = |lists: &String| {
            let memberships = contact.fields.get("list_memberships").and_then(Value::as_array);
            memberships
                .is_some_and(|on| on.iter().filter_map(Value::as_str).any(|l| lists.contains(l)))
        };
        status
            && self.address.as_ref().is_none_or(|address| *address == contact.address)
            && self.lists.as_ref().is_none_or(on_list)
    }

    /// The cursor that goes on at `next`: base64 that ends in `=`, percent-encoded as the real ones
    /// are.
    fn cursor(&self, next: &str) -> String {
        let mut carried = form_urlencoded::Serializer::new(String::new());
        carried.append_pair("limit", &self.limit.to_string()).append_pair("next", next);
        let given = [("status", &self.status), ("email", &self.address), ("lists", &self.lists)];
        for (name, value) in given {
            if let Some(value) = value {
                carried.append_pair(name, value);
            }
        }
        if !self.include.is_empty() {
            carried.append_pair("include", &self.include);
        }
        if self.include_count {
            carried.append_pair("include_count", "true");
        }
        let mut carried = carried.finish();
        if carried.len().is_multiple_of(3) {
            carried.push('&');
        }
        utf8_percent_encode(&STANDARD.encode(carried), NON_ALPHANUMERIC).to_string()
    }
}

fn email_of(input: &Map<String, Value>) -> Result<(String, String), Answer> {
    let email = input.get("email_address").and_then(Value::as_object);
    let address = email.and_then(|email| text(email, "address"));
    let address = address.filter(|address| address.contains('@'));
    let address = address.ok_or_else(|| invalid("email_address.address is required"))?;
    let permission = email.and_then(|email| text(email, "permission_to_send"));
    Ok((address.to_lowercase(), permission.unwrap_or("implicit").to_owned()))
}
