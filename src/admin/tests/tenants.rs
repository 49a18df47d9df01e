//! Tenants: what is taken, what is refused, and how they are listed.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_tenant_is_put_shown_replaced_and_removed() {
    let mut bench = Bench::open().await;
    let created = bench.put("acme").await;
    assert_eq!(created.status, 201, "{}", created.text);
    let shown = json!({
        "tenant": "acme", "api_key": "main", "state": "ready", "state_reason": null,
        "access_token_expires_at": "2026-11-25T06:00:00.000Z",
        // the access token is a day old at its end, and the refresh token came with it
        "refresh_token_expires_at": "2027-05-23T06:00:00.000Z", "last_refreshed_at": null,
        "last_used_at": null, "weight": 1, "today": { "calls": 0, "throttled": 0, "errors": 0 },
        "queue_depth": 0,
    });
    assert_eq!(created.json(), shown);
    assert_eq!(bench.get("/v1/tenants/acme").await.json(), shown);

    let mut heavier = grant("big");
    heavier["weight"] = json!(7);
    let replaced = bench.ask("PUT", "/v1/tenants/acme", Some(heavier)).await;
    assert_eq!(replaced.status, 200, "{}", replaced.text);
    assert_eq!(replaced.json()["api_key"], "big");
    assert_eq!(replaced.json()["weight"], 7);

    assert_eq!(bench.ask("DELETE", "/v1/tenants/acme", None).await.status, 204);
    bench.get("/v1/tenants/acme").await.assert_error(404, "admin.not_found", "tenant acme");
    let again = bench.ask("DELETE", "/v1/tenants/acme", None).await;
    again.assert_error(404, "admin.not_found", "tenant acme");
    assert!(bench.store.grants().await.unwrap().is_empty());
    let mut last = None;
    while let Ok(change) = bench.changes.try_recv() {
        last = Some(change);
    }
    assert_eq!(last.unwrap().readiness, None, "the gate is told that it is gone");
}

#[tokio::test(start_paused = true)]
async fn a_refresh_is_ordered_and_not_waited_for() {
    let bench = Bench::open().await;
    bench.put("acme").await;
    assert_eq!(bench.post("/v1/tenants/acme/refresh").await.status, 202);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let view = bench.get("/v1/tenants/acme").await.json();
    assert_eq!(view["state"], "ready");
    assert_eq!(view["access_token_expires_at"], "2026-11-25T07:00:00.000Z");
    assert!(view["last_refreshed_at"].as_str().unwrap().starts_with("2026-11-24T06:00:0"));
    bench.post("/v1/tenants/x/refresh").await.assert_error(404, "admin.not_found", "no such");
}

#[tokio::test(start_paused = true)]
async fn tenants_whose_refresh_token_dies_soon_are_listed() {
    let bench = Bench::open().await;
    let issued = START.minus(Duration::from_hours(160 * 24));
    let access = jwt(&json!({ "cid": "id-of-main", "exp": issued.as_secs() + 86_400 }));
    let old = json!({ "api_key": "main", "refresh_token": "r", "access_token": access });
    assert_eq!(bench.ask("PUT", "/v1/tenants/old", Some(old)).await.status, 201);
    bench.put("new").await;
    let within = |span| format!("/v1/tenants?refresh_token_expires_within={span}");
    assert_eq!(bench.get(&within("30d")).await.names("tenant"), ["old"]);
    assert_eq!(bench.get(&within("19d")).await.names("tenant"), [""; 0]);
    assert_eq!(bench.get(&within("181d")).await.names("tenant"), ["new", "old"]);
    let words = "a span is such as 30d or 12h";
    bench.get(&within("soon")).await.assert_error(400, "admin.bad_request", words);
}

#[tokio::test(start_paused = true)]
async fn the_token_lane_says_when_its_last_tenant_will_be_done() {
    let bench = Bench::open().await;
    for n in 0..60 {
        let body = json!({ "api_key": "main", "refresh_token": format!("r-{n}") });
        let path = format!("/v1/tenants/t{n:02}");
        assert_eq!(bench.ask("PUT", &path, Some(body)).await.status, 201);
        bench.post(&format!("{path}/refresh")).await;
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    let lane = bench.get("/v1/api-keys/main").await.json()["token_lane"].clone();
    let depth = lane["depth"].as_u64().unwrap();
    assert!((48..=51).contains(&depth), "{lane}");
    let seconds = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_second();
    let now = i64::try_from(bench.clock.now().unix.as_secs()).unwrap();
    let left = seconds(lane["done_at"].as_str().unwrap()) - now;
    let depth = i64::try_from(depth).unwrap();
    assert!((left - depth).abs() <= 2, "one a second, the endpoint answers at once: {lane}");
    tokio::time::sleep(Duration::from_secs(60)).await;
    let lane = bench.get("/v1/api-keys/main").await.json()["token_lane"].clone();
    assert_eq!(lane, json!({ "depth": 0, "done_at": null }));
}

#[tokio::test(start_paused = true)]
async fn a_dead_grant_says_so_and_is_not_refreshed_again() {
    let bench = Bench::open().await;
    let body = json!({ "api_key": "main", "refresh_token": format!("dead-{MARK}") });
    assert_eq!(bench.ask("PUT", "/v1/tenants/old", Some(body)).await.status, 201);
    bench.post("/v1/tenants/old/refresh").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let view = bench.get("/v1/tenants/old").await.json();
    assert_eq!(view["state"], "needs_authorization");
    assert!(view["state_reason"].is_string(), "{view}");
    let refused = bench.post("/v1/tenants/old/refresh").await;
    refused.assert_error(409, "admin.conflict", "connect the account again");
    let key = bench.get("/v1/api-keys/main").await.json();
    assert_eq!(key["tenants"], json!({ "ready": 0, "needs_authorization": 1 }));
    let filtered = bench.get("/v1/tenants?state=needs_authorization").await;
    assert_eq!(filtered.names("tenant"), ["old"]);
}

#[tokio::test(start_paused = true)]
async fn a_tenant_is_held_and_released() {
    let bench = Bench::open().await;
    bench.put("acme").await;
    assert_eq!(bench.post("/v1/tenants/acme/pause").await.status, 204);
    assert_eq!(bench.get("/v1/tenants/acme").await.json()["state"], "paused");
    assert!(bench.store.grant(&tenant("acme")).await.unwrap().unwrap().paused);
    assert_eq!(bench.post("/v1/tenants/acme/resume").await.status, 204);
    assert_eq!(bench.get("/v1/tenants/acme").await.json()["state"], "ready");
    for verb in ["pause", "resume"] {
        let answer = bench.post(&format!("/v1/tenants/x/{verb}")).await;
        answer.assert_error(404, "admin.not_found", "tenant x");
    }
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_cannot_work_is_refused_with_what_to_do() {
    let bench = Bench::open().await;
    let token = |field: &str, value: Value| {
        let mut body = grant("main");
        body[field] = value;
        body
    };
    let of_big = jwt(&json!({ "cid": "id-of-big" }));
    let unassigned = jwt(&json!({ "cid": "id-of-main", "platform_user_id": "UNASSIGNED" }));
    for (body, words) in [
        (json!({ "api_key": "main" }), "refresh_token is missing"),
        (token("refresh_token", json!(null)), "refresh_token is missing"),
        (token("refresh_token", json!("")), "offline_access"),
        (token("refresh_token", json!(17)), "refresh_token must be text"),
        (token("refresh_token", json!(format!("{MARK} {MARK}"))), "refresh token is no token"),
        (token("access_token", json!(format!("{MARK}\n"))), "access token is no token"),
        (token("access_token", json!(of_big)), "client id id-of-big"),
        (token("access_token", json!(unassigned)), "UNASSIGNED"),
        (token("api_key", json!("other")), "there is no API key of the name that was given"),
        (token("api_key", json!("no name")), "api_key is no name"),
        (token("api_key", json!({ "a": MARK })), "api_key must be text"),
        (json!({ "refresh_token": MARK }), "the field api_key is missing"),
        (token("weight", json!(0)), "weight must be"),
        (token("weight", json!(101)), "weight must be"),
        (token("weight", json!(1.5)), "weight must be"),
        (token("weight", json!("1")), "weight must be"),
        (token("wait", json!(1)), "wait is unknown; known are api_key"),
        (token(&format!("{MARK}-{MARK}"), json!(1)), "long or odd name is unknown"),
        (json!([MARK]), "must be a JSON object"),
        (json!(MARK), "must be a JSON object"),
    ] {
        let answer = bench.ask("PUT", "/v1/tenants/acme", Some(body)).await;
        answer.assert_error(400, "admin.bad_request", words);
    }
    assert!(bench.store.grants().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn broken_json_is_refused_with_its_place_and_without_its_values() {
    let bench = Bench::open().await;
    for (body, words) in [
        (format!("{{\n  \"refresh_token\": {MARK}}}"), "no JSON: mistake at line 2, column"),
        (format!("{{\"refresh_token\": \"{MARK}\""), "ends too early: mistake at line 1"),
        (String::new(), "ends too early"),
        (format!("{{}} {MARK}"), "mistake at line 1, column 4"),
        ("[".repeat(10_000), "mistake at line 1"),
    ] {
        let put = request("PUT", "/v1/tenants/acme").body(Body::from(body)).unwrap();
        bench.send(put).await.assert_error(400, "admin.bad_request", words);
    }
    let not_utf8 = Body::from(&b"{\"refresh_token\":\"\xff\"}"[..]);
    let put = request("PUT", "/v1/tenants/acme").body(not_utf8).unwrap();
    bench.send(put).await.assert_error(400, "admin.bad_request", "line 1");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_none_is_refused() {
    let bench = Bench::open().await;
    for path in ["/v1/tenants/-a", "/v1/tenants/a%2Fb", "/v1/tenants/%ff", "/v1/tenants/a%20b"] {
        for method in ["GET", "DELETE"] {
            let answer = bench.ask(method, path, None).await;
            answer.assert_error(400, "admin.bad_request", "a name has 1 to 128");
        }
        let answer = bench.ask("PUT", path, Some(grant("main"))).await;
        answer.assert_error(400, "admin.bad_request", "a name has 1 to 128");
    }
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_could_not_be_stored_is_not_there() {
    let bench = Bench::open().await;
    bench.store.close().await.unwrap();
    let answer = bench.put("acme").await;
    answer.assert_error(503, "admin.store_unavailable", "try again");
    assert_eq!(answer.headers["retry-after"], "1");
    bench.get("/v1/tenants/acme").await.assert_error(404, "admin.not_found", "acme");
}

#[tokio::test(start_paused = true)]
async fn two_hundred_and_fifty_tenants_come_in_pieces_each_once_and_in_order() {
    let bench = Bench::open().await;
    for n in 0..250 {
        assert_eq!(bench.put(&format!("t{n:03}")).await.status, 201);
    }
    let mut seen = Vec::new();
    let mut sizes = Vec::new();
    let mut path = "/v1/tenants".to_owned();
    loop {
        let piece = bench.get(&path).await;
        assert_eq!(piece.status, 200, "{}", piece.text);
        let names = piece.names("tenant");
        sizes.push(names.len());
        seen.extend(names);
        match piece.json()["next_cursor"].as_str() {
            Some(cursor) => path = format!("/v1/tenants?cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(sizes, [100, 100, 50]);
    let all: Vec<String> = (0..250).map(|n| format!("t{n:03}")).collect();
    assert_eq!(seen, all);
    assert_eq!(bench.get("/v1/tenants?limit=1000").await.names("tenant").len(), 250);
}

#[tokio::test(start_paused = true)]
async fn tenants_are_filtered_by_api_key_and_state() {
    let bench = Bench::open().await;
    for (name, key) in [("a", "main"), ("b", "big"), ("c", "main")] {
        bench.ask("PUT", &format!("/v1/tenants/{name}"), Some(grant(key))).await;
    }
    bench.post("/v1/tenants/c/pause").await;
    for (query, names) in [
        ("api_key=main", &["a", "c"][..]),
        ("api_key=main&state=paused", &["c"]),
        ("state=ready", &["a", "b"]),
        ("state=refreshing", &[]),
        ("api_key=other", &[]),
        ("api_key=main&limit=1", &["a"]),
    ] {
        let answer = bench.get(&format!("/v1/tenants?{query}")).await;
        assert_eq!(answer.names("tenant"), names, "{query}");
    }
    for (query, words) in [
        ("state=Ready", "ready, refreshing, needs_authorization, paused"),
        ("api_key=-", "a name has 1 to 128"),
        ("limit=0", "from 1 to 1000"),
        ("cursor=*", "next_cursor"),
        ("apikey=main", "apikey is unknown; known are limit, cursor, api_key, state"),
    ] {
        let answer = bench.get(&format!("/v1/tenants?{query}")).await;
        answer.assert_error(400, "admin.bad_request", words);
    }
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_is_there_already_is_known_again_also_after_it_was_renewed() {
    let bench = Bench::open().await;
    let put = async |query: &str, body: &Value| {
        let path = format!("/v1/tenants/acme?{query}");
        bench.ask("PUT", &path, Some(body.clone())).await
    };
    let outcome = |answer: &Answer| {
        assert_eq!(answer.json()["tenant"], "acme", "{}", answer.text);
        (answer.status, answer.json()["outcome"].as_str().unwrap().to_owned())
    };
    let told = |status: u16, outcome: &str| (status, outcome.to_owned());
    let first = grant("main");
    assert_eq!(outcome(&put("dry_run=true", &first).await), told(200, "created"));
    assert!(bench.store.grants().await.unwrap().is_empty(), "a dry run changes nothing");
    assert_eq!(outcome(&put("on_conflict=fail", &first).await), told(201, "created"));
    assert_eq!(outcome(&put("on_conflict=fail", &first).await), told(200, "unchanged"));

    // renewed since: what was handed in is spent, and must not come back
    let stored = bench.store.grant(&tenant("acme")).await.unwrap().unwrap();
    let renewed = store::Tokens { refresh: "newer".into(), ..stored.tokens };
    let at = stored.version;
    bench.store.finish_refresh(&tenant("acme"), at, &renewed, START).await.unwrap();
    for policy in ["fail", "skip", "replace"] {
        let answer = put(&format!("on_conflict={policy}"), &first).await;
        assert_eq!(outcome(&answer), told(200, "unchanged"));
    }
    let mut heavier = first.clone();
    heavier["weight"] = json!(7);
    let answer = put("on_conflict=replace", &heavier).await;
    answer.assert_error(409, "admin.conflict", "has been renewed since, so it is spent");

    let mut other = grant("big");
    other["refresh_token"] = json!(format!("other-{MARK}"));
    let answer = put("on_conflict=fail", &other).await;
    answer.assert_error(409, "admin.conflict", "already with another grant");
    assert_eq!(outcome(&put("on_conflict=skip", &other).await), told(200, "skipped"));
    let dry = put("on_conflict=replace&dry_run=true", &other).await;
    assert_eq!(outcome(&dry), told(200, "replaced"));
    assert_eq!(bench.get("/v1/tenants/acme").await.json()["api_key"], "main");
    assert_eq!(outcome(&put("on_conflict=replace", &other).await), told(200, "replaced"));
    assert_eq!(bench.get("/v1/tenants/acme").await.json()["api_key"], "big");
    for query in ["on_conflict=ask", "dry_run=1", "conflict=fail"] {
        put(query, &other).await.assert_error(400, "admin.bad_request", "query: ");
    }
    let unknown = put("dry_run=true", &grant("nobody")).await;
    unknown.assert_error(400, "admin.bad_request", "there is no API key");
}
