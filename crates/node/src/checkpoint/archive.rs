//! The archive of one container, in the layout that CRI-O, containerd and podman share and checkpointctl reads.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use image::{Deletions, TarMetadata, TarWriter};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use serde_json::json;

use super::{Capture, Order, Saved, Sink, Workshop, capture, config_json};
use crate::context::{Context, blocking};
use crate::error::CheckpointError;
use crate::record::PodRecord;

pub(super) async fn make(
    context: &Arc<Context>,
    order: &Order,
    criu: &Path,
    location: &Path,
) -> Result<(), CheckpointError> {
    let Some(container) = order.containers.first() else { return Ok(()) };
    check(location)?;
    let (making, id) = (context.clone(), container.id.clone());
    let workshop = blocking(move || Workshop::open(&making, &id)).await?;
    let memory = Some(workshop.0.join("devshm-checkpoint.tar"));
    let captured = capture(context, order, criu, Deletions::Listed, memory, |_| workshop.0.clone()).await?;
    let spec = config_json(context, container)?;
    let (pod, location, deadline) = (order.pod.clone(), location.to_owned(), order.deadline);
    blocking(move || {
        let Capture { containers, .. } = captured;
        let packed = containers.iter().try_for_each(|saved| pack(&pod, saved, &spec, &location, deadline));
        drop(workshop);
        packed.map_err(|source| CheckpointError::Location { path: location, source })
    })
    .await
}

/// Refuses a location at which nothing can be put, before anything is frozen.
fn check(location: &Path) -> Result<(), CheckpointError> {
    let invalid = |why: &str| Err(CheckpointError::Invalid { why: format!("location {location:?} {why}") });
    if !location.is_absolute() || location.file_name().is_none() {
        return invalid("is not an absolute path of a file");
    }
    match std::fs::symlink_metadata(location) {
        Ok(there) if there.is_symlink() => invalid("is a symbolic link, which is not followed"),
        Ok(there) if !there.is_file() => invalid("is there already and is no regular file"),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match location.parent() {
            Some(folder) if folder.is_dir() => Ok(()),
            _ => invalid("is in a directory that is not there"),
        },
        Err(source) => Err(CheckpointError::Location { path: location.into(), source }),
    }
}

/// Writes the archive beside its place and puts it there whole, in place of a file that may be there.
fn pack(pod: &PodRecord, saved: &Saved, spec: &[u8], location: &Path, deadline: Instant) -> io::Result<()> {
    let folder = location.parent().unwrap_or(Path::new("/"));
    let unfinished = Unfinished::begin(folder, &saved.container.id.to_string())?;
    let mut sink = Sink::new(unfinished.file.try_clone()?, deadline);
    let mut tar = TarWriter::new(&mut sink);
    let now = crate::clock::now().nanoseconds() / 1_000_000_000;
    let plain = TarMetadata::private(now);
    let text = |tar: &mut TarWriter<_>, name: &str, bytes: &[u8]| {
        tar.file(name.as_bytes(), &plain, bytes.len() as u64, bytes)
    };
    text(&mut tar, "config.dump", &json_bytes(&config_dump(saved))?)?;
    text(&mut tar, "spec.dump", spec)?;
    text(&mut tar, "network.status", &json_bytes(&network_status(pod))?)?;
    text(&mut tar, "status.dump", &json_bytes(&status_dump(pod, saved))?)?;
    if !saved.deleted.is_empty() {
        text(&mut tar, "deleted.files", &json_bytes(&json!(saved.deleted))?)?;
    }
    add_folder(&mut tar, &saved.folder, "")?;
    tar.finish()?;
    sink.finish()?;
    unfinished.finish(location)
}

/// Adds the files of a folder that nobody else writes to, and of those in it.
fn add_folder(tar: &mut TarWriter<&mut Sink>, folder: &Path, name: &str) -> io::Result<()> {
    let mut entries: Vec<_> = std::fs::read_dir(folder)?.collect::<io::Result<_>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let own = format!("{name}{}", entry.file_name().to_string_lossy());
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            let own_metadata = TarMetadata { mode: 0o700, ..TarMetadata::private(metadata.mtime()) };
            tar.directory(own.as_bytes(), &own_metadata)?;
            add_folder(tar, &path, &format!("{own}/"))?;
        } else if metadata.is_file() {
            let file = File::options().read(true).custom_flags(libc_nofollow()).open(&path)?;
            let size = file.metadata()?.len();
            tar.file(own.as_bytes(), &TarMetadata::private(metadata.mtime()), size, file)?;
        }
    }
    Ok(())
}

fn libc_nofollow() -> i32 {
    OFlags::NOFOLLOW.bits().cast_signed()
}

/// A file on its way to its place: without a name where the file system can do that, so that nothing stays of it if the daemon is killed.
struct Unfinished {
    file: File,
    /// Where it is now, if it has a name, which is removed unless it is finished.
    name: Option<PathBuf>,
    beside: PathBuf,
}

impl Unfinished {
    fn begin(folder: &Path, unique: &str) -> io::Result<Unfinished> {
        let beside = folder.join(format!(".{unique}.{}.partial", crate::context::new_exec_id()));
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::openat(CWD, folder, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => Ok(Unfinished { file: file.into(), name: None, beside }),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR) => {
                let file =
                    File::options().read(true).write(true).create_new(true).mode(0o600).open(&beside)?;
                Ok(Unfinished { file, name: Some(beside.clone()), beside })
            }
            Err(error) => Err(error.into()),
        }
    }

    fn finish(mut self, location: &Path) -> io::Result<()> {
        self.file.flush()?;
        self.file.sync_all()?;
        if self.name.is_none() {
            use std::os::fd::AsRawFd;
            let own = format!("/proc/self/fd/{}", self.file.as_fd().as_raw_fd());
            rustix::fs::linkat(CWD, own, CWD, &self.beside, AtFlags::SYMLINK_FOLLOW)?;
            self.name = Some(self.beside.clone());
        }
        // A link that came there meanwhile is replaced itself; where it leads to nothing is written.
        std::fs::rename(&self.beside, location)?;
        self.name = None;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            let _ = std::fs::remove_file(name);
        }
    }
}

fn json_bytes(value: &serde_json::Value) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec_pretty(value)?)
}

fn config_dump(saved: &Saved) -> serde_json::Value {
    let record = &saved.container;
    json!({
        "id": record.id.as_str(),
        "name": record.request.name,
        "rootfsImage": record.request.image.image,
        "rootfsImageName": record.request.image.user_specified,
        "rootfsImageRef": record.facts.image_ref,
        "runtime": "pintle",
        "createdTime": date(record.created_at.nanoseconds()),
        "checkpointedTime": date(crate::clock::now().nanoseconds()),
        "restoredTime": "0001-01-01T00:00:00Z",
        "restored": false,
    })
}

/// As CNI results have it, which is what readers of such archives look for addresses in.
fn network_status(pod: &PodRecord) -> serde_json::Value {
    let addresses = pod.state.addresses.iter();
    let ips: Vec<_> = addresses
        .map(|ip| json!({"address": format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 })}))
        .collect();
    json!([{"cniVersion": "1.0.0", "ips": ips}])
}

fn status_dump(pod: &PodRecord, saved: &Saved) -> serde_json::Value {
    let record = &saved.container;
    json!({
        "id": record.id.as_str(),
        "metadata": {"name": record.request.name, "attempt": record.request.attempt},
        "pod": {
            "id": pod.id.as_str(),
            "name": pod.request.name.name,
            "namespace": pod.request.name.namespace,
            "uid": pod.request.name.uid,
            "attempt": pod.request.name.attempt,
        },
        "imageId": record.facts.image_id,
        "imageRef": record.facts.image_ref,
        "createdAt": record.created_at.nanoseconds(),
        "startedAt": record.started_at().nanoseconds(),
        "labels": record.request.labels,
        "annotations": record.request.annotations,
    })
}

fn date(nanoseconds: i64) -> String {
    runtime::timestamp(u64::try_from(nanoseconds / 1_000_000_000).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_that_is_a_link_or_in_no_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::os::unix::fs::symlink("/etc/passwd", at("link")).unwrap();
        std::os::unix::fs::symlink("absent", at("dangling")).unwrap();
        std::fs::create_dir(at("folder")).unwrap();
        std::fs::write(at("old"), "old").unwrap();
        for bad in ["link", "dangling", "folder", "absent/x"] {
            assert!(matches!(check(&at(bad)), Err(CheckpointError::Invalid { .. })), "{bad}");
        }
        assert!(check(Path::new("relative")).is_err());
        for good in ["old", "new"] {
            check(&at(good)).unwrap();
        }
    }

    #[test]
    fn a_file_is_at_its_place_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let location = folder.path().join("a.tar");
        let names = || std::fs::read_dir(folder.path()).unwrap().count();
        let mut unfinished = Unfinished::begin(folder.path(), "c").unwrap();
        unfinished.file.write_all(b"half").unwrap();
        drop(unfinished);
        assert_eq!(names(), 0);
        std::fs::write(&location, "old").unwrap();
        let mut unfinished = Unfinished::begin(folder.path(), "c").unwrap();
        unfinished.file.write_all(b"whole").unwrap();
        unfinished.finish(&location).unwrap();
        assert_eq!(std::fs::read(&location).unwrap(), b"whole");
        assert_eq!(std::fs::metadata(&location).unwrap().mode() & 0o777, 0o600);
        assert_eq!(names(), 1);
    }
}
