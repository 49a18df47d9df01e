//! What instances show of each other, and what a server that was emptied gets back from them.

use http::Method;
use serde_json::Value;

use crate::processes::{PATH, World};
use crate::support::{Process, until};

async fn read(process: &Process, path: &str) -> Value {
    process.admin(Method::GET, path, &().into()).await.json()
}

async fn instances(process: &Process) -> Value {
    read(process, "/v1/instances").await
}

/// The ids of those that are here, as `process` has them.
async fn here(process: &Process) -> Vec<String> {
    let answer = instances(process).await;
    let items = answer["items"].as_array().expect("a list");
    let here = items.iter().filter(|item| item["state"] == "here");
    here.map(|item| item["id"].as_str().expect("an id").to_owned()).collect()
}

async fn all_have_lost_the_store(world: &World, lost: bool) {
    for process in &world.processes {
        until("all know how the store is", async || instances(process).await["store_lost"] == lost)
            .await;
        let page = process.admin(Method::GET, "/metrics", &().into()).await;
        let line = format!("ctct_proxy_store_lost {}", u8::from(lost));
        let page = String::from_utf8(page.body.to_vec()).expect("text");
        assert!(page.lines().any(|found| found == line), "{page}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_instance_lists_all_also_when_the_server_is_gone() {
    let mut world = World::start(3, |_| {}).await;
    let mut own = Vec::new();
    for process in &world.processes {
        until("all three are listed", async || here(process).await.len() == 3).await;
        let answer = instances(process).await;
        let items = answer["items"].as_array().expect("a list");
        let mine: Vec<_> = items.iter().filter(|item| item["self"] == true).collect();
        assert_eq!(mine.len(), 1);
        assert_eq!(mine[0]["listen"], process.data().to_string());
        assert_eq!(mine[0]["admin_listen"], process.admin_address().to_string());
        assert_eq!(mine[0]["store"], "shared");
        own.push(mine[0]["id"].clone());
        // parts of the limit that are given have no slot in common
        let slots = items.iter().map(|item| item["slots"]["default"].as_u64().expect("a number"));
        assert!(slots.sum::<u64>() <= 20, "{items:?}");
    }
    assert!(own[0] != own[1] && own[1] != own[2] && own[0] != own[2]);
    world.processes[2].kill().await;
    world.processes.truncate(2);
    for process in &world.processes {
        until("one is missing", async || here(process).await.len() == 2).await;
    }
    let before = here(&world.processes[0]).await;
    world.server.kill();
    all_have_lost_the_store(&world, true).await;
    assert_eq!(here(&world.processes[0]).await, before);
    world.server.restart();
    all_have_lost_the_store(&world, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_server_gets_back_tenants_clients_and_what_is_held() {
    let mut world = World::start(2, |_| {}).await;
    for tenant in ["a", "b", "gone"] {
        world.connect(tenant).await;
    }
    let change = async |at: usize, method, path: &str| {
        let reply = world.processes[at].admin(method, path, &().into()).await;
        assert!(reply.status < 300, "{reply:?}");
    };
    until("both know all", async || {
        let known = read(&world.processes[1], "/v1/tenants").await;
        known["items"].as_array().is_some_and(|items| items.len() == 3)
    })
    .await;
    change(1, Method::POST, "/v1/tenants/b/pause").await;
    change(1, Method::POST, "/v1/api-keys/default/pause").await;
    change(1, Method::DELETE, "/v1/tenants/gone").await;
    until("the other knows it too", async || {
        let known = read(&world.processes[0], "/v1/tenants").await;
        let held = read(&world.processes[0], "/v1/api-keys/default").await["paused"] == true;
        known["items"].as_array().is_some_and(|items| items.len() == 2) && held
    })
    .await;
    world.server.cmd(&["FLUSHALL"]);
    until("the tenants are there again", async || {
        world.server.cmd(&["ZCARD", "ctct-proxy:{custody}:tenants"]) == ":2"
    })
    .await;
    // one that starts now knows only what the server has
    world.join().await;
    let new = &world.processes[2];
    assert_eq!(read(new, "/v1/tenants/b").await["state"], "paused");
    assert_eq!(read(new, "/v1/api-keys/default").await["paused"], true);
    let reply = new.admin(Method::POST, "/v1/api-keys/default/resume", &().into()).await;
    assert_eq!(reply.status, 204);
    let call = new.call(Method::GET, &world.client_key, "a", PATH);
    let reply = new.http.send(call).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    for process in &world.processes {
        let gone = process.admin(Method::GET, "/v1/tenants/gone", &().into()).await;
        assert_eq!(gone.status, 404);
        let page = read(process, "/v1/clients").await;
        assert_eq!(page["items"][0]["name"], "all");
    }
}
