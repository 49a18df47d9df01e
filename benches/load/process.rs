//! A program under test as the kernel sees it: where it runs, what CPU time and memory it has used.

use std::ffi::OsStr;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::process::{Child, Command};

/// The proxy's core.
pub(crate) const PROXY_CORE: u32 = 0;
/// The core of the load and the far side.
pub(crate) const LOAD_CORE: u32 = 1;

/// The unit of CPU time in `/proc` (`USER_HZ`), the same on every Linux machine that this runs on.
const TICK: Duration = Duration::from_millis(10);

/// Where a process may run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cores {
    /// On this one.
    One(u32),
    /// On any.
    All,
}

/// A running program; it is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    id: u32,
}

impl Process {
    /// Starts a program.
    pub(crate) fn start<A: AsRef<OsStr>>(
        program: &OsStr,
        arguments: &[A],
        cores: Cores,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new("taskset");
        let list = match cores {
            Cores::One(core) => core.to_string(),
            Cores::All => format!("{PROXY_CORE}-{LOAD_CORE}"),
        };
        // taskset becomes the program, so that its id is the program's
        command.args(["-c", &list]).arg(program).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        let child = command.spawn().context("starting taskset (of util-linux)")?;
        let id = child.id().context("a process that was just started has an id")?;
        Ok(Self { child, id })
    }

    /// Fails when the program has ended.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("the program under test ended: {status}"),
            None => Ok(()),
        }
    }

    /// CPU time that all threads have used, those included that have ended.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id))?;
        // fields are counted from behind the name, which may hold anything: state is the first
        let (_, fields) = stat.rsplit_once(')').context("no name in /proc/PID/stat")?;
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u32>);
        let ticks = ticks.sum::<Result<u32, _>>()?;
        Ok(TICK * ticks)
    }

    /// Resident memory, in KiB.
    pub(crate) fn resident_kib(&self) -> anyhow::Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: u32 = line
            .and_then(|line| line.trim().strip_suffix(" kB"))
            .context("no VmRSS in /proc/PID/status")?
            .parse()?;
        Ok(f64::from(kib))
    }
}

/// Ties this process to the load's core.
pub(crate) async fn pin_load() -> anyhow::Result<()> {
    let id = std::process::id().to_string();
    let core = LOAD_CORE.to_string();
    let pinned = Command::new("taskset").args(["-a", "-c", "-p", &core, &id]).output().await;
    let pinned = pinned.context("starting taskset (of util-linux)")?;
    if !pinned.status.success() {
        bail!("two cores are needed: {}", String::from_utf8_lossy(&pinned.stderr));
    }
    Ok(())
}

/// Fails when this process and those it starts may not have so many files open.
pub(crate) fn need_files(needed: u64) -> anyhow::Result<()> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next()).unwrap_or_default();
    if soft.parse::<u64>().is_ok_and(|soft| soft < needed) {
        bail!("{soft} open files are too few: raise the limit to {needed} (`ulimit -n {needed}`)");
    }
    Ok(())
}
