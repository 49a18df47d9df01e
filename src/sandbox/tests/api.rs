//! The resources: shapes, paging, errors.
//!
//! What is documented byte for byte is compared byte for byte; the official SDK's models say what
//! fields a resource has.
//!
//! What is documented byte for byte is compared byte for byte; the official SDK's models say what
//! fields a resource has.

use serde_json::json;

use super::*;

const UNAUTHORIZED: &str = r#"{"error_key":"unauthorized","error_message":"Unauthorized"}"#;

#[tokio::test(start_paused = true)]
async fn missing_foreign_and_expired_tokens_are_unauthorized_with_the_exact_body() {
    let bench = Bench::start(unlimited()).await;
    let expired = bench.sandbox.connect_expired_tenant(KEY, "acme");
    let elsewhere = Bench::start(Options { seed: Some(8), ..unlimited() }).await.tenant();
    for token in ["", "tenant-acme", &expired.access_token, &elsewhere.access_token] {
        let refused = bench.get("/v3/contacts", token).await;
        assert_eq!((refused.status, refused.text()), (401, UNAUTHORIZED));
        assert_eq!(refused.headers["content-length"], "59");
    }
    let bare = bench.call(Method::GET, "/v3/contacts", &[], "").await.unwrap();
    assert_eq!(bare.status, 401);
}

#[tokio::test(start_paused = true)]
async fn an_access_token_ends_with_its_life() {
    let life = Duration::from_mins(1);
    let bench = Bench::start(Options { access_token_life: life, ..unlimited() }).await;
    let tenant = bench.tenant();
    bench.pass(Duration::from_secs(59)).await;
    assert_eq!(bench.get("/v3/account/summary", &tenant.access_token).await.status, 200);
    bench.pass(Duration::from_secs(1)).await;
    assert_eq!(bench.get("/v3/account/summary", &tenant.access_token).await.status, 401);
}

#[tokio::test(start_paused = true)]
async fn all_contacts_are_reached_by_following_the_cursors() {
    let bench = Bench::start(unlimited()).await;
    let tenant = bench.tenant();
    let mut path = "/v3/contacts?limit=500&include_count=true&status=active".to_owned();
    let (mut sizes, mut ids) = (Vec::new(), std::collections::BTreeSet::new());
    loop {
        let page = bench.get(&path, &tenant.access_token).await.json();
        assert_eq!(page["contacts_count"], 1_250);
        let contacts = page["contacts"].as_array().unwrap().clone();
        sizes.push(contacts.len());
        ids.extend(contacts.iter().map(|contact| contact["contact_id"].to_string()));
        let Some(href) = page["_links"]["next"]["href"].as_str() else { break };
        assert!(href.starts_with("/v3/contacts?cursor="), "{href}");
        assert!(href.ends_with("%3D"), "{href}");
        href.clone_into(&mut path);
    }
    assert_eq!(sizes, [500, 500, 250]);
    assert_eq!(ids.len(), 1_250);
}

#[tokio::test(start_paused = true)]
async fn nothing_of_one_account_is_seen_from_another() {
    let bench = Bench::start(unlimited()).await;
    let (acme, globex) = (bench.tenant(), bench.sandbox.connect_tenant(KEY, "globex"));
    let page = bench.get("/v3/contacts?limit=1", &acme.access_token).await.json();
    let cursor = page["_links"]["next"]["href"].as_str().unwrap();
    assert_eq!(bench.get(cursor, &acme.access_token).await.status, 200);
    assert_eq!(bench.get(cursor, &globex.access_token).await.status, 400);
    let id = page["contacts"][0]["contact_id"].as_str().unwrap();
    let path = format!("/v3/contacts/{id}");
    assert_eq!(bench.get(&path, &acme.access_token).await.status, 200);
    assert_eq!(bench.get(&path, &globex.access_token).await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn a_contact_is_created_once_read_replaced_deleted_and_revived() {
    let bench = Bench::start(Options { contacts: 0, ..unlimited() }).await;
    let token = bench.tenant().access_token;
    let input = json!({
        "email_address": {"address": "Ann@mail.example", "permission_to_send": "explicit"},
        "first_name": "Ann", "create_source": "Account", "list_memberships": ["l"],
    });
    let created = bench.send(Method::POST, "/v3/contacts", &token, &input).await;
    assert_eq!(created.status, 201);
    let again = bench.send(Method::POST, "/v3/contacts", &token, &input).await;
    assert_eq!(again.status, 409);
    assert_eq!(again.json()[0]["error_key"], "contacts.api.conflict");
    let path = format!("/v3/contacts/{}", created.json()["contact_id"].as_str().unwrap());
    let read = bench.get(&path, &token).await.json();
    assert_eq!(read["email_address"]["address"], "ann@mail.example");
    assert!(read.get("list_memberships").is_none(), "only when included");

    let input = json!({
        "email_address": {"address": "ann@new.example"},
        "last_name": "A", "update_source": "Account",
    });
    let replaced = bench.send(Method::PUT, &path, &token, &input).await.json();
    assert!(replaced.get("first_name").is_none(), "omitted fields are cleared");
    assert_eq!(replaced["list_memberships"], json!(["l"]), "omitted subresources are kept");

    let deleted = bench.send(Method::DELETE, &path, &token, &json!({})).await;
    assert_eq!((deleted.status, deleted.body.len()), (204, 0));
    assert_eq!(bench.get(&path, &token).await.status, 404);
    let gone = bench.get("/v3/contacts?status=deleted", &token).await.json();
    assert_eq!(gone["contacts"].as_array().unwrap().len(), 1);
    assert_eq!(bench.send(Method::PUT, &path, &token, &input).await.status, 200);
    assert_eq!(bench.get(&path, &token).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn the_sign_up_form_creates_and_then_updates() {
    let bench = Bench::start(Options { contacts: 0, ..unlimited() }).await;
    let token = bench.tenant().access_token;
    let path = "/v3/contacts/sign_up_form";
    let input = |list: &str| json!({"email_address": "b@mail.example", "list_memberships": [list]});
    let created = bench.send(Method::POST, path, &token, &input("one")).await;
    assert_eq!((created.status, &created.json()["action"]), (201, &json!("created")));
    let updated = bench.send(Method::POST, path, &token, &input("two")).await;
    assert_eq!((updated.status, &updated.json()["action"]), (200, &json!("updated")));
    let all = bench.get("/v3/contacts?include=list_memberships", &token).await.json();
    assert_eq!(all["contacts"][0]["list_memberships"], json!(["one", "two"]));
}

#[tokio::test(start_paused = true)]
async fn lists_are_listed_and_made_once() {
    let bench = Bench::start(unlimited()).await;
    let token = bench.tenant().access_token;
    let lists = bench.get("/v3/contact_lists", &token).await.json();
    assert_eq!(lists["lists"].as_array().unwrap().len(), 1);
    let input = json!({"name": "Friends"});
    assert_eq!(bench.send(Method::POST, "/v3/contact_lists", &token, &input).await.status, 201);
    assert_eq!(bench.send(Method::POST, "/v3/contact_lists", &token, &input).await.status, 409);
}

#[tokio::test(start_paused = true)]
async fn a_csv_import_goes_through_its_states_and_loses_what_is_past_4_mb() {
    let bench = Bench::start(Options { contacts: 0, ..unlimited() }).await;
    let token = bench.tenant().access_token;
    let rows =
        (0..50_000).fold(String::new(), |rows, n| rows + &format!("{n:080}@mail.example,x\r\n"));
    let body = format!(
        "--b\r\nContent-Disposition: form-data; name=\"list_ids\"\r\n\r\nl1,l2\r\n\
         --b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"c.csv\"\r\n\r\n\
         email,first_name\r\n{rows}\r\n--b--\r\n"
    );
    let bearer = format!("Bearer {token}");
    let headers =
        [("authorization", &*bearer), ("content-type", "multipart/form-data; boundary=b")];
    let path = "/v3/activities/contacts_file_import";
    let created = bench.call(Method::POST, path, &headers, body).await.unwrap();
    assert_eq!(created.status, 201);
    let activity = created.json();
    assert_eq!(activity["state"], "initialized");
    let items = activity["status"]["items_total_count"].as_u64().unwrap();
    assert!((40_000..42_000).contains(&items), "{items} of 50,000 rows of 97 bytes fit in 4 MB");
    let path = activity["_links"]["self"]["href"].as_str().unwrap();
    for (pause, state) in [(1, "processing"), (2, "completed")] {
        bench.pass(Duration::from_secs(pause)).await;
        assert_eq!(bench.get(path, &token).await.json()["state"], state);
    }
    let listed = bench.get("/v3/activities?state=completed", &token).await.json();
    assert_eq!(listed["activities"].as_array().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_json_import_adds_contacts() {
    let bench = Bench::start(Options { contacts: 0, ..unlimited() }).await;
    let token = bench.tenant().access_token;
    let input = json!({"import_data": [{"email": "c@mail.example"}, {}], "list_ids": ["l"]});
    let path = "/v3/activities/contacts_json_import";
    let created = bench.send(Method::POST, path, &token, &input).await;
    assert_eq!(created.status, 201);
    assert_eq!(created.json()["status"]["items_total_count"], 1);
    let all = bench.get("/v3/contacts?email=C@mail.example", &token).await.json();
    assert_eq!(all["contacts"].as_array().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_thousand_and_first_queued_activity_is_refused() {
    let bench = Bench::start(unlimited()).await;
    let token = bench.tenant().access_token;
    let path = "/v3/activities/list_delete";
    for _ in 0..1_000 {
        assert_eq!(bench.send(Method::POST, path, &token, &json!({})).await.status, 201);
    }
    assert_eq!(bench.send(Method::POST, path, &token, &json!({})).await.status, 429);
    bench.pass(Duration::from_secs(3)).await;
    assert_eq!(bench.send(Method::POST, path, &token, &json!({})).await.status, 201);
}

#[tokio::test(start_paused = true)]
async fn errors_behind_the_gateway_are_arrays() {
    let bench = Bench::start(unlimited()).await;
    let token = bench.tenant().access_token;
    let bearer = format!("Bearer {token}");
    let json_type = ("content-type", "application/json");
    let cases = [
        (Method::GET, "/v3/nothing", json_type, "", 404),
        (Method::GET, "/v3/contacts/xyz", json_type, "", 404),
        (Method::PUT, "/v3/contacts", json_type, "{}", 405),
        (Method::POST, "/v3/contacts", ("content-type", "text/plain"), "{}", 415),
        (Method::POST, "/v3/contacts", json_type, "{", 400),
        (Method::POST, "/v3/contacts", json_type, "{}", 400),
        (Method::GET, "/v3/contacts?limit=501", json_type, "", 400),
        (Method::GET, "/v3/contacts?cursor=%3D", json_type, "", 400),
    ];
    for (method, path, kind, body, status) in cases {
        let headers = [("authorization", bearer.as_str()), kind];
        let reply = bench.call(method.clone(), path, &headers, body).await.unwrap();
        assert_eq!(reply.status, status, "{method} {path}");
        assert!(reply.json()[0]["error_message"].is_string(), "{method} {path}");
    }
    let message = bench.get("/v3/contacts/xyz", &token).await;
    let exact = concat!(
        r#"[{"error_key":"contacts.api.not_found","#,
        r#""error_message":"contact_id is in an invalid format."}]"#
    );
    assert_eq!(message.text(), exact);
    let outside = bench.get("/v4/contacts", &token).await;
    assert_eq!((outside.status, outside.text()), (403, r#"{"message":"Forbidden"}"#));
}

#[tokio::test(start_paused = true)]
async fn a_body_over_the_gateways_limit_is_refused() {
    let bench = Bench::start(unlimited()).await;
    let bearer = format!("Bearer {}", bench.tenant().access_token);
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let body = vec![b' '; 10 * 1024 * 1024 + 1];
    let reply = bench.call(Method::POST, "/v3/contacts", &headers, body).await;
    if let Some(reply) = reply {
        assert_eq!(reply.status, 413);
    }
    assert_eq!(bench.sandbox.log()[0].status, 413);
}
