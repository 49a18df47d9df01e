//! Many gates, one server: rate and shares.

use std::time::{Duration, Instant};

use ctct_proxy::engine::Class;

use crate::redis::RedisServer;
use crate::support::{Instance, Upstream, limits, most_in_a_window, shares};

async fn saturated(instances: usize, rate: &str, secs: u64) -> (Upstream, Instant, Instant) {
    let server = RedisServer::start();
    let upstream = Upstream::default();
    let mut gates = Vec::new();
    let mut callers = Vec::new();
    for number in 0..instances {
        let gate =
            Instance::start(&server.url(), &format!("i{number}"), limits(rate), &["a", "b", "c"])
                .await;
        for tenant in ["a", "b", "c"] {
            callers.extend(gate.callers(tenant, Class::Normal, 5, &upstream));
        }
        gates.push(gate);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let from = Instant::now();
    let before = commands(&server);
    tokio::time::sleep(Duration::from_secs(secs)).await;
    let to = Instant::now();
    println!("{} scripts in {secs} s", commands(&server) - before);
    callers.iter().for_each(tokio::task::JoinHandle::abort);
    (upstream, from, to)
}

fn commands(server: &RedisServer) -> u64 {
    let stats = server.cmd(&["INFO", "commandstats"]);
    let line = stats.lines().find(|line| line.starts_with("cmdstat_evalsha"));
    let calls = line.and_then(|line| line.split("calls=").nth(1)?.split(',').next());
    calls.map_or(0, |calls| calls.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_share_the_rate_exactly() {
    for (instances, rate, calls) in [(1, "20", 20), (3, "20", 20), (20, "20", 20)] {
        let (upstream, from, to) = saturated(instances, rate, 10).await;
        let arrivals = upstream.arrivals(from, to);
        let most = most_in_a_window(&arrivals, Duration::from_secs(1));
        println!(
            "{instances}: {} arrivals, most {most}, stale {}, refused {:?}",
            arrivals.len(),
            upstream.stale_count(),
            upstream.refusals().first(),
        );
        println!("{:?}", shares(arrivals.iter().map(|(_, instance, _)| instance)));
        println!("{:?}", shares(arrivals.iter().map(|(.., tenant)| tenant)));
        assert!(most <= calls);
    }
}
