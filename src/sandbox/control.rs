//! What a test or a demo in another process may do with a sandbox, below `/sandbox/`.
//!
//! These calls are not part of the model: they are neither counted nor logged nor delayed.

use http::request::Parts;
use http::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::answer::{Answer, problem};
use super::fault::Fault;
use super::grants::Freshness;
use super::log::LogEntry;
use super::serve::Shared;

#[derive(Deserialize)]
struct TenantWish {
    client_id: String,
    account: String,
    #[serde(default)]
    expired: bool,
}

#[derive(Deserialize)]
struct Revocation {
    account: String,
}

/// Entries, and the number to ask for next.
#[derive(Serialize)]
struct LogPage {
    items: Vec<LogEntry>,
    next: usize,
}

/// Answers a control call.
pub(super) fn serve(shared: &Shared, parts: &Parts, body: &[u8]) -> Answer {
    let route = (&parts.method, parts.uri.path());
    let answered = match route {
        (&Method::GET, "/sandbox/log") => log(shared, parts),
        (&Method::GET, "/sandbox/summary") => Ok(summary(shared)),
        (&Method::POST, "/sandbox/faults") => add_fault(shared, body),
        (&Method::DELETE, "/sandbox/faults") => {
            shared.model().clear_faults();
            Ok(Answer::bare(StatusCode::NO_CONTENT))
        }
        (&Method::POST, "/sandbox/tenants") => connect(shared, body),
        (&Method::POST, "/sandbox/revoke") => revoke(shared, body),
        (&Method::POST, "/sandbox/reset") => {
            shared.model().reset();
            Ok(Answer::bare(StatusCode::NO_CONTENT))
        }
        _ => Err(wrong(StatusCode::NOT_FOUND, "no such control call")),
    };
    answered.unwrap_or_else(|refusal| refusal)
}

fn log(shared: &Shared, parts: &Parts) -> Result<Answer, Answer> {
    let query = parts.uri.query().unwrap_or_default();
    let since = match query.strip_prefix("since=") {
        None => 0,
        Some(since) => since
            .parse()
            .map_err(|_| wrong(StatusCode::BAD_REQUEST, "since must be an entry's index"))?,
    };
    let items = shared.model().log_since(since);
    let next = since + items.len();
    Ok(Answer::json(StatusCode::OK, &LogPage { items, next }))
}

fn summary(shared: &Shared) -> Answer {
    let now = shared.now();
    let model = shared.model();
    let (counts, today) = (model.counts(), model.today(now));
    drop(model);
    let mut body = json!(counts);
    body["most_in_one_second"] = counts.most_in_one_second().into();
    body["today"] = today.into();
    Answer::json(StatusCode::OK, &body)
}

fn add_fault(shared: &Shared, body: &[u8]) -> Result<Answer, Answer> {
    let fault: Fault = read(body)?;
    let added = shared.model().add_fault(fault);
    added.map_err(|text| wrong(StatusCode::BAD_REQUEST, text))?;
    Ok(Answer::bare(StatusCode::NO_CONTENT))
}

fn connect(shared: &Shared, body: &[u8]) -> Result<Answer, Answer> {
    let wish: TenantWish = read(body)?;
    let freshness = if wish.expired { Freshness::Expired } else { Freshness::Fresh };
    let now = shared.now();
    let issued = shared.model().connect(now, &wish.client_id, &wish.account, freshness);
    let tokens = json!({
        "refresh_token": issued.refresh_token,
        "access_token": issued.access_token,
    });
    Ok(Answer::json(StatusCode::CREATED, &tokens))
}

fn revoke(shared: &Shared, body: &[u8]) -> Result<Answer, Answer> {
    let revocation: Revocation = read(body)?;
    let revoked = shared.model().revoke(&revocation.account);
    Ok(Answer::json(StatusCode::OK, &json!({"revoked": revoked})))
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Answer> {
    serde_json::from_slice(body).map_err(|error| {
        wrong(StatusCode::BAD_REQUEST, &format!("could not read the body: {error}"))
    })
}

fn wrong(status: StatusCode, text: &str) -> Answer {
    problem(status, "sandbox.control", text)
}
