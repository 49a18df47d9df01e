//! `kill -9` at any moment around refreshes, hundreds of times: no tenant is lost without the
//! reason shown, and none is lost whose tokens had arrived.
//!
//! Several programs with three lanes each refresh without end and are killed at random moments, a
//! part of them while they are still starting. What a start finds in the journal tells in which
//! step the kill struck; all steps must have been struck. `CTCT_PROXY_TEST_KILLS` is how many kills
//! there are in all, 500 if it is not set. The same on Redis servers, which are killed too.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use http::Method;
use serde_json::json;

use ctct_proxy::sandbox::{Sandbox, Verdict};
use ctct_proxy::secret::KeyRing;

use crate::life::sandbox;
use crate::redis_process::RedisServer;
use crate::support::{Dice, Process, Program, until};

const PATH: &str = "/v3/contacts?limit=1";
/// Programs killed at the same time.
const PROGRAMS: u64 = 4;
/// Of those kills one in so many is done again on Redis servers.
const SHARE_ON_REDIS: u64 = 4;
/// Lanes of each, and tenants of each lane.
const API_KEYS: usize = 3;
const TENANTS: usize = 3;
/// All tenants are looked at after so many kills of a program.
const ROUND: u64 = 25;
/// Longest time between a program's being told to refresh and its being killed.
const KILLED_WITHIN_MS: u64 = 120;

#[expect(clippy::disallowed_methods, reason = "a longer run is asked for by the environment")]
fn kills() -> u64 {
    std::env::var("CTCT_PROXY_TEST_KILLS").map_or(500, |text| text.parse().expect("a number"))
}

/// One program with its tenants and what its starts have told.
struct Victim {
    sandbox: Sandbox,
    program: Program,
    /// What it stores in, when that is no file.
    server: Option<RedisServer>,
    key: String,
    /// Programs that were killed since the last look; their logs may still be coming in.
    dead: Vec<Process>,
    /// Steps that starts found, by how often.
    steps: BTreeMap<String, u64>,
    lost: Vec<String>,
}

fn tenants() -> impl Iterator<Item = (String, String)> {
    (0..API_KEYS)
        .flat_map(|key| (0..TENANTS).map(move |n| (format!("key{key}"), format!("k{key}-t{n}"))))
}

/// The value of `field` in a line of the log.
fn field<'a>(line: &'a str, field: &str) -> Option<&'a str> {
    let rest = line.split_once(&format!(" {field}="))?.1;
    rest.split(' ').next().map(|value| value.trim_matches('"'))
}

impl Victim {
    async fn new(number: u64, server: Option<RedisServer>) -> Self {
        let sandbox = sandbox(|options| {
            options.token_interval = Duration::ZERO;
            options.token_latency = Duration::from_millis(5);
            options.seed = Some(number);
        })
        .await;
        let program = Program::new(&sandbox).without("client-id");
        let keys = (0..API_KEYS).map(|key| {
            let name = format!("name = \"key{key}\"\nclient_id = \"key{key}\"\n");
            format!("[[api_keys]]\n{name}per_second = 50\nper_day = 1000000\n")
        });
        let file = program.path("proxy.toml");
        std::fs::write(&file, keys.collect::<String>()).unwrap();
        let program = match &server {
            Some(server) => {
                let key = program.path("key");
                std::fs::write(&key, KeyRing::generate().text().expose()).unwrap();
                program
                    .flag("store", server.url())
                    .flag("encryption-key-file", key.to_str().unwrap())
                    // each start is another instance, as its ports are, and those that were killed
                    // would keep their part of the limits
                    .flag("on-store-loss", "closed")
            }
            None => program,
        };
        let program = program
            .flag("config", file.to_str().unwrap())
            .flag("refresh-interval", "1ms")
            .flag("log-level", "info,ctct_proxy::store=debug");
        let mut process = program.start().await;
        let key = process.add_client("all").await;
        let (dead, steps, lost) = (Vec::new(), BTreeMap::new(), Vec::new());
        let victim = Self { sandbox, program, server, key, dead, steps, lost };
        for (api_key, tenant) in tenants() {
            victim.connect(&process, &api_key, &tenant).await;
        }
        process.kill().await;
        victim
    }

    async fn connect(&self, process: &Process, api_key: &str, tenant: &str) {
        let grant = self.sandbox.connect_tenant(api_key, tenant);
        let body = json!({
            "api_key": api_key,
            "refresh_token": grant.refresh_token,
            "access_token": grant.access_token,
        });
        let path = format!("/v1/tenants/{tenant}");
        let reply = process.admin(Method::PUT, &path, &body).await;
        assert!([200, 201].contains(&reply.status), "{reply:?}");
    }

    /// Starts the program, has it refresh, and kills it.
    async fn kill(&mut self, dice: &mut Dice) {
        let mut process = self.program.spawn();
        if dice.below(6) == 0 {
            // while it is starting, or just after
            tokio::time::sleep(Duration::from_millis(dice.below(200))).await;
        } else {
            process.serves().await;
            self.refresh_all(&process).await;
            tokio::time::sleep(Duration::from_millis(dice.below(KILLED_WITHIN_MS))).await;
        }
        if let Some(server) = self.server.as_mut().filter(|_| dice.below(3) == 0) {
            server.kill();
            tokio::time::sleep(Duration::from_millis(dice.below(KILLED_WITHIN_MS))).await;
            process.kill().await;
            server.restart();
        } else {
            process.kill().await;
        }
        self.dead.push(process);
        if let Some(server) = &self.server {
            free_lanes(server);
        }
    }

    async fn refresh_all(&self, process: &Process) {
        join_all(tenants().map(async |(_, tenant)| {
            let path = format!("/v1/tenants/{tenant}/refresh");
            // 409 for one that must be connected again
            process.admin(Method::POST, &path, &json!(null)).await;
        }))
        .await;
    }

    /// Every tenant works, or says why not and had its answer lost.
    async fn look(&mut self) {
        let mut process = self.program.start().await;
        until("nothing is under way", async || {
            let list = process.admin(Method::GET, "/v1/tenants", &json!(null)).await.json();
            let items = list["items"].as_array().unwrap().clone();
            assert_eq!(items.len(), API_KEYS * TENANTS);
            items.iter().all(|item| item["state"] != "refreshing")
        })
        .await;
        let logs: String = self.dead.iter().chain([&process]).map(Process::log).collect();
        let may_be_lost = self.count_steps(&logs);
        for (api_key, tenant) in tenants() {
            let path = format!("/v1/tenants/{tenant}");
            let view = process.admin(Method::GET, &path, &json!(null)).await.json();
            if view["state"] == "needs_authorization" {
                let reason = view["state_reason"].as_str().unwrap();
                assert!(reason.contains("the process stopped between"), "{tenant}: {reason}");
                assert!(may_be_lost.contains(&tenant), "{tenant}: {reason}\n{logs}");
                self.lost.push(tenant.clone());
                self.connect(&process, &api_key, &tenant).await;
            }
            let call = process.call(Method::GET, &self.key, &tenant, PATH);
            process.http.send(call).await.expect(200);
        }
        process.kill().await;
        self.dead.clear();
    }

    /// Counts what starts found; gives the tenants whose request was out when a kill struck.
    fn count_steps(&mut self, logs: &str) -> BTreeSet<String> {
        let mut posted = BTreeSet::new();
        for line in logs.lines() {
            if line.contains("the process stopped during a refresh") {
                let step = field(line, "step").expect("the step is told");
                *self.steps.entry(step.to_owned()).or_default() += 1;
                if step == "posted" {
                    posted.insert(field(line, "tenant").expect("the tenant is told").to_owned());
                }
            } else if line.contains("journal of refreshes is read") && line.contains("\"ended\"") {
                *self.steps.entry("stored".to_owned()).or_default() += 1;
            }
        }
        posted
    }
}

/// Has the server know that whoever had a lane is dead, which it would find out by waiting.
fn free_lanes(server: &RedisServer) {
    let info = server.cmd(&["INFO", "server"]);
    let run = info.lines().find_map(|line| line.strip_prefix("run_id:")).expect("it says").trim();
    for key in 0..API_KEYS {
        let lane = format!("ctct-proxy:{{key{key}}}:lane");
        server.cmd(&["HSET", &lane, "until", "0", "rest", "0", "run", run]);
    }
}

type Told = (u64, BTreeMap<String, u64>, usize);

async fn kill_again_and_again(number: u64, kills: u64, server: Option<RedisServer>) -> Told {
    let mut victim = Victim::new(number, server).await;
    let mut dice = Dice::new(number * 7_919);
    for kill in 1..=kills {
        victim.kill(&mut dice).await;
        if kill % ROUND == 0 || kill == kills {
            victim.look().await;
        }
    }
    let counts = victim.sandbox.counts();
    let (ok, refused) = (counts.of(Verdict::TokenOk), counts.of(Verdict::TokenInvalidGrant));
    assert_eq!(counts.of(Verdict::Unauthorized), 0, "program {number}: a void token was sent");
    // a start asks once more for what was out, and a kill may strike that too
    let out = victim.steps.get("posted").copied().unwrap_or_default();
    assert!(refused <= out, "program {number}: {refused} refused, {out} were out at a kill");
    (ok, victim.steps, victim.lost.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_kills_around_refreshes_lose_no_tenant_without_the_reason_shown() {
    let all = ["begun", "posted", "received", "stored"];
    println!("{}", kill_programs(kills(), &all, || None).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_of_programs_and_redis_servers_lose_no_tenant_without_the_reason_shown() {
    let server = || Some(RedisServer::start());
    let told = kill_programs(kills() / SHARE_ON_REDIS, &["posted"], server).await;
    println!("{told}");
}

/// Kills programs and tells how it went; each step of `struck` must have been struck.
async fn kill_programs(
    kills: u64,
    struck: &[&str],
    server: impl Fn() -> Option<RedisServer>,
) -> String {
    let programs = (1..=PROGRAMS).map(|number| {
        let share = kills / PROGRAMS + u64::from(number <= kills % PROGRAMS);
        Box::pin(kill_again_and_again(number, share, server()))
    });
    let (mut refreshed, mut steps, mut lost) = (0, BTreeMap::new(), 0);
    for (ok, found, gone) in join_all(programs).await {
        refreshed += ok;
        lost += gone;
        for (step, count) in found {
            *steps.entry(step).or_insert(0) += count;
        }
    }
    for step in struck {
        assert!(steps.contains_key(*step), "no kill of {kills} struck the step {step}: {steps:?}");
    }
    format!("{kills} kills, {refreshed} refreshes; struck: {steps:?}; lost with reason: {lost}")
}
