//! All that a store in memory holds, read and written as it is.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::MemoryStore;
use crate::engine::{ApiKeyName, Day};
use crate::secret::ClientKeyDigest;
use crate::store::{Changed, Client, DAYS_KEPT, Grant, StoreError, WholeStore};

#[async_trait]
impl WholeStore for MemoryStore {
    async fn days(&self, api_key: &ApiKeyName) -> Result<BTreeMap<Day, u64>, StoreError> {
        let state = self.state("read the counts of days")?;
        Ok(state.days.get(api_key).cloned().unwrap_or_default())
    }

    async fn raise_days(
        &self,
        api_key: &ApiKeyName,
        days: &BTreeMap<Day, u64>,
    ) -> Result<(), StoreError> {
        let mut state = self.state("raise the counts of days")?;
        let there = state.days.entry(api_key.clone()).or_default();
        for (day, total) in days {
            let counted = there.entry(*day).or_default();
            *counted = (*counted).max(*total);
        }
        while there.len() > DAYS_KEPT {
            there.pop_first();
        }
        Ok(())
    }

    async fn write_grant(&self, grant: &Grant, over: Option<u64>) -> Result<u64, StoreError> {
        let mut state = self.state("write a grant")?;
        let current = state.grants.get(&grant.tenant).map(|there| there.version);
        if current != over {
            return Err(StoreError::grant_conflict(&grant.tenant));
        }
        let used = current.unwrap_or(state.version_floor);
        let version = grant.version.max(used + 1);
        state.grants.insert(grant.tenant.clone(), Grant { version, ..grant.clone() });
        self.note(&mut state, Changed::Tenant(grant.tenant.clone()));
        Ok(version)
    }

    async fn write_client(
        &self,
        client: &Client,
        over: Option<ClientKeyDigest>,
    ) -> Result<(), StoreError> {
        let mut state = self.state("write a client")?;
        if state.clients.get(&client.name).map(|there| there.keys.current) != over {
            return Err(StoreError::client_conflict(&client.name));
        }
        let is_taken =
            |there: &Client| there.name != client.name && there.keys.current == client.keys.current;
        if state.clients.values().any(is_taken) {
            return Err(StoreError::client_key_exists());
        }
        state.clients.insert(client.name.clone(), client.clone());
        self.note(&mut state, Changed::Client(client.name.clone()));
        Ok(())
    }
}
