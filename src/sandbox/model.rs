//! The whole state of a sandbox, and what happens to one request.
//!
//! A request comes here twice, each time for a moment under one lock: at its arrival, when it is
//! counted, judged and logged, and again with its body, when it is served. Nothing here waits or
//! reads a clock.

mod pages;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::engine::{Now, Unix};

use super::account::{Account, Call};
use super::answer::{Answer, FailureForm, quota_exceeded, throttled, unauthorized};
use super::device::{self, Devices};
use super::fault::{Fault, FaultKind, Faults, Target};
use super::grants::{Bearer, Freshness, Grants, InvalidGrant, Issued, Mint};
use super::limit::{Limited, Meter, day_of};
use super::log::{Counts, EntryId, KeyCounts, Log, LogEntry, Verdict, fingerprint};
use super::oauth::{self, Ask, Lane, Wish};
use super::options::Options;
use super::play::{Play, stage};

/// Names a call, as the real gateway does.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
const DAY_SECS: u64 = 86_400;

/// Limits, tokens, accounts, faults and the log.
#[derive(Debug)]
pub(super) struct Model {
    options: Options,
    rng: SmallRng,
    meters: HashMap<Arc<str>, Meter>,
    lanes: HashMap<String, Lane>,
    grants: Grants,
    devices: Devices,
    accounts: HashMap<Arc<str>, Account>,
    faults: Faults,
    log: Log,
}

/// An API call after its arrival.
#[derive(Debug)]
pub(super) struct Arrived {
    entry: EntryId,
    pass: Result<(Bearer, Option<FaultKind>), Answer>,
    /// Time from arrival to answer.
    pub(super) latency: Duration,
}

/// A token request after its arrival.
#[derive(Debug)]
pub(super) struct TokenTurn {
    pub(super) play: Play,
    pub(super) latency: Duration,
    /// Whether [`Model::token_answered`] must follow for this client.
    pub(super) occupies: Option<String>,
}

impl Model {
    pub(super) fn new(options: Options) -> Self {
        let seed = options.seed.unwrap_or_else(seed_of_chance);
        Self {
            options,
            rng: SmallRng::seed_from_u64(seed),
            meters: HashMap::new(),
            lanes: HashMap::new(),
            grants: Grants::default(),
            devices: Devices::default(),
            accounts: HashMap::new(),
            faults: Faults::default(),
            log: Log::default(),
        }
    }

    /// Counts, judges and logs an API call the moment its head has been read.
    pub(super) fn arrive(&mut self, now: Now, parts: &Parts) -> Arrived {
        let token = bearer_token(&parts.headers);
        let bearer = token.and_then(|token| self.grants.bearer(token, now));
        let (verdict, pass) = match bearer.clone() {
            None => (Verdict::Unauthorized, Err(unauthorized())),
            Some(bearer) => self.judge(now, bearer),
        };
        let mut entry = self.entry(now, parts, verdict);
        entry.query = parts.uri.query().map(Into::into);
        entry.fingerprint = token.map(|token| fingerprint(token).into());
        if let Some(bearer) = bearer {
            entry.client_id = Some(bearer.client_id);
            entry.account = Some(bearer.account);
        }
        let (middle, jitter) = (self.options.latency, self.options.jitter);
        let latency = self.latency(middle, jitter);
        Arrived { entry: self.log.push(entry), pass, latency }
    }

    fn judge(
        &mut self,
        now: Now,
        bearer: Bearer,
    ) -> (Verdict, Result<(Bearer, Option<FaultKind>), Answer>) {
        let meter = self.meters.entry(Arc::clone(&bearer.client_id)).or_default();
        match meter.arrive(&self.options, now) {
            Err(Limited::Throttled) => return (Verdict::Throttled, Err(throttled())),
            Err(Limited::QuotaExceeded) => return (Verdict::QuotaExceeded, Err(quota_exceeded())),
            Ok(()) if !bearer.good => return (Verdict::Unauthorized, Err(unauthorized())),
            Ok(()) => {}
        }
        let fault = self.faults.take(Target::Api, Some(&bearer.account));
        let fault = fault.or_else(|| self.failure_by_chance());
        let verdict = if fault.is_some() { Verdict::Fault } else { Verdict::Ok };
        (verdict, Ok((bearer, fault)))
    }

    /// Serves a call that has arrived, now that its body is here.
    pub(super) fn serve(
        &mut self,
        arrived: Arrived,
        now: Now,
        parts: &Parts,
        body: Result<Bytes, Answer>,
    ) -> (Play, Duration) {
        let length = body.as_ref().map(Bytes::len).unwrap_or_default();
        let (mut play, delay) = match (arrived.pass, body) {
            (Err(refusal), _) | (Ok(_), Err(refusal)) => (Play::Answer(refusal), Duration::ZERO),
            (Ok((bearer, fault)), Ok(body)) => {
                let contacts = self.options.contacts;
                let account = self.accounts.entry(Arc::clone(&bearer.account));
                let account =
                    account.or_insert_with(|| Account::new(&bearer.account, contacts, now));
                stage(fault, FailureForm::Api, || {
                    let scopes = &bearer.scopes;
                    account.serve(&Call { parts, body: &body, scopes, now })
                })
            }
        };
        self.log.complete(arrived.entry, play.status(), length);
        if let Play::Answer(answer) | Play::Cut(answer) = &mut play {
            answer.headers.insert(REQUEST_ID, self.request_id());
        }
        (play, arrived.latency + delay)
    }

    /// Judges, serves and logs a token request that arrived at `now`.
    pub(super) fn token(&mut self, now: Now, parts: &Parts, body: &Bytes) -> TokenTurn {
        let ask = Ask::read(parts, body);
        let account = ask.shown().and_then(|shown| self.grants.account_of(shown));
        let mut occupies = None;
        let mut delay = Duration::ZERO;
        let (verdict, play) = if ask.blocked {
            (Verdict::TokenBlocked, Play::Answer(Answer::html(StatusCode::FORBIDDEN)))
        } else if let Some(client_id) = ask.client_id() {
            let lane = self.lanes.entry(client_id.to_owned()).or_default();
            if lane.arrive(self.options.token_interval, now.mono) {
                occupies = Some(client_id.to_owned());
                let host = device::host(parts);
                let (verdict, play, extra) = self.token_served(now, &ask, account.as_deref(), host);
                delay = extra;
                (verdict, play)
            } else {
                (Verdict::TokenThrottled, Play::Answer(oauth::too_many_requests()))
            }
        } else {
            (Verdict::TokenInvalidClient, Play::Answer(oauth::invalid_client()))
        };
        let mut entry = self.entry(now, parts, verdict);
        entry.client_id = ask.client_id().map(Into::into);
        entry.account = account;
        entry.fingerprint = ask.shown().map(|shown| fingerprint(shown).into());
        let id = self.log.push(entry);
        self.log.complete(id, play.status(), body.len());
        TokenTurn { play, latency: self.options.token_latency + delay, occupies }
    }

    fn token_served(
        &mut self,
        now: Now,
        ask: &Ask,
        account: Option<&str>,
        host: &str,
    ) -> (Verdict, Play, Duration) {
        if !ask.is_known(&self.options.clients) {
            return (
                Verdict::TokenInvalidClient,
                Play::Answer(oauth::invalid_client()),
                Duration::ZERO,
            );
        }
        let fault = self.faults.take(Target::Token, account);
        let struck = fault.is_some();
        let mut verdict = Verdict::TokenFault;
        let (play, delay) = stage(fault, FailureForm::Token, || {
            let (served, answer) = self.grant(now, ask, host);
            if !struck {
                verdict = served;
            }
            answer
        });
        (verdict, play, delay)
    }

    fn grant(&mut self, now: Now, ask: &Ask, host: &str) -> (Verdict, Answer) {
        let client_id = ask.client_id().unwrap_or_default();
        let mut mint = Mint { options: &self.options, rng: &mut self.rng, now };
        let issued: Result<Issued, InvalidGrant> = match ask.wish() {
            Err(answer) => return (Verdict::TokenInvalidRequest, answer),
            Ok(Wish::Refresh { token }) => self.grants.refresh(client_id, token, &mut mint),
            Ok(Wish::Exchange { code, redirect_uri, verifier }) => {
                self.grants.exchange(client_id, code, redirect_uri, verifier, &mut mint)
            }
            Ok(Wish::Codes { scopes }) => {
                let answer = self.devices.begin(client_id, scopes, host, &mut mint);
                return (Verdict::TokenPending, answer);
            }
            Ok(Wish::Poll { code }) => {
                match self.devices.poll(client_id, code, &self.options, now.mono) {
                    Ok(granted) => Ok(self.grants.consented(granted, &mut mint)),
                    Err(why) => match device::not_yet(why) {
                        Ok(answered) => return answered,
                        Err(refused) => Err(refused),
                    },
                }
            }
        };
        oauth::token_answer(&self.options, issued)
    }

    /// The answer to a token request has been given, or nobody is left to hear it.
    pub(super) fn token_answered(&mut self, client_id: &str, now: Now) {
        if let Some(lane) = self.lanes.get_mut(client_id) {
            lane.answered(now.mono);
        }
    }

    fn aside(&mut self, now: Now, parts: &Parts, verdict: Verdict, answer: Answer) -> Answer {
        let entry = self.entry(now, parts, verdict);
        let id = self.log.push(entry);
        self.log.complete(id, answer.status.as_u16(), 0);
        answer
    }

    pub(super) fn connect(
        &mut self,
        now: Now,
        client_id: &str,
        account: &str,
        freshness: Freshness,
    ) -> Issued {
        let mut mint = Mint { options: &self.options, rng: &mut self.rng, now };
        self.grants.connect(client_id, account, freshness, &mut mint)
    }

    pub(super) fn revoke(&mut self, account: &str) -> usize {
        self.grants.revoke(account)
    }

    pub(super) fn add_fault(&mut self, fault: Fault) -> Result<(), &'static str> {
        self.faults.add(fault)
    }

    pub(super) fn clear_faults(&mut self) {
        self.faults.clear();
    }

    pub(super) fn log_since(&self, since: usize) -> Vec<LogEntry> {
        self.log.since(since).to_vec()
    }

    /// Forgets the log and all counts, those of the limits included; tokens, accounts and faults
    /// stay.
    pub(super) fn reset(&mut self) {
        self.log.reset();
        self.meters.clear();
        for lane in self.lanes.values_mut() {
            lane.counts = super::log::TokenCounts::default();
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let by_verdict = self.log.verdicts().clone();
        let keys = self.meters.iter().map(|(client_id, meter)| {
            let days = meter.days.iter().map(|(&day, &used)| (self.date_of(day), used)).collect();
            let (arrivals, most_in_one_second) = (meter.arrivals, meter.most_in_one_second);
            (client_id.to_string(), KeyCounts { arrivals, most_in_one_second, days })
        });
        let lanes = self.lanes.iter().filter(|(_, lane)| lane.counts.requests > 0);
        Counts {
            arrivals: by_verdict.values().sum(),
            by_verdict,
            api_keys: keys.collect(),
            token: lanes
                .map(|(client_id, lane)| (client_id.clone(), lane.counts.clone()))
                .collect(),
        }
    }

    /// The day that a call at `now` counts toward, by the date of its start.
    pub(super) fn today(&self, now: Now) -> String {
        self.date_of(day_of(&self.options, now.unix))
    }

    fn date_of(&self, day: u64) -> String {
        let start = Unix::from_secs(day * DAY_SECS).plus(self.options.day_reset);
        super::account::time_text(start.as_secs()).chars().take("2026-11-24".len()).collect()
    }

    fn entry(&self, now: Now, parts: &Parts, verdict: Verdict) -> LogEntry {
        let mut entry = LogEntry::new(now, &parts.method, parts.uri.path(), verdict);
        if self.options.record_headers {
            let mut headers = parts.headers.clone();
            if let Some(value) = headers.get_mut(AUTHORIZATION) {
                *value = HeaderValue::from_static("***");
            }
            entry.headers = Some(Box::new(headers));
        }
        entry
    }

    fn failure_by_chance(&mut self) -> Option<FaultKind> {
        let rng = &mut self.rng;
        let fail = self.options.fail.iter().find(|fail| rng.random::<f64>() < fail.rate)?;
        Some(FaultKind::Status { status: fail.status, retry_after: None, body: None })
    }

    fn latency(&mut self, middle: Duration, jitter: Duration) -> Duration {
        if jitter.is_zero() {
            return middle;
        }
        self.rng.random_range(middle.saturating_sub(jitter)..=middle + jitter)
    }

    fn request_id(&mut self) -> HeaderValue {
        let id = format!("{:032x}", self.rng.random::<u128>());
        HeaderValue::try_from(id).expect("hexadecimal digits are a header value")
    }
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

#[expect(clippy::disallowed_methods, reason = "the sandbox makes all its chance from this seed")]
fn seed_of_chance() -> u64 {
    rand::random()
}
