//! Consents that were asked for, in the order in which they were begun, as many as are kept.

use std::collections::VecDeque;

use crate::engine::Unix;
use crate::store::{AUTHORIZATIONS_KEPT, AUTHORIZATIONS_KEPT_PER_TENANT, Authorization};

/// Remembers one, and forgets those that are too late or too many.
pub(super) fn begin(begun: &mut VecDeque<Authorization>, new: Authorization, now: Unix) {
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
