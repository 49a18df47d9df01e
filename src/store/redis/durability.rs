//! Whether the server keeps what it is given.
//!
//! A refresh token works once: a server that forgets the newest one has cost a customer's
//! connection. So a server without an append-only file, or one that drops keys when its memory is
//! full, is refused unless the operator accepts it. What the server does not tell (managed ones
//! forbid `CONFIG`) is not held against it.

use std::collections::HashMap;

use tracing::{info, warn};

use super::link::Link;
use crate::store::StoreError;

const ATTEMPT: &str = "trust the Redis server with tokens";

/// Refuses a server that would forget grants.
pub(super) async fn check(
    link: &Link,
    place: &str,
    accept_volatile: bool,
) -> Result<(), StoreError> {
    let persistence = info(link, ATTEMPT, "persistence").await?;
    let memory = info(link, ATTEMPT, "memory").await?;
    let of = |facts: &HashMap<String, String>, name: &str| facts.get(name).cloned();
    let mut faults = Vec::new();
    if of(&persistence, "aof_enabled").as_deref() != Some("1") {
        faults.push(
            "it keeps no append-only file, so that a restart loses the newest tokens; set \
             `appendonly yes` and `appendfsync everysec` (or always)"
                .to_owned(),
        );
    }
    let policy = of(&memory, "maxmemory_policy").unwrap_or_default();
    if policy.starts_with("allkeys-") {
        faults.push(format!(
            "its maxmemory-policy {policy} may drop grants when its memory is full; set \
             `maxmemory-policy noeviction`"
        ));
    }
    if policy.starts_with("volatile-") && of(&memory, "maxmemory").as_deref() != Some("0") {
        info!(
            policy,
            "the Redis server may drop counts of the day when its memory is full, but no grants"
        );
    }
    if fsync(link).await.as_deref() == Some("no") {
        warn!(
            "the Redis server has `appendfsync no`: a power cut there loses tokens of up to half a \
             minute; set it to everysec or always"
        );
    }
    if faults.is_empty() {
        return Ok(());
    }
    let cause = format!("{place}: {}", faults.join("; and "));
    if accept_volatile {
        warn!("the Redis server forgets, which --accept-volatile-store accepts: {cause}");
        return Ok(());
    }
    let cause = format!("{cause}. Or start with --accept-volatile-store");
    Err(StoreError::Unavailable { attempt: ATTEMPT, cause })
}

/// A section of what the server says about itself.
pub(super) async fn info(
    link: &Link,
    attempt: &'static str,
    section: &str,
) -> Result<HashMap<String, String>, StoreError> {
    let text: String = link.ask(attempt, redis::cmd("INFO").arg(section)).await?;
    let pairs = text.lines().filter_map(|line| line.trim_end().split_once(':'));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// When the server syncs its file; `None` when it may not be asked.
async fn fsync(link: &Link) -> Option<String> {
    let mut get = redis::cmd("CONFIG");
    get.arg("GET").arg("appendfsync");
    let mut answer: HashMap<String, String> = link.ask(ATTEMPT, &get).await.ok()?;
    answer.remove("appendfsync")
}
