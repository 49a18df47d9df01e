//! Whether the server keeps what it is given.
//!
//! A refresh token works once: a server that forgets the newest one has cost a customer's
//! connection. So a server without an append-only file, or one that drops keys when its memory is
//! full, is refused unless the operator accepts it. What the server does not tell (managed ones
//! forbid `CONFIG`) is not held against it.

use std::collections::HashMap;

use tracing::warn;

use super::link::Link;
use crate::store::StoreError;

const ATTEMPT: &str = "trust the Redis server with tokens";

/// Refuses a server that would forget grants, or a cluster with a node that would.
pub(super) async fn check(
    link: &Link,
    place: &str,
    accept_volatile: bool,
) -> Result<(), StoreError> {
    let persistence = info(link, "persistence").await?;
    let memory = info(link, "memory").await?;
    let mut faults = Vec::new();
    if persistence.iter().any(|node| of(node, "aof_enabled") != "1") {
        faults.push(
            "it keeps no append-only file, so that a restart loses the newest tokens; set \
             `appendonly yes` and `appendfsync everysec` (or always)"
                .to_owned(),
        );
    }
    let policies = memory.iter().map(|node| of(node, "maxmemory_policy"));
    if let Some(policy) = policies.clone().find(|policy| policy.starts_with("allkeys-")) {
        faults.push(format!(
            "its maxmemory-policy {policy} may drop grants when its memory is full; set \
             `maxmemory-policy noeviction`"
        ));
    }
    let is_limited = |node: &&Facts| of(node, "maxmemory") != "0";
    let drops_counts =
        |node: &&Facts| of(node, "maxmemory_policy").starts_with("volatile-") && is_limited(node);
    if let Some(node) = memory.iter().find(drops_counts) {
        faults.push(format!(
            "its maxmemory-policy {} may drop the counts and slots that keep the limits when its \
             memory is full; set `maxmemory-policy noeviction`",
            of(node, "maxmemory_policy")
        ));
    }
    if fsyncs(link).await.iter().any(|when| when == "no") {
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

/// What a server says about itself.
type Facts = HashMap<String, String>;

fn of<'a>(facts: &'a Facts, name: &str) -> &'a str {
    facts.get(name).map(String::as_str).unwrap_or_default()
}

/// A section of what each node says about itself.
async fn info(link: &Link, section: &str) -> Result<Vec<Facts>, StoreError> {
    let texts: Vec<String> = link.ask_each(ATTEMPT, redis::cmd("INFO").arg(section)).await?;
    let facts = |text: String| {
        let pairs = text.lines().filter_map(|line| line.trim_end().split_once(':'));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    Ok(texts.into_iter().map(facts).collect())
}

/// When each node syncs its file; none when they may not be asked.
async fn fsyncs(link: &Link) -> Vec<String> {
    let mut get = redis::cmd("CONFIG");
    get.arg("GET").arg("appendfsync");
    let answers: Vec<Facts> = link.ask_each(ATTEMPT, &get).await.unwrap_or_default();
    answers.into_iter().filter_map(|mut answer| answer.remove("appendfsync")).collect()
}
