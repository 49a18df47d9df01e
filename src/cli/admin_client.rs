//! Asking the admin API of a running proxy.
//!
//! The proxy is found by flags, environment or configuration file, in this order, or is expected at
//! the default address. Answers are JSON; a refusal of the API becomes an error with its own
//! message. Over https the system's authorities are trusted, and those of `admin.ca_file`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{anyhow, bail};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use rustls::sign::SingleCertAndKey;
use serde_json::Value;

use crate::config::{self, ServeFlags, settings, tls, values};
use crate::secret::Secret;
use crate::upstream;

use super::Console;

/// A proxy that takes longer than this to answer does not work.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest answer; a page of tenants has well below a megabyte.
const ANSWER_LEN_MAX: usize = 64 << 20;
/// Items asked for in one page.
const PAGE: &str = "500";

const CONFIG_HELP: &str = "The proxy's configuration file, for the address and token of its admin \
    API [env: CTCT_PROXY_CONFIG]";
const URL_HELP: &str = "The admin API [default: http://127.0.0.1:9090, or what the configuration \
    says] [env: CTCT_PROXY_ADMIN_URL]";
const CA_HELP: &str = "PEM file of certificate authorities to be trusted besides the system's \
    [env: CTCT_PROXY_ADMIN_CA_FILE]";
const CERT_HELP: &str = "PEM file of the certificate to be shown, where admin.client_ca wants one \
    [env: CTCT_PROXY_ADMIN_CERT]";
const KEY_HELP: &str = "PEM file of its private key [env: CTCT_PROXY_ADMIN_KEY]";
const TOKEN_HELP: &str =
    "File with the bearer token of the admin API [env: CTCT_PROXY_ADMIN_TOKEN_FILE]";

/// How to find the admin API of a running proxy.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Which proxy")]
pub struct AdminArgs {
    /// The proxy's configuration file.
    #[arg(long, value_name = "FILE", help = CONFIG_HELP)]
    pub config: Option<PathBuf>,
    /// The admin API.
    #[arg(long, value_name = "URL", help = URL_HELP)]
    pub admin_url: Option<String>,
    /// File with the bearer token of the admin API.
    #[arg(long, value_name = "FILE", help = TOKEN_HELP)]
    pub admin_token_file: Option<String>,
    /// PEM file of certificate authorities to be trusted besides the system's.
    #[arg(long, value_name = "FILE", help = CA_HELP)]
    pub admin_ca_file: Option<String>,
    /// PEM file of the certificate to be shown.
    #[arg(long, value_name = "FILE", help = CERT_HELP)]
    pub admin_cert: Option<String>,
    /// PEM file of its private key.
    #[arg(long, value_name = "FILE", help = KEY_HELP)]
    pub admin_key: Option<String>,
}

/// A connection to the admin API.
pub struct AdminClient {
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: Uri,
    token: Option<Secret<String>>,
    patience: Duration,
}

/// Why the admin API gave no answer of use.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// It answered with an error; the text is its message.
    #[error("{message}")]
    Refused {
        /// The status of the answer.
        status: StatusCode,
        /// What it says.
        message: String,
    },
    /// There was no answer.
    #[error("{0}")]
    NoAnswer(String),
}

impl AdminClient {
    /// The client of the proxy that `args` and the environment name.
    ///
    /// # Errors
    /// When what they name cannot be read or is no address.
    pub fn new(args: &AdminArgs, console: &Console<'_>) -> anyhow::Result<Self> {
        let mut flags = ServeFlags::default();
        if let Some(path) = &args.config {
            flags = flags.with_config(path);
        }
        if let Some(path) = &args.admin_token_file {
            flags = flags.with(&settings::ADMIN_TOKEN_FILE, path);
        }
        if let Some(path) = &args.admin_ca_file {
            flags = flags.with(&settings::ADMIN_CA_FILE, path);
        }
        let access = config::admin_access(&flags, console.env)?;
        let from_env = |name: &str| (console.env)(name).filter(|text| !text.is_empty());
        let base = match args.admin_url.clone().or_else(|| from_env("CTCT_PROXY_ADMIN_URL")) {
            None => format!("http{}://{}", if access.tls { "s" } else { "" }, access.address),
            Some(url) => url,
        };
        let base = values::base_url(&base).map_err(|problem| anyhow!("the admin URL {problem}"))?;
        let trust = if base.scheme_str() == Some("https") {
            let cert = args.admin_cert.clone().or_else(|| from_env("CTCT_PROXY_ADMIN_CERT"));
            let key = args.admin_key.clone().or_else(|| from_env("CTCT_PROXY_ADMIN_KEY"));
            trust(access.ca_file.as_deref(), cert, key)?
        } else {
            upstream::no_tls()
        };
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(ANSWER_TIMEOUT));
        tcp.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(trust)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let http = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { http, base, token: access.token, patience: ANSWER_TIMEOUT })
    }

    /// The same for a question whose answer may take longer.
    #[must_use]
    pub const fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Asks for `path_and_query` and gives the JSON of the answer, `null` when it has none.
    ///
    /// # Errors
    /// [`AdminError`]
    pub async fn call(
        &self,
        method: Method,
        path_and_query: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value), AdminError> {
        let body = body.map(|body| Bytes::from(body.to_string()));
        self.send(method, path_and_query, body).await
    }

    /// As [`AdminClient::call`], with a body that is JSON already, such as one in memory that is
    /// wiped.
    ///
    /// # Errors
    /// [`AdminError`]
    pub async fn send(
        &self,
        method: Method,
        path_and_query: &str,
        body: Option<Bytes>,
    ) -> Result<(StatusCode, Value), AdminError> {
        let exchange = self.exchange(method, path_and_query, body);
        match tokio::time::timeout(self.patience, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(AdminError::NoAnswer(format!(
                "the proxy at {} did not answer within {} s",
                self.url(),
                self.patience.as_secs()
            ))),
        }
    }

    /// `GET path_and_query`.
    ///
    /// # Errors
    /// [`AdminError`]
    pub async fn get(&self, path_and_query: &str) -> Result<Value, AdminError> {
        self.call(Method::GET, path_and_query, None).await.map(|(_, answer)| answer)
    }

    /// All items of the list at `path`, page by page, that match `query`.
    ///
    /// # Errors
    /// An [`AdminError`], or an answer that is no list.
    pub async fn list(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut pairs = form_urlencoded::Serializer::new(String::new());
            pairs.append_pair("limit", PAGE).extend_pairs(query);
            pairs.extend_pairs(cursor.iter().map(|cursor| ("cursor", cursor)));
            let mut page = self.get(&format!("{path}?{}", pairs.finish())).await?;
            let Value::Array(more) = page["items"].take() else {
                bail!("the answer of {path} has no items: is {} an admin API?", self.url());
            };
            items.extend(more);
            let next = page["next_cursor"].as_str().filter(|next| !next.is_empty());
            match next {
                None => return Ok(items),
                Some(next) if cursor.as_deref() == Some(next) => {
                    bail!("the list at {path} does not end: its cursor does not move");
                }
                Some(next) => cursor = Some(next.to_owned()),
            }
        }
    }

    /// `POST path` for an answer that is a file: gives its head, and each piece of its body to
    /// `take` as it comes.
    ///
    /// # Errors
    /// An [`AdminError`], or what `take` says.
    pub async fn download(
        &self,
        path: &str,
        body: &Value,
        mut take: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<HeaderMap> {
        let asking = self.ask(Method::POST, path, Some(Bytes::from(body.to_string())));
        let response = tokio::time::timeout(self.patience, asking).await.map_err(|_| {
            self.no_answer(&anyhow!("no answer within {} s", self.patience.as_secs()))
        })??;
        if !response.status().is_success() {
            let (status, _) = self.read(response).await?;
            bail!("{} answered {status}", self.url());
        }
        let (head, mut body) = response.into_parts();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.no_answer(&anyhow!(error)))?;
            if let Some(piece) = frame.data_ref() {
                take(piece)?;
            }
        }
        Ok(head.headers)
    }

    async fn exchange(
        &self,
        method: Method,
        path_and_query: &str,
        body: Option<Bytes>,
    ) -> Result<(StatusCode, Value), AdminError> {
        let response = self.ask(method, path_and_query, body).await?;
        self.read(response).await
    }

    /// Reads an answer that is JSON, or has no body.
    async fn read(&self, response: Response<Incoming>) -> Result<(StatusCode, Value), AdminError> {
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_LEN_MAX)
            .collect()
            .await
            .map_err(|error| self.no_answer(&anyhow!(error)))?
            .to_bytes();
        let json = serde_json::from_slice::<Value>(&body);
        if status.is_success() {
            return match json {
                Ok(answer) => Ok((status, answer)),
                Err(_) if body.is_empty() => Ok((status, Value::Null)),
                Err(_) => Err(self.no_answer(&anyhow!("the answer is no JSON"))),
            };
        }
        let message = json.ok().and_then(|answer| {
            answer["error_message"].as_str().map(str::to_owned).filter(|text| !text.is_empty())
        });
        let message = message.unwrap_or_else(|| format!("{} answered {status}", self.url()));
        Err(AdminError::Refused { status, message })
    }

    /// Asks and gives the answer's head; its body is still to come.
    async fn ask(
        &self,
        method: Method,
        path_and_query: &str,
        body: Option<Bytes>,
    ) -> Result<Response<Incoming>, AdminError> {
        let request =
            self.request(method, path_and_query, body).map_err(|error| self.no_answer(&error))?;
        self.http.request(request).await.map_err(|error| {
            if error.is_connect() && self.base.scheme_str() == Some("http") {
                AdminError::NoAnswer(format!(
                    "no proxy answers at {}: is it running, and is this its --admin-listen?",
                    self.url()
                ))
            } else {
                self.no_answer(&error.into())
            }
        })
    }

    fn request(
        &self,
        method: Method,
        path_and_query: &str,
        body: Option<Bytes>,
    ) -> anyhow::Result<Request<Full<Bytes>>> {
        let uri = format!("{}{path_and_query}", self.url());
        let mut request = Request::builder().method(method).uri(uri);
        if let Some(token) = &self.token {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose()))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        Ok(request.body(Full::new(body.unwrap_or_default()))?)
    }

    /// The base URL as people write it.
    fn url(&self) -> String {
        self.base.to_string().trim_end_matches('/').to_owned()
    }

    fn no_answer(&self, cause: &anyhow::Error) -> AdminError {
        AdminError::NoAnswer(format!("could not ask the proxy at {}: {cause:#}", self.url()))
    }
}

/// Whom to trust over https, and what to show.
fn trust(
    ca_file: Option<&Path>,
    cert: Option<String>,
    key: Option<String>,
) -> anyhow::Result<ClientConfig> {
    let mut trust = upstream::tls(ca_file)?;
    let (cert, key) = match (cert, key) {
        (Some(cert), Some(key)) => (cert, key),
        (None, None) => return Ok(trust),
        (Some(_), None) | (None, Some(_)) => bail!("--admin-cert and --admin-key go together"),
    };
    let problem = |what: &'static str| move |problem| anyhow!("the file of {what} {problem}");
    let chain = tls::content(cert).and_then(|pem| tls::chain(&pem));
    let key = tls::content(key).and_then(|pem| tls::signing_key(&pem));
    let key = key.map_err(problem("--admin-key"))?;
    let identity = tls::identity(chain.map_err(problem("--admin-cert"))?, key);
    let identity = identity.map_err(problem("--admin-key"))?;
    trust.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(identity));
    Ok(trust)
}
