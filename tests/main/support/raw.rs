//! Bytes on a socket, for what no client library would send.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longest time for the far side to answer and close.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection.
pub(crate) async fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("an option of every socket");
    stream
}

/// Sends `bytes`; a far side that closes early is part of many tests.
pub(crate) async fn send(stream: &mut TcpStream, bytes: impl AsRef<[u8]>) -> bool {
    stream.write_all(bytes.as_ref()).await.is_ok()
}

/// Everything until the far side closes.
pub(crate) async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    let reading = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut read));
    // a reset after the answer still leaves the answer
    let _ = reading.await.expect("the far side closes");
    String::from_utf8_lossy(&read).into_owned()
}

/// The head of an answer, and whatever came with it.
pub(crate) async fn read_head(stream: &mut TcpStream) -> String {
    read_head_of(stream).await
}

/// The same of any connection.
pub(crate) async fn read_head_of(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut read = Vec::new();
    let reading = async {
        while !read.windows(4).any(|end| end == b"\r\n\r\n") {
            if stream.read_buf(&mut read).await.expect("readable") == 0 {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("an answer");
    String::from_utf8_lossy(&read).into_owned()
}

/// Sends `bytes` over a connection of its own and gives everything that came back; the request
/// should ask for the connection to be closed.
pub(crate) async fn exchange(address: SocketAddr, bytes: impl AsRef<[u8]>) -> String {
    let mut stream = connect(address).await;
    send(&mut stream, bytes).await;
    read_to_end(&mut stream).await
}

/// The status of an answer; 0 when there is none.
pub(crate) fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
}
