//! Refreshes that nobody waits for, over days and years: ahead of need, new grants, tokens kept
//! alive, and how long the lane takes.

use super::*;

/// What token requests take here in turn, in milliseconds.
const EXCHANGES: [u64; 8] = [80, 240, 40, 400, 120, 300, 60, 200];
const DAYS_180: Duration = Duration::from_hours(180 * 24);

/// Many tenants, a store and an endpoint that do all they are told to.
struct Fleet {
    keeper: TokenKeeper,
    now: Now,
    /// The token request under way ends then.
    answer_at: Option<(Mono, TenantName, u64)>,
    /// Who was refreshed and when, in order.
    refreshed: Vec<(TenantName, Unix)>,
    alarms: Vec<TenantName>,
}

impl Fleet {
    fn new(refresh_ahead: Duration, keep_alive_after: Duration) -> Self {
        let now = at(Duration::ZERO);
        let settings = Settings { refresh_ahead, keep_alive_after, ..settings() };
        let mut keeper = TokenKeeper::new(settings, SEED, now);
        keeper.put_key(&key(), now);
        Self { keeper, now, answer_at: None, refreshed: Vec::new(), alarms: Vec::new() }
    }

    /// A tenant whose tokens were refreshed now, or one that was never refreshed and has no access
    /// token.
    fn put(&mut self, n: usize, refreshed: bool) {
        let life = refreshed.then(|| self.now.unix.plus(DAY));
        let known = Known {
            api_key: key(),
            version: 1,
            access_expires_at: life,
            last_refreshed_at: refreshed.then_some(self.now.unix),
            last_used_at: None,
            refresh_begun: false,
            unstored: None,
            needs_authorization: None,
        };
        self.keeper.put(&tenant(n), known, self.now);
        self.keeper.handle_timeout(self.now);
        self.obey();
    }

    fn used(&mut self, n: usize) {
        self.keeper.used(&tenant(n), self.now.unix, self.now);
        self.obey();
    }

    fn obey(&mut self) {
        while let Some(command) = self.keeper.poll_command() {
            match command {
                Command::Begin { tenant, version } => {
                    self.keeper.begun(&tenant, version, Write::Done(()), self.now);
                }
                Command::Refresh { tenant, version, .. } => {
                    let took = EXCHANGES[self.refreshed.len() % EXCHANGES.len()];
                    let answer_at = self.now.mono.plus(Duration::from_millis(took));
                    let before = self.answer_at.replace((answer_at, tenant, version));
                    assert_eq!(before, None, "two requests at a time");
                }
                Command::Persist { tenant, version } => {
                    let write = Write::Done(version + 1);
                    self.keeper.persisted(&tenant, version, write, self.now);
                }
                Command::Alarm { tenant, alarm } => {
                    assert_eq!(alarm, Alarm::RefreshTokenAgeing);
                    self.alarms.push(tenant);
                }
                Command::Changed { .. } => {}
                Command::Abort { .. }
                | Command::Reread { .. }
                | Command::Fail { .. }
                | Command::Forget { .. }
                | Command::Errand { .. } => panic!("{command:?}"),
            }
        }
    }

    /// Time passes, with the machine woken whenever it wants.
    fn pass(&mut self, span: Duration) {
        self.obey();
        let end = self.now.mono.plus(span);
        loop {
            let answer = self.answer_at.as_ref().map(|(at, ..)| *at);
            let wake = self.keeper.poll_timeout();
            let next = [answer, wake].into_iter().flatten().min().filter(|at| *at <= end);
            let Some(next) = next else { break };
            self.move_to(next.max(self.now.mono));
            match self.answer_at.take_if(|(at, ..)| *at <= self.now.mono) {
                Some((_, name, version)) => {
                    let access_expires_at = Some(self.now.unix.plus(DAY));
                    let result = RefreshResult::Received { access_expires_at };
                    self.refreshed.push((name.clone(), self.now.unix));
                    self.keeper.refreshed(&name, version, result, self.now);
                }
                None => self.keeper.handle_timeout(self.now),
            }
            self.obey();
        }
        self.move_to(end);
    }

    fn move_to(&mut self, mono: Mono) {
        let span = mono.since(self.now.mono);
        self.now = Now { mono, unix: self.now.unix.plus(span) };
    }

    fn days(&mut self, days: u64) {
        self.pass(DAY * u32::try_from(days).unwrap());
    }
}

fn hours(n: u64) -> Duration {
    Duration::from_hours(n)
}

#[test]
fn a_tenant_in_use_is_refreshed_before_its_token_ends_and_one_that_is_not_used_is_not() {
    let mut fleet = Fleet::new(hours(2), Duration::ZERO);
    let start = fleet.now.unix;
    for n in 0..20 {
        fleet.put(n, true);
    }
    (0..10).for_each(|n| fleet.used(n));
    fleet.days(1);
    let mut names: Vec<TenantName> = fleet.refreshed.iter().map(|(name, _)| name.clone()).collect();
    names.sort();
    let mut used: Vec<TenantName> = (0..10).map(tenant).collect();
    used.sort();
    assert_eq!(names, used);
    for (name, at) in &fleet.refreshed {
        let left = start.plus(DAY).since(*at);
        assert!(left > secs(290) && left <= hours(2), "{name} with {left:?} left");
    }
    assert!((0..10).all(|n| fleet.keeper.readiness(&tenant(n)) == Some(&Readiness::Ready)));
    fleet.days(3);
    assert_eq!(fleet.refreshed.len(), 10, "a day after the last call nobody needs a token");
    // it comes back, is served after a wait, and is looked after again
    fleet.keeper.demand(&tenant(0), fleet.now.mono.plus(secs(30)), fleet.now);
    fleet.pass(secs(2));
    fleet.used(0);
    assert_eq!(fleet.refreshed.len(), 11);
    fleet.days(1);
    assert_eq!(fleet.refreshed.len(), 12);
}

#[test]
fn without_refresh_ahead_nothing_is_asked_before_somebody_waits() {
    let mut fleet = Fleet::new(Duration::ZERO, Duration::ZERO);
    fleet.put(0, false);
    fleet.put(1, true);
    fleet.used(1);
    fleet.days(30);
    assert_eq!(fleet.refreshed, []);
}

#[test]
fn those_who_wait_go_before_two_thousand_and_the_end_is_known() {
    let mut fleet = Fleet::new(hours(2), Duration::ZERO);
    for n in 0..2_000 {
        fleet.put(n, false);
    }
    let waiting = [700, 1_999, 3];
    for n in waiting {
        fleet.keeper.demand(&tenant(n), fleet.now.mono.plus(secs(60 + n as u64)), fleet.now);
    }
    let mut estimates = Vec::new();
    for _ in 0..40 {
        let lane = fleet.keeper.lane(&key(), fleet.now);
        estimates.push((fleet.now.unix, lane.done_at, lane.depth, fleet.refreshed.len()));
        fleet.pass(secs(60));
    }
    let first: Vec<TenantName> =
        fleet.refreshed[..3].iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(first, [tenant(3), tenant(700), tenant(1_999)], "the earliest deadline first");
    assert_eq!(fleet.refreshed.len(), 2_000);
    for pair in fleet.refreshed.windows(2) {
        let gap = pair[1].1.since(pair[0].1).as_millis();
        assert!((1_040..=1_400).contains(&gap), "one a second: {gap} ms");
    }
    let done = fleet.refreshed.last().unwrap().1;
    assert_eq!(fleet.keeper.lane(&key(), fleet.now), LaneOutlook { depth: 0, done_at: None });
    let (_, at_first, depth, _) = estimates.remove(0);
    assert_eq!(depth, 2_000);
    let off =
        at_first.unwrap().since(done).as_secs_f64() / done.since(estimates[0].0).as_secs_f64();
    assert!(off < 0.25, "{off}: before the first answer its time is assumed");
    for (at, estimate, depth, refreshed) in estimates {
        let Some(estimate) = estimate else { continue };
        assert_eq!(depth, 2_000 - refreshed);
        let (left, said) = (done.since(at).as_secs_f64(), estimate.since(at).as_secs_f64());
        assert!((said - left).abs() <= 0.05 * left + 1.0, "{said} s said with {left} s left");
    }
}

/// What the busiest minute of a day had of all refreshes.
fn busiest_minute(fleet: &Fleet, from: Unix, until: Unix) -> usize {
    let mut minutes = BTreeMap::new();
    for (_, at) in fleet.refreshed.iter().filter(|(_, at)| *at >= from && *at < until) {
        *minutes.entry(at.as_secs() / 60).or_insert(0) += 1;
    }
    minutes.into_values().max().unwrap_or_default()
}

#[test]
fn a_thousand_tenants_that_came_in_one_minute_do_not_stay_in_one_minute() {
    let mut fleet = Fleet::new(hours(2), Duration::ZERO);
    for n in 0..1_000 {
        fleet.put(n, true);
        fleet.pass(Duration::from_millis(60));
    }
    let mut busiest = Vec::new();
    for _ in 0..14 {
        let begin = fleet.now.unix;
        for _ in 0..2 {
            (0..1_000).for_each(|n| fleet.used(n));
            fleet.pass(hours(12));
        }
        busiest.push(busiest_minute(&fleet, begin, fleet.now.unix));
    }
    println!("refreshes of 1,000 tenants in the busiest minute, by day: {busiest:?}");
    assert!(busiest[0] <= 25, "over two hours from the first day on: {busiest:?}");
    assert!(busiest[7..].iter().all(|count| *count <= 15), "and ever wider: {busiest:?}");
    // Each of them always had a token: nobody was refreshed later than its margin.
    assert!((0..1_000).all(|n| fleet.keeper.readiness(&tenant(n)) == Some(&Readiness::Ready)));
}

#[test]
fn dormant_refresh_tokens_are_used_in_time_for_years_and_not_on_one_day() {
    let mut fleet = Fleet::new(hours(2), hours(150 * 24));
    let start = fleet.now.unix;
    (0..40).for_each(|n| fleet.put(n, true));
    fleet.days(2 * 365);
    assert_eq!(fleet.alarms, [], "none came near its end");
    let mut last: BTreeMap<TenantName, Unix> = (0..40).map(|n| (tenant(n), start)).collect();
    let mut days = BTreeMap::new();
    for (name, at) in &fleet.refreshed {
        let rested = at.since(last.insert(name.clone(), *at).unwrap());
        assert!(rested + secs(60) >= hours(135 * 24), "{name} after {rested:?}");
        assert!(rested <= hours(150 * 24) + secs(120), "{name} after {rested:?}");
        *days.entry(at.since(start).as_secs() / 86_400).or_insert(0) += 1;
    }
    assert!(last.values().all(|at| fleet.now.unix.since(*at) < DAYS_180));
    let busiest = days.values().max().unwrap();
    assert!(*busiest <= 10, "{busiest} of 40 on one day: {days:?}");
}

#[test]
fn without_keep_alive_somebody_is_told_thirty_days_before_the_end() {
    let mut fleet = Fleet::new(hours(2), Duration::ZERO);
    let ends = fleet.now.unix.plus(DAYS_180);
    fleet.put(0, true);
    fleet.days(149);
    assert_eq!(fleet.keeper.refresh_token_ends(&tenant(0), fleet.now), Some((ends, false)));
    assert_eq!(fleet.alarms, []);
    fleet.days(2);
    assert_eq!(fleet.keeper.refresh_token_ends(&tenant(0), fleet.now), Some((ends, true)));
    fleet.days(100);
    assert_eq!(fleet.alarms, [tenant(0)], "once");
    assert_eq!(fleet.refreshed, []);
    // used after all, it is young again
    assert!(fleet.keeper.refresh_now(&tenant(0), fleet.now));
    fleet.pass(secs(2));
    let (ends, ageing) = fleet.keeper.refresh_token_ends(&tenant(0), fleet.now).unwrap();
    assert!(!ageing && ends.since(fleet.now.unix) + secs(10) > DAYS_180);
    fleet.days(151);
    assert_eq!(fleet.alarms.len(), 2);
}

#[test]
fn a_grant_of_unknown_age_is_tried_even_if_only_kept_alive() {
    let mut fleet = Fleet::new(Duration::ZERO, hours(150 * 24));
    fleet.put(0, false);
    assert_eq!(fleet.keeper.refresh_token_ends(&tenant(0), fleet.now), None);
    fleet.pass(secs(5));
    assert_eq!(fleet.refreshed.len(), 1);
    fleet.days(100);
    assert_eq!(fleet.refreshed.len(), 1);
}

#[test]
fn short_lives_are_not_refreshed_without_end() {
    let mut world = World::new();
    let settings = Settings { refresh_ahead: hours(2), ..settings() };
    world.keeper.set_times(settings, world.now);
    world.load(0, None);
    world.pass(secs(1));
    let access_expires_at = Some(world.now.unix.plus(secs(60)));
    world.exchange(0, RefreshResult::Received { access_expires_at });
    assert_eq!(world.order(), Command::Persist { tenant: tenant(0), version: 1 });
    world.keeper.persisted(&tenant(0), 1, Write::Done(2), world.now);
    world.keeper.used(&tenant(0), world.now.unix, world.now);
    world.pass(secs(29));
    assert_eq!(world.orders(), [], "half of a life is not ahead");
    world.pass(secs(1));
    assert!(matches!(world.order(), Command::Begin { .. }));
}

#[test]
fn a_refused_grant_is_not_tried_ahead_and_a_failing_endpoint_is_not_pressed() {
    let mut world = World::new();
    let settings = Settings { refresh_ahead: hours(2), ..settings() };
    world.keeper.set_times(settings, world.now);
    world.load(0, None);
    world.load(1, None);
    world.pass(secs(1));
    world.exchange(0, RefreshResult::Trouble(Trouble::Blocked));
    assert!(matches!(world.order(), Command::Abort { .. }));
    world.keeper.aborted(&tenant(0), 1, Write::Done(()), world.now);
    world.pass(secs(1));
    // the other one's turn: trouble goes to the end
    world.exchange(1, RefreshResult::InvalidGrant);
    assert!(matches!(world.order(), Command::Reread { .. }));
    let known = world.known(None);
    world.keeper.reread(&tenant(1), 1, Read::Found(known), world.now);
    assert!(matches!(world.order(), Command::Fail { .. }));
    world.keeper.failed(&tenant(1), 1, Write::Done(()), world.now);
    world.pass(secs(1));
    world.receive(0, 1);
    world.pass(DAY);
    assert_eq!(world.orders(), [], "nobody has used it, and the dead one is left alone");
}

#[test]
fn received_tokens_serve_while_the_store_fails_and_a_start_stores_them_first() {
    let mut world = World::with_life(secs(0));
    world.demand(0, secs(30));
    let access_expires_at = Some(world.now.unix.plus(DAY));
    world.exchange(0, RefreshResult::Received { access_expires_at });
    world.orders();
    assert!(!world.is_ready(0), "the store may take them yet");
    world.keeper.persisted(&tenant(0), 1, Write::Failed, world.now);
    assert!(world.is_ready(0));
    assert_eq!(world.keeper.serves_unstored(&tenant(0)), Some(2));
    world.keeper.rejected(&tenant(0), 1, world.now);
    assert!(world.is_ready(0), "what is said of the old token is no news");
    world.keeper.rejected(&tenant(0), 2, world.now);
    assert!(matches!(world.readiness(0), Readiness::Failing { cause: Cause::Store, .. }));
    world.pass(secs(1));
    assert!(matches!(world.order(), Command::Persist { .. }));
    world.keeper.persisted(&tenant(0), 1, Write::Failed, world.now);
    assert!(!world.is_ready(0), "the rejection is remembered");
    world.pass(secs(2));
    assert!(matches!(world.order(), Command::Persist { .. }));
    world.keeper.persisted(&tenant(0), 1, Write::Done(2), world.now);
    assert!(!world.is_ready(0), "also when they are stored");
    assert_eq!(world.order(), Command::Begin { tenant: tenant(0), version: 2 });
    // another process finds them in its journal
    let mut next = World::new();
    let unstored = Some(Unstored { access_expires_at });
    let known = Known { unstored, refresh_begun: true, ..next.known(Some(secs(0))) };
    next.keeper.put(&tenant(0), known, next.now);
    assert_eq!(next.order(), Command::Persist { tenant: tenant(0), version: 1 });
    next.keeper.persisted(&tenant(0), 1, Write::Failed, next.now);
    assert!(next.is_ready(0));
    next.pass(secs(1));
    assert!(matches!(next.order(), Command::Persist { .. }));
    next.keeper.persisted(&tenant(0), 1, Write::Done(2), next.now);
    assert!(next.is_ready(0));
    next.pass(secs(100));
    assert_eq!(next.orders(), [], "no request was needed");
}

#[test]
fn a_new_grant_that_waits_in_the_idle_lane_counts_as_refreshing_until_it_has_a_token() {
    let mut fleet = Fleet::new(hours(2), Duration::ZERO);
    let refreshing =
        |fleet: &Fleet| [0, 1].map(|n| fleet.keeper.is_refreshing(&tenant(n), fleet.now));
    fleet.put(0, false);
    fleet.put(1, false);
    assert_eq!(refreshing(&fleet), [true, true], "new grants without an access token");
    fleet.pass(secs(60));
    assert_eq!(fleet.refreshed.len(), 2);
    assert_eq!(refreshing(&fleet), [false, false]);
}

#[test]
fn a_tenant_counts_as_in_use_for_a_day_to_the_moment() {
    let begin = at(Duration::ZERO);
    let settings = Settings { refresh_ahead: Duration::from_hours(2), ..settings() };
    let known = Known {
        access_expires_at: Some(begin.unix.plus(DAY)),
        last_refreshed_at: Some(begin.unix),
        last_used_at: Some(begin.unix.minus(secs(300))),
        ..World::new().known(None)
    };
    let subject = Tenant::new(&tenant(0), known, &settings);
    // the last moment is within the margin: whatever the tenant's own moment, it has come
    let over = Duration::from_secs(86_400 - 300);
    let due = |span: Duration| subject.idle_due(at(span));
    assert_eq!(due(over), None, "a day after its last call");
    assert_eq!(due(over.saturating_sub(secs(1))), Some(begin.unix.plus(DAY)));
}
