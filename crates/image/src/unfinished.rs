//! What a pull has finished while it goes on: a note beside each unpacked layer, so that what a daemon was killed over is not fetched again.
//!
//! An unpacked layer is synced only when its image is published. As long as the machine runs that does not matter, since the kernel has
//! everything that was written. After a reboot some of it may be missing: a note of another boot counts for nothing.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use model::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::tar::outline::Outline;
use crate::unpack::{LooseEnds, Unpacked};

/// The ending of a note's name; before it is the name of what it is about.
const ENDING: &str = ".note";
/// Loose ends are names of an archive, which may have very many.
const NOTE_MAX: u64 = 256 << 20;

/// What there is to know of an unpacked layer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Note {
    /// Of the kernel that holds what was written.
    boot: String,
    pub id: String,
    /// The blob it came from, if from one.
    pub blob: Option<Digest>,
    pub bytes: u64,
    pub inodes: u64,
    pub loose_ends: LooseEnds,
    pub outline: Option<Outline>,
    #[serde(default)]
    pub checksum: Option<String>,
}

impl Note {
    /// A note of this boot; none where the kernel does not say which that is.
    pub(crate) fn new(id: &str, blob: Option<&Digest>, what: &Unpacked) -> Option<Note> {
        Some(Note {
            boot: boot()?,
            id: id.to_owned(),
            blob: blob.cloned(),
            bytes: what.bytes,
            inodes: what.inodes,
            loose_ends: what.loose_ends.clone(),
            outline: what.outline.clone(),
            checksum: what.checksum.clone(),
        })
    }

    /// Puts the note beside `layer`. It is not synced: it needs to last no longer than the boot.
    pub(crate) fn write(&self, layer: &Path) -> io::Result<()> {
        std::fs::write(beside(layer), serde_json::to_vec(self)?)
    }
}

/// The note beside `layer`; none if there is none, it was cut off, or the machine was started again since.
pub(crate) fn read(layer: &Path) -> Option<Note> {
    let mut text = Vec::new();
    File::open(beside(layer)).ok()?.take(NOTE_MAX).read_to_end(&mut text).ok()?;
    let note: Note = serde_json::from_slice(&text).ok()?;
    (boot()? == note.boot).then_some(note)
}

/// Removes the note beside `layer`, before anything of it: what is being removed must not look whole.
pub(crate) fn remove(layer: &Path) {
    let _ = std::fs::remove_file(beside(layer));
}

/// What the note `path` is about; none if it is no note.
pub(crate) fn subject(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?.strip_suffix(ENDING)?;
    Some(path.with_file_name(name))
}

/// Where the note of `layer` is.
pub(crate) fn beside(layer: &Path) -> PathBuf {
    let mut path = layer.as_os_str().to_owned();
    path.push(ENDING);
    path.into()
}

/// The boot id, which the kernel makes anew at each start (random(4)).
fn boot() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned()).filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_counts_for_its_boot_and_only_whole() {
        let folder = tempfile::tempdir().unwrap();
        let layer = folder.path().join("abc.partial-1-1");
        let what = Unpacked {
            diff_id: Digest::sha256([1; 32]),
            bytes: 7,
            inodes: 8,
            loose_ends: LooseEnds::default(),
            outline: Some(Outline { size: 9, packed: vec![0, 255] }),
            checksum: None,
        };
        let Some(note) = Note::new("sha256:abc", None, &what) else {
            println!("SKIPPED: the kernel tells no boot id");
            return;
        };
        assert!(read(&layer).is_none());
        note.write(&layer).unwrap();
        let back = read(&layer).unwrap();
        assert_eq!((back.id.as_str(), back.bytes, back.inodes), ("sha256:abc", 7, 8));
        assert_eq!(back.outline, what.outline);
        let path = beside(&layer);
        assert_eq!(subject(&path).unwrap(), layer);
        assert!(subject(&layer).is_none());
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(read(&layer).is_none());
        Note { boot: "another".into(), ..note }.write(&layer).unwrap();
        assert!(read(&layer).is_none());
        remove(&layer);
        assert!(!path.exists());
    }
}
