//! How the quota day is shared out over its hours and among the classes.
//!
//! Three rules, all on what is left of the day. A reserve for interactive calls melts in a straight
//! line toward the reset. What lies above it is spent on bulk calls at an even pace that is worked
//! out anew all the time. Normal calls go freely down to the reserve. Counting is the budget's work
//! and whose turn it is the queue's: this says only which classes may go, and when.

pub mod forecast;
mod reserve;

use std::time::Duration;

use super::chance::Chance;
use super::rate::Class;
use super::time::Mono;

pub use reserve::{Reserve, ReserveError};

/// The length of a quota day, in nanoseconds.
const DAY: u128 = 86_400_000_000_000;
/// One call, in the unit of levels and stocks: small enough that rounding loses nothing.
const CALL: u128 = 1_000_000_000;
/// Paced calls may leave together that were not used for this long: a caller that comes now and
/// then need not wait, and a day is not burnt at once.
const BURST: Duration = Duration::from_secs(300);
/// One call in this many is kept beside the reserve, at most a window's worth: a background call
/// must not take the last counted calls of a morning from interactive ones.
const STOCK_PART: u64 = 1_000;
/// The pace rises while the reserve melts, so a moment worked out from it is only trusted for this
/// long.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// Lets rounding not end in a wake-up that comes too early to do anything.
const ROUNDING: Duration = Duration::from_millis(1);
/// The least pause after the turn of a day that the upstream had called spent, and what chance adds
/// at most.
const REOPEN_MIN: Duration = Duration::from_secs(1);
const REOPEN_SPREAD: Duration = Duration::from_secs(29);

/// A day at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Calls of the whole day.
    pub limit: u64,
    /// Calls that have not left.
    pub remaining: u64,
    /// Time until the day turns.
    pub left: Duration,
}

/// What the classes may take of a day.
#[derive(Debug)]
pub struct Ration {
    reserve: Reserve,
    /// Calls of a window: the least that may leave together.
    window_calls: u32,
    /// Paced calls that may leave now; a full bucket until the day is known.
    level: Option<u128>,
    /// Unknown until the store has counted.
    standing: Option<Standing>,
    /// What follows from it.
    shares: Option<Shares>,
    looked_at: Mono,
    /// Paced calls granted since the start.
    paced: u64,
}

/// A day as the rules see it, in parts of a call.
#[derive(Clone, Copy, Debug)]
struct Shares {
    /// Kept for interactive calls at the start of a day.
    kept_whole: u128,
    /// What has not melted of that.
    kept: u128,
    /// Above what is kept now: what normal and bulk calls may take.
    open: u128,
    /// All that remains.
    remaining: u128,
    /// Until the day turns, in nanoseconds, at least one.
    left: u128,
}

impl Ration {
    /// The ration of a key with this reserve and so many calls in a window.
    #[must_use]
    pub const fn new(reserve: Reserve, window_calls: u32) -> Self {
        Self {
            reserve,
            window_calls,
            level: None,
            standing: None,
            shares: None,
            looked_at: Mono::new(Duration::ZERO),
            paced: 0,
        }
    }

    /// Changes the reserve and the window; what was spent stays spent.
    pub const fn reconfigure(&mut self, reserve: Reserve, window_calls: u32) {
        self.reserve = reserve;
        self.window_calls = window_calls;
        // the next look works everything out anew
        self.standing = None;
    }

    /// The day is so now; `None` while the store has not counted.
    pub fn look(&mut self, standing: Option<Standing>, now: Mono) {
        // one input makes several looks at one moment, between which only calls have left
        if let (Some(before), Some(after)) = (self.standing, standing)
            && let Some(shares) = &mut self.shares
            && (before.limit, before.left, self.looked_at) == (after.limit, after.left, now)
        {
            shares.remaining = u128::from(after.remaining).saturating_mul(CALL);
            shares.open = shares.remaining.saturating_sub(shares.kept);
            self.standing = standing;
            return;
        }
        self.standing = standing;
        self.shares = standing.map(|standing| self.shares_of(standing));
        let Some(shares) = self.shares else {
            self.looked_at = now;
            return;
        };
        let most = self.level_max(shares);
        let gained = portion(shares.open, now.since(self.looked_at).as_nanos(), shares.left);
        let level = self.level.map_or(most, |level| level.saturating_add(gained));
        self.level = Some(level.min(most));
        self.looked_at = now;
    }

    /// When a call of this class may go, as far as the day is concerned; the start of the clock
    /// when it may go now. A moment in the future is at most a minute ahead, and to be asked for
    /// again then.
    #[must_use]
    pub fn opens_at(&self, class: Class) -> Mono {
        let Some(shares) = self.shares.filter(|shares| shares.paces(class)) else {
            return Mono::default();
        };
        let wait = self.wait_in(shares, CALL);
        if wait.is_zero() {
            return Mono::default();
        }
        self.looked_at.plus(wait.min(LOOK_AGAIN).saturating_add(ROUNDING))
    }

    /// Which classes may go now, in the order of [`Class::ALL`].
    #[must_use]
    pub fn open(&self, now: Mono) -> [bool; 3] {
        Class::ALL.map(|class| self.opens_at(class) <= now)
    }

    /// A call of this class has been granted.
    pub fn spend(&mut self, class: Class) {
        if self.shares.is_some_and(|shares| shares.paces(class)) {
            self.level = self.level.map(|level| level.saturating_sub(CALL));
            self.paced = self.paced.saturating_add(1);
        }
    }

    /// How long the day holds the last of `calls` calls of this class, if nothing else is spent;
    /// at most until the day turns.
    #[must_use]
    pub fn wait(&self, class: Class, calls: u64) -> Duration {
        let Some(shares) = self.shares else { return Duration::ZERO };
        let need = u128::from(calls).saturating_mul(CALL);
        match class {
            Class::Interactive => Duration::ZERO,
            // free down to the reserve, and as that melts from there
            Class::Normal => match need.checked_sub(shares.open) {
                None | Some(0) => Duration::ZERO,
                Some(beyond) => self.wait_in(Shares { open: 0, ..shares }, beyond),
            },
            Class::Bulk => self.wait_in(shares, need),
        }
    }

    /// Whether all that is left is kept for interactive calls.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.shares.is_some_and(|shares| shares.open == 0)
    }

    /// Paced calls granted since the start.
    #[must_use]
    pub const fn paced(&self) -> u64 {
        self.paced
    }

    /// How long until `need` paced calls may have left.
    fn wait_in(&self, shares: Shares, need: u128) -> Duration {
        let short = need.saturating_sub(self.level.unwrap_or_default());
        let nanos = if shares.open == 0 {
            // until what is kept has melted below what remains, and then as it melts on
            let melted = portion(shares.remaining, DAY, shares.kept_whole.max(1));
            let then = portion(short, DAY, shares.kept_whole.max(1));
            shares.left.saturating_sub(melted).saturating_add(then).max(1)
        } else {
            portion(short, shares.left, shares.open)
        };
        let nanos = nanos.min(shares.left);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn shares_of(&self, standing: Standing) -> Shares {
        let Standing { limit, remaining, left } = standing;
        let left = left.as_nanos().clamp(1, DAY);
        let whole = u128::from(limit).saturating_mul(CALL);
        let stock = limit.checked_div(STOCK_PART).unwrap_or(0).min(u64::from(self.window_calls));
        let kept_whole = portion(whole, self.reserve.percent().into(), 100)
            .saturating_add(u128::from(stock).saturating_mul(CALL))
            .min(whole);
        let remaining = u128::from(remaining).saturating_mul(CALL);
        let kept = portion(kept_whole, left, DAY);
        Shares { kept_whole, kept, open: remaining.saturating_sub(kept), remaining, left }
    }

    /// Most paced calls that may leave together.
    fn level_max(&self, shares: Shares) -> u128 {
        let window = u128::from(self.window_calls.max(1)).saturating_mul(CALL);
        portion(shares.open, BURST.as_nanos(), shares.left.max(BURST.as_nanos())).max(window)
    }
}

impl Shares {
    /// Whether the day holds calls of this class to its pace.
    const fn paces(self, class: Class) -> bool {
        match class {
            Class::Interactive => false,
            Class::Normal => self.open == 0,
            Class::Bulk => true,
        }
    }
}

/// `whole · part / of`, rounded down.
const fn portion(whole: u128, part: u128, of: u128) -> u128 {
    match whole.saturating_mul(part).checked_div(of) {
        Some(portion) => portion,
        None => 0,
    }
}

/// How long nothing leaves after the turn of a day that the upstream had called spent: 1 s to 30 s,
/// spread by the moment at which it said so, so that programs that met the same end do not all come
/// back in the same second.
#[must_use]
pub fn reopening_pause(spent_at: Mono) -> Duration {
    let seed = u64::try_from(spent_at.since_start().as_nanos()).unwrap_or(u64::MAX);
    REOPEN_MIN.saturating_add(Chance::new(seed).part_of(REOPEN_SPREAD))
}

#[cfg(test)]
mod tests;
