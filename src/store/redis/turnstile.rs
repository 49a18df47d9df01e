//! The turnstile on a Redis or Valkey server: one script a question, and word of turns by a
//! channel.
//!
//! The script has the rules; here is only how a question and its answer are written. Its keys carry
//! the API key's hash tag, so that a cluster keeps them together.

mod roll;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use redis::{Script, ScriptInvocation};
use tokio::sync::mpsc;

use super::link::Link;
use super::names::Names;
use crate::config::RedisUrl;
use crate::engine::turnstile::{Ask, Beat, Part, Report, Roll, Stamp, Told, Turn, Whose};
use crate::engine::{ApiKeyName, Class, Day, TenantName};
use crate::store::{InstanceInfo, SharedTurnstile, StoreError};

const ATTEMPT: &str = "ask for a slot";
const SCRIPT: &str = concat!(include_str!("turnstile/kept.lua"), include_str!("turnstile.lua"));
/// Between two tries to listen: word that is missed meanwhile is made up for by asking.
const LISTEN_AGAIN: Duration = Duration::from_millis(250);

/// The turnstiles of all API keys.
#[derive(Clone)]
pub struct RedisTurnstile {
    link: Link,
    script: Arc<Script>,
    roll_script: Arc<Script>,
    names: Names,
    /// Tells this process from all others.
    instance: Arc<str>,
    /// Where it listens, on which host: a process that has the name of another has its place.
    name: Arc<str>,
    /// What operators may want to know of it, as JSON.
    details: Arc<str>,
}

impl RedisTurnstile {
    /// Connects to the server at `url` for `instance`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it cannot be reached.
    pub async fn open(url: &RedisUrl, instance: &InstanceInfo) -> Result<Self, StoreError> {
        Ok(Self::new(Link::open(url).await?, Names::new(&url.prefix), instance))
    }

    /// The same connection for another instance.
    #[must_use]
    pub fn seen_as(&self, id: &str) -> Self {
        Self { instance: id.into(), name: id.into(), ..self.clone() }
    }

    pub(super) fn new(link: Link, names: Names, instance: &InstanceInfo) -> Self {
        let script = Arc::new(Script::new(SCRIPT));
        let roll_script = Arc::new(Script::new(include_str!("roll.lua")));
        Self {
            link,
            script,
            roll_script,
            names,
            instance: instance.id.as_str().into(),
            name: instance.name.as_str().into(),
            details: instance.details.as_str().into(),
        }
    }

    fn call(&self, api_key: &ApiKeyName, ask: &Ask) -> ScriptInvocation<'_> {
        let mut call = self.script.prepare_invoke();
        for name in [
            "turnstile",
            "slots",
            "days",
            "waits",
            "weights",
            "busy",
            "absent",
            "line:1",
            "line:2",
            "line:3",
            "finish:1",
            "finish:2",
            "finish:3",
            "heard",
            "",
        ] {
            call.key(self.names.counting(api_key, name));
        }
        call.arg(self.names.turns()).arg(api_key.as_str()).arg(&*self.instance);
        let terms = &ask.terms;
        let unanswered = terms.unanswered.saturating_add(ask.life);
        call.arg(ask.wanted_until.map_or(0, |until| until.0))
            .arg(terms.calls)
            .arg(micros(terms.rate.window()))
            .arg(micros(unanswered))
            .arg(micros(terms.spaced))
            .arg(micros(unanswered))
            .arg(micros(ask.grace))
            .arg(terms.per_day)
            .arg(terms.day_reset.after_midnight().as_secs())
            .arg(terms.reserve_percent)
            .arg(terms.withheld)
            .arg(ask.memory.ticket)
            .arg(ask.memory.day.number())
            .arg(ask.memory.used)
            .arg(ask.memory.begun.0);
        call.arg(ask.number).arg(ask.again.len().saturating_add(ask.reports.len()));
        let new = ask.reports.iter().map(|report| (ask.number, *report));
        for (first, report) in ask.again.iter().copied().chain(new) {
            let (kind, ticket, at, span) = report_args(&report);
            call.arg(first).arg(kind).arg(ticket).arg(at).arg(span);
        }
        call.arg(u8::from(ask.anew)).arg(ask.known).arg(ask.line.len());
        for place in &ask.line {
            call.arg(number_of(place.class)).arg(place.tenant.as_str());
            call.arg(place.weight).arg(place.count);
        }
        call
    }

    fn turn_of(&self, word: &str) -> Option<(ApiKeyName, Turn)> {
        let mut parts = word.split(' ');
        let api_key = ApiKeyName::new(parts.next()?).ok()?;
        let due = Duration::from_micros(parts.next()?.parse().ok()?);
        let whose = match parts.next()? {
            "*" => Whose::All,
            instance if instance == &*self.instance => Whose::Mine,
            _ => Whose::Another,
        };
        Some((api_key, Turn { whose, due }))
    }
}

#[async_trait]
impl SharedTurnstile for RedisTurnstile {
    async fn ask(&self, api_key: &ApiKeyName, ask: &Ask) -> Result<Told, StoreError> {
        let answer: Answer = self.link.run(ATTEMPT, &self.call(api_key, ask)).await?;
        told(answer).ok_or_else(|| StoreError::Corrupt {
            attempt: ATTEMPT,
            cause: "the answer of the script is not as expected".to_owned(),
        })
    }

    async fn beat(&self, beat: &Beat) -> Result<Roll, StoreError> {
        let (head, members): (roll::Head, Vec<roll::Row>) =
            self.link.run(roll::ATTEMPT, &self.roll_call(beat)).await?;
        let (at, epoch, from, to) = head;
        let members = members.into_iter().map(roll::member).collect();
        Ok(Roll { at: Stamp(at), epoch, part: Part { from, to }, members })
    }

    async fn listen(&self, told: mpsc::UnboundedSender<(ApiKeyName, Turn)>) {
        loop {
            if let Ok(mut messages) = self.link.listen(&self.names.turns()).await {
                let mut messages = messages.on_message();
                while let Some(message) = messages.next().await {
                    let word: String = message.get_payload().unwrap_or_default();
                    let Some(turn) = self.turn_of(&word) else { continue };
                    if told.send(turn).is_err() {
                        return;
                    }
                }
            }
            if told.is_closed() {
                return;
            }
            tokio::time::sleep(LISTEN_AGAIN).await;
        }
    }
}

/// What the script answers, in its order.
type Answer = ((u64, u64, u64, u8, String), (u32, u64, u8, i64, u64, u64, u64), (u8, i64, u8, u32));

fn told(answer: Answer) -> Option<Told> {
    let ((at, begun, ticket, class, tenant), day, turn) = answer;
    let (day, used, is_spent, probe_in, closed, widened, refused) = day;
    let (whose, due, forgotten, sharers) = turn;
    let granted = match class_of(class) {
        Some(class) => Some((class, TenantName::new(&tenant).ok()?)),
        None => None,
    };
    let whose = match whose {
        1 => Some(Whose::Mine),
        2 => Some(Whose::Another),
        _ => None,
    };
    let due = u64::try_from(due).ok().map(Duration::from_micros);
    Some(Told {
        at: Stamp(at),
        begun: Stamp(begun),
        ticket,
        granted,
        day: Day::new(day),
        used,
        spent: u64::try_from(probe_in).ok().filter(|_| is_spent == 1).map(Duration::from_micros),
        closed: Duration::from_micros(closed),
        widened: Duration::from_micros(widened),
        refused,
        next: whose.zip(due).map(|(whose, due)| Turn { whose, due }),
        forgotten: forgotten == 1,
        sharers,
    })
}

/// Kind, ticket, moment and span of a report, as the script reads them.
fn report_args(report: &Report) -> (&'static str, u64, u64, u64) {
    match report {
        Report::Held { ticket, granted_at, hold } => ("held", *ticket, granted_at.0, micros(*hold)),
        Report::Returned { ticket, day } => ("returned", *ticket, day.number().into(), 0),
        Report::Clean { granted_at } => ("clean", 0, granted_at.0, 0),
        Report::Throttled { guard } => ("throttled", 0, 0, micros(*guard)),
        Report::Closed { span } => ("closed", 0, 0, micros(*span)),
        Report::Spent { day } => ("spent", 0, day.number().into(), 0),
        Report::Used { day, calls } => ("used", *calls, day.number().into(), 0),
    }
}

/// Classes are numbered from 1 in the script.
const fn number_of(class: Class) -> u8 {
    match class {
        Class::Interactive => 1,
        Class::Normal => 2,
        Class::Bulk => 3,
    }
}

const fn class_of(number: u8) -> Option<Class> {
    match number {
        1 => Some(Class::Interactive),
        2 => Some(Class::Normal),
        3 => Some(Class::Bulk),
        _ => None,
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX).min(Stamp::NEVER.0)
}
