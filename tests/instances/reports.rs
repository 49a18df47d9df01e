//! The script of the turnstile, asked directly: what it counts, and what it makes of what instances
//! say became of their calls.

use std::time::Duration;

use ctct_proxy::engine::turnstile::{Ask, Memory, Report, Stamp, Told};
use ctct_proxy::store::{RedisTurnstile, SharedTurnstile as _};

use crate::redis::RedisServer;
use crate::script::{ask, opened, place, turnstile, until_granted};
use crate::world::main_key;

const STATE: &str = "ctct-proxy:{main}:turnstile";

async fn tell(turnstile: &RedisTurnstile, ask: &Ask) -> Told {
    turnstile.ask(&main_key(), ask).await.expect("an answer")
}
