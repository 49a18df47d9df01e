//! Callers that wait: each has sent its request and reads nothing, until all leave at once.

use std::net::SocketAddr;

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::callers;
use crate::upstream::SMALL_PATH;

/// Calls that wait at once.
pub(crate) const CALLS: u16 = 10_000;
/// Streams of an HTTP/2 connection.
const STREAMS: u16 = 100;

/// What the callers speak.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Protocol {
    /// A connection for each call.
    Http1,
    /// A hundred calls on each connection.
    Http2,
}

/// Callers that wait; they leave when this is dropped.
pub(crate) struct Parked {
    _connections: Vec<TcpStream>,
    _streams: JoinSet<()>,
}

/// Sends [`CALLS`] requests.
pub(crate) async fn park(
    protocol: Protocol,
    address: SocketAddr,
    bearer: &str,
) -> anyhow::Result<Parked> {
    let (mut connections, mut streams) = (Vec::new(), JoinSet::new());
    match protocol {
        Protocol::Http1 => {
            let request = callers::request(SMALL_PATH, bearer);
            for _ in 0..CALLS {
                let mut stream = TcpStream::connect(address).await?;
                stream.write_all(&request).await?;
                connections.push(stream);
            }
        }
        Protocol::Http2 => {
            for _ in 0..CALLS / STREAMS {
                park_streams(&mut streams, address, bearer).await?;
            }
        }
    }
    Ok(Parked { _connections: connections, _streams: streams })
}

async fn park_streams(
    streams: &mut JoinSet<()>,
    address: SocketAddr,
    bearer: &str,
) -> anyhow::Result<()> {
    let io = TokioIo::new(TcpStream::connect(address).await?);
    let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
    streams.spawn(async move {
        // it ends when the callers leave
        let _ = connection.await;
    });
    for _ in 0..STREAMS {
        let mut sender = sender.clone();
        let request = Request::builder()
            .uri(format!("http://{address}{SMALL_PATH}"))
            .header("authorization", format!("Bearer {bearer}"))
            .header("accept", "application/json")
            .header("user-agent", "load/1")
            .body(Empty::<Bytes>::new())?;
        streams.spawn(async move {
            let _ = sender.send_request(request).await;
        });
    }
    Ok(())
}
