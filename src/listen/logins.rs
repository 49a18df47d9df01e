//! Failed logins of an address: so many are let happen, then it must wait.
//!
//! Counted are credentials that were shown and are wrong, not requests without any. An address is
//! an IPv4 one or an IPv6 network of 64 bits, which is what one subscriber has (RFC 6177). What
//! follows for a request is up to the listener. Behind a reverse proxy all callers have its address
//! and share one allowance.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use governor::clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};

use crate::clock::Clock;
use crate::engine::Mono;

/// Failed logins that are forgiven, one after the other.
const FORGIVEN_PER_MINUTE: NonZeroU32 = NonZeroU32::new(10).expect("ten is not zero");
/// Addresses that are remembered before those are dropped that need not be any more.
const REMEMBERED: usize = 10_000;

/// The allowance of each address; clones share it.
#[derive(Clone)]
pub struct Logins(Option<Arc<Inner>>);

struct Inner {
    limiter: RateLimiter<IpAddr, DashMapStateStore<IpAddr>, Ticks, NoOpMiddleware<Nanos>>,
    /// Addresses without allowance, and until when.
    blocked: DashMap<IpAddr, Mono>,
    clock: Clock,
}

/// Why an address must wait, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocked(pub Duration);

impl Logins {
    /// Each address may fail `most` times in a row, then once each six seconds; 0 is no limit.
    #[must_use]
    pub fn new(most: u32, clock: Clock) -> Self {
        let limit = |most| {
            let quota = Quota::per_minute(FORGIVEN_PER_MINUTE).allow_burst(most);
            let state = DashMapStateStore::default();
            let limiter = RateLimiter::new(quota, state, Ticks(clock.clone()));
            Arc::new(Inner { limiter, blocked: DashMap::new(), clock })
        };
        Self(NonZeroU32::new(most).map(limit))
    }

    /// Whether `peer` may try now.
    ///
    /// # Errors
    /// [`Blocked`] when it has failed too often.
    pub fn check(&self, peer: IpAddr) -> Result<(), Blocked> {
        let Some(inner) = &self.0 else { return Ok(()) };
        let until = inner.blocked.get(&subscriber(peer)).map(|until| *until);
        let left =
            until.map(|until| until.since(inner.clock.mono())).filter(|left| !left.is_zero());
        left.map_or(Ok(()), |left| Err(Blocked(left)))
    }

    /// Takes down that `peer` has shown credentials that are wrong.
    ///
    /// # Errors
    /// [`Blocked`] when that was once too often.
    pub fn failed(&self, peer: IpAddr) -> Result<(), Blocked> {
        let Some(inner) = &self.0 else { return Ok(()) };
        let peer = subscriber(peer);
        let Err(wait) = inner.limiter.check_key(&peer) else { return Ok(()) };
        let now = inner.clock.mono();
        let left = wait.wait_time_from(Ticks(inner.clock.clone()).nanos());
        inner.blocked.insert(peer, now.plus(left));
        if inner.limiter.len() > REMEMBERED {
            inner.limiter.retain_recent();
            inner.blocked.retain(|_, until| *until > now);
        }
        Err(Blocked(left))
    }
}

/// The address by which a subscriber is known.
fn subscriber(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
    }
}

/// The process's clock, as the limiter reads it.
#[derive(Clone)]
struct Ticks(Clock);

impl Ticks {
    fn nanos(&self) -> Nanos {
        self.0.mono().since_start().into()
    }
}

impl clock::Clock for Ticks {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.nanos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Unix;

    const MS: Duration = Duration::from_millis(1);
    const FORGIVEN_AFTER: Duration = Duration::from_secs(6);

    fn logins(most: u32) -> Logins {
        Logins::new(most, Clock::starting_at(Unix::from_secs(1_000_000)))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_failures_are_let_happen_and_then_one_each_six_seconds() {
        let (logins, peer) = (logins(3), ip("192.0.2.1"));
        for _ in 0..3 {
            assert_eq!(logins.failed(peer), Ok(()));
            assert_eq!(logins.check(peer), Ok(()));
        }
        assert_eq!(logins.failed(peer), Err(Blocked(FORGIVEN_AFTER)));
        assert_eq!(logins.check(peer), Err(Blocked(FORGIVEN_AFTER)));
        assert_eq!(logins.check(ip("192.0.2.2")), Ok(()), "another's allowance is its own");
        tokio::time::advance(Duration::from_millis(5_999)).await;
        assert_eq!(logins.check(peer), Err(Blocked(MS)));
        tokio::time::advance(MS).await;
        assert_eq!(logins.check(peer), Ok(()));
        assert_eq!(logins.failed(peer), Ok(()));
        assert!(logins.failed(peer).is_err());
        tokio::time::advance(Duration::from_secs(60)).await;
        for _ in 0..3 {
            assert_eq!(logins.failed(peer), Ok(()), "all is forgiven");
        }
        assert!(logins.failed(peer).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_subscriber_is_one_address_however_it_is_written() {
        let logins = logins(1);
        for (first, same, other) in [
            ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.3"),
            ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:db8:0:2::1"),
        ] {
            assert_eq!(logins.failed(ip(first)), Ok(()));
            assert!(logins.failed(ip(same)).is_err(), "{same}");
            assert!(logins.check(ip(first)).is_err(), "{first}");
            assert_eq!(logins.check(ip(other)), Ok(()), "{other}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_that_need_not_be_remembered_are_not() {
        let logins = logins(1);
        let address = |n: u32| IpAddr::from(n.to_be_bytes());
        let first = u32::try_from(REMEMBERED).unwrap();
        for n in 0..first {
            let _ = (logins.failed(address(n)), logins.failed(address(n)));
        }
        tokio::time::advance(Duration::from_secs(60)).await;
        let _ = (logins.failed(address(first)), logins.failed(address(first)));
        let inner = logins.0.unwrap();
        assert_eq!((inner.limiter.len(), inner.blocked.len()), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn zero_is_no_limit() {
        let logins = logins(0);
        for _ in 0..1_000 {
            assert_eq!(logins.failed(ip("192.0.2.1")), Ok(()));
        }
    }
}
