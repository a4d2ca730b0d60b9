//! What TLS with one host takes: whom it is trusted by, and what this side shows of itself.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// A file of certificates or keys (PEM), as it was when it was read.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Pem {
    pub path: PathBuf,
    pub bytes: Arc<[u8]>,
}

/// What this side shows of itself: a certificate, and its key, which may be in the same file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    pub certificate: Pem,
    pub key: Option<Pem>,
}

/// How one host is trusted. By default: as this machine's certificates say.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Tls {
    /// Authorities that are trusted besides this machine's.
    pub authorities: Vec<Pem>,
    /// The first that the host can use is shown to it.
    pub identities: Vec<Identity>,
    /// Whether whatever certificate the host shows is taken.
    pub skip_verify: bool,
}

impl Tls {
    /// The same trust for another host, which is shown no certificate.
    pub(crate) fn without_identity(&self) -> Tls {
        Tls { identities: Vec::new(), ..self.clone() }
    }

    /// The configuration of rustls.
    ///
    /// # Errors
    /// In words, with the file that cannot be used.
    pub fn client_config(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = builder.dangerous().with_custom_certificate_verifier(self.verifier(&provider)?);
        if self.identities.is_empty() {
            return Ok(builder.with_no_client_auth());
        }
        let keys: Result<Vec<_>, String> = self.identities.iter().map(|one| one.key(&provider)).collect();
        Ok(builder.with_client_cert_resolver(Arc::new(Identities(keys?))))
    }

    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, String> {
        if self.skip_verify {
            return Ok(Arc::new(Anybody(Arc::clone(provider))));
        }
        let mut pinned = Vec::new();
        for file in &self.authorities {
            pinned.extend(file.certificates()?);
        }
        let mut roots = native_roots().clone();
        for certificate in &pinned {
            // One that is no authority's can still be pinned.
            let _ = roots.add(certificate.clone());
        }
        if roots.is_empty() && pinned.is_empty() {
            return Err("this host has no certificates to trust; install ca-certificates".into());
        }
        if roots.is_empty() {
            return Err("no certificate among those given is an authority's".into());
        }
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .build()
            .map_err(|error| error.to_string())?;
        if pinned.is_empty() { Ok(chains) } else { Ok(Arc::new(Pinned { chains, pinned })) }
    }
}

impl Pem {
    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.bytes).collect();
        match read {
            Ok(found) if !found.is_empty() => Ok(found),
            Ok(_) => Err(format!("{} has no certificate (PEM) in it", self.path.display())),
            Err(why) => Err(format!("{} is not certificates (PEM): {why}", self.path.display())),
        }
    }
}

impl Identity {
    fn key(&self, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, String> {
        let from = self.key.as_ref().unwrap_or(&self.certificate);
        let key = PrivateKeyDer::from_pem_slice(&from.bytes)
            .map_err(|why| format!("{} has no key (PEM) in it: {why}", from.path.display()))?;
        CertifiedKey::from_der(self.certificate.certificates()?, key, provider).map(Arc::new).map_err(|why| {
            let (certificate, key) = (self.certificate.path.display(), from.path.display());
            format!("the certificate {certificate} and the key {key} cannot be used together: {why}")
        })
    }

    /// The file of the key.
    pub fn key_path(&self) -> &Path {
        &self.key.as_ref().unwrap_or(&self.certificate).path
    }
}

/// This machine's authorities, read once: that takes longer than all else at the start.
fn native_roots() -> &'static RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots
    })
}

/// The certificates of this side; the first whose key fits is taken.
#[derive(Debug)]
struct Identities(Vec<Arc<CertifiedKey>>);

impl ResolvesClientCert for Identities {
    fn resolve(&self, _authorities: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.iter().find(|key| key.key.choose_scheme(schemes).is_some()).cloned()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Chains of trust, and besides them the very certificates that an administrator put there: a registry that shows one of those is the one
/// that is meant, also where it is its own authority, which webpki refuses to take for a server's.
#[derive(Debug)]
struct Pinned {
    chains: Arc<WebPkiServerVerifier>,
    pinned: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let checked = self.chains.verify_server_cert(end, between, name, ocsp, now);
        if checked.is_ok() || !self.pinned.iter().any(|known| known == end) {
            return checked;
        }
        verify_server_name(&ParsedCertificate::try_from(end)?, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

/// Takes every certificate, since an administrator said so. That the other side has its key is checked all the same.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A key is not shown.
impl fmt::Debug for Pem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Pem({})", self.path.display())
    }
}

/// What a person can do about a failed handshake. Trying again does not help.
pub(crate) fn explain(error: &rustls::Error) -> String {
    use rustls::{CertificateError, Error, InvalidMessage};
    let hint = match error {
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "it does not speak TLS: if it is meant to be without, list it among the insecure registries"
        }
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "this host does not trust who signed its certificate: add that authority to the host's certificates, or as ca.crt to the registry's folder of certs.d"
        }
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "its certificate has expired, or this host's clock is wrong"
        }
        Error::AlertReceived(rustls::AlertDescription::CertificateRequired) => {
            "it asks for a client certificate, and none is configured for it"
        }
        _ => return error.to_string(),
    };
    format!("{hint} ({error})")
}
