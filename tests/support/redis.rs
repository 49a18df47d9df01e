//! A real `redis-server` for tests: a process of its own on a free port of loopback, with its files
//! in a directory that vanishes.
//!
//! Several test binaries use it by `#[path]`. It is killed when dropped. Data survives
//! [`RedisServer::kill`] and [`RedisServer::restart`] as far as the server wrote it.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

/// Longest time until a server that was started answers.
const START_TIME: Duration = Duration::from_secs(20);
/// How often another port is tried when the one that was free has been taken.
const PORTS_TRIED: usize = 10;
/// What a server says, of whatever make and version, when it answers.
const READY: &str = "Ready to accept connections";

/// A running server.
pub(crate) struct RedisServer {
    directory: tempfile::TempDir,
    port: u16,
    /// Where it speaks TLS, if it has a certificate.
    tls_port: Option<u16>,
    more: Vec<String>,
    process: Option<Child>,
}

impl RedisServer {
    /// A server that keeps an append-only file, synced each second.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with further arguments, which win over those.
    pub(crate) fn start_with(more: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory for the server");
        let more = more.iter().map(|&text| text.to_owned()).collect();
        let mut server = Self { directory, port: 0, tls_port: None, more, process: None };
        let speaks_tls = server.more.iter().any(|text| text == "--tls-cert-file");
        for _ in 0..PORTS_TRIED {
            server.port = free_port();
            server.tls_port = speaks_tls.then(free_port);
            if server.launch() {
                return server;
            }
        }
        panic!("redis-server does not start: {}", server.log());
    }

    /// `redis://127.0.0.1:PORT`
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where it speaks TLS.
    pub(crate) fn tls_port(&self) -> u16 {
        self.tls_port.expect("it has a certificate")
    }

    /// Where its files are.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// All bytes of its append-only files.
    pub(crate) fn append_only_bytes(&self) -> Vec<u8> {
        let folder = self.path().join("appendonlydir");
        let entries = std::fs::read_dir(folder).expect("it has an append-only file");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        paths.flat_map(|path| std::fs::read(path).expect("reads")).collect()
    }

    /// Kills it as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("killed");
            process.wait().expect("gone");
        }
    }

    /// Starts it again where it was, with what it finds on its disk.
    pub(crate) fn restart(&mut self) {
        self.kill();
        // whoever is behind the port now gives it back soon: nobody but tests uses these
        for _ in 0..PORTS_TRIED {
            if self.launch() {
                return;
            }
        }
        panic!("redis-server does not start again: {}", self.log());
    }

    /// Stops it in its tracks; connections stay.
    pub(crate) fn stop(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub(crate) fn cont(&self) {
        self.signal("-CONT");
    }

    /// Runs a command and returns its answer as the server wrote it, without line ends: `+OK`,
    /// `:1`, or the text of a bulk string. Elements of a list stand in lines.
    pub(crate) fn cmd(&self, words: &[&str]) -> String {
        Self::cmd_at(self.port, words)
    }

    /// The same for the server at a port, which may be busy for long.
    pub(crate) fn cmd_at(port: u16, words: &[&str]) -> String {
        try_cmd(port, words).unwrap_or_else(|| panic!("no answer to {words:?}"))
    }

    /// Whether the server came up; `false` when its port was taken.
    fn launch(&mut self) -> bool {
        let log = File::create(self.log_path()).expect("a log");
        let mut command = Command::new("redis-server");
        let port = self.port.to_string();
        command.args(["--port", &port, "--bind", "127.0.0.1", "--dir"]).arg(self.path());
        command.args(["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]);
        command.args(&self.more);
        if let Some(port) = self.tls_port {
            command.args(["--tls-port", &port.to_string()]);
        }
        command.stdin(Stdio::null()).stderr(log.try_clone().expect("a log")).stdout(Stdio::piped());
        let mut process = command.spawn().expect("redis-server: see tests/install-deps.sh");
        let says = process.stdout.take().expect("piped");
        self.process = Some(process);
        let is_ready = heard(says, log).recv_timeout(START_TIME).is_ok();
        if !is_ready {
            self.kill();
        }
        is_ready
    }

    fn signal(&self, signal: &str) {
        let id = self.process.as_ref().expect("it runs").id().to_string();
        let done = Command::new("kill").args([signal, &id]).status().expect("kill is there");
        assert!(done.success());
    }

    fn log_path(&self) -> PathBuf {
        self.path().join("log")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // SIGKILL ends a process that is stopped too
        self.kill();
    }
}

fn try_cmd(port: u16, words: &[&str]) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(START_TIME)).ok()?;
    write!(stream, "*{}\r\n", words.len()).ok()?;
    for word in words {
        write!(stream, "${}\r\n{word}\r\n", word.len()).ok()?;
    }
    answer(&mut BufReader::new(stream))
}

/// Writes down what a server says for as long as it does, and tells when it is ready; tells nothing
/// of one that ends before.
fn heard(says: ChildStdout, mut log: File) -> Receiver<()> {
    let (ready, told) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(says).lines().map_while(Result::ok) {
            writeln!(log, "{line}").expect("a log");
            if line.contains(READY) {
                // whoever waited may have given up
                let _ = ready.send(());
            }
        }
    });
    told
}
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

fn answer(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|len| *len > 0)?;
    let line = line.trim_end();
    let count = |text: &str| text.parse::<i64>().ok();
    match line.split_at_checked(1)? {
        ("$", len) => {
            let Ok(len) = usize::try_from(count(len)?) else { return Some("(nil)".to_owned()) };
            let mut bytes = vec![0; len + 2];
            reader.read_exact(&mut bytes).ok()?;
            bytes.truncate(len);
            Some(String::from_utf8_lossy(&bytes).into_owned())
        }
        ("*", len) => {
            let items: Option<Vec<String>> = (0..count(len)?).map(|_| answer(reader)).collect();
            Some(items?.join("\n"))
        }
        _ => Some(line.to_owned()),
    }
}
