//! What a store does beside [`Store`] when all that it holds is taken to another one.
//!
//! Things are read and written as they are: a grant with its begun refresh, its state and its last
//! use. Each is written whole or not at all, durable as everything else is, and over nothing but
//! what the caller says is there. Versions are the store's own: what is written has one that is at
//! least that of the grant, and above all that the tenant ever had in this store.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::{Client, Grant, Store, StoreError};
use crate::engine::{ApiKeyName, Day};
use crate::secret::ClientKeyDigest;

/// The port.
#[async_trait]
pub trait WholeStore: Store {
    /// The days of `api_key` that are remembered, and the calls that were counted in each.
    async fn days(&self, api_key: &ApiKeyName) -> Result<BTreeMap<Day, u64>, StoreError>;

    /// Raises the counts of days to those of `days`; none goes down, and the newest four are kept.
    async fn raise_days(
        &self,
        api_key: &ApiKeyName,
        days: &BTreeMap<Day, u64>,
    ) -> Result<(), StoreError>;

    /// Writes a grant over the one of version `over`, or where there is none, and returns its
    /// version; [`StoreError::Conflict`] when something else is there.
    async fn write_grant(&self, grant: &Grant, over: Option<u64>) -> Result<u64, StoreError>;

    /// Writes a client over the one of that name whose key is `over`, or where there is none;
    /// [`StoreError::Conflict`] when something else is there, [`StoreError::Exists`] when its key
    /// is another client's.
    async fn write_client(
        &self,
        client: &Client,
        over: Option<ClientKeyDigest>,
    ) -> Result<(), StoreError>;

    /// Returns when all that was written is as durable as the store makes anything.
    async fn settled(&self) {}
}
