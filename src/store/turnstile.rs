//! The turnstile of a store that several instances share: who of them may send the next call.
//!
//! One question is one step in the store, on the store's clock. A question that was not answered
//! may have been carried out: a slot that was granted and not heard of is held until it is free by
//! itself, and its call stays counted. What is said and asked is in [`crate::engine::turnstile`].

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::StoreError;
use crate::engine::ApiKeyName;
use crate::engine::turnstile::{Ask, Beat, Roll, Told, Turn};

/// An instance, as the others see it. No text holds a control character or a space.
#[derive(Clone, Debug)]
pub struct InstanceInfo {
    /// Tells this process from all others.
    pub id: String,
    /// Where it listens, on which host: a later process of the same name has its place.
    pub name: String,
    /// What operators may want to know of it, as JSON.
    pub details: String,
}

/// The port.
#[async_trait]
pub trait SharedTurnstile: Send + Sync + 'static {
    /// Tells and asks.
    async fn ask(&self, api_key: &ApiKeyName, ask: &Ask) -> Result<Told, StoreError>;

    /// Says that this instance is there, and reads the roll.
    async fn beat(&self, beat: &Beat) -> Result<Roll, StoreError>;

    /// Passes on word of whose turn it is, for as long as somebody hears it. Word can be lost.
    async fn listen(&self, told: mpsc::UnboundedSender<(ApiKeyName, Turn)>);
}
