//! Errands: token requests that are no refresh, such as the exchange of a code, in their turn.
//!
//! They keep the lane's pace like refreshes do: one request at a time, a rest after each answer,
//! the same back-off. An errand goes where a refresh that somebody waits for with the same deadline
//! would go. What is sent and what comes of it is not known here.

use std::time::Duration;

use super::TokenKeeper;
use super::lane::Lane;
use super::tenant::Rank;
use super::terms::{Cause, RefreshResult, Trouble};
use crate::engine::{ApiKeyName, Mono, Now};

/// Errands that may wait in a lane: people at their browsers, at one a second some minutes' worth.
const ERRANDS_MAX: usize = 256;

impl Lane {
    /// Gives the lane to the most urgent errand, unless a tenant of this rank is more urgent.
    pub(super) fn take_errand(&mut self, tenant: Option<Rank>) -> Option<u64> {
        let (deadline, id) = *self.errands.first()?;
        let rank = Rank::Demanded { troubles: 0, deadline };
        if tenant.is_some_and(|tenant| tenant < rank) {
            return None;
        }
        self.errands.pop_first();
        self.errand = Some((deadline, id));
        Some(id)
    }

    fn holds(&self, id: u64) -> bool {
        self.errand.is_some_and(|(_, held)| held == id)
    }

    /// Errands that wait or hold the lane.
    pub(super) fn errands(&self) -> usize {
        self.errands.len().saturating_add(usize::from(self.errand.is_some()))
    }
}

impl TokenKeeper {
    /// Somebody wants to send a token request with `api_key` and waits for it until `deadline`;
    /// [`super::Command::Errand`] says when it is its turn. `false` when it will have none: too
    /// many wait, the API key is not configured, or nothing new is begun.
    pub fn errand(&mut self, api_key: &ApiKeyName, id: u64, deadline: Mono, now: Now) -> bool {
        if self.draining {
            return false;
        }
        let lane = self.lanes.get_mut(api_key).filter(|lane| lane.configured);
        let Some(lane) = lane.filter(|lane| lane.errands.len() < ERRANDS_MAX) else {
            return false;
        };
        lane.errands.insert((deadline, id));
        self.advance(now);
        true
    }

    /// It is the errand's turn, but another instance has the lane: it waits on, for `retry` at
    /// least, and those who have become more urgent meanwhile go first.
    pub fn errand_occupied(&mut self, api_key: &ApiKeyName, id: u64, retry: Duration, now: Now) {
        let Some(lane) = self.lanes.get_mut(api_key) else { return };
        let Some((deadline, _)) = lane.errand.take_if(|(_, held)| *held == id) else { return };
        if lane.configured && !self.draining {
            lane.errands.insert((deadline, id));
        }
        lane.occupied(retry, now.mono);
        self.advance(now);
    }

    /// The errand that holds the lane has its answer; `None` when nothing was asked.
    pub fn errand_ended(
        &mut self,
        api_key: &ApiKeyName,
        id: u64,
        result: Option<RefreshResult>,
        now: Now,
    ) {
        let interval = self.settings.refresh_interval;
        let lane = self.lanes.get_mut(api_key).filter(|lane| lane.holds(id));
        let Some(lane) = lane else { return };
        lane.errand = None;
        match result {
            None => lane.release(),
            Some(_) => lane.answered(now.mono, interval),
        }
        let cause = match result {
            Some(RefreshResult::Received { .. } | RefreshResult::InvalidGrant) => {
                lane.heal();
                None
            }
            // a refusal of this one request says nothing about the others, and a full disk nothing
            // about the endpoint
            None
            | Some(
                RefreshResult::Trouble(Trouble::Unexpected)
                | RefreshResult::NotJournalled
                | RefreshResult::LaneLost,
            ) => None,
            Some(RefreshResult::InvalidClient) => Some(Cause::ClientRefused),
            Some(RefreshResult::NotSent) => Some(Cause::Unreachable),
            Some(RefreshResult::Lost) => Some(Cause::AnswerLost),
            Some(RefreshResult::Trouble(trouble)) => Some(Cause::Endpoint(trouble)),
        };
        if let Some(cause) = cause {
            lane.fail(cause, now.mono, &mut self.chance);
        }
        if lane.take_stale() {
            self.touch_lane(api_key, now);
        }
        self.advance(now);
    }
}
