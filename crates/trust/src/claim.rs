//! What a signature claims of an image, and whether that is the image at hand; or why the signature does not count.

use std::time::SystemTime;

use model::digest::Digest;

use crate::certificate::CertificateError;
use crate::identity::{Name, SignedIdentity};
use crate::json::JsonError;
use crate::openpgp::PgpError;
use crate::place::Place;
use crate::rekor::RekorError;

/// An image that is about to be taken.
#[derive(Debug, Clone)]
pub struct Subject<'a> {
    pub place: &'a Place,
    /// The digests that lead from the reference to the manifest: of an index, of what it points to, and so on. Whoever signed one of them
    /// signed all that it leads to.
    pub digests: &'a [Digest],
    /// Whether a signature that names no repository at all, as sigstore's bundles, may count.
    pub unnamed_counts: bool,
    pub now: SystemTime,
}

/// What somebody signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) digest: Digest,
    pub(crate) name: Option<Name>,
}

/// Why a signature does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("{0}")]
    Pgp(#[from] PgpError),
    #[error("it is malformed: {0}")]
    Malformed(#[from] JsonError),
    #[error("it lacks {0:?}")]
    Lacks(&'static str),
    #[error("none of the policy's keys made it, or it was changed since")]
    WrongKey,
    #[error("{0}")]
    Certificate(#[from] CertificateError),
    #[error("{0}")]
    Rekor(#[from] RekorError),
    #[error("it is of another image: {signed}")]
    OtherImage { signed: Digest },
    #[error("it is for {signed}, which {identity} does not accept here")]
    OtherName { signed: String, identity: &'static str },
    #[error(
        "it is good, but names no repository, as {identity} demands; image.accept_unnamed_signatures = true lets the digest be enough"
    )]
    Unnamed { identity: &'static str },
    #[error("it is a statement of another kind: {0:?}")]
    OtherStatement(String),
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    #[error("its form is not supported: {0}")]
    Form(&'static str),
}

/// Whether one of the claims is about the image at hand, under a name that the policy accepts.
pub(crate) fn check(
    claims: &[Claim],
    identity: &SignedIdentity,
    subject: &Subject<'_>,
) -> Result<(), SignatureError> {
    let mut why_not = SignatureError::Lacks("subject");
    for claim in claims {
        if !subject.digests.contains(&claim.digest) {
            why_not = SignatureError::OtherImage { signed: claim.digest.clone() };
            continue;
        }
        let identity_kind = identity.kind();
        match &claim.name {
            Some(name) if identity.accepts(subject.place, name) => return Ok(()),
            None if subject.unnamed_counts => return Ok(()),
            Some(name) => {
                return Err(SignatureError::OtherName { signed: name.to_string(), identity: identity_kind });
            }
            None => return Err(SignatureError::Unnamed { identity: identity_kind }),
        }
    }
    Err(why_not)
}
