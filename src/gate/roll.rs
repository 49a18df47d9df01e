//! The task that keeps this instance on the roll of all, and tells the gates what the roll says.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use super::actor::Message;
use super::birth::Birth;
use super::{Gate, Sharing};
use crate::engine::Mono;
use crate::engine::turnstile::{
    ALONE_AFTER, ALONE_LIFE, Away, BEAT_EVERY, Beat, ByItself, Member, OnLoss, Roll,
};
use crate::store::StoreError;

/// A store that is lost is asked this often: when it is back, calls go on within a window and a
/// little.
const LOST_BEAT_EVERY: Duration = Duration::from_millis(50);

/// A part that has changed is acknowledged this soon: one that is lost before that keeps both.
const ACKNOWLEDGED_IN: Duration = Duration::from_millis(20);

/// An answer that is read later than this after its question is not taken.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Asks the task to take this instance off the roll.
pub(super) type Leave = oneshot::Sender<()>;

/// Starts the task, where instances share a store; it ends with the gates.
pub(super) fn spawn(gate: &Gate, sharing: &Sharing) -> mpsc::UnboundedSender<Leave> {
    let (leave, leaving) = mpsc::unbounded_channel();
    let keeper = Keeper {
        gate: gate.clone(),
        sharing: sharing.clone(),
        beat: Beat::first(sharing.on_loss.dead_after()),
        own: Birth::own(),
        heard_at: None,
        stopped_from: None,
    };
    gate.parts.tracker.clone().spawn(keeper.run(leaving));
    leave
}

impl Gate {
    /// Whether the store that instances share is lost: calls are refused, or this instance goes on
    /// by itself.
    #[must_use]
    pub fn has_lost_store(&self) -> bool {
        self.instances.is_lost.load(Ordering::Relaxed)
    }
}

struct Keeper {
    gate: Gate,
    sharing: Sharing,
    /// What is said next.
    beat: Beat,
    own: Option<Birth>,
    heard_at: Option<Mono>,
    /// It was by itself, has heard the store, and its last call has left by then.
    stopped_from: Option<Mono>,
}

impl Keeper {
    async fn run(mut self, mut leaving: mpsc::UnboundedReceiver<Leave>) {
        let clock = self.gate.parts.clock.clone();
        let stopped = self.gate.parts.stopped.clone();
        loop {
            let now = clock.mono();
            self.beat.by_itself = self.by_itself(now);
            // one that stops leaves its part to the others, however it ends
            let stops = self.gate.instances.stops.load(Ordering::Relaxed);
            self.beat.goes_alone = self.goes_alone() && !stops;
            let next = match self.ask(now).await {
                Ok(roll) => {
                    let has_changed = roll.part != self.beat.part;
                    self.read(roll, now);
                    let stops = self.beat.by_itself == ByItself::Perhaps;
                    self.stopped_from = stops.then(|| clock.mono().plus(ALONE_LIFE));
                    // until it is said which part is in use, the others reckon with both
                    let next = if has_changed { ACKNOWLEDGED_IN } else { BEAT_EVERY };
                    self.stopped_from.unwrap_or(now.plus(next))
                }
                Err(error) => {
                    if !self.set_lost(true) {
                        warn!(%error, "the store that instances share is lost");
                    }
                    self.tell(None);
                    clock.mono().plus(LOST_BEAT_EVERY)
                }
            };
            tokio::select! {
                () = clock.sleep_until(next) => {}
                Some(done) = leaving.recv() => {
                    self.beat.leaving = true;
                    // if it is not heard, the others wait until it is silent
                    drop(self.sharing.turnstile.beat(&self.beat).await);
                    let _ = done.send(());
                    return;
                }
                () = stopped.cancelled() => return,
            }
        }
    }

    /// The answer to a question of `asked`: a process that stood still finds one that is old.
    async fn ask(&self, asked: Mono) -> Result<Roll, StoreError> {
        let roll = self.sharing.turnstile.beat(&self.beat).await?;
        let took = self.gate.parts.clock.mono().since(asked);
        if took > ANSWER_MAX {
            let cause = format!("the answer was read after {took:?}");
            return Err(StoreError::Unavailable { attempt: "read the roll of instances", cause });
        }
        Ok(roll)
    }

    fn goes_alone(&self) -> bool {
        self.sharing.on_loss != OnLoss::Refuse
    }

    /// What is said of whether this instance goes on by itself: it may before the answer comes, if
    /// that can take as long as it may.
    fn by_itself(&self, now: Mono) -> ByItself {
        let quiet = self.heard_at.map_or(Duration::ZERO, |at| now.since(at));
        if self.goes_alone() && quiet.saturating_add(ANSWER_MAX) >= ALONE_AFTER {
            ByItself::Perhaps
        } else if self.stopped_from.is_some() {
            ByItself::NoMore
        } else {
            ByItself::No
        }
    }

    fn read(&mut self, roll: Roll, asked: Mono) {
        if self.set_lost(false) {
            info!("the store that instances share is back");
        }
        let count = |roll: &Roll| roll.members.iter().filter(|one| one.away.is_some()).count();
        let (away, before) = (count(&roll), self.gate.roll().map_or(0, |before| count(&before)));
        if away > before && self.goes_alone() {
            let silent = roll.members.iter().filter(|one| one.away == Some(Away::Silent));
            let at_most = silent.map(|one| one.dead_after).max();
            warn!(
                away,
                ?at_most,
                "an instance is not heard of: its part of the limits is left to it"
            );
        }
        self.heard_at = Some(self.gate.parts.clock.mono());
        self.beat.echo = roll.at;
        self.beat.part = roll.part;
        self.beat.epoch.clone_from(&roll.epoch);
        self.beat.remembered.clone_from(&roll.members);
        self.beat.ended = roll
            .members
            .iter()
            .filter(|member| self.has_ended(member))
            .map(|member| member.id.clone())
            .collect();
        let roll = Arc::new(roll);
        self.gate.instances.roll.store(Some(roll.clone()));
        self.tell(Some(&(roll, asked)));
    }

    /// Notes whether the store is lost; answers whether it was.
    fn set_lost(&self, is_lost: bool) -> bool {
        self.gate.instances.is_lost.swap(is_lost, Ordering::Relaxed)
    }

    /// Whether a silent instance ran on this machine and does not any more.
    fn has_ended(&self, member: &Member) -> bool {
        #[derive(serde::Deserialize)]
        struct Details {
            birth: Birth,
        }
        member.away == Some(Away::Silent)
            && self.own.as_ref().is_some_and(|own| {
                let details = serde_json::from_str::<Details>(&member.details);
                details.is_ok_and(|details| own.has_seen_the_end_of(&details.birth))
            })
    }

    /// The roll goes on with when it was asked for.
    fn tell(&self, roll: Option<&(Arc<Roll>, Mono)>) {
        for key in self.gate.api_keys() {
            key.send(Message::Roll(roll.cloned()));
        }
    }
}
