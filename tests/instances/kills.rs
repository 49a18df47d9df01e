//! Programs and their server are killed, stopped and emptied at random while tokens are refreshed
//! all the time: no grant is lost, and no call too many arrives.
//!
//! `CTCT_PROXY_TEST_CHAOS_SECS` is how long, 60 if it is not set.

use std::time::{Duration, Instant};

use http::Method;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::chaos::number;
use crate::processes::{PATH, World};
use crate::redis::RedisServer;
use crate::support::judge;

const TENANTS: usize = 6;
/// Longest time until all are served when the trouble is over.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug)]
enum Strike {
    KillProgram,
    KillServer,
    StopServer,
    StopProgram,
    EmptyServer,
}

const STRIKES: [Strike; 5] = [
    Strike::KillProgram,
    Strike::KillServer,
    Strike::StopServer,
    Strike::StopProgram,
    Strike::EmptyServer,
];

async fn strike(world: &mut World, strike: Strike, dice: &mut SmallRng) {
    let span = Duration::from_millis(dice.random_range(100..4_000));
    let at = dice.random_range(0..world.processes.len());
    match strike {
        Strike::KillProgram => {
            world.processes[at].kill().await;
            world.processes.remove(at);
            tokio::time::sleep(span / 4).await;
            world.join().await;
        }
        Strike::KillServer => {
            world.server.kill();
            tokio::time::sleep(span).await;
            world.server.restart();
        }
        Strike::StopServer => {
            world.server.stop();
            tokio::time::sleep(span).await;
            world.server.cont();
        }
        Strike::StopProgram => {
            world.processes[at].signal("STOP").await;
            tokio::time::sleep(span).await;
            world.processes[at].signal("CONT").await;
        }
        Strike::EmptyServer => drop(RedisServer::cmd_at(world.server.port(), &["FLUSHALL"])),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_grant_is_lost_whatever_is_killed_and_no_call_too_many_arrives() {
    let seed = number("CTCT_PROXY_TEST_SEED", rand::random());
    println!("seed {seed}");
    let mut dice = SmallRng::seed_from_u64(seed);
    let mut world = World::start(3, |options| {
        options.access_token_life = Duration::from_secs(40);
        options.token_interval = Duration::from_millis(200);
    })
    .await;
    let tenants: Vec<String> = (0..TENANTS).map(|n| format!("t{n}")).collect();
    for tenant in &tenants {
        world.connect(tenant).await;
    }
    let (started, span) = (Instant::now(), number("CTCT_PROXY_TEST_CHAOS_SECS", 60));
    let mut callers = Vec::new();
    let mut strikes = STRIKES.iter().copied().cycle();
    while started.elapsed() < Duration::from_secs(span) {
        for at in 0..world.processes.len() {
            for tenant in &tenants {
                callers.extend(world.callers(at, tenant, 1));
            }
        }
        let next = strikes.next().expect("without end");
        strike(&mut world, next, &mut dice).await;
        tokio::time::sleep(Duration::from_millis(dice.random_range(500..3_500))).await;
        callers.drain(..).for_each(|caller| caller.abort());
        let over =
            judge::api_calls(&world.sandbox).iter().filter(|call| call.status == 429).count();
        assert_eq!(over, 0, "seed {seed}: a call too many after {next:?}");
    }
    for tenant in &tenants {
        for process in &world.processes {
            let call = || {
                let call = process.call(Method::GET, &world.client_key, tenant, PATH);
                process.http.try_send(call)
            };
            let served = async || call().await.is_ok_and(|reply| reply.status == 200);
            let deadline = Instant::now() + PATIENCE;
            while !served().await {
                let reply = call().await;
                assert!(
                    Instant::now() < deadline,
                    "seed {seed}: {tenant} is not served: {reply:?}\n{}",
                    process.log()
                );
            }
        }
    }
    let refreshes = judge::token_requests(&world.sandbox).len();
    println!("seed {seed}: {refreshes} token requests");
    assert!(refreshes >= TENANTS, "they were refreshed");
}
