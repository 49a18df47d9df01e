//! Resident memory: at rest, with ten thousand waiting calls, and when they are gone.
//!
//! The API key is paused, so that every call waits. A burst is ten thousand callers that come, wait
//! and leave together; what a waiting call costs is the growth since before the first burst, in the
//! largest of three.

use std::net::SocketAddr;
use std::time::Duration;

use crate::parked::{CALLS, Protocol, park};
use crate::process::{Cores, need_files};
use crate::report::{Report, note};
use crate::subject::{self, Ours, Subject, TENANT};

const BURSTS: usize = 3;
/// From the end of the last burst to the reading.
const AFTER: Duration = Duration::from_secs(10);
/// From the last call's arrival to the reading.
const SETTLE: Duration = Duration::from_secs(1);
const IDLE_MIB_MAX: f64 = 25.0;
/// What may be left after the bursts, over twice the memory at rest.
const LEFT_MIB_MAX: f64 = 10.0;
const MIB: f64 = 1_024.0;

struct Case {
    name: &'static str,
    protocol: Protocol,
    call_kb_max: f64,
}

const CASES: [Case; 2] = [
    Case { name: "HTTP/1.1 connections", protocol: Protocol::Http1, call_kb_max: 20.0 },
    Case { name: "HTTP/2 streams", protocol: Protocol::Http2, call_kb_max: 8.0 },
];

/// What three bursts did.
struct Growth {
    /// In KiB.
    before: f64,
    /// In kB, a thousand bytes.
    of_call: f64,
    /// In KiB.
    after: f64,
}

/// Measures, and adds the figures to the report.
pub(crate) async fn measure(ours: &Ours, report: &mut Report) -> anyhow::Result<()> {
    need_files(u64::from(CALLS) + 200)?;
    at_rest(ours, report).await?;
    for case in &CASES {
        let bare = subject::bare(ours.upstream, true, Cores::All).await?;
        let bare = bursts(&bare, case.protocol).await?;
        note(&format!("{}, bare proxy, held", case.name), &detail(&bare));

        let proxy = ours.start("memory:", Cores::All).await?;
        proxy.pause().await?;
        let growth = bursts(&proxy, case.protocol).await?;
        note(case.name, &detail(&growth));
        let what = format!("memory of a waiting call, {}", case.name);
        report.add(&what, growth.of_call, "kB", Some(case.call_kb_max));
        let limit = 2.0 * growth.before / MIB + LEFT_MIB_MAX;
        let what = format!("memory 10 s after three bursts, {}", case.name);
        report.add(&what, growth.after / MIB, "MiB", Some(limit));
    }
    Ok(())
}

async fn at_rest(ours: &Ours, report: &mut Report) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let store = format!("sqlite:{}", folder.path().join("bench.db").display());
    let proxy = ours.start(&store, Cores::All).await?;
    tokio::time::sleep(AFTER).await;
    let idle = proxy.process.resident_kib()? / MIB;
    report.add("idle memory, SQLite store", idle, "MiB", Some(IDLE_MIB_MAX));
    Ok(())
}

async fn bursts(subject: &Subject, protocol: Protocol) -> anyhow::Result<Growth> {
    tokio::time::sleep(SETTLE).await;
    let before = subject.process.resident_kib()?;
    let address: SocketAddr = subject.address;
    let mut most = before;
    for _ in 0..BURSTS {
        let parked = park(protocol, address, TENANT).await?;
        subject.until_waiting(u64::from(CALLS)).await?;
        tokio::time::sleep(SETTLE).await;
        most = most.max(subject.process.resident_kib()?);
        drop(parked);
        subject.until_waiting(0).await?;
    }
    tokio::time::sleep(AFTER).await;
    let after = subject.process.resident_kib()?;
    let of_call = (most - before) * 1.024 / f64::from(CALLS);
    Ok(Growth { before, of_call, after })
}

fn detail(growth: &Growth) -> String {
    format!(
        "{:.1} kB each, {:.1} MiB before, {:.1} MiB 10 s after",
        growth.of_call,
        growth.before / MIB,
        growth.after / MIB,
    )
}
