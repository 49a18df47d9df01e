//! CPU time of a request that nothing holds back, against the bare proxy's.
//!
//! Both proxies are alive all the time and take turns, so that whatever else the machine does meets
//! both; the figure is the median of the ratios of the rounds.

use std::net::SocketAddr;
use std::rc::Rc;

use crate::callers::{self, Cost};
use crate::process::{Cores, PROXY_CORE};
use crate::report::{Report, median, note};
use crate::subject::{self, Ours, Subject, TENANT};
use crate::upstream::{LARGE_PATH, SMALL_PATH};

struct Case {
    name: &'static str,
    path: &'static str,
    requests: u32,
    ratio_max: f64,
}

const CASES: [Case; 2] = [
    Case { name: "300 bytes", path: SMALL_PATH, requests: 60_000, ratio_max: 1.35 },
    Case { name: "64 KiB", path: LARGE_PATH, requests: 25_000, ratio_max: 1.15 },
];

struct Subjects {
    bare: Subject,
    ours: Subject,
    client_key: String,
}

/// Measures, and adds the figures to the report.
pub(crate) async fn measure(ours: &Ours, rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    let cores = Cores::One(PROXY_CORE);
    let bare = subject::bare(ours.upstream, false, cores).await?;
    let ours = ours.start("memory:", cores).await?;
    let client_key = ours.client_key().await?;
    let subjects = Subjects { bare, ours, client_key };
    for case in &CASES {
        let [bare, anonymous, keyed] = rounds_of(&subjects, case, rounds).await?;
        let name = case.name;
        note(&format!("{name}, bare proxy"), &detail(&bare));
        note(&format!("{name}, tenant named by the bearer"), &detail(&anonymous));
        note(&format!("{name}, client key"), &detail(&keyed));
        for (who, costs) in [("tenant named by the bearer", &anonymous), ("client key", &keyed)] {
            let what = format!("CPU per request, {name}, {who}");
            let ratios = costs.iter().zip(&bare).map(|(cost, bare)| cost.cpu_us / bare.cpu_us);
            report.add(&what, median(ratios), "× bare", Some(case.ratio_max));
        }
    }
    Ok(())
}

async fn rounds_of(
    subjects: &Subjects,
    case: &Case,
    rounds: usize,
) -> anyhow::Result<[Vec<Cost>; 3]> {
    let anonymous = callers::request(case.path, TENANT);
    let keyed = callers::request(case.path, &subjects.client_key);
    let mut costs = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..rounds {
        let turns: [(&Subject, &Rc<[u8]>); 3] =
            [(&subjects.bare, &anonymous), (&subjects.ours, &anonymous), (&subjects.ours, &keyed)];
        for ((subject, request), costs) in turns.into_iter().zip(&mut costs) {
            let address: SocketAddr = subject.address;
            costs.push(callers::round(&subject.process, address, request, case.requests).await?);
        }
    }
    Ok(costs)
}

fn cpu(costs: &[Cost]) -> f64 {
    median(costs.iter().map(|cost| cost.cpu_us))
}

fn detail(costs: &[Cost]) -> String {
    let least = costs.iter().map(|cost| cost.cpu_us).fold(f64::INFINITY, f64::min);
    let most = costs.iter().map(|cost| cost.cpu_us).fold(0.0, f64::max);
    format!(
        "{:.1} µs CPU per request ({least:.1} to {most:.1}), {:.0} requests/s, core busy {:.0} %",
        cpu(costs),
        median(costs.iter().map(|cost| cost.per_second)),
        median(costs.iter().map(|cost| cost.busy)) * 100.0,
    )
}
