//! The far side: answers of two sizes, ready made.
//!
//! It reads no more of HTTP/1.1 than where a request without a body ends and what its path ends
//! with, so that it takes as little of the core that it shares with the load as it can.

use std::net::SocketAddr;
use std::rc::Rc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Answered with 300 bytes.
pub(crate) const SMALL_PATH: &str = "/v3/contacts";
/// Answered with 64 KiB.
pub(crate) const LARGE_PATH: &str = "/v3/contacts/large";

const SMALL: usize = 300;
const LARGE: usize = 64 * 1_024;
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

struct Answers {
    small: Vec<u8>,
    large: Vec<u8>,
}

/// Listens, and serves for as long as the local task set that this is called in runs.
pub(crate) async fn start() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let answers = Rc::new(Answers { small: answer(SMALL), large: answer(LARGE) });
    tokio::task::spawn_local(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn_local(serve(stream, answers.clone()));
        }
    });
    Ok(address)
}

fn answer(len: usize) -> Vec<u8> {
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\ndate: Tue, 24 Nov 2026 00:00:00 GMT\r\n\
         content-type: application/json\r\n\
         cache-control: no-cache\r\nx-request-id: 7d3f0d5e8b1f4d0c\r\ncontent-length: {len}\r\n\r\n"
    )
    .into_bytes();
    answer.push(b'"');
    answer.resize(answer.len() + len - 2, b'x');
    answer.push(b'"');
    answer
}

async fn serve(mut stream: TcpStream, answers: Rc<Answers>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 8 * 1_024];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        if buffer[..filled].ends_with(END_OF_HEAD) {
            let line = buffer.split(|byte| *byte == b'\r').next().unwrap_or_default();
            let is_large = line.windows(LARGE_PATH.len()).any(|part| part == LARGE_PATH.as_bytes());
            stream.write_all(if is_large { &answers.large } else { &answers.small }).await?;
            filled = 0;
        }
    }
}
