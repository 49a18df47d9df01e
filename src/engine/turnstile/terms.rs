//! What an instance and the turnstile say to each other. Plain data; moments of the store's clock
//! are microseconds since the epoch and are only ever given back to it.

use std::time::Duration;

use super::roll::{Member, Part};
use crate::engine::ids::TenantName;
use crate::engine::rate::{Class, Rate};
use crate::engine::time::{Day, DayReset, Mono};

/// A moment on the store's clock, in microseconds since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(pub u64);

impl Stamp {
    /// The farthest moment that fits a double exactly, as scripts reckon with.
    pub const NEVER: Self = Self((1 << 53) - 1);

    /// The moment `span` later.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(micros)).min(Self::NEVER)
    }
}

/// The limits that an instance asks under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The window.
    pub rate: Rate,
    /// Calls in it: those of the rate less those that are left to others.
    pub calls: u32,
    /// The margin of a call of whose answer nothing is known.
    pub unanswered: Duration,
    /// The part of the margin that the spacing floor has too.
    pub spaced: Duration,
    /// Calls per quota day.
    pub per_day: u64,
    /// When the day turns.
    pub day_reset: DayReset,
    /// Hundredths of the day that are kept for interactive calls.
    pub reserve_percent: u8,
    /// Calls of the day that others are likely to use.
    pub withheld: u64,
}

/// Whether an instance goes on by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ByItself {
    /// It does not and did not.
    #[default]
    No,
    /// It may until it hears the answer.
    Perhaps,
    /// It did, and does not any more: its last call has left before it said so.
    NoMore,
}

/// What an instance says to be on the roll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// The store's clock as it was last heard; the start of it for one that has heard nothing.
    pub echo: Stamp,
    /// The part that is in use.
    pub part: Part,
    /// Whether it would go on by itself.
    pub goes_alone: bool,
    /// After so long without word from it, it is dead.
    pub dead_after: Duration,
    /// Whether it goes on by itself, or did.
    pub by_itself: ByItself,
    /// It leaves for good.
    pub leaving: bool,
    /// The history that it knows.
    pub epoch: String,
    /// Whom it knows, should the store have forgotten them.
    pub remembered: Vec<Member>,
    /// Ids of instances whose processes have surely ended.
    pub ended: Vec<String>,
}

impl Beat {
    /// The first one.
    #[must_use]
    pub const fn first(dead_after: Duration) -> Self {
        Self {
            echo: Stamp(0),
            part: Part { from: 0, to: 0 },
            goes_alone: false,
            dead_after,
            by_itself: ByItself::No,
            leaving: false,
            epoch: String::new(),
            remembered: Vec::new(),
            ended: Vec::new(),
        }
    }
}

/// What an instance asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Until when, on the store's clock, a slot could be used; `None` when none could.
    pub wanted_until: Option<Stamp>,
    /// Under which limits.
    pub terms: Terms,
    /// How old a slot may be when its call leaves; it is held for so much longer.
    pub life: Duration,
    /// How late the instance whose turn it is may come before another takes it.
    pub grace: Duration,
    /// Where the instance's calls wait now, as far as that has changed.
    pub line: Vec<Place>,
    /// `line` is everything: what was said before is void.
    pub anew: bool,
    /// So many places the store should know then; where it knows fewer it has forgotten some.
    pub known: u32,
    /// Rises from question to question of an instance.
    pub number: u64,
    /// What became of calls that were granted before.
    pub reports: Vec<Report>,
    /// The same that questions told which were not answered, each with the number of the first of
    /// them: it may have had its effect.
    pub again: Vec<(u64, Report)>,
    /// The most that the instance has seen, in case the store has forgotten it.
    pub memory: Memory,
}

/// Calls of one tenant and class that wait at an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The class.
    pub class: Class,
    /// The tenant.
    pub tenant: TenantName,
    /// Its share.
    pub weight: u32,
    /// How many wait; 0 when none does any more.
    pub count: u32,
}

/// What an instance has seen of an API key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The last ticket.
    pub ticket: u64,
    /// The last day.
    pub day: Day,
    /// The calls that were counted in it.
    pub used: u64,
    /// [`Told::begun`] of that: what was counted in a history that began later is not among them.
    pub begun: Stamp,
}

/// What became of a call, or of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// The slot of `ticket` is free `hold` after it was granted.
    Held {
        /// The ticket.
        ticket: u64,
        /// When it was granted.
        granted_at: Stamp,
        /// For how long it is held from then.
        hold: Duration,
    },
    /// The call certainly did not leave: slot and count are given back.
    Returned {
        /// The ticket.
        ticket: u64,
        /// The day in which it is counted.
        day: Day,
    },
    /// The call was not refused for the key's limits.
    Clean {
        /// When it was granted.
        granted_at: Stamp,
    },
    /// The upstream refused a call for its rate.
    Throttled {
        /// The margin of late.
        guard: Duration,
    },
    /// Nothing may leave for so long.
    Closed {
        /// How long.
        span: Duration,
    },
    /// The upstream says that this day is spent.
    Spent {
        /// The day.
        day: Day,
    },
    /// Calls that left while the store could not be asked.
    Used {
        /// In which day.
        day: Day,
        /// How many.
        calls: u64,
    },
}

/// A slot: one call may leave, soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Its number, which rises.
    pub number: u64,
    /// When it was granted.
    pub granted_at: Stamp,
    /// The day in which its call is counted.
    pub day: Day,
    /// When it was asked for; it was granted after.
    pub asked: Mono,
    /// Its call must have left by then.
    pub until: Mono,
    /// When its call left.
    pub sent: Option<Mono>,
    /// What it took until the upstream had acknowledged the whole request.
    pub acknowledged: Option<Duration>,
}

/// What the turnstile answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The store's clock.
    pub at: Stamp,
    /// Since when the store knows who waits: another moment than before means that it has
    /// forgotten.
    pub begun: Stamp,
    /// The number of the last ticket, which is the asker's when one was granted.
    pub ticket: u64,
    /// Whose call the granted slot is for.
    pub granted: Option<(Class, TenantName)>,
    /// The day that is counted.
    pub day: Day,
    /// The calls that are counted in it.
    pub used: u64,
    /// The upstream says that the day is spent, and is asked again after this.
    pub spent: Option<Duration>,
    /// Nothing leaves for so long.
    pub closed: Duration,
    /// What refusals add to the margin.
    pub widened: Duration,
    /// Refusals for the rate, by all instances.
    pub refused: u64,
    /// Whose turn is next.
    pub next: Option<Turn>,
    /// The asker did not come when it was its turn: what it said of its line is forgotten.
    pub forgotten: bool,
    /// Instances at which calls wait.
    pub sharers: u32,
}

/// Whose turn is next, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Whose.
    pub whose: Whose,
    /// From now.
    pub due: Duration,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The asker's.
    Mine,
    /// Another instance's.
    Another,
    /// All are asked to say what they know.
    All,
}
