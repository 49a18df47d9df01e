//! What can go wrong inside the SQLite store, before it is told to a caller.
//!
//! A [`Fault`] does not know what was attempted; the job that failed adds that. Refusals leave the
//! transaction usable for other jobs, failures spoil it: [`Fault::spoils`] is the line between
//! them.

use rusqlite::ErrorCode;

use crate::store::StoreError;

/// Why a job did not do what it was to do.
#[derive(Debug)]
pub(super) enum Fault {
    /// A refusal that the port names; nothing was written.
    Refused(StoreError),
    /// A row cannot be understood.
    Damaged(String),
    /// The disk has no room that could be promised.
    NoRoom(String),
    /// SQLite failed.
    Failed(rusqlite::Error),
}

impl Fault {
    /// Whether the transaction in which it happened is lost.
    pub(super) const fn spoils(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Damaged(_) => false,
            Self::NoRoom(_) | Self::Failed(_) => true,
        }
    }

    /// What the caller is told.
    pub(super) fn into_error(self, attempt: &'static str) -> StoreError {
        match self {
            Self::Refused(error) => error,
            Self::Damaged(cause) => StoreError::Corrupt { attempt, cause },
            Self::NoRoom(cause) => StoreError::Unavailable { attempt, cause },
            Self::Failed(error) if is_damage(&error) => {
                StoreError::Corrupt { attempt, cause: error.to_string() }
            }
            Self::Failed(error) => StoreError::Unavailable { attempt, cause: error.to_string() },
        }
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

/// Whether `error` says that the file is not what it should be.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}
