//! What is to be carried by how many nodes, and the table of how that went.

use std::time::Duration;

/// How long it is looked at for the table.
pub(crate) const SPAN: Duration = Duration::from_secs(20);

/// What is to be carried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) api_keys: usize,
    /// Calls a second of each.
    pub(crate) calls: u32,
    pub(crate) instances: usize,
    pub(crate) nodes: usize,
}

/// What `docs/scaling.md` plans for a thousand API keys.
pub(crate) const PLANNED: Plan = Plan { api_keys: 1_000, calls: 10, instances: 3, nodes: 6 };
/// A node should not be busier, in percent.
pub(crate) const BUSY_MAX: f64 = 60.0;

/// How that went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Carried {
    /// Calls, in percent of the rate.
    pub(crate) share: f64,
    /// The same for the API key that had the least.
    pub(crate) least: f64,
    /// Questions for a call.
    pub(crate) questions: f64,
    /// API keys of the node that has the most.
    pub(crate) most_keys: usize,
    /// What of its time that node is busy, in percent.
    pub(crate) busiest: f64,
    /// Longest time between a question and its answer of 99 in 100, there.
    pub(crate) answered_in: Duration,
    /// Most calls of one API key that arrived in any second.
    pub(crate) most_in_a_second: usize,
    /// The most that an instance has of an API key above an equal part, in percent of that.
    pub(crate) uneven: f64,
}

impl Plan {
    /// Those in the table: what was also measured, then the thousand on few and on many nodes.
    pub(crate) fn all() -> Vec<Self> {
        let one = [(100, 3), (100, 10), (200, 3), (300, 3), (400, 3)];
        let one =
            one.map(|(api_keys, instances)| Self { api_keys, instances, nodes: 1, ..PLANNED });
        let many = [(3, 4), (3, 5), (3, 6), (3, 8), (10, 8), (10, 12)];
        let many = many.map(|(instances, nodes)| Self { instances, nodes, ..PLANNED });
        one.into_iter().chain(many).collect()
    }

    /// The head of the table.
    pub(crate) fn head() -> String {
        let columns = [
            "nodes",
            "API keys",
            "instances",
            "on the fullest node",
            "which is busy",
            "questions for a call",
            "99 in 100 answered in",
            "calls of the rate",
            "of the last API key",
            "most in a second",
        ];
        format!("| {} |\n|{}\n", columns.join(" | "), " --- |".repeat(columns.len()))
    }

    /// The begin of its row.
    pub(crate) fn label(self) -> String {
        let Self { api_keys, instances, nodes, .. } = self;
        format!("| {nodes} | {api_keys} | {instances} |")
    }

    /// A row of the table.
    pub(crate) fn row(self, carried: &Carried) -> String {
        let label = self.label();
        let Carried { most_keys, busiest, questions, share, least, most_in_a_second, .. } = carried;
        let answered = carried.answered_in.as_secs_f64() * 1_000.0;
        format!(
            "{label} {most_keys} | {busiest:.0} % | {questions:.1} | \
             {answered:.0} ms | {share:.0} % | {least:.0} % | {most_in_a_second} |\n"
        )
    }
}

impl Carried {
    /// Whether no call too many arrived and, where nodes are not too busy, nearly all that may.
    pub(crate) fn holds(&self, plan: Plan) -> bool {
        let calls = usize::try_from(plan.calls).expect("few");
        let is_used = self.share >= 95.0 && self.least >= 90.0 && self.uneven <= 10.0;
        self.most_in_a_second <= calls && (self.busiest > BUSY_MAX || is_used)
    }
}
