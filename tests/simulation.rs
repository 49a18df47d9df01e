//! The pacer against upstreams that count, in virtual time: what it is judged by.
//!
//! `simulation/` has the model: `network` (chance and delays), `upstream` (six ways to count),
//! `run` (one run of the engine's pacer), `cells` (the grid and what each cell must show). The
//! judged part of the grid runs here; all of it is measured by `make simulate`, which writes
//! `docs/scheduling.md`.

#[path = "simulation/cells.rs"]
mod cells;
#[path = "simulation/cluster.rs"]
mod cluster;
#[path = "simulation/desk.rs"]
mod desk;
#[path = "simulation/long.rs"]
mod long;
#[path = "simulation/network.rs"]
mod network;
#[path = "simulation/plan.rs"]
mod plan;
#[path = "simulation/run.rs"]
mod run;
#[path = "simulation/upstream.rs"]
mod upstream;

use std::time::Duration;

use cells::{Measured, Row, SEED};
use long::Long;
use network::{Network, Server};
use plan::{BUSY_MAX, PLANNED, Plan};
use run::Acknowledgements;
use upstream::Model;

/// Measures every judged cell of some rows and lists those that miss their bar.
fn misses(rows: impl Iterator<Item = Row>) -> Vec<String> {
    let mut misses = Vec::new();
    for row in rows {
        for model in Model::ALL {
            let Some(bar) = row.bar(model) else { continue };
            let measured = row.measure(model, SEED);
            if !measured.holds(bar) {
                misses.push(format!("{} {}: {}", row.label(), model.name(), measured.text()));
            }
        }
    }
    misses
}

fn rows(calls: u32, server: Server) -> impl Iterator<Item = Row> {
    let rows = Row::all().into_iter();
    rows.filter(move |row| row.calls == calls && row.server == server && is_judged(*row))
}

fn is_judged(row: Row) -> bool {
    Model::ALL.into_iter().any(|model| row.bar(model).is_some())
}

/// As it was written with [`Measured::text`].
fn read(text: &str) -> Option<Measured> {
    let (refused, share) = text.trim().split_once(" / ")?;
    Some(Measured { refused: refused.parse().ok()?, share: share.parse().ok()? })
}

#[test]
fn four_calls_a_second_are_not_refused_and_use_the_rate() {
    assert_eq!(misses(rows(4, Server::Short)), [""; 0]);
}

#[test]
fn ten_calls_a_second_are_not_refused_and_use_the_rate() {
    assert_eq!(misses(rows(10, Server::Short)), [""; 0]);
}

#[test]
fn a_slow_upstream_costs_little_where_acknowledgements_are_told() {
    let wan = rows(4, Server::Slow).filter(|row| row.network == Network::Wan);
    let told = wan.filter(|row| row.acknowledgements == Acknowledgements::Told);
    assert_eq!(misses(told), [""; 0]);
}

#[test]
fn an_uneven_upstream_costs_little_where_acknowledgements_are_told() {
    let wan = rows(4, Server::Uneven).filter(|row| row.network == Network::Wan);
    let told = wan.filter(|row| row.acknowledgements == Acknowledgements::Told);
    assert_eq!(misses(told), [""; 0]);
}

#[test]
fn a_token_bucket_is_found_out_and_used_whole() {
    let acknowledgements = Acknowledgements::Hidden;
    let bucket =
        Long { server: Server::Short, acknowledgements, model: Model::TokenBucket }.measure(3);
    assert!(bucket.worst() <= 20, "{bucket:?}");
    assert!(bucket.last_share() >= 99.0, "{bucket:?}");
}

#[test]
fn a_sliding_log_refuses_a_handful_while_it_is_asked() {
    let acknowledgements = Acknowledgements::Hidden;
    let log = Long { server: Server::Short, acknowledgements, model: Model::SlidingLog }.measure(3);
    assert!((1..=4).contains(&log.refused()), "asked, and not again soon: {log:?}");
    assert!(log.last_share() >= 97.0, "{log:?}");
}

#[test]
fn acknowledgements_of_an_edge_are_soon_not_believed() {
    let acknowledgements = Acknowledgements::OfEdge;
    let log = Long { server: Server::Slow, acknowledgements, model: Model::SlidingLog }.measure(3);
    assert!((1..=long::EDGE_REFUSED_MAX).contains(&log.refused()), "{log:?}");
}

#[test]
fn the_document_has_every_row_and_its_judged_cells_hold() {
    let document = include_str!("../docs/scheduling.md");
    for row in Row::all() {
        let label = row.label();
        let mut lines = document.lines().filter_map(|line| line.strip_prefix(label.as_str()));
        let cells = lines.next().unwrap_or_else(|| panic!("no row {label}"));
        assert_eq!(lines.next(), None, "{label} stands there twice");
        let cells: Vec<_> = cells.trim_end_matches('|').split('|').collect();
        assert_eq!(cells.len(), Model::ALL.len() + 1, "{label}");
        for (model, cell) in Model::ALL.into_iter().zip(cells) {
            let measured = read(cell).unwrap_or_else(|| panic!("{label} has {cell}"));
            let holds = row.bar(model).is_none_or(|bar| measured.holds(bar));
            assert!(holds, "{label} {}: {cell}", model.name());
        }
    }
}

#[test]
fn the_model_of_a_server_is_as_busy_as_a_real_one() {
    // measured: 2.12 questions for a call, 46 % of a core
    let plan = Plan { api_keys: 200, calls: 10, instances: 3, nodes: 1 };
    let carried = plan.run(Duration::from_secs(3), SEED.into());
    assert!((1.9..=2.2).contains(&carried.questions), "{carried:?}");
    assert!((41.0..=51.0).contains(&carried.busiest), "{carried:?}");
}

#[test]
fn a_thousand_api_keys_on_six_nodes_have_their_rate_in_equal_parts() {
    let plan = PLANNED;
    let carried = plan.run(Duration::from_secs(3), SEED.into());
    assert!(carried.holds(plan) && carried.busiest <= BUSY_MAX, "{carried:?}");
}

#[test]
fn the_document_has_every_plan_and_what_the_model_says_of_it() {
    let document = include_str!("../docs/scaling.md");
    assert!(document.contains(&Plan::head()), "the head of the table");
    for plan in Plan::all() {
        assert!(document.contains(&format!("\n{}", plan.label())), "{plan:?} is missing");
    }
    let plan = Plan { api_keys: 100, nodes: 1, ..PLANNED };
    assert!(document.contains(&plan.row(&plan.run(plan::SPAN, SEED.into()))), "make simulate");
}

#[test]
fn nodes_that_are_too_few_cost_rate_and_let_no_call_too_many_leave() {
    // the work of 113 % of a core
    let plan = Plan { api_keys: 500, calls: 10, instances: 3, nodes: 1 };
    let carried = plan.run(Duration::from_secs(3), SEED.into());
    assert!((80.0..95.0).contains(&carried.share), "{carried:?}");
    assert!(carried.most_in_a_second <= 10, "{carried:?}");
}

#[test]
fn the_models_of_upstreams_count_as_they_say() {
    // four at once, a fifth half a second later, a sixth when a second is over
    let at = [0, 0, 0, 0, 500, 1_001].map(Duration::from_millis);
    let passed = |model| {
        let mut upstream = upstream::Upstream::new(model, 4, Duration::ZERO);
        at.map(|at| u8::from(upstream.passes(Duration::from_secs(9) + at)))
    };
    assert_eq!(passed(Model::FixedSecond), [1, 1, 1, 1, 0, 1]);
    assert_eq!(passed(Model::SlidingLog), [1, 1, 1, 1, 0, 1]);
    assert_eq!(passed(Model::SlidingLogOfAll), [1, 1, 1, 1, 0, 1]);
    assert_eq!(passed(Model::TokenBucket), [1, 1, 1, 1, 1, 1]);
    assert_eq!(passed(Model::Spacer), [1, 0, 0, 0, 1, 1]);
    assert_eq!(passed(Model::WeightedCounter), [1, 1, 1, 1, 0, 1]);
}
