//! TLS of a listener: what it shows, from whom it wants a certificate, and how both change.
//!
//! All of it is one value that a new one replaces once that is known to be good: new connections
//! begin with it, and those under way keep what they began with. Files that cannot be used leave
//! the one before in force. Where certificates say who calls, no session is resumed: each
//! connection is verified, by the authorities of its day.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use crate::clock::Clock;
use crate::config::{TlsFiles, tls};
use crate::telemetry::Metrics;

/// What is spoken, best first (RFC 7301).
const ALPN: [&[u8]; 2] = [ALPN_H2, b"http/1.1"];
/// HTTP/2 over TLS (RFC 9113 section 3.3).
pub(super) const ALPN_H2: &[u8] = b"h2";
/// Wait after the system has told of a change: certificate and key are replaced one after another.
const SETTLE: Duration = Duration::from_millis(250);
/// How often the files are looked at although the system tells of nothing, as it does not of those
/// on another machine.
const LOOK_EVERY: Duration = Duration::from_mins(1);

/// Whether a listener that knows authorities of callers wants a certificate of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callers {
    /// One that is shown is verified.
    MayShow,
    /// Who shows none is not served.
    MustShow,
}

/// What the TLS of a listener is made of.
pub struct Parts {
    /// The section of its settings, for messages: `server` or `admin`.
    pub section: &'static str,
    /// Its files.
    pub files: TlsFiles,
    /// What `client_ca` means there.
    pub callers: Callers,
    /// Reads time.
    pub clock: Clock,
    /// Tells when the certificate ends.
    pub metrics: Metrics,
}

/// The TLS of a listener; clones share it.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    parts: Parts,
    now: ArcSwap<ServerConfig>,
    /// The digest of what was last found in the files, good or bad. Held while they are read.
    seen: Mutex<[u8; 32]>,
}

/// The client that the verified certificate of a connection names, an extension of each request
/// over it: the only DNS name among the certificate's alternative ones (RFC 5280 section 4.2.1.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertifiedName(Option<Arc<str>>);

impl CertifiedName {
    /// The name; `None` when the certificate has no DNS name, or several.
    #[must_use]
    pub fn get(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// What the certificate of the connection's other end names; `None` when it has shown none.
    pub(super) fn of(connection: &ServerConnection) -> Option<Self> {
        let certificate = connection.peer_certificates()?.first()?;
        Some(Self(only_dns_name(certificate).map(Arc::from)))
    }
}

impl Tls {
    /// The TLS of the files as they are now.
    ///
    /// # Errors
    /// What is wrong with them, with the setting that names the file.
    pub fn load(parts: Parts) -> Result<Self, String> {
        let content = Content::read(&parts)?;
        let (config, ends_at) = content.make(&parts)?;
        parts.tell(ends_at, "certificate in use");
        let seen = Mutex::new(digest(&Ok(content)));
        Ok(Self(Arc::new(Inner { parts, now: ArcSwap::from_pointee(config), seen })))
    }

    /// What a new connection begins with.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.0.now.load_full()
    }

    /// Looks at the files again, and takes what is new in them if it is good.
    pub async fn look(&self) {
        let inner = self.0.clone();
        // files may be on another machine, and a key takes a while to be checked
        if tokio::task::spawn_blocking(move || inner.look()).await.is_err() {
            error!("looking at certificates panicked");
        }
    }

    /// Looks at the files whenever they may have changed, until `stopped`.
    pub async fn follow(self, stopped: CancellationToken) {
        let (tell, mut told) = mpsc::channel(1);
        // held for as long as it is to watch; `tell` so that there is always something to wait for
        let _watching = watch(&self.0.parts.files, tell.clone());
        loop {
            let waiting = tokio::time::timeout(LOOK_EVERY, told.recv());
            match stopped.run_until_cancelled(waiting).await {
                None => return,
                Some(Ok(_)) => tokio::time::sleep(SETTLE).await,
                Some(Err(_)) => {}
            }
            // what is told from here on may not be seen by this look
            let _ = told.try_recv();
            self.look().await;
        }
    }
}

impl Inner {
    fn look(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let content = Content::read(&self.parts);
        let found = digest(&content);
        if found == *seen {
            return;
        }
        *seen = found;
        match content.and_then(|content| content.make(&self.parts)) {
            Ok((config, ends_at)) => {
                self.now.store(Arc::new(config));
                self.parts.tell(ends_at, "new certificate in use");
            }
            Err(problem) => {
                warn!(%problem, "new certificates are refused; those before stay in force");
            }
        }
    }
}

impl Parts {
    /// Says which certificate is in use, in the log and on the page of metrics.
    fn tell(&self, ends_at: Timestamp, what: &'static str) {
        let (now, listener) = (self.clock.now().unix.as_secs(), self.section);
        let end = u64::try_from(ends_at.as_second()).unwrap_or_default();
        self.metrics.certificate_ends(self.section, end);
        if end > now {
            info!(listener, %ends_at, "{what}");
        } else {
            warn!(listener, %ends_at, "{what}, which has ended");
        }
    }
}

/// What is in the files.
struct Content {
    cert: Pem,
    key: Pem,
    client_ca: Option<Pem>,
}

type Pem = zeroize::Zeroizing<Vec<u8>>;

impl Content {
    fn read(parts: &Parts) -> Result<Self, String> {
        let read = |key: &str, path: &Path| {
            tls::content(path).map_err(|problem| format!("{}.{key} {problem}", parts.section))
        };
        let client_ca = parts.files.client_ca.as_deref();
        Ok(Self {
            cert: read("tls_cert", &parts.files.cert)?,
            key: read("tls_key", &parts.files.key)?,
            client_ca: client_ca.map(|path| read("client_ca", path)).transpose()?,
        })
    }

    /// The configuration of new connections, and when the certificate ends.
    fn make(&self, parts: &Parts) -> Result<(ServerConfig, Timestamp), String> {
        let of = |key: &'static str| move |what| format!("{}.{key} {what}", parts.section);
        let chain = tls::chain(&self.cert).map_err(of("tls_cert"))?;
        let ends_at = chain.first().and_then(|certificate| end(certificate));
        let ends_at = ends_at.ok_or("holds a certificate that cannot be read");
        let ends_at = ends_at.map_err(str::to_owned).map_err(of("tls_cert"))?;
        let key = tls::signing_key(&self.key).map_err(of("tls_key"))?;
        let identity = tls::identity(chain, key).map_err(of("tls_key"))?;
        let roots = self.client_ca.as_ref().map(|pem| tls::roots(pem)).transpose();
        let roots = roots.map_err(of("client_ca"))?;
        let config = server_config(identity, roots, parts.callers);
        Ok((config.map_err(|error| of("client_ca")(error.to_string()))?, ends_at))
    }
}

/// Tells contents, and failures to read them, apart.
fn digest(content: &Result<Content, String>) -> [u8; 32] {
    let mut digest = Sha256::new();
    match content {
        Ok(content) => {
            let none = Pem::default();
            let client_ca = content.client_ca.as_ref().unwrap_or(&none);
            for part in [&content.cert, &content.key, client_ca] {
                digest.update(Sha256::digest(part));
            }
        }
        Err(problem) => digest.update(problem),
    }
    digest.finalize().into()
}

fn server_config(
    identity: CertifiedKey,
    roots: Option<RootCertStore>,
    callers: Callers,
) -> Result<ServerConfig, Box<dyn std::error::Error>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    let resolver = Arc::new(SingleCertAndKey::from(identity));
    let mut config = match roots {
        None => builder.with_no_client_auth().with_cert_resolver(resolver),
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match callers {
                Callers::MayShow => verifier.allow_unauthenticated(),
                Callers::MustShow => verifier,
            };
            let builder = builder.with_client_cert_verifier(verifier.build()?);
            let mut config = builder.with_cert_resolver(resolver);
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            config
        }
    };
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    Ok(config)
}

/// Has the system tell of changes in the folders of the files: a file that is replaced, or a link
/// that leads elsewhere, is a change of its folder.
fn watch(files: &TlsFiles, tell: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let told = move |event: notify::Result<Event>| {
        // that a file was read, as by us, is no change; an error may have been one
        let matters = event.map_or(true, |event| match event.kind {
            EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
            _ => true,
        });
        if matters {
            // full: it is told already
            let _ = tell.try_send(());
        }
    };
    let watching = notify::recommended_watcher(told).and_then(|mut watcher| {
        let all = [Some(&files.cert), Some(&files.key), files.client_ca.as_ref()];
        let mut folders: Vec<PathBuf> =
            all.into_iter().flatten().map(|file| folder(file)).collect();
        folders.sort_unstable();
        folders.dedup();
        for folder in folders {
            watcher.watch(&folder, RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    });
    watching
        .inspect_err(|error| {
            warn!(%error, "the system does not tell of new certificates; they are looked for \
                           every minute");
        })
        .ok()
}

fn folder(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

/// When a certificate ends. One without an end says 9999-12-31 (RFC 5280 section 4.1.2.5), which is
/// later than a [`Timestamp`] can be.
fn end(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let end = Timestamp::from_second(certificate.validity().not_after.timestamp());
    Some(end.unwrap_or(Timestamp::MAX))
}

/// The DNS name of a certificate that has exactly one.
fn only_dns_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let names = &certificate.subject_alternative_name().ok()??.value.general_names;
    let mut found = None;
    for name in names {
        match name {
            GeneralName::DNSName(name) if found.is_none() => found = Some((*name).to_owned()),
            // what cannot be read could be a second one
            GeneralName::DNSName(_) | GeneralName::Invalid(..) => return None,
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn name_among(names: Vec<SanType>) -> Option<String> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = names;
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert!(end(certificate.der()).is_some());
        only_dns_name(certificate.der())
    }

    #[test]
    fn only_a_certificate_with_one_dns_name_names_a_client() {
        let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
        let mail = || SanType::Rfc822Name("shop@a.example".try_into().unwrap());
        let address = || SanType::IpAddress([127, 0, 0, 1].into());
        assert_eq!(name_among(vec![dns("shop")]).as_deref(), Some("shop"));
        assert_eq!(name_among(vec![mail(), dns("shop"), address()]).as_deref(), Some("shop"));
        assert_eq!(name_among(vec![mail(), address()]), None);
        assert_eq!(name_among(vec![dns("shop"), dns("shop")]), None);
        assert_eq!(name_among(vec![dns("shop"), mail(), dns("reports")]), None);
        // the common name that every certificate of this kind has is not looked at
        assert_eq!(name_among(Vec::new()), None);
    }

    #[test]
    fn a_certificate_without_an_end_ends_as_late_as_can_be() {
        let ending = |year, month, day| {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.not_after = rcgen::date_time_ymd(year, month, day);
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            end(certificate.der()).unwrap()
        };
        assert_eq!(ending(2031, 2, 3).to_string(), "2031-02-03T00:00:00Z");
        assert_eq!(ending(9999, 12, 31), Timestamp::MAX);
        assert!(end(&CertificateDer::from_slice(b"no certificate")).is_none());
    }

    #[test]
    fn a_file_without_a_folder_is_in_the_working_directory() {
        assert_eq!(folder(Path::new("tls.crt")), Path::new("."));
        assert_eq!(folder(Path::new("/etc/proxy/tls.crt")), Path::new("/etc/proxy"));
    }
}
