//! The token lane of an API key, where several instances share it.
//!
//! The upstream's token endpoint takes one request at a time from an application, so an instance
//! takes the lane before it journals a refresh and leaves it after the answer. A lease is fenced: a
//! later one has a higher number, and what is done with an older one has no effect. Stores of one
//! instance have nobody to share with and always give the lane; the rest between requests is then
//! the keeper's alone.

use std::time::Duration;

/// The right to ask the token endpoint for one API key, until it is left or not kept in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneLease {
    /// Rises from lease to lease of an API key.
    pub fence: u64,
}

/// On what terms the lane is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneTerms {
    /// How long it is held if it is not kept.
    pub hold: Duration,
    /// The longest rest that follows an answer. What is longer was written by a clock that was
    /// ahead.
    pub rest_max: Duration,
}

/// What becomes of a lease that the store has forgotten, because it came back empty or older.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// It is lost: nothing was sent with it, and what it was taken for may have changed.
    IsLost,
    /// Its holder has it again, unless a later one has been given: its request is out.
    IsKept,
}

/// What comes of asking for the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneTurn {
    /// It is the asker's.
    Yours(LaneLease),
    /// Another instance has it, or the rest after its answer is not over.
    Busy {
        /// When asking again may help.
        retry: Duration,
    },
}

impl LaneLease {
    /// The lease of a store that only one instance uses.
    pub(super) const ALONE: Self = Self { fence: 0 };
}
