//! One tenant as the keeper sees it: version, expiry, the step under way, doubts, and who wants its
//! token.
//!
//! Answers questions about itself at a moment (usable? how urgent? how ready?) and changes nothing
//! by asking. A tenant is in one step at a time, so that its writes to the store never overtake
//! each other.

use std::sync::Arc;
use std::time::Duration;

use super::idle::lot;
use super::lane::Lane;
use super::terms::{Cause, Known, Readiness, Settings, Trouble};
use crate::engine::chance::Chance;
use crate::engine::{ApiKeyName, Mono, Now, TenantName, Unix};

/// While no new token can be had, the old one is used until this long before its end: enough for a
/// call that leaves now to arrive, with the usual difference of clocks.
const FLOOR: Duration = Duration::from_secs(30);

/// Why the grant is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reread {
    /// The refresh token was refused; perhaps somebody else has refreshed it.
    Refused,
    /// The intent could not be journalled for this version.
    BeginConflict,
    /// The new tokens could not be stored over this version.
    PersistConflict,
    /// The verdict could not be stored for this version.
    FailConflict,
}

/// Something under way for a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Begin,
    Refresh,
    Persist,
    Abort,
    Reread(Reread),
    Fail,
}

impl Op {
    /// Whether a request has left, or is about to, whose end is not stored yet.
    pub(super) const fn follows_a_request(self) -> bool {
        match self {
            Self::Refresh | Self::Persist | Self::Fail => true,
            Self::Reread(why) => !matches!(why, Reread::BeginConflict),
            Self::Begin | Self::Abort => false,
        }
    }
}

/// Where a tenant is in the work of a refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Rest,
    /// An answer is awaited.
    Running(Op),
    /// The store failed; repeated at `store_trouble.at`.
    Later(Op),
}

/// Which access token is given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Serving {
    /// The stored one.
    Stored,
    /// The received one, since the store does not take it: the stored one may be void.
    Received,
    /// None: the upstream does not accept the received one.
    Neither,
}

/// Whether the current refresh token may have been spent without us learning what came in its
/// place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    Clear,
    /// An answer that may hide a rotation.
    Unclear(Trouble),
    /// Answers were lost; `prompt` until the repeat was tried.
    Lost {
        times: u32,
        prompt: bool,
    },
    /// The process stopped after a refresh was begun; answers lost since the start.
    Stopped {
        lost: u32,
    },
}

impl Doubt {
    /// The one repeat that an ambiguous refresh may have is still to be made.
    const fn owes_repeat(self) -> bool {
        matches!(self, Self::Lost { times: 1, .. } | Self::Stopped { lost: 0 })
    }

    /// The repeat was made and its answer was lost as well.
    pub(super) const fn is_exhausted(self) -> bool {
        matches!(self, Self::Lost { .. } | Self::Stopped { .. }) && !self.owes_repeat()
    }
}

/// Repeats of a store operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Later {
    pub(super) failures: u32,
    pub(super) at: Mono,
}

/// A time in which the tenant is left alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    pub(super) until: Mono,
    pub(super) cause: Cause,
}

/// Those who wait for the token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demand {
    earliest: Mono,
    latest: Mono,
}

impl Demand {
    pub(super) fn joined(existing: Option<Self>, deadline: Mono, now: Mono) -> Self {
        match existing {
            Some(demand) if demand.earliest > now => Self {
                earliest: demand.earliest.min(deadline),
                latest: demand.latest.max(deadline),
            },
            Some(demand) => Self { earliest: deadline, latest: demand.latest.max(deadline) },
            None => Self { earliest: deadline, latest: deadline },
        }
    }

    /// The deadline that counts; `None` when all have passed.
    pub(super) fn live(self, now: Mono) -> Option<Mono> {
        [self.earliest, self.latest].into_iter().find(|deadline| *deadline > now)
    }
}

/// Who is refreshed first; the smallest goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// The prompt repeat after a lost answer.
    Prompt,
    /// Somebody waits. Those whose last try failed come later, so that one bad grant does not hold
    /// the others.
    Demanded { troubles: u32, deadline: Mono },
    /// Nobody waits any more, or an operator asked, or a start found it in doubt.
    Other { troubles: u32, expires_at: Unix },
    /// Before anybody waits; see `idle`.
    Idle { troubles: u32, until: Unix },
}

/// Which margin counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Margin {
    Full,
    Floor,
}

/// Whether a tenant's calls go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Calls {
    Served,
    /// An operator holds them, perhaps because its tokens are used elsewhere.
    Held,
}

#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) api_key: ApiKeyName,
    pub(super) version: u64,
    pub(super) expires_at: Option<Unix>,
    pub(super) last_refreshed_at: Option<Unix>,
    pub(super) last_used_at: Option<Unix>,
    pub(super) verdict: Option<Arc<str>>,
    pub(super) step: Step,
    pub(super) store_trouble: Option<Later>,
    pub(super) doubt: Doubt,
    pub(super) hold: Option<Hold>,
    /// Requests sent with the tokens of this version.
    pub(super) attempts: u32,
    /// Tries since the last success that brought nothing.
    pub(super) troubles: u32,
    /// Expiry of the tokens that are received and not yet stored.
    pub(super) received: Option<Unix>,
    pub(super) serving: Serving,
    pub(super) demand: Option<Demand>,
    /// An operator wants a refresh.
    pub(super) asked: bool,
    /// The upstream does not accept the access token of this version.
    pub(super) rejected: bool,
    /// Refreshes in a row that were made because of a rejection, and when the last one was.
    pub(super) rejections: Option<Later>,
    /// An operation outside the machine (put, remove) has the tenant.
    pub(super) reserved: bool,
    pub(super) calls: Calls,
    pub(super) shown: Option<Readiness>,
    pub(super) expiry_timer: Option<Unix>,
    pub(super) wake_timer: Option<Mono>,
    pub(super) idle_timer: Option<Unix>,
    /// When somebody was told that the refresh token nears its end.
    pub(super) ageing_told: Option<Unix>,
    pub(super) margin: Duration,
    pub(super) ahead: Duration,
    pub(super) keep_alive_after: Duration,
    /// Its own place in spans of time that tenants are spread over.
    pub(super) lot: Chance,
}

impl Tenant {
    pub(super) fn new(name: &TenantName, known: Known, settings: &Settings) -> Self {
        let mut tenant = Self {
            lot: lot(name, known.version),
            api_key: known.api_key,
            version: known.version,
            expires_at: known.access_expires_at,
            last_refreshed_at: known.last_refreshed_at,
            last_used_at: known.last_used_at,
            verdict: known.needs_authorization,
            step: Step::Rest,
            store_trouble: None,
            doubt: if known.refresh_begun { Doubt::Stopped { lost: 0 } } else { Doubt::Clear },
            hold: None,
            attempts: 0,
            troubles: 0,
            received: known.unstored.and_then(|unstored| unstored.access_expires_at),
            serving: Serving::Stored,
            demand: None,
            asked: false,
            rejected: false,
            rejections: None,
            reserved: false,
            calls: Calls::Served,
            shown: None,
            expiry_timer: None,
            wake_timer: None,
            idle_timer: None,
            ageing_told: None,
            margin: Duration::ZERO,
            ahead: Duration::ZERO,
            keep_alive_after: Duration::ZERO,
        };
        tenant.set_times(settings);
        tenant
    }

    /// At most half of a token's life is margin, or time to refresh it ahead: a short-lived token
    /// would otherwise never be usable, or be refreshed for ever.
    pub(super) fn set_times(&mut self, settings: &Settings) {
        let half = match (self.expires_at, self.last_refreshed_at) {
            (Some(end), Some(start)) => end.since(start).checked_div(2).unwrap_or_default(),
            (None, _) | (_, None) => Duration::MAX,
        };
        self.margin = half.min(settings.refresh_margin);
        self.ahead = half.min(settings.refresh_ahead);
        self.keep_alive_after = settings.keep_alive_after;
    }

    /// The moment at which the access token stops being usable; `None` when it is not usable at
    /// all.
    pub(super) fn usable_until(&self, margin: Margin) -> Option<Unix> {
        if self.verdict.is_some() {
            return None;
        }
        let end = match self.serving {
            Serving::Stored => self.expires_at.filter(|_| !self.rejected),
            Serving::Received => self.received,
            Serving::Neither => None,
        };
        let margin = match margin {
            Margin::Full => self.margin,
            Margin::Floor => self.margin.min(FLOOR),
        };
        end.map(|end| end.minus(margin))
    }

    pub(super) fn usable(&self, margin: Margin, now: Now) -> bool {
        self.usable_until(margin).is_some_and(|until| now.unix < until)
    }

    /// The margin that counts now: while no new token can be had, the old one serves longer.
    pub(super) fn margin_now(&self, lane: &Lane) -> Margin {
        let in_trouble = lane.trouble().is_some()
            || !lane.configured
            || self.store_trouble.is_some()
            || self.doubt.is_exhausted();
        if in_trouble { Margin::Floor } else { Margin::Full }
    }

    pub(super) fn readiness(&self, lane: &Lane, now: Now) -> Readiness {
        if let Some(reason) = &self.verdict {
            return Readiness::NeedsAuthorization { reason: Arc::clone(reason) };
        }
        if self.usable(self.margin_now(lane), now) {
            return Readiness::Ready;
        }
        if !lane.configured {
            return Readiness::Failing { retry_at: Mono::NEVER, cause: Cause::ApiKeyUnknown };
        }
        if let Some(later) = self.store_trouble {
            return Readiness::Failing { retry_at: later.at, cause: Cause::Store };
        }
        if let Some(hold) = self.hold {
            return Readiness::Failing { retry_at: hold.until, cause: hold.cause };
        }
        lane.trouble().map_or(Readiness::Waiting, |trouble| Readiness::Failing {
            retry_at: lane.gate(),
            cause: trouble.cause,
        })
    }

    fn is_held(&self) -> bool {
        self.calls == Calls::Held
    }

    /// Whether it belongs among those that the lane looks through.
    pub(super) fn wants(&self, now: Now) -> bool {
        let in_doubt = matches!(self.doubt, Doubt::Lost { .. } | Doubt::Stopped { .. });
        let wanted = self.asked || self.rejected || self.demand.is_some() || in_doubt;
        self.verdict.is_none() && (wanted || (!self.is_held() && self.idle_due(now).is_some()))
    }

    /// How urgent a request is now; `None` when none may or need be sent.
    pub(super) fn rank(&self, now: Now) -> Option<Rank> {
        if self.verdict.is_some() || self.reserved || self.step != Step::Rest {
            return None;
        }
        if !self.asked && (self.is_held() || self.hold.is_some()) {
            return None;
        }
        let wanted = self.demand.is_some() || self.rejected;
        let live = self.demand.and_then(|demand| demand.live(now.mono));
        let due = if self.doubt.owes_repeat() {
            true
        } else if self.doubt.is_exhausted() {
            // A further use of a token that may be spent can cost the access token too (reuse
            // detection), so it is made only when there is none left to lose and a caller waits.
            live.is_some() && !self.usable(Margin::Floor, now)
        } else {
            self.rejected || (wanted && !self.usable(Margin::Full, now))
        };
        let troubles = self.troubles;
        if !due && !self.asked {
            return self.idle_due(now).map(|until| Rank::Idle { troubles, until });
        }
        Some(match (self.doubt, live) {
            (Doubt::Lost { prompt: true, .. }, _) => Rank::Prompt,
            (_, Some(deadline)) => Rank::Demanded { troubles, deadline },
            (_, None) => Rank::Other { troubles, expires_at: self.expires_at.unwrap_or_default() },
        })
    }

    /// When the machine must look at it again for reasons of its own.
    pub(super) fn wake_at(&self) -> Option<Mono> {
        if self.reserved {
            return None;
        }
        match self.step {
            Step::Later(_) => self.store_trouble.map(|later| later.at),
            Step::Rest => self.hold.map(|hold| hold.until),
            Step::Running(_) => None,
        }
    }
}
