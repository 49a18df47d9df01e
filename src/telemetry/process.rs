//! The process metrics that every Prometheus client has, read from `/proc/self` at each scrape.
//!
//! Names and meaning follow
//! <https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>. What cannot be
//! read (another system, a closed `/proc`) is left out rather than reported as zero.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Ticks per second of the times in `/proc`. It is `sysconf(_SC_CLK_TCK)`, which Linux fixes at 100
/// for all architectures that Rust's standard library supports but Alpha.
const TICKS_PER_SEC: f64 = 100.0;

/// Collects the process metrics.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut put = |name, help, unit: Option<Unit>, metric: &dyn EncodeMetric| {
            let metric_type = metric.metric_type();
            metric.encode(encoder.encode_descriptor(name, help, unit.as_ref(), metric_type)?)
        };
        if let Some(times) = read("/proc/self/stat").as_deref().and_then(Times::parse) {
            let help = "User and system time spent.";
            put("process_cpu", help, Some(Unit::Seconds), &ConstCounter::new(times.cpu_secs))?;
            if let Some(boot) = read("/proc/stat").as_deref().and_then(boot_secs) {
                let help = "Start of the process since the Unix epoch.";
                let started = ConstGauge::new(boot + times.started_secs);
                put("process_start_time", help, Some(Unit::Seconds), &started)?;
            }
        }
        if let Some(status) = read("/proc/self/status") {
            let bytes = Some(Unit::Bytes);
            if let Some(kib) = number_after(&status, "VmRSS:") {
                let help = "Resident memory.";
                put("process_resident_memory", help, bytes.clone(), &ConstGauge::new(kib * 1024))?;
            }
            if let Some(kib) = number_after(&status, "VmSize:") {
                let help = "Virtual memory.";
                put("process_virtual_memory", help, bytes, &ConstGauge::new(kib * 1024))?;
            }
            if let Some(threads) = number_after(&status, "Threads:") {
                put("process_threads", "Threads.", None, &ConstGauge::new(threads))?;
            }
        }
        if let Some(open) = open_fds() {
            put("process_open_fds", "Open file descriptors.", None, &ConstGauge::new(open))?;
        }
        let limits = read("/proc/self/limits");
        if let Some(most) = limits.as_deref().and_then(|text| number_after(text, "Max open files"))
        {
            let help = "Most file descriptors that may be open.";
            put("process_max_fds", help, None, &ConstGauge::new(most))?;
        }
        Ok(())
    }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// The first number after `label` where it begins a line.
fn number_after(text: &str, label: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(label))?;
    rest.split_whitespace().next()?.parse().ok()
}

fn boot_secs(stat: &str) -> Option<f64> {
    let secs = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    secs.trim().parse().ok()
}

/// All but the one that reads the directory.
fn open_fds() -> Option<u64> {
    let open = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
    u64::try_from(open).ok()
}

/// The times in `/proc/self/stat` (proc(5)).
#[derive(Debug, PartialEq)]
struct Times {
    cpu_secs: f64,
    started_secs: f64,
}

impl Times {
    fn parse(stat: &str) -> Option<Self> {
        // The second field is the file name in parentheses; it may hold spaces and parentheses
        // itself.
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // Fields are numbered from 1 in proc(5), and `rest` begins with field 3.
        let ticks = |field: usize| -> Option<f64> { fields.get(field - 3)?.parse().ok() };
        Some(Self {
            cpu_secs: (ticks(14)? + ticks(15)?) / TICKS_PER_SEC,
            started_secs: ticks(22)? / TICKS_PER_SEC,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_an_odd_file_name() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 9 0 0 0 150 50 0 0 20 0 3 0 12345 1 2 3";
        assert_eq!(Times::parse(stat), Some(Times { cpu_secs: 2.0, started_secs: 123.45 }));
        assert_eq!(Times::parse("42 (cut"), None);
        assert_eq!(Times::parse("42 (cut) S 1"), None);
    }

    #[test]
    fn numbers_are_read_by_their_label() {
        let status = "Name:\tVmRSS: 1\nVmRSS:\t   2048 kB\nThreads:\t3\n";
        assert_eq!(number_after(status, "VmRSS:"), Some(2048));
        assert_eq!(number_after(status, "Threads:"), Some(3));
        assert_eq!(number_after("Max open files            unlimited", "Max open files"), None);
    }
}
