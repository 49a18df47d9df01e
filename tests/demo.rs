//! `demo` as a process: it needs nothing, shows calls that wait, and leaves nothing behind.
//!
//! The lines to try that it prints are taken at their word: each is sent as `curl` would.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

fn demo(args: &[&str], folder: &Path) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ctct-proxy"))
        .arg("demo")
        .args(args)
        .env_clear()
        // a setting of the environment is not one of the demo
        .env("CTCT_PROXY_LISTEN", "not an address")
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    (child, out)
}

/// Waits for the end; gives the exit code, the rest of the output and all of the errors.
fn end(mut child: Child, mut out: BufReader<ChildStdout>) -> (Option<i32>, String, String) {
    let (mut rest, mut err) = (String::new(), String::new());
    out.read_to_string(&mut rest).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    (child.wait().unwrap().code(), rest, err)
}

fn lines_until(out: &mut BufReader<ChildStdout>, wanted: &str) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        assert!(out.read_line(&mut line).unwrap() > 0, "ended before {wanted:?}: {lines:?}");
        let found = line.starts_with(wanted);
        lines.push(line.trim_end().to_owned());
        if found {
            return lines;
        }
    }
}

/// Sends what a line of `curl` says and gives the answer's head.
fn as_curl_would(line: &str) -> String {
    let headers: Vec<&str> =
        line.split("-H '").skip(1).map(|rest| rest.split('\'').next().unwrap()).collect();
    let url = line.split("http://").nth(1).unwrap().trim_end_matches('\'');
    let (host, path) = url.split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut request = format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    for header in headers {
        request.push_str(header);
        request.push_str("\r\n");
    }
    stream.write_all(format!("{request}\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split("\r\n\r\n").next().unwrap().to_owned()
}

#[test]
fn a_short_demo_shows_waiting_calls_no_429_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let (child, mut out) = demo(&["--for", "9s"], folder.path());
    let mut welcome = lines_until(&mut out, "TENANT");
    for part in ["proxy ", "admin API ", "metrics ", "sandbox's log "] {
        let line = welcome.iter().find(|line| line.starts_with(part)).unwrap();
        assert!(line.contains("http://127.0.0.1:"), "{line}");
    }
    welcome.retain(|line| line.starts_with("curl "));
    assert_eq!(welcome.len(), 3);
    for line in &welcome {
        let head = as_curl_would(line);
        assert!(head.starts_with("HTTP/1.1 200"), "{line}\n{head}");
    }

    let (code, rest, err) = end(child, out);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let waiting = |line: &str| line.split_whitespace().nth(2).unwrap().parse::<u32>().unwrap();
    let bulk: Vec<&str> = rest.lines().filter(|line| line.starts_with("bulk-sync")).collect();
    assert!(waiting(bulk[0]) > 20, "{rest}");
    assert!(rest.contains("refreshed "), "{rest}");
    let summary = rest.split("Summary\n").nth(1).unwrap();
    assert!(summary.contains("at most 4 in any second"), "{summary}");
    assert!(summary.contains("1 token request."), "{summary}");
    assert!(summary.trim_end().ends_with("429s: 0"), "{summary}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "a file was left");
}

#[test]
fn an_interrupt_ends_the_demo_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let (child, mut out) = demo(&[], folder.path());
    lines_until(&mut out, "TENANT");
    let kill = Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status();
    assert!(kill.unwrap().success());
    let (code, rest, err) = end(child, out);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(rest.trim_end().ends_with("429s: 0"), "{rest}");
}
