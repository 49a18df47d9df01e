//! Grants that may be there already: what is done with one that comes from a file.
//!
//! A file of grants can be read twice, and its refresh tokens may have been renewed since the first
//! time. Putting such a token back would put a spent one in the place of a good one and cost the
//! connection. So each grant is compared with what is there: with the tokens of now, and with the
//! refresh token that was handed in first. The desk has set the tenant aside meanwhile, so that no
//! refresh changes anything between the look and the write; refreshes of other instances are kept
//! away by the lane.

use std::sync::Arc;

use super::actor::Request;
use super::desk::Job;
use super::lane::HeldLane;
use super::shared::Lanes;
use super::{PutError, Tokens};
use crate::engine::ApiKeyName;
use crate::secret::TokenDigest;
use crate::store::{Grant, NewGrant, Put, Store};

/// What is to become of a tenant that is there with other tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnConflict {
    /// It gets the new ones.
    Replace,
    /// It stays as it is, which is no failure.
    Skip,
    /// It stays as it is, which is one.
    Fail,
}

/// How a grant is handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// For a tenant that is there with other tokens.
    pub on_conflict: OnConflict,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
}

/// What was done with a grant, or would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandedIn {
    /// The tenant is new.
    Created,
    /// The tenant was there and has the new tokens.
    Replaced,
    /// It was there with this grant, or with one that has come from it.
    Unchanged,
    /// It was there with another grant, and keeps it.
    Skipped,
}

impl HandedIn {
    /// All outcomes.
    pub const ALL: [Self; 4] = [Self::Created, Self::Replaced, Self::Unchanged, Self::Skipped];

    /// Its public name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Replaced => "replaced",
            Self::Unchanged => "unchanged",
            Self::Skipped => "skipped",
        }
    }
}

/// How a new grant stands to the one that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Same,
    /// Its refresh token has been renewed since it was handed in.
    Spent,
    Other,
}

impl Standing {
    fn of(new: &NewGrant, there: &Grant) -> Self {
        let is_current = there.tokens.refresh == new.tokens.refresh;
        let is_known = is_current
            || there.handed_in.is_some_and(|known| known == TokenDigest::of(&new.tokens.refresh));
        let same_rest =
            there.api_key == new.api_key && new.weight.is_none_or(|weight| weight == there.weight);
        match (is_known, is_current, same_rest) {
            (true, _, true) => Self::Same,
            (true, false, false) => Self::Spent,
            (true, true, false) | (false, _, _) => Self::Other,
        }
    }
}

impl Tokens {
    /// Takes a grant whose tenant may be there already, on `terms`. Waits for a refresh of the
    /// tenant that is under way.
    ///
    /// # Errors
    /// [`PutError`] says what is wrong with the grant, or that it could not be stored.
    pub async fn hand_in(&self, grant: NewGrant, terms: Terms) -> Result<HandedIn, PutError> {
        let tenant = grant.tenant.clone();
        let ask = |reply| {
            let grant = Box::new(grant);
            Request::Job(tenant, Job::HandIn { grant, terms, reply })
        };
        self.ask(ask).await.unwrap_or(Err(PutError::Stopped))
    }
}

/// Looks and, where that is to be done, puts; the grant that is there then, when it was put. What
/// another instance may be refreshing is looked at again with the lane of its API key in hand, and
/// only then replaced.
pub(super) async fn hand_in(
    store: &Arc<dyn Store>,
    lanes: &Lanes,
    new: NewGrant,
    terms: Terms,
) -> Result<(HandedIn, Option<Box<Grant>>), PutError> {
    let mut held: Option<(ApiKeyName, Option<HeldLane>)> = None;
    loop {
        let there = store.grant(&new.tenant).await?;
        let outcome = decide(&new, there.as_ref(), terms.on_conflict)?;
        let writes = matches!(outcome, HandedIn::Created | HandedIn::Replaced) && !terms.dry_run;
        if !writes {
            return Ok((outcome, None));
        }
        match there {
            Some(there) if held.as_ref().is_none_or(|(of, _)| *of != there.api_key) => {
                // never two lanes at a time: somebody may wait for them in the other order
                drop(held.take());
                held = Some((there.api_key.clone(), lanes.wait(&there.api_key).await?));
            }
            Some(_) | None => return put(store, new).await,
        }
    }
}

fn decide(
    new: &NewGrant,
    there: Option<&Grant>,
    on_conflict: OnConflict,
) -> Result<HandedIn, PutError> {
    match (there.map(|there| Standing::of(new, there)), on_conflict) {
        (None, _) => Ok(HandedIn::Created),
        (Some(Standing::Same), _) => Ok(HandedIn::Unchanged),
        (Some(Standing::Spent | Standing::Other), OnConflict::Skip) => Ok(HandedIn::Skipped),
        (Some(Standing::Spent | Standing::Other), OnConflict::Fail) => {
            Err(PutError::Conflict { tenant: new.tenant.clone() })
        }
        (Some(Standing::Spent), OnConflict::Replace) => Err(PutError::Spent),
        (Some(Standing::Other), OnConflict::Replace) => Ok(HandedIn::Replaced),
    }
}

async fn put(
    store: &Arc<dyn Store>,
    new: NewGrant,
) -> Result<(HandedIn, Option<Box<Grant>>), PutError> {
    let (put, grant) = store.put_grant(new).await?;
    let outcome = match put {
        Put::Created => HandedIn::Created,
        Put::Replaced => HandedIn::Replaced,
    };
    Ok((outcome, Some(Box::new(grant))))
}
