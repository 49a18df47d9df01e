//! The gate under paused time: wake-ups, leavers, and a store that is slow or fails.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Demand, Gate, KeyGate, Parts, Sharing, Ticket};
use crate::clock::Clock;
use crate::engine::outcome::{Health, Outcome};
use crate::engine::scheduler::{Arrival, CallId, Entry, Limits, Readiness};
use crate::engine::turnstile::{Ask, Beat, OnLoss, Roll, Told, Turn};
use crate::engine::{ApiKeyName, Class, DayReset, Guard, Reserve, TenantName, Unix};
use crate::rejection::Reason;
use crate::store::{MemoryStore, SharedTurnstile, Store as _, StoreError};
use crate::telemetry::{Event, Events, Metrics};

const NOON: Unix = Unix::from_secs(20_000 * 86_400 + 43_200);

struct World {
    gate: Gate,
    key: KeyGate,
    clock: Clock,
    store: Arc<MemoryStore>,
    demands: mpsc::UnboundedReceiver<Demand>,
    events: Events,
}

pub(crate) fn limits() -> Limits {
    Limits {
        rate: "4".parse().unwrap(),
        guard: Guard::Fixed(Duration::from_millis(60)),
        per_day: 1_000,
        day_reset: DayReset::default(),
        reserve: Reserve::default(),
        in_flight_max: 64,
        capacity: 100,
        capacity_per_tenant: 50,
    }
}

fn main_key() -> ApiKeyName {
    ApiKeyName::new("main").unwrap()
}

fn acme() -> TenantName {
    TenantName::new("acme").unwrap()
}

/// What gates are made of, and what they demand.
fn parts(clock: &Clock) -> (Parts, Arc<MemoryStore>, mpsc::UnboundedReceiver<Demand>) {
    let store = Arc::new(MemoryStore::default());
    let (demands, demanded) = mpsc::unbounded_channel();
    let parts = Parts {
        sharing: None,
        store: store.clone(),
        clock: clock.clone(),
        metrics: Metrics::new("test"),
        events: Events::new(clock.clone()),
        demands,
        tracker: TaskTracker::new(),
        stopped: CancellationToken::new(),
        seed: 1,
    };
    (parts, store, demanded)
}

/// A gate whose first window of silence is over, with one tenant that has a token.
async fn world() -> World {
    let clock = Clock::starting_at(NOON);
    let (parts, store, demanded) = parts(&clock);
    let events = parts.events.clone();
    let gate = Gate::start(parts, vec![(main_key(), limits())], &BTreeSet::new());
    gate.set_tenant(&main_key(), &acme(), Some(Readiness::Ready), false, 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let key = gate.api_key(&main_key()).unwrap();
    World { gate, key, clock, store, demands: demanded, events }
}

impl World {
    fn ticket(&self) -> Ticket {
        self.ticket_that(Entry::Back)
    }

    fn ticket_that(&self, entry: Entry) -> Ticket {
        self.key.enqueue(Arrival {
            tenant: acme(),
            class: Class::Normal,
            deadline: self.clock.now().mono.plus(Duration::from_secs(30)),
            entry,
        })
    }

    async fn counted(&self) -> u64 {
        let day = DayReset::default().day_of(self.clock.now().unix);
        self.store.reserve(&main_key(), day, 0, 1_000).await.unwrap().total
    }
}

#[tokio::test(start_paused = true)]
async fn calls_are_granted_one_spacing_apart_and_counted_before_they_leave() {
    let world = world().await;
    let started = world.clock.now().mono;
    for left in 1..=8 {
        let spent = world.ticket().granted().await.unwrap().spend();
        assert!(world.counted().await >= left);
        spent.settle(Outcome::Answered(Health::Good));
    }
    let took = world.clock.now().mono.since(started);
    assert!((1_855..=1_900).contains(&took.as_millis()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_day_that_will_not_last_is_told_once_and_a_reload_that_mends_it_too() {
    let world = world().await;
    let mut notices = world.events.subscribe();
    let call = async |world: &World| {
        let spent = world.ticket().granted().await.unwrap().spend();
        spent.settle(Outcome::Answered(Health::Good));
    };
    for minute in 0..3 {
        for _ in 0..20 {
            call(&world).await;
        }
        let told = notices.try_recv().map(|notice| notice.event);
        match minute {
            1 => assert!(matches!(told, Ok(Event::DayForecast { exhausted_at: Some(_), .. }))),
            _ => assert!(told.is_err(), "{told:?}"),
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    let larger = Limits { per_day: 1_000_000, ..limits() };
    world.gate.reconfigure(vec![(main_key(), larger)], &BTreeSet::new());
    call(&world).await;
    let told = notices.try_recv().map(|notice| notice.event);
    assert!(matches!(told, Ok(Event::DayForecast { exhausted_at: None, .. })), "{told:?}");
    assert_eq!(world.key.snapshot().await.unwrap().day_used, 61);
}

#[tokio::test(start_paused = true)]
async fn holds_and_foreign_use_are_told_to_those_who_listen() {
    let world = world().await;
    let mut notices = world.events.subscribe();
    for _ in 0..10 {
        let spent = world.ticket().granted().await.unwrap().spend();
        spent.settle(Outcome::Answered(Health::Forbidden));
    }
    let refused = world.ticket().granted().await.err().unwrap();
    assert_eq!(refused.reason(), Reason::WaitTooLong);
    let Event::TenantHeld { tenant, api_key, secs, .. } = notices.try_recv().unwrap().event else {
        panic!("another event")
    };
    assert_eq!((tenant, api_key), (acme(), main_key()));
    assert!((60..=75).contains(&secs), "{secs}");
    world.key.forgive(&acme());
    world.ticket().granted().await.unwrap().spend().settle(Outcome::QuotaExceeded);
    world.key.snapshot().await.unwrap();
    let events = [notices.try_recv().unwrap().event, notices.try_recv().unwrap().event];
    let foreign =
        Event::ForeignUse { api_key: main_key(), suspected: true, calls_today: 1_000 - 11 };
    assert_eq!(events, [Event::DaySpent { api_key: main_key() }, foreign]);
    assert!(notices.try_recv().is_err(), "told once");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_ticket_and_a_dropped_permit_spend_nothing() {
    let world = world().await;
    let permit = world.ticket().granted().await.unwrap();
    let tickets: Vec<_> = (0..20).map(|_| world.ticket()).collect();
    drop(tickets);
    drop(permit);
    let spent = world.ticket().granted().await.unwrap().spend();
    spent.settle(Outcome::Answered(Health::Good));
    let snapshot = world.key.snapshot().await.unwrap();
    assert_eq!((snapshot.day_used, snapshot.in_flight, snapshot.depth), (1, 0, [0; 3]));
}

#[tokio::test(start_paused = true)]
async fn a_spent_call_that_is_dropped_stays_charged() {
    let world = world().await;
    drop(world.ticket().granted().await.unwrap().spend());
    let snapshot = world.key.snapshot().await.unwrap();
    assert_eq!((snapshot.day_used, snapshot.in_flight), (1, 0));
    let tenant = world.key.tenant(acme()).await.unwrap();
    assert_eq!((tenant.calls_today, tenant.errors_today), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_holds_the_tenant_until_there_is_another() {
    let mut world = world().await;
    world.key.token_refused(&acme());
    let mut waiting = Box::pin(world.ticket_that(Entry::Again { first: CallId::new(0) }).granted());
    assert_eq!(world.demands.recv().await.unwrap().tenant, acme());
    let early = tokio::time::timeout(Duration::from_secs(5), &mut waiting).await;
    assert!(early.is_err(), "granted without a token");
    world.gate.set_tenant(&main_key(), &acme(), Some(Readiness::Ready), false, 1);
    let waited = waiting.await.unwrap().waited();
    assert!(waited.token >= Duration::from_secs(5), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stop_refuses_new_calls_and_gives_the_count_back() {
    let world = world().await;
    let spent = world.ticket().granted().await.unwrap().spend();
    spent.settle(Outcome::Answered(Health::Good));
    world.gate.stop(Duration::from_secs(15));
    let refused = world.ticket().granted().await.err().map(|rejection| rejection.reason());
    assert_eq!(refused, Some(Reason::ShuttingDown));
    assert!(world.counted().await > 1);
    world.gate.close().await;
    assert_eq!(world.counted().await, 1);
}

#[tokio::test(start_paused = true)]
async fn an_api_key_that_goes_refuses_and_one_that_comes_serves() {
    let world = world().await;
    let held = world.ticket().granted().await.unwrap();
    let waiting = world.ticket();
    let other = ApiKeyName::new("other").unwrap();
    world.gate.reconfigure(vec![(other.clone(), limits())], &BTreeSet::new());
    assert_eq!(waiting.granted().await.err().unwrap().reason(), Reason::TenantUnknown);
    assert!(world.gate.api_key(&main_key()).is_none());
    assert!(world.gate.api_key(&other).unwrap().snapshot().await.is_some());
    held.spend().settle(Outcome::Answered(Health::Good));
}

#[tokio::test(start_paused = true)]
async fn a_held_key_lets_calls_wait_until_their_time_is_over() {
    let world = world().await;
    world.key.pause(true);
    let refused = world.ticket().granted().await.err().unwrap();
    assert_eq!(refused.reason(), Reason::WaitExpired);
    let waiting = world.ticket();
    world.key.pause(false);
    assert!(waiting.granted().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_was_used_before_a_start_is_shown_from_the_first_look_on() {
    let clock = Clock::starting_at(NOON);
    let (parts, store, _demanded) = parts(&clock);
    let day = DayReset::default().day_of(NOON);
    store.reserve(&main_key(), day, 7, 1_000).await.unwrap();
    let gate = Gate::start(parts, vec![(main_key(), limits())], &BTreeSet::new());
    let key = gate.api_key(&main_key()).unwrap();
    assert_eq!(key.snapshot().await.unwrap().day_used, 7);
    // also when the store cannot say, and when it was not asked
    store.close().await.unwrap();
    let other = ApiKeyName::new("other").unwrap();
    gate.reconfigure(vec![(other.clone(), limits())], &BTreeSet::new());
    assert_eq!(gate.api_key(&other).unwrap().snapshot().await.unwrap().day_used, 0);
}

/// A shared store that never gets to the end of an answer.
#[derive(Default)]
struct Stumbling {
    asked: AtomicU32,
}

#[async_trait]
impl SharedTurnstile for Stumbling {
    async fn ask(&self, _: &ApiKeyName, _: &Ask) -> Result<Told, StoreError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        panic!("an answer that nobody expected")
    }

    async fn beat(&self, _: &Beat) -> Result<Roll, StoreError> {
        Ok(Roll::default())
    }

    async fn listen(&self, _: mpsc::UnboundedSender<(ApiKeyName, Turn)>) {
        std::future::pending::<()>().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_question_whose_task_panics_is_asked_again() {
    let clock = Clock::starting_at(NOON);
    let (mut parts, _, _demanded) = parts(&clock);
    let turnstile = Arc::new(Stumbling::default());
    parts.sharing = Some(Sharing { turnstile: turnstile.clone(), on_loss: OnLoss::Refuse });
    let gate = Gate::start(parts, vec![(main_key(), limits())], &BTreeSet::new());
    gate.set_tenant(&main_key(), &acme(), Some(Readiness::Ready), false, 1);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let asked = turnstile.asked.load(Ordering::Relaxed);
    assert!(asked > 1, "asked {asked} times");
}

/// A shared store whose answers take a while to be read.
#[derive(Default)]
struct Slow {
    millis: AtomicU32,
}

#[async_trait]
impl SharedTurnstile for Slow {
    async fn ask(&self, _: &ApiKeyName, _: &Ask) -> Result<Told, StoreError> {
        Err(StoreError::Unavailable { attempt: "ask", cause: "nothing is told".into() })
    }

    async fn beat(&self, _: &Beat) -> Result<Roll, StoreError> {
        let millis = self.millis.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(millis.into())).await;
        Ok(Roll::default())
    }

    async fn listen(&self, _: mpsc::UnboundedSender<(ApiKeyName, Turn)>) {
        std::future::pending::<()>().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_roll_that_is_read_long_after_it_was_asked_for_is_not_taken() {
    let clock = Clock::starting_at(NOON);
    for (millis, is_lost) in [(400, false), (1_600, true)] {
        let (mut parts, _, _demanded) = parts(&clock);
        let turnstile = Arc::new(Slow { millis: millis.into() });
        parts.sharing = Some(Sharing { turnstile, on_loss: OnLoss::Refuse });
        let gate = Gate::start(parts, vec![(main_key(), limits())], &BTreeSet::new());
        tokio::time::sleep(Duration::from_millis(1_650)).await;
        assert_eq!(gate.has_lost_store(), is_lost, "{millis} ms");
        assert_eq!(gate.roll().is_none(), is_lost, "{millis} ms");
    }
}
