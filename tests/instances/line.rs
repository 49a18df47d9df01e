//! A line between an instance and its server that a test can slow down, cut or break.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use ctct_proxy::clock::Clock;
use ctct_proxy::engine::Mono;

use crate::world::spawn;

/// What the line does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Passes everything on.
    Whole,
    /// Passes everything on, each way so much later.
    Slow(Duration),
    /// Swallows everything, as a network that drops packets does.
    Cut,
}

/// The line.
pub(crate) struct Line {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    /// Connections of an older number are closed.
    broken: Arc<AtomicU64>,
    breaking: watch::Sender<u64>,
}

impl Line {
    /// A line to `port` of this machine.
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (mode, modes) = watch::channel(Mode::Whole);
        let (breaking, breaks) = watch::channel(0);
        spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (modes, breaks) = (modes.clone(), breaks.clone());
                spawn(async move {
                    // one that cannot be made now is refused by being closed
                    let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                    let (near_read, near_write) = near.into_split();
                    let (far_read, far_write) = far.into_split();
                    let number = *breaks.borrow();
                    let mut broken = breaks.clone();
                    tokio::select! {
                        () = carry(near_read, far_write, modes.clone()) => {}
                        () = carry(far_read, near_write, modes) => {}
                        _ = broken.wait_for(|now| *now > number) => {}
                    }
                });
            }
        });
        Self { address, mode, broken: Arc::default(), breaking }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Closes all connections.
    pub(crate) fn break_all(&self) {
        let number = self.broken.fetch_add(1, Ordering::Relaxed) + 1;
        self.breaking.send_replace(number);
    }
}

async fn carry(mut from: OwnedReadHalf, to: OwnedWriteHalf, modes: watch::Receiver<Mode>) {
    let (late, mut due) = tokio::sync::mpsc::unbounded_channel::<(Mono, Vec<u8>)>();
    let clock = Clock::system();
    let timer = clock.clone();
    let mut to = to;
    let delivery = spawn(async move {
        while let Some((at, bytes)) = due.recv().await {
            timer.sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(len @ 1..) = from.read(&mut buffer).await {
        let mode = *modes.borrow();
        let wait = match mode {
            Mode::Whole => Duration::ZERO,
            Mode::Slow(wait) => wait,
            // a hole in the stream ends the connection for good: nothing passes from here on
            Mode::Cut => break,
        };
        let part = buffer.get(..len).expect("read").to_vec();
        if late.send((clock.mono().plus(wait), part)).is_err() {
            return;
        }
    }
    if matches!(*modes.borrow(), Mode::Cut) {
        // neither side learns of it
        std::future::pending::<()>().await;
    }
    drop(late);
    let _ = delivery.await;
}
