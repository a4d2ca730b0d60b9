//! Rekor's promise that a signature is in its log: the "signed entry timestamp", checked without asking anybody.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use rustls_pki_types::pem::from_buf;

use crate::json::{JsonError, Node};
use crate::key::PublicKey;

/// Why a log entry does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RekorError {
    #[error("its log entry is malformed: {0}")]
    Malformed(#[from] JsonError),
    #[error("its log entry is signed by none of the Rekor keys of the policy")]
    WrongKey,
    #[error("its log entry is of a kind that is not supported: {0:?}")]
    Kind(String),
    #[error("its log entry is about something else: {0} differs")]
    Other(&'static str),
    #[error("it has no log entry, and the policy has a Rekor key")]
    Missing,
}

/// What the log says it got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The entry in Rekor's own words.
    pub(crate) body: Vec<u8>,
    /// Seconds since 1970.
    pub(crate) integrated: i64,
    pub(crate) index: i64,
    /// Hexadecimal digits.
    pub(crate) log: String,
    /// The promise.
    pub(crate) timestamp: Vec<u8>,
}

/// What the entry has to be about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About<'a> {
    /// DER of the public key or certificate.
    pub(crate) key: &'a [u8],
    pub(crate) signature: &'a [u8],
    pub(crate) payload: &'a [u8],
}

impl Entry {
    /// Reads the annotation `dev.sigstore.cosign/bundle`.
    pub(crate) fn read(text: &str) -> Result<Entry, JsonError> {
        let mut members = Node::parse(text.as_bytes())?.object()?;
        let timestamp = members.require("SignedEntryTimestamp")?.base64()?;
        let mut payload = members.require("Payload")?.object()?;
        members.finish()?;
        let log = payload.require("logID")?;
        let entry = Entry {
            body: payload.require("body")?.base64()?,
            integrated: payload.require("integratedTime")?.integer()?,
            index: payload.require("logIndex")?.integer()?,
            log: log.string()?,
            timestamp,
        };
        payload.finish()?;
        if !entry.log.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(log.error("it is not hexadecimal"));
        }
        Ok(entry)
    }

    /// What Rekor signs: these four as canonical JSON (RFC 8785).
    pub(crate) fn promised(&self) -> String {
        let body = STANDARD.encode(&self.body);
        let (integrated, log, index) = (self.integrated, &self.log, self.index);
        format!(r#"{{"body":"{body}","integratedTime":{integrated},"logID":"{log}","logIndex":{index}}}"#)
    }

    /// When the log took it in, in seconds since 1970, once it is certain that this log did, and that it was this signature.
    pub(crate) fn verify(&self, keys: &[PublicKey], about: About<'_>) -> Result<i64, RekorError> {
        let promised = self.promised();
        if !keys.iter().any(|key| key.verifies(promised.as_bytes(), &self.timestamp)) {
            return Err(RekorError::WrongKey);
        }
        let mut entry = Node::parse(&self.body)?.object()?;
        let (kind, version) = (entry.require("kind")?.string()?, entry.require("apiVersion")?.string()?);
        let spec = entry.require("spec")?;
        match (kind.as_str(), version.as_str()) {
            ("hashedrekord", "0.0.1") => hashed(spec, about)?,
            ("dsse", "0.0.1") => envelope(spec, about)?,
            _ => return Err(RekorError::Kind(crate::json::shorten(&format!("{kind} {version}")))),
        }
        Ok(self.integrated)
    }
}

/// `{signature: {content, publicKey: {content}}, data: {hash: {algorithm, value}}}`
fn hashed(spec: Node<'_>, about: About<'_>) -> Result<(), RekorError> {
    let mut spec = spec.object()?;
    let mut signature = spec.require("signature")?.object()?;
    let key = signature.require("publicKey")?.object()?.require("content")?;
    same_key(key, about.key)?;
    if signature.require("content")?.base64()? != about.signature {
        return Err(RekorError::Other("the signature"));
    }
    same_hash(spec.require("data")?.object()?.require("hash")?, about.payload, "the payload")
}

/// `{payloadHash: {algorithm, value}, signatures: [{signature, verifier}]}`
fn envelope(spec: Node<'_>, about: About<'_>) -> Result<(), RekorError> {
    let mut spec = spec.object()?;
    same_hash(spec.require("payloadHash")?, about.payload, "the payload")?;
    let signatures = spec.require("signatures")?;
    let [signature] = signatures.array()?[..] else {
        return Err(signatures.error("there is not exactly one signature").into());
    };
    let mut signature = signature.object()?;
    same_key(signature.require("verifier")?, about.key)?;
    if signature.require("signature")?.base64()? != about.signature {
        return Err(RekorError::Other("the signature"));
    }
    Ok(())
}

/// Base64 of PEM of the key or certificate.
fn same_key(node: Node<'_>, key: &[u8]) -> Result<(), RekorError> {
    let pem = node.base64()?;
    let mut rest = pem.as_slice();
    match from_buf(&mut rest) {
        Ok(Some((_, der))) if der == key && rest.trim_ascii().is_empty() => Ok(()),
        Ok(Some(_)) => Err(RekorError::Other("the key")),
        _ => Err(node.error("PEM is expected here").into()),
    }
}

fn same_hash(node: Node<'_>, data: &[u8], what: &'static str) -> Result<(), RekorError> {
    let mut hash = node.object()?;
    let algorithm = hash.require("algorithm")?;
    if algorithm.string()? != "sha256" {
        return Err(algorithm.error("only sha256 is supported").into());
    }
    let value = hash.require("value")?.string()?;
    let actual: String = digest(&SHA256, data).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    if value == actual { Ok(()) } else { Err(RekorError::Other(what)) }
}
