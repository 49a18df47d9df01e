//! The measure: a reverse proxy of the same stack that does nothing but forward.
//!
//! hyper-util's server and client, bodies streamed, hop-by-hop headers dropped, and no more: no
//! identity, no queue, no token, no headers of its own. Held, it lets every call wait for ever,
//! which is what a waiting call costs this stack at the least.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{
    CONNECTION, HeaderMap, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Authority, Scheme, Uri};
use http::{Request, Response, StatusCode, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Where a held proxy says how many calls it holds.
pub(crate) const HELD_PATH: &str = "/held";

type Body = BoxBody<Bytes, hyper::Error>;

struct Bare {
    upstream: Authority,
    client: Client<HttpConnector, Incoming>,
    hold: bool,
    held: AtomicU64,
}

/// Serves until the process is ended.
pub(crate) fn serve(listen: SocketAddr, upstream: SocketAddr, hold: bool) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(accept(listen, upstream, hold))
}

async fn accept(listen: SocketAddr, upstream: SocketAddr, hold: bool) -> anyhow::Result<()> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client =
        Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
    let upstream = Authority::try_from(upstream.to_string())?;
    let bare = Arc::new(Bare { upstream, client, hold, held: AtomicU64::new(0) });
    let listener = TcpListener::bind(listen).await.context("listening")?;
    let tracker = TaskTracker::new();
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder.http2().timer(TokioTimer::new());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (bare, builder) = (bare.clone(), builder.clone());
        tracker.spawn(async move {
            let service = service_fn(move |request| {
                let bare = bare.clone();
                async move { Ok::<_, Infallible>(bare.call(request).await) }
            });
            // a caller that leaves is no fault
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Counts a held call for as long as its caller stays.
struct Held<'a>(&'a AtomicU64);

impl<'a> Held<'a> {
    fn new(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Bare {
    async fn call(&self, request: Request<Incoming>) -> Response<Body> {
        if self.hold {
            return self.hold(&request).await;
        }
        match self.forward(request).await {
            Ok(answer) => answer,
            Err(error) => text(StatusCode::BAD_GATEWAY, error.to_string()),
        }
    }

    async fn hold(&self, request: &Request<Incoming>) -> Response<Body> {
        if request.uri().path() == HELD_PATH {
            return text(StatusCode::OK, self.held.load(Ordering::Relaxed).to_string());
        }
        let _held = Held::new(&self.held);
        std::future::pending().await
    }

    async fn forward(&self, mut request: Request<Incoming>) -> anyhow::Result<Response<Body>> {
        drop_hop_by_hop(request.headers_mut());
        let mut uri = std::mem::take(request.uri_mut()).into_parts();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(self.upstream.clone());
        *request.uri_mut() = Uri::from_parts(uri)?;
        *request.version_mut() = Version::HTTP_11;
        let mut answer = self.client.request(request).await?;
        drop_hop_by_hop(answer.headers_mut());
        Ok(answer.map(http_body_util::BodyExt::boxed))
    }
}

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

fn text(status: StatusCode, text: String) -> Response<Body> {
    let body = Full::from(text).map_err(|never| match never {}).boxed();
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer
}
