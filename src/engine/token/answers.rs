//! What the keeper does with answers: of the journal, of the token endpoint, of the store.
//!
//! Each answer names the tenant and the version that it is about; one that fits no step under way
//! is passed over. The order kept here is the promise of the whole: intent, request, store, use.

use std::time::Duration;

use super::lane::{Lane, backoff};
use super::tenant::{Doubt, Hold, Later, Op, Reread, Serving, Step, Tenant};
use super::terms::{Alarm, Cause, Known, Read, RefreshResult, Trouble, Write};
use super::{TokenKeeper, verdict};
use crate::engine::{ApiKeyName, Now, TenantName};

/// After two lost answers the tenant is left alone for so long, the longest back-off there is: any
/// request that is still under way at the upstream, and any grace period for a rotated token, is
/// over by then, so the next answer is decisive.
const LOST_HOLD: Duration = Duration::from_mins(1);
/// A tenant whose grant is damaged is left alone for so long: a backup may be put in its place.
const DAMAGED_HOLD: Duration = Duration::from_mins(1);
/// A tenant whose new token is useless is left alone for so long.
const USELESS_HOLD: Duration = Duration::from_secs(30);
/// Failures of the store, at one a second, from alarm to alarm.
const ALARM_EVERY: u32 = 64;
/// A new token with less life than this is of no use.
const LIFE_MIN: Duration = Duration::from_secs(2);

impl TokenKeeper {
    /// The answer to [`super::Command::Begin`].
    pub fn begun(&mut self, name: &TenantName, version: u64, write: Write, now: Now) {
        let Some(api_key) = self.running(name, version, Op::Begin) else { return };
        let configured = self.lanes.get(&api_key).is_some_and(|lane| lane.configured);
        match write {
            Write::Done(()) if configured && !self.draining => self.start(name, Op::Refresh),
            Write::Done(()) => {
                self.free_lane(&api_key);
                self.take_back(name);
            }
            Write::Failed => {
                self.rest(name);
                self.free_lane(&api_key);
                self.fail_lane(&api_key, Cause::Store, now);
                self.alarm(name, Alarm::IntentNotStored);
            }
            Write::Conflict => {
                self.free_lane(&api_key);
                self.start(name, Op::Reread(Reread::BeginConflict));
            }
        }
        self.finish(name, &api_key, now);
    }

    /// The answer to [`super::Command::Begin`] when another instance has the lane: nothing was
    /// journalled, and after `retry` whoever is most urgent then has its turn. No trouble of the
    /// lane: somebody works.
    pub fn occupied(&mut self, name: &TenantName, version: u64, retry: Duration, now: Now) {
        let Some(api_key) = self.running(name, version, Op::Begin) else { return };
        self.rest(name);
        if let Some(lane) = self.lanes.get_mut(&api_key) {
            lane.occupied(retry, now.mono);
        }
        self.finish(name, &api_key, now);
    }

    /// The answer to [`super::Command::Begin`] when the grant in the store is damaged: nothing was
    /// journalled, and the others of the lane have their turn. Somebody must look at this one.
    pub fn damaged(&mut self, name: &TenantName, version: u64, now: Now) {
        let Some(api_key) = self.running(name, version, Op::Begin) else { return };
        self.rest(name);
        self.free_lane(&api_key);
        if let Some(tenant) = self.tenants.get_mut(name) {
            tenant.troubles = tenant.troubles.saturating_add(1);
            tenant.asked = false;
            let until = now.mono.plus(DAMAGED_HOLD);
            tenant.hold = Some(Hold { until, cause: Cause::Store });
        }
        self.alarm(name, Alarm::GrantNotRead);
        self.finish(name, &api_key, now);
    }

    /// An instance that had the lane before began a refresh of this version and has not ended it:
    /// whether the token is spent is unknown, as after a crash of our own. Said before
    /// [`TokenKeeper::begun`].
    pub fn left_open(&mut self, name: &TenantName, version: u64) {
        if self.running(name, version, Op::Begin).is_some()
            && let Some(tenant) = self.tenants.get_mut(name)
            && matches!(tenant.doubt, Doubt::Clear | Doubt::Unclear(_))
        {
            tenant.doubt = Doubt::Stopped { lost: 0 };
        }
    }

    /// The answer to [`super::Command::Refresh`].
    pub fn refreshed(&mut self, name: &TenantName, version: u64, result: RefreshResult, now: Now) {
        let Some(api_key) = self.running(name, version, Op::Refresh) else { return };
        let interval = self.settings.refresh_interval;
        let Some(lane) = self.lanes.get_mut(&api_key) else { return };
        if result == RefreshResult::LaneLost {
            lane.occupied(interval, now.mono);
        } else {
            lane.answered(now.mono, interval);
        }
        match result {
            RefreshResult::Received { access_expires_at } => {
                lane.heal();
                if let Some(tenant) = self.tenants.get_mut(name) {
                    tenant.received = access_expires_at;
                }
                self.start(name, Op::Persist);
            }
            RefreshResult::InvalidGrant => {
                lane.heal();
                self.start(name, Op::Reread(Reread::Refused));
            }
            RefreshResult::InvalidClient => {
                self.fail_lane(&api_key, Cause::ClientRefused, now);
                self.alarm(name, Alarm::ClientRefused);
                self.not_spent(name);
            }
            RefreshResult::NotSent => {
                self.fail_lane(&api_key, Cause::Unreachable, now);
                self.not_spent(name);
            }
            RefreshResult::NotJournalled => {
                self.fail_lane(&api_key, Cause::Store, now);
                self.alarm(name, Alarm::IntentNotStored);
                self.not_spent(name);
            }
            RefreshResult::LaneLost => self.take_back(name),
            RefreshResult::Trouble(trouble) => {
                self.fail_lane(&api_key, Cause::Endpoint(trouble), now);
                self.troubled(name, trouble);
            }
            RefreshResult::Lost => {
                self.fail_lane(&api_key, Cause::AnswerLost, now);
                self.lost(name, &api_key, now);
            }
        }
        self.finish(name, &api_key, now);
    }

    /// The answer to [`super::Command::Persist`]: the new version, when it is durable.
    pub fn persisted(&mut self, name: &TenantName, version: u64, write: Write<u64>, now: Now) {
        let Some(api_key) = self.running(name, version, Op::Persist) else { return };
        match write {
            Write::Done(new) => self.renew(name, new, now),
            Write::Failed => self.unstored(name, now),
            Write::Conflict => self.start(name, Op::Reread(Reread::PersistConflict)),
        }
        self.finish(name, &api_key, now);
    }

    /// The answer to [`super::Command::Abort`]. Whatever it is: an intent that stays costs one
    /// needless refresh after a restart, nothing more.
    pub fn aborted(&mut self, name: &TenantName, version: u64, _write: Write, now: Now) {
        let Some(api_key) = self.running(name, version, Op::Abort) else { return };
        self.rest(name);
        self.finish(name, &api_key, now);
    }

    /// The answer to [`super::Command::Fail`].
    pub fn failed(&mut self, name: &TenantName, version: u64, write: Write, now: Now) {
        let Some(api_key) = self.running(name, version, Op::Fail) else { return };
        match write {
            Write::Done(()) => self.rest(name),
            Write::Failed => {
                self.later(name, Op::Fail, Alarm::VerdictNotStored, now);
            }
            Write::Conflict => self.start(name, Op::Reread(Reread::FailConflict)),
        }
        self.finish(name, &api_key, now);
    }

    /// The answer to [`super::Command::Reread`].
    pub fn reread(&mut self, name: &TenantName, version: u64, read: Read, now: Now) {
        let Some(tenant) = self.tenants.get(name) else { return };
        let Step::Running(Op::Reread(why)) = tenant.step else { return };
        if tenant.version != version {
            return;
        }
        let api_key = tenant.api_key.clone();
        match read {
            Read::Found(known) if known.version > version => self.put(name, known, now),
            Read::Found(known) => self.found_unchanged(name, why, known, now),
            Read::Gone => {
                self.take(name);
                self.commands.push_back(super::Command::Forget { tenant: name.clone() });
            }
            Read::Failed => {
                self.later(name, Op::Reread(why), Alarm::GrantNotRead, now);
            }
        }
        self.finish(name, &api_key, now);
    }

    /// Nobody has written newer tokens.
    fn found_unchanged(&mut self, name: &TenantName, why: Reread, known: Known, now: Now) {
        let Some(tenant) = self.tenants.get_mut(name) else { return };
        let api_key = tenant.api_key.clone();
        match why {
            Reread::Refused => {
                let reason = known
                    .needs_authorization
                    .unwrap_or_else(|| verdict::reason(tenant.doubt, tenant.last_refreshed_at));
                tenant.verdict = Some(reason);
                self.start(name, Op::Fail);
            }
            Reread::BeginConflict => {
                // The grant may have been condemned by somebody else; that is adopted too.
                tenant.verdict = known.needs_authorization;
                self.rest(name);
                self.fail_lane(&api_key, Cause::Store, now);
                self.alarm(name, Alarm::IntentNotStored);
            }
            // It was lost meanwhile and is there again, with a token that is spent: at once. If
            // that does not help either, the store is in trouble.
            Reread::PersistConflict if tenant.store_trouble.is_none() => {
                tenant.store_trouble = Some(Later { failures: 0, at: now.mono });
                self.start(name, Op::Persist);
            }
            Reread::PersistConflict => self.unstored(name, now),
            Reread::FailConflict => {
                self.later(name, Op::Fail, Alarm::VerdictNotStored, now);
            }
        }
    }

    /// The store did not take new tokens. The access token that they replace may be void, so the
    /// new one serves; holding it back would help nobody.
    fn unstored(&mut self, name: &TenantName, now: Now) {
        if let Some(tenant) = self.tenants.get_mut(name)
            && tenant.serving == Serving::Stored
        {
            tenant.serving = Serving::Received;
        }
        self.later(name, Op::Persist, Alarm::TokensNotStored, now);
    }

    /// New tokens are durable.
    fn renew(&mut self, name: &TenantName, version: u64, now: Now) {
        let settings = self.settings;
        let Some(tenant) = self.tenants.get_mut(name) else { return };
        let expires_at = tenant.received.take();
        let useless = expires_at.unwrap_or_default().since(now.unix) < LIFE_MIN;
        let hold_end = now.mono.plus(USELESS_HOLD);
        let rejections = tenant.rejected.then(|| Later {
            failures: tenant.rejections.map_or(0, |last| last.failures).saturating_add(1),
            at: now.mono,
        });
        let known = Known {
            api_key: tenant.api_key.clone(),
            version,
            access_expires_at: expires_at,
            last_refreshed_at: Some(now.unix),
            last_used_at: tenant.last_used_at,
            refresh_begun: false,
            unstored: None,
            needs_authorization: None,
        };
        let mut renewed = Tenant::new(name, known, &settings);
        // a timer that was forgotten would go off for ever
        (renewed.wake_timer, renewed.idle_timer) = (tenant.wake_timer, tenant.idle_timer);
        renewed.calls = tenant.calls;
        *tenant = Tenant {
            rejected: tenant.serving == Serving::Neither,
            rejections: rejections.or(tenant.rejections),
            demand: tenant.demand.filter(|demand| useless && demand.live(hold_end).is_some()),
            hold: useless.then_some(Hold { until: hold_end, cause: Cause::UselessToken }),
            shown: tenant.shown.take(),
            expiry_timer: tenant.expiry_timer,
            ..renewed
        };
        if useless {
            self.alarm(name, Alarm::UselessToken);
        }
    }

    /// The endpoint certainly did not rotate the token with this request.
    fn not_spent(&mut self, name: &TenantName) {
        let Some(tenant) = self.tenants.get_mut(name) else { return };
        tenant.troubles = tenant.troubles.saturating_add(1);
        if let Doubt::Lost { prompt, .. } = &mut tenant.doubt {
            *prompt = false;
        }
        self.take_back(name);
    }

    /// Takes the intent back, unless an earlier request with the same token is still in doubt.
    fn take_back(&mut self, name: &TenantName) {
        let Some(tenant) = self.tenants.get(name) else { return };
        match tenant.doubt {
            Doubt::Clear => self.start(name, Op::Abort),
            Doubt::Unclear(_) | Doubt::Lost { .. } | Doubt::Stopped { .. } => self.rest(name),
        }
    }

    fn troubled(&mut self, name: &TenantName, trouble: Trouble) {
        let Some(tenant) = self.tenants.get_mut(name) else { return };
        if trouble.may_have_rotated() && tenant.doubt == Doubt::Clear {
            tenant.doubt = Doubt::Unclear(trouble);
        }
        self.not_spent(name);
        if trouble == Trouble::NotTokens {
            self.alarm(name, Alarm::NotTokens);
        }
    }

    /// An answer was lost: one repeat, then rest.
    fn lost(&mut self, name: &TenantName, api_key: &ApiKeyName, now: Now) {
        let Some(tenant) = self.tenants.get_mut(name) else { return };
        tenant.troubles = tenant.troubles.saturating_add(1);
        tenant.asked = false;
        tenant.doubt = match tenant.doubt {
            Doubt::Clear | Doubt::Unclear(_) => Doubt::Lost { times: 1, prompt: true },
            Doubt::Lost { times, .. } => {
                Doubt::Lost { times: times.saturating_add(1), prompt: false }
            }
            Doubt::Stopped { lost } => Doubt::Stopped { lost: lost.saturating_add(1) },
        };
        let alarm = match tenant.doubt {
            Doubt::Lost { prompt: true, .. } => {
                if let Some(lane) = self.lanes.get_mut(api_key) {
                    lane.hurry(now.mono);
                }
                Alarm::AnswerLost
            }
            Doubt::Clear | Doubt::Unclear(_) | Doubt::Lost { .. } | Doubt::Stopped { .. } => {
                tenant.hold =
                    Some(Hold { until: now.mono.plus(LOST_HOLD), cause: Cause::AnswerLost });
                Alarm::AnswerLostAgain
            }
        };
        self.rest(name);
        self.alarm(name, alarm);
    }

    /// The API key of a tenant for which `op` runs with `version`.
    fn running(&self, name: &TenantName, version: u64, op: Op) -> Option<ApiKeyName> {
        let tenant = self.tenants.get(name)?;
        let fits = tenant.step == Step::Running(op) && tenant.version == version;
        fits.then(|| tenant.api_key.clone())
    }

    fn rest(&mut self, name: &TenantName) {
        if let Some(tenant) = self.tenants.get_mut(name) {
            tenant.step = Step::Rest;
            tenant.store_trouble = None;
        }
    }

    /// The store failed: it is asked again within a second, however often that was done. What waits
    /// is known here alone, and others must not be first when the store is back. The alarm comes
    /// less and less often, and then once a minute.
    fn later(&mut self, name: &TenantName, op: Op, alarm: Alarm, now: Now) {
        let Some(tenant) = self.tenants.get_mut(name) else { return };
        let failures = tenant.store_trouble.map_or(0, |later| later.failures).saturating_add(1);
        let at = now.mono.plus(backoff(1, &mut self.chance));
        tenant.store_trouble = Some(Later { failures, at });
        tenant.step = Step::Later(op);
        if failures.is_power_of_two() || failures.is_multiple_of(ALARM_EVERY) {
            self.alarm(name, alarm);
        }
    }

    fn free_lane(&mut self, api_key: &ApiKeyName) {
        if let Some(lane) = self.lanes.get_mut(api_key) {
            lane.release();
        }
    }

    fn fail_lane(&mut self, api_key: &ApiKeyName, cause: Cause, now: Now) {
        if let Some(lane) = self.lanes.get_mut(api_key) {
            lane.fail(cause, now.mono, &mut self.chance);
        }
    }

    /// A changed lane can change the readiness of all its tenants.
    fn finish(&mut self, name: &TenantName, api_key: &ApiKeyName, now: Now) {
        self.touch(name, now);
        if self.lanes.get_mut(api_key).is_some_and(Lane::take_stale) {
            self.touch_lane(api_key, now);
        }
        self.advance(now);
    }
}
