//! The numbers behind the metrics, without their names: one set per API key, and those that belong
//! to none.
//!
//! Labels whose values are known beforehand are arrays, so that counting needs no look-up; the few
//! that come as static text are small maps behind a lock. Removing an API key drops its set as a
//! whole: a handle that outlives it holds numbers that no page shows.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::engine::{ApiKeyName, Class};
use crate::rejection::Reason;
use crate::telemetry::ThrottleScope;

/// From one slot at once to the longest wait that a caller may ask for.
const QUEUE_WAIT_SECS: [f64; 17] = [
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
    600.0,
];
/// From a connection on the same host to the default time-out.
const UPSTREAM_SECS: [f64; 15] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// From memory to a disk that hangs.
const STORE_SECS: [f64; 15] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];

/// A gauge of whole things.
pub(super) type Level = Gauge<u64, AtomicU64>;
/// A gauge of seconds.
pub(super) type Seconds = Gauge<f64, AtomicU64>;

/// All series of one proxy.
#[derive(Debug, Default)]
pub(super) struct Series {
    keys: Mutex<BTreeMap<ApiKeyName, Arc<KeySeries>>>,
    pub(super) requests_without_key: ByStatus,
    pub(super) refusals: ByReason,
    pub(super) store: Named<StoreSeries>,
    pub(super) store_lost: Level,
    /// By state.
    pub(super) instances: Named<Level>,
    /// By listener.
    pub(super) certificate_ends: Named<Level>,
}

impl Series {
    pub(super) fn api_key(&self, name: &ApiKeyName) -> Arc<KeySeries> {
        let mut keys = lock(&self.keys);
        if let Some(series) = keys.get(name) {
            return Arc::clone(series);
        }
        let series = Arc::new(KeySeries::default());
        keys.insert(name.clone(), Arc::clone(&series));
        series
    }

    pub(super) fn remove_api_key(&self, name: &ApiKeyName) {
        lock(&self.keys).remove(name);
    }

    /// The API keys in the order of their names.
    pub(super) fn api_keys(&self) -> Vec<(ApiKeyName, Arc<KeySeries>)> {
        lock(&self.keys).iter().map(|(name, series)| (name.clone(), Arc::clone(series))).collect()
    }
}

/// The series of one API key.
#[derive(Debug)]
pub(super) struct KeySeries {
    pub(super) requests: ByStatus,
    pub(super) queue_depth: ByClass<Level>,
    pub(super) queue_wait: ByClass<Histogram>,
    pub(super) upstream_requests: ByStatus,
    pub(super) upstream_seconds: Histogram,
    pub(super) throttled: ByScope,
    pub(super) slots_granted: Counter,
    pub(super) guard: Seconds,
    pub(super) day_used: Level,
    pub(super) day_limit: Level,
    pub(super) foreign_use_calls: Level,
    pub(super) token_refreshes: Named<Counter>,
    pub(super) token_alarms: Named<Counter>,
    pub(super) refresh_tokens_ageing: Level,
    pub(super) token_lane_depth: Level,
    pub(super) tenants: Named<Level>,
}

impl Default for KeySeries {
    fn default() -> Self {
        Self {
            requests: ByStatus::default(),
            queue_depth: ByClass::new(Level::default),
            queue_wait: ByClass::new(|| Histogram::new(QUEUE_WAIT_SECS)),
            upstream_requests: ByStatus::default(),
            upstream_seconds: Histogram::new(UPSTREAM_SECS),
            throttled: ByScope::default(),
            slots_granted: Counter::default(),
            guard: Seconds::default(),
            day_used: Level::default(),
            day_limit: Level::default(),
            foreign_use_calls: Level::default(),
            token_refreshes: Named::default(),
            token_alarms: Named::default(),
            refresh_tokens_ageing: Level::default(),
            token_lane_depth: Level::default(),
            tenants: Named::default(),
        }
    }
}

/// The series of one operation of the store.
#[derive(Debug)]
pub(super) struct StoreSeries {
    pub(super) seconds: Histogram,
    pub(super) errors: Counter,
}

impl Default for StoreSeries {
    fn default() -> Self {
        Self { seconds: Histogram::new(STORE_SECS), errors: Counter::default() }
    }
}

/// The statuses that have a series of their own (RFC 9110 section 15); any other number is `other`,
/// so that an upstream cannot make series without end.
const STATUS_FIRST: u16 = 100;
const STATUS_COUNT: usize = 500;

/// A count for each HTTP status; zero is not shown.
#[derive(Debug)]
pub(super) struct ByStatus(Box<[AtomicU64]>);

impl Default for ByStatus {
    fn default() -> Self {
        Self((0..=STATUS_COUNT).map(|_| AtomicU64::new(0)).collect())
    }
}

impl ByStatus {
    pub(super) fn count(&self, status: u16) {
        let offset = status.checked_sub(STATUS_FIRST).map_or(STATUS_COUNT, usize::from);
        if let Some(count) = self.0.get(offset.min(STATUS_COUNT)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The statuses that were counted.
    pub(super) fn counted(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        counts.zip(0..).filter(|(count, _)| *count > 0).map(|(count, offset)| {
            let own = offset < STATUS_COUNT;
            let status = usize::from(STATUS_FIRST) + offset;
            (if own { status.to_string() } else { "other".to_owned() }, count)
        })
    }
}

/// A count for each reason.
#[derive(Debug)]
pub(super) struct ByReason(Vec<(Reason, Counter)>);

impl Default for ByReason {
    fn default() -> Self {
        Self(Reason::ALL.iter().map(|reason| (*reason, Counter::default())).collect())
    }
}

impl ByReason {
    pub(super) fn count(&self, reason: Reason) {
        if let Some((_, count)) = self.0.iter().find(|(each, _)| *each == reason) {
            count.inc();
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, &Counter)> {
        self.0.iter().map(|(reason, count)| (reason.as_str(), count))
    }
}

/// One of each for the classes.
#[derive(Debug)]
pub(super) struct ByClass<T> {
    interactive: T,
    normal: T,
    bulk: T,
}

impl<T> ByClass<T> {
    fn new(make: impl Fn() -> T) -> Self {
        Self { interactive: make(), normal: make(), bulk: make() }
    }

    pub(super) const fn of(&self, class: Class) -> &T {
        match class {
            Class::Interactive => &self.interactive,
            Class::Normal => &self.normal,
            Class::Bulk => &self.bulk,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, &T)> {
        Class::ALL.into_iter().map(|class| (class.as_str(), self.of(class)))
    }
}

/// A count for each scope of a 429.
#[derive(Debug, Default)]
pub(super) struct ByScope {
    second: Counter,
    day: Counter,
    other: Counter,
}

impl ByScope {
    pub(super) const fn of(&self, scope: ThrottleScope) -> &Counter {
        match scope {
            ThrottleScope::Second => &self.second,
            ThrottleScope::Day => &self.day,
            ThrottleScope::Other => &self.other,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, &Counter)> {
        ThrottleScope::ALL.into_iter().map(|scope| (scope.as_str(), self.of(scope)))
    }
}

/// Series that come into being with their label, which is text of the program and so of a small
/// set.
#[derive(Debug)]
pub(super) struct Named<T>(Mutex<BTreeMap<&'static str, T>>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Default> Named<T> {
    pub(super) fn with<R>(&self, name: &'static str, act: impl FnOnce(&T) -> R) -> R {
        act(lock(&self.0).entry(name).or_default())
    }

    /// Calls `act` with each, in the order of the names, until it fails.
    pub(super) fn try_each<E>(
        &self,
        mut act: impl FnMut(&'static str, &T) -> Result<(), E>,
    ) -> Result<(), E> {
        lock(&self.0).iter().try_for_each(|(name, series)| act(name, series))
    }
}

/// Numbers stay right whatever panicked beside them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number of things, as gauges hold it.
pub(super) fn whole(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
