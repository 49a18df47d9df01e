//! Every kind of trouble with the server, at random, under load without end: never a call too many,
//! and calls go on within two seconds of the server's return.
//!
//! `CTCT_PROXY_TEST_CHAOS_SECS` is how long, 45 if it is not set; `CTCT_PROXY_TEST_SEED` repeats a
//! run as far as real time allows.

use std::time::Duration;

use ctct_proxy::clock::Clock;

use crate::fleet::{CALLS, Fleet, WINDOW};
use crate::line::{Line, Mode};
use crate::redis::RedisServer;
use crate::support::{Dice, Metronome, Watch};
use crate::world::most_in_a_window;

/// Calls go on so soon after the server is back.
const RECOVERY: Duration = Duration::from_secs(2);

#[expect(clippy::disallowed_methods, reason = "a longer run is asked for by the environment")]
pub(crate) fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[expect(clippy::disallowed_methods, reason = "CI must not pass over what it can test")]
pub(crate) fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some()
}

/// Dice, and the seed that throws them again.
pub(crate) fn dice() -> (u64, Dice) {
    let chance = Clock::system().now().unix.since_epoch().subsec_nanos();
    let seed = number("CTCT_PROXY_TEST_SEED", chance.into());
    (seed, Dice::new(seed))
}

/// One of so many.
pub(crate) fn index(dice: &mut Dice, len: usize) -> usize {
    usize::try_from(dice.below(len as u64)).expect("small")
}

#[derive(Clone, Copy, Debug)]
enum Trouble {
    Killed,
    Stopped,
    Asleep,
    Emptied,
    WithoutScripts,
    Slow,
    CutOff,
    Broken,
}

const TROUBLES: [Trouble; 8] = [
    Trouble::Killed,
    Trouble::Stopped,
    Trouble::Asleep,
    Trouble::Emptied,
    Trouble::WithoutScripts,
    Trouble::Slow,
    Trouble::CutOff,
    Trouble::Broken,
];

async fn strike(trouble: Trouble, server: &mut RedisServer, lines: &[Line], dice: &mut Dice) {
    let span = Duration::from_millis(200 + dice.below(5_300));
    let line = &lines[index(dice, lines.len())];
    match trouble {
        Trouble::Killed => {
            server.kill();
            tokio::time::sleep(span).await;
            server.restart();
        }
        Trouble::Stopped => {
            server.stop();
            tokio::time::sleep(span).await;
            server.cont();
        }
        Trouble::Asleep => {
            let port = server.port();
            let secs = format!("{:.3}", span.as_secs_f64());
            let sleeping = tokio::task::spawn_blocking(move || {
                RedisServer::cmd_at(port, &["DEBUG", "SLEEP", &secs])
            });
            sleeping.await.expect("it slept");
        }
        Trouble::Emptied => drop(server.cmd(&["FLUSHALL"])),
        Trouble::WithoutScripts => drop(server.cmd(&["SCRIPT", "FLUSH"])),
        Trouble::Slow => {
            line.set(Mode::Slow(Duration::from_millis(100)));
            tokio::time::sleep(span).await;
            line.set(Mode::Whole);
        }
        Trouble::CutOff => {
            line.set(Mode::Cut);
            tokio::time::sleep(span).await;
            line.set(Mode::Whole);
            line.break_all();
        }
        Trouble::Broken => line.break_all(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_trouble_with_the_server_lets_a_call_too_many_leave() {
    let (seed, mut dice) = dice();
    let mut server = RedisServer::start_with(&["--enable-debug-command", "yes"]);
    let mut lines = Vec::new();
    for _ in 0..3 {
        lines.push(Line::to(server.port()).await);
    }
    let fleet = Fleet::start(&lines.iter().map(Line::url).collect::<Vec<_>>()).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (started, span) = (Watch::start(), number("CTCT_PROXY_TEST_CHAOS_SECS", 45));
    let mut troubles = TROUBLES.iter().copied().cycle();
    while started.elapsed() < Duration::from_secs(span) {
        let trouble = troubles.next().expect("without end");
        strike(trouble, &mut server, &lines, &mut dice).await;
        // what the machine of the test holds back is not the program's
        let metronome = Metronome::start();
        let mut after = fleet.arrivals(RECOVERY).await;
        let held_back = metronome.worst().saturating_mul(2);
        after.extend(fleet.arrivals(held_back).await);
        assert!(
            !after.is_empty(),
            "seed {seed}: nothing left within {RECOVERY:?} and {held_back:?} of {trouble:?}"
        );
        tokio::time::sleep(Duration::from_millis(dice.below(1_000))).await;
        let all = fleet.upstream.all();
        let most = most_in_a_window(&all, WINDOW);
        assert!(most <= CALLS, "seed {seed}: {most} calls in a second, {trouble:?} was the last");
    }
    let calls = fleet.upstream.all().len();
    println!("seed {seed}: {calls} calls in {:?}", started.elapsed());
}
