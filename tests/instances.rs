//! Several instances over one real Redis server: one limit, equal shares, nothing lost.
//!
//! `gates` holds the gates of many instances in this process, whose calls are judged by when they
//! leave and when they would arrive.

#[path = "instances/gates.rs"]
mod gates;
#[path = "instances/line.rs"]
mod line;
#[path = "support/redis.rs"]
mod redis;
#[path = "instances/support.rs"]
mod support;
