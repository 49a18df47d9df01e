//! What other instances have changed in a store that they share.
//!
//! Every change of a grant, a client or a pause gets the next revision, in the same step as the
//! change itself. An instance remembers up to which revision it knows everything and asks for what
//! came after. Use, which is written all the time, is no change.

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
    /// Up to here everything is known once `changed` has been read again.
    pub revision: Revision,
    /// Each thing once; `None` when the store does not know any more, or came back older than the
    /// revision that was asked for: everything must be read again.
    pub changed: Option<Vec<Changed>>,
}
