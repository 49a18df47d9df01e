//! Several instances over one real Redis server: one limit, equal shares, nothing lost.
//!
//! `gates` and `chaos` run the gates of many instances in this process, whose calls are judged by
//! when they arrive; `script`, `turns` and `reports` ask the server directly; `processes`,
//! `custody`, `kills` and `namespaces` run the program.

#[path = "instances/chaos.rs"]
mod chaos;
#[path = "instances/custody.rs"]
mod custody;
#[path = "instances/fleet.rs"]
mod fleet;
#[path = "instances/gates.rs"]
mod gates;
#[path = "instances/kills.rs"]
mod kills;
#[path = "instances/line.rs"]
mod line;
#[path = "instances/namespaces.rs"]
mod namespaces;
#[path = "instances/processes.rs"]
mod processes;
#[path = "support/redis.rs"]
#[expect(dead_code, reason = "other tests use other parts of it")]
mod redis;
#[path = "instances/reports.rs"]
mod reports;
#[path = "instances/script.rs"]
mod script;
#[path = "main/support.rs"]
#[expect(dead_code, unused_imports, reason = "other tests use other parts of it")]
mod support;
#[path = "instances/turns.rs"]
mod turns;
#[path = "instances/world.rs"]
mod world;
