//! The program as a process: started with flags, spoken to, signalled, killed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio_util::task::TaskTracker;

use ctct_proxy::sandbox::{IssuedGrant, Sandbox};

use super::{Call, Http, Reply, until};

/// Longest time for a process to end that has been told to.
const PATIENCE: Duration = Duration::from_secs(30);

/// How the program is started, as often as wanted, over one folder.
#[derive(Clone)]
pub(crate) struct Program {
    dir: Arc<TempDir>,
    args: Vec<String>,
    /// Runs the program, such as a shell that limits it; the program and its flags follow.
    wrapper: Vec<String>,
}

/// A running one; dropping it kills it.
pub(crate) struct Process {
    child: Child,
    /// Where calls are served; unset until the log says so.
    addresses: Arc<Mutex<Option<(SocketAddr, SocketAddr)>>>,
    log: Arc<Mutex<String>>,
    pub(crate) http: Http,
}

impl Program {
    /// A proxy before `sandbox` with a database in a folder of its own.
    pub(crate) fn new(sandbox: &Sandbox) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let program = Self { dir: Arc::new(dir), args: Vec::new(), wrapper: Vec::new() };
        let store = format!("sqlite:{}", program.path("proxy.db").display());
        program
            .flag("listen", "127.0.0.1:0")
            .flag("admin-listen", "127.0.0.1:0")
            .flag("upstream-url", sandbox.url())
            .flag("token-url", sandbox.token_url())
            .flag("authorize-url", sandbox.authorize_url())
            .flag("store", store)
            .flag("client-id", "app")
            // a test that wants refreshes that nobody waits for says so
            .flag("refresh-ahead", "0")
    }

    /// The same with a flag; a later one wins.
    pub(crate) fn flag(mut self, name: &str, value: impl AsRef<str>) -> Self {
        let name = format!("--{name}");
        if let Some(at) = self.args.iter().position(|arg| *arg == name) {
            self.args.drain(at..at + 2);
        }
        self.args.extend([name, value.as_ref().to_owned()]);
        self
    }

    /// The same without a flag.
    pub(crate) fn without(mut self, name: &str) -> Self {
        let name = format!("--{name}");
        if let Some(at) = self.args.iter().position(|arg| *arg == name) {
            self.args.drain(at..at + 2);
        }
        self
    }

    /// The same run by a command.
    pub(crate) fn run_by(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|&part| part.to_owned()).collect();
        self
    }

    /// A file in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// Starts it; it may serve only later.
    pub(crate) fn spawn(&self) -> Process {
        let program = env!("CARGO_BIN_EXE_ctct-proxy").to_owned();
        let mut line: Vec<String> = self.wrapper.clone();
        line.extend([program, "serve".to_owned()]);
        line.extend(self.args.iter().cloned());
        let mut child = Command::new(&line[0])
            .args(&line[1..])
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let (addresses, log) = (Arc::default(), Arc::default());
        let out = child.stdout.take().expect("piped");
        let err = child.stderr.take().expect("piped");
        let readers = TaskTracker::new();
        readers.spawn(keep(out, Arc::clone(&log), Arc::clone(&addresses)));
        readers.spawn(keep(err, Arc::clone(&log), Arc::clone(&addresses)));
        Process { child, addresses, log, http: Http::h1() }
    }

    /// Starts it and waits until it serves.
    pub(crate) async fn start(&self) -> Process {
        let process = self.spawn();
        process.serves().await;
        process
    }
}

async fn keep(
    output: impl AsyncRead + Unpin,
    log: Arc<Mutex<String>>,
    addresses: Arc<Mutex<Option<(SocketAddr, SocketAddr)>>>,
) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(found) = serving(&line) {
            *addresses.lock().expect("nobody panicked") = Some(found);
        }
        let mut log = log.lock().expect("nobody panicked");
        log.push_str(&line);
        log.push('\n');
    }
}

/// The addresses in the line that says that the proxy serves, in either form of the log.
fn serving(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    if let Ok(line) = serde_json::from_str::<Value>(line) {
        let field = |name: &str| {
            let value = line.get(name).or_else(|| line.get("fields")?.get(name))?;
            value.as_str()?.parse().ok()
        };
        return Some((field("data")?, field("admin")?));
    }
    let field = |name: &str| {
        let rest = line.split_once(name)?.1;
        rest.split(' ').next()?.trim_matches('"').parse().ok()
    };
    Some((field(" data=")?, field(" admin=")?))
}

impl Process {
    /// Waits until it serves.
    pub(crate) async fn serves(&self) {
        until("the program serves", async || self.addresses().is_some() || self.has_ended()).await;
        assert!(self.addresses().is_some(), "it ended at once:\n{}", self.log());
    }

    fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        *self.addresses.lock().expect("nobody panicked")
    }

    fn has_ended(&self) -> bool {
        let id = self.child.id();
        id.is_none_or(|id| {
            let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
        })
    }

    pub(crate) fn data(&self) -> SocketAddr {
        self.addresses().expect("it serves").0
    }

    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.addresses().expect("it serves").1
    }

    /// All that it has printed.
    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("nobody panicked").clone()
    }

    /// Waits until it has printed `text`.
    pub(crate) async fn says(&self, text: &str) {
        until(text, async || self.log().contains(text)).await;
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Memory in use, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let id = self.id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("Linux says so");
        line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
    }

    /// Sends a signal: `TERM`, `HUP`, `INT`, `STOP`, `CONT`.
    pub(crate) async fn signal(&self, name: &str) {
        let id = self.child.id().expect("it runs");
        let kill = format!("kill -{name} {id}");
        let status = Command::new("sh").args(["-c", &kill]).status().await.expect("a shell");
        assert!(status.success(), "{kill}");
    }

    /// Kills it as `kill -9` does.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.expect("killed");
    }

    /// Waits until it has ended.
    pub(crate) async fn end(&mut self) -> ExitStatus {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        ended.unwrap_or_else(|_| panic!("still runs:\n{}", self.log())).expect("a status")
    }

    pub(crate) async fn admin(&self, method: Method, path: &str, body: &Value) -> Reply {
        let url = format!("http://{}{path}", self.admin_address());
        self.http.send(Call::new(method, url).json(body)).await
    }

    /// Puts a tenant; ends the test unless it was taken.
    pub(crate) async fn put_tenant(&self, tenant: &str, grant: &IssuedGrant) {
        let body = json!({
            "api_key": "default",
            "refresh_token": grant.refresh_token,
            "access_token": grant.access_token,
        });
        let reply = self.admin(Method::PUT, &format!("/v1/tenants/{tenant}"), &body).await;
        assert!([200, 201].contains(&reply.status), "{reply:?}");
    }

    /// Adds a client for all tenants and gives its key.
    pub(crate) async fn add_client(&self, name: &str) -> String {
        let body = json!({"name": name, "tenants": "*"});
        let reply = self.admin(Method::POST, "/v1/clients", &body).await.expect(201);
        reply.json()["key"].as_str().expect("a key").to_owned()
    }

    /// A call of `tenant` with a client key.
    pub(crate) fn call(&self, method: Method, key: &str, tenant: &str, path: &str) -> Call {
        let url = format!("http://{}{path}", self.data());
        Call::new(method, url).bearer(key).header("ctct-tenant", tenant)
    }
}
