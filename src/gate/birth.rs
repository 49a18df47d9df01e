//! When and where a process began, so that another on its machine can tell that it has ended.
//!
//! A number of a process is used again; with the moment at which it began, on one start of one
//! machine and in one space of numbers, it is not. Where these cannot be read, or differ, nothing
//! is claimed.

use std::fs;

use serde::{Deserialize, Serialize};

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Birth {
    /// The start of the machine, and the space of process numbers on it.
    machine: String,
    pid: u32,
    /// Clock ticks after the start of the machine.
    began: u64,
}

impl Birth {
    /// This process; `None` where the system does not tell.
    #[must_use]
    pub fn own() -> Option<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let space = fs::read_link("/proc/self/ns/pid").ok()?;
        let pid = std::process::id();
        let machine = format!("{}/{}", boot.trim(), space.display());
        Some(Self { machine, pid, began: began(pid)? })
    }

    /// Whether `other` has surely ended, as this process can see.
    #[must_use]
    pub fn has_seen_the_end_of(&self, other: &Self) -> bool {
        self.machine == other.machine && began(other.pid) != Some(other.began)
    }
}

/// When the process of this number began; `None` when none runs; see `proc_pid_stat(5)`.
fn began(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // the name may hold anything, the rest does not hold a bracket
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    // the 22nd of all
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_runs_has_not_ended_and_one_of_another_time_has() {
        let own = Birth::own().unwrap();
        assert!(!own.has_seen_the_end_of(&own));
        let before = Birth { began: own.began - 1, ..own.clone() };
        assert!(own.has_seen_the_end_of(&before));
        let elsewhere = Birth { machine: "another".to_owned(), ..before };
        assert!(!own.has_seen_the_end_of(&elsewhere), "nothing is claimed of other machines");
    }

    #[test]
    fn a_process_that_has_ended_is_seen_to_have() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let own = Birth::own().unwrap();
        let pid = child.id();
        let other = Birth { pid, began: began(pid).unwrap(), ..own.clone() };
        assert!(!own.has_seen_the_end_of(&other));
        child.kill().unwrap();
        // not waited for yet: it has ended all the same
        while began(pid).is_some() {
            std::thread::yield_now();
        }
        assert!(own.has_seen_the_end_of(&other));
        child.wait().unwrap();
    }
}
