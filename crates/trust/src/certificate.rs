//! Certificates of signers: a chain to an authority that the policy names, good at the time of the signature, for the identity that the
//! policy names.

use std::time::{Duration, SystemTime};

use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::der::{BOOLEAN, Der, OCTET_STRING, OID, SEQUENCE, UTF8_STRING};
use crate::key::PublicKey;

/// `id-kp-codeSigning`, 1.3.6.1.5.5.7.3.3.
const CODE_SIGNING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 3];
/// `subjectAltName`, 2.5.29.17.
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 17];
/// Fulcio's issuer of the identity, as bare text and as ASN.1: 1.3.6.1.4.1.57264.1.1 and .1.8.
const FULCIO_ISSUER: &[u8] = &[0x2b, 6, 1, 4, 1, 0x83, 0xbf, 0x30, 1, 1];
const FULCIO_ISSUER_ASN1: &[u8] = &[0x2b, 6, 1, 4, 1, 0x83, 0xbf, 0x30, 1, 8];
/// An e-mail address among the alternative names.
const EMAIL: u8 = 0x81;

/// Why a certificate does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    #[error("it has no certificate")]
    Missing,
    #[error("its certificate is malformed")]
    Malformed,
    #[error("its certificate is not good: {0}")]
    Chain(String),
    #[error("its certificate is for {found}, not for {wanted}")]
    Subject { found: String, wanted: String },
    #[error("its certificate's identity was established by {found:?}, not by {wanted:?}")]
    Issuer { found: String, wanted: String },
    #[error("its certificate's key is not usable: {0}")]
    Key(#[from] crate::key::BadKey),
}

/// Who a certificate has to be from and for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expected {
    /// DER.
    pub(crate) roots: Vec<Vec<u8>>,
    pub(crate) intermediates: Vec<Vec<u8>>,
    /// Who established the identity, for certificates of Fulcio.
    pub(crate) issuer: Option<String>,
    pub(crate) email: Option<String>,
    pub(crate) host: Option<String>,
}

impl Expected {
    /// The key of `leaf`, once it is certain whose it is. `chain` are certificates that came along; `at` is when it has to be good.
    pub(crate) fn verify(
        &self,
        leaf: &[u8],
        chain: &[Vec<u8>],
        at: SystemTime,
    ) -> Result<PublicKey, CertificateError> {
        let parts = Parts::read(leaf).ok_or(CertificateError::Malformed)?;
        let key = PublicKey::from_info(parts.key_info)?;
        let der = CertificateDer::from(leaf);
        let certificate = EndEntityCert::try_from(&der).map_err(chain_error)?;
        let roots: Vec<CertificateDer<'_>> =
            self.roots.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        let anchors: Vec<TrustAnchor<'_>> =
            roots.iter().map(anchor_from_trusted_cert).collect::<Result<_, _>>().map_err(chain_error)?;
        let between: Vec<CertificateDer<'_>> =
            self.intermediates.iter().chain(chain).map(|der| CertificateDer::from(der.as_slice())).collect();
        let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        certificate
            .verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &anchors,
                &between,
                UnixTime::since_unix_epoch(since),
                KeyUsage::required_if_present(CODE_SIGNING),
                None,
                None,
            )
            .map_err(chain_error)?;
        self.check_names(&parts, &certificate)?;
        Ok(key)
    }

    fn check_names(
        &self,
        parts: &Parts<'_>,
        certificate: &EndEntityCert<'_>,
    ) -> Result<(), CertificateError> {
        if let Some(wanted) = &self.issuer {
            let found = parts.fulcio_issuer().ok_or(CertificateError::Malformed)?;
            if found != *wanted {
                return Err(CertificateError::Issuer {
                    found: crate::json::shorten(&found),
                    wanted: wanted.clone(),
                });
            }
        }
        if let Some(wanted) = &self.email {
            let found = parts.emails().ok_or(CertificateError::Malformed)?;
            if !found.iter().any(|email| email == wanted) {
                let found = if found.is_empty() { "no e-mail address".to_owned() } else { found.join(", ") };
                return Err(CertificateError::Subject {
                    found: crate::json::shorten(&found),
                    wanted: wanted.clone(),
                });
            }
        }
        if let Some(wanted) = &self.host {
            let other =
                || CertificateError::Subject { found: "another host".to_owned(), wanted: wanted.clone() };
            let name = ServerName::try_from(wanted.as_str()).map_err(|_| other())?;
            certificate.verify_is_valid_for_subject_name(&name).map_err(|_| other())?;
        }
        Ok(())
    }
}

fn chain_error(error: webpki::Error) -> CertificateError {
    use webpki::Error;
    CertificateError::Chain(match error {
        Error::UnknownIssuer | Error::InvalidSignatureForPublicKey => {
            "it is from none of the authorities of the policy".to_owned()
        }
        Error::CertExpired { .. } => "it was not valid any more when it was used".to_owned(),
        Error::CertNotValidYet { .. } => "it was not valid yet when it was used".to_owned(),
        Error::RequiredEkuNotFoundContext(_) => "it is not for signing code".to_owned(),
        other => other.to_string(),
    })
}

/// What of a certificate is looked at here (RFC 5280, section 4.1). Whether it is well-formed is `webpki`'s to say.
struct Parts<'a> {
    key_info: &'a [u8],
    extensions: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Parts<'a> {
    fn read(certificate: &'a [u8]) -> Option<Parts<'a>> {
        let mut to_be_signed = Der(Der(Der(certificate).only(SEQUENCE)?).expect(SEQUENCE)?);
        // The version, which may be left out.
        if to_be_signed.peek() == Some(0xa0) {
            to_be_signed.next()?;
        }
        // Serial number, algorithm, issuer, validity, subject.
        for _ in 0..5 {
            to_be_signed.next()?;
        }
        let before = to_be_signed.0;
        to_be_signed.expect(SEQUENCE)?;
        let key_info = &before[..before.len() - to_be_signed.0.len()];
        let mut extensions = Vec::new();
        while let Some((tag, contents)) = to_be_signed.next() {
            if tag == 0xa3 {
                let mut list = Der(Der(contents).only(SEQUENCE)?);
                while !list.is_empty() {
                    let mut extension = Der(list.expect(SEQUENCE)?);
                    let id = extension.expect(OID)?;
                    if extension.peek() == Some(BOOLEAN) {
                        extension.next()?;
                    }
                    extensions.push((id, extension.only(OCTET_STRING)?));
                }
            }
        }
        Some(Parts { key_info, extensions })
    }

    /// The only extension of this kind; `Err` if there are several.
    fn extension(&self, id: &[u8]) -> Result<Option<&'a [u8]>, ()> {
        let mut found = self.extensions.iter().filter(|(known, _)| *known == id).map(|(_, value)| *value);
        match (found.next(), found.next()) {
            (first, None) => Ok(first),
            _ => Err(()),
        }
    }

    fn emails(&self) -> Option<Vec<String>> {
        let Some(value) = self.extension(ALTERNATIVE_NAMES).ok()? else { return Some(Vec::new()) };
        let mut names = Der(Der(value).only(SEQUENCE)?);
        let mut emails = Vec::new();
        while !names.is_empty() {
            let (tag, contents) = names.next()?;
            if tag == EMAIL {
                emails.push(String::from_utf8(contents.to_vec()).ok()?);
            }
        }
        Some(emails)
    }

    /// `None` if it is not there, or if its two forms contradict each other.
    fn fulcio_issuer(&self) -> Option<String> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        let bare = match self.extension(FULCIO_ISSUER).ok()? {
            Some(value) => Some(text(value)?),
            None => None,
        };
        let asn1 = match self.extension(FULCIO_ISSUER_ASN1).ok()? {
            Some(value) => Some(text(Der(value).only(UTF8_STRING)?)?),
            None => None,
        };
        match (bare, asn1) {
            (Some(bare), Some(asn1)) => (bare == asn1).then_some(bare),
            (bare, asn1) => bare.or(asn1),
        }
    }
}

/// Reads what is read of a certificate: for fuzzing.
pub(crate) fn read(certificate: &[u8]) {
    if let Some(parts) = Parts::read(certificate) {
        let _ = (parts.emails(), parts.fulcio_issuer());
    }
}
