//! Word from the store that several instances share, carried to the gates that it is about.

use super::Gate;
use super::actor::Message;

/// Starts the task, where there is such a store; it ends with the gates.
pub(super) fn spawn(gate: &Gate) {
    let Some(turnstile) = &gate.parts.turnstile else { return };
    let (gate, mut words) = (gate.clone(), turnstile.words());
    let stopped = gate.parts.stopped.clone();
    gate.parts.tracker.clone().spawn(async move {
        loop {
            tokio::select! {
                Some((name, turn)) = words.recv() => {
                    if let Some(key) = gate.api_key(&name) {
                        key.send(Message::Turn(turn));
                    }
                }
                () = stopped.cancelled() => return,
            }
        }
    });
}
