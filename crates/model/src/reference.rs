//! Image references as people write them, and the one whole form they stand for: `docker.io/library/busybox:latest`.

use std::fmt;
use std::str::FromStr;

use crate::digest::{BadDigest, Digest};

/// The longest repository name with its domain, in bytes (distribution specification, "Pulling manifests").
pub const NAME_MAX: usize = 255;
/// The longest tag, in bytes.
pub const TAG_MAX: usize = 128;

/// A repository of a registry with a tag, a digest, or both. It always has one of them: without either, the tag is `latest`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageReference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not an image reference. It quotes only the beginning of what it was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadReference {
    #[error("the image reference is empty")]
    Empty,
    #[error("image reference {given:?}: the repository name must be lower-case")]
    UpperCase { given: String },
    #[error("image reference {given:?}: {part:?} is not a registry host")]
    Domain { given: String, part: String },
    #[error(
        "image reference {given:?}: {part:?} is not a repository name (lower-case letters, digits, and single separators between them)"
    )]
    Path { given: String, part: String },
    #[error(
        "image reference {given:?}: {part:?} is not a tag (at most 128 letters, digits, '_', '.' and '-')"
    )]
    Tag { given: String, part: String },
    #[error("image reference {given:?}: {why}")]
    Digest { given: String, why: BadDigest },
    #[error("image reference {given:?}: the name is longer than 255 bytes")]
    TooLong { given: String },
    #[error("image reference {given:?}: 64 hexadecimal digits are an image id, not a name")]
    LooksLikeId { given: String },
}

impl ImageReference {
    /// Takes what a person wrote: `busybox`, `host:5000/a/b:tag`, `name@sha256:...`.
    ///
    /// A first component with a dot or a colon, or `localhost`, is the registry; else the registry is `docker.io`, where a name without
    /// a slash is below `library/`.
    ///
    /// # Errors
    /// [`BadReference`], naming the part that is wrong.
    pub fn parse(text: &str) -> Result<ImageReference, BadReference> {
        if text.is_empty() {
            return Err(BadReference::Empty);
        }
        let given = || text.chars().take(80).collect::<String>();
        // Longer than the longest of all three parts together: nothing below needs to look at a megabyte.
        if text.len() > NAME_MAX + 1 + TAG_MAX + 1 + 136 {
            return Err(BadReference::TooLong { given: given() });
        }
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => {
                let digest =
                    Digest::parse(digest).map_err(|why| BadReference::Digest { given: given(), why })?;
                (rest, Some(digest))
            }
        };
        // A colon after the last slash begins a tag; before it, it belongs to a port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(BadReference::Tag { given: given(), part: tag.to_owned() });
        }
        let (domain, path) = split_name(name, &given)?;
        if domain.len() + 1 + path.len() > NAME_MAX {
            return Err(BadReference::TooLong { given: given() });
        }
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some("latest".to_owned()),
        };
        Ok(ImageReference { domain, path, tag, digest })
    }

    /// The registry as the reference names it, with its port: `docker.io`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The host that answers for the registry: Docker Hub's is not the one it is named after.
    pub fn host(&self) -> &str {
        match self.domain.as_str() {
            "docker.io" => "registry-1.docker.io",
            other => other,
        }
    }

    /// The repository within the registry: `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Registry and repository: `docker.io/library/busybox`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The tag, if it has one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if it has one. It wins over the tag.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The last part of a manifest's URL: the digest, else the tag.
    pub fn manifest(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => "latest",
        }
    }

    /// The same repository by this digest alone.
    pub fn with_digest(&self, digest: Digest) -> ImageReference {
        ImageReference {
            domain: self.domain.clone(),
            path: self.path.clone(),
            tag: None,
            digest: Some(digest),
        }
    }
}

/// Domain and path of a name, with Docker Hub's abbreviations written out.
fn split_name(name: &str, given: &dyn Fn() -> String) -> Result<(String, String), BadReference> {
    if name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(BadReference::LooksLikeId { given: given() });
    }
    let (domain, path) = match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':', '[']) || first.eq_ignore_ascii_case("localhost") => {
            (first.to_ascii_lowercase(), rest)
        }
        _ => ("docker.io".to_owned(), name),
    };
    if !is_domain(&domain) {
        return Err(BadReference::Domain { given: given(), part: domain });
    }
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(BadReference::UpperCase { given: given() });
    }
    if let Some(part) = path.split('/').find(|part| !is_path_component(part)) {
        return Err(BadReference::Path { given: given(), part: part.to_owned() });
    }
    let domain = if domain == "index.docker.io" { "docker.io".to_owned() } else { domain };
    let path = if domain == "docker.io" && !path.contains('/') {
        format!("library/{path}")
    } else {
        path.to_owned()
    };
    Ok((domain, path))
}

/// A host name, an IPv4 address or an IPv6 address in brackets, with a port or without.
fn is_domain(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let Some((address, after)) = rest.split_once(']') else { return false };
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            match after.strip_prefix(':') {
                Some(port) => (None, Some(port)),
                None if after.is_empty() => (None, None),
                None => return false,
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(text), None),
        },
    };
    let label = |part: &str| {
        !part.is_empty()
            && part.len() <= 63
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.is_none_or(|host| host.split('.').all(label))
        && port.is_none_or(|port| {
            port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
        })
}

/// Letters and digits, with `.`, `_`, `__` or any number of `-` between them.
fn is_path_component(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    plain(first)
        && plain(last)
        && bytes.split(|&b| plain(b)).all(|separator| {
            matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|&b| b == b'-')
        })
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= TAG_MAX
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

impl fmt::Display for ImageReference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(out, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(out, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for ImageReference {
    type Err = BadReference;

    fn from_str(text: &str) -> Result<ImageReference, BadReference> {
        ImageReference::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(text: &str) -> String {
        ImageReference::parse(text).unwrap().to_string()
    }

    #[test]
    fn abbreviations_are_written_out() {
        let hex = "0123456789abcdef".repeat(4);
        assert_eq!(whole("busybox"), "docker.io/library/busybox:latest");
        assert_eq!(whole("user/app"), "docker.io/user/app:latest");
        assert_eq!(whole("index.docker.io/busybox:1"), "docker.io/library/busybox:1");
        assert_eq!(whole("localhost/app"), "localhost/app:latest");
        assert_eq!(whole("localhost:5000/a/b:v1"), "localhost:5000/a/b:v1");
        assert_eq!(whole("QUAY.io/a/b"), "quay.io/a/b:latest");
        assert_eq!(whole("[::1]:5000/a"), "[::1]:5000/a:latest");
        assert_eq!(whole(&format!("a@sha256:{hex}")), format!("docker.io/library/a@sha256:{hex}"));
        assert_eq!(whole(&format!("a:t@sha256:{hex}")), format!("docker.io/library/a:t@sha256:{hex}"));
        let both = ImageReference::parse(&format!("a:t@sha256:{hex}")).unwrap();
        assert_eq!(both.manifest(), format!("sha256:{hex}"));
        assert_eq!(ImageReference::parse("a").unwrap().host(), "registry-1.docker.io");
        // Without a slash, a dot does not make a host.
        assert_eq!(whole("my.app:1"), "docker.io/library/my.app:1");
    }

    #[test]
    fn bad_references_are_told_apart() {
        use BadReference as B;
        let hex = "0123456789abcdef".repeat(4);
        assert!(matches!(ImageReference::parse(""), Err(B::Empty)));
        assert!(matches!(ImageReference::parse("Busybox"), Err(B::UpperCase { .. })));
        assert!(matches!(ImageReference::parse("Upper/busybox"), Err(B::UpperCase { .. })));
        assert!(matches!(ImageReference::parse(&hex), Err(B::LooksLikeId { .. })));
        assert!(matches!(ImageReference::parse("a:"), Err(B::Tag { .. })));
        assert!(matches!(ImageReference::parse("a:.t"), Err(B::Tag { .. })));
        assert!(matches!(ImageReference::parse(&format!("a:{}", "t".repeat(129))), Err(B::Tag { .. })));
        assert!(ImageReference::parse(&format!("a:{}", "t".repeat(128))).is_ok());
        assert!(matches!(ImageReference::parse("a@sha256:12"), Err(B::Digest { .. })));
        assert!(matches!(ImageReference::parse("a@md5:12"), Err(B::Digest { .. })));
        assert!(matches!(ImageReference::parse("-.io/a"), Err(B::Domain { .. })));
        assert!(matches!(ImageReference::parse("../a"), Err(B::Domain { .. })));
        assert!(matches!(ImageReference::parse("h:0/a"), Err(B::Domain { .. })));
        assert!(matches!(ImageReference::parse("h:70000/a"), Err(B::Domain { .. })));
        assert!(matches!(ImageReference::parse("user:secret@host.io/a"), Err(B::Digest { .. })));
        for path in
            ["a//b", "/a", "a/", "a..b", "a___b", "a_.b", "a/../b", "a b", "a\nb", "a\0b", "é", "_a", "a-"]
        {
            assert!(matches!(ImageReference::parse(path), Err(B::Path { .. })), "{path:?}");
        }
        for path in ["a.b", "a_b", "a__b", "a---b", "a/b/c/d"] {
            assert!(ImageReference::parse(path).is_ok(), "{path:?}");
        }
        assert!(matches!(ImageReference::parse(&"a/".repeat(1 << 19)), Err(B::TooLong { .. })));
        assert!(matches!(ImageReference::parse(&"a".repeat(250)), Err(B::TooLong { .. })));
    }

    proptest! {
        #[test]
        fn the_whole_form_parses_to_itself(text in "([a-zA-Z0-9.:-]{1,12}/)?[a-z0-9._/-]{1,20}(:[a-zA-Z0-9_.-]{1,12})?(@sha256:[0-9a-f]{64})?") {
            if let Ok(reference) = ImageReference::parse(&text) {
                let again = ImageReference::parse(&reference.to_string()).unwrap();
                prop_assert_eq!(again, reference);
            }
        }

        #[test]
        fn nothing_panics_and_paths_stay_tame(text in "\\PC{0,300}") {
            if let Ok(reference) = ImageReference::parse(&text) {
                prop_assert!(!reference.path().split('/').any(|part| part.is_empty() || part == ".."));
                prop_assert!(reference.name().len() <= NAME_MAX);
                prop_assert!(reference.to_string().is_ascii());
            }
        }
    }
}
