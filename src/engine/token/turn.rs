//! One turn of the keeper: what follows from an input, and what has become due.
//!
//! Everything that is derived from a tenant (its place in the lane, its timers, what others were
//! told of it) is renewed in one place, [`TokenKeeper::touch`]; every step of the work is ordered
//! in one place, [`TokenKeeper::start`].

use std::collections::BTreeSet;
use std::time::Duration;

use super::tenant::{Op, Step};
use super::terms::{Alarm, Command, Readiness};
use super::{RECHECK, TokenKeeper};
use crate::engine::{ApiKeyName, Now, TenantName};

/// The wall clock has stepped, or drifted, when it moved this much more or less than the monotonic
/// one since all timers were set by both.
const APART_MAX: Duration = Duration::from_secs(1);

impl TokenKeeper {
    /// Brings everything that is derived from a tenant up to date: lane, timers, what others were
    /// told.
    pub(super) fn touch(&mut self, name: &TenantName, now: Now) {
        let Some(tenant) = self.tenants.get_mut(name) else { return };
        let Some(lane) = self.lanes.get_mut(&tenant.api_key) else { return };
        lane.note(name, tenant.wants(now));
        let readiness = tenant.readiness(lane, now);
        let expiry = match readiness {
            Readiness::Ready => tenant.usable_until(tenant.margin_now(lane)),
            Readiness::Waiting
            | Readiness::Failing { .. }
            | Readiness::NeedsAuthorization { .. } => None,
        };
        set_timer(&mut self.expiries, &mut tenant.expiry_timer, expiry, name);
        let wake = tenant.wake_at();
        set_timer(&mut self.wakes, &mut tenant.wake_timer, wake, name);
        let idle = tenant.idle_change(now);
        set_timer(&mut self.idles, &mut tenant.idle_timer, idle, name);
        let ageing = tenant.is_ageing(now).then_some(now.unix);
        let told = tenant.ageing_told;
        tenant.ageing_told = ageing.and(told.or(ageing));
        if ageing.is_some() && told.is_none() {
            let alarm = Alarm::RefreshTokenAgeing;
            self.commands.push_back(Command::Alarm { tenant: name.clone(), alarm });
        }
        if tenant.shown.as_ref() != Some(&readiness) {
            tenant.shown = Some(readiness.clone());
            self.commands.push_back(Command::Changed { tenant: name.clone(), readiness });
        }
    }

    pub(super) fn touch_lane(&mut self, api_key: &ApiKeyName, now: Now) {
        let names = self.lanes.get(api_key).map(|lane| lane.tenants.clone()).unwrap_or_default();
        for name in &names {
            self.touch(name, now);
        }
    }

    pub(super) fn touch_all(&mut self, now: Now) {
        self.touched = now;
        let names: Vec<TenantName> = self.tenants.keys().cloned().collect();
        for name in &names {
            self.touch(name, now);
        }
    }

    /// Does what has become due; every input ends here.
    pub(super) fn advance(&mut self, now: Now) {
        let expected = self.touched.unix.plus(now.mono.since(self.touched.mono));
        let apart = expected.since(now.unix).max(now.unix.since(expected));
        self.last = now;
        if now.mono >= self.recheck_at {
            self.recheck_at = now.mono.plus(RECHECK);
        }
        if apart > APART_MAX {
            self.touch_all(now);
        }
        while let Some((_, name)) = self.expiries.first().filter(|(at, _)| *at <= now.unix).cloned()
        {
            self.touch(&name, now);
        }
        while let Some((_, name)) = self.idles.first().filter(|(at, _)| *at <= now.unix).cloned() {
            self.touch(&name, now);
        }
        while let Some((_, name)) = self.wakes.first().filter(|(at, _)| *at <= now.mono).cloned() {
            self.wake(&name, now);
        }
        self.pick(now);
    }

    /// Repeats a store operation, or ends the time in which a tenant was left alone.
    fn wake(&mut self, name: &TenantName, now: Now) {
        let Some(tenant) = self.tenants.get_mut(name) else { return };
        match tenant.step {
            Step::Later(op) => self.start(name, op),
            Step::Rest => tenant.hold = None,
            Step::Running(_) => {}
        }
        self.touch(name, now);
    }

    /// Gives each free lane to its most urgent tenant.
    fn pick(&mut self, now: Now) {
        if self.draining {
            return;
        }
        let mut picked = Vec::new();
        for (api_key, lane) in &mut self.lanes {
            if lane.due().is_none_or(|at| at > now.mono) {
                continue;
            }
            let ranks = lane.wanting.iter().filter_map(|name| {
                let rank = self.tenants.get(name)?.rank(now)?;
                Some((rank, name))
            });
            let tenant = ranks.min().map(|(rank, name)| (rank, name.clone()));
            if let Some(id) = lane.take_errand(tenant.as_ref().map(|(rank, _)| *rank)) {
                self.commands.push_back(Command::Errand { api_key: api_key.clone(), id });
                continue;
            }
            match tenant.map(|(_, name)| name) {
                Some(name) => {
                    lane.take(&name, now.mono);
                    picked.push(name);
                }
                None => lane.exhausted = true,
            }
        }
        for name in &picked {
            self.start(name, Op::Begin);
        }
    }

    /// Orders a step of the work.
    pub(super) fn start(&mut self, name: &TenantName, op: Op) {
        let Some(tenant) = self.tenants.get_mut(name) else { return };
        tenant.step = Step::Running(op);
        let (version, tenant_name) = (tenant.version, name.clone());
        let command = match op {
            Op::Begin => Command::Begin { tenant: tenant_name, version },
            Op::Refresh => {
                tenant.attempts = tenant.attempts.saturating_add(1);
                Command::Refresh { tenant: tenant_name, version, attempt: tenant.attempts }
            }
            Op::Persist => Command::Persist { tenant: tenant_name, version },
            Op::Abort => Command::Abort { tenant: tenant_name, version },
            Op::Reread(_) => Command::Reread { tenant: tenant_name, version },
            Op::Fail => {
                let reason = tenant.verdict.clone().unwrap_or_default();
                Command::Fail { tenant: tenant_name, version, reason }
            }
        };
        self.commands.push_back(command);
    }

    pub(super) fn alarm(&mut self, name: &TenantName, alarm: Alarm) {
        self.commands.push_back(Command::Alarm { tenant: name.clone(), alarm });
    }
}

/// Moves a timer of `name` to `at`.
fn set_timer<T: Copy + Ord>(
    timers: &mut BTreeSet<(T, TenantName)>,
    current: &mut Option<T>,
    at: Option<T>,
    name: &TenantName,
) {
    if *current == at {
        return;
    }
    if let Some(old) = current.take() {
        timers.remove(&(old, name.clone()));
    }
    if let Some(new) = at {
        timers.insert((new, name.clone()));
    }
    *current = at;
}
