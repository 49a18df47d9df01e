//! All that a deployment holds, read and written as it is; and a store that does nothing else.
//!
//! One that is opened for a copy has no journal, hears of no changes and begins no refresh. Whether
//! instances use the deployment is seen by who listens for its changes: each does as long as it
//! runs.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::changes::News;
use super::link::Link;
use super::names::{Names, mark};
use super::settling::SETTLE_TIME;
use super::{RedisStore, Server, clients, counts, durability, grants, opening, scripts};
use crate::config::RedisUrl;
use crate::engine::{ApiKeyName, Day};
use crate::secret::{ClientKeyDigest, KeyRing};
use crate::store::journal::Journal;
use crate::store::{Changed, Client, DAYS_KEPT, Grant, StoreError, USED_BY, WholeStore};

/// What a store that is opened for a copy is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Opening {
    /// Everything is read from it; nobody else may use it.
    Read,
    /// It is looked at: nothing is written, and it may be empty.
    Look {
        /// Whether it may be one that forgets.
        accept_volatile: bool,
    },
    /// Everything is written to it.
    Write {
        /// Whether it may be one that forgets.
        accept_volatile: bool,
    },
}

impl RedisStore {
    /// Connects to the server at `url` for a copy.
    ///
    /// # Errors
    /// As [`RedisStore::open`]; and when instances use what is to be read, or nothing is there.
    pub(in crate::store) async fn open_to_copy(
        url: &RedisUrl,
        keys: KeyRing,
        purpose: Opening,
    ) -> Result<Self, StoreError> {
        let keys = Arc::new(ArcSwap::from_pointee(keys));
        let (link, names) = (Link::open(url).await?, Names::new(&url.prefix));
        let server = Arc::new(Server { link, names, keys: Arc::clone(&keys) });
        let place = url.place();
        match purpose {
            Opening::Read => {
                refuse_if_used(&server, &place).await?;
                if opening::look(&server, &place).await?.is_new() {
                    return Err(StoreError::Unavailable {
                        attempt: opening::ATTEMPT,
                        cause: format!("the server at {place} has none under {}", url.prefix),
                    });
                }
            }
            Opening::Look { accept_volatile } => {
                durability::check(&server.link, &place, accept_volatile).await?;
                opening::look(&server, &place).await?;
            }
            Opening::Write { accept_volatile } => {
                durability::check(&server.link, &place, accept_volatile).await?;
                opening::open(&server, &place).await?;
            }
        }
        let (tasks, closed) = (TaskTracker::new(), CancellationToken::new());
        let news = Arc::new(News::default());
        Ok(Self { server, journal: Journal::none(keys), news, tasks, closed })
    }
}

/// Makes sure that no instance runs, as far as the server tells.
async fn refuse_if_used(server: &Server, place: &str) -> Result<(), StoreError> {
    let mut ask = redis::cmd("PUBSUB");
    ask.arg("NUMSUB").arg(server.names.channel());
    // a server that may not be asked tells nothing
    let counts: Vec<HashMap<String, u64>> =
        server.link.ask_each(opening::ATTEMPT, &ask).await.unwrap_or_default();
    let users: u64 = counts.iter().flat_map(HashMap::values).sum();
    if users == 0 {
        return Ok(());
    }
    Err(StoreError::Unavailable {
        attempt: opening::ATTEMPT,
        cause: format!(
            "what lies on the server at {place} {USED_BY} {users} running instances; stop them"
        ),
    })
}

#[async_trait]
impl WholeStore for RedisStore {
    async fn days(&self, api_key: &ApiKeyName) -> Result<BTreeMap<Day, u64>, StoreError> {
        let server = self.server("read the counts of days")?;
        let mut get = redis::cmd("HGETALL");
        get.arg(server.names.days(api_key));
        let days: BTreeMap<u32, u64> = server.link.ask("read the counts of days", &get).await?;
        Ok(days.into_iter().map(|(day, total)| (Day::new(day), total)).collect())
    }

    async fn raise_days(
        &self,
        api_key: &ApiKeyName,
        days: &BTreeMap<Day, u64>,
    ) -> Result<(), StoreError> {
        let server = self.server("raise the counts of days")?;
        let mut call = scripts::RAISE_DAYS.prepare_invoke();
        call.key(server.names.days(api_key)).arg(DAYS_KEPT).arg(counts::DAYS_SECS);
        for (day, total) in days {
            call.arg(day.number()).arg(*total);
        }
        server.link.run("raise the counts of days", &call).await
    }

    async fn write_grant(&self, grant: &Grant, over: Option<u64>) -> Result<u64, StoreError> {
        let server = self.server("write a grant")?;
        let (names, tenant) = (&server.names, &grant.tenant);
        let mut call = scripts::WRITE_GRANT.prepare_invoke();
        call.key(names.grant(tenant)).key(names.tenants()).key(names.meta());
        call.key(names.revision()).key(names.changes());
        call.arg(tenant.as_str()).arg(mark(&Changed::Tenant(tenant.clone())));
        call.arg(names.channel()).arg(text_of(over)).arg(grant.version);
        for (field, value) in grants::fields(server, grant) {
            call.arg(field).arg(value);
        }
        let version: u64 = server.link.run("write a grant", &call).await?;
        if version == 0 {
            return Err(StoreError::grant_conflict(tenant));
        }
        Ok(version)
    }

    async fn write_client(
        &self,
        client: &Client,
        over: Option<ClientKeyDigest>,
    ) -> Result<(), StoreError> {
        let server = self.server("write a client")?;
        let names = &server.names;
        let mut call = scripts::WRITE_CLIENT.prepare_invoke();
        call.key(names.client(&client.name)).key(names.clients()).key(names.client_keys());
        call.key(names.revision()).key(names.changes());
        call.arg(client.name.as_str()).arg(client.keys.current.as_bytes().as_slice());
        call.arg(mark(&Changed::Client(client.name.clone()))).arg(names.channel());
        call.arg(over.as_ref().map_or(&[][..], |digest| digest.as_bytes().as_slice()));
        for (field, value) in clients::fields(client) {
            call.arg(field).arg(value);
        }
        let answer: String = server.link.run("write a client", &call).await?;
        match answer.as_str() {
            "ok" => Ok(()),
            "other" => Err(StoreError::client_conflict(&client.name)),
            _ => Err(StoreError::client_key_exists()),
        }
    }

    async fn settled(&self) {
        tokio::time::sleep(SETTLE_TIME).await;
    }
}

fn text_of(version: Option<u64>) -> String {
    version.map(|version| version.to_string()).unwrap_or_default()
}
