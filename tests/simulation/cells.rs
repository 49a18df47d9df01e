//! The cells of the grid, and what each must show.

use crate::network::{Network, Server};
use crate::run::{Acknowledgements, Scene, run};
use crate::upstream::Model;

/// Calls that arrive in a cell.
pub(crate) const CALLS_A_CELL: u32 = 100_000;
/// The run that the table shows, of as many as wanted.
pub(crate) const SEED: u32 = 1;

/// The part of the grid that is one row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) calls: u32,
    pub(crate) network: Network,
    pub(crate) server: Server,
    pub(crate) acknowledgements: Acknowledgements,
}

/// What was measured in one cell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) refused: u32,
    /// In percent of what the upstream allows.
    pub(crate) share: f64,
}

impl Row {
    /// All rows: acknowledgements tell more than answers only where the upstream is slow.
    pub(crate) fn all() -> Vec<Self> {
        let mut rows = Vec::new();
        for calls in [4, 10] {
            for network in Network::ALL {
                for server in Server::ALL {
                    for acknowledgements in [Acknowledgements::Hidden, Acknowledgements::Told] {
                        let row = Self { calls, network, server, acknowledgements };
                        if row.is_apart() {
                            rows.push(row);
                        }
                    }
                }
            }
        }
        rows
    }

    fn is_apart(self) -> bool {
        self.server != Server::Short || self.acknowledgements == Acknowledgements::Hidden
    }

    pub(crate) fn measure(self, model: Model, seed: u32) -> Measured {
        let Self { calls, network, server, acknowledgements } = self;
        let scene = Scene { calls, network, server, acknowledgements, model, seed };
        let tally = run(scene, 1, CALLS_A_CELL)[0];
        Measured { refused: tally.refused, share: tally.share(calls) }
    }

    /// The first cells of its line in the table.
    pub(crate) fn label(self) -> String {
        let told = self.acknowledgements == Acknowledgements::Told;
        let (network, server) = (self.network.name(), self.server.name());
        let acknowledgements = if told { "yes" } else { "no" };
        format!("| {} | {network} | {server} | {acknowledgements} |", self.calls)
    }

    /// The most refusals and the least share that a cell of this row may show, where it is judged:
    /// the three main kinds of upstream on the three networks that keep still.
    pub(crate) fn bar(self, model: Model) -> Option<(u32, f64)> {
        let main = matches!(model, Model::FixedSecond | Model::SlidingLog | Model::TokenBucket);
        let refused_max = match self.network {
            Network::Lan | Network::Wan => 0,
            Network::Spikes => 10,
            Network::Mobile => return None,
        };
        let told = self.acknowledgements == Acknowledgements::Told;
        let share_min = match (self.server, self.network) {
            (Server::Short, Network::Lan) => 98.0,
            (Server::Short, Network::Wan) => 97.0,
            (Server::Slow | Server::Uneven, _) if told => 90.0,
            // what it is without acknowledgements is told, not judged
            (Server::Slow | Server::Uneven | Server::Short, _) => 0.0,
        };
        main.then_some((refused_max, share_min))
    }
}

impl Measured {
    /// As it stands in the table.
    pub(crate) fn text(self) -> String {
        format!("{} / {:.1}", self.refused, self.share)
    }

    pub(crate) fn holds(self, (refused_max, share_min): (u32, f64)) -> bool {
        self.refused <= refused_max && self.share >= share_min
    }
}
