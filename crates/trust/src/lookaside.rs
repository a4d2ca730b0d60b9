//! Where signatures lie beside a registry: containers-registries.d(5).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use model::digest::Digest;
use model::reference::ImageReference;
use serde::Deserialize;

use crate::place::Place;
use crate::read;

/// Where signatures are looked for if nothing is said of an image (containers-registries.d(5), "Built-in Defaults").
pub const DEFAULT_STORE: &str = "/var/lib/containers/sigstore";
/// A configuration file is not larger.
const FILE_BYTES: u64 = 1 << 20;

/// Why the folder of configuration files cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {why}", path = .path.display())]
pub struct RegistriesError {
    pub path: PathBuf,
    pub why: String,
}

/// What the files of the folder say together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registries {
    default: Option<Section>,
    scopes: HashMap<String, Section>,
}

/// Where one image's signatures are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stores {
    pub lookaside: Option<Store>,
    /// What the configuration says of signatures in the registry itself; nothing as a rule.
    pub attachments: Option<bool>,
}

/// A store of signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Store {
    Folder(PathBuf),
    /// `http` or `https`, without a slash at its end.
    Url(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(rename = "default-docker")]
    default: Option<Section>,
    #[serde(default)]
    docker: Option<HashMap<String, Section>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Section {
    lookaside: Option<String>,
    lookaside_staging: Option<String>,
    /// The older names of the two.
    sigstore: Option<String>,
    sigstore_staging: Option<String>,
    use_sigstore_attachments: Option<bool>,
}

impl Registries {
    /// Reads all `.yaml` files of `folder`. One that does not exist says nothing.
    ///
    /// # Errors
    /// [`RegistriesError`] with the file that is not understood, or that speaks of what another one has said.
    pub fn read(folder: &Path) -> Result<Registries, RegistriesError> {
        let fail = |path: &Path, why: String| RegistriesError { path: path.to_owned(), why };
        let mut files = Vec::new();
        match std::fs::read_dir(folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Registries::default()),
            Err(error) => return Err(fail(folder, error.to_string())),
            Ok(entries) => {
                for entry in entries {
                    files.push(entry.map_err(|error| fail(folder, error.to_string()))?.path());
                }
            }
        }
        files.sort();
        let mut all = Registries::default();
        for path in
            files.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        {
            let bytes = read::file(&path, FILE_BYTES).map_err(|error| fail(&path, error.to_string()))?;
            all.add(&bytes).map_err(|why| fail(&path, why))?;
        }
        Ok(all)
    }

    /// Adds what one file says.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())?;
        let document: Document = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        if let Some(default) = document.default
            && self.default.replace(default).is_some()
        {
            return Err("\"default-docker\" is in another file too".to_owned());
        }
        for (scope, section) in document.docker.unwrap_or_default() {
            if self.scopes.insert(scope.clone(), section).is_some() {
                return Err(format!("{scope:?} is in another file too"));
            }
        }
        Ok(())
    }

    /// Where the signatures of an image are: what is said of the narrowest scope, and of no other.
    ///
    /// # Errors
    /// What is wrong with the URL that is given there.
    pub fn stores(&self, reference: &ImageReference) -> Result<Stores, String> {
        let scopes = Place::Registry(reference.clone()).scopes();
        let section = scopes.iter().find_map(|scope| self.scopes.get(scope)).or(self.default.as_ref());
        let Some(section) = section else {
            return Ok(Stores { lookaside: Some(Store::Folder(DEFAULT_STORE.into())), attachments: None });
        };
        let url = section.lookaside.as_ref().or(section.sigstore.as_ref());
        let lookaside = url.map(|url| Store::parse(url)).transpose()?;
        Ok(Stores { lookaside, attachments: section.use_sigstore_attachments })
    }
}

impl Store {
    fn parse(url: &str) -> Result<Store, String> {
        let bad = |why| format!("the lookaside {:?} {why}", crate::json::shorten(url));
        if let Some(path) = url.strip_prefix("file://") {
            let path = Path::new(path);
            let is_plain = path.is_absolute() && !path.components().any(|part| part.as_os_str() == "..");
            return if is_plain {
                Ok(Store::Folder(path.to_owned()))
            } else {
                Err(bad("is no absolute path"))
            };
        }
        if !url.starts_with("https://") && !url.starts_with("http://") {
            return Err(bad("is not file://, https:// or http://"));
        }
        if url.contains(['?', '#', '@']) {
            return Err(bad("has more than a host and a path"));
        }
        Ok(Store::Url(url.trim_end_matches('/').to_owned()))
    }

    /// Where within a store the signature of an image with this number, from 1, is.
    pub fn name(reference: &ImageReference, digest: &Digest, number: usize) -> String {
        format!("{}@{}={}/signature-{number}", reference.path(), digest.algorithm().name(), digest.hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_scope_says_where() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write(
            "a.yaml",
            "default-docker:\n  lookaside-staging: file:///x\ndocker:\n  r.io:\n    lookaside: https://s.io/l/\n",
        );
        write(
            "b.yaml",
            "docker:\n  r.io/ns:\n    sigstore: file:///srv/sig\n    use-sigstore-attachments: true\n",
        );
        write("ignored.txt", "{");
        let registries = Registries::read(folder.path()).unwrap();
        let stores = |text: &str| registries.stores(&ImageReference::parse(text).unwrap()).unwrap();
        assert_eq!(stores("r.io/a").lookaside, Some(Store::Url("https://s.io/l".into())));
        let narrow = Stores { lookaside: Some(Store::Folder("/srv/sig".into())), attachments: Some(true) };
        assert_eq!(stores("r.io/ns/a"), narrow);
        assert_eq!(stores("other.io/a"), Stores { lookaside: None, attachments: None });
        let nothing = Registries::read(&folder.path().join("absent")).unwrap();
        let default = nothing.stores(&ImageReference::parse("a").unwrap()).unwrap();
        assert_eq!(default.lookaside, Some(Store::Folder(DEFAULT_STORE.into())));

        write("c.yaml", "docker:\n  r.io: {}\n");
        let error = Registries::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("c.yaml") && error.contains("\"r.io\" is in another file"), "{error}");
        write("c.yaml", "docker:\n  x.io:\n    lookasides: https://a\n");
        assert!(Registries::read(folder.path()).unwrap_err().to_string().contains("c.yaml"));
    }

    #[test]
    fn odd_urls_are_refused() {
        for bad in ["file://relative", "file:///a/../b", "ftp://a/b", "https://u@h/p", "https://h/?q", "/a"] {
            assert!(Store::parse(bad).is_err(), "{bad}");
        }
        let digest = Digest::parse(&format!("sha256:{}", "a".repeat(64))).unwrap();
        let name = Store::name(&ImageReference::parse("busybox").unwrap(), &digest, 2);
        assert_eq!(name, format!("library/busybox@sha256={}/signature-2", "a".repeat(64)));
    }
}
