//! Requirements as a policy file writes them, and reading files of bounded size.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::identity::SignedIdentity;
use crate::json::{JsonError, Members, Node, shorten};
use crate::policy::one_of;
use crate::requirement::{Requirement, Root, Source};

/// The contents of a file of at most `limit` bytes.
pub(crate) fn file(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {limit} bytes")));
    }
    Ok(bytes)
}

/// One requirement.
pub(crate) fn requirement(node: Node<'_>) -> Result<Requirement, JsonError> {
    let mut members = node.object()?;
    let kind = members.require("type")?;
    let requirement = match kind.string()?.as_str() {
        "insecureAcceptAnything" => Requirement::AcceptAnything,
        "reject" => Requirement::Reject,
        "signedBy" => signed_by(&mut members)?,
        "sigstoreSigned" => sigstore_signed(&mut members)?,
        "signedBaseLayer" => {
            SignedIdentity::read(members.require("baseLayerIdentity")?)?;
            Requirement::Unsupported { kind: "signedBaseLayer", what: "signedBaseLayer".to_owned() }
        }
        other => {
            return Err(kind.error(format!(
                "{:?} is no requirement (insecureAcceptAnything, reject, signedBy and sigstoreSigned are)",
                shorten(other)
            )));
        }
    };
    members.finish()?;
    Ok(requirement)
}

fn signed_by(members: &mut Members<'_>) -> Result<Requirement, JsonError> {
    let key_type = members.require("keyType")?;
    let keys = source(members, &["keyPath", "keyPaths", "keyData"])?;
    let keys = keys
        .ok_or_else(|| members.node().error("one of \"keyPath\", \"keyPaths\" and \"keyData\" is needed"))?;
    let identity = identity(members)?;
    match key_type.string()?.as_str() {
        "GPGKeys" => Ok(Requirement::SignedBy { keys, identity }),
        known @ ("signedByGPGKeys" | "X509Certificates" | "signedByX509CAs") => {
            Ok(Requirement::Unsupported { kind: "signedBy", what: format!("keyType {known}") })
        }
        other => Err(key_type.error(format!("{:?} is no keyType; GPGKeys is", shorten(other)))),
    }
}

const ROOTS: [&str; 6] = ["keyPath", "keyPaths", "keyData", "keyDatas", "fulcio", "pki"];

fn sigstore_signed(members: &mut Members<'_>) -> Result<Requirement, JsonError> {
    let rekor = source(
        members,
        &["rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas"],
    )?;
    let (name, node) = one_of(members, &ROOTS)?.ok_or_else(|| {
        members.node().error(
            "one of \"keyPath\", \"keyPaths\", \"keyData\", \"keyDatas\", \"fulcio\" and \"pki\" is needed",
        )
    })?;
    let root = match name {
        "fulcio" => fulcio(node)?,
        "pki" => pki(node)?,
        _ => Root::Keys(keys(name, node)?),
    };
    match (&root, &rekor) {
        (Root::Fulcio { .. }, None) => {
            return Err(node.error(
                "\"fulcio\" needs a \"rekorPublicKeyPath\": the log says when the certificate was used",
            ));
        }
        (Root::Pki { .. }, Some(_)) => return Err(node.error("\"pki\" and a Rekor key exclude each other")),
        _ => {}
    }
    Ok(Requirement::SigstoreSigned { root, rekor, identity: identity(members)? })
}

fn fulcio(node: Node<'_>) -> Result<Root, JsonError> {
    let mut members = node.object()?;
    let ca = source(&mut members, &["caPath", "caData"])?;
    let root = Root::Fulcio {
        ca: ca.ok_or_else(|| node.error("one of \"caPath\" and \"caData\" is needed"))?,
        issuer: text(members.require("oidcIssuer")?)?,
        email: text(members.require("subjectEmail")?)?,
    };
    members.finish()?;
    Ok(root)
}

fn pki(node: Node<'_>) -> Result<Root, JsonError> {
    let mut members = node.object()?;
    let roots = source(&mut members, &["caRootsPath", "caRootsData"])?;
    let intermediates = source(&mut members, &["caIntermediatesPath", "caIntermediatesData"])?;
    let email = members.take("subjectEmail").map(text).transpose()?;
    let host = members.take("subjectHostname").map(text).transpose()?;
    if email.is_none() && host.is_none() {
        return Err(node.error("one of \"subjectEmail\" and \"subjectHostname\" is needed"));
    }
    members.finish()?;
    let roots = roots.ok_or_else(|| node.error("one of \"caRootsPath\" and \"caRootsData\" is needed"))?;
    Ok(Root::Pki { roots, intermediates, email, host })
}

fn identity(members: &mut Members<'_>) -> Result<SignedIdentity, JsonError> {
    members.take("signedIdentity").map_or(Ok(SignedIdentity::MatchRepoDigestOrExact), SignedIdentity::read)
}

fn text(node: Node<'_>) -> Result<String, JsonError> {
    let text = node.string()?;
    if text.is_empty() { Err(node.error("it is empty")) } else { Ok(text) }
}

fn source(members: &mut Members<'_>, names: &[&'static str]) -> Result<Option<Source>, JsonError> {
    one_of(members, names)?.map(|(name, node)| keys(name, node)).transpose()
}

/// What the ending of the name says it is: a path, paths, data, or several data.
fn keys(name: &str, node: Node<'_>) -> Result<Source, JsonError> {
    let source = match name {
        _ if name.ends_with("Paths") => {
            Source::Files(node.array()?.into_iter().map(path).collect::<Result<_, _>>()?)
        }
        _ if name.ends_with("Path") => Source::Files(vec![path(node)?]),
        _ if name.ends_with("Datas") => {
            Source::Inline(node.array()?.iter().map(Node::base64).collect::<Result<_, _>>()?)
        }
        _ => Source::Inline(vec![node.base64()?]),
    };
    match &source {
        Source::Files(none) if none.is_empty() => Err(node.error("the list is empty")),
        Source::Inline(none) if none.is_empty() => Err(node.error("the list is empty")),
        _ => Ok(source),
    }
}

fn path(node: Node<'_>) -> Result<PathBuf, JsonError> {
    let path = PathBuf::from(node.string()?);
    if path.is_absolute() { Ok(path) } else { Err(node.error("an absolute path is expected here")) }
}
