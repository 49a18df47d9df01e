//! Takes all that one store holds to another: tenants with their grants, clients, held API keys and
//! the counts of days.
//!
//! Each thing is written whole or not at all, and only where it is missing: a copy that was broken
//! off is finished by another one, which changes nothing that is there. What is there with other
//! content is left alone unless it is to be overwritten, and never by tokens that are known to be
//! older. At the end both stores are read again and compared. FROM is never changed. Consents that
//! were asked for a moment ago stay behind, and so do the versions of grants that were removed.

mod contents;
mod place;
mod plan;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use super::{KeySource, OpenRefresh, Store, StoreError, WholeStore};
use crate::engine::ApiKeyName;

use self::contents::Contents;
use self::place::{From, open_from, open_to};
use self::plan::Plan;

pub use self::contents::Gone;
pub use self::place::Place;

/// What to copy.
#[derive(Clone, Debug)]
pub struct CopyOrder {
    /// Where everything is.
    pub from: Place,
    /// Where it goes.
    pub to: Place,
    /// Journals of refreshes of instances that used FROM, where that is on a server; beside a
    /// database it is found.
    pub journals: Vec<PathBuf>,
    /// TO may be a server that would forget grants.
    pub accept_volatile: bool,
    /// What becomes of things that are in TO with other content.
    pub existing: Existing,
    /// API keys whose days are copied, besides those that have tenants or are held.
    pub api_keys: BTreeSet<ApiKeyName>,
    /// Nothing is written; the report says what would be.
    pub is_trial: bool,
}

/// What becomes of things that are in TO with other content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// They are left alone.
    Kept,
    /// They are overwritten.
    Overwritten,
}

/// Things of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Written to TO, or to be written in a trial.
    pub copied: usize,
    /// In TO already, the same.
    pub there: usize,
    /// Not copied; [`Report::left_alone`] says why.
    pub left_alone: usize,
}

/// Something that was not copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftAlone {
    /// What it is: `tenant acme`.
    pub what: String,
    /// Why, and what to do.
    pub why: String,
}

/// What came of a copy.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The encryption key of TO.
    pub key: Option<KeySource>,
    /// Tenants with their grants.
    pub tenants: Tally,
    /// Clients.
    pub clients: Tally,
    /// API keys that are held.
    pub held: Tally,
    /// Days that an API key has counted.
    pub days: Tally,
    /// What was not copied.
    pub left_alone: Vec<LeftAlone>,
    /// Refreshes of copied tenants that had not ended.
    pub gone_on: Vec<Gone>,
    /// How TO differs from FROM after all, but for what was left alone.
    pub differences: Vec<String>,
}

impl Report {
    /// Whether TO holds all that FROM holds; of a trial, whether it would.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.left_alone.is_empty() && self.differences.is_empty()
    }
}

/// Why nothing was copied, or not everything.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The order makes no sense; nothing was done.
    #[error("{0}")]
    Mistake(String),
    /// A store cannot be opened or read; nothing was written.
    #[error("{role} ({place}): {cause}")]
    Closed {
        /// Which of the two.
        role: Role,
        /// Where it is, without its password.
        place: String,
        /// Why.
        cause: String,
    },
    /// It was broken off.
    #[error("{0}; what was copied stays, and another copy goes on from there")]
    BrokenOff(#[source] StoreError),
}

/// One of the two stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Where everything is.
    From,
    /// Where it goes.
    To,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::From => "FROM",
            Self::To => "TO",
        })
    }
}

/// Copies as `order` says and reports what came of it.
///
/// # Errors
/// [`CopyError`]; nothing that was in TO has been lost then.
pub async fn copy(order: &CopyOrder) -> Result<Report, CopyError> {
    order.from.check(Role::From, &order.to)?;
    order.to.check(Role::To, &order.from)?;
    let from = open_from(order).await?;
    let copied = match open_to(order).await {
        Ok(to) => {
            let copied = between(order, &from, whole(&*to.store)?).await;
            let closed = to.store.close().await.map_err(CopyError::BrokenOff);
            let copied = copied.and_then(|report| closed.map(|()| report));
            copied.map(|report| Report { key: to.key, ..report })
        }
        Err(error) => Err(error),
    };
    // it was only read
    drop(from.store.close().await);
    copied
}

async fn between(order: &CopyOrder, from: &From, to: &dyn WholeStore) -> Result<Report, CopyError> {
    let unread = |role, place: &Place, error: &StoreError| CopyError::Closed {
        role,
        place: place.to_string(),
        cause: error.to_string(),
    };
    let source = source(order, from).await.map_err(|e| unread(Role::From, &order.from, &e))?;
    let api_keys = source.0.api_keys(&order.api_keys);
    let there = Contents::of(to, &api_keys).await.map_err(|e| unread(Role::To, &order.to, &e))?;
    let (plan, mut report) = Plan::of(&source.0, &there, order.existing);
    report.gone_on = source.1.gone_on;
    report.tenants.left_alone += source.1.left_alone.len();
    report.left_alone.extend(source.1.left_alone);
    if order.is_trial {
        return Ok(report);
    }
    plan.carry_out(to).await.map_err(CopyError::BrokenOff)?;
    to.settled().await;
    let left: BTreeSet<&str> = report.left_alone.iter().map(|left| left.what.as_str()).collect();
    // both are read again: something may have used them meanwhile
    let now = self::source(order, from).await.map_err(|e| unread(Role::From, &order.from, &e))?.0;
    let there = Contents::of(to, &api_keys).await.map_err(CopyError::BrokenOff)?;
    let differences = now.missing_in(&there, &left);
    report.differences = differences;
    Ok(report)
}

/// All that FROM holds, as it is after the refreshes that did not end.
async fn source(
    order: &CopyOrder,
    from: &From,
) -> Result<(Contents, contents::Recovered), StoreError> {
    let store = from.store.whole().ok_or_else(|| StoreError::closed("read the store"))?;
    let mut contents = Contents::of(store, &order.api_keys).await?;
    let recovered = contents.recover(&from.left, store.is_shared());
    Ok((contents, recovered))
}

fn whole(store: &dyn Store) -> Result<&dyn WholeStore, CopyError> {
    let none = || CopyError::Mistake("this store cannot be copied".to_owned());
    store.whole().ok_or_else(none)
}
