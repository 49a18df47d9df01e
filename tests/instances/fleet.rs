//! Gates under load without end.

use std::time::Duration;

use tokio::task::JoinHandle;

use ctct_proxy::engine::Class;

use crate::world::{Arrived, Instance, Upstream, limits, most_in_a_window};

pub(crate) const WINDOW: Duration = Duration::from_secs(1);
pub(crate) const RATE: &str = "20";
pub(crate) const CALLS: usize = 20;
pub(crate) const TENANTS: [&str; 3] = ["a", "b", "c"];

/// Held by tests that need much of the machine, or that another such test would hold back.
pub(crate) static MACHINE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Gates whose callers never stop.
pub(crate) struct Fleet {
    pub(crate) upstream: Upstream,
    gates: Vec<Instance>,
    callers: Vec<JoinHandle<()>>,
}

impl Fleet {
    pub(crate) async fn start(urls: &[String]) -> Self {
        let mut fleet = Self { upstream: Upstream::new(), gates: Vec::new(), callers: Vec::new() };
        for (number, url) in urls.iter().enumerate() {
            fleet.join(url, &format!("i{number}")).await;
        }
        fleet
    }

    pub(crate) async fn join(&mut self, url: &str, name: &str) {
        let gate = Instance::start(url, name, limits(RATE), &TENANTS).await;
        for tenant in TENANTS {
            self.callers.extend(gate.callers(tenant, Class::Normal, 5, &self.upstream));
        }
        self.gates.push(gate);
    }

    /// What arrives within a while.
    pub(crate) async fn arrivals(&self, span: Duration) -> Vec<Arrived> {
        let from = self.upstream.now();
        tokio::time::sleep(span).await;
        self.upstream.arrivals(from, self.upstream.now())
    }

    pub(crate) fn most_ever(&self) -> usize {
        most_in_a_window(&self.upstream.all(), WINDOW)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.callers.iter().for_each(JoinHandle::abort);
    }
}
