//! What this instance says of itself to others that share its store.
//!
//! Its name is where it listens, on which host: nobody else can listen there, so that a process of
//! the same name that is not heard of any more is surely dead.

use std::net::SocketAddr;

use serde_json::json;

use super::VERSION;
use crate::clock::Clock;
use crate::gate::Birth;
use crate::store::InstanceInfo;
use crate::telemetry::events::rfc3339;

/// The instance that listens at these addresses.
pub(super) fn info(data: SocketAddr, admin: SocketAddr, clock: &Clock) -> InstanceInfo {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let host = host.replace(|c: char| c.is_control() || c.is_whitespace(), "_");
    let details = json!({
        "host": host,
        "listen": data.to_string(),
        "admin_listen": admin.to_string(),
        "version": VERSION,
        "started_at": rfc3339(clock.now().unix),
        "birth": Birth::own(),
    });
    InstanceInfo {
        id: format!("{:016x}", super::parts::seed()),
        name: format!("{host}/{data}"),
        details: details.to_string(),
    }
}
