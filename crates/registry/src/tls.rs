//! TLS with certificates made on the spot: a private authority, what it signs, and a registry that shows it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::server::{self, Line};
use crate::{Listening, Registry};

/// A certificate authority that nobody knows.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// When a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    Now,
    /// It ended in the year 2000.
    Over,
    /// It begins in the year 2999.
    Later,
}

/// A certificate with its key, in PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    pub certificate: String,
    pub key: String,
    certificate_der: CertificateDer<'static>,
    key_der: Vec<u8>,
}

impl Authority {
    /// A new one. Certificates are told apart by their authority's name, so that needs to be another for each.
    ///
    /// # Panics
    /// If no key can be made.
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        Authority(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    /// Its own certificate, in PEM.
    pub fn certificate(&self) -> String {
        self.0.pem()
    }

    /// A certificate for host names and addresses, or for a client.
    ///
    /// # Panics
    /// If a name can be none.
    pub fn issue(&self, names: &[&str], validity: Validity) -> Identity {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        match validity {
            Validity::Now => {}
            Validity::Over => params.not_after = date_time_ymd(2000, 1, 1),
            Validity::Later => params.not_before = date_time_ymd(2999, 1, 1),
        }
        let key = KeyPair::generate().expect("a key");
        let signed = params.signed_by(&key, &self.0).expect("a certificate");
        Identity {
            certificate: signed.pem(),
            key: key.serialize_pem(),
            certificate_der: signed.der().clone(),
            key_der: key.serialize_der(),
        }
    }
}

impl Registry {
    /// Listens on a free port of 127.0.0.1 with TLS. With `clients`, whoever has no certificate of that authority is not spoken to.
    ///
    /// # Errors
    /// If no port can be bound, or the identity is none.
    pub async fn listen_tls(
        self: &Arc<Self>,
        identity: &Identity,
        clients: Option<&Authority>,
    ) -> io::Result<Listening> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.0.der().clone()).map_err(io::Error::other)?;
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(io::Error::other)?)
            }
        };
        let key = PrivateKeyDer::try_from(identity.key_der.clone()).map_err(io::Error::other)?;
        let config = builder.with_single_cert(vec![identity.certificate_der.clone()], key);
        let acceptor = TlsAcceptor::from(Arc::new(config.map_err(io::Error::other)?));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(serve(Arc::clone(self), listener, acceptor));
        Ok(Listening { address, task })
    }
}

async fn serve(registry: Arc<Registry>, listener: TcpListener, acceptor: TlsAcceptor) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (registry, acceptor) = (Arc::clone(&registry), acceptor.clone());
        tokio::spawn(async move {
            // A handshake that fails is the client's to tell.
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let certified = stream.get_ref().1.peer_certificates().is_some();
            server::converse(registry, stream, Line { scheme: "https", certified }).await;
        });
    }
}
