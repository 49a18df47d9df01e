//! The turnstile of a store that several instances share: who of them may send the next call.
//!
//! One question is one step in the store, on the store's clock. A question that was not answered
//! may have been carried out: a slot that was granted and not heard of is held until it is free by
//! itself, and its call stays counted. What is said and asked is in [`crate::engine::turnstile`].

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::StoreError;
use crate::engine::ApiKeyName;
use crate::engine::turnstile::{Ask, Told, Turn};

/// The port.
#[async_trait]
pub trait SharedTurnstile: Send + Sync + 'static {
    /// Tells and asks.
    async fn ask(&self, api_key: &ApiKeyName, ask: &Ask) -> Result<Told, StoreError>;

    /// Word of whose turn it is, for as long as somebody listens. Word can be lost.
    fn words(&self) -> mpsc::UnboundedReceiver<(ApiKeyName, Turn)>;
}
