//! The requirements of a policy, and whether signatures meet them.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::bundle::Bundle;
use crate::certificate::{CertificateError, Expected};
use crate::claim::{self, Claim, SignatureError, Subject};
use crate::evidence::{Attachment, Evidence, Signature};
use crate::identity::SignedIdentity;
use crate::key::{BadKey, PublicKey, certificates};
use crate::openpgp::{self, BadKeyring, Keyring};
use crate::payload::{self, Format};
use crate::rekor::{About, Entry, RekorError};

/// Keys and certificates are not larger.
const KEY_BYTES: u64 = 4 << 20;

/// One requirement of a list, all of which must be met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Requirement {
    AcceptAnything,
    Reject,
    SignedBy {
        keys: Source,
        identity: SignedIdentity,
    },
    SigstoreSigned {
        root: Root,
        rekor: Option<Source>,
        identity: SignedIdentity,
    },
    /// It is in the format, and nobody implements it: what it is.
    Unsupported {
        kind: &'static str,
        what: String,
    },
}

/// Where keys or certificates are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Files(Vec<PathBuf>),
    /// They stand in the policy itself.
    Inline(Vec<Vec<u8>>),
}

/// Whose signatures count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Root {
    Keys(Source),
    Fulcio { ca: Source, issuer: String, email: String },
    Pki { roots: Source, intermediates: Option<Source>, email: Option<String>, host: Option<String> },
}

/// Why a requirement's keys cannot be used. Then it is not met, whatever signatures there are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("{path} cannot be read: {why}", path = .path.display())]
    Io { path: PathBuf, why: String },
    #[error("{path} is larger than a key can be", path = .path.display())]
    TooLarge { path: PathBuf },
    #[error("{from}: {why}")]
    Key { from: String, why: BadKey },
    #[error("{from}: {why}")]
    Keyring { from: String, why: BadKeyring },
    #[error("{from}: it is not PEM with nothing but certificates")]
    Certificates { from: String },
    #[error("{from}: a Rekor key must be for ECDSA")]
    Rekor { from: String },
}

/// Whether a requirement is met, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Met,
    Rejected,
    Unsupported(String),
    Keys(KeyError),
    /// No signature counts; each with where it was found.
    NotSigned(Vec<(String, SignatureError)>),
}

impl Source {
    /// The contents, each with what messages call it.
    fn load(&self) -> Result<Vec<(String, Vec<u8>)>, KeyError> {
        match self {
            Source::Inline(all) => {
                Ok(all.iter().map(|data| ("the key in the policy".to_owned(), data.clone())).collect())
            }
            Source::Files(paths) => {
                paths.iter().map(|path| Ok((path.display().to_string(), read(path)?))).collect()
            }
        }
    }

    fn keys(&self) -> Result<Vec<PublicKey>, KeyError> {
        let read = |(from, pem): (String, Vec<u8>)| {
            PublicKey::from_pem(&pem).map_err(|why| KeyError::Key { from, why })
        };
        self.load()?.into_iter().map(read).collect()
    }

    fn certificates(&self) -> Result<Vec<Vec<u8>>, KeyError> {
        let mut all = Vec::new();
        for (from, pem) in self.load()? {
            let found = certificates(&pem).filter(|found| !found.is_empty());
            all.extend(found.ok_or(KeyError::Certificates { from })?);
        }
        Ok(all)
    }

    fn keyring(&self) -> Result<Keyring, KeyError> {
        let mut whole: Option<Keyring> = None;
        for (from, bytes) in self.load()? {
            let ring = Keyring::read(&bytes).map_err(|why| KeyError::Keyring { from, why })?;
            match &mut whole {
                Some(whole) => whole.extend(ring),
                None => whole = Some(ring),
            }
        }
        whole.ok_or(KeyError::Keyring { from: "the policy".to_owned(), why: BadKeyring::NoKey })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, KeyError> {
    use std::io::Read as _;
    let io = |error: std::io::Error| KeyError::Io { path: path.to_owned(), why: error.to_string() };
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(io)?.take(KEY_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > KEY_BYTES {
        return Err(KeyError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

impl Requirement {
    /// Its `type` in the policy.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Requirement::AcceptAnything => "insecureAcceptAnything",
            Requirement::Reject => "reject",
            Requirement::SignedBy { .. } => "signedBy",
            Requirement::SigstoreSigned { .. } => "sigstoreSigned",
            Requirement::Unsupported { kind, .. } => kind,
        }
    }

    /// The contents of all files with keys and certificates that it names, in order.
    pub(crate) fn keys(&self) -> Result<Vec<Vec<u8>>, KeyError> {
        let sources: Vec<&Source> = match self {
            Requirement::AcceptAnything | Requirement::Reject | Requirement::Unsupported { .. } => Vec::new(),
            Requirement::SignedBy { keys, .. } => vec![keys],
            Requirement::SigstoreSigned { root, rekor, .. } => {
                let mut sources = match root {
                    Root::Keys(source) | Root::Fulcio { ca: source, .. } => vec![source],
                    Root::Pki { roots, intermediates, .. } => {
                        std::iter::once(roots).chain(intermediates).collect()
                    }
                };
                sources.extend(rekor);
                sources
            }
        };
        let mut all = Vec::new();
        for source in sources {
            all.extend(source.load()?.into_iter().map(|(_, bytes)| bytes));
        }
        Ok(all)
    }

    /// Whether it is met. Keys are read now, so that a changed file counts at once.
    pub(crate) fn judge(&self, subject: &Subject<'_>, evidence: &[Evidence]) -> Outcome {
        match self {
            Requirement::AcceptAnything => Outcome::Met,
            Requirement::Reject => Outcome::Rejected,
            Requirement::Unsupported { what, .. } => Outcome::Unsupported(what.clone()),
            Requirement::SignedBy { keys, identity } => {
                let ring = match keys.keyring() {
                    Ok(ring) => ring,
                    Err(why) => return Outcome::Keys(why),
                };
                any(evidence, identity, subject, |signature| match signature {
                    Signature::Simple(message) => Some(simple(&ring, message, subject.now)),
                    _ => None,
                })
            }
            Requirement::SigstoreSigned { root, rekor, identity } => {
                let verifier = match Verifier::load(root, rekor.as_ref()) {
                    Ok(verifier) => verifier,
                    Err(why) => return Outcome::Keys(why),
                };
                any(evidence, identity, subject, |signature| match signature {
                    Signature::Sigstore(attachment) => Some(verifier.attachment(attachment, subject.now)),
                    Signature::Bundle(bytes) => Some(verifier.bundle(bytes, subject.now)),
                    _ => None,
                })
            }
        }
    }
}

/// One good signature is enough.
fn any(
    evidence: &[Evidence],
    identity: &SignedIdentity,
    subject: &Subject<'_>,
    claims: impl Fn(&Signature) -> Option<Result<Vec<Claim>, SignatureError>>,
) -> Outcome {
    let mut refused = Vec::new();
    for found in evidence {
        let claims = match &found.signature {
            Signature::Unreadable(why) => Some(Err(SignatureError::Unreadable(why.clone()))),
            signature => claims(signature),
        };
        match claims.map(|claims| claim::check(&claims?, identity, subject)) {
            None => {}
            Some(Ok(())) => return Outcome::Met,
            Some(Err(why)) => refused.push((found.from.clone(), why)),
        }
    }
    Outcome::NotSigned(refused)
}

fn simple(ring: &Keyring, message: &[u8], now: SystemTime) -> Result<Vec<Claim>, SignatureError> {
    let content = openpgp::verify(ring, message, now)?;
    claims_of(Format::Simple, &content)
}

fn claims_of(format: Format, payload: &[u8]) -> Result<Vec<Claim>, SignatureError> {
    let payload = payload::read(format, payload)?;
    Ok(vec![Claim { digest: payload.digest, name: Some(payload.name) }])
}

/// The keys and authorities of a `sigstoreSigned`, loaded.
struct Verifier {
    signers: Signers,
    rekor: Vec<PublicKey>,
}

enum Signers {
    Keys(Vec<PublicKey>),
    /// Certificates from an authority, good when the log took the signature in, or now.
    Fulcio(Expected),
    Pki(Expected),
}

/// What a signature comes with, in whichever form.
struct Signed<'a> {
    /// What exactly is signed.
    message: &'a [u8],
    /// What the log has the hash of.
    payload: &'a [u8],
    signature: &'a [u8],
    /// DER, the signer's first.
    certificates: Vec<Vec<u8>>,
    entry: Option<Entry>,
}

impl Verifier {
    fn load(root: &Root, rekor: Option<&Source>) -> Result<Verifier, KeyError> {
        let signers = match root {
            Root::Keys(source) => Signers::Keys(source.keys()?),
            Root::Fulcio { ca, issuer, email } => Signers::Fulcio(Expected {
                roots: ca.certificates()?,
                intermediates: Vec::new(),
                issuer: Some(issuer.clone()),
                email: Some(email.clone()),
                host: None,
            }),
            Root::Pki { roots, intermediates, email, host } => Signers::Pki(Expected {
                roots: roots.certificates()?,
                intermediates: intermediates.as_ref().map_or(Ok(Vec::new()), Source::certificates)?,
                issuer: None,
                email: email.clone(),
                host: host.clone(),
            }),
        };
        let rekor = rekor.map_or(Ok(Vec::new()), Source::keys)?;
        if rekor.iter().any(|key| !key.is_ecdsa()) {
            return Err(KeyError::Rekor { from: "the policy's Rekor key".to_owned() });
        }
        Ok(Verifier { signers, rekor })
    }

    fn attachment(&self, attachment: &Attachment, now: SystemTime) -> Result<Vec<Claim>, SignatureError> {
        let annotation = |name: &'static str| attachment.annotations.get(name);
        let signature =
            annotation("dev.cosignproject.cosign/signature").ok_or(SignatureError::Lacks("signature"))?;
        let signature =
            STANDARD.decode(signature).map_err(|_| SignatureError::Form("a signature that is not base64"))?;
        let mut chain = Vec::new();
        for name in ["dev.sigstore.cosign/certificate", "dev.sigstore.cosign/chain"] {
            if let Some(pem) = annotation(name) {
                chain.extend(certificates(pem.as_bytes()).ok_or(CertificateError::Malformed)?);
            }
        }
        let entry = annotation("dev.sigstore.cosign/bundle").map(|text| Entry::read(text)).transpose()?;
        let payload = &attachment.payload;
        self.verify(
            Signed { message: payload, payload, signature: &signature, certificates: chain, entry },
            now,
        )?;
        claims_of(Format::Cosign, payload)
    }

    fn bundle(&self, bytes: &[u8], now: SystemTime) -> Result<Vec<Claim>, SignatureError> {
        let bundle = Bundle::read(bytes)?;
        let message = bundle.signed();
        let signed = Signed {
            message: &message,
            payload: &bundle.payload,
            signature: &bundle.signature,
            certificates: bundle.certificates.clone(),
            entry: bundle.entry.clone(),
        };
        self.verify(signed, now)?;
        bundle.claims()
    }

    /// Whether one of the keys, or one that an authority vouches for, made the signature.
    fn verify(&self, signed: Signed<'_>, now: SystemTime) -> Result<(), SignatureError> {
        let logged = |key: &[u8]| {
            let entry = signed.entry.as_ref().ok_or(RekorError::Missing)?;
            entry.verify(&self.rekor, About { key, signature: signed.signature, payload: signed.payload })
        };
        let by = |key: &PublicKey| key.verifies(signed.message, signed.signature);
        let expected = match &self.signers {
            Signers::Keys(keys) => {
                let key = keys.iter().find(|key| by(key)).ok_or(SignatureError::WrongKey)?;
                if !self.rekor.is_empty() {
                    logged(key.info())?;
                }
                return Ok(());
            }
            Signers::Fulcio(expected) | Signers::Pki(expected) => expected,
        };
        let (leaf, chain) = signed.certificates.split_first().ok_or(CertificateError::Missing)?;
        let at = match &self.signers {
            // The certificate lived for minutes; that the signature is from then, the log says.
            Signers::Fulcio(_) => {
                SystemTime::UNIX_EPOCH + Duration::from_secs(logged(leaf)?.try_into().unwrap_or(0))
            }
            _ => now,
        };
        let key = expected.verify(leaf, chain, at)?;
        if by(&key) { Ok(()) } else { Err(SignatureError::WrongKey) }
    }
}
