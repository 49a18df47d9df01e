//! A caller: sends a request and takes the whole answer in.

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Version};
use http_body_util::{BodyExt as _, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use serde_json::Value;

use ctct_proxy::upstream;

/// A request in the making.
pub(crate) struct Call {
    request: http::request::Builder,
    body: Bytes,
}

impl Call {
    pub(crate) fn new(method: Method, url: impl AsRef<str>) -> Self {
        let request = Request::builder().method(method).uri(url.as_ref());
        Self { request, body: Bytes::new() }
    }

    pub(crate) fn get(url: impl AsRef<str>) -> Self {
        Self::new(Method::GET, url)
    }

    pub(crate) fn post(url: impl AsRef<str>, body: impl Into<Bytes>) -> Self {
        Self::new(Method::POST, url).body(body)
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn json(self, value: &Value) -> Self {
        self.header("content-type", "application/json").body(value.to_string())
    }

    pub(crate) fn header<V>(mut self, name: &str, value: V) -> Self
    where
        V: TryInto<HeaderValue>,
        V::Error: std::fmt::Debug,
    {
        let name: HeaderName = name.parse().expect("a header name");
        self.request = self.request.header(name, value.try_into().expect("a header value"));
        self
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header(AUTHORIZATION.as_str(), format!("Bearer {token}"))
    }
}

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    /// A header as text; empty when it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("visible ASCII"))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The reason of a refusal, from `Proxy-Status`; empty for an answer of the upstream.
    pub(crate) fn reason(&self) -> &str {
        let status = self.header("proxy-status");
        status.split_once("details=\"").and_then(|(_, rest)| rest.split('"').next()).unwrap_or("")
    }

    pub(crate) fn retry_after(&self) -> Option<u64> {
        let value = self.headers.get(RETRY_AFTER)?;
        Some(value.to_str().expect("digits").parse().expect("seconds"))
    }

    /// Ends the test unless the answer is one with this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// Ends the test unless the answer is this refusal.
    #[track_caller]
    pub(crate) fn expect_refusal(self, status: u16, reason: &str) -> Self {
        assert_eq!((self.status, self.reason()), (status, reason), "{self:?}");
        self
    }
}

/// A caller with its connections; clones share them.
#[derive(Clone)]
pub(crate) struct Http(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Http {
    /// HTTP/1.1 with keep-alive.
    pub(crate) fn h1() -> Self {
        Self::h1_tls(upstream::no_tls())
    }

    /// HTTP/2 with prior knowledge.
    pub(crate) fn h2() -> Self {
        let mut builder = Client::builder(TokioExecutor::new());
        let tls = HttpsConnectorBuilder::new().with_tls_config(upstream::no_tls());
        let connector = tls.https_or_http().enable_http1().wrap_connector(connector());
        Self(builder.http2_only(true).build(connector))
    }

    /// HTTP/1.1 over TLS, with no protocol named by ALPN.
    pub(crate) fn h1_tls(config: ClientConfig) -> Self {
        let tls = HttpsConnectorBuilder::new().with_tls_config(config);
        let connector = tls.https_or_http().enable_http1().wrap_connector(connector());
        Self(Client::builder(TokioExecutor::new()).build(connector))
    }

    /// Over TLS, HTTP/2 if the far side agrees to it by ALPN, else HTTP/1.1.
    pub(crate) fn tls(config: ClientConfig) -> Self {
        let tls = HttpsConnectorBuilder::new().with_tls_config(config);
        let connector = tls.https_or_http().enable_all_versions().wrap_connector(connector());
        Self(Client::builder(TokioExecutor::new()).build(connector))
    }

    pub(crate) async fn send(&self, call: Call) -> Reply {
        self.try_send(call).await.unwrap_or_else(|error| panic!("no answer: {error}"))
    }

    pub(crate) async fn try_send(&self, call: Call) -> Result<Reply, String> {
        let request = call.request.body(Full::new(call.body)).expect("a request");
        let answer = self.0.request(request).await.map_err(|error| format!("{error:?}"))?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(|error| format!("the body: {error:?}"))?;
        let (status, version) = (head.status.as_u16(), head.version);
        Ok(Reply { status, version, headers: head.headers, body: body.to_bytes() })
    }
}

fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.enforce_http(false);
    connector
}
