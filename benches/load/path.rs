//! CPU time of a request that nothing holds back, against the bare proxy's.
//!
//! Both proxies are alive all the time and take turns of a fraction of a second, so that whatever
//! else the machine does meets both alike; the figure is the median of the ratios of all rounds.

use crate::callers::{self, Callers, Cost};
use crate::process::{Cores, PROXY_CORE};
use crate::report::{Report, median, note};
use crate::subject::{self, Ours, Subject, TENANT};
use crate::upstream::{LARGE_PATH, SMALL_PATH};

struct Case {
    name: &'static str,
    path: &'static str,
    /// Of a round.
    requests: u32,
    ratio_max: f64,
}

const CASES: [Case; 2] = [
    Case { name: "300 bytes", path: SMALL_PATH, requests: 6_000, ratio_max: 1.35 },
    Case { name: "64 KiB", path: LARGE_PATH, requests: 3_000, ratio_max: 1.15 },
];
/// Rounds before those that count.
const WARM_UP: usize = 3;

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
        note(&format!("{name}, bare proxy"), &detail(&bare, case));
        for (who, costs) in [("tenant named by the bearer", anonymous), ("client key", keyed)] {
            note(&format!("{name}, {who}"), &detail(&costs, case));
            let pairs = costs.iter().zip(&bare);
            let ratios = pairs.map(|(cost, bare)| cost.cpu.as_secs_f64() / bare.cpu.as_secs_f64());
            let what = format!("CPU per request, {name}, {who}");
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
    let (bare, ours) = (&subjects.bare, &subjects.ours);
    let anonymous = callers::request(case.path, TENANT);
    let keyed = callers::request(case.path, &subjects.client_key);
    let mut turns = [
        (bare, Callers::connect(bare.address, anonymous.clone()).await?),
        (ours, Callers::connect(ours.address, anonymous).await?),
        (ours, Callers::connect(ours.address, keyed).await?),
    ];
    let mut costs = [Vec::new(), Vec::new(), Vec::new()];
    for round in 0..WARM_UP + rounds {
        for ((subject, callers), costs) in turns.iter_mut().zip(&mut costs) {
            let cost = callers.round(&subject.process, case.requests).await?;
            if round >= WARM_UP {
                costs.push(cost);
            }
        }
    }
    Ok(costs)
}

fn detail(costs: &[Cost], case: &Case) -> String {
    let mut micros: Vec<f64> =
        costs.iter().map(|cost| cost.cpu.as_secs_f64() * 1e6 / f64::from(case.requests)).collect();
    micros.sort_by(f64::total_cmp);
    let at = |share: usize| micros.get(micros.len() * share / 4).copied().unwrap_or_default();
    let seconds = |time: fn(&Cost) -> f64| costs.iter().map(time).sum::<f64>();
    let elapsed = seconds(|cost| cost.elapsed.as_secs_f64());
    format!(
        "{:.1} µs CPU per request (half of the rounds {:.1} to {:.1}), core busy {:.0} %",
        at(2),
        at(1),
        at(3),
        seconds(|cost| cost.cpu.as_secs_f64()) * 100.0 / elapsed,
    )
}
