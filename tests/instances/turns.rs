//! The script of the turnstile, asked directly: whose turn it is, whatever instances are called and
//! however long they wait or are away.

use ctct_proxy::engine::turnstile::Ask;
use ctct_proxy::store::SharedTurnstile as _;

use crate::redis::RedisServer;
use crate::script::{ask, opened, place, turnstile, until_granted};
use crate::world::{main_key, tenant};

/// Says where calls wait, and wants no slot now.
fn waits(name: &str, count: u32) -> Ask {
    Ask { wanted_until: None, ..ask(vec![place(name, count)]) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_whose_id_reads_as_a_number_is_passed_over_when_it_dies() {
    let server = RedisServer::start();
    let survivor = turnstile(&server, "survivor").await;
    opened(&survivor).await;
    for id in ["1234567890123456", "12345678901234e1", "0000000000000042"] {
        survivor.seen_as(id).ask(&main_key(), &waits("a", 1)).await.expect("an answer");
        let told = until_granted(&survivor, &ask(vec![place("b", 1)])).await;
        assert_eq!(told.granted.expect("a slot").1, tenant("b"), "{id}");
    }
}
