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

use super::{Store, StoreError};
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

/// When the history last told of a thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastTold {
    /// The last that it tells.
    pub at: Option<Revision>,
    /// What it told up to here may be forgotten; zero when nothing is.
    pub forgotten: Revision,
}

impl LastTold {
    /// Whether it told something after `revision`, or may have.
    #[must_use]
    pub fn is_after(&self, revision: Revision) -> bool {
        self.at.is_some_and(|at| at > revision) || self.forgotten > revision
    }
}

/// What it means that the store has not, or has in another way, what is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The history says whether it has been removed.
    AsTold {
        /// Up to here everything was known when somebody wanted to look.
        known: Revision,
    },
    /// It has been removed or changed.
    IsGone,
    /// The store has lost it, unless the history tells of it after that was noticed.
    IsLost {
        /// The newest revision when it was noticed.
        noticed: Revision,
    },
}

/// What became of a thing that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Somebody has removed it.
    Removed,
    /// It has been removed, as far as anybody can tell.
    Gone,
    /// The store has lost it.
    Lost,
}

impl Missing {
    /// One meaning for two who want to look.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        match (self, other) {
            (Self::IsLost { noticed: one }, Self::IsLost { noticed: two }) => {
                Self::IsLost { noticed: one.min(two) }
            }
            (lost @ Self::IsLost { .. }, _) | (_, lost @ Self::IsLost { .. }) => lost,
            (Self::IsGone, _) | (_, Self::IsGone) => Self::IsGone,
            (Self::AsTold { known: one }, Self::AsTold { known: two }) => {
                Self::AsTold { known: one.min(two) }
            }
        }
    }

    /// What became of a thing that `store` does not have. Ask after looking for it: what is removed
    /// later is told of.
    ///
    /// # Errors
    /// [`StoreError`] when the history cannot be read.
    pub async fn fate(self, store: &dyn Store, thing: &Changed) -> Result<Fate, StoreError> {
        let (told_after, kept_after) = match self {
            Self::IsGone => return Ok(Fate::Gone),
            Self::AsTold { known } => (Revision(0), known),
            Self::IsLost { noticed } => (noticed, noticed),
        };
        let told = store.last_told(thing).await?;
        Ok(match told.at {
            Some(at) if at > told_after => Fate::Removed,
            Some(_) | None if told.forgotten > kept_after => Fate::Gone,
            Some(_) | None => Fate::Lost,
        })
    }

    /// Whether a thing that `store` has in another way counts as it is known here. Ask after
    /// reading it: what is changed later is told of.
    ///
    /// # Errors
    /// [`StoreError`] when the history cannot be read.
    pub async fn counts_here(self, store: &dyn Store, thing: &Changed) -> Result<bool, StoreError> {
        let Self::IsLost { noticed } = self else { return Ok(false) };
        Ok(!store.last_told(thing).await?.is_after(noticed))
    }
}
