//! Artifacts: manifests of files that are no layers. Each file becomes a layer of its own, so that they are kept, counted, stacked and
//! removed as images are; what an artifact is good for here is a volume.

use std::io::{self, Read};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use distribution::Hasher;
use model::digest::ImageId;
use rustix::fs::{Mode, OFlags};
use serde_json::json;
use sys::root::Root;

use crate::checksum::{Body, Content, Sum};
use crate::error::PullCause;
use crate::manifest::{LayerSource, Manifest};
use crate::tree::Usage;
use crate::unpack::{Counted, Expected, LooseEnds, UnpackError, Unpacked};

/// What says how a file of an artifact is called (OCI image specification, "Pre-Defined Annotation Keys").
const TITLE: &str = "org.opencontainers.image.title";

/// The longest name of a file with its folders.
const LONGEST: usize = 1024;

/// An artifact as it is kept.
pub(crate) struct Artifact {
    pub id: ImageId,
    pub config: Vec<u8>,
    pub sources: Vec<LayerSource>,
}

/// What an artifact becomes here.
///
/// # Errors
/// As [`sources`].
pub(crate) fn image(what: &str, manifest: &Manifest) -> Result<Artifact, PullCause> {
    let sources = sources(what, manifest)?;
    let config = config(manifest, &sources);
    let mut hasher = Hasher::new();
    hasher.update(&config);
    Ok(Artifact { id: ImageId::of_config(hasher.finish()), config, sources })
}

/// The files of an artifact as what they are fetched for. One without a title is called by its digest.
///
/// # Errors
/// [`PullCause::Malformed`] for a name that is none, or that would lead out of the volume.
pub(crate) fn sources(what: &str, manifest: &Manifest) -> Result<Vec<LayerSource>, PullCause> {
    let one = |blob: &crate::manifest::Descriptor| {
        let name = blob.annotations.get(TITLE).cloned().unwrap_or_else(|| blob.digest.hex().to_owned());
        let plain = |part: Component<'_>| matches!(part, Component::Normal(name) if name.len() <= 255);
        let named = !name.is_empty() && name.len() <= LONGEST && !name.contains(char::is_control);
        if !named || !Path::new(&name).components().all(plain) {
            let name: String = name.chars().take(80).collect();
            let why = format!("the title {name:?} of {} is not the name of a file in a folder", blob.digest);
            return Err(PullCause::malformed(what, why));
        }
        let mut hasher = Hasher::new();
        hasher.update(format!("file {} {name}", blob.digest).as_bytes());
        Ok(LayerSource { blob: blob.clone(), diff_id: hasher.finish(), file: Some(name) })
    };
    manifest.layers.iter().map(one).collect()
}

/// An artifact has no configuration. It is given one that says what it is, by whose digest it is known, as an image is by its own.
fn config(manifest: &Manifest, sources: &[LayerSource]) -> Vec<u8> {
    let files: Vec<_> = sources
        .iter()
        .map(|source| json!({ "name": source.file, "digest": source.blob.digest, "size": source.blob.size }))
        .collect();
    let diff_ids: Vec<_> = sources.iter().map(|source| &source.diff_id).collect();
    let config = json!({
        "artifactType": manifest.artifact_type,
        "files": files,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    config.to_string().into_bytes()
}

/// Writes a blob as the file `name` below `root`, an empty directory, and checks it against what was expected.
///
/// # Errors
/// [`UnpackError`]; the directory then has some part of the file and has to be thrown away.
pub(crate) fn write(
    blob: impl Read,
    root: BorrowedFd<'_>,
    name: &str,
    expected: &Expected,
) -> Result<Unpacked, UnpackError> {
    let failed = |error: io::Error| UnpackError::io(name.as_bytes(), error);
    let mut blob =
        Hashed { blob: Counted::new(blob, &expected.blob, expected.size), content: Content::new() };
    let folders = Path::new(name).parent().unwrap_or(Path::new(""));
    let root: OwnedFd = root.try_clone_to_owned().map_err(failed)?;
    let top = root.try_clone().map_err(failed)?;
    let folder = Root::from_fd(root).create_directories(folders, 0o755).map_err(failed)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = Path::new(name).file_name().unwrap_or_default();
    let file = rustix::fs::openat(&folder, file, flags, Mode::from_raw_mode(0o644));
    let mut file = std::fs::File::from(file.map_err(|error| failed(error.into()))?);
    if let Err(error) = io::copy(&mut blob, &mut file) {
        return Err(if blob.blob.failed() { UnpackError::Aborted } else { failed(error) });
    }
    let Hashed { blob, content } = blob;
    let (size, digest) = blob.finish();
    if size != expected.size {
        return Err(UnpackError::BlobSize { expected: expected.size, actual: size });
    }
    if digest != expected.blob {
        return Err(UnpackError::BlobDigest { expected: expected.blob.clone(), actual: digest });
    }
    let usage = Usage { bytes: size.next_multiple_of(4096), inodes: 1 + folders.components().count() as u64 };
    Ok(Unpacked {
        diff_id: expected.diff_id.clone(),
        bytes: usage.bytes,
        inodes: usage.inodes,
        loose_ends: LooseEnds { has_root: true, ..LooseEnds::default() },
        outline: None,
        checksum: sum(&top, name, content).ok().map(|sum| sum.to_string()),
    })
}

/// The sum over the one file and its folders.
fn sum(root: &OwnedFd, name: &str, content: Content) -> io::Result<Sum> {
    let mut sum = Sum::default();
    let mut body = Body::Content(content.finish());
    for path in Path::new(name).ancestors() {
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        let at = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let stat = rustix::fs::statat(root, at, flags)?;
        sum.add(path.as_os_str().as_encoded_bytes(), &stat, body);
        body = Body::None;
    }
    Ok(sum)
}

/// A blob whose content is hashed for later, too.
struct Hashed<R> {
    blob: Counted<R>,
    content: Content,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.blob.read(buffer)?;
        self.content.update(&buffer[..read]);
        Ok(read)
    }
}
