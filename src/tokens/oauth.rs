//! The token endpoint over HTTP: one form POST (RFC 6749 section 6), on a connection of its own.
//!
//! A refresh token works once, so what happened to the request must be known as well as can be.
//! Each request opens a connection: a kept one may be closing just as the request is written, and
//! "sent or not" would be a guess. At one request a second the handshake costs nothing. Redirects
//! are not followed, nothing is repeated.

mod answer;
mod guarded;

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{HttpConnector, capture_connection};
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use zeroize::Zeroizing;

use super::endpoint::{KeyAuth, MayLeave, RefreshAnswer, TokenEndpoint};
use super::errand::Errand;
use crate::config::AuthStyle;
use crate::engine::token::Trouble;
use crate::secret::Secret;

pub use answer::{classify, error_code};
use guarded::Guarded;

/// From the start of the connection to the end of the answer. Long, because an answer that is not
/// waited for may cost a customer's connection, while a slow one costs the lane some time.
const TIME_OUT: Duration = Duration::from_secs(60);
/// For a TCP connection alone.
const CONNECT_TIME_OUT: Duration = Duration::from_secs(5);
/// Token answers are about 2 KiB; a longer one is something else.
const BODY_MAX: usize = 64 * 1024;
/// The front of the upstream refuses unspecific agents before the endpoint sees them.
const AGENT: &str = concat!("ctct-proxy/", env!("CARGO_PKG_VERSION"));

/// The token endpoint of each API key, over HTTP.
#[derive(Clone, Debug)]
pub struct HttpTokenEndpoint {
    client: Client<HttpsConnector<HttpConnector>, Guarded>,
    time_out: Duration,
}

impl HttpTokenEndpoint {
    /// An endpoint that trusts what the operating system trusts.
    ///
    /// # Errors
    /// When the roots of the operating system cannot be had.
    pub fn with_system_roots() -> Result<Self, rustls::Error> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let tls = ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()?
            .try_with_platform_verifier()?
            .with_no_client_auth();
        Ok(Self::with_tls(tls))
    }

    /// An endpoint that trusts as `tls` says, which must not name protocols (ALPN). Plain `http:`
    /// works too.
    #[must_use]
    pub fn with_tls(tls: ClientConfig) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIME_OUT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .retry_canceled_requests(false)
            .build(connector);
        Self { client, time_out: TIME_OUT }
    }

    /// The same with another time-out.
    #[must_use]
    pub const fn time_out(mut self, time_out: Duration) -> Self {
        self.time_out = time_out;
        self
    }
}

#[async_trait]
impl TokenEndpoint for HttpTokenEndpoint {
    async fn refresh(&self, key: &KeyAuth, refresh_token: &Secret<String>) -> RefreshAnswer {
        read_answer(self.send(key, &key.token_url, &refresh_form(refresh_token), None).await)
    }

    async fn refresh_while(
        &self,
        key: &KeyAuth,
        refresh_token: &Secret<String>,
        may_leave: MayLeave,
    ) -> RefreshAnswer {
        let form = refresh_form(refresh_token);
        read_answer(self.send(key, &key.token_url, &form, Some(may_leave)).await)
    }
}

fn refresh_form(refresh_token: &Secret<String>) -> [(&str, &str); 2] {
    [("grant_type", "refresh_token"), ("refresh_token", refresh_token.expose())]
}

fn read_answer(posted: Posted) -> RefreshAnswer {
    posted.map_or_else(|failed| failed, |(status, content)| classify(status, content.expose()))
}

/// A whole answer, or how the exchange ended without one.
type Posted = Result<(StatusCode, Secret<Vec<u8>>), RefreshAnswer>;

impl HttpTokenEndpoint {
    /// Asks the token endpoint of an errand's API key for tokens with `form`, while the errand has
    /// the lane.
    pub async fn ask(&self, errand: &Errand, form: &[(&str, &str)]) -> RefreshAnswer {
        read_answer(self.post(errand, &errand.key().token_url, form).await)
    }

    /// Sends `form` to `url` with what authenticates an errand's API key, while the errand has the
    /// lane, and reads the answer to its end.
    ///
    /// # Errors
    /// How the exchange ended when there was no whole answer.
    pub async fn post(
        &self,
        errand: &Errand,
        url: &Uri,
        form: &[(&str, &str)],
    ) -> Result<(StatusCode, Secret<Vec<u8>>), RefreshAnswer> {
        let may_leave = errand.may_leave().await?;
        self.send(errand.key(), url, form, Some(may_leave)).await
    }

    async fn send(
        &self,
        key: &KeyAuth,
        url: &Uri,
        form: &[(&str, &str)],
        may_leave: Option<MayLeave>,
    ) -> Posted {
        let Some(mut request) = form_request(key, url, form, may_leave) else {
            let detail = "the token request cannot be written: look at token_url and client_id";
            return Err(RefreshAnswer::NotSent { detail: detail.to_owned() });
        };
        let kept_back = request.body().kept_back();
        let captured = capture_connection(&mut request);
        let connected = || captured.connection_metadata().is_some();
        let exchange = async {
            match self.client.request(request).await {
                Err(_) if kept_back.load(Ordering::Relaxed) => Err(RefreshAnswer::LaneLost),
                Ok(response) => read(response).await,
                // Without a connection nothing can have been sent; with one it may have been.
                Err(error) if error.is_connect() && !connected() => {
                    Err(RefreshAnswer::NotSent { detail: causes(&error) })
                }
                Err(error) => Err(RefreshAnswer::Lost { detail: causes(&error) }),
            }
        };
        tokio::time::timeout(self.time_out, exchange).await.unwrap_or_else(|_| {
            let detail = format!("no answer within {:?}", self.time_out);
            Err(if connected() {
                RefreshAnswer::Lost { detail }
            } else {
                RefreshAnswer::NotSent { detail }
            })
        })
    }
}

/// The request; `None` when the settings of the API key do not make one.
fn form_request(
    key: &KeyAuth,
    url: &Uri,
    fields: &[(&str, &str)],
    may_leave: Option<MayLeave>,
) -> Option<Request<Guarded>> {
    let mut form = form_urlencoded::Serializer::new(String::with_capacity(1_024));
    form.extend_pairs(fields);
    let secret = key.secret.as_ref().map(|secret| secret.expose().as_str());
    let mut builder = Request::builder()
        .method(Method::POST)
        .uri(url)
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, AGENT);
    match key.auth_style {
        AuthStyle::Basic => {
            builder = builder.header(AUTHORIZATION, basic(&key.client_id, secret?)?);
        }
        AuthStyle::Body => {
            form.append_pair("client_id", &key.client_id);
            form.append_pair("client_secret", secret?);
        }
        AuthStyle::Public => {
            form.append_pair("client_id", &key.client_id);
        }
    }
    let body = Bytes::from_owner(Zeroizing::new(form.finish().into_bytes()));
    builder.body(Guarded::new(body, may_leave)).ok()
}

/// RFC 6749 section 2.3.1: both parts form-urlencoded, then Basic.
fn basic(client_id: &str, secret: &str) -> Option<HeaderValue> {
    let encode = |text: &str| -> Zeroizing<String> {
        Zeroizing::new(form_urlencoded::byte_serialize(text.as_bytes()).collect())
    };
    let pair = Zeroizing::new(format!("{}:{}", *encode(client_id), *encode(secret)));
    let text = Zeroizing::new(format!("Basic {}", *Zeroizing::new(STANDARD.encode(&*pair))));
    let mut value =
        HeaderValue::from_maybe_shared(Bytes::from_owner(Zeroizing::new(text.as_bytes().to_vec())))
            .ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Reads an answer to its end.
async fn read(
    response: http::Response<Incoming>,
) -> Result<(StatusCode, Secret<Vec<u8>>), RefreshAnswer> {
    let (head, mut body) = response.into_parts();
    let mut content = Zeroizing::new(Vec::with_capacity(4_096));
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => {
                let data = frame.data_ref().map_or(&[][..], |data| &data[..]);
                if content.len() + data.len() > BODY_MAX {
                    content.clear();
                    break;
                }
                content.extend_from_slice(data);
            }
            Err(error) => return Err(broken(head.status, &error)),
        }
    }
    Ok((head.status, Secret::new(std::mem::take(&mut *content))))
}

/// An answer that broke off: a success may have held tokens; a refusal is known by its status.
fn broken(status: StatusCode, error: &hyper::Error) -> RefreshAnswer {
    if status.is_success() {
        let detail = format!("the answer broke off: {}", causes(error));
        return RefreshAnswer::Lost { detail };
    }
    match classify(status, b"") {
        RefreshAnswer::InvalidClient { detail } => {
            RefreshAnswer::Trouble { trouble: Trouble::Unexpected, detail }
        }
        other => other,
    }
}

/// An error with what is behind it.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
