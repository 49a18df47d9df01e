//! What the end of a call teaches: which slot is free, what was counted, and who has to pause.

use std::time::Duration;

use super::calls::{CallId, Stage};
use super::{Mono, Now, Scheduler};
use crate::engine::outcome::{Health, Outcome};
use crate::engine::queue::TenantIx;

/// First pause after an edge refused a call; each further one doubles it.
const EDGE_PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause after an edge refused a call.
const EDGE_PAUSE_MAX: Duration = Duration::from_secs(60);

impl Scheduler {
    /// A call that had left, or was about to, has ended.
    pub fn settle(&mut self, id: CallId, outcome: Outcome, now: Now) {
        let Some(call) = self.calls.remove(id) else { return };
        let (Stage::Granted { slot, day } | Stage::InFlight { slot, day }) = call.stage else {
            return;
        };
        self.in_flight = self.in_flight.saturating_sub(1);
        match outcome {
            Outcome::NotSent => {
                self.pacer.release(slot);
                self.give_back(day, now.mono);
                if let Some(today) = self.today_mut(call.tenant, now) {
                    today.calls = today.calls.saturating_sub(1);
                }
            }
            Outcome::Answered(health) => {
                self.pacer.answered(slot, now.mono);
                self.pacer.clean();
                self.budget.answered(slot.sent_at());
                self.edge_refusals = 0;
                self.count_error(call.tenant, health, now);
            }
            Outcome::Throttled => {
                self.pacer.answered(slot, now.mono);
                self.pacer.throttled(now.mono);
                self.throttled_total = self.throttled_total.saturating_add(1);
                if let Some(today) = self.today_mut(call.tenant, now) {
                    today.throttled = today.throttled.saturating_add(1);
                }
            }
            Outcome::QuotaExceeded => {
                self.pacer.answered(slot, now.mono);
                self.throttled_total = self.throttled_total.saturating_add(1);
                self.budget.spent_says_upstream(day, now);
            }
            Outcome::Edge => self.edge_refused(now.mono),
            Outcome::Lost => self.count_error(call.tenant, Health::Error, now),
        }
        self.advance(now);
    }

    fn count_error(&mut self, ix: TenantIx, health: Health, now: Now) {
        if let (Health::Error, Some(today)) = (health, self.today_mut(ix, now)) {
            today.errors = today.errors.saturating_add(1);
        }
    }

    /// Pauses the key; calls that were under way when the pause began do not make it longer.
    fn edge_refused(&mut self, now: Mono) {
        if now < self.edge_until {
            return;
        }
        let doubled = EDGE_PAUSE_MIN.saturating_mul(1_u32 << self.edge_refusals.min(6));
        self.edge_refusals = self.edge_refusals.saturating_add(1);
        self.edge_until = now.plus(doubled.min(EDGE_PAUSE_MAX));
        self.pacer.close_until(self.edge_until);
    }
}
