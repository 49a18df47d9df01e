//! What other instances have changed in a store that they share.
//!
//! Every change of a grant, a client or a pause gets the next revision, in the same step as the
//! change itself. An instance remembers up to which revision it knows everything and asks for what
//! came after. Use, which is written all the time, is no change.
//!
//! A store can lose its newest changes, or all it has: it was emptied, or another server stands in
//! its place. Its history shows that: the revisions it goes on with are others than those it lost.
//! Whoever wrote last has not read its own change yet, so everybody who has not read past the loss
//! is told of it, also one that knew nothing of what is lost.
//! Then what the store has been told since the loss counts, and of everything else what instances
//! know. Without a loss what is missing has been removed, which the history tells as well.

use crate::engine::{ApiKeyName, ClientName, TenantName};

/// A moment in the history of a store; later ones are greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision(pub u64);

/// Something that was changed, made or removed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Changed {
    /// A tenant: its tokens, their state, its pause or weight.
    Tenant(TenantName),
    /// A client.
    Client(ClientName),
    /// Whether an API key is held.
    ApiKey(ApiKeyName),
}

/// What came after a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// Up to here everything is known once what follows has been read again.
    pub revision: Revision,
    /// What was changed.
    pub since: Since,
}

impl Changes {
    /// What a store of one instance tells.
    pub(super) const fn none(since: Option<Revision>) -> Self {
        let revision = match since {
            Some(since) => since,
            None => Revision(0),
        };
        Self { revision, since: Since::Changed(Vec::new()) }
    }
}

/// What was changed since a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Since {
    /// These things, each once.
    Changed(Vec<Changed>),
    /// The store does not know any more: everything must be read again.
    Forgotten,
    /// The store may have lost what it knew at that revision, or what was written after it. These
    /// things were changed since, each once; everything else counts as it was known before.
    Lost(Vec<Changed>),
}

/// What it means that the store has not, or has in another way, what is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Missing {
    /// The history says whether it has been removed ([`super::Store::tells_of`]).
    AsTold,
    /// It has been removed or changed.
    IsGone,
    /// The store has lost it.
    IsLost,
}
