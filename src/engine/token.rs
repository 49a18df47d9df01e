//! Which token is good, and whose is refreshed next: the token keeper as a pure machine.
//!
//! One keeper serves all API keys and tenants. It owns the order of a refresh (journal the intent,
//! ask, store, only then use), the lane of each API key, the back-off, and the readiness of each
//! tenant. It does not hold tokens, send requests or write to a store: those are commands, and
//! their results are inputs. Always true: one token request at a time per lane and a rest after
//! each answer; no request without a durable intent; a refresh token that was refused is never sent
//! again; received tokens are never dropped while the store still waits for them.

#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::float_arithmetic,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unreachable,
        clippy::wildcard_enum_match_arm
    )
)]

mod answers;
mod errand;
mod idle;
mod lane;
mod tenant;
mod terms;
mod turn;
mod verdict;

#[cfg(test)]
mod custody;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::chance::Chance;
use super::{ApiKeyName, Mono, Now, TenantName, Unix};
use lane::Lane;
use tenant::{Calls, Demand, Doubt, Margin, Op, Rank, Serving, Step, Tenant};

pub use terms::{
    Alarm, Cause, Command, Known, LaneOutlook, Read, Readiness, RefreshResult, Settings, Trouble,
    Unstored, Write,
};

/// The two clocks are compared at least this often.
const RECHECK: Duration = Duration::from_mins(1);
/// Timers on the wall clock are not set nearer than this, lest a slow one spin.
const TIMER_MIN: Duration = Duration::from_millis(1);
/// A token refreshed because the upstream rejected it, and rejected again, is not refreshed again
/// for so long, doubling up to an hour: the fault is not the token's.
const REJECTION_REST: Duration = Duration::from_secs(1);
/// Without a rejection for so long, and for twice the last rest, the next one counts as the first.
const REJECTION_FORGET: Duration = Duration::from_mins(1);
const REJECTION_REST_MAX: Duration = Duration::from_hours(1);

/// The machine; see the module. Inputs take the moment at which they happen.
#[derive(Debug)]
pub struct TokenKeeper {
    settings: Settings,
    tenants: BTreeMap<TenantName, Tenant>,
    lanes: BTreeMap<ApiKeyName, Lane>,
    commands: VecDeque<Command>,
    /// When the usable tokens stop being so.
    expiries: BTreeSet<(Unix, TenantName)>,
    /// When something becomes due before anybody waits for it.
    idles: BTreeSet<(Unix, TenantName)>,
    /// When a store operation is repeated or a tenant is no longer left alone.
    wakes: BTreeSet<(Mono, TenantName)>,
    recheck_at: Mono,
    last: Now,
    /// When all timers were last set by both clocks.
    touched: Now,
    draining: bool,
    chance: Chance,
}

impl TokenKeeper {
    /// A keeper without API keys and tenants. `seed`, any number, spreads repeats and tenants' own
    /// moments.
    #[must_use]
    pub fn new(settings: Settings, seed: u64, now: Now) -> Self {
        Self {
            settings,
            tenants: BTreeMap::new(),
            lanes: BTreeMap::new(),
            commands: VecDeque::new(),
            expiries: BTreeSet::new(),
            idles: BTreeSet::new(),
            wakes: BTreeSet::new(),
            recheck_at: now.mono.plus(RECHECK),
            last: now,
            touched: now,
            draining: false,
            chance: Chance::new(seed),
        }
    }

    /// Changes the settings.
    pub fn set_times(&mut self, settings: Settings, now: Now) {
        self.settings = settings;
        for tenant in self.tenants.values_mut() {
            tenant.set_times(&self.settings);
        }
        self.touch_all(now);
        self.advance(now);
    }

    /// An API key is configured, or its settings have changed: its lane tries from anew.
    pub fn put_key(&mut self, api_key: &ApiKeyName, now: Now) {
        self.lane_of(api_key, now).reset(true);
        self.touch_lane(api_key, now);
        self.advance(now);
    }

    /// An API key is no longer configured: usable tokens serve on, nothing is refreshed.
    pub fn remove_key(&mut self, api_key: &ApiKeyName, now: Now) {
        self.lane_of(api_key, now).reset(false);
        self.touch_lane(api_key, now);
        self.advance(now);
    }

    /// A grant was loaded, put or replaced. What was under way for the tenant is forgotten: call it
    /// at the start, or for a tenant that [`TokenKeeper::reserve`] gave away.
    pub fn put(&mut self, name: &TenantName, known: Known, now: Now) {
        let old = self.take(name);
        let unstored = known.unstored.is_some();
        let mut tenant = Tenant::new(name, known, &self.settings);
        if let Some(old) = old {
            tenant.demand = old.demand;
            tenant.calls = old.calls;
            tenant.shown = old.shown;
        }
        self.lane_of(&tenant.api_key, now).tenants.insert(name.clone());
        self.tenants.insert(name.clone(), tenant);
        if unstored {
            self.start(name, Op::Persist);
        }
        self.touch(name, now);
    }

    /// The tenant is gone.
    pub fn remove(&mut self, name: &TenantName, now: Now) {
        if let Some(tenant) = self.take(name) {
            // its request may have been under way, and the lane rests
            self.touch_lane(&tenant.api_key, now);
        }
        self.advance(now);
    }

    /// Gives the tenant to an operation outside the machine: until [`TokenKeeper::put`],
    /// [`TokenKeeper::remove`] or [`TokenKeeper::release`] nothing is begun for it. `false` while
    /// something is under way; an unknown tenant is free.
    pub fn reserve(&mut self, name: &TenantName, now: Now) -> bool {
        let Some(tenant) = self.tenants.get_mut(name) else { return true };
        let free = !tenant.reserved && !matches!(tenant.step, Step::Running(_));
        if free {
            tenant.reserved = true;
            self.touch(name, now);
        }
        free
    }

    /// Takes the tenant back unchanged.
    pub fn release(&mut self, name: &TenantName, now: Now) {
        if let Some(tenant) = self.tenants.get_mut(name) {
            tenant.reserved = false;
        }
        self.touch(name, now);
        self.advance(now);
    }

    /// Nothing is begun for a tenant that is held, unless an operator asks for it from then on: an
    /// earlier order that was not begun is dropped, since the tokens may have left for another
    /// place. What is under way goes on to its end.
    pub fn hold(&mut self, name: &TenantName, held: bool, now: Now) {
        let Some(tenant) = self.tenants.get_mut(name) else { return };
        tenant.calls = if held { Calls::Held } else { Calls::Served };
        tenant.asked = tenant.asked && !held;
        self.touch(name, now);
        self.advance(now);
    }

    /// Somebody waits for the tenant's token until `deadline`. Costs nothing while the token is
    /// usable.
    pub fn demand(&mut self, name: &TenantName, deadline: Mono, now: Now) {
        let Some(tenant) = self.tenants.get_mut(name) else { return };
        tenant.demand = Some(Demand::joined(tenant.demand, deadline, now.mono));
        self.touch(name, now);
        self.advance(now);
    }

    /// The upstream did not accept the access token of `version`. Of an older version it is no
    /// news; a token that was refreshed for this reason a moment ago is not refreshed again.
    pub fn rejected(&mut self, name: &TenantName, version: u64, now: Now) {
        let Some(tenant) = self.tenants.get_mut(name) else { return };
        if tenant.serving == Serving::Received && version > tenant.version {
            tenant.serving = Serving::Neither;
            self.touch(name, now);
            return;
        }
        if version != tenant.version || tenant.verdict.is_some() {
            return;
        }
        if let Some(last) = tenant.rejections {
            let doublings = last.failures.saturating_sub(1).min(16);
            let rest = REJECTION_REST
                .saturating_mul(2_u32.saturating_pow(doublings))
                .min(REJECTION_REST_MAX);
            if now.mono.since(last.at) < rest {
                return;
            }
            if now.mono.since(last.at) > rest.saturating_mul(2).max(REJECTION_FORGET) {
                tenant.rejections = None;
            }
        }
        tenant.rejected = true;
        self.touch(name, now);
        self.advance(now);
    }

    /// A call of the tenant left at `at`.
    pub fn used(&mut self, name: &TenantName, at: Unix, now: Now) {
        let Some(tenant) = self.tenants.get_mut(name) else { return };
        tenant.last_used_at = tenant.last_used_at.max(Some(at));
        self.touch(name, now);
        self.advance(now);
    }

    /// An operator wants a refresh; `false` when the tenant is unknown or must be connected again.
    pub fn refresh_now(&mut self, name: &TenantName, now: Now) -> bool {
        let Some(tenant) = self.tenants.get_mut(name) else { return false };
        if tenant.verdict.is_some() {
            return false;
        }
        tenant.asked = true;
        self.touch(name, now);
        self.advance(now);
        true
    }

    /// Begins no further refresh; what is under way is finished and stored.
    pub fn drain(&mut self) {
        self.draining = true;
        for lane in self.lanes.values_mut() {
            lane.errands.clear();
        }
    }

    /// Whether nothing is under way.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.tenants.values().all(|tenant| tenant.step == Step::Rest)
            && self.lanes.values().all(|lane| lane.errand.is_none())
    }

    /// Time has passed; call it at [`TokenKeeper::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Now) {
        self.advance(now);
    }

    /// The next order.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// When [`TokenKeeper::handle_timeout`] is next due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Mono> {
        if self.tenants.is_empty() && self.lanes.values().all(|lane| lane.errands.is_empty()) {
            return None;
        }
        let on_the_wall = |timers: &BTreeSet<(Unix, TenantName)>| {
            let (at, _) = timers.first()?;
            Some(self.last.mono.plus(at.since(self.last.unix).max(TIMER_MIN)))
        };
        let expiry = on_the_wall(&self.expiries);
        let idle = on_the_wall(&self.idles);
        let wake = self.wakes.first().map(|(at, _)| *at);
        let lane =
            if self.draining { None } else { self.lanes.values().filter_map(Lane::due).min() };
        [expiry, idle, wake, lane].into_iter().flatten().chain([self.recheck_at]).min()
    }

    /// What the tenant's readiness is, as last told by [`Command::Changed`].
    #[must_use]
    pub fn readiness(&self, name: &TenantName) -> Option<&Readiness> {
        self.tenants.get(name).and_then(|tenant| tenant.shown.as_ref())
    }

    /// The moments from which the access token should be renewed, and from which it must not be
    /// used.
    #[must_use]
    pub fn usable_until(&self, name: &TenantName) -> Option<(Unix, Unix)> {
        let tenant = self.tenants.get(name)?;
        Some((tenant.usable_until(Margin::Full)?, tenant.usable_until(Margin::Floor)?))
    }

    /// The version of the received tokens whose access token serves though it is not stored.
    #[must_use]
    pub fn serves_unstored(&self, name: &TenantName) -> Option<u64> {
        let tenant = self.tenants.get(name)?;
        (tenant.serving == Serving::Received).then(|| tenant.version.saturating_add(1))
    }

    /// Whether the work of a refresh is under way for the tenant, repeats of store calls included:
    /// so long nobody else may begin one.
    #[must_use]
    pub fn is_at_work(&self, name: &TenantName) -> bool {
        self.tenants.get(name).is_some_and(|tenant| tenant.step != Step::Rest)
    }

    /// Whether a request with the tokens of this version has left, or is about to, and the store is
    /// not known to have its end: whoever finds these tokens must know that they may be spent.
    #[must_use]
    pub fn is_open(&self, name: &TenantName) -> bool {
        let Some(tenant) = self.tenants.get(name) else { return false };
        tenant.doubt != Doubt::Clear
            || match tenant.step {
                Step::Running(op) | Step::Later(op) => op.follows_a_request(),
                Step::Rest => false,
            }
    }

    /// Whether a refresh is under way or due; one that is due only ahead of need, while the token
    /// serves, does not count.
    #[must_use]
    pub fn is_refreshing(&self, name: &TenantName, now: Now) -> bool {
        let Some(tenant) = self.tenants.get(name) else { return false };
        match tenant.rank(now) {
            Some(Rank::Idle { .. }) => !tenant.usable(Margin::Floor, now),
            Some(Rank::Prompt | Rank::Demanded { .. } | Rank::Other { .. }) => true,
            None => tenant.step != Step::Rest,
        }
    }

    /// When the tenant's refresh token dies if it is not used, and whether that is near; `None`
    /// when its age is not known.
    #[must_use]
    pub fn refresh_token_ends(&self, name: &TenantName, now: Now) -> Option<(Unix, bool)> {
        let tenant = self.tenants.get(name)?;
        Some((tenant.refresh_token_ends()?, tenant.is_ageing(now)))
    }

    /// How many tenants of an API key are being refreshed or wait for it, and until when.
    #[must_use]
    pub fn lane(&self, api_key: &ApiKeyName, now: Now) -> LaneOutlook {
        let Some(lane) = self.lanes.get(api_key) else {
            return LaneOutlook { depth: 0, done_at: None };
        };
        let done_in = lane.done_in(now.mono, self.settings.refresh_interval);
        LaneOutlook {
            depth: lane.wanting.len().saturating_add(lane.errands()),
            done_at: done_in.map(|span| now.unix.plus(span)),
        }
    }

    /// The lane of an API key; a new one rests first, since what happened before is not known.
    fn lane_of(&mut self, api_key: &ApiKeyName, now: Now) -> &mut Lane {
        let not_before = now.mono.plus(self.settings.refresh_interval);
        self.lanes.entry(api_key.clone()).or_insert_with(|| Lane::new(false, not_before))
    }

    fn take(&mut self, name: &TenantName) -> Option<Tenant> {
        let tenant = self.tenants.remove(name)?;
        if let Some(lane) = self.lanes.get_mut(&tenant.api_key) {
            lane.tenants.remove(name);
            lane.note(name, false);
            if lane.busy.as_ref() == Some(name) {
                lane.answered(self.last.mono, self.settings.refresh_interval);
            }
        }
        if let Some(at) = tenant.expiry_timer {
            self.expiries.remove(&(at, name.clone()));
        }
        if let Some(at) = tenant.idle_timer {
            self.idles.remove(&(at, name.clone()));
        }
        if let Some(at) = tenant.wake_timer {
            self.wakes.remove(&(at, name.clone()));
        }
        Some(tenant)
    }
}
