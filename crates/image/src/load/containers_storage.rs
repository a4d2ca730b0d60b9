//! The store of CRI-O, Podman and Buildah (containers-storage, driver overlay): images and layers in JSON files, a layer's files as a
//! directory, and beside it what tar-split took down of the archive. From both the archive is made again, and its digest proves it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use distribution::Hasher;
use flate2::read::GzDecoder;
use model::digest::{Digest, ImageId};
use model::reference::ImageReference;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use serde::Deserialize;

use super::take::Incoming;
use super::{Contents, LoadError, Wish};
use crate::catalog::{self, Origin, StoredManifest};
use crate::config::Limits;
use crate::manifest::{self, Descriptor, Document, LayerSource};
use crate::pull::check_config;

const IMAGES: &str = "overlay-images";
const LAYERS: &str = "overlay-layers";
const FILES: &str = "overlay";
/// The largest of its JSON files, and the longest line that tar-split writes.
const LARGEST_TEXT: u64 = 256 << 20;
const LONGEST_LINE: u64 = 64 << 20;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Image {
    id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    layer: String,
    #[serde(default)]
    big_data_names: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Layer {
    id: String,
    #[serde(default)]
    parent: String,
    #[serde(default)]
    diff_digest: Option<String>,
    #[serde(default)]
    diff_size: Option<i64>,
}

/// A store.
pub(super) struct ContainersStorage {
    root: PathBuf,
    images: Vec<Image>,
    layers: HashMap<String, Layer>,
    /// Which layer's archive has which digest.
    by_diff_id: HashMap<Digest, String>,
}

impl ContainersStorage {
    pub(super) fn open(root: &Path) -> Result<ContainersStorage, LoadError> {
        let images: Vec<Image> = json(&root.join(IMAGES).join("images.json"))?;
        let layers: Vec<Layer> = json(&root.join(LAYERS).join("layers.json"))?;
        // Ids become parts of paths.
        let plain = |id: &str| !id.is_empty() && id.len() <= 128 && id.bytes().all(|b| b.is_ascii_hexdigit());
        let layers: HashMap<String, Layer> = layers
            .into_iter()
            .filter(|layer| plain(&layer.id))
            .map(|layer| (layer.id.clone(), layer))
            .collect();
        let digest = |layer: &Layer| Digest::parse(layer.diff_digest.as_deref()?).ok();
        let by_diff_id =
            layers.values().filter_map(|layer| Some((digest(layer)?, layer.id.clone()))).collect();
        let images = images.into_iter().filter(|image| plain(&image.id)).collect();
        Ok(ContainersStorage { root: root.to_owned(), images, layers, by_diff_id })
    }

    /// A name of each of its images; of one without a name, its id.
    pub(super) fn names(&self) -> Vec<String> {
        let name = |image: &Image| image.names.iter().flatten().next().unwrap_or(&image.id).clone();
        self.images.iter().map(name).collect()
    }

    pub(super) fn image(&self, name: &str, wish: &Wish, limits: &Limits) -> Result<Incoming, LoadError> {
        let whole = ImageReference::parse(name).map(|name| catalog::stored_name(&name));
        let is_it = |image: &&Image| {
            image.id == name
                || image.names.iter().flatten().any(|known| known == name || Ok(known) == whole.as_ref())
        };
        let image = self.images.iter().find(is_it);
        let image = image.ok_or_else(|| LoadError::entry(name, "is not in the store's images.json"))?;
        let id = format!("sha256:{}", image.id);
        let config = self.big_data(image, &id, limits.config_bytes)?;
        let config = config.ok_or_else(|| LoadError::entry(name, "has no configuration in the store"))?;
        let digest = sha256(&config);
        if digest.as_str() != id {
            return Err(LoadError::entry(
                name,
                format!("has a configuration with digest {digest}, not {id}"),
            ));
        }
        let what = format!("configuration {id}");
        let parsed = manifest::parse_config(&what, &config)?;
        let chain = self.chain(image)?;
        check_config(&what, &parsed, chain.len(), &wish.platform)?;
        let mut sources = Vec::new();
        for (layer, diff_id) in chain.into_iter().zip(parsed.rootfs.diff_ids) {
            let size = layer.diff_size.filter(|size| *size > 0);
            let size = size
                .ok_or_else(|| LoadError::entry(&layer.id, "is a layer of which the store says no size"))?;
            if layer.diff_digest.as_deref() != Some(diff_id.as_str()) {
                return Err(LoadError::entry(
                    &layer.id,
                    format!("is not the layer {diff_id} that the image names"),
                ));
            }
            sources.push(LayerSource { blob: Descriptor::plain(diff_id.clone(), size), diff_id, file: None });
        }
        let id = ImageId::of_config(digest);
        let origin = self.origin(image, &id, wish, limits)?;
        Ok(Incoming { id, config, sources, origin })
    }

    /// The layers of an image, the lowest first.
    fn chain(&self, image: &Image) -> Result<Vec<&Layer>, LoadError> {
        let mut chain = Vec::new();
        let mut next = image.layer.as_str();
        while !next.is_empty() {
            let layer = self.layers.get(next);
            let layer = layer
                .ok_or_else(|| LoadError::entry(&image.id, "stands on a layer that is not in layers.json"))?;
            if chain.len() >= self.layers.len() {
                return Err(LoadError::entry(&image.id, "has layers that stand on each other"));
            }
            chain.push(layer);
            next = &layer.parent;
        }
        chain.reverse();
        Ok(chain)
    }

    /// Its manifests, and the names that hold.
    fn origin(&self, image: &Image, id: &ImageId, wish: &Wish, limits: &Limits) -> Result<Origin, LoadError> {
        let mut origin = Origin::default();
        let keys = image.big_data_names.iter().flatten().filter(|key| key.starts_with("manifest")).take(16);
        for key in keys {
            let Some(body) = self.big_data(image, key, limits.manifest_bytes)? else { continue };
            let (digest, media_type) = (sha256(&body), manifest::media_type("", &body));
            let ours = match manifest::parse("a manifest", &media_type, &body, limits) {
                Ok(Document::Manifest(manifest)) => manifest.config.digest == *id.digest(),
                Ok(Document::Index(_)) | Err(_) => false,
            };
            if ours && !origin.manifests.iter().any(|known| known.digest == digest) {
                origin.manifests.push(StoredManifest { digest, media_type, body });
            }
        }
        let said: Vec<ImageReference> = match &wish.name {
            Some(name) => vec![name.clone()],
            None => {
                image.names.iter().flatten().filter_map(|name| ImageReference::parse(name).ok()).collect()
            }
        };
        for reference in said {
            let known = |digest: &Digest| origin.manifests.iter().any(|manifest| manifest.digest == *digest);
            let by_digest = origin
                .manifests
                .iter()
                .map(|m| catalog::stored_name(&reference.with_digest(m.digest.clone())));
            let mut names: Vec<String> = by_digest.collect();
            if reference.digest().is_none_or(known) {
                names.insert(0, catalog::stored_name(&reference));
            }
            for name in names {
                if !origin.names.contains(&name) {
                    origin.names.push(name);
                }
            }
        }
        Ok(origin)
    }

    fn big_data(&self, image: &Image, key: &str, limit: u64) -> Result<Option<Vec<u8>>, LoadError> {
        let path = self.root.join(IMAGES).join(&image.id).join(file_name(key));
        match read(&path, limit) {
            Err(LoadError::Store { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }
}

impl Contents for ContainersStorage {
    fn document(&self, _: &Digest, _: u64) -> Result<Option<Vec<u8>>, LoadError> {
        Ok(None)
    }

    fn layer<'a>(&'a self, source: &LayerSource) -> Result<Box<dyn Read + Send + 'a>, LoadError> {
        let missing = || LoadError::Missing { what: "the image".into(), digest: source.diff_id.clone() };
        let id = self.by_diff_id.get(&source.diff_id).ok_or_else(missing)?;
        let split = self.root.join(LAYERS).join(format!("{id}.tar-split.gz"));
        let files = self.root.join(FILES).join(id).join("diff");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::open(&files, flags, Mode::empty());
        let root = root.map_err(|error| LoadError::Store { path: files, source: error.into() })?;
        let lines = File::open(&split).map_err(|source| LoadError::Store { path: split, source })?;
        let lines: Box<dyn BufRead + Send> = Box::new(BufReader::new(GzDecoder::new(BufReader::new(lines))));
        Ok(Box::new(TarSplit { lines, root, piece: Piece::Bytes(io::Cursor::new(Vec::new())) }))
    }
}

/// How a key of an image's data is a file name: as it is if that is plain, else in base64 after an equals sign.
fn file_name(key: &str) -> String {
    match key.bytes().all(|b| b == b'.' || b.is_ascii_digit() || b.is_ascii_lowercase()) {
        true => key.to_owned(),
        false => format!("={}", STANDARD.encode(key)),
    }
}

/// An archive that is made again as it is read.
struct TarSplit {
    lines: Box<dyn BufRead + Send>,
    root: OwnedFd,
    piece: Piece,
}

enum Piece {
    Bytes(io::Cursor<Vec<u8>>),
    /// A file, its bytes that are still to come, and its name.
    File(File, u64, String),
}

/// A line of tar-split: bytes of the archive, or a file whose contents stand there.
#[derive(Deserialize)]
struct Line {
    r#type: u8,
    #[serde(default)]
    name: Option<String>,
    /// A name that is no text.
    #[serde(default)]
    name_raw: Option<String>,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    payload: Option<String>,
}

impl TarSplit {
    /// Goes to the next piece; false at the end.
    fn next(&mut self) -> io::Result<bool> {
        let malformed = |why: String| io::Error::new(io::ErrorKind::InvalidData, format!("tar-split: {why}"));
        let mut line = Vec::new();
        (&mut self.lines).take(LONGEST_LINE).read_until(b'\n', &mut line)?;
        if line.trim_ascii().is_empty() {
            return Ok(false);
        }
        let line: Line = serde_json::from_slice(&line).map_err(|error| malformed(error.to_string()))?;
        let decode = |text: &str| STANDARD.decode(text).map_err(|error| malformed(error.to_string()));
        self.piece = match (line.r#type, line.size.unwrap_or(0)) {
            (1, 0) => Piece::Bytes(io::Cursor::default()),
            (1, size) => {
                let name = match &line.name_raw {
                    Some(raw) => decode(raw)?,
                    None => line.name.unwrap_or_default().into_bytes(),
                };
                let shown = crate::unpack::show(&name);
                let file = open(&self.root, &name);
                let file =
                    file.map_err(|error| io::Error::new(error.kind(), format!("{shown:?}: {error}")))?;
                Piece::File(file, size, shown)
            }
            (2, _) => Piece::Bytes(io::Cursor::new(decode(line.payload.as_deref().unwrap_or_default())?)),
            (other, _) => return Err(malformed(format!("a line of type {other}"))),
        };
        Ok(true)
    }
}

impl Read for TarSplit {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let read = match &mut self.piece {
                Piece::Bytes(bytes) => bytes.read(buffer)?,
                Piece::File(_, 0, _) => 0,
                Piece::File(file, left, name) => {
                    let want = buffer.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    let read = file.read(&mut buffer[..want])?;
                    if read == 0 {
                        let why = format!("{name:?} is shorter than it was");
                        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
                    }
                    *left -= read as u64;
                    read
                }
            };
            if read > 0 || !self.next()? {
                return Ok(read);
            }
        }
    }
}

/// Opens a file of a layer, whatever links lie there.
fn open(root: &OwnedFd, name: &[u8]) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = rustix::fs::openat2(root, name, flags, Mode::empty(), resolve)?;
    match FileType::from_raw_mode(rustix::fs::fstat(file.as_fd())?.st_mode) {
        FileType::RegularFile => Ok(file.into()),
        _ => Err(io::Error::other("it is no file")),
    }
}

fn json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, LoadError> {
    let text = read(path, LARGEST_TEXT)?;
    serde_json::from_slice(&text)
        .map_err(|error| LoadError::Store { path: path.to_owned(), source: error.into() })
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, LoadError> {
    let failed = |source| LoadError::Store { path: path.to_owned(), source };
    let mut text = Vec::new();
    File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut text)).map_err(failed)?;
    match text.len() as u64 > limit {
        true => Err(failed(io::Error::other(format!("it is larger than {limit} bytes")))),
        false => Ok(text),
    }
}

fn sha256(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new();
    hasher.update(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_file_names_as_the_store_has_it() {
        assert_eq!(file_name("manifest"), "manifest");
        assert_eq!(file_name("sha256:ab"), "=c2hhMjU2OmFi");
    }

    fn split(lines: &str, folder: &Path) -> io::Result<Vec<u8>> {
        let root = File::open(folder).unwrap().into();
        let lines: Box<dyn BufRead + Send> = Box::new(io::Cursor::new(lines.as_bytes().to_vec()));
        let mut bytes = Vec::new();
        TarSplit { lines, root, piece: Piece::Bytes(io::Cursor::default()) }.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn an_archive_comes_from_segments_and_files_and_from_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(root.join("a"), "contents").unwrap();
        std::fs::write(folder.path().join("canary"), "outside!").unwrap();
        std::os::unix::fs::symlink("../canary", root.join("l")).unwrap();
        std::os::unix::fs::symlink("..", root.join("d")).unwrap();
        let head = "{\"type\":2,\"payload\":\"aGVhZA==\",\"position\":0}\n";
        let file = |name: &str, size: u64| {
            format!("{{\"type\":1,\"name\":{name:?},\"size\":{size},\"payload\":\"AA==\"}}\n")
        };
        assert_eq!(split(&format!("{head}{}{head}", file("./a", 8)), &root).unwrap(), b"headcontentshead");
        assert_eq!(split(&format!("{}{head}", file("dir/", 0)), &root).unwrap(), b"head");
        for bad in [
            file("l", 8),
            file("d/canary", 8),
            file("../canary", 8),
            file("a", 9),
            file("none", 1),
            "{".into(),
        ] {
            assert!(split(&bad, &root).is_err(), "{bad}");
        }
    }
}
