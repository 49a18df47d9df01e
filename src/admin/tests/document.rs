//! `GET /openapi.json`: the document as a whole, and that it says what the listener does.

use std::collections::BTreeSet;

use super::*;

/// What can be asked, as it was promised.
const CALLS: [&str; 27] = [
    "GET /livez",
    "GET /metrics",
    "GET /oauth/callback",
    "GET /openapi.json",
    "GET /readyz",
    "GET /v1/api-keys",
    "GET /v1/api-keys/{name}",
    "POST /v1/api-keys/{name}/pause",
    "POST /v1/api-keys/{name}/resume",
    "GET /v1/clients",
    "POST /v1/clients",
    "DELETE /v1/clients/{name}",
    "POST /v1/clients/{name}/rotate",
    "GET /v1/events",
    "POST /v1/export",
    "GET /v1/instances",
    "GET /v1/key",
    "POST /v1/key/rotate",
    "GET /v1/tenants",
    "DELETE /v1/tenants/{tenant}",
    "GET /v1/tenants/{tenant}",
    "PUT /v1/tenants/{tenant}",
    "GET /v1/tenants/{tenant}/connect",
    "POST /v1/tenants/{tenant}/connect",
    "POST /v1/tenants/{tenant}/pause",
    "POST /v1/tenants/{tenant}/refresh",
    "POST /v1/tenants/{tenant}/resume",
];
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/// What the document says of one call.
struct Operation {
    /// Such as `GET /livez`.
    call: String,
    about: Value,
}

async fn document() -> Value {
    let answer = Bench::open().await.get("/openapi.json").await;
    assert_eq!(
        (answer.status, &answer.headers["content-type"]),
        (200, &"application/json".parse().unwrap())
    );
    answer.json()
}

fn operations(document: &Value) -> Vec<Operation> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, about) in item.as_object().unwrap() {
            assert!(METHODS.contains(&method.as_str()), "{path}: {method}");
            let call = format!("{} {path}", method.to_uppercase());
            operations.push(Operation { call, about: about.clone() });
        }
    }
    operations
}

/// All values that stand under a key of this name, wherever it is.
fn under<'a>(key: &str, value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if name == key {
                    found.push(value);
                }
                under(key, value, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| under(key, item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[tokio::test(start_paused = true)]
async fn the_document_has_every_call_and_no_other() {
    let document = document().await;
    let described: BTreeSet<String> =
        operations(&document).into_iter().map(|operation| operation.call).collect();
    assert_eq!(described, CALLS.map(str::to_owned).into());
}

#[tokio::test(start_paused = true)]
async fn every_method_that_is_not_in_the_document_is_answered_with_those_that_are() {
    let bench = Bench::open().await;
    let document = bench.get("/openapi.json").await.json();
    for (path, item) in document["paths"].as_object().unwrap() {
        let filled = path.replace("{name}", "main").replace("{tenant}", "acme");
        for method in METHODS {
            let headed = method == "head" && path != "/oauth/callback";
            if item.get(method).is_some() || headed && item.get("get").is_some() {
                continue;
            }
            let answer = bench.ask(&method.to_uppercase(), &filled, None).await;
            assert_eq!(answer.status, 405, "{method} {path}");
            let allowed = answer.headers["allow"].to_str().unwrap();
            let allowed: BTreeSet<&str> = allowed.split(',').map(str::trim).collect();
            for known in item.as_object().unwrap().keys() {
                assert!(allowed.contains(known.to_uppercase().as_str()), "{path}: {allowed:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_document_is_openapi_3_1_whose_parts_are_all_there() {
    let document = document().await;
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let ids: Vec<Value> = operations(&document)
        .iter()
        .map(|operation| operation.about["operationId"].clone())
        .collect();
    let names: BTreeSet<&str> = ids.iter().map(|id| id.as_str().unwrap()).collect();
    assert_eq!(names.len(), ids.len(), "{ids:?}");
    let mut targets = Vec::new();
    under("$ref", &document, &mut targets);
    assert!(targets.len() > 100, "{}", targets.len());
    for target in targets {
        let pointer = target.as_str().unwrap().strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{target} is not there");
    }
    let mut links = Vec::new();
    under("links", &document, &mut links);
    for link in links.iter().flat_map(|links| links.as_object().unwrap().values()) {
        assert!(names.contains(link["operationId"].as_str().unwrap()), "{link}");
    }
    let tags: Vec<&Value> =
        document["tags"].as_array().unwrap().iter().map(|tag| &tag["name"]).collect();
    for operation in operations(&document) {
        assert_eq!(operation.about["tags"].as_array().unwrap().len(), 1, "{}", operation.call);
        assert!(tags.contains(&&operation.about["tags"][0]), "{}", operation.call);
        assert!(operation.about["summary"].is_string(), "{}", operation.call);
    }
}

#[tokio::test(start_paused = true)]
async fn the_document_says_which_calls_want_the_token() {
    let bench = Bench::with_token(Some(ADMIN_TOKEN)).await;
    let shown = request("GET", "/openapi.json");
    let shown = shown.header("authorization", format!("Bearer {ADMIN_TOKEN}"));
    let document = bench.send(shown.body(Body::empty()).unwrap()).await.json();
    assert_eq!(document["security"], json!([{ "admin_token": [] }]));
    assert_eq!(document["components"]["securitySchemes"]["admin_token"]["scheme"], "bearer");
    for operation in operations(&document) {
        let (method, path) = operation.call.split_once(' ').unwrap();
        let filled = path.replace("{name}", "main").replace("{tenant}", "acme");
        let wants = bench.ask(method, &filled, None).await.status == 401;
        let about = &operation.about;
        assert_eq!(about["security"], if wants { Value::Null } else { json!([]) }, "{path}");
        assert_eq!(about["responses"].get("401").is_some(), wants, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_no_token_is_wanted_the_document_names_none() {
    let document = document().await;
    let mut found = Vec::new();
    under("security", &document, &mut found);
    assert!(found.is_empty(), "{found:?}");
    assert_eq!(document["components"].get("securitySchemes"), None);
    for operation in operations(&document) {
        let answers = operation.about["responses"].as_object().unwrap();
        assert!(!answers.contains_key("401") && !answers.contains_key("429"), "{}", operation.call);
    }
}

#[tokio::test(start_paused = true)]
async fn every_key_of_an_error_is_in_the_document() {
    let document = document().await;
    let error = &document["components"]["schemas"]["Error"];
    let keys = error["properties"]["error_key"]["enum"].as_array().unwrap();
    assert!(keys.contains(&json!("admin.not_found")) && keys.len() > 10, "{keys:?}");
    assert_eq!(error["required"], json!(["error_key", "error_message"]));
    let answers = document["components"]["responses"].as_object().unwrap();
    assert_eq!(answers.len(), keys.len());
    assert!(answers["StoreUnavailable"]["headers"]["Retry-After"].is_object());
    assert!(answers["Unauthorized"]["headers"]["WWW-Authenticate"].is_object());
    assert!(answers["MethodNotAllowed"]["headers"]["Allow"].is_object());
}

#[tokio::test(start_paused = true)]
async fn a_query_and_a_body_have_no_other_fields_than_the_document_says() {
    let bench = Bench::open().await;
    let document = bench.get("/openapi.json").await.json();
    let mut bodies = 0;
    for Operation { call, about } in operations(&document) {
        let (method, path) = call.split_once(' ').unwrap();
        let path = path.replace("{name}", "main").replace("{tenant}", "acme");
        let parameters = about["parameters"].as_array().cloned().unwrap_or_default();
        let queried: Vec<&str> = parameters
            .iter()
            .filter(|parameter| parameter["in"] == "query")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        if !queried.is_empty() && path != "/oauth/callback" {
            let answer = bench.ask(method, &format!("{path}?odd=1"), None).await;
            let known = format!("odd is unknown; known are {}", queried.join(", "));
            answer.assert_error(400, "admin.bad_request", &known);
        }
        let schema = &about["requestBody"]["content"]["application/json"]["schema"];
        let Some(name) = schema["$ref"].as_str() else { continue };
        let schema = document.pointer(&name[1..]).unwrap();
        let forms = schema["oneOf"].as_array().cloned().unwrap_or(vec![schema.clone()]);
        let mut fields = Vec::new();
        for form in &forms {
            assert_eq!(form["additionalProperties"], false, "{call}");
            fields.extend(form["properties"].as_object().unwrap().keys().cloned());
        }
        let answer = bench.ask(method, &path, Some(json!({ "odd": 1 }))).await;
        let message = answer.message();
        let known = message.strip_prefix("odd is unknown; known are ").unwrap();
        assert_eq!(
            known.split(", ").collect::<BTreeSet<_>>(),
            fields.iter().map(String::as_str).collect()
        );
        for (media_type, body, status) in [
            ("text/plain", "{}".to_owned(), 415),
            ("application/json", "x".repeat(70_000), 413),
            ("application/json", "[]".to_owned(), 400),
        ] {
            let asked = request(method, &path).header("content-type", media_type);
            let answer = bench.send(asked.body(Body::from(body)).unwrap()).await;
            assert_eq!(answer.status, status, "{call}");
            assert!(about["responses"].get(status.to_string()).is_some(), "{call}: {status}");
        }
        bodies += 1;
    }
    assert_eq!(bodies, 5);
}
