//! Sigstore's bundle, version 0.3: a DSSE envelope around an in-toto statement, with what is needed to verify it.

use model::digest::Digest;

use crate::claim::{Claim, SignatureError};
use crate::identity::Name;
use crate::json::{JsonError, Members, Node, shorten};
use crate::rekor::Entry;

const STATEMENT: &str = "application/vnd.in-toto+json";
/// What cosign calls the statement that an image is signed. Other statements about an image (provenance, a bill of materials) do not say
/// that anybody stands for it.
const SIGNED: &str = "https://sigstore.dev/cosign/sign/v1";

/// A bundle, not verified.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// DER, the signer's first.
    pub(crate) certificates: Vec<Vec<u8>>,
    pub(crate) entry: Option<Entry>,
    pub(crate) payload: Vec<u8>,
    pub(crate) signature: Vec<u8>,
}

impl Bundle {
    pub(crate) fn read(bytes: &[u8]) -> Result<Bundle, SignatureError> {
        let mut top = Node::parse(bytes)?.object()?;
        let kind = top.require("mediaType")?.string()?;
        if kind != crate::evidence::BUNDLE {
            return Err(SignatureError::Form("a bundle of a version other than 0.3"));
        }
        if top.take("messageSignature").is_some() {
            return Err(SignatureError::Form("a bundle with a signature of a message, not of a statement"));
        }
        let mut envelope = top.require("dsseEnvelope")?.object()?;
        let kind = envelope.require("payloadType")?;
        if kind.string()? != STATEMENT {
            return Err(kind.error(format!("{STATEMENT:?} is expected here")).into());
        }
        let payload = envelope.require("payload")?.base64()?;
        let signatures = envelope.require("signatures")?;
        let [signature] = signatures.array()?[..] else {
            return Err(signatures.error("there is not exactly one signature").into());
        };
        let signature = signature.object()?.require("sig")?.base64()?;
        let mut material = top.require("verificationMaterial")?.object()?;
        let certificates = certificates(&mut material)?;
        let entry = match material.take("tlogEntries").map(|node| node.array()).transpose()?.as_deref() {
            None | Some([]) => None,
            Some([entry, ..]) => log_entry(*entry)?,
        };
        Ok(Bundle { certificates, entry, payload, signature })
    }

    /// What the signature is over (DSSE, "pre-authentication encoding").
    pub(crate) fn signed(&self) -> Vec<u8> {
        let head = format!("DSSEv1 {} {STATEMENT} {} ", STATEMENT.len(), self.payload.len());
        [head.as_bytes(), &self.payload].concat()
    }

    /// What the statement claims; only to be asked once the signature is verified.
    pub(crate) fn claims(&self) -> Result<Vec<Claim>, SignatureError> {
        let mut statement = Node::parse(&self.payload)?.object()?;
        let kind = statement.require("_type")?;
        if !matches!(
            kind.string()?.as_str(),
            "https://in-toto.io/Statement/v1" | "https://in-toto.io/Statement/v0.1"
        ) {
            return Err(kind.error("it is no in-toto statement").into());
        }
        let predicate = statement.require("predicateType")?.string()?;
        if predicate != SIGNED {
            return Err(SignatureError::OtherStatement(shorten(&predicate)));
        }
        let mut claims = Vec::new();
        for subject in statement.require("subject")?.array()?.iter().take(64) {
            let mut subject = subject.object()?;
            let name = match subject
                .take("name")
                .map(|node| node.string())
                .transpose()?
                .filter(|name| !name.is_empty())
            {
                Some(name) => Some(Name::parse(&name).map_err(|why| subject.node().error(why))?),
                None => None,
            };
            for (algorithm, hex) in subject.require("digest")?.object()?.rest() {
                // An algorithm that is not known names nothing here.
                if let Ok(digest) = Digest::parse(&format!("{algorithm}:{}", hex.string()?)) {
                    claims.push(Claim { digest, name: name.clone() });
                }
            }
        }
        Ok(claims)
    }
}

fn certificates(material: &mut Members<'_>) -> Result<Vec<Vec<u8>>, JsonError> {
    if let Some(one) = material.take("certificate") {
        return Ok(vec![one.object()?.require("rawBytes")?.base64()?]);
    }
    let Some(chain) = material.take("x509CertificateChain") else { return Ok(Vec::new()) };
    let list = chain.object()?.require("certificates")?.array()?;
    list.iter().take(32).map(|one| one.object()?.require("rawBytes")?.base64()).collect()
}

/// `None` without a signed entry timestamp, as from version 2 of Rekor: there is nothing that proves it offline here.
fn log_entry(node: Node<'_>) -> Result<Option<Entry>, JsonError> {
    let mut entry = node.object()?;
    let Some(promise) = entry.take("inclusionPromise").filter(|promise| !promise.is_null()) else {
        return Ok(None);
    };
    let log = entry.require("logId")?.object()?.require("keyId")?.base64()?;
    Ok(Some(Entry {
        body: entry.require("canonicalizedBody")?.base64()?,
        integrated: number(entry.require("integratedTime")?)?,
        index: number(entry.require("logIndex")?)?,
        log: log.iter().map(|byte| format!("{byte:02x}")).collect(),
        timestamp: promise.object()?.require("signedEntryTimestamp")?.base64()?,
    }))
}

/// The JSON of protobuf writes large whole numbers as strings.
fn number(node: Node<'_>) -> Result<i64, JsonError> {
    match node.string() {
        Ok(text) => text.parse().map_err(|_| node.error("a whole number is expected here")),
        Err(_) => node.integer(),
    }
}
