//! The store that several instances share: a Redis or Valkey server, sealed tokens in it.
//!
//! `link` is the connection.

#[expect(dead_code, reason = "the connection is there before what uses it")]
mod link;
mod turnstile;

pub(super) use link::Link;
pub use turnstile::RedisTurnstile;
