//! Authorizations under way: few, in the order in which they were begun, each taken once.
//!
//! Those that are late go when another begins; of too many the oldest goes, of the tenant's first.

use super::State;
use crate::engine::Unix;
use crate::secret::StateDigest;
use crate::store::{AUTHORIZATIONS_KEPT, AUTHORIZATIONS_KEPT_PER_TENANT, Authorization};

impl State {
    pub(super) fn begin_authorization(&mut self, new: Authorization, now: Unix) {
        let begun = &mut self.authorizations;
        begun.retain(|begun| begun.expires_at > now && begun.state != new.state);
        let of_tenant = |begun: &&Authorization| begun.tenant == new.tenant;
        if begun.iter().filter(of_tenant).count() >= AUTHORIZATIONS_KEPT_PER_TENANT
            && let Some(oldest) = begun.iter().position(|begun| begun.tenant == new.tenant)
        {
            begun.remove(oldest);
        }
        begun.push_back(new);
        while begun.len() > AUTHORIZATIONS_KEPT {
            begun.pop_front();
        }
    }

    pub(super) fn take_authorization(&mut self, state: &StateDigest) -> Option<Authorization> {
        let at = self.authorizations.iter().position(|begun| begun.state == *state)?;
        self.authorizations.remove(at)
    }
}
