//! How keys are named.
//!
//! All of custody has one hash tag and all that counts for an API key another, so that a script
//! finds its keys on one node of a cluster. Names of tenants, clients and API keys hold no braces
//! (`engine::ids`), nor does the prefix (`config::store`).

use crate::engine::{ApiKeyName, ClientName, TenantName};
use crate::store::Changed;

/// The names of one deployment, which differ from another's by their prefix.
#[derive(Clone, Debug)]
pub(in crate::store) struct Names {
    prefix: String,
}

impl Names {
    pub(in crate::store) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// What belongs to the deployment: the check of the encryption key, the form of the data, the
    /// highest version of a removed grant.
    pub(super) fn meta(&self) -> String {
        self.custody("meta")
    }

    /// The number of the newest change, and of the newest that is not kept.
    pub(super) fn revision(&self) -> String {
        self.custody("revision")
    }

    /// What was changed last, by its revision.
    pub(super) fn changes(&self) -> String {
        self.custody("changes")
    }

    /// The names of all tenants with a grant, in order.
    pub(super) fn tenants(&self) -> String {
        self.custody("tenants")
    }

    pub(super) fn grant(&self, tenant: &TenantName) -> String {
        self.custody(&format!("grant:{tenant}"))
    }

    /// The names of all clients, in order.
    pub(super) fn clients(&self) -> String {
        self.custody("clients")
    }

    pub(super) fn client(&self, name: &ClientName) -> String {
        self.custody(&format!("client:{name}"))
    }

    /// Whose key has a digest.
    pub(super) fn client_keys(&self) -> String {
        self.custody("client-keys")
    }

    /// The API keys that are held.
    pub(super) fn paused(&self) -> String {
        self.custody("paused")
    }

    /// Authorizations by their state; their states in the order in which they were begun, by the
    /// moment at which they are late, and by their tenant.
    pub(super) fn authorizations(&self) -> [String; 4] {
        ["", "-order", "-late", "-tenants"].map(|of| self.custody(&format!("authorizations{of}")))
    }

    /// The days that an API key has counted.
    pub(super) fn days(&self, api_key: &ApiKeyName) -> String {
        self.counting(api_key, "days")
    }

    /// The token lane of an API key.
    pub(super) fn lane(&self, api_key: &ApiKeyName) -> String {
        self.counting(api_key, "lane")
    }

    /// Something that counts for an API key.
    pub(in crate::store) fn counting(&self, api_key: &ApiKeyName, of: &str) -> String {
        format!("{}{{{api_key}}}:{of}", self.prefix)
    }

    /// Where new revisions are published.
    pub(super) fn channel(&self) -> String {
        format!("{}changes", self.prefix)
    }

    /// What is written to wait until the server's disk has it.
    pub(super) fn synced(&self) -> String {
        format!("{}synced", self.prefix)
    }

    /// Where it is published whose turn it is.
    pub(super) fn turns(&self) -> String {
        format!("{}turns", self.prefix)
    }

    /// The roll of instances, and what tells one history of it from another.
    pub(super) fn roll(&self) -> [String; 2] {
        ["roll", "epoch"].map(|of| format!("{}{{instances}}:{of}", self.prefix))
    }

    fn custody(&self, of: &str) -> String {
        format!("{}{{custody}}:{of}", self.prefix)
    }
}

/// How a change is written down.
pub(super) fn mark(changed: &Changed) -> String {
    match changed {
        Changed::Tenant(name) => format!("t:{name}"),
        Changed::Client(name) => format!("c:{name}"),
        Changed::ApiKey(name) => format!("k:{name}"),
    }
}

/// What was written down; `None` when it is nothing that this version writes.
pub(super) fn read_mark(text: &str) -> Option<Changed> {
    let (kind, name) = text.split_once(':')?;
    match kind {
        "t" => name.parse().ok().map(Changed::Tenant),
        "c" => name.parse().ok().map(Changed::Client),
        "k" => name.parse().ok().map(Changed::ApiKey),
        _ => None,
    }
}
