//! Signatures as they were found: where, and bytes that nobody has verified. Whoever fetches them bounds them by [`limits`].

use std::collections::BTreeMap;

use crate::json::{JsonError, Node};

/// What is too much. Sizes are bytes.
pub mod limits {
    /// One signature or bundle.
    pub const SIGNATURE_BYTES: u64 = 128 << 10;
    /// A manifest or list of signatures.
    pub const LIST_BYTES: u64 = 1 << 20;
    /// Signatures of one image, together.
    pub const SIGNATURES: usize = 64;
}

/// The media type of what cosign signs.
pub const COSIGN_PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The artifact type of a manifest of such signatures that names its image as its subject.
pub const COSIGN_SIGNATURE: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
/// The media type of sigstore's bundles, and the artifact type of manifests that have one.
pub const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// A signature that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Where, for messages: a URL, a path, or a manifest.
    pub from: String,
    pub signature: Signature,
}

/// The forms of signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signature {
    /// "Simple signing": an OpenPGP message.
    Simple(Vec<u8>),
    /// cosign's: a payload, and annotations with the signature and what goes with it.
    Sigstore(Attachment),
    /// Sigstore's bundle, JSON.
    Bundle(Vec<u8>),
    /// There is one, which cannot be read: why.
    Unreadable(String),
}

/// One layer of a manifest of cosign's signatures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attachment {
    pub payload: Vec<u8>,
    /// Of the layer's descriptor.
    pub annotations: BTreeMap<String, String>,
}

/// What could decide, and so is worth fetching.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Signatures in a store beside the registry (containers-registries.d(5)).
    pub lookaside: bool,
    /// Signatures in the registry itself, as cosign puts them there.
    pub attached: bool,
}

impl Wanted {
    /// Whether nothing is.
    pub fn is_nothing(self) -> bool {
        self == Wanted::default()
    }
}

impl Signature {
    /// What a lookaside store has: an OpenPGP message, or cosign's signature in the wrapping that skopeo gives it.
    pub fn from_lookaside(bytes: Vec<u8>) -> Signature {
        Signature::unwrap(bytes).unwrap_or_else(|why| Signature::Unreadable(why.to_string()))
    }

    fn unwrap(bytes: Vec<u8>) -> Result<Signature, JsonError> {
        if bytes.first().is_some_and(|first| first & 0x80 != 0) {
            return Ok(Signature::Simple(bytes));
        }
        let Some(wrapped) = bytes.strip_prefix(b"\0sigstore-json\n") else {
            return Err(JsonError {
                line: 1,
                why: "it is neither an OpenPGP message nor a sigstore signature".to_owned(),
            });
        };
        let mut members = Node::parse(wrapped)?.object()?;
        let kind = members.require("mimeType")?;
        if kind.string()? != COSIGN_PAYLOAD {
            return Err(kind.error("it is of another type than signatures"));
        }
        let payload = members.require("payload")?.base64()?;
        let annotations = members.require("annotations")?.object()?.rest();
        members.finish()?;
        let annotations = annotations.into_iter().map(|(name, value)| Ok((name, value.string()?)));
        Ok(Signature::Sigstore(Attachment {
            payload,
            annotations: annotations.collect::<Result<_, JsonError>>()?,
        }))
    }
}
