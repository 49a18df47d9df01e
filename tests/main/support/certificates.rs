//! Authorities, certificates, and callers over TLS.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::raw;

/// What signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) cert: String,
    pub(crate) key: String,
}

/// The files of a listener in a folder.
pub(crate) struct Files {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate with these alternative names, DNS names or addresses.
    pub(crate) fn sign(&self, names: &[&str]) -> Pair {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let params = CertificateParams::new(names).expect("names");
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.0).expect("a certificate");
        Pair { cert: cert.pem(), key: key.serialize_pem() }
    }

    /// A certificate for a listener on loopback.
    pub(crate) fn server(&self) -> Pair {
        self.sign(&["localhost", "127.0.0.1"])
    }

    /// A caller that trusts this authority.
    pub(crate) fn trusted(&self) -> ClientConfig {
        self.trusted_by(None)
    }

    /// A caller that trusts this authority and shows `pair`.
    pub(crate) fn trusted_by(&self, pair: Option<&Pair>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("an authority");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let Some(pair) = pair else { return builder.with_no_client_auth() };
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key");
        builder.with_client_auth_cert(vec![pair.der()], key).expect("a pair")
    }
}

impl Pair {
    pub(crate) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.cert.as_bytes()).expect("a certificate")
    }

    /// Writes `tls.crt` and `tls.key` into `folder`; each appears whole.
    pub(crate) fn write(&self, folder: &Path) -> Files {
        let files = Files { cert: folder.join("tls.crt"), key: folder.join("tls.key") };
        replace(&files.cert, &self.cert);
        replace(&files.key, &self.key);
        files
    }
}

/// Writes a file beside `path` and puts it in its place.
pub(crate) fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).expect("written");
    std::fs::rename(&beside, path).expect("renamed");
}

/// A connection over TLS, its handshake done; the protocols offered by ALPN are those of `config`.
pub(crate) async fn connect(
    address: SocketAddr,
    config: ClientConfig,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::from(address.ip());
    let stream = raw::connect(address).await;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// Whether a new connection is shown the certificate of `pair`.
pub(crate) async fn shows(address: SocketAddr, authority: &Authority, pair: &Pair) -> bool {
    let stream = connect(address, authority.trusted()).await.expect("a handshake");
    let shown = stream.get_ref().1.peer_certificates().expect("a certificate");
    shown[0] == pair.der()
}
