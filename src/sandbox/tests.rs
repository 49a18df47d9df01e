//! The sandbox over real sockets, in virtual time.
//!
//! Server and caller share one thread and one paused clock, so that a test can stand on the edge of
//! a second, a day or a token's life and nothing depends on how fast the machine is.

mod api;
mod faults;
mod journal;
mod limits;
mod tokens;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::clock::Clock;
use crate::engine::Unix;

use super::{IssuedGrant, Options, Sandbox};

/// 2026-11-24T12:00:00Z.
const NOON: u64 = 1_795_521_600;
const KEY: &str = "6f1f0b1e-0000-4000-8000-00000000000a";

/// A sandbox, its clock, and somebody who calls it.
struct Bench {
    sandbox: Sandbox,
    clock: Clock,
    client: Client<HttpConnector, Full<Bytes>>,
}

#[derive(Debug)]
struct Reply {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Reply {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// No latency, a free port, the same chance every time.
fn quick() -> Options {
    Options {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        latency: Duration::ZERO,
        jitter: Duration::ZERO,
        token_latency: Duration::ZERO,
        seed: Some(7),
        ..Options::default()
    }
}

/// The same without limits.
fn unlimited() -> Options {
    Options { per_second: u32::MAX, per_day: u64::MAX, ..quick() }
}

impl Bench {
    async fn start(options: Options) -> Self {
        let clock = Clock::starting_at(Unix::from_secs(NOON));
        let sandbox = Sandbox::start(options, clock.clone()).await.unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { sandbox, clock, client }
    }

    fn tenant(&self) -> IssuedGrant {
        self.sandbox.connect_tenant(KEY, "acme")
    }

    async fn pass(&self, span: Duration) {
        self.clock.sleep_until(self.clock.now().mono.plus(span)).await;
    }

    /// One request; `None` when the connection was closed before the end of an answer.
    async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Option<Reply> {
        let mut request = Request::builder().method(method).uri(self.sandbox.url() + path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let response = self.client.request(request).await.ok()?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        Some(Reply { status: parts.status.as_u16(), headers: parts.headers, body })
    }

    async fn get(&self, path: &str, token: &str) -> Reply {
        let bearer = format!("Bearer {token}");
        self.call(Method::GET, path, &[("authorization", &bearer)], "").await.unwrap()
    }

    async fn send(&self, method: Method, path: &str, token: &str, body: &Value) -> Reply {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        self.call(method, path, &headers, body.to_string()).await.unwrap()
    }

    async fn control(&self, method: Method, path: &str, body: &Value) -> Reply {
        self.call(method, path, &[], body.to_string()).await.unwrap()
    }

    /// A form at the token endpoint, sent by a public client.
    async fn form(&self, form: &str) -> Option<Reply> {
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        self.call(Method::POST, "/oauth2/default/v1/token", &headers, form.to_owned()).await
    }

    /// A refresh a second after the one before, so that the pace is kept.
    async fn refresh(&self, refresh_token: &str) -> Reply {
        self.pass(Duration::from_secs(1)).await;
        self.form(&refresh_form(refresh_token)).await.unwrap()
    }
}

fn refresh_form(refresh_token: &str) -> String {
    format!("grant_type=refresh_token&client_id={KEY}&refresh_token={refresh_token}")
}
