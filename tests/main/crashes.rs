//! `kill -9` at any moment: no day's limit is passed, no grant is lost without a reason.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use futures_util::future::{join, join_all};
use http::Method;
use serde_json::json;

use ctct_proxy::sandbox::{Sandbox, Verdict};

use crate::life::{program, sandbox};
use crate::support::{Dice, Process, Watch, judge, until};

const PATH: &str = "/v3/contacts?limit=1";
const TENANTS: usize = 4;
/// Five proxies are killed ten times each.
const LANES: u64 = 5;
const KILLS: u64 = 10;
const RATE: u64 = 40;
/// Spent before the last kills: each start holds up to a second's calls counted and unused.
const PER_DAY: u64 = 500;

/// Callers that go on until the program is gone.
async fn load(process: &Process, key: &str) {
    join_all((0..TENANTS * 3).map(async |number| {
        let tenant = format!("t{}", number % TENANTS);
        loop {
            let call = process.call(Method::GET, key, &tenant, PATH);
            match process.http.try_send(call).await {
                Ok(reply) if reply.status == 200 => {}
                // refused at once, such as for a spent day: do not spin
                Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(_) => return,
            }
        }
    }))
    .await;
}

async fn state(process: &Process, tenant: &str) -> (String, String) {
    let path = format!("/v1/tenants/{tenant}");
    let view = process.admin(Method::GET, &path, &json!(null)).await.expect(200).json();
    let text = |name: &str| view[name].as_str().unwrap_or_default().to_owned();
    (text("state"), text("state_reason"))
}

/// Tenants for which a token request was answered in the moments before a kill, so that the answer
/// may have been lost with the process: their last token request before a kill is near it.
fn may_be_lost(sandbox: &Sandbox, kills: &[Duration]) -> BTreeSet<String> {
    let near = Duration::from_millis(700);
    let requests = judge::token_requests(sandbox);
    let lost = requests.iter().filter(|request| {
        let at = judge::at(request);
        kills.iter().any(|kill| kill.checked_sub(at).is_some_and(|before| before < near))
    });
    lost.filter_map(|request| request.account.as_deref().map(str::to_owned)).collect()
}

async fn kill_again_and_again(seed: u64) -> String {
    let watch = Watch::start();
    let sandbox = sandbox(|options| {
        options.per_day = PER_DAY;
        options.access_token_life = Duration::from_secs(4);
        options.token_latency = Duration::from_millis(30);
    })
    .await;
    let program = program(&sandbox)
        .flag("per-second", RATE.to_string())
        .flag("per-day", PER_DAY.to_string())
        .flag("refresh-margin", "3s")
        .flag("log-level", "debug");
    let mut process = program.start().await;
    for number in 0..TENANTS {
        let name = format!("t{number}");
        process.put_tenant(&name, &sandbox.connect_tenant("app", &name)).await;
    }
    let key = process.add_client("all").await;
    let mut dice = Dice::new(seed);
    let mut kills = Vec::new();
    for kill in 0..KILLS {
        let moment = Duration::from_millis(600 + dice.below(1_500));
        let killing = async {
            tokio::time::sleep(moment).await;
            process.signal("KILL").await;
        };
        join(load(&process, &key), killing).await;
        assert_eq!(process.end().await.code(), None, "kill {kill} of seed {seed}");
        kills.push(watch.elapsed());
        process = program.start().await;
    }
    let counts = sandbox.counts();
    let today: u64 = counts.api_keys.get("app").map_or(0, |key| key.days.values().sum());
    assert!(today <= PER_DAY, "seed {seed}: {today} arrived of {PER_DAY}");
    assert_eq!(counts.of(Verdict::QuotaExceeded), 0, "seed {seed}");
    assert_eq!(counts.of(Verdict::Throttled), 0, "seed {seed}");
    let view = process.admin(Method::GET, "/v1/api-keys/default", &json!(null)).await.json();
    let counted = view["day"]["used"].as_u64().unwrap();
    assert!(counted >= today, "seed {seed}: {counted} counted, {today} arrived");
    assert!(counted <= today + RATE * (KILLS + 1), "seed {seed}: {counted} counted, {today} came");
    let summary = all_tenants_work_or_say_why(&sandbox, process, &program, &key, &kills).await;
    let renewed = counts.of(Verdict::TokenOk);
    format!("seed {seed}: {today} calls, {counted} counted, {renewed} renewals; {summary}")
}

async fn all_tenants_work_or_say_why(
    sandbox: &Sandbox,
    mut process: Process,
    program: &crate::support::Program,
    key: &str,
    kills: &[Duration],
) -> String {
    process.kill().await;
    process.end().await;
    let may_be_lost = may_be_lost(sandbox, kills);
    // a new day for both, as far as counts go
    sandbox.reset();
    let process = program.clone().flag("per-day", "1000000").start().await;
    let mut summary = String::new();
    for number in 0..TENANTS {
        let tenant = format!("t{number}");
        let reply = process.http.send(process.call(Method::GET, key, &tenant, PATH)).await;
        if reply.status == 200 {
            continue;
        }
        reply.expect_refusal(401, "tenant_needs_authorization");
        let (name, reason) = state(&process, &tenant).await;
        assert_eq!(name, "needs_authorization");
        assert!(reason.len() > 20, "{reason}");
        assert!(
            may_be_lost.contains(&tenant),
            "{tenant} needs authorization without an answer lost: {reason}\n{}",
            process.log()
        );
        let _ = write!(summary, "{tenant}: {reason}; ");
        // and it comes back
        process.put_tenant(&tenant, &sandbox.connect_tenant("app", &tenant)).await;
        until("it works again", async || {
            process.http.send(process.call(Method::GET, key, &tenant, PATH)).await.status == 200
        })
        .await;
    }
    summary
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_kills_pass_no_limit_and_lose_no_grant_without_a_reason() {
    let lanes = (1..=LANES).map(|seed| Box::pin(kill_again_and_again(seed * 7_919)));
    for summary in join_all(lanes).await {
        println!("{summary}");
    }
}
