//! The PEM files of TLS: which of them a listener has, and what is in them.
//!
//! A listener has a certificate together with its key or neither, and knows authorities of callers
//! only beside them. What is in the files is judged here alone, at the start and whenever they are
//! looked at again. No message holds anything of a file's content, and memory of ours that has held
//! a private key is wiped.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{Error, InconsistentKeys, RootCertStore};
use zeroize::Zeroizing;

use super::mistakes::Origin;
use super::reader::Reader;
use super::settings::{self, Setting};

/// The files of a listener's TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Its certificate, those between it and its authority behind it.
    pub cert: PathBuf,
    /// The private key of its certificate.
    pub key: PathBuf,
    /// The authorities of callers' certificates.
    pub client_ca: Option<PathBuf>,
}

/// Those of the data plane.
pub(super) fn of_data_plane(reader: &mut Reader<'_>) -> Option<TlsFiles> {
    files(reader, [&settings::TLS_CERT, &settings::TLS_KEY, &settings::CLIENT_CA])
}

/// Those of the admin listener.
pub(super) fn of_admin(reader: &mut Reader<'_>) -> Option<TlsFiles> {
    let all = [&settings::ADMIN_TLS_CERT, &settings::ADMIN_TLS_KEY, &settings::ADMIN_CLIENT_CA];
    files(reader, all)
}

fn files(
    reader: &mut Reader<'_>,
    [cert, key, client_ca]: [&'static Setting; 3],
) -> Option<TlsFiles> {
    let read_chain = |path: &str| Ok((PathBuf::from(path), chain(&content(path)?)?));
    let read_key = |path: &str| {
        let key = content(path).and_then(|pem| signing_key(&pem));
        Ok((PathBuf::from(path), key.map_err(|problem| format!("the file {problem}"))?))
    };
    let read_roots = |path: &str| roots(&content(path)?).map(|_| PathBuf::from(path));
    let chain = reader.optional(cert, read_chain);
    let signing_key = reader.optional(key, read_key);
    let client_ca_file = reader.optional(client_ca, read_roots);
    let given = [cert, key, client_ca].map(|setting| reader.raw(setting).is_some());
    let missing = match given {
        [true, false, _] => Some((key, cert)),
        [false, true, _] => Some((cert, key)),
        [false, false, true] => Some((cert, client_ca)),
        [true, true, _] | [false, false, false] => None,
    };
    if let Some((missing, because)) = missing {
        let problem = format!("is needed because {} is given", because.path());
        let allowed = missing.kind.allowed();
        reader.mistakes.add(missing.path(), &Origin::Default, problem, allowed);
    }
    let ((cert_file, chain), (key_file, signing_key)) = (chain?, signing_key?);
    if let Err(problem) = identity(chain, signing_key) {
        let origin = reader.origin(key);
        reader.mistakes.add(key.path(), &origin, problem, format!("the key of {}", cert.path()));
    }
    Some(TlsFiles { cert: cert_file, key: key_file, client_ca: client_ca_file })
}

/// The bytes of a file, to be wiped: it may hold a private key.
///
/// # Errors
/// What is wrong, without the path.
pub fn content(path: impl AsRef<Path>) -> Result<Zeroizing<Vec<u8>>, String> {
    std::fs::read(path)
        .map(Zeroizing::new)
        .map_err(|error| format!("cannot be read: {}", error.kind()))
}

/// The certificates in `pem`, at least one.
///
/// # Errors
/// What is wrong, without any of the content.
pub fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if all.is_empty() => Err("holds no PEM certificate".into()),
        Ok(all) => Ok(all),
        Err(_) => Err("holds PEM that cannot be read".into()),
    }
}

/// The private key in `pem`.
///
/// # Errors
/// What is wrong, without any of the content.
pub fn signing_key(pem: &[u8]) -> Result<Arc<dyn SigningKey>, String> {
    let key = PrivateKeyDer::from_pem_slice(pem).map(Zeroizing::new).map_err(
        |_| "holds no PEM private key that can be read (PKCS#8, PKCS#1 or SEC1, not encrypted)",
    )?;
    any_supported_type(&key).map_err(|_| "holds a private key of a kind that is not known".into())
}

/// A certificate with its key, which must belong together.
///
/// # Errors
/// What is wrong.
pub fn identity(
    chain: Vec<CertificateDer<'static>>,
    key: Arc<dyn SigningKey>,
) -> Result<CertifiedKey, String> {
    let identity = CertifiedKey::new(chain, key);
    match identity.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(identity),
        Err(Error::InconsistentKeys(_)) => Err("does not belong to the certificate".into()),
        Err(_) => Err("belongs to a certificate that cannot be read".into()),
    }
}

/// The authorities in `pem`, at least one.
///
/// # Errors
/// What is wrong, without any of the content.
pub fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(pem)? {
        let added = roots.add(certificate);
        added.map_err(|_| "holds a certificate that cannot be an authority")?;
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn pair() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn a_certificate_and_its_key_belong_together_and_another_key_does_not() {
        let ((cert, key), (_, other)) = (pair(), pair());
        let with = |key: &str| {
            let key = signing_key(key.as_bytes()).unwrap();
            identity(chain(cert.as_bytes()).unwrap(), key).map(drop)
        };
        assert_eq!(with(&key), Ok(()));
        assert_eq!(with(&other), Err("does not belong to the certificate".to_owned()));
    }

    #[test]
    fn what_is_no_pem_of_its_kind_is_refused_without_being_repeated() {
        let (cert, key) = pair();
        let broken = key.replace("END", "MIDDLE");
        let encrypted = key.replace("PRIVATE", "ENCRYPTED PRIVATE");
        for text in ["", "s3cret", &cert, &broken, &encrypted] {
            let problem = signing_key(text.as_bytes()).map(drop).unwrap_err();
            assert!(problem.starts_with("holds no PEM private key"), "{problem}");
        }
        let cut = cert.replace("-----END CERTIFICATE-----", "");
        for text in ["", "s3cret", &key, &cut] {
            let problem = chain(text.as_bytes()).unwrap_err();
            assert!(problem.starts_with("holds ") && !problem.contains("s3cret"), "{problem}");
        }
        assert_eq!(roots(cert.as_bytes()).unwrap().len(), 1);
    }
}
