//! The table: figures, what they are held to, and whether they hold.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

struct Row {
    what: String,
    figure: f64,
    unit: &'static str,
    at_most: Option<f64>,
}

/// Figures as they are measured.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Adds a figure, and what it is to be at most.
    pub(crate) fn add(
        &mut self,
        what: &str,
        figure: f64,
        unit: &'static str,
        at_most: Option<f64>,
    ) {
        self.rows.push(Row { what: what.to_owned(), figure, unit, at_most });
    }

    /// Prints the table and tells whether every figure holds.
    pub(crate) fn print(&self) -> bool {
        let width = self.rows.iter().map(|row| row.what.chars().count()).max().unwrap_or(0);
        println!();
        println!("{:width$}  {:>8}  {:>8}  {:6}", "what", "figure", "at most", "unit");
        let mut all_hold = true;
        for row in &self.rows {
            let (what, figure, unit) = (&row.what, row.figure, row.unit);
            let holds = row.at_most.is_none_or(|at_most| figure <= at_most);
            let at_most = row.at_most.map_or(String::new(), |at_most| format!("{at_most:.2}"));
            let verdict = match (row.at_most, holds) {
                (None, _) => "",
                (Some(_), true) => "holds",
                (Some(_), false) => "MISSED",
            };
            println!("{what:width$}  {figure:>8.2}  {at_most:>8}  {unit:6}  {verdict}");
            all_hold &= holds;
        }
        all_hold
    }
}

/// Says what figures come from.
pub(crate) fn note(what: &str, text: &str) {
    println!("{what}: {text}");
}

/// The median; of none, zero.
pub(crate) fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

/// The engine's figures, as criterion left them in `target/criterion`.
const ENGINE: [(&str, &str, Option<f64>); 7] = [
    ("one decision", "scheduler/decision", Some(2.0)),
    ("one decision at 4/s", "scheduler/decision at 4_s", Some(2.0)),
    ("a refusal by estimate", "scheduler/refusal by estimate", None),
    ("a caller leaves, another comes", "scheduler/cancel in the middle, arrive", None),
    ("queue alone, push and pop", "queue_push, pop", None),
    ("pacer alone, 1,000 calls a second", "pacer_a call", None),
    ("pacer alone, 4 calls a second", "pacer_a call at 4_s", None),
];

/// Adds what the engine's benchmark measured last.
pub(crate) fn engine(target: &Path, report: &mut Report) -> anyhow::Result<()> {
    for (what, folder, at_most) in ENGINE {
        let file = target.join("criterion").join(folder).join("new/estimates.json");
        let text = fs::read_to_string(&file)
            .with_context(|| format!("reading {}: run the benchmark `engine`", file.display()))?;
        let estimates: Value = serde_json::from_str(&text)?;
        let nanoseconds = estimates.pointer("/median/point_estimate").and_then(Value::as_f64);
        let figure = nanoseconds.context("no median in an estimate of criterion")? / 1e3;
        report.add(what, figure, "µs", at_most);
    }
    Ok(())
}
