//! One connected account: its lists, contacts and activities, and the routes to them.
//!
//! All is in memory and made up. Ids tell the account and kind that they belong to, so that a call
//! that was sent with another account's token is found out: nothing of one account can be seen from
//! another.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::engine::Now;

use super::activities::Activities;
use super::answer::{Answer, problem};
use super::contacts::Contacts;

/// An API call that passed the gateway.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) parts: &'a Parts,
    pub(super) body: &'a Bytes,
    pub(super) scopes: &'a str,
    pub(super) now: Now,
}

/// Either the answer to a call or the refusal of it; both are sent.
pub(super) type Served = Result<Answer, Answer>;

/// What an account owns.
#[derive(Debug)]
pub(super) struct Account {
    name: String,
    ids: Ids,
    lists: Vec<List>,
    contacts: Contacts,
    activities: Activities,
}

#[derive(Debug)]
struct List {
    name: String,
    description: String,
    favorite: bool,
    created: u64,
}

impl Account {
    /// An account with one list and so many contacts on it.
    pub(super) fn new(name: &str, contacts: usize, now: Now) -> Self {
        let ids = Ids::of(name);
        let created = now.unix.as_secs();
        let first = List {
            name: "General Interest".to_owned(),
            description: "The list that every account starts with".to_owned(),
            favorite: true,
            created,
        };
        Self {
            name: name.to_owned(),
            ids,
            lists: vec![first],
            contacts: Contacts::new(ids, contacts, created),
            activities: Activities::new(ids),
        }
    }

    /// Answers a call.
    pub(super) fn serve(&mut self, call: &Call<'_>) -> Answer {
        self.route(call).unwrap_or_else(|refusal| refusal)
    }

    fn route(&mut self, call: &Call<'_>) -> Served {
        let path = call.parts.uri.path().strip_prefix("/v3").unwrap_or_default();
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        let method = &call.parts.method;
        match segments.as_slice() {
            ["account", "summary"] => {
                call.need_scope("account_read")?;
                if method == Method::GET { Ok(self.summary()) } else { Err(method_not_allowed()) }
            }
            ["contacts", "sign_up_form"] => {
                call.need_scope("contact_data")?;
                if method == Method::POST {
                    self.contacts.sign_up(call)
                } else {
                    Err(method_not_allowed())
                }
            }
            ["contacts"] => {
                call.need_scope("contact_data")?;
                self.contacts.collection(call)
            }
            ["contacts", id] => {
                call.need_scope("contact_data")?;
                self.contacts.one(call, id)
            }
            ["contact_lists"] => {
                call.need_scope("contact_data")?;
                self.lists(call)
            }
            ["activities"] | ["activities", _] => {
                call.need_scope("contact_data")?;
                self.activities.serve(call, segments.get(1).copied(), &mut self.contacts)
            }
            _ => Err(not_found("The resource does not exist.")),
        }
    }

    fn summary(&self) -> Answer {
        let body = json!({
            "contact_email": format!("owner@{}.example", self.name),
            "contact_phone": "555-0100",
            "country_code": "US",
            "encoded_account_id": self.ids.encoded_account(),
            "first_name": "Olive",
            "last_name": "Owner",
            "organization_name": self.name,
            "state_code": "MA",
            "time_zone_id": "US/Eastern",
            "website": format!("https://{}.example", self.name),
        });
        Answer::json(StatusCode::OK, &body)
    }

    fn lists(&mut self, call: &Call<'_>) -> Served {
        if call.parts.method == Method::GET {
            let lists: Vec<Value> =
                self.lists.iter().enumerate().map(|(at, list)| self.list_json(at, list)).collect();
            let body = json!({"lists": lists, "lists_count": lists.len()});
            return Ok(Answer::json(StatusCode::OK, &body));
        }
        if call.parts.method != Method::POST {
            return Err(method_not_allowed());
        }
        let input = call.json()?;
        let name = text(&input, "name").ok_or_else(|| invalid("name is required"))?;
        if self.lists.iter().any(|list| list.name == name) {
            return Err(conflict("Validation failed: a list with this name exists"));
        }
        let list = List {
            name: name.to_owned(),
            description: text(&input, "description").unwrap_or_default().to_owned(),
            favorite: input.get("favorite").and_then(Value::as_bool).unwrap_or_default(),
            created: call.now.unix.as_secs(),
        };
        let body = self.list_json(self.lists.len(), &list);
        self.lists.push(list);
        Ok(Answer::json(StatusCode::CREATED, &body))
    }

    fn list_json(&self, at: usize, list: &List) -> Value {
        json!({
            "list_id": self.ids.text(Kind::List, at),
            "name": list.name,
            "description": list.description,
            "favorite": list.favorite,
            "created_at": time_text(list.created),
            "updated_at": time_text(list.created),
        })
    }
}

impl Call<'_> {
    /// The query's pairs, decoded.
    pub(super) fn query(&self) -> Vec<(String, String)> {
        let query = self.parts.uri.query().unwrap_or_default();
        form_urlencoded::parse(query.as_bytes()).into_owned().collect()
    }

    /// The content type, or nothing.
    pub(super) fn content_type(&self) -> &str {
        let value = self.parts.headers.get(CONTENT_TYPE);
        value.and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as a JSON object.
    pub(super) fn json(&self) -> Result<Map<String, Value>, Answer> {
        if !self.content_type().to_ascii_lowercase().starts_with("application/json") {
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            let text = "The Content-Type header must be application/json.";
            return Err(problem(status, "contacts.api.unsupported_media_type", text));
        }
        serde_json::from_slice(self.body).map_err(|_| invalid("The body is not a JSON object."))
    }

    fn need_scope(&self, wanted: &str) -> Result<(), Answer> {
        if self.scopes.split(' ').any(|scope| scope == wanted) {
            return Ok(());
        }
        let text = format!("The access token lacks the scope {wanted}.");
        Err(problem(StatusCode::FORBIDDEN, "contacts.api.forbidden", &text))
    }
}

/// What an id names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Account = 0xacc0,
    List = 0x1157,
    Contact = 0xc0ac,
    Activity = 0xac71,
}

/// Makes and reads the ids of one account.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ids(u64);

impl Ids {
    pub(super) fn of(account: &str) -> Self {
        let digest = Sha256::digest(account.as_bytes());
        Self(digest.iter().take(6).fold(0, |sum, &byte| sum << 8 | u64::from(byte)))
    }

    /// The id of the thing of this kind at place `at`, in the form of a UUID.
    pub(super) fn text(self, kind: Kind, at: usize) -> String {
        format!("{at:08x}-{:04x}-4000-8000-{:012x}", kind as u16, self.0)
    }

    /// The place of the thing with this id; none when it is of another kind or account.
    pub(super) fn place(self, kind: Kind, id: &str) -> Option<usize> {
        let at = usize::from_str_radix(id.get(..8)?, 16).ok()?;
        (self.text(kind, at) == id).then_some(at)
    }

    fn encoded_account(self) -> String {
        format!("p{:012x}", self.0)
    }
}

/// The id by which tokens name an account.
pub(super) fn account_uuid(account: &str) -> String {
    Ids::of(account).text(Kind::Account, 0)
}

/// Seconds since the epoch as RFC 3339.
pub(super) fn time_text(secs: u64) -> String {
    let secs = i64::try_from(secs).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(secs).unwrap_or(jiff::Timestamp::MAX).to_string()
}

pub(super) fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    object.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
}

pub(super) fn invalid(message: &str) -> Answer {
    problem(StatusCode::BAD_REQUEST, "contacts.api.validation.error", message)
}

pub(super) fn not_found(message: &str) -> Answer {
    problem(StatusCode::NOT_FOUND, "contacts.api.not_found", message)
}

pub(super) fn conflict(message: &str) -> Answer {
    problem(StatusCode::CONFLICT, "contacts.api.conflict", message)
}

pub(super) fn method_not_allowed() -> Answer {
    let text = "The method is not allowed for this resource.";
    problem(StatusCode::METHOD_NOT_ALLOWED, "contacts.api.method_not_allowed", text)
}
