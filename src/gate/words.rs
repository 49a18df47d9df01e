//! Word from the store that several instances share, carried to the gates that it is about.

use tokio::sync::mpsc;

use super::actor::Message;
use super::{Gate, Sharing};

/// Starts the task; it ends with the gates.
pub(super) fn spawn(gate: &Gate, sharing: &Sharing) {
    let (told, mut words) = mpsc::unbounded_channel();
    let (gate, turnstile) = (gate.clone(), sharing.turnstile.clone());
    let stopped = gate.parts.stopped.clone();
    gate.parts.tracker.clone().spawn(async move {
        let listening = turnstile.listen(told);
        tokio::pin!(listening);
        loop {
            tokio::select! {
                () = &mut listening => return,
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
