//! The promises of the keeper over random histories: a model of store and token endpoint that
//! watches every order, fails in every way, and at the end turns good.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::{Just, Strategy, any, prop_assert, prop_oneof, proptest};

use super::tests::{SEED, at, key, secs, settings, tenant};
use super::*;

const TENANTS: usize = 5;
const INTERVAL: Duration = Duration::from_secs(1);

/// Nobody need wait for a refresh to be made.
pub(super) fn eager() -> Settings {
    let (refresh_ahead, keep_alive_after) = (secs(7_200), secs(150 * 86_400));
    Settings { refresh_ahead, keep_alive_after, ..settings() }
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Pass(u64),
    Step(i64),
    Demand(usize, u64),
    Rejected(usize),
    Operator(usize),
    Used(usize),
    Put(usize),
    /// The oldest unanswered order is answered; the number chooses how.
    Answer(u8),
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1_u64..5_000).prop_map(Event::Pass),
        1 => (60_000_u64..90_000_000).prop_map(Event::Pass),
        1 => (-4_000_i64..4_000).prop_map(Event::Step),
        5 => (0..TENANTS, 1_u64..60).prop_map(|(n, wait)| Event::Demand(n, wait)),
        1 => (0..TENANTS).prop_map(Event::Rejected),
        1 => (0..TENANTS).prop_map(Event::Operator),
        1 => (0..TENANTS).prop_map(Event::Used),
        1 => (0..TENANTS).prop_map(Event::Put),
        10 => any::<u8>().prop_map(Event::Answer),
        1 => Just(Event::Restart),
    ]
}

/// What the store holds of a tenant.
#[derive(Clone, Debug)]
struct Row {
    version: u64,
    expires_at: Option<Unix>,
    begun: bool,
    dead: bool,
}

#[derive(Debug)]
struct World {
    keeper: TokenKeeper,
    now: Now,
    rows: BTreeMap<TenantName, Row>,
    pending: Vec<Command>,
    in_flight: Option<TenantName>,
    answered_at: Mono,
    /// Versions that were refused, and the moments of requests since an answer was lost.
    refused: BTreeSet<(TenantName, u64)>,
    /// The ends of access tokens that came and are not stored.
    received: BTreeMap<TenantName, Unix>,
    lost: BTreeMap<(TenantName, u64), Vec<Mono>>,
    demanded: BTreeSet<TenantName>,
    /// The latest end of a caller's wait.
    waits_until: BTreeMap<TenantName, Mono>,
    /// Those whose intent was ordered while a caller waited.
    begun_for: BTreeSet<TenantName>,
    good: bool,
}

impl World {
    fn new() -> Self {
        let now = at(Duration::ZERO);
        let row = Row { version: 1, expires_at: None, begun: false, dead: false };
        let rows = (0..TENANTS).map(|n| (tenant(n), row.clone())).collect();
        let mut world = Self {
            keeper: TokenKeeper::new(eager(), SEED, now),
            now,
            rows,
            pending: Vec::new(),
            in_flight: None,
            answered_at: now.mono,
            refused: BTreeSet::new(),
            received: BTreeMap::new(),
            lost: BTreeMap::new(),
            demanded: BTreeSet::new(),
            waits_until: BTreeMap::new(),
            begun_for: BTreeSet::new(),
            good: false,
        };
        world.start();
        world
    }

    /// A process starts on what the store holds.
    fn start(&mut self) {
        self.keeper = TokenKeeper::new(eager(), SEED, self.now);
        self.keeper.put_key(&key(), self.now);
        self.pending.clear();
        self.in_flight = None;
        self.answered_at = self.now.mono;
        self.demanded.clear();
        self.waits_until.clear();
        self.begun_for.clear();
        self.received.clear();
        self.lost.clear();
        // A refusal that was not stored is not known to the next process: it asks once more.
        let rows = &self.rows;
        self.refused.retain(|(name, version)| rows[name].dead || rows[name].version != *version);
        for name in self.rows.keys().cloned().collect::<Vec<_>>() {
            let known = self.known(&name);
            self.keeper.put(&name, known, self.now);
        }
    }

    fn known(&self, name: &TenantName) -> Known {
        let row = &self.rows[name];
        Known {
            api_key: key(),
            version: row.version,
            access_expires_at: row.expires_at,
            last_refreshed_at: None,
            last_used_at: None,
            refresh_begun: row.begun,
            unstored: None,
            needs_authorization: row.dead.then(|| "dead".into()),
        }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Pass(ms) => self.pass(Duration::from_millis(ms)),
            Event::Step(ms) => {
                let span = Duration::from_millis(ms.unsigned_abs());
                let unix = self.now.unix;
                self.now.unix = if ms < 0 { unix.minus(span) } else { unix.plus(span) };
                self.keeper.handle_timeout(self.now);
            }
            Event::Demand(n, wait) => self.demand(&tenant(n), wait),
            Event::Rejected(n) => {
                let version = self.rows[&tenant(n)].version;
                self.keeper.rejected(&tenant(n), version, self.now);
            }
            Event::Operator(n) => {
                self.lost.retain(|(name, _), _| *name != tenant(n));
                self.keeper.refresh_now(&tenant(n), self.now);
            }
            Event::Used(n) => self.keeper.used(&tenant(n), self.now.unix, self.now),
            Event::Put(n) => self.put(&tenant(n)),
            Event::Answer(how) => self.answer(how),
            Event::Restart => self.start(),
        }
        self.collect();
    }

    /// A caller waits for so many seconds.
    fn demand(&mut self, name: &TenantName, wait: u64) {
        let until = self.now.mono.plus(secs(wait));
        // one whose token is good is served at once
        if self.keeper.readiness(name) == Some(&Readiness::Ready) {
            self.demanded.remove(name);
        } else {
            self.demanded.insert(name.clone());
        }
        let latest = self.waits_until.entry(name.clone()).or_default();
        *latest = until.max(*latest);
        self.keeper.demand(name, until, self.now);
    }

    /// An operator hands in a new grant.
    fn put(&mut self, name: &TenantName) {
        if !self.keeper.reserve(name, self.now) {
            return;
        }
        let row = self.rows.get_mut(name).unwrap();
        *row = Row { version: row.version + 1, expires_at: None, begun: false, dead: false };
        let known = self.known(name);
        self.keeper.put(name, known, self.now);
    }

    /// Time passes, with the machine woken whenever it wants.
    fn pass(&mut self, span: Duration) {
        let end = self.now.mono.plus(span);
        let mut turns = 0;
        while let Some(at) = self.keeper.poll_timeout().filter(|at| *at <= end) {
            turns += 1;
            assert!(turns < 5_000, "the machine spins");
            self.move_to(at.max(self.now.mono));
            self.keeper.handle_timeout(self.now);
            self.collect();
        }
        self.move_to(end);
    }

    fn move_to(&mut self, mono: Mono) {
        let span = mono.since(self.now.mono);
        self.now = Now { mono, unix: self.now.unix.plus(span) };
    }

    /// Takes the orders and checks what may be checked at once.
    fn collect(&mut self) {
        while let Some(command) = self.keeper.poll_command() {
            match &command {
                Command::Refresh { tenant, version, .. } => self.check_request(tenant, *version),
                Command::Changed { tenant, readiness: Readiness::Ready } => {
                    let end = self.received.get(tenant).copied().or(self.rows[tenant].expires_at);
                    let end = end.expect("ready without a token");
                    assert!(end > self.now.unix, "ready with an ended token");
                    self.demanded.remove(tenant);
                    continue;
                }
                Command::Changed { .. } | Command::Alarm { .. } => continue,
                Command::Begin { tenant, .. } => {
                    if self.waits(tenant) {
                        self.begun_for.insert(tenant.clone());
                    }
                }
                Command::Persist { .. }
                | Command::Abort { .. }
                | Command::Reread { .. }
                | Command::Fail { .. } => {}
                Command::Forget { .. } | Command::Errand { .. } => panic!("nobody asked for that"),
            }
            self.pending.push(command);
        }
    }

    fn check_request(&mut self, name: &TenantName, version: u64) {
        assert_eq!(self.in_flight, None, "two requests in one lane");
        assert!(self.rows[name].begun, "a request without a durable intent");
        assert_eq!(self.rows[name].version, version, "a request with old tokens");
        let rest = self.now.mono.since(self.answered_at);
        assert!(rest >= INTERVAL, "only {rest:?} after the last answer");
        let id = (name.clone(), version);
        assert!(!self.refused.contains(&id), "a refused token is sent again");
        if let Some([.., last]) = self.lost.get(&id).filter(|lost| lost.len() >= 2).map(|l| &l[..])
        {
            let rest = self.now.mono.since(*last);
            assert!(rest >= secs(60), "{rest:?} after the second lost answer or a later one");
            let waits = self.waits(name) || self.begun_for.contains(name);
            assert!(waits, "another request after two lost answers, and nobody waits");
        }
        self.begun_for.remove(name);
        self.in_flight = Some(name.clone());
    }

    /// Whether a caller waits now.
    fn waits(&self, name: &TenantName) -> bool {
        self.waits_until.get(name).is_some_and(|until| *until > self.now.mono)
    }

    fn answer(&mut self, how: u8) {
        if self.pending.is_empty() {
            return;
        }
        let how = if self.good { 255 } else { how };
        match self.pending.remove(0) {
            Command::Begin { tenant, version } if (60..80).contains(&how) => {
                self.begun_for.remove(&tenant);
                if how % 5 == 0 {
                    self.keeper.damaged(&tenant, version, self.now);
                }
                self.keeper.occupied(&tenant, version, secs(u64::from(how % 3)), self.now);
            }
            Command::Begin { tenant, version } => {
                if how % 8 == 0 {
                    self.keeper.left_open(&tenant, version);
                }
                let write = self.write(&tenant, how, |row| row.begun = true);
                self.keeper.begun(&tenant, version, write, self.now);
            }
            Command::Abort { tenant, version } => {
                let write = self.write(&tenant, how, |row| row.begun = false);
                self.keeper.aborted(&tenant, version, write, self.now);
            }
            Command::Fail { tenant, version, .. } => {
                let write = self.write(&tenant, how, |row| row.dead = true);
                self.keeper.failed(&tenant, version, write, self.now);
            }
            Command::Persist { tenant, version } => self.persist(&tenant, version, how),
            Command::Reread { tenant, version } => {
                let known = self.known(&tenant);
                let read = if how < 60 { Read::Failed } else { Read::Found(known) };
                self.keeper.reread(&tenant, version, read, self.now);
            }
            Command::Refresh { tenant, version, .. } => self.token_answer(&tenant, version, how),
            Command::Changed { .. }
            | Command::Alarm { .. }
            | Command::Errand { .. }
            | Command::Forget { .. } => {}
        }
    }

    /// A write that is done, that failed, or that failed and happened all the same.
    fn write(&mut self, name: &TenantName, how: u8, change: impl FnOnce(&mut Row)) -> Write {
        if how < 40 {
            return Write::Failed;
        }
        change(self.rows.get_mut(name).unwrap());
        if how < 60 { Write::Failed } else { Write::Done(()) }
    }

    fn persist(&mut self, name: &TenantName, version: u64, how: u8) {
        let end = self.now.unix.plus(secs(86_400));
        let row = self.rows.get_mut(name).unwrap();
        let write = if row.version != version {
            Write::Conflict
        } else if how < 40 {
            Write::Failed
        } else {
            *row = Row { version: version + 1, expires_at: Some(end), begun: false, dead: false };
            self.received.remove(name);
            if how < 60 { Write::Failed } else { Write::Done(version + 1) }
        };
        self.keeper.persisted(name, version, write, self.now);
    }

    fn token_answer(&mut self, name: &TenantName, version: u64, how: u8) {
        self.in_flight = None;
        self.answered_at = self.now.mono;
        let result = match how {
            0..20 => RefreshResult::Lost,
            20..30 => RefreshResult::InvalidGrant,
            30..40 => RefreshResult::InvalidClient,
            40..50 => RefreshResult::NotSent,
            50..60 => RefreshResult::LaneLost,
            60..75 => RefreshResult::Trouble(Trouble::TooManyRequests),
            75..90 => RefreshResult::Trouble(Trouble::ServerError),
            90..100 => RefreshResult::Trouble(Trouble::NotTokens),
            100.. => {
                let access_expires_at = Some(self.now.unix.plus(secs(86_400)));
                RefreshResult::Received { access_expires_at }
            }
        };
        let id = (name.clone(), version);
        if result == RefreshResult::Lost {
            self.lost.entry(id).or_default().push(self.now.mono);
        } else if result == RefreshResult::InvalidGrant {
            self.refused.insert(id);
        } else if let RefreshResult::Received { access_expires_at: Some(end) } = result {
            self.received.insert(name.clone(), end);
        }
        self.keeper.refreshed(name, version, result, self.now);
    }

    /// The world turns good: everybody who was asked for must come to an end.
    fn settle(&mut self) {
        self.good = true;
        for round in 0..200 {
            if round == 100 {
                // Their first wait may have ended long ago; callers come back.
                for name in self.demanded.clone() {
                    self.demand(&name, 60);
                    self.collect();
                }
            }
            self.answer_all();
            self.pass(secs(30));
        }
        self.answer_all();
    }

    fn answer_all(&mut self) {
        while !self.pending.is_empty() {
            self.answer(255);
            self.collect();
        }
    }
}

proptest! {
    #[test]
    fn promises_hold_in_every_history(events in proptest::collection::vec(event(), 1..160)) {
        let mut world = World::new();
        for event in events {
            world.apply(event);
        }
        world.settle();
        // Those that became ready have left the set.
        for name in &world.demanded {
            let readiness = world.keeper.readiness(name).unwrap();
            let ended = match readiness {
                Readiness::Ready | Readiness::NeedsAuthorization { .. } => true,
                Readiness::Waiting | Readiness::Failing { .. } => false,
            };
            prop_assert!(ended, "{name} is left {readiness:?}");
        }
        prop_assert!(world.keeper.is_settled());
        prop_assert!(world.pending.is_empty());
    }
}
