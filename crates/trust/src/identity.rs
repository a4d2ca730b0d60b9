//! Whether the name that a signature gives an image is the one that a policy wants for it: `signedIdentity` of containers-policy.json(5).

use std::fmt;

use model::digest::Digest;
use model::reference::{BadReference, ImageReference};

use crate::json::{JsonError, Node};
use crate::place::Place;

/// Which names in signatures are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SignedIdentity {
    MatchExact,
    MatchRepoDigestOrExact,
    MatchRepository,
    ExactReference(Name),
    ExactRepository(Name),
    RemapIdentity { prefix: String, signed_prefix: String },
}

/// A whole image name as it was written: unlike an [`ImageReference`] it may have neither a tag nor a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Name {
    pub(crate) fn parse(text: &str) -> Result<Name, BadReference> {
        let reference = ImageReference::parse(text)?;
        let before_digest = text.split('@').next().unwrap_or("");
        let last = before_digest.rsplit('/').next().unwrap_or("");
        // The parser adds `latest` where nothing is said.
        let tag = reference.tag().filter(|_| last.contains(':')).map(str::to_owned);
        Ok(Name { repository: reference.name(), tag, digest: reference.digest().cloned() })
    }

    fn of(reference: &ImageReference) -> Name {
        let digest = reference.digest().cloned();
        let tag = if digest.is_some() { None } else { reference.tag().map(str::to_owned) };
        Name { repository: reference.name(), tag, digest }
    }

    fn is_bare(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }

    fn is_exactly(&self, other: &Name) -> bool {
        !self.is_bare() && self == other
    }
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.repository)?;
        if let Some(tag) = &self.tag {
            write!(out, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(out, "@{digest}")?;
        }
        Ok(())
    }
}

impl SignedIdentity {
    /// Whether a signature for `signed` counts for an image from `place`.
    pub(crate) fn accepts(&self, place: &Place, signed: &Name) -> bool {
        let asked = match place {
            Place::Registry(reference) => Some(Name::of(reference)),
            // An archive has no name that anybody vouches for.
            _ => None,
        };
        let with = |accepts: &dyn Fn(Name) -> bool| asked.is_some_and(accepts);
        match self {
            SignedIdentity::MatchExact => with(&|asked| asked.is_exactly(signed)),
            SignedIdentity::MatchRepoDigestOrExact => with(&|asked| repository_or_exact(&asked, signed)),
            SignedIdentity::MatchRepository => with(&|asked| asked.repository == signed.repository),
            SignedIdentity::ExactReference(wanted) => wanted.is_exactly(signed),
            SignedIdentity::ExactRepository(wanted) => wanted.repository == signed.repository,
            SignedIdentity::RemapIdentity { prefix, signed_prefix } => {
                with(&|asked| repository_or_exact(&remap(asked, prefix, signed_prefix), signed))
            }
        }
    }

    /// Its name in the policy.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            SignedIdentity::MatchExact => "matchExact",
            SignedIdentity::MatchRepoDigestOrExact => "matchRepoDigestOrExact",
            SignedIdentity::MatchRepository => "matchRepository",
            SignedIdentity::ExactReference(_) => "exactReference",
            SignedIdentity::ExactRepository(_) => "exactRepository",
            SignedIdentity::RemapIdentity { .. } => "remapIdentity",
        }
    }

    pub(crate) fn read(node: Node<'_>) -> Result<SignedIdentity, JsonError> {
        let mut members = node.object()?;
        let kind = members.require("type")?;
        let identity = match kind.string()?.as_str() {
            "matchExact" => SignedIdentity::MatchExact,
            "matchRepoDigestOrExact" => SignedIdentity::MatchRepoDigestOrExact,
            "matchRepository" => SignedIdentity::MatchRepository,
            "exactReference" => {
                let at = members.require("dockerReference")?;
                let name = name(at)?;
                if name.is_bare() {
                    return Err(at.error(format!("{name} has neither a tag nor a digest")));
                }
                SignedIdentity::ExactReference(name)
            }
            "exactRepository" => SignedIdentity::ExactRepository(name(members.require("dockerRepository")?)?),
            "remapIdentity" => SignedIdentity::RemapIdentity {
                prefix: prefix(members.require("prefix")?)?,
                signed_prefix: prefix(members.require("signedPrefix")?)?,
            },
            other => {
                return Err(kind.error(format!(
                    "{:?} is no kind of identity (matchExact, matchRepoDigestOrExact, matchRepository, exactReference, exactRepository \
                     and remapIdentity are)",
                    crate::json::shorten(other)
                )));
            }
        };
        members.finish()?;
        Ok(identity)
    }
}

/// With a tag, exactly the same; with a digest, the same repository: that the digest is the signed one is checked apart.
fn repository_or_exact(asked: &Name, signed: &Name) -> bool {
    match (&asked.tag, &asked.digest) {
        (Some(_), _) => asked.is_exactly(signed),
        (None, Some(_)) => !signed.is_bare() && asked.repository == signed.repository,
        (None, None) => false,
    }
}

fn remap(mut asked: Name, prefix: &str, signed_prefix: &str) -> Name {
    if let Some(rest) = asked.repository.strip_prefix(prefix)
        && (rest.is_empty() || rest.starts_with('/'))
    {
        asked.repository = format!("{signed_prefix}{rest}");
    }
    asked
}

fn name(node: Node<'_>) -> Result<Name, JsonError> {
    Name::parse(&node.string()?).map_err(|why| node.error(why))
}

/// A host, or a repository or folder of repositories with its host.
fn prefix(node: Node<'_>) -> Result<String, JsonError> {
    let text = node.string()?;
    let whole = if text.contains('/') { text.clone() } else { format!("{text}/x") };
    let parsed = ImageReference::parse(&whole).map_err(|why| node.error(why))?;
    let name = if text.contains('/') { parsed.name() } else { parsed.domain().to_owned() };
    if name != text {
        return Err(node.error(format!(
            "{:?} is no prefix: a host, or a repository with its host and without tag or digest; was {name:?} meant?",
            crate::json::shorten(&text)
        )));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn identity(json: &str) -> Result<SignedIdentity, JsonError> {
        SignedIdentity::read(Node::parse(json.as_bytes()).unwrap())
    }

    fn accepts(json: &str, asked: &str, signed: &str) -> bool {
        let place = Place::Registry(ImageReference::parse(asked).unwrap());
        identity(json).unwrap().accepts(&place, &Name::parse(signed).unwrap())
    }

    #[test]
    fn each_kind_accepts_what_the_man_page_says() {
        let exact = r#"{"type":"matchExact"}"#;
        let either = r#"{"type":"matchRepoDigestOrExact"}"#;
        let repository = r#"{"type":"matchRepository"}"#;
        let reference = r#"{"type":"exactReference","dockerReference":"up.example/a:1"}"#;
        let up = r#"{"type":"exactRepository","dockerRepository":"up.example/a"}"#;
        let remap = r#"{"type":"remapIdentity","prefix":"m.example/v","signedPrefix":"v.example"}"#;
        let by_digest = format!("r.io/a@{DIGEST}");
        let other_digest = format!("r.io/a@sha256:{}", "b".repeat(64));
        let rows: &[(&str, &str, &str, bool)] = &[
            (exact, "r.io/a:1", "r.io/a:1", true),
            (exact, "r.io/a:1", "r.io/a:2", false),
            (exact, "r.io/a:1", "r.io/a", false),
            (exact, "r.io/a", "r.io/a", false),
            (exact, "r.io/a", "r.io/a:latest", true),
            (exact, "busybox", "docker.io/library/busybox:latest", true),
            (exact, &by_digest, "r.io/a:1", false),
            (exact, &by_digest, &by_digest, true),
            (either, "r.io/a:1", "r.io/a:1", true),
            (either, "r.io/a:1", "r.io/a:2", false),
            (either, "r.io/a:1", "r.io/b:1", false),
            (either, &by_digest, "r.io/a:1", true),
            (either, &by_digest, "r.io/a", false),
            (either, &by_digest, "r.io/b:1", false),
            // Which digest is signed is checked apart.
            (either, &by_digest, &other_digest, true),
            (repository, "r.io/a:1", "r.io/a:2", true),
            (repository, "r.io/a:1", "r.io/a", true),
            (repository, "r.io/a:1", "r.io/aa:1", false),
            (reference, "mirror.io/x:9", "up.example/a:1", true),
            (reference, "mirror.io/x:9", "up.example/a:2", false),
            (reference, "mirror.io/x:9", "up.example/a", false),
            (up, "mirror.io/x:9", "up.example/a", true),
            (up, "mirror.io/x:9", "up.example/b", false),
            (remap, "m.example/v/p/i:1", "v.example/p/i:1", true),
            (remap, "m.example/v/p/i:1", "m.example/v/p/i:1", false),
            (remap, "m.example/vv/i:1", "v.example/vv/i:1", false),
            (remap, "m.example/vv/i:1", "m.example/vv/i:1", true),
        ];
        for (json, asked, signed, expected) in rows {
            assert_eq!(accepts(json, asked, signed), *expected, "{json} {asked} {signed}");
        }
        let archive = Place::DockerArchive;
        let name = Name::parse("up.example/a:1").unwrap();
        assert!(identity(reference).unwrap().accepts(&archive, &name));
        assert!(!identity(repository).unwrap().accepts(&archive, &name));
    }

    #[test]
    fn bad_identities_say_what_is_wrong() {
        for (json, part) in [
            (r#"{"type":"matchexact"}"#, "no kind of identity"),
            (r#"{}"#, "\"type\" is missing"),
            (r#"{"type":"matchExact","x":1}"#, "\"x\" is not known"),
            (r#"{"type":"exactReference","dockerReference":"a.io/b"}"#, "neither a tag nor a digest"),
            (r#"{"type":"exactReference"}"#, "dockerReference"),
            (r#"{"type":"exactRepository","dockerRepository":"A/B"}"#, "lower-case"),
            (r#"{"type":"remapIdentity","prefix":"library/x","signedPrefix":"a.io"}"#, "docker.io/library/x"),
            (r#"{"type":"remapIdentity","prefix":"a.io/b:1","signedPrefix":"a.io"}"#, "no prefix"),
            (r#"{"type":"remapIdentity","prefix":"a.io"}"#, "signedPrefix"),
        ] {
            let error = identity(json).unwrap_err().to_string();
            assert!(error.contains(part), "{json}: {error}");
        }
    }
}
