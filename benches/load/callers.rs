//! The load: callers that send their next request when they have read the last answer.
//!
//! Requests are ready made, and of an answer only status and length are looked at, so that the
//! proxy is the one that has most to do.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;

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
    /// CPU time for each request, in microseconds.
    pub(crate) cpu_us: f64,
    /// CPU time over elapsed time.
    pub(crate) busy: f64,
    /// Requests in a second.
    pub(crate) per_second: f64,
}

/// A request, as bytes.
pub(crate) fn request(path: &str, bearer: &str) -> Rc<[u8]> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {bearer}\r\n\
         accept: application/json\r\nuser-agent: load/1\r\n\r\n"
    );
    Rc::from(request.into_bytes())
}

/// Sends `requests` requests after a tenth as many to warm up, and tells what they cost `process`.
pub(crate) async fn round(
    process: &Process,
    address: SocketAddr,
    request: &Rc<[u8]>,
    requests: u32,
) -> anyhow::Result<Cost> {
    let mut streams = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    let streams = send(streams, request, requests / 10).await?;
    let clock = Clock::system();
    let before = process.cpu()?;
    send(streams, request, requests).await?;
    let (cpu, elapsed) = (process.cpu()?.saturating_sub(before), clock.now().mono.since_start());
    Ok(Cost {
        cpu_us: cpu.as_secs_f64() * 1e6 / f64::from(requests),
        busy: cpu.as_secs_f64() / elapsed.as_secs_f64(),
        per_second: f64::from(requests) / elapsed.as_secs_f64(),
    })
}

/// Sends so many requests over all connections together.
async fn send(
    streams: Vec<TcpStream>,
    request: &Rc<[u8]>,
    requests: u32,
) -> anyhow::Result<Vec<TcpStream>> {
    let left = Rc::new(Cell::new(requests));
    let mut callers = JoinSet::new();
    for stream in streams {
        callers.spawn_local(call(stream, request.clone(), left.clone()));
    }
    let mut streams = Vec::with_capacity(CONNECTIONS);
    while let Some(stream) = callers.join_next().await {
        streams.push(stream??);
    }
    Ok(streams)
}

async fn call(
    mut stream: TcpStream,
    request: Rc<[u8]>,
    left: Rc<Cell<u32>>,
) -> anyhow::Result<TcpStream> {
    let mut buffer = vec![0; BUFFER];
    while left.get() > 0 {
        left.set(left.get() - 1);
        stream.write_all(&request).await?;
        read_answer(&mut stream, &mut buffer).await?;
    }
    Ok(stream)
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
