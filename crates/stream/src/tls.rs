//! TLS whose certificates are read again when their files change.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use tokio_rustls::TlsAcceptor;

use crate::Tls;

/// The TLS settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{path}: cannot be read: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}: holds no {what} in PEM: {why}")]
    Pem { path: PathBuf, what: &'static str, why: String },
    #[error("the certificate in {cert} and the key in {key} do not work together: {source}")]
    Pair { cert: PathBuf, key: PathBuf, source: rustls::Error },
    #[error("{path}: the certificate authorities for clients cannot be used: {why}")]
    Authorities { path: PathBuf, why: String },
}

/// What makes the server's side of TLS connections, from the newest usable state of its files.
pub(crate) struct Acceptor {
    files: Tls,
    current: Mutex<Current>,
}

struct Current {
    seen: Vec<Stamp>,
    config: Arc<ServerConfig>,
}

/// By this it is told whether a file is another one than before.
#[derive(PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Acceptor {
    /// Reads the files.
    ///
    /// # Errors
    /// One of them cannot be used.
    pub(crate) fn new(files: Tls) -> Result<Acceptor, TlsError> {
        let seen = stamps(&files)?;
        let config = read(&files)?;
        Ok(Acceptor { files, current: Mutex::new(Current { seen, config }) })
    }

    /// For the next connection. Files that changed and cannot be used are told of once, and the last good state stays.
    pub(crate) fn current(&self) -> TlsAcceptor {
        let mut current = self.current.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Ok(seen) = stamps(&self.files)
            && seen != current.seen
        {
            current.seen = seen;
            match read(&self.files) {
                Ok(config) => current.config = config,
                Err(error) => {
                    tracing::error!(%error, "the streaming server keeps its old certificate");
                }
            }
        }
        TlsAcceptor::from(Arc::clone(&current.config))
    }
}

fn stamps(files: &Tls) -> Result<Vec<Stamp>, TlsError> {
    [Some(&files.cert_file), Some(&files.key_file), files.client_ca_file.as_ref()]
        .into_iter()
        .flatten()
        .map(|path| {
            let found = fs::metadata(path).map_err(|source| TlsError::Read { path: path.clone(), source })?;
            Ok(Stamp {
                device: found.dev(),
                inode: found.ino(),
                size: found.size(),
                changed: (found.ctime(), found.ctime_nsec()),
            })
        })
        .collect()
}

fn read(files: &Tls) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates(&files.cert_file)?;
    let key = PrivateKeyDer::from_pem_slice(&bytes(&files.key_file)?).map_err(|error| TlsError::Pem {
        path: files.key_file.clone(),
        what: "private key",
        why: error.to_string(),
    })?;
    let pair = |source| TlsError::Pair { cert: files.cert_file.clone(), key: files.key_file.clone(), source };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(pair)?;
    let builder = match &files.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let refused = |why: String| TlsError::Authorities { path: path.clone(), why };
            let mut roots = RootCertStore::empty();
            for authority in certificates(path)? {
                roots.add(authority).map_err(|error| refused(error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| refused(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(pair)?;
    // An upgrade is a matter of HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let refused = |why: String| TlsError::Pem { path: path.to_owned(), what: "certificate", why };
    let found: Vec<_> = CertificateDer::pem_slice_iter(&bytes(path)?)
        .collect::<Result<_, _>>()
        .map_err(|error| refused(error.to_string()))?;
    if found.is_empty() {
        return Err(refused("there is none in it".into()));
    }
    Ok(found)
}

fn bytes(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}
