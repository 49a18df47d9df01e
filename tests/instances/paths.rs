//! Instances of different places, and callers of all kinds, at one turnstile.

use std::time::Duration;

use ctct_proxy::engine::turnstile::{Ask, Place, Report, Terms, Told};
use ctct_proxy::engine::{Class, TenantName};
use ctct_proxy::store::{RedisTurnstile, SharedTurnstile as _};

use crate::redis::RedisServer;
use crate::script::{ask, opened, place, turnstile, until_granted};
use crate::world::main_key;

const FAR: Duration = Duration::from_millis(160);
const NEAR: Duration = Duration::from_millis(10);

/// A question of an instance that is so far from the upstream, where one call a second may arrive.
fn one_a_second(path: Duration) -> Ask {
    let ask = ask(Vec::new());
    let rate = "1".parse().expect("a rate");
    Ask { terms: Terms { rate, calls: 1, path: (path, path), ..ask.terms }, ..ask }
}

/// Asks until there is a slot; when it was given.
async fn granted(turnstile: &RedisTurnstile, ask: &Ask) -> Told {
    until_granted(turnstile, ask).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_near_instance_waits_for_the_call_of_a_far_one_to_have_arrived_a_window_ago() {
    let server = RedisServer::start();
    let far = turnstile(&server, "far").await;
    let near = far.seen_as("near");
    opened(&far).await;
    for (first, path, second, other, later) in [
        (&far, FAR, &near, NEAR, FAR.saturating_sub(NEAR)),
        (&near, NEAR, &far, FAR, Duration::ZERO),
        (&far, FAR, &near, NEAR, FAR.saturating_sub(NEAR)),
    ] {
        let line = vec![place("a", 1)];
        let told = granted(first, &Ask { line: line.clone(), ..one_a_second(path) }).await;
        // it left at once, and was as late as the quickest
        let window = Duration::from_secs(1);
        let held = Report::Held { ticket: told.ticket, granted_at: told.at, hold: window };
        let reports = vec![held];
        let heard = Ask { reports, wanted_until: None, ..one_a_second(path) };
        first.ask(&main_key(), &heard).await.expect("an answer");
        let next = granted(second, &Ask { line, ..one_a_second(other) }).await;
        let span = Duration::from_micros(next.at.0 - told.at.0);
        let due = window + later;
        assert!(span >= due && span < due + Duration::from_millis(40), "{span:?}, due {due:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_whose_account_nobody_connected_gets_a_slot() {
    let server = RedisServer::start();
    let one = turnstile(&server, "one").await;
    opened(&one).await;
    let visitor = TenantName::of_visitor("-_digest");
    let line = vec![Place { class: Class::Normal, tenant: visitor.clone(), weight: 1, count: 1 }];
    let told = until_granted(&one, &ask(line)).await;
    assert_eq!(told.granted, Some((Class::Normal, visitor)));
}
