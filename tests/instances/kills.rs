//! Programs and their server are killed, stopped and emptied at random while tokens are refreshed
//! all the time: no grant is lost, and no call too many arrives.
//!
//! `CTCT_PROXY_TEST_CHAOS_SECS` is how long, 45 if it is not set.

use std::time::Duration;

use http::Method;

use crate::chaos::{dice, index, number};
use crate::processes::{PATH, World};
use crate::redis::RedisServer;
use crate::support::{Dice, Process, Watch, judge};

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

async fn strike(world: &mut World, strike: Strike, dice: &mut Dice) {
    let span = Duration::from_millis(100 + dice.below(3_900));
    let at = index(dice, world.processes.len());
    match strike {
        Strike::KillProgram => {
            world.kill(at, span / 4).await;
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
    let (seed, mut dice) = dice();
    let mut world = World::start(3, |options| {
        options.access_token_life = Duration::from_secs(25);
        options.token_interval = Duration::from_millis(200);
    })
    .await;
    let tenants: Vec<String> = (0..TENANTS).map(|n| format!("t{n}")).collect();
    for tenant in &tenants {
        world.connect(tenant).await;
    }
    let (started, span) = (Watch::start(), number("CTCT_PROXY_TEST_CHAOS_SECS", 45));
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
        tokio::time::sleep(Duration::from_millis(500 + dice.below(3_000))).await;
        callers.drain(..).for_each(|caller| caller.abort());
        let over =
            judge::api_calls(&world.sandbox).iter().filter(|call| call.status == 429).count();
        assert_eq!(over, 0, "seed {seed}: a call too many after {next:?}");
    }
    let mut lost = 0;
    for tenant in &tenants {
        for process in &world.processes {
            let served = || {
                let call = process.call(Method::GET, &world.client_key, tenant, PATH);
                process.http.try_send(call)
            };
            let watch = Watch::start();
            let reply = loop {
                let reply = served().await;
                let is_over = reply.as_ref().is_ok_and(|reply| [200, 401].contains(&reply.status));
                if is_over || watch.elapsed() > PATIENCE {
                    break reply;
                }
            };
            let body = reply.as_ref().map(|reply| String::from_utf8_lossy(&reply.body));
            // killed between request and answer: nobody can know, and the reason says so
            let is_doubtful = body.as_ref().is_ok_and(|body| {
                ["answer to a refresh was lost", "stopped between a token request"]
                    .iter()
                    .any(|why| body.contains(why))
            });
            lost += usize::from(is_doubtful);
            assert!(
                is_doubtful || reply.as_ref().is_ok_and(|reply| reply.status == 200),
                "seed {seed}: {tenant} is not served: {body:?}\n{}",
                world.processes.iter().map(Process::log).collect::<String>()
            );
        }
    }
    let refreshes = judge::token_requests(&world.sandbox).len();
    println!("seed {seed}: {refreshes} token requests, {lost} answers lost");
    assert!(refreshes >= TENANTS, "they were refreshed");
}
