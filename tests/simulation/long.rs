//! Runs of many parts, in which the guard has time to narrow.

use crate::cells::{CALLS_A_CELL, SEED};
use crate::network::{Network, Server};
use crate::run::{Acknowledgements, Scene, run};
use crate::upstream::Model;

/// The most refusals in a long run behind an edge, until its acknowledgements are not believed.
pub(crate) const EDGE_REFUSED_MAX: u32 = 10;
/// Calls in a second.
const CALLS: u32 = 4;

/// Four calls a second over a wan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Long {
    pub(crate) server: Server,
    pub(crate) acknowledgements: Acknowledgements,
    pub(crate) model: Model,
}

/// What each part showed.
#[derive(Debug)]
pub(crate) struct Parts(pub(crate) Vec<Part>);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) refused: u32,
    pub(crate) share: f64,
}

impl Long {
    /// Measures so many parts of [`CALLS_A_CELL`] calls.
    pub(crate) fn measure(self, parts: usize) -> Parts {
        let scene = Scene {
            calls: CALLS,
            network: Network::Wan,
            server: self.server,
            acknowledgements: self.acknowledgements,
            model: self.model,
            seed: SEED,
        };
        let tallies = run(scene, parts, CALLS_A_CELL).into_iter();
        Parts(tallies.map(|t| Part { refused: t.refused, share: t.share(CALLS) }).collect())
    }
}

impl Parts {
    /// All refusals.
    pub(crate) fn refused(&self) -> u32 {
        self.0.iter().map(|part| part.refused).sum()
    }

    /// The most refusals in one part.
    pub(crate) fn worst(&self) -> u32 {
        self.0.iter().map(|part| part.refused).max().unwrap_or_default()
    }

    /// The share of the last part.
    pub(crate) fn last_share(&self) -> f64 {
        self.0.last().map_or(0.0, |part| part.share)
    }
}
