//! The load: callers that send their next request when they have read the last answer.
//!
//! Requests are ready made, and of an answer only status and length are looked at, so that the
//! proxy is the one that has most to do.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use ctct_proxy::clock::Clock;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::process::Process;

const CONNECTIONS: usize = 64;
const BUFFER: usize = 128 * 1_024;

/// What one round of load cost the proxy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// CPU time.
    pub(crate) cpu: Duration,
    /// Elapsed time.
    pub(crate) elapsed: Duration,
}

/// Callers of one proxy, who keep their connections from round to round.
pub(crate) struct Callers {
    request: Rc<[u8]>,
    callers: Vec<Caller>,
}

struct Caller {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// A request, as bytes.
pub(crate) fn request(path: &str, bearer: &str) -> Rc<[u8]> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {bearer}\r\n\
         accept: application/json\r\nuser-agent: load/1\r\n\r\n"
    );
    Rc::from(request.into_bytes())
}

impl Callers {
    /// Connects.
    pub(crate) async fn connect(address: SocketAddr, request: Rc<[u8]>) -> anyhow::Result<Self> {
        let mut callers = Vec::with_capacity(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            callers.push(Caller { stream, buffer: vec![0; BUFFER] });
        }
        Ok(Self { request, callers })
    }

    /// Sends so many requests over all connections together and tells what they cost `process`.
    pub(crate) async fn round(&mut self, process: &Process, requests: u32) -> anyhow::Result<Cost> {
        let clock = Clock::system();
        let before = process.cpu()?;
        let left = Rc::new(Cell::new(requests));
        let mut calling = JoinSet::new();
        for caller in self.callers.drain(..) {
            calling.spawn_local(caller.call(self.request.clone(), left.clone()));
        }
        while let Some(caller) = calling.join_next().await {
            self.callers.push(caller??);
        }
        let cpu = process.cpu()?.saturating_sub(before);
        Ok(Cost { cpu, elapsed: clock.mono().since_start() })
    }
}

impl Caller {
    async fn call(mut self, request: Rc<[u8]>, left: Rc<Cell<u32>>) -> anyhow::Result<Self> {
        while left.get() > 0 {
            left.set(left.get() - 1);
            self.stream.write_all(&request).await?;
            read_answer(&mut self.stream, &mut self.buffer).await?;
        }
        Ok(self)
    }
}

async fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) -> anyhow::Result<()> {
    let (mut filled, mut len) = (0, None);
    while len.is_none_or(|len| filled < len) {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            bail!("the proxy closed a connection");
        }
        filled += read;
        if len.is_none() {
            len = answer_len(&buffer[..filled])?;
        }
    }
    Ok(())
}

/// The length of the answer that `bytes` begins, once its head is there.
fn answer_len(bytes: &[u8]) -> anyhow::Result<Option<usize>> {
    const LENGTH: &[u8] = b"content-length: ";
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    if !bytes.starts_with(b"HTTP/1.1 200") {
        bail!("the proxy answered {}", String::from_utf8_lossy(bytes));
    }
    let mut lines = bytes[..end].split(|byte| *byte == b'\n');
    let value = lines.find_map(|line| {
        let (name, value) = line.split_at_checked(LENGTH.len())?;
        name.eq_ignore_ascii_case(LENGTH).then_some(value)
    });
    let value = value.context("an answer without a length")?;
    let len: usize = std::str::from_utf8(value)?.trim().parse()?;
    Ok(Some(end + 4 + len))
}
