//! What is promised of neighbours, of bulk work, and of a whole day: departures never stop.

use std::collections::BTreeSet;

use super::random::Chance;
use super::*;

const SPACING: Duration = Duration::from_millis(265);

#[test]
fn a_neighbour_of_five_thousand_calls_is_not_felt() {
    let wide = Limits { capacity_per_tenant: 5_000, ..limits("4") };
    let active = ["a", "c", "d"];
    let mut world = World::new(wide).ready(&["a", "b", "c", "d"]);
    for _ in 0..5_000 {
        world.call("a", 7_200_000).unwrap();
    }
    for _ in 0..20 {
        world.call("c", 7_200_000).unwrap();
        world.call("d", 7_200_000).unwrap();
    }
    world.serve(Duration::from_millis(1_400));
    let (arrived, call) = (world.now.mono, world.call("b", 30_000).unwrap());
    let bound = SPACING * u32::try_from(active.len() + 1).unwrap();
    let mut last = None;
    while last != Some(call) {
        let at = world.scheduler.poll_timeout().unwrap();
        world.pass(at.since(world.now.mono));
        for (_, id) in std::mem::take(&mut world.granted) {
            world.send(id, GOOD);
            last = Some(id);
        }
        assert!(world.now.mono.since(arrived) <= bound, "not gone after {bound:?}");
    }
    let left = world.now.mono.since(arrived);
    println!("beside 5,000 calls of a neighbour: {left:?}, bound {bound:?}");
}

#[test]
fn bulk_gets_its_twelfth_beside_endless_interactive_calls() {
    let mut world = World::new(limits("4")).ready(&["a", "b"]);
    let arrive = |world: &mut World, tenant: &str, class| {
        let deadline = world.now.mono.plus(Duration::from_secs(86_400));
        let entry = Entry::Back;
        world.enqueue(&Arrival { tenant: name(tenant), class, deadline, entry }).unwrap()
    };
    let mut bulk = BTreeSet::new();
    for _ in 0..30 {
        bulk.insert(arrive(&mut world, "a", Class::Bulk));
        arrive(&mut world, "b", Class::Interactive);
    }
    let mut of_bulk = 0;
    for _ in 0..240 {
        while world.granted.is_empty() {
            let at = world.scheduler.poll_timeout().unwrap();
            world.pass(at.since(world.now.mono));
        }
        let (_, call) = world.granted.remove(0);
        of_bulk += usize::from(bulk.contains(&call));
        world.send(call, GOOD);
        arrive(&mut world, "b", Class::Interactive);
    }
    println!("bulk: {of_bulk} of 240 beside endless interactive calls");
    // eight of nine go to the interactive ones, and one of nine to bulk, as nobody sends normal
    // ones: never less than a twelfth
    assert!((20..=27).contains(&of_bulk), "{of_bulk}");
}

/// A day in which callers leave and answers fail; nothing is ever late.
struct Soak {
    world: World,
    chance: Chance,
    answers: BTreeSet<(Mono, CallId)>,
    waiting: Vec<CallId>,
    closed_until: Mono,
    day: Day,
    /// Since when a call could have left.
    open_since: Option<Mono>,
    departures: u64,
    longest: Duration,
}

impl Soak {
    fn pass(&mut self, span: Duration) {
        let end = self.world.now.mono.plus(span);
        loop {
            self.take_grants();
            let answer = self.answers.first().map(|(at, _)| *at);
            let wake = self.world.scheduler.poll_timeout();
            let Some(at) = answer.into_iter().chain(wake).filter(|at| *at <= end).min() else {
                break;
            };
            self.world.step_to(at);
            self.watch();
            match self.answers.first().copied().filter(|(due, _)| *due <= at) {
                Some((due, call)) => {
                    self.answers.remove(&(due, call));
                    self.answer(call);
                }
                None => self.world.scheduler.handle_timeout(self.world.now),
            }
            self.world.settle_commands();
        }
        self.world.step_to(end);
        self.watch();
    }

    fn take_grants(&mut self) {
        for (at, call) in std::mem::take(&mut self.world.granted) {
            self.departures += 1;
            if let Some(since) = self.open_since.take() {
                self.longest = self.longest.max(at.since(since));
            }
            self.waiting.retain(|other| *other != call);
            self.world.scheduler.sent(call, self.world.now);
            let latency = Duration::from_millis(20 + self.chance.below(400));
            self.answers.insert((at.plus(latency), call));
        }
        for (call, _) in std::mem::take(&mut self.world.refused) {
            self.waiting.retain(|other| *other != call);
        }
        let open = !self.waiting.is_empty() && self.world.now.mono >= self.closed_until;
        self.open_since = if open { self.open_since.or(Some(self.world.now.mono)) } else { None };
    }

    fn answer(&mut self, call: CallId) {
        let outcome = match self.chance.below(1_000) {
            0 => Outcome::Throttled,
            1 => Outcome::Edge,
            2..12 => Outcome::Lost,
            12..22 => Outcome::NotSent,
            _ => GOOD,
        };
        self.world.scheduler.settle(call, outcome, self.world.now);
        if outcome == Outcome::Throttled {
            let span = Duration::from_secs(1) + self.world.scheduler.pacer.guard_now();
            self.closed_until = self.closed_until.max(self.world.now.mono.plus(span));
        }
        self.closed_until = self.closed_until.max(self.world.scheduler.edge.until());
        if self.world.now.mono < self.closed_until {
            self.open_since = None;
        }
    }

    fn watch(&mut self) {
        let day = DayReset::default().day_of(self.world.now.unix);
        if day > self.day {
            // two seconds of silence when the day turns
            self.day = day;
            self.closed_until = self.world.now.mono.plus(Duration::from_secs(2));
            self.open_since = None;
        }
        let Some(since) = self.open_since else { return };
        let waited = self.world.now.mono.since(since);
        let bound = self.world.scheduler.pacer.pace() * 2;
        assert!(waited <= bound, "{} wait, none left for {waited:?}", self.waiting.len());
    }
}

#[test]
fn in_a_day_of_leavers_and_faults_departures_never_stop() {
    let many = Limits { per_day: 10_000_000, ..limits("4") };
    let world = World::new(many).ready(&["a", "b", "c"]);
    let start = world.now.mono;
    let mut soak = Soak {
        closed_until: world.now.mono,
        day: DayReset::default().day_of(world.now.unix),
        world,
        chance: Chance(7),
        answers: BTreeSet::new(),
        waiting: Vec::new(),
        open_since: None,
        departures: 0,
        longest: Duration::ZERO,
    };
    while soak.world.now.mono.since(start) < Duration::from_secs(86_400) {
        for _ in 0..soak.chance.below(60) {
            let tenant = ["a", "b", "c"][usize::try_from(soak.chance.below(3)).unwrap()];
            let wait = 1_000 + soak.chance.below(60_000);
            soak.waiting.extend(soak.world.call(tenant, wait));
            soak.take_grants();
        }
        for _ in 0..soak.chance.below(20) {
            let count = u64::try_from(soak.waiting.len()).unwrap().max(1);
            let at = usize::try_from(soak.chance.below(count)).unwrap();
            if at < soak.waiting.len() {
                let call = soak.waiting.swap_remove(at);
                soak.world.scheduler.cancel(call, soak.world.now);
                soak.world.settle_commands();
                soak.take_grants();
            }
        }
        let span = Duration::from_millis(soak.chance.below(20_000));
        soak.pass(span);
        if soak.chance.below(50) == 0 {
            // an hour's step of the wall clock within the day, back and forth again
            soak.world.now.unix = soak.world.now.unix.minus(Duration::from_secs(3_600));
            soak.pass(Duration::from_secs(1));
            soak.world.now.unix = soak.world.now.unix.plus(Duration::from_secs(3_600));
        }
    }
    println!("{} departures in a day; longest idle with work {:?}", soak.departures, soak.longest);
    assert!(soak.departures > 50_000);
}
