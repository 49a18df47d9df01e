//! The two pure state machines: who goes next and when, and which token is good.
//!
//! Nothing here knows a socket, a clock or a database: inputs and a [`Now`] go in, commands and the
//! next deadline come out. The shells in `gate` and `tokens` own one machine each and do the I/O,
//! so that a simulated day is a unit test of milliseconds and a failing seed replays exactly. The
//! layer uses `std` alone and never iterates a hash map.

#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::float_arithmetic,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::wildcard_enum_match_arm
    )
)]

pub mod backoff;
pub mod budget;
pub mod chance;
pub mod day;
pub mod foreign;
pub mod ids;
pub mod outcome;
pub mod pacer;
pub mod queue;
pub mod rate;
pub mod scheduler;
pub mod time;
pub mod token;
pub mod turnstile;

pub use day::Reserve;
pub use ids::{ApiKeyName, ClientName, NameError, TenantName};
pub use rate::{Class, Guard, Rate, RateError};
pub use time::{Day, DayReset, Mono, Now, Unix};
