//! An upstream that rotates refresh tokens, answers as told, and remembers every request.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use async_trait::async_trait;
use tokio::sync::Notify;

use super::*;
use crate::engine::token::Trouble;
use crate::secret::Secret;

/// What happens to one request.
#[derive(Clone, Debug)]
pub(super) enum Turn {
    /// Answered after this time.
    Good(Duration),
    /// Rotated, and the answer never comes.
    Swallowed,
    /// Not seen by the upstream, and no answer comes.
    Vanished,
    /// Answered at once with this; nothing is rotated.
    Answer(RefreshAnswer),
}

impl Turn {
    pub(super) fn trouble(trouble: Trouble) -> Self {
        Self::Answer(RefreshAnswer::Trouble { trouble, detail: "as told".into() })
    }
}

/// A request as the upstream saw it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) tenant: String,
    pub(super) arrived: Mono,
    pub(super) answered: Mono,
}

#[derive(Debug, Default)]
struct State {
    current: BTreeMap<String, u64>,
    script: VecDeque<Turn>,
    seen: Vec<Seen>,
    in_flight: usize,
    long_lived: bool,
}

pub(super) struct Upstream {
    clock: Clock,
    state: Mutex<State>,
    pub(super) arrived: Notify,
}

impl Upstream {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, state: Mutex::default(), arrived: Notify::new() }
    }

    /// The account's owner connects: a new refresh token.
    pub(super) fn connect(&self, tenant: &TenantName) -> Secret<String> {
        let mut state = self.state.lock().unwrap();
        let number = state.current.entry(tenant.to_string()).or_default();
        *number += 1;
        Secret::new(format!("refresh-{tenant}-{number}"))
    }

    /// Refresh tokens live on after use.
    pub(super) fn long_lived(&self) {
        self.state.lock().unwrap().long_lived = true;
    }

    pub(super) fn accepts(&self, tenant: &TenantName, token: &Secret<String>) -> bool {
        let state = self.state.lock().unwrap();
        let number = state.current[tenant.as_str()];
        *token.expose() == format!("refresh-{tenant}-{number}")
    }

    pub(super) fn script(&self, turns: impl IntoIterator<Item = Turn>) {
        self.state.lock().unwrap().script.extend(turns);
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.state.lock().unwrap().seen.clone()
    }

    /// The process that asked has died.
    pub(super) fn forget_callers(&self) {
        let mut state = self.state.lock().unwrap();
        state.in_flight = 0;
        state.script.clear();
    }

    fn rotate(&self, token: &str) -> RefreshAnswer {
        let mut state = self.state.lock().unwrap();
        let long_lived = state.long_lived;
        let (tenant, number) = token.strip_prefix("refresh-").unwrap().rsplit_once('-').unwrap();
        let current = state.current.get_mut(tenant).unwrap();
        if *current != number.parse::<u64>().unwrap() {
            return RefreshAnswer::InvalidGrant;
        }
        if !long_lived {
            *current += 1;
        }
        let now = self.clock.now().unix.as_secs();
        let claims = json!({ "iat": now, "exp": now + 86_400, "cid": "client", "jti": *current });
        RefreshAnswer::Received(Received {
            access: Some(Secret::new(jwt(&claims))),
            refresh: (!long_lived).then(|| Secret::new(format!("refresh-{tenant}-{current}"))),
            expires_in: Some(secs(86_400)),
        })
    }
}

#[async_trait]
impl TokenEndpoint for Upstream {
    async fn refresh(&self, _: &KeyAuth, token: &Secret<String>) -> RefreshAnswer {
        let (turn, index) = {
            let mut state = self.state.lock().unwrap();
            assert_eq!(state.in_flight, 0, "two token requests at a time");
            state.in_flight += 1;
            let tenant = token.expose().split('-').nth(1).unwrap().to_owned();
            let arrived = self.clock.now().mono;
            state.seen.push(Seen { tenant, arrived, answered: Mono::NEVER });
            let turn = state.script.pop_front().unwrap_or(Turn::Good(secs(0)));
            (turn, state.seen.len() - 1)
        };
        self.arrived.notify_one();
        let answer = match turn {
            Turn::Good(delay) => {
                tokio::time::sleep(delay).await;
                self.rotate(token.expose())
            }
            Turn::Swallowed => {
                self.rotate(token.expose());
                tokio::time::sleep(secs(30)).await;
                RefreshAnswer::Lost { detail: "as told".into() }
            }
            Turn::Vanished => {
                tokio::time::sleep(secs(30)).await;
                RefreshAnswer::Lost { detail: "as told".into() }
            }
            Turn::Answer(answer) => answer,
        };
        let mut state = self.state.lock().unwrap();
        state.in_flight = state.in_flight.saturating_sub(1);
        state.seen[index].answered = self.clock.now().mono;
        answer
    }
}
