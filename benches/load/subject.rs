//! What is measured: the release binary of the proxy, or the bare one, started and made ready.

use std::ffi::{OsStr, OsString};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use ctct_proxy::clock::Clock;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::bare::HELD_PATH;
use crate::process::{Cores, Process};

/// The one tenant; without a client key the bearer names it.
pub(crate) const TENANT: &str = "bench";

const POLL_EVERY: Duration = Duration::from_millis(20);
const READY_WITHIN: Duration = Duration::from_secs(20);

/// Limits that hold nobody back, and room for ten thousand who wait.
const FLAGS: &[&str] = &[
    "--client-id=bench",
    "--token-url=http://127.0.0.1:9/token",
    "--allow-anonymous",
    "--per-second=1000000",
    "--per-day=1000000000",
    "--guard=0ms",
    "--max-in-flight=10000",
    "--max-wait=10m",
    "--queue-capacity=20000",
    "--queue-capacity-per-tenant=20000",
    "--max-connections=20000",
    "--log-level=warn",
];

/// A proxy that runs.
pub(crate) struct Subject {
    /// As the kernel sees it.
    pub(crate) process: Process,
    /// Where it takes calls.
    pub(crate) address: SocketAddr,
    admin: Option<SocketAddr>,
}

/// How the proxy under test is started.
#[derive(Clone, Debug)]
pub(crate) struct Ours {
    /// The release binary.
    pub(crate) binary: PathBuf,
    /// Where calls go.
    pub(crate) upstream: SocketAddr,
}

impl Ours {
    /// Starts the proxy with one tenant whose token is good.
    pub(crate) async fn start(&self, store: &str, cores: Cores) -> anyhow::Result<Subject> {
        let (address, admin) = (free_address()?, free_address()?);
        let mut arguments: Vec<OsString> = vec!["serve".into()];
        arguments.extend(FLAGS.iter().map(OsString::from));
        let places = [
            format!("--listen={address}"),
            format!("--admin-listen={admin}"),
            format!("--upstream-url=http://{}", self.upstream),
            format!("--store={store}"),
        ];
        arguments.extend(places.map(OsString::from));
        let process = Process::start(self.binary.as_os_str(), &arguments, cores)?;
        let mut subject = Subject { process, address, admin: Some(admin) };
        subject.until_ready().await?;
        let tenant = json!({
            "api_key": "default",
            "refresh_token": "refresh",
            "access_token": access_token(),
        });
        subject.admin(Method::PUT, &format!("/v1/tenants/{TENANT}"), tenant).await?;
        Ok(subject)
    }
}

/// Starts the bare proxy.
pub(crate) async fn bare(
    upstream: SocketAddr,
    hold: bool,
    cores: Cores,
) -> anyhow::Result<Subject> {
    let address = free_address()?;
    let mut arguments = vec!["bare".to_owned(), address.to_string(), upstream.to_string()];
    if hold {
        arguments.push("--hold".to_owned());
    }
    let this = std::env::current_exe()?;
    let process = Process::start(this.as_os_str(), &arguments, cores)?;
    let mut subject = Subject { process, address, admin: None };
    subject.until_ready().await?;
    Ok(subject)
}

impl Subject {
    async fn until_ready(&mut self) -> anyhow::Result<()> {
        let clock = Clock::system();
        loop {
            self.process.check()?;
            let ready = match self.admin {
                Some(admin) => ask(Method::GET, admin, "/readyz", Bytes::new()).await.is_ok(),
                None => TcpStream::connect(self.address).await.is_ok(),
            };
            if ready {
                return Ok(());
            }
            if clock.now().mono.since_start() > READY_WITHIN {
                bail!("the program under test was not ready within {READY_WITHIN:?}");
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    async fn admin(&self, method: Method, path: &str, body: Value) -> anyhow::Result<Value> {
        let admin = self.admin.context("the bare proxy has no admin listener")?;
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let answer = ask(method, admin, path, body).await?;
        Ok(serde_json::from_slice(&answer).unwrap_or_default())
    }

    /// Makes a client for the tenant and returns its key.
    pub(crate) async fn client_key(&self) -> anyhow::Result<String> {
        let client = json!({ "name": "bench", "tenants": [TENANT] });
        let answer = self.admin(Method::POST, "/v1/clients", client).await?;
        let key = answer.get("key").and_then(Value::as_str);
        Ok(key.context("no key in the answer")?.to_owned())
    }

    /// Lets all calls wait from now on.
    pub(crate) async fn pause(&self) -> anyhow::Result<()> {
        self.admin(Method::POST, "/v1/api-keys/default/pause", Value::Null).await?;
        Ok(())
    }

    async fn waiting(&self) -> anyhow::Result<u64> {
        if self.admin.is_none() {
            let answer = ask(Method::GET, self.address, HELD_PATH, Bytes::new()).await?;
            return Ok(std::str::from_utf8(&answer)?.parse()?);
        }
        let key = self.admin(Method::GET, "/v1/api-keys/default", Value::Null).await?;
        key.pointer("/queue/depth").and_then(Value::as_u64).context("no queue.depth in the answer")
    }

    /// Waits until so many calls wait.
    pub(crate) async fn until_waiting(&self, calls: u64) -> anyhow::Result<()> {
        let clock = Clock::system();
        loop {
            let waiting = self.waiting().await?;
            if waiting == calls {
                return Ok(());
            }
            if clock.now().mono.since_start() > READY_WITHIN {
                bail!("{waiting} calls wait after {READY_WITHIN:?}, not {calls}");
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }
}

async fn ask(
    method: Method,
    address: SocketAddr,
    path: &str,
    body: Bytes,
) -> anyhow::Result<Bytes> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::builder()
        .method(method.clone())
        .uri(format!("http://{address}{path}"))
        .header("content-type", "application/json")
        .body(Full::new(body))?;
    let answer = client.request(request).await?;
    let status: StatusCode = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    if !status.is_success() {
        bail!("{method} {path}: {status} {}", String::from_utf8_lossy(&body));
    }
    Ok(body)
}

/// An address that nobody listens on.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// A token that is good for a day. Nobody checks its signature: it is the upstream's.
fn access_token() -> String {
    let part = |part: Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let now = Clock::system().now().unix.as_secs();
    let head = part(json!({ "alg": "RS256", "typ": "JWT" }));
    let claims = part(json!({ "iat": now, "exp": now + 86_400, "cid": "bench", "sub": TENANT }));
    let signature = URL_SAFE_NO_PAD.encode([7_u8; 256]);
    format!("{head}.{claims}.{signature}")
}

/// The release binary beside which this program was built.
pub(crate) fn release_binary() -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe()?;
    let folder =
        this.parent().and_then(Path::parent).context("benchmarks lie in target/release")?;
    Ok(folder.join(OsStr::new("ctct-proxy")))
}
