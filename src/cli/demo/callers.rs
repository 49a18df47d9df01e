//! The three tenants' programs: what they call, how often, and what became of it.
//!
//! They are ordinary HTTP clients of the proxy's data listener with a client key, and know nothing
//! of its insides. Each counts for itself; nothing here prints.

use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::future::join_all;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::secret::Secret;

/// Keeps a caller whose calls fail at once from spinning.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// What a tenant wants.
pub(super) struct Appetite {
    /// Its name.
    pub(super) tenant: &'static str,
    /// How urgent its calls are, as `Priority` says it.
    pub(super) priority: &'static str,
    /// Workers that call side by side.
    workers: usize,
    /// Calls that a worker makes at once.
    burst: usize,
    /// Pause of a worker when they are answered.
    pause: Duration,
    task: Task,
}

#[derive(Clone, Copy)]
enum Task {
    ReadContacts,
    ReadSummary,
    SignUp,
}

/// From the greediest to the most modest.
pub(super) const APPETITES: [Appetite; 3] = [
    Appetite {
        tenant: "bulk-sync",
        priority: "u=6",
        workers: 40,
        burst: 1,
        pause: Duration::ZERO,
        task: Task::ReadContacts,
    },
    Appetite {
        tenant: "dashboard",
        priority: "u=3",
        workers: 1,
        burst: 6,
        pause: Duration::from_secs(5),
        task: Task::ReadSummary,
    },
    Appetite {
        tenant: "signup-form",
        priority: "u=1",
        workers: 1,
        burst: 1,
        pause: Duration::from_secs(3),
        task: Task::SignUp,
    },
];

/// What became of a tenant's calls.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// Calls made.
    pub(super) sent: u64,
    /// Of them, those answered with success.
    pub(super) ok: u64,
    /// Of them, those answered with anything else, or not at all.
    pub(super) failed: u64,
    /// The longest time that the proxy kept one of them waiting.
    pub(super) wait_longest: Duration,
}

/// The callers; they run until stopped.
pub(super) struct Callers {
    tallies: Arc<[Mutex<Tally>; APPETITES.len()]>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Callers {
    pub(super) fn start(proxy: &str, client_key: &Secret<String>, clock: &Clock) -> Self {
        let tallies: Arc<[Mutex<Tally>; APPETITES.len()]> = Arc::default();
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let http = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
        for (place, appetite) in APPETITES.iter().enumerate() {
            for _ in 0..appetite.workers {
                let worker = Worker {
                    http: http.clone(),
                    proxy: proxy.to_owned(),
                    client_key: client_key.clone(),
                    clock: clock.clone(),
                    tallies: tallies.clone(),
                    place,
                };
                let stop = stop.clone();
                tracker.spawn(async move { stop.run_until_cancelled(worker.run()).await });
            }
        }
        Self { tallies, tracker, stop }
    }

    /// How each stands, in the order of [`APPETITES`].
    pub(super) fn tallies(&self) -> Vec<Tally> {
        let read = |tally: &Mutex<Tally>| *tally.lock().unwrap_or_else(PoisonError::into_inner);
        self.tallies.iter().map(read).collect()
    }

    /// Has them leave, also those whose calls wait.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

struct Worker {
    http: Client<HttpConnector, Full<Bytes>>,
    proxy: String,
    client_key: Secret<String>,
    clock: Clock,
    tallies: Arc<[Mutex<Tally>; APPETITES.len()]>,
    /// Of its appetite and tally.
    place: usize,
}

impl Worker {
    async fn run(self) {
        let appetite = &APPETITES[self.place];
        loop {
            let calls = (0..appetite.burst).map(|_| self.call(appetite));
            let all_well = join_all(calls).await.into_iter().all(|well| well);
            let pause = if all_well { Duration::ZERO } else { PAUSE_AFTER_FAILURE };
            self.rest(appetite.pause.max(pause)).await;
        }
    }

    async fn rest(&self, pause: Duration) {
        if !pause.is_zero() {
            self.clock.sleep_until(self.clock.now().mono.plus(pause)).await;
        }
    }

    async fn call(&self, appetite: &Appetite) -> bool {
        let number = self.count(|tally| {
            tally.sent += 1;
            tally.sent
        });
        let answer = self.exchange(appetite, number).await;
        self.count(|tally| match answer {
            Ok((status, waited)) if status.is_success() => {
                tally.ok += 1;
                tally.wait_longest = tally.wait_longest.max(waited);
                true
            }
            Ok(_) | Err(_) => {
                tally.failed += 1;
                false
            }
        })
    }

    async fn exchange(
        &self,
        appetite: &Appetite,
        number: u64,
    ) -> anyhow::Result<(StatusCode, Duration)> {
        let request = self.request(appetite, number)?;
        let answer = self.http.request(request).await?;
        let (status, waited) = (answer.status(), waited(answer.headers()));
        answer.into_body().collect().await?;
        Ok((status, waited))
    }

    fn request(&self, appetite: &Appetite, number: u64) -> anyhow::Result<Request<Full<Bytes>>> {
        let (method, path, body) = match appetite.task {
            Task::ReadContacts => (Method::GET, "/v3/contacts?limit=50", Bytes::new()),
            Task::ReadSummary => (Method::GET, "/v3/account/summary", Bytes::new()),
            Task::SignUp => (Method::POST, "/v3/contacts/sign_up_form", sign_up(number)),
        };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.proxy))
            .header(AUTHORIZATION, format!("Bearer {}", self.client_key.expose()))
            .header("ctct-tenant", appetite.tenant)
            .header("priority", appetite.priority)
            .header("prefer", "wait=120");
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        request.body(Full::new(body)).context("a request of constants")
    }

    fn count<T>(&self, count: impl FnOnce(&mut Tally) -> T) -> T {
        count(&mut self.tallies[self.place].lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn sign_up(number: impl Display) -> Bytes {
    let list = "00000000-0000-4000-8000-000000000001";
    let body = json!({
        "email_address": format!("visitor-{number}@example.com"),
        "list_memberships": [list],
    });
    Bytes::from(body.to_string())
}

/// How long the proxy says that the call waited for its slot and its token.
fn waited(headers: &HeaderMap) -> Duration {
    let timing = headers.get("server-timing").and_then(|timing| timing.to_str().ok());
    let ms_of = |name: &str| {
        let entries = timing.unwrap_or_default().split(", ");
        let mut ms = entries.filter_map(|entry| entry.strip_prefix(name)?.strip_prefix(";dur="));
        ms.find_map(|ms| ms.parse::<f64>().ok()).unwrap_or_default()
    };
    let ms = ms_of("queue") + ms_of("token");
    Duration::try_from_secs_f64(ms / 1_000.0).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_read_from_the_answer() {
        let mut headers = HeaderMap::new();
        assert_eq!(waited(&headers), Duration::ZERO);
        let timing = "queue;dur=1500.000, token;dur=250.500, upstream;dur=80.000";
        headers.insert("server-timing", timing.parse().unwrap());
        assert_eq!(waited(&headers), Duration::from_micros(1_750_500));
    }
}
