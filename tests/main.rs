//! The whole program over real sockets: one file for each area of what it promises.
//!
//! | area | files |
//! | --- | --- |
//! | the five promises of the beginning | `promises`, `crashes`, `secrecy`, `sdk` |
//! | what passes and is refused | `faithful`, `identity`, `refusals`, `raw_requests`, `bodies` |
//! | callers with tokens of their own | `passthrough` |
//! | how accounts are connected | `connect`, `connecting`, `device` |
//! | what the upstream's refusals lead to | `repeats`, `trouble`, `tokens` |
//! | tokens kept through everything | `custody`, `custody_kills` |
//! | many tenants in and out, keys | `transfer`, `exports`, `keys` |
//! | the admin API and its document | `openapi` |
//! | TLS of the listeners, and certificates of callers | `tls`, `tls_files` |
//! | waiting | `pace`, `rates`, `queue`, `leaving`, `edges` |
//! | the process | `life`, `reload`, `starting`, `full_disk`, `memory` |
//!
//! The sandbox's log is the judge. Ports are free ones, nothing depends on the time of day or on
//! other tests, and bounds are wide: a busy machine makes no test fail.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

#[path = "main/support.rs"]
mod support;

#[expect(dead_code, reason = "the tests of the store use the rest of it")]
#[path = "support/redis.rs"]
mod redis_process;

#[path = "main/bodies.rs"]
mod bodies;
#[path = "main/connect.rs"]
mod connect;
#[path = "main/connecting.rs"]
mod connecting;
#[path = "main/crashes.rs"]
mod crashes;
#[path = "main/custody.rs"]
mod custody;
#[path = "main/custody_kills.rs"]
mod custody_kills;
#[path = "main/device.rs"]
mod device;
#[path = "main/edges.rs"]
mod edges;
#[path = "main/exports.rs"]
mod exports;
#[path = "main/faithful.rs"]
mod faithful;
#[path = "main/full_disk.rs"]
mod full_disk;
#[path = "main/identity.rs"]
mod identity;
#[path = "main/keys.rs"]
mod keys;
#[path = "main/leaving.rs"]
mod leaving;
#[path = "main/life.rs"]
mod life;
#[path = "main/memory.rs"]
mod memory;
#[path = "main/openapi.rs"]
mod openapi;
#[path = "main/pace.rs"]
mod pace;
#[path = "main/passthrough.rs"]
mod passthrough;
#[path = "main/promises.rs"]
mod promises;
#[path = "main/queue.rs"]
mod queue;
#[path = "main/rates.rs"]
mod rates;
#[path = "main/raw_requests.rs"]
mod raw_requests;
#[path = "main/refusals.rs"]
mod refusals;
#[path = "main/reload.rs"]
mod reload;
#[path = "main/repeats.rs"]
mod repeats;
#[path = "main/scope.rs"]
mod scope;
#[path = "main/sdk.rs"]
mod sdk;
#[path = "main/secrecy.rs"]
mod secrecy;
#[path = "main/smuggling.rs"]
mod smuggling;
#[path = "main/starting.rs"]
mod starting;
#[path = "main/tls.rs"]
mod tls;
#[path = "main/tls_files.rs"]
mod tls_files;
#[path = "main/tokens.rs"]
mod tokens;
#[path = "main/transfer.rs"]
mod transfer;
#[path = "main/trouble.rs"]
mod trouble;
