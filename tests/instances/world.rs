//! Gates that share a server, callers that never stop, and an upstream that writes down arrivals.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use ctct_proxy::clock::Clock;
use ctct_proxy::config::{RedisUrl, StoreUrl};
use ctct_proxy::engine::outcome::{Health, Outcome};
use ctct_proxy::engine::scheduler::{Arrival, Entry, Limits, Readiness};
use ctct_proxy::engine::turnstile::OnLoss;
use ctct_proxy::engine::{ApiKeyName, Class, DayReset, Guard, Mono, Reserve, TenantName};
use ctct_proxy::gate::{Gate, KeyGate, Parts, Sharing};
use ctct_proxy::store::{InstanceInfo, MemoryStore, RedisTurnstile};
use ctct_proxy::telemetry::{Events, Metrics};

/// Runs on its own.
pub(crate) fn spawn<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    TaskTracker::new().spawn(work)
}

pub(crate) fn redis_url(url: &str) -> RedisUrl {
    match ctct_proxy::config::store_url(url) {
        Ok(StoreUrl::Redis(url)) => url,
        other => panic!("{url} is {other:?}"),
    }
}

pub(crate) fn limits(rate: &str) -> Limits {
    Limits {
        rate: rate.parse().expect("a rate"),
        guard: Guard::Auto,
        per_day: 250_000,
        day_reset: DayReset::default(),
        reserve: Reserve::default(),
        in_flight_max: 64,
        capacity: 10_000,
        capacity_per_tenant: 5_000,
    }
}

pub(crate) fn main_key() -> ApiKeyName {
    ApiKeyName::new("main").expect("a name")
}

pub(crate) fn tenant(name: &str) -> TenantName {
    TenantName::new(name).expect("a name")
}

/// One instance's gate.
pub(crate) struct Instance {
    pub(crate) gate: Gate,
    pub(crate) key: KeyGate,
    pub(crate) clock: Clock,
    pub(crate) name: String,
    _demands: mpsc::UnboundedReceiver<ctct_proxy::gate::Demand>,
}

impl Instance {
    pub(crate) async fn start(url: &str, name: &str, limits: Limits, tenants: &[&str]) -> Self {
        let clock = Clock::system();
        let info =
            InstanceInfo { id: name.to_owned(), name: name.to_owned(), details: "{}".to_owned() };
        let turnstile = RedisTurnstile::open(&redis_url(url), &info).await.expect("connects");
        let (demands, demanded) = mpsc::unbounded_channel();
        let gate = Gate::start(
            Parts {
                store: Arc::new(MemoryStore::default()),
                sharing: Some(Sharing {
                    turnstile: Arc::new(turnstile),
                    on_loss: OnLoss::GoOn { lasting: Duration::from_mins(10) },
                }),
                clock: clock.clone(),
                metrics: Metrics::new("test"),
                events: Events::new(clock.clone()),
                demands,
                tracker: TaskTracker::new(),
                stopped: CancellationToken::new(),
                seed: 1,
            },
            vec![(main_key(), limits)],
            &BTreeSet::new(),
        );
        for name in tenants {
            gate.set_tenant(&main_key(), &tenant(name), Some(Readiness::Ready), false, 1);
        }
        let key = gate.api_key(&main_key()).expect("it is there");
        Self { gate, key, clock, name: name.to_owned(), _demands: demanded }
    }

    /// Callers of a tenant, of whom `waiting` wait at a time, until the task is aborted.
    pub(crate) fn callers(
        &self,
        name: &str,
        class: Class,
        waiting: usize,
        upstream: &Upstream,
    ) -> Vec<JoinHandle<()>> {
        let caller = || {
            let (key, clock) = (self.key.clone(), self.clock.clone());
            let (tenant, instance) = (tenant(name), self.name.clone());
            let upstream = upstream.clone();
            spawn(async move {
                loop {
                    let deadline = clock.now().mono.plus(Duration::from_secs(600));
                    let arrival =
                        Arrival { tenant: tenant.clone(), class, deadline, entry: Entry::Back };
                    let permit = match key.enqueue(arrival).granted().await {
                        Ok(permit) => permit,
                        Err(refusal) => {
                            upstream.refused(&refusal.to_string());
                            tokio::time::sleep(Duration::from_millis(50)).await;
                            continue;
                        }
                    };
                    if permit.is_stale() {
                        continue;
                    }
                    let spent = permit.spend();
                    upstream.call(&instance, tenant.as_str()).await;
                    spent.settle(Outcome::Answered(Health::Good));
                }
            })
        };
        (0..waiting).map(|_| caller()).collect()
    }
}

/// Where calls arrive.
#[derive(Clone)]
pub(crate) struct Upstream {
    clock: Clock,
    log: Arc<Mutex<Log>>,
}

/// When a call arrived, of which instance and tenant.
pub(crate) type Arrived = (Mono, String, String);

#[derive(Default)]
struct Log {
    arrivals: Vec<Arrived>,
    refused: Vec<String>,
}

impl Upstream {
    pub(crate) fn new() -> Self {
        Self { clock: Clock::system(), log: Arc::default() }
    }

    pub(crate) fn now(&self) -> Mono {
        self.clock.mono()
    }

    async fn call(&self, instance: &str, tenant: &str) {
        // a jitter of up to 8 ms, by what the clock shows
        let now = self.now().since_start();
        tokio::time::sleep(Duration::from_nanos(u64::from(now.subsec_nanos()) % 8_000_000)).await;
        let arrival = (self.now(), instance.to_owned(), tenant.to_owned());
        self.log.lock().expect("whole").arrivals.push(arrival);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    fn refused(&self, why: &str) {
        self.log.lock().expect("whole").refused.push(why.to_owned());
    }

    pub(crate) fn refusals(&self) -> Vec<String> {
        self.log.lock().expect("whole").refused.clone()
    }

    pub(crate) fn all(&self) -> Vec<Arrived> {
        let mut all = self.log.lock().expect("whole").arrivals.clone();
        all.sort();
        all
    }

    /// Arrivals between two moments.
    pub(crate) fn arrivals(&self, from: Mono, to: Mono) -> Vec<Arrived> {
        let log = self.log.lock().expect("whole");
        let mut arrivals: Vec<_> =
            log.arrivals.iter().filter(|(at, ..)| *at >= from && *at < to).cloned().collect();
        arrivals.sort();
        arrivals
    }
}

/// Most arrivals in any window.
pub(crate) fn most_in_a_window(arrivals: &[Arrived], window: Duration) -> usize {
    let most = arrivals.iter().enumerate().map(|(first, (at, ..))| {
        arrivals.iter().skip(first).take_while(|(later, ..)| later.since(*at) < window).count()
    });
    most.max().unwrap_or(0)
}

/// How many of the arrivals belong to each.
pub(crate) fn shares<'a>(of: impl Iterator<Item = &'a String>) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for name in of {
        *shares.entry(name.clone()).or_default() += 1;
    }
    shares
}
