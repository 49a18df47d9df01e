//! Measures the whole grid, the long runs and many API keys on a cluster, prints them, and writes
//! them into `docs/scheduling.md`, its two plots and `docs/scaling.md`: `make simulate`. Fails if a
//! judged cell misses its bar.

#![expect(clippy::print_stdout, reason = "it is there to print")]

mod cells;
mod cluster;
mod desk;
mod long;
mod network;
mod plan;
mod plot;
mod run;
mod upstream;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::{fs, thread};

use cells::{CALLS_A_CELL, Measured, Row, SEED};
use long::{Long, Parts};
use network::Server;
use plan::Plan;
use run::Acknowledgements;
use upstream::Model;

/// Runs of the sliding log that are added up, since one run of a cell is too short for what comes
/// once in a million calls.
const RUNS: u32 = 20;
/// Parts of a long run.
const PARTS: usize = 20;
/// What the long runs are of.
const LONG: [Long; 6] = [
    long(Server::Short, Acknowledgements::Hidden, Model::TokenBucket),
    long(Server::Short, Acknowledgements::Hidden, Model::FixedSecond),
    long(Server::Short, Acknowledgements::Hidden, Model::SlidingLog),
    long(Server::Slow, Acknowledgements::Hidden, Model::TokenBucket),
    long(Server::Slow, Acknowledgements::Hidden, Model::FixedSecond),
    long(Server::Slow, Acknowledgements::Hidden, Model::SlidingLog),
];
/// Long runs against an upstream behind an edge that acknowledges in its stead.
const EDGE: [Long; 4] = [
    long(Server::Slow, Acknowledgements::OfEdge, Model::FixedSecond),
    long(Server::Slow, Acknowledgements::OfEdge, Model::SlidingLog),
    long(Server::Uneven, Acknowledgements::OfEdge, Model::FixedSecond),
    long(Server::Uneven, Acknowledgements::OfEdge, Model::SlidingLog),
];

const fn long(server: Server, acknowledgements: Acknowledgements, model: Model) -> Long {
    Long { server, acknowledgements, model }
}

/// A row of the table.
struct Line {
    row: Row,
    cells: [Measured; 6],
    /// Refused by the sliding log in all [`RUNS`].
    refused: u32,
}

fn main() -> ExitCode {
    let misses: Vec<String> = scheduling().into_iter().chain(scaling()).collect();
    for miss in &misses {
        println!("missed: {miss}");
    }
    if misses.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Writes `docs/scheduling.md` and its plots; what missed its bar.
fn scheduling() -> Vec<String> {
    let lines = all(&Row::all(), |row| Line {
        row: *row,
        cells: Model::ALL.map(|model| row.measure(model, SEED)),
        refused: (SEED..SEED + RUNS).map(|seed| row.measure(Model::SlidingLog, seed).refused).sum(),
    });
    let long = all(&LONG, |long| long.measure(PARTS));
    let behind = all(&EDGE, |long| long.measure(PARTS));
    let (grid, narrowing, edge) = (grid(&lines), parts(&LONG, &long), parts(&EDGE, &behind));
    rewrite("scheduling.md", &[("grid", &grid), ("narrowing", &narrowing), ("edge", &edge)]);
    let bars = lines
        .iter()
        .filter(|line| line.row.calls == 4)
        .map(|line| plot::Bar { label: words(line.row), share: line.cells[1].share });
    write("scheduling-share.svg", &plot::bars(&bars.collect::<Vec<_>>()));
    let series: Vec<_> = LONG.iter().zip(&long).collect();
    write("scheduling-narrowing.svg", &plot::narrowing(&series));
    misses(&lines, &behind)
}

/// Writes the table of many API keys in `docs/scaling.md`; what missed its bar.
fn scaling() -> Vec<String> {
    let plans = Plan::all();
    let carried = all(&plans, |plan| plan.run(plan::SPAN, SEED.into()));
    let rows = || plans.iter().zip(&carried);
    let table = Plan::head() + &rows().map(|(plan, of)| plan.row(of)).collect::<String>();
    rewrite("scaling.md", &[("cluster", &table)]);
    let missed = rows().filter(|(plan, carried)| !carried.holds(**plan));
    missed.map(|(plan, carried)| format!("{plan:?}: {carried:?}")).collect()
}

/// A file of the documents.
fn document(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)
}

fn write(name: &str, text: &str) {
    fs::write(document(name), text).expect("the document can be written");
}

/// Prints tables, and puts them into a document where their marks are.
fn rewrite(name: &str, tables: &[(&str, &str)]) {
    let mut text = fs::read_to_string(document(name)).expect("the document is there");
    for (mark, table) in tables {
        println!("{table}");
        text = replaced(&text, mark, table);
    }
    write(name, &text);
}

fn words(row: Row) -> String {
    let told = row.acknowledgements == Acknowledgements::Told;
    let acknowledgements = if told { ", acks" } else { "" };
    format!("{}; {}{acknowledgements}", row.network.name(), row.server.name())
}

/// Does something for each on all cores, and keeps the order.
fn all<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = Mutex::new(0..items.len());
    let done = Mutex::new(Vec::with_capacity(items.len()));
    let take = || next.lock().expect("no worker fails").next();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(index) = take() {
                    let result = work(&items[index]);
                    done.lock().expect("no worker fails").push((index, result));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no worker fails");
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

fn grid(lines: &[Line]) -> String {
    let mut text = "| N | network | upstream takes | acks |".to_owned();
    for model in Model::ALL {
        text += &format!(" {} |", model.name());
    }
    text += &format!(" log, {RUNS} runs |\n|{}\n", " --- |".repeat(Model::ALL.len() + 5));
    for line in lines {
        text += &line.row.label();
        for cell in line.cells {
            text += &format!(" {} |", cell.text());
        }
        text += &format!(" {} |\n", line.refused);
    }
    text
}

fn parts(runs: &[Long], parts: &[Parts]) -> String {
    let calls = u64::try_from(PARTS).expect("few") * u64::from(CALLS_A_CELL);
    let mut text = format!(
        "| upstream | takes | refused of {calls} | most in {CALLS_A_CELL} | first | last |\n\
         | --- | --- | --- | --- | --- | --- |\n"
    );
    for (Long { server, model, .. }, parts) in runs.iter().zip(parts) {
        let (refused, worst) = (parts.refused(), parts.worst());
        let (first, last) = (parts.0[0].share, parts.last_share());
        let (model, server) = (model.name(), server.name());
        text += &format!("| {model} | {server} | {refused} | {worst} | {first:.1} | {last:.1} |\n");
    }
    text
}

/// The document with other lines between the marks of this name.
fn replaced(document: &str, name: &str, lines: &str) -> String {
    let (from, to) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
    let (head, rest) = document.split_once(&from).expect("the mark stands in the document");
    let (_, tail) = rest.split_once(&to).expect("the mark stands in the document");
    format!("{head}{from}\n{lines}\n{to}{tail}")
}

fn misses(lines: &[Line], behind: &[Parts]) -> Vec<String> {
    let edges = behind.iter().filter(|parts| parts.refused() > long::EDGE_REFUSED_MAX);
    let mut misses: Vec<String> =
        edges.map(|parts| format!("behind an edge: {} refused", parts.refused())).collect();
    for line in lines {
        for (model, cell) in Model::ALL.into_iter().zip(line.cells) {
            if line.row.bar(model).is_some_and(|bar| !cell.holds(bar)) {
                misses.push(format!("{} {}: {}", line.row.label(), model.name(), cell.text()));
            }
        }
    }
    misses
}
