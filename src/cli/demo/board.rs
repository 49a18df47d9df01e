//! What the demo shows: the welcome, the table, the summary.
//!
//! Texts are made from readings that others took; only [`Screen`] prints. The sandbox's log, not
//! the proxy's own counters, is the judge of rates and refusals.

use std::io;
use std::time::Duration;

use crate::cli::Console;
use crate::cli::table::table;
use crate::config::values;
use crate::engine::Now;
use crate::engine::scheduler::{Snapshot, TenantSnapshot};
use crate::sandbox::{LogEntry, Verdict};
use crate::secret::Secret;
use crate::tokens::{TenantState, TenantStatus};

use super::callers::{APPETITES, Tally};

/// Clears from the cursor on (ECMA-48).
const CLEAR_BELOW: &str = "\u{1b}[J";
/// Cuts lines that are longer than the terminal is wide: a board has as many rows as lines
/// (DECAWM).
const NO_WRAP: &str = "\u{1b}[?7l";
/// Undoes [`NO_WRAP`].
const WRAP: &str = "\u{1b}[?7h";

/// What is needed to join in.
pub(super) struct Welcome {
    /// The data listener's URL.
    pub(super) data: String,
    /// The admin listener's URL.
    pub(super) admin: String,
    /// The sandbox's URL.
    pub(super) sandbox: String,
    /// May call for every tenant.
    pub(super) client_key: Secret<String>,
}

impl Welcome {
    /// Addresses and what to try; the one text with the client key, which dies with the process.
    pub(super) fn text(&self) -> String {
        let Self { data, admin, sandbox, client_key } = self;
        let key = client_key.expose();
        format!(
            "Three tenants call through one proxy; a sandbox stands in for the Constant Contact\n\
             API, which lets 4 calls a second through. All of it is this process, on loopback.\n\
             Ctrl-C ends it.\n\n\
             proxy          {data}/v3\n\
             admin API      {admin}/v1/api-keys\n\
             metrics        {admin}/metrics\n\
             sandbox's log  {sandbox}/sandbox/log\n\n\
             Try in another terminal:\n\
             curl -i -H 'Authorization: Bearer {key}' {data}/t/dashboard/v3/account/summary\n\
             curl -H 'Ctct-Proxy-Key: {key}' -H 'Ctct-Tenant: bulk-sync' -H 'Priority: u=0' \
             '{data}/v3/contacts?limit=1'\n\
             curl {admin}/v1/tenants/signup-form\n"
        )
    }
}

/// One reading of everything.
pub(super) struct Board {
    rows: Vec<Vec<String>>,
    key_line: String,
    summary: String,
}

impl Board {
    pub(super) fn new(
        now: Now,
        tallies: &[Tally],
        key: Option<&Snapshot>,
        gate: &[TenantSnapshot],
        tokens: &[TenantStatus],
        log: &[LogEntry],
    ) -> Self {
        let waiting = |name: &str| {
            let snapshot = gate.iter().find(|snapshot| snapshot.tenant.as_str() == name);
            snapshot.map_or(0, |snapshot| snapshot.queue_depth)
        };
        let token = |name: &str| {
            let status = tokens.iter().find(|status| status.tenant.as_str() == name);
            status.map_or_else(String::new, |status| token_text(status, now))
        };
        let rows = APPETITES.iter().zip(tallies).map(|(appetite, tally)| {
            vec![
                appetite.tenant.to_owned(),
                tally.sent.to_string(),
                waiting(appetite.tenant).to_string(),
                tally.ok.to_string(),
                tally.failed.to_string(),
                seconds(tally.wait_longest),
                token(appetite.tenant),
            ]
        });
        let judged = Judged::new(now, log);
        let key_line = key.map_or_else(String::new, |key| {
            format!(
                "In the last second: {} calls. Of the day: {} used, {} left. 429s seen: {}",
                judged.last_second, key.day_used, key.day_remaining, judged.refused
            )
        });
        Self { rows: rows.collect(), key_line, summary: summary(tallies, &judged) }
    }

    /// The table and the line of the API key.
    fn text(&self) -> String {
        let head = ["TENANT", "SENT", "WAITING", "OK", "FAILED", "MAX WAIT", "TOKEN"];
        format!("{}\n{}\n", table(&head, &self.rows), self.key_line)
    }

    /// What is left to say at the end.
    pub(super) fn summary(&self) -> String {
        self.summary.clone()
    }
}

/// What the sandbox saw.
struct Judged {
    calls: usize,
    last_second: usize,
    most_in_one_second: usize,
    token_requests: usize,
    refused: usize,
}

impl Judged {
    fn new(now: Now, log: &[LogEntry]) -> Self {
        let is_api = |entry: &&LogEntry| entry.path.starts_with("/v3");
        let calls: Vec<u64> = log.iter().filter(is_api).map(|entry| entry.mono_ns).collect();
        let second = nanos(Duration::from_secs(1));
        let since = nanos(now.mono.since_start()).saturating_sub(second);
        let within = |place: usize, at: u64| {
            calls.iter().skip(place).take_while(|later| later.saturating_sub(at) < second).count()
        };
        Self {
            calls: calls.len(),
            last_second: calls.iter().rev().take_while(|at| **at > since).count(),
            most_in_one_second: calls
                .iter()
                .enumerate()
                .map(|(place, at)| within(place, *at))
                .max()
                .unwrap_or_default(),
            token_requests: log.iter().filter(|entry| entry.verdict == Verdict::TokenOk).count(),
            refused: log.iter().filter(|entry| entry.status == 429).count(),
        }
    }
}

fn summary(tallies: &[Tally], judged: &Judged) -> String {
    let rows: Vec<Vec<String>> = APPETITES
        .iter()
        .zip(tallies)
        .map(|(appetite, tally)| {
            vec![
                appetite.tenant.to_owned(),
                tally.ok.to_string(),
                tally.failed.to_string(),
                tally.sent.saturating_sub(tally.ok + tally.failed).to_string(),
                seconds(tally.wait_longest),
            ]
        })
        .collect();
    format!(
        "Summary\n{}\n\
         The sandbox saw {} calls, at most {} in any second (the limit is 4), and {} token \
         request{}.\n429s: {}",
        table(&["TENANT", "OK", "FAILED", "UNANSWERED", "LONGEST WAIT"], &rows),
        judged.calls,
        judged.most_in_one_second,
        judged.token_requests,
        if judged.token_requests == 1 { "" } else { "s" },
        judged.refused
    )
}

fn token_text(status: &TenantStatus, now: Now) -> String {
    let left = status.access_token_expires_at.map(|end| end.since(now.unix).as_secs());
    let life = match left {
        None => "no access token".to_owned(),
        Some(0) => "expired".to_owned(),
        Some(secs) => span(secs),
    };
    let refreshed = status.last_refreshed_at.map_or_else(String::new, |at| {
        format!(", refreshed {} ago", span(now.unix.since(at).as_secs()))
    });
    match status.state {
        TenantState::Ready => format!("{life}{refreshed}"),
        TenantState::Refreshing | TenantState::NeedsAuthorization | TenantState::Paused => {
            format!("{}, {life}", status.state.as_str())
        }
    }
}

/// Whole minutes of what is long, whole seconds of what is short.
fn span(secs: u64) -> String {
    let whole = if secs < 600 { secs } else { secs - secs % 60 };
    values::duration_text(whole.saturating_mul(1_000))
}

fn seconds(span: Duration) -> String {
    format!("{:.1} s", span.as_secs_f64())
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// Where boards are shown: over the one before, or below it.
pub(super) struct Screen {
    redraws: bool,
    lines_shown: usize,
}

impl Screen {
    pub(super) const fn new(redraws: bool) -> Self {
        Self { redraws, lines_shown: 0 }
    }

    pub(super) fn show(&mut self, console: &mut Console<'_>, board: &Board) -> io::Result<()> {
        let text = board.text();
        if !self.redraws {
            return console.print(&text);
        }
        let back = match self.lines_shown {
            0 => String::new(),
            lines => format!("\u{1b}[{lines}F"),
        };
        // the empty line at the end counts
        self.lines_shown = text.lines().count() + 1;
        console.print(&format!("{back}{CLEAR_BELOW}{NO_WRAP}{text}{WRAP}"))
    }
}
