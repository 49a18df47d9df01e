//! No refresh token is lost but where nothing could have kept it: random histories of crashes at
//! every step, and of stores and journals that fail, against an upstream that rotates.
//!
//! Each order is carried out in its steps: journal and store as the keeper's shell does it, the
//! upstream in between. A crash strikes after any of them. The model knows which tokens existed in
//! memory alone when it struck, or never arrived: these, and no others, may end in words.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::properties::eager;
use super::tests::{SEED, at, key, secs, tenant};
use super::*;

const TENANTS: usize = 3;
const LIFE: Duration = Duration::from_hours(24);

#[derive(Clone, Copy, Debug)]
enum Event {
    Pass(u64),
    Demand(usize),
    /// The oldest order is carried out and answered; the number chooses what the network does.
    Answer(u8),
    /// The process dies when so many steps of the oldest order are done, and another one starts.
    Crash(u8),
    /// Whether the store, and the journal, can be written.
    Disk(bool, bool),
    Rejected(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1_u64..4_000).prop_map(Event::Pass),
        1 => (60_000_u64..90_000_000).prop_map(Event::Pass),
        4 => (0..TENANTS).prop_map(Event::Demand),
        12 => any::<u8>().prop_map(Event::Answer),
        3 => (0_u8..4).prop_map(Event::Crash),
        2 => any::<(bool, bool)>().prop_map(|(store, journal)| Event::Disk(store, journal)),
        1 => Just(Event::Disk(true, true)),
        1 => (0..TENANTS).prop_map(Event::Rejected),
    ]
}

/// A generation of tokens and the end of its access token.
type Tokens = (u64, Unix);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Begun,
    Posted,
    Received(Tokens),
}

/// What is durable of a tenant.
#[derive(Clone, Debug)]
struct Row {
    version: u64,
    tokens: Option<Tokens>,
    begun: bool,
    dead: bool,
    journal: Option<(u64, Step)>,
}

#[derive(Debug)]
struct World {
    keeper: TokenKeeper,
    now: Now,
    rows: BTreeMap<TenantName, Row>,
    /// The generation that the upstream accepts; the first is 0.
    good: BTreeMap<TenantName, u64>,
    /// Tokens in memory.
    pending: BTreeMap<TenantName, Tokens>,
    orders: Vec<Command>,
    /// Those whose newest tokens no longer exist anywhere but at the upstream.
    lost: BTreeSet<TenantName>,
    /// Requests with a token that had been spent, since it was last good.
    repeats: BTreeMap<TenantName, u32>,
    store_works: bool,
    journal_works: bool,
}

impl World {
    fn new() -> Self {
        let now = at(Duration::ZERO);
        let row = Row { version: 1, tokens: None, begun: false, dead: false, journal: None };
        let mut world = Self {
            keeper: TokenKeeper::new(eager(), SEED, now),
            now,
            rows: (0..TENANTS).map(|n| (tenant(n), row.clone())).collect(),
            good: (0..TENANTS).map(|n| (tenant(n), 0)).collect(),
            pending: BTreeMap::new(),
            orders: Vec::new(),
            lost: BTreeSet::new(),
            repeats: BTreeMap::new(),
            store_works: true,
            journal_works: true,
        };
        world.start();
        world
    }

    /// A process starts on what is durable.
    fn start(&mut self) {
        self.keeper = TokenKeeper::new(eager(), SEED, self.now);
        self.keeper.put_key(&key(), self.now);
        self.orders.clear();
        self.pending.clear();
        for (name, row) in &self.rows {
            let journal = row.journal.filter(|(version, _)| *version == row.version);
            let step = journal.map(|(_, step)| step);
            let mut unstored = None;
            if let Some(Step::Received(tokens)) = step {
                self.pending.insert(name.clone(), tokens);
                unstored = Some(Unstored { access_expires_at: Some(tokens.1) });
            }
            let known = Known {
                refresh_begun: row.begun && step != Some(Step::Begun),
                unstored,
                ..known(row)
            };
            self.keeper.put(name, known, self.now);
        }
        self.collect();
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Pass(ms) => self.pass(Duration::from_millis(ms)),
            Event::Demand(n) => {
                self.keeper.demand(&tenant(n), self.now.mono.plus(secs(60)), self.now);
            }
            Event::Answer(how) => self.answer(how),
            Event::Crash(steps) => self.crash(steps),
            Event::Disk(store, journal) => {
                (self.store_works, self.journal_works) = (store, journal);
            }
            Event::Rejected(n) => {
                let version = self.rows[&tenant(n)].version;
                self.keeper.rejected(&tenant(n), version, self.now);
            }
        }
        self.collect();
    }

    fn pass(&mut self, span: Duration) {
        let end = self.now.mono.plus(span);
        while let Some(at) = self.keeper.poll_timeout().filter(|at| *at <= end) {
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

    fn collect(&mut self) {
        while let Some(command) = self.keeper.poll_command() {
            match command {
                Command::Changed { .. } | Command::Alarm { .. } => {}
                Command::Begin { .. }
                | Command::Refresh { .. }
                | Command::Persist { .. }
                | Command::Abort { .. }
                | Command::Reread { .. }
                | Command::Fail { .. } => self.orders.push(command),
                Command::Forget { .. } | Command::Errand { .. } => {
                    panic!("nothing is removed or asked for here")
                }
            }
        }
    }

    /// Carries out an order up to `steps` of its steps; the answer counts only when all were done.
    fn carry_out(&mut self, order: &Command, steps: u8, how: u8) {
        let now = self.now;
        match order {
            Command::Begin { tenant, version } => {
                let done = self.journal(tenant, *version, Step::Begun, steps >= 1)
                    && self.store(steps >= 2, |row| row.begun = true, tenant);
                self.keeper.begun(tenant, *version, write(done), now);
            }
            Command::Refresh { tenant, version, .. } => {
                let result = self.exchange(tenant, *version, steps, how);
                self.keeper.refreshed(tenant, *version, result, now);
            }
            Command::Persist { tenant, version } => {
                let tokens = self.pending[tenant];
                self.journal(tenant, *version, Step::Received(tokens), steps >= 1);
                let done = self.store(
                    steps >= 2,
                    |row| {
                        (row.version, row.tokens) = (version + 1, Some(tokens));
                        (row.begun, row.dead) = (false, false);
                    },
                    tenant,
                );
                if done {
                    self.pending.remove(tenant);
                }
                let write = if done { Write::Done(version + 1) } else { Write::Failed };
                self.keeper.persisted(tenant, *version, write, now);
            }
            Command::Abort { tenant, version } => {
                let undo = |row: &mut Row| (row.begun, row.journal) = (false, None);
                let done = self.store(steps >= 1, undo, tenant);
                self.keeper.aborted(tenant, *version, write(done), now);
            }
            Command::Fail { tenant, version, .. } => {
                let dead = |row: &mut Row| (row.begun, row.dead) = (false, true);
                let done = self.store(steps >= 1, dead, tenant);
                self.keeper.failed(tenant, *version, write(done), now);
            }
            Command::Reread { tenant, version } => {
                let read = if self.store_works {
                    Read::Found(known(&self.rows[tenant]))
                } else {
                    Read::Failed
                };
                self.keeper.reread(tenant, *version, read, now);
            }
            Command::Changed { .. }
            | Command::Alarm { .. }
            | Command::Forget { .. }
            | Command::Errand { .. } => {}
        }
    }

    /// A token request: journalled, sent, perhaps rotated, perhaps answered.
    fn exchange(&mut self, name: &TenantName, version: u64, steps: u8, how: u8) -> RefreshResult {
        if !self.journal(name, version, Step::Posted, steps >= 1) {
            return RefreshResult::NotJournalled;
        }
        let has = self.rows[name].tokens.map_or(0, |(generation, _)| generation);
        let good = self.good.get_mut(name).unwrap();
        match how {
            _ if steps < 2 => return RefreshResult::NotSent,
            0..25 => return RefreshResult::NotSent,
            25..45 => return RefreshResult::Trouble(Trouble::TooManyRequests),
            45..60 => return RefreshResult::Lost,
            60.. => {}
        }
        if has != *good {
            *self.repeats.entry(name.clone()).or_default() += 1;
            assert!(self.lost.contains(name), "{name}: a spent token is sent, its heir was here");
            return RefreshResult::InvalidGrant;
        }
        *good += 1;
        let tokens = (*good, self.now.unix.plus(LIFE));
        if steps < 3 || how < 75 {
            self.lost.insert(name.clone());
            return RefreshResult::Lost;
        }
        self.pending.insert(name.clone(), tokens);
        RefreshResult::Received { access_expires_at: Some(tokens.1) }
    }

    fn journal(&mut self, name: &TenantName, version: u64, step: Step, done: bool) -> bool {
        let works = self.journal_works && done;
        let row = self.rows.get_mut(name).unwrap();
        // a begin does not make a request of before undone
        let before = row.journal.is_some_and(|(noted, _)| noted == version);
        if works && !(before && step == Step::Begun) {
            row.journal = Some((version, step));
        }
        works
    }

    fn store(&mut self, done: bool, change: impl FnOnce(&mut Row), name: &TenantName) -> bool {
        let works = self.store_works && done;
        if works {
            change(self.rows.get_mut(name).unwrap());
        }
        works
    }

    fn answer(&mut self, how: u8) {
        if !self.orders.is_empty() {
            let order = self.orders.remove(0);
            self.carry_out(&order, u8::MAX, how);
        }
    }

    fn crash(&mut self, steps: u8) {
        if !self.orders.is_empty() {
            let order = self.orders.remove(0);
            self.carry_out(&order, steps, u8::MAX);
        }
        for (name, tokens) in &self.pending {
            let row = &self.rows[name];
            let journalled = row.journal == Some((row.version, Step::Received(*tokens)));
            if !journalled && row.tokens != Some(*tokens) {
                self.lost.insert(name.clone());
            }
        }
        self.start();
    }

    /// Disk and network turn good, and everybody is asked for.
    fn settle(&mut self) {
        (self.store_works, self.journal_works) = (true, true);
        for _ in 0..60 {
            for n in 0..TENANTS {
                self.apply(Event::Demand(n));
            }
            while !self.orders.is_empty() {
                self.apply(Event::Answer(u8::MAX));
            }
            self.pass(secs(10));
        }
        while !self.orders.is_empty() {
            self.apply(Event::Answer(u8::MAX));
        }
    }
}

fn known(row: &Row) -> Known {
    Known {
        api_key: key(),
        version: row.version,
        access_expires_at: row.tokens.map(|(_, end)| end),
        last_refreshed_at: row.tokens.map(|(_, end)| end.minus(LIFE)),
        last_used_at: None,
        refresh_begun: row.begun,
        unstored: None,
        needs_authorization: row.dead.then(|| "dead".into()),
    }
}

const fn write(done: bool) -> Write {
    if done { Write::Done(()) } else { Write::Failed }
}

proptest! {
    #[test]
    fn tokens_that_arrived_outlive_every_crash(
        events in proptest::collection::vec(event(), 1..120),
    ) {
        let mut world = World::new();
        for event in events {
            world.apply(event);
        }
        world.settle();
        for n in 0..TENANTS {
            let name = tenant(n);
            let (row, good) = (&world.rows[&name], world.good[&name]);
            let has = row.tokens.map_or(0, |(generation, _)| generation);
            if world.lost.contains(&name) {
                let readiness = world.keeper.readiness(&name).unwrap();
                let told = matches!(readiness, Readiness::NeedsAuthorization { .. });
                prop_assert!(row.dead && told, "{name} is lost and nobody is told: {readiness:?}");
            } else {
                prop_assert!(!row.dead, "{name} is given up though its tokens exist");
                prop_assert_eq!(has, good, "{} has other tokens than the upstream's", name);
                prop_assert_eq!(world.keeper.readiness(&name), Some(&Readiness::Ready));
            }
        }
    }
}
