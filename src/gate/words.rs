//! Word from the store that several instances share, carried to the gates that it is about.

use super::actor::Message;
use super::{Gate, Sharing};

/// Starts the task; it ends with the gates.
pub(super) fn spawn(gate: &Gate, sharing: &Sharing) {
    let (gate, mut words) = (gate.clone(), sharing.turnstile.words());
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
