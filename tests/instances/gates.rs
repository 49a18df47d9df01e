//! Many gates, one server: rate and shares, and what is left of them in every kind of trouble.

use std::time::Duration;

use tokio::task::JoinHandle;

use ctct_proxy::engine::Class;
use ctct_proxy::engine::scheduler::Limits;

use crate::fleet::{CALLS, Fleet, MACHINE, RATE, TENANTS, WINDOW};
use crate::line::{Line, Mode};
use crate::redis::RedisServer;
use crate::support::until;
use crate::world::{Instance, Upstream, limits, most_in_a_window, shares};

fn scripts(server: &RedisServer) -> u64 {
    let stats = server.cmd(&["INFO", "commandstats"]);
    let line = stats.lines().find(|line| line.starts_with("cmdstat_evalsha"));
    let calls = line.and_then(|line| line.split("calls=").nth(1)?.split(',').next());
    calls.map_or(0, |calls| calls.parse().expect("a number"))
}

/// Whether each is within a tenth of the mean, or one call of it.
fn are_equal(shares: &std::collections::BTreeMap<String, usize>, count: usize) -> bool {
    let all: usize = shares.values().sum();
    let allowed = (all / 10).max(count);
    shares.len() == count && shares.values().all(|share| (share * count).abs_diff(all) <= allowed)
}

async fn share_the_rate(instances: usize, secs: u64) {
    let server = RedisServer::start();
    let fleet = Fleet::start(&vec![server.url(); instances]).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = scripts(&server);
    let arrivals = fleet.arrivals(Duration::from_secs(secs)).await;
    let asked = scripts(&server) - before;
    let span = usize::try_from(secs).expect("short");
    assert!(most_in_a_window(&arrivals, WINDOW) <= CALLS, "{instances}: over the limit");
    let least = CALLS * span * 90 / 100;
    assert!(arrivals.len() >= least, "{instances}: {} of {}", arrivals.len(), CALLS * span);
    let by_instance = shares(arrivals.iter().map(|(_, instance, _)| instance));
    assert!(are_equal(&by_instance, instances), "{by_instance:?}");
    let by_tenant = shares(arrivals.iter().map(|(.., tenant)| tenant));
    assert!(are_equal(&by_tenant, TENANTS.len()), "{by_tenant:?}");
    // each instance also says that it is there, and one that waits asks now and then
    let most = 2 * u64::try_from(arrivals.len()).expect("few") * 102 / 100;
    let most = most + 4 * secs * u64::try_from(instances).expect("few");
    assert!(asked <= most, "{instances}: {asked} scripts for {} slots", arrivals.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_instance_has_the_whole_rate() {
    share_the_rate(1, 12).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_instances_share_the_rate_and_tenants_share_it_across_them() {
    share_the_rate(3, 12).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_instances_share_the_rate_and_tenants_share_it_across_them() {
    let _alone = MACHINE.lock().await;
    share_the_rate(20, 30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_that_lost_their_server_go_on_with_a_part_each_and_share_again_when_it_is_back() {
    let mut server = RedisServer::start();
    let fleet = Fleet::start(&vec![server.url(); 3]).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    server.kill();
    // until all have heard that nobody hears the server
    tokio::time::sleep(Duration::from_millis(5_500)).await;
    let alone = fleet.arrivals(Duration::from_secs(5)).await;
    assert!(alone.len() >= CALLS * 5 * 9 / 10, "{} calls in 5 s", alone.len());
    let by_instance = shares(alone.iter().map(|(_, instance, _)| instance));
    assert_eq!(by_instance.len(), 3);
    server.restart();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let again = fleet.arrivals(Duration::from_secs(5)).await;
    assert!(again.len() >= CALLS * 5 * 9 / 10, "{} calls in 5 s", again.len());
    assert!(fleet.most_ever() <= CALLS, "{} in a second", fleet.most_ever());
    assert_eq!(fleet.upstream.refusals(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_is_cut_off_keeps_to_its_part_and_the_others_leave_it() {
    let _alone = MACHINE.lock().await;
    let server = RedisServer::start();
    let line = Line::to(server.port()).await;
    let fleet = Fleet::start(&[line.url(), server.url(), server.url()]).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    line.set(Mode::Cut);
    tokio::time::sleep(Duration::from_millis(6_500)).await;
    let apart = fleet.arrivals(Duration::from_secs(5)).await;
    let by_instance = shares(apart.iter().map(|(_, instance, _)| instance));
    let cut_off = by_instance.get("i0").copied().unwrap_or(0);
    assert!((28..=35).contains(&cut_off), "{by_instance:?}");
    assert!(apart.len() >= CALLS * 5 * 9 / 10, "{by_instance:?}");
    line.set(Mode::Whole);
    line.break_all();
    tokio::time::sleep(Duration::from_secs(6)).await;
    let together = fleet.arrivals(Duration::from_secs(5)).await;
    let by_instance = shares(together.iter().map(|(_, instance, _)| instance));
    assert!(are_equal(&by_instance, 3), "{by_instance:?}");
    assert!(fleet.most_ever() <= CALLS, "{} in a second", fleet.most_ever());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_waited_when_the_server_was_emptied_are_served() {
    let server = RedisServer::start();
    let upstream = Upstream::new();
    let gate = Instance::start(&server.url(), "i0", limits("1"), &TENANTS).await;
    let callers: Vec<_> =
        TENANTS.iter().flat_map(|name| gate.callers(name, Class::Normal, 1, &upstream)).collect();
    tokio::time::sleep(Duration::from_secs(2)).await;
    // all three wait or are in flight; nobody else comes
    server.cmd(&["FLUSHALL"]);
    tokio::time::sleep(Duration::from_secs(7)).await;
    callers.iter().for_each(JoinHandle::abort);
    let by_tenant = shares(upstream.all().iter().map(|(.., tenant)| tenant));
    assert_eq!(by_tenant.len(), 3, "{by_tenant:?}");
    assert!(upstream.all().len() >= 5, "{by_tenant:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_day_is_counted_once_for_all_and_goes_on_from_what_they_remember() {
    let server = RedisServer::start();
    let (upstream, limits) = (Upstream::new(), Limits { per_day: 90, ..limits(RATE) });
    let mut gates = Vec::new();
    let mut callers = Vec::new();
    for name in ["i0", "i1", "i2"] {
        let gate = Instance::start(&server.url(), name, limits, &TENANTS).await;
        callers.extend(gate.callers("a", Class::Interactive, 5, &upstream));
        gates.push(gate);
    }
    let arrived = async |count| {
        let (watch, patience) = (upstream.now(), Duration::from_secs(20));
        while upstream.all().len() < count && upstream.now().since(watch) < patience {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    arrived(30).await;
    server.cmd(&["FLUSHALL"]);
    arrived(88).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    callers.iter().for_each(JoinHandle::abort);
    // one that was on its way when the server was emptied may stay counted
    let count = upstream.all().len();
    assert!((88..=90).contains(&count), "{count} of 90");
    assert!(upstream.refusals().iter().all(|why| why.contains("day")), "{:?}", upstream.refusals());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_stops_leaves_its_part_before_it_has_ended() {
    let server = RedisServer::start();
    let stops = Instance::start(&server.url(), "stops", limits(RATE), &TENANTS).await;
    let stays = Instance::start(&server.url(), "stays", limits(RATE), &TENANTS).await;
    let slots_of_the_one = || {
        let roll = stays.gate.roll()?;
        let member = roll.members.iter().find(|member| member.id == "stops")?;
        Some(member.parts.map(|part| part.slots(20)))
    };
    until("each has half", async || slots_of_the_one() == Some([10, 10])).await;
    // it may serve for a minute, and be killed in the middle
    stops.gate.stop(Duration::from_secs(60));
    until("it has nothing", async || slots_of_the_one() == Some([0, 0])).await;
}
