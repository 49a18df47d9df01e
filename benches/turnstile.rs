//! What one Redis server carries: many API keys, several instances, every slot taken.
//!
//! `cargo bench --bench turnstile -- --keys 300 --instances 3 --secs 20` starts a server and, in
//! this process, the gates of so many instances, each with all the API keys at 10 calls a second
//! and callers that never stop. It prints what the server did for that: questions a second, its
//! processor time for each, what of the rate was used, and its memory.
#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use ctct_proxy::clock::Clock;
use ctct_proxy::config::{StoreUrl, store_url};
use ctct_proxy::engine::outcome::{Health, Outcome};
use ctct_proxy::engine::scheduler::{Arrival, Entry, Limits, Readiness};
use ctct_proxy::engine::turnstile::OnLoss;
use ctct_proxy::engine::{ApiKeyName, Class, DayReset, Guard, Reserve, TenantName};
use ctct_proxy::gate::{Gate, KeyGate, Parts, Sharing};
use ctct_proxy::store::{InstanceInfo, MemoryStore, RedisTurnstile};
use ctct_proxy::telemetry::{Events, Metrics};

#[path = "../tests/support/redis.rs"]
#[expect(dead_code, reason = "tests use other parts of it")]
mod redis;

use redis::RedisServer;

/// Calls a second of each API key, as a partner has them.
const RATE: u32 = 10;
/// Callers of each API key at each instance, of two tenants.
const CALLERS: usize = 4;
/// Until all slots turn evenly.
const WARM_UP: Duration = Duration::from_secs(6);
/// What an answer of the API takes.
const ANSWER: Duration = Duration::from_millis(40);

fn main() {
    let (keys, instances) = (argument("--keys", 300), argument("--instances", 3));
    let secs = argument("--secs", 20);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(run(keys, instances, Duration::from_secs(secs.into())));
}

fn argument(name: &str, default: u32) -> u32 {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1).map_or(default, |text| text.parse().expect("a number"))
}

async fn run(keys: u32, instances: u32, span: Duration) {
    let server = RedisServer::start();
    let (tracker, stopped) = (TaskTracker::new(), CancellationToken::new());
    let answered = Arc::new(AtomicU32::new(0));
    for number in 0..instances {
        let gate = instance(&server, number, keys, &tracker, &stopped).await;
        for key in gate.api_keys() {
            for caller in 0..CALLERS {
                let tenant = tenant(if caller % 2 == 0 { "a" } else { "b" });
                let call = call(key.clone(), tenant, answered.clone(), stopped.clone());
                tracker.spawn(call);
            }
        }
    }
    tokio::time::sleep(WARM_UP).await;
    let before = Figures::of(&server, &answered);
    tokio::time::sleep(span).await;
    let after = Figures::of(&server, &answered);
    let secs = span.as_secs_f64();
    let calls = (after.answered - before.answered) / secs;
    let questions = (after.scripts - before.scripts) / secs;
    let busy = (after.processor - before.processor) / secs;
    println!("{keys} API keys x {RATE}/s, {instances} instances, every slot wanted:");
    println!(
        "  calls      {calls:.0}/s, {:.1} % of the rate",
        calls / (f64::from(keys) * 10.0) * 100.0
    );
    println!("  questions  {questions:.0}/s, {:.2} for a call", questions / calls);
    println!(
        "  server     {:.0} % of a core, {:.0} us for a question",
        busy * 100.0,
        busy / questions * 1e6
    );
    println!(
        "  memory     {:.1} KiB for an API key",
        (after.memory - EMPTY) / f64::from(keys) / 1024.0
    );
    stopped.cancel();
}

/// Memory of a server that holds nothing, about.
const EMPTY: f64 = 1_000_000.0;

struct Figures {
    answered: f64,
    scripts: f64,
    /// Seconds.
    processor: f64,
    memory: f64,
}

impl Figures {
    fn of(server: &RedisServer, answered: &AtomicU32) -> Self {
        let info = |section| server.cmd(&["INFO", section]);
        let field = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("it says so");
            line.trim_end().to_owned()
        };
        let processor = info("cpu");
        let number = |name| field(&processor, name).parse::<f64>().expect("a number");
        let stats = info("commandstats");
        let scripts = field(&stats, "cmdstat_evalsha:calls=");
        let scripts = scripts.split(',').next().expect("a number").to_owned();
        Self {
            answered: f64::from(answered.load(Ordering::Relaxed)),
            scripts: scripts.parse().expect("a number"),
            processor: number("used_cpu_sys:") + number("used_cpu_user:"),
            memory: field(&info("memory"), "used_memory:").parse().expect("a number"),
        }
    }
}

fn tenant(name: &str) -> TenantName {
    TenantName::new(name).expect("a name")
}

async fn instance(
    server: &RedisServer,
    number: u32,
    keys: u32,
    tracker: &TaskTracker,
    stopped: &CancellationToken,
) -> Gate {
    let name = format!("i{number}");
    let details = "{}".to_owned();
    let info = InstanceInfo { id: name.clone(), name, details };
    let Ok(StoreUrl::Redis(url)) = store_url(&server.url()) else { panic!("a URL of Redis") };
    let turnstile = Arc::new(RedisTurnstile::open(&url, &info).await.expect("it is there"));
    let clock = Clock::system();
    let (demands, _) = mpsc::unbounded_channel();
    let limits = Limits {
        rate: RATE.to_string().parse().expect("a rate"),
        guard: Guard::Auto,
        per_day: 250_000,
        day_reset: DayReset::default(),
        reserve: Reserve::default(),
        in_flight_max: 64,
        capacity: 1_000,
        capacity_per_tenant: 1_000,
    };
    let names = (0..keys).map(|key| ApiKeyName::new(&format!("k{key}")).expect("a name"));
    let names: Vec<ApiKeyName> = names.collect();
    let parts = Parts {
        store: Arc::new(MemoryStore::default()),
        sharing: Some(Sharing {
            turnstile,
            on_loss: OnLoss::GoOn { lasting: Duration::from_mins(10) },
        }),
        clock: clock.clone(),
        metrics: Metrics::new("bench"),
        events: Events::new(clock),
        demands,
        tracker: tracker.clone(),
        stopped: stopped.clone(),
        seed: number.into(),
    };
    let limited = names.iter().map(|name| (name.clone(), limits)).collect();
    let gate = Gate::start(parts, limited, &BTreeSet::new());
    for name in &names {
        for tenant in ["a", "b"].map(tenant) {
            gate.set_tenant(name, &tenant, Some(Readiness::Ready), false, 1);
        }
    }
    gate
}

async fn call(
    key: KeyGate,
    tenant: TenantName,
    answered: Arc<AtomicU32>,
    stopped: CancellationToken,
) {
    let clock = Clock::system();
    while !stopped.is_cancelled() {
        let arrival = Arrival {
            tenant: tenant.clone(),
            class: Class::Normal,
            deadline: clock.mono().plus(Duration::from_secs(600)),
            entry: Entry::Back,
        };
        let Ok(permit) = key.enqueue(arrival).granted().await else { continue };
        if permit.is_stale() {
            continue;
        }
        let spent = permit.spend();
        tokio::time::sleep(ANSWER).await;
        spent.settle(Outcome::Answered(Health::Good));
        answered.fetch_add(1, Ordering::Relaxed);
    }
}
