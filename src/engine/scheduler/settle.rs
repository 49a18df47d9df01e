//! What the end of a call teaches: which slot is free, what was counted, and who has to pause.
//!
//! A refusal holds no more than it concerns: `throttled` and an edge the key, `quota_exceeded` the
//! key's day, a limit behind the gateway one tenant's bulk calls, a row of refused tokens one
//! tenant.

use std::time::Duration;

use super::calls::{Call, CallId, Held, Stage};
use super::{Command, Hold, Mono, News, Now, Scheduler};
use crate::engine::backoff::Backoff;
use crate::engine::outcome::{Health, Outcome};
use crate::engine::queue::TenantIx;
use crate::engine::rate::Class;
use crate::engine::time::Day;
use crate::engine::turnstile::Report;

/// First pause of the key after an edge refused a call; each further one doubles it.
const EDGE_PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause of the key after an edge refused a call.
const EDGE_PAUSE_MAX: Duration = Duration::from_secs(60);
/// First pause of a tenant, or of its bulk calls.
const HOLD_MIN: Duration = Duration::from_secs(60);
/// Longest pause of a tenant, or of its bulk calls.
const HOLD_MAX: Duration = Duration::from_secs(900);
/// So many answers of 403, or tokens refused with 401, in a row pause their tenant.
const DENIALS_MAX: u32 = 10;
/// So soon after the turn of the day the upstream may still be in the old one.
const TURN_DOUBT: Duration = Duration::from_secs(120);

/// The key's pauses after an edge refused.
pub(super) const fn edge_backoff() -> Backoff {
    Backoff::new(EDGE_PAUSE_MIN, EDGE_PAUSE_MAX)
}

/// What pauses one tenant.
#[derive(Debug)]
pub(super) struct Holds {
    denials: u32,
    /// When the tenant got the token that was last counted as refused.
    token_counted: Option<Mono>,
    /// The row ended with a refused token rather than a refused call.
    by_token: bool,
    denied: Backoff,
    capped: Backoff,
}

impl Default for Holds {
    fn default() -> Self {
        Self {
            denials: 0,
            token_counted: None,
            by_token: false,
            denied: Backoff::new(HOLD_MIN, HOLD_MAX),
            capped: Backoff::new(HOLD_MIN, HOLD_MAX),
        }
    }
}

impl Holds {
    /// Until when calls of `class` are held; past when they are not.
    pub(super) fn until(&self, class: Class) -> Mono {
        let denied = self.denied.until();
        if class == Class::Bulk { denied.max(self.capped.until()) } else { denied }
    }

    /// Until when this hold lasts; past when there is none.
    pub(super) const fn until_of(&self, hold: Hold) -> Mono {
        match hold {
            Hold::Denied => self.denied.until(),
            Hold::Capped => self.capped.until(),
        }
    }

    /// The tenant has another token. It ends the pause, unless new tokens are what is refused.
    pub(super) fn new_token(&mut self, now: Mono) {
        if !self.by_token {
            self.denied.interrupt(now);
        }
    }

    fn forgive(&mut self, now: Mono) {
        self.denials = 0;
        self.denied.forgive(now);
        self.capped.forgive(now);
    }
}

impl Scheduler {
    /// A call that was granted has ended.
    pub fn settle(&mut self, id: CallId, outcome: Outcome, now: Now) {
        let Some(call) = self.calls.remove(id) else { return };
        let (Stage::Granted { held } | Stage::InFlight { held }) = call.stage else { return };
        self.in_flight = self.in_flight.saturating_sub(1);
        let (sent, day) = (held.sent_at(), held.day());
        if matches!(
            outcome,
            Outcome::Answered(_) | Outcome::Capped | Outcome::Throttled | Outcome::QuotaExceeded
        ) {
            self.held_answered(held, now.mono);
        }
        match outcome {
            Outcome::NotSent => {
                self.held_released(held, now.mono);
                if let Some(today) = self.today_mut(call.tenant, now) {
                    today.calls = today.calls.saturating_sub(1);
                }
            }
            Outcome::Answered(health) => {
                self.not_refused(held);
                self.count_error(call.tenant, health, now);
                self.judge(&call, health, sent, now);
            }
            Outcome::Capped => {
                self.not_refused(held);
                self.count_error(call.tenant, Health::Error, now);
                self.capped(&call, sent, now);
            }
            Outcome::Throttled => {
                self.throttled(held, now.mono);
                self.throttled_total = self.throttled_total.saturating_add(1);
                if let Some(today) = self.today_mut(call.tenant, now) {
                    today.throttled = today.throttled.saturating_add(1);
                }
                if self.foreign.throttled(sent, now) {
                    self.tell_foreign_use();
                }
            }
            Outcome::QuotaExceeded => {
                self.throttled_total = self.throttled_total.saturating_add(1);
                self.budget.spent_says_upstream(day, now);
                self.tell_turnstile(Report::Spent { day });
                self.day_refused(day, now);
            }
            Outcome::Edge => {
                if let Some(until) = self.edge.refused(sent, now.mono, &mut self.chance) {
                    self.close_until(until, now.mono);
                }
            }
            Outcome::Lost => self.count_error(call.tenant, Health::Error, now),
        }
        self.advance(now);
    }

    /// The call was within the key's limits.
    fn not_refused(&mut self, held: Held) {
        self.held_clean(held);
        let sent = held.sent_at();
        self.budget.answered(sent);
        self.edge.answered(sent);
        self.foreign.answered();
    }

    fn count_error(&mut self, ix: TenantIx, health: Health, now: Now) {
        if let (true, Some(today)) = (health != Health::Good, self.today_mut(ix, now)) {
            today.errors = today.errors.saturating_add(1);
        }
    }

    /// Counts the row of calls that were refused to a tenant, or ends it.
    fn judge(&mut self, call: &Call, health: Health, sent: Mono, now: Now) {
        let Some(tenant) = self.tenants.find_mut(call.tenant) else { return };
        let holds = &mut tenant.holds;
        match health {
            Health::Good | Health::Error => {
                if holds.denied.answered(sent) {
                    holds.denials = 0;
                }
                if health == Health::Good && call.class == Class::Bulk {
                    holds.capped.answered(sent);
                }
                return;
            }
            // the keeper gets another token; the calls that left with this one say it once
            Health::Unauthorized if holds.token_counted == Some(tenant.ready_since) => return,
            Health::Unauthorized => holds.token_counted = Some(tenant.ready_since),
            Health::Forbidden => {}
        }
        holds.by_token = health == Health::Unauthorized;
        holds.denials = holds.denials.saturating_add(1);
        if holds.denials >= DENIALS_MAX
            && let Some(until) = holds.denied.refused(sent, now.mono, &mut self.chance)
        {
            self.hold(call.tenant, Hold::Denied, until, now.mono);
        }
    }

    /// A limit behind the gateway: where it meets bulk work, the tenant's bulk calls pause.
    fn capped(&mut self, call: &Call, sent: Mono, now: Now) {
        let Some(tenant) = self.tenants.find_mut(call.tenant) else { return };
        if call.class == Class::Bulk
            && let Some(until) = tenant.holds.capped.refused(sent, now.mono, &mut self.chance)
        {
            self.hold(call.tenant, Hold::Capped, until, now.mono);
        }
    }

    fn hold(&mut self, ix: TenantIx, hold: Hold, until: Mono, now: Mono) {
        self.held.insert((until, ix));
        self.set_held(ix, now);
        if let Some(tenant) = self.tenants.find(ix) {
            let (tenant, span) = (tenant.name.clone(), until.since(now));
            self.commands.push_back(Command::Tell(News::Held { tenant, hold, span }));
        }
    }

    /// Ends the pauses that are over.
    pub(super) fn end_holds(&mut self, now: Mono) {
        while let Some((_, ix)) = self.held.first().copied().filter(|(until, _)| *until <= now) {
            self.held.pop_first();
            self.set_held(ix, now);
        }
    }

    /// Forgets what the upstream refused to a tenant: an operator says that it is well.
    pub fn forgive(&mut self, name: &crate::engine::TenantName, now: Now) {
        let Some(ix) = self.tenants.ix(name) else { return };
        if let Some(tenant) = self.tenants.find_mut(ix) {
            tenant.holds.forgive(now.mono);
        }
        self.set_held(ix, now.mono);
        self.advance(now);
    }

    fn day_refused(&mut self, day: Day, now: Now) {
        let reset = self.limits.day_reset;
        let turned = reset.end_of(Day::new(day.number().saturating_sub(1)));
        let is_today = reset.day_of(now.unix) == day && now.unix.since(turned) >= TURN_DOUBT;
        if is_today && self.foreign.day_refused(self.budget.used(), self.budget.limit(), now.unix) {
            self.tell_foreign_use();
        }
    }

    pub(super) fn tell_foreign_use(&mut self) {
        self.commands.push_back(Command::Tell(News::ForeignUse(self.foreign.seen())));
    }
}
