//! Where an image comes from, as containers-policy.json(5) names it: a transport, and scopes in it from the narrowest to the widest.

use std::path::{Path, PathBuf};

use model::reference::ImageReference;

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A registry. Of a reference with both a tag and a digest, the digest alone counts, since the tag is not asked for.
    Registry(ImageReference),
    /// A file as `docker save` writes it.
    DockerArchive,
    /// A folder with an OCI image layout.
    OciLayout(PathBuf),
    /// An OCI image layout in one file; no path if it came through a pipe.
    OciArchive(Option<PathBuf>),
}

impl Place {
    /// The name under which policies speak of the transport.
    pub fn transport(&self) -> &'static str {
        match self {
            Place::Registry(_) => "docker",
            Place::DockerArchive => "docker-archive",
            Place::OciLayout(_) => "oci",
            Place::OciArchive(_) => "oci-archive",
        }
    }

    /// The scopes that it is in, the narrowest first, without the transport's own `""`.
    pub fn scopes(&self) -> Vec<String> {
        match self {
            Place::Registry(reference) => of_reference(reference),
            Place::DockerArchive | Place::OciArchive(None) => Vec::new(),
            Place::OciLayout(path) | Place::OciArchive(Some(path)) => of_path(path),
        }
    }
}

/// The reference itself, its repository, the folders above that, the host, and the domains above the host as `*.domain`.
fn of_reference(reference: &ImageReference) -> Vec<String> {
    let name = reference.name();
    let mut scopes = vec![exact(reference)];
    let mut rest = name.as_str();
    loop {
        scopes.push(rest.to_owned());
        match rest.rfind('/') {
            Some(slash) => rest = &rest[..slash],
            None => break,
        }
    }
    // A wildcard stands for names below a domain, without the port.
    let host = rest.split(':').next().unwrap_or("");
    scopes.extend(host.match_indices('.').map(|(dot, _)| format!("*{}", &host[dot..])));
    scopes
}

/// A reference with its digest, or else its tag.
pub(crate) fn exact(reference: &ImageReference) -> String {
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => format!("{}@{digest}", reference.name()),
        (None, Some(tag)) => format!("{}:{tag}", reference.name()),
        (None, None) => reference.name(),
    }
}

/// A path and the folders above it, without `/`.
fn of_path(path: &Path) -> Vec<String> {
    path.ancestors()
        .filter(|path| path.parent().is_some())
        .map(|path| path.to_string_lossy().into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(text: &str) -> Vec<String> {
        Place::Registry(ImageReference::parse(text).unwrap()).scopes()
    }

    #[test]
    fn scopes_go_from_narrow_to_wide() {
        assert_eq!(
            registry("a.b.example.com:8443/ns/repo:v1"),
            [
                "a.b.example.com:8443/ns/repo:v1",
                "a.b.example.com:8443/ns/repo",
                "a.b.example.com:8443/ns",
                "a.b.example.com:8443",
                "*.b.example.com",
                "*.example.com",
                "*.com"
            ]
        );
        assert_eq!(
            registry("busybox"),
            [
                "docker.io/library/busybox:latest",
                "docker.io/library/busybox",
                "docker.io/library",
                "docker.io",
                "*.io"
            ]
        );
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(registry(&format!("localhost/a:t@{digest}"))[0], format!("localhost/a@{digest}"));
        assert_eq!(registry("[::1]:5000/a")[1..], ["[::1]:5000/a", "[::1]:5000"]);
        let archive = Place::OciArchive(Some("/srv/images/a.tar".into()));
        assert_eq!(archive.scopes(), ["/srv/images/a.tar", "/srv/images", "/srv"]);
        assert!(Place::OciArchive(None).scopes().is_empty() && Place::DockerArchive.scopes().is_empty());
    }
}
