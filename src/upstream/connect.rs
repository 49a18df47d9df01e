//! Making connections: TCP, and TLS with the system's authorities and those of `upstream.ca_file`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, TryFutureExt as _};
use http::Uri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;
use tower::Service;

use super::wire::Wire;

/// No connection could be made; nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address did not answer, refused, or is not who it should be.
    #[error("could not connect: {0}")]
    Connect(Box<dyn std::error::Error + Send + Sync>),
    /// The connection closed before it could be used.
    #[error("the connection closed at once: {0}")]
    Handshake(hyper::Error),
    /// It took too long.
    #[error("could not connect within {0:?}")]
    TimedOut(Duration),
}

/// TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate authorities of the system cannot be used.
    #[error("could not set up TLS with the system's certificate authorities: {0}")]
    Verifier(rustls::Error),
    /// The file of further authorities cannot be used.
    #[error("could not read certificate authorities from {path}: {cause}")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
}

/// Makes connections; clones share the TLS session cache.
#[derive(Clone)]
pub struct Connector(HttpsConnector<Wires>);

/// A fresh connection.
pub(super) type Io = MaybeHttpsStream<Wire>;

/// The stream below a connection.
pub(super) fn wire(io: &Io) -> &Wire {
    match io {
        MaybeHttpsStream::Http(wire) => wire,
        MaybeHttpsStream::Https(tls) => tls.inner().get_ref().0.inner(),
    }
}

/// Makes the streams below connections.
#[derive(Clone)]
struct Wires(HttpConnector);

impl Service<Uri> for Wires {
    type Response = Wire;
    type Error = <HttpConnector as Service<Uri>>::Error;
    type Future = BoxFuture<'static, Result<Wire, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        self.0.call(url).map_ok(Wire::new).boxed()
    }
}

impl Connector {
    /// A connector that trusts as `tls` says.
    #[must_use]
    pub fn new(tls: ClientConfig) -> Self {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(Wires(http));
        Self(https)
    }

    pub(super) async fn connect(&self, url: Uri) -> Result<Io, ConnectError> {
        self.0.clone().call(url).await.map_err(ConnectError::Connect)
    }
}

/// TLS that trusts the system's authorities and those in `ca_file`.
///
/// # Errors
/// [`TlsError`] when either cannot be read.
pub fn tls(ca_file: Option<&Path>) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let further = ca_file.map_or(Ok(Vec::new()), authorities)?;
    let verifier =
        Verifier::new_with_extra_roots(further, provider.clone()).map_err(TlsError::Verifier)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Verifier)?;
    // "dangerous" is any verifier that rustls does not bring; this one is the operating system's
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    Ok(builder.with_no_client_auth())
}

/// TLS that trusts nobody, for where only plain text is spoken: the system's authorities need not
/// be read.
///
/// # Panics
/// Never; the provider knows the versions.
#[must_use]
pub fn no_tls() -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows the versions")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth()
}

fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fault = |cause: String| TlsError::CaFile { path: path.to_owned(), cause };
    let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let all = all.map_err(|error| fault(error.to_string()))?;
    if all.is_empty() { Err(fault("no certificate in the file".to_owned())) } else { Ok(all) }
}
