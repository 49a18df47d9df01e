//! Three keepers over one store, each with a link to it that can stall or be cut, and one upstream.
//!
//! Each instance follows the store's changes as the program does. The upstream is the judge: it
//! panics at two token requests at a time.

mod changes;
mod failures;
mod lanes;
mod link;

use std::sync::atomic::{AtomicUsize, Ordering};

use super::upstream::{Turn, Upstream};
use super::*;
use crate::secret::Secret;
use crate::store::{Changed, Grant, LaneTerms, LaneTurn, MemoryStore, Missing, Revision, Since};
use link::Link;

const INSTANCES: usize = 3;

struct Fleet {
    clock: Clock,
    store: Arc<MemoryStore>,
    upstream: Arc<Upstream>,
    instances: Vec<Instance>,
}

struct Instance {
    tokens: Tokens,
    link: Arc<Link>,
    changes: mpsc::UnboundedReceiver<TenantChange>,
    told: Arc<Told>,
    clock: Clock,
}

/// How often a state was told, and which alarms there were.
#[derive(Default)]
struct Told {
    states: AtomicUsize,
    alarms: AtomicUsize,
}

impl Observer for Told {
    fn refreshed(&self, _: &ApiKeyName, _: &'static str) {}
    fn alarm(&self, _: &TenantName, _: &ApiKeyName, _: Alarm) {
        self.alarms.fetch_add(1, Ordering::Relaxed);
    }
    fn lane_depth(&self, _: &ApiKeyName, _: usize) {}
    fn ageing(&self, _: &ApiKeyName, _: usize) {}
    fn tenants(&self, _: &ApiKeyName, _: usize, _: usize) {}
    fn state_changed(&self, _: &TenantName, _: &ApiKeyName, _: &'static str, _: Option<&str>) {
        self.states.fetch_add(1, Ordering::Relaxed);
    }
}

impl Fleet {
    /// Three instances and `n` tenants whose access tokens have ended.
    async fn with_tenants(n: usize) -> Self {
        let clock = Clock::starting_at(Unix::from_secs(START));
        let store = Arc::new(MemoryStore::shared(clock.clone()));
        let upstream = Arc::new(Upstream::new(clock.clone()));
        for n in 0..n {
            store.put_grant(new_grant(n, upstream.connect(&name(n)))).await.unwrap();
        }
        // some instance has had the lane before
        let terms = LaneTerms { hold: secs(1), rest_max: secs(1) };
        store.take_lane(&key(), terms).await.unwrap();
        tokio::time::sleep(secs(1)).await;
        let LaneTurn::Yours(lease) = store.take_lane(&key(), terms).await.unwrap() else {
            panic!("it rests no longer")
        };
        store.leave_lane(&key(), lease, secs(0)).await.unwrap();
        let mut instances = Vec::new();
        for _ in 0..INSTANCES {
            instances.push(Instance::start(&store, &upstream, &clock).await);
        }
        Self { clock, store, upstream, instances }
    }

    async fn row(&self, n: usize) -> Grant {
        self.store.grant(&name(n)).await.unwrap().unwrap()
    }

    /// Asserts that all instances have what the store holds, and that it is good.
    async fn assert_current(&self, n: usize) {
        let grant = self.row(n).await;
        assert!(self.upstream.accepts(&name(n), &grant.tokens.refresh), "a lost refresh token");
        assert_eq!(grant.refresh_begun_at, None);
        let header = format!("Bearer {}", grant.tokens.access.unwrap().expose());
        for instance in &self.instances {
            let bearer = instance.tokens.bearer(&name(n)).expect("a usable token");
            assert_eq!(bearer.header.to_str().unwrap(), header);
            assert_eq!(bearer.version, grant.version);
        }
    }

    /// Asserts that a rest of one second is between each answer and the next request.
    fn assert_paced(&self) {
        for pair in self.upstream.seen().windows(2) {
            assert!(pair[1].arrived.since(pair[0].answered) >= secs(1), "{pair:?}");
        }
    }
}

impl Instance {
    async fn start(store: &Arc<MemoryStore>, upstream: &Arc<Upstream>, clock: &Clock) -> Self {
        let link = Arc::new(Link::new(Arc::clone(store) as Arc<dyn Store>, clock.clone()));
        let (sender, changes) = mpsc::unbounded_channel();
        let (told, tracker) = (Arc::new(Told::default()), TaskTracker::new());
        let since = link.changes(None).await.unwrap().revision;
        let parts = Parts {
            store: Arc::clone(&link) as Arc<dyn Store>,
            clock: clock.clone(),
            exchange: Arc::clone(upstream) as Arc<dyn TokenEndpoint>,
            keys: vec![(key(), auth())],
            settings: settings(),
            seed: 1,
            changes: sender,
            observer: Arc::clone(&told) as Arc<dyn Observer>,
            tracker: tracker.clone(),
        };
        let tokens = Tokens::start(parts).await.unwrap();
        tracker.spawn(follow(tokens.clone(), Arc::clone(&link), since));
        Self { tokens, link, changes, told, clock: clock.clone() }
    }

    fn demand(&self, n: usize, wait: Duration) {
        self.tokens.demand(&name(n), self.clock.mono().plus(wait));
    }

    fn state(&self, n: usize) -> Readiness {
        self.tokens.tenant(name(n).as_str()).unwrap().state
    }

    fn version(&self, n: usize) -> Option<u64> {
        self.tokens.bearer(&name(n)).map(|bearer| bearer.version)
    }

    fn times_told(&self) -> usize {
        self.told.states.load(Ordering::Relaxed)
    }

    fn alarms(&self) -> usize {
        self.told.alarms.load(Ordering::Relaxed)
    }
}

/// What the program's follower does for tenants.
async fn follow(tokens: Tokens, link: Arc<Link>, mut since: Revision) {
    loop {
        let _ = tokio::time::timeout(secs(1), link.changed()).await;
        let Ok(changes) = link.changes(Some(since)).await else { continue };
        let tenants = |things: Vec<Changed>| {
            let tenants = things.into_iter().filter_map(|thing| match thing {
                Changed::Tenant(tenant) => Some(tenant),
                Changed::Client(_) | Changed::ApiKey(_) => None,
            });
            tenants.collect::<Vec<_>>()
        };
        let (missing, told) = match changes.since {
            Since::Changed(things) => {
                tokens.look(tenants(things), since).await;
                since = changes.revision;
                continue;
            }
            Since::Forgotten => (Missing::IsGone, Vec::new()),
            Since::Lost(things) => (Missing::IsLost { noticed: changes.revision }, tenants(things)),
        };
        let told = (told.into_iter().collect(), since);
        tokens.compare(link.grants().await.unwrap(), missing, told).await;
        since = changes.revision;
    }
}

fn new_grant(n: usize, refresh: Secret<String>) -> NewGrant {
    let tokens = crate::store::Tokens { access: None, access_expires_at: None, refresh };
    NewGrant { tenant: name(n), api_key: key(), tokens, weight: None }
}
