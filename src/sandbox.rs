//! The sandbox: a strict stand-in for the Constant Contact API and its authorization server, in
//! process.
//!
//! It is a second, independent reading of the upstream's documents and shares no rule with the
//! proxy, so that it can contradict it; it uses the clock, the engine's words for time, and
//! [`Secret`](crate::secret::Secret). What is documented is modelled exactly, down to the bytes of
//! error bodies; what is not is modelled on the strict side. Its log, with the times of arrival, is
//! the judge of every claim about rates, counts and tokens.

mod account;
mod activities;
mod answer;
mod contacts;
mod control;
mod device;
mod fault;
mod grants;
mod limit;
mod log;
mod model;
mod multipart;
mod oauth;
mod options;
mod play;
mod serve;
mod signer;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;

pub use fault::{Fault, FaultKind, Target};
pub use log::{Counts, KeyCounts, LogEntry, TokenCounts, Verdict, fingerprint};
pub use options::{BadOption, Fail, OAuthClient, Options, Window};

use grants::{Freshness, Issued};
use model::Model;
use serve::Shared;

/// A running sandbox; dropping it stops it, [`Sandbox::shutdown`] also waits.
#[derive(Debug)]
pub struct Sandbox {
    local_addr: SocketAddr,
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

/// The tokens of a tenant whose owner has just consented.
#[derive(Clone)]
pub struct IssuedGrant {
    /// What new access tokens are asked for with.
    pub refresh_token: String,
    /// What API calls carry.
    pub access_token: String,
}

impl fmt::Debug for IssuedGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IssuedGrant(***)")
    }
}

impl Sandbox {
    /// Listens and serves until dropped or shut down.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start(options: Options, clock: Clock) -> io::Result<Self> {
        signer::prepare();
        let listener = TcpListener::bind(options.listen).await?;
        let local_addr = listener.local_addr()?;
        let shared = Arc::new(Shared::new(Model::new(options), clock));
        let tasks = TaskTracker::new();
        tasks.spawn(serve::accept(listener, Arc::clone(&shared), tasks.clone()));
        Ok(Self { local_addr, shared, tasks })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Its base URL, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.local_addr)
    }

    /// The URL of its token endpoint.
    #[must_use]
    pub fn token_url(&self) -> String {
        format!("{}{}", self.url(), oauth::TOKEN_PATHS[0])
    }

    /// The URL of its consent page.
    #[must_use]
    pub fn authorize_url(&self) -> String {
        format!("{}{}", self.url(), oauth::AUTHORIZE_PATH)
    }

    /// The URL at which devices ask for codes.
    #[must_use]
    pub fn device_authorize_url(&self) -> String {
        format!("{}{}", self.url(), device::DEVICE_PATH)
    }

    /// The URL of the keys that its access tokens are signed with.
    #[must_use]
    pub fn keys_url(&self) -> String {
        format!("{}{}", self.url(), oauth::KEYS_PATH)
    }

    /// Connects a tenant, as if the account's owner had just consented.
    #[must_use]
    pub fn connect_tenant(&self, client_id: &str, account: &str) -> IssuedGrant {
        self.connect(client_id, account, Freshness::Fresh)
    }

    /// Connects a tenant whose access token has ended a minute ago.
    #[must_use]
    pub fn connect_expired_tenant(&self, client_id: &str, account: &str) -> IssuedGrant {
        self.connect(client_id, account, Freshness::Expired)
    }

    fn connect(&self, client_id: &str, account: &str, freshness: Freshness) -> IssuedGrant {
        let now = self.shared.now();
        let Issued { access_token, refresh_token, .. } =
            self.shared.model().connect(now, client_id, account, freshness);
        let refresh_token = refresh_token.expect("a connected tenant has the scope offline_access");
        IssuedGrant { refresh_token, access_token }
    }

    /// Kills every grant of an account with all of its tokens, as its owner can.
    pub fn revoke(&self, account: &str) {
        self.shared.model().revoke(account);
    }

    /// Sets a fault for the next calls.
    ///
    /// # Panics
    /// When the fault's status is not one that can be sent.
    pub fn add_fault(&self, fault: Fault) {
        self.shared.model().add_fault(fault).expect("the fault can be played");
    }

    /// Forgets the faults still to come.
    pub fn clear_faults(&self) {
        self.shared.model().clear_faults();
    }

    /// Every request since the last reset, in order of arrival.
    #[must_use]
    pub fn log(&self) -> Vec<LogEntry> {
        self.shared.model().log_since(0)
    }

    /// The requests from number `since` on.
    #[must_use]
    pub fn log_since(&self, since: usize) -> Vec<LogEntry> {
        self.shared.model().log_since(since)
    }

    /// The totals since the last reset.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.model().counts()
    }

    /// Forgets the log and all counts, those of the limits included; tokens, accounts and faults
    /// stay.
    pub fn reset(&self) {
        self.shared.model().reset();
    }

    /// Stops listening, lets answers under way finish for a second, and waits until nothing runs
    /// any more.
    pub async fn shutdown(self) {
        self.shared.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}
