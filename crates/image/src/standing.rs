//! Notes beside what a container writes: which image it is of, and on which directories of layers it stands. They are for the day on which
//! the database is lost: then nobody else knows whose feet a directory is under.

use std::io;
use std::path::Path;

use model::digest::ImageId;

use crate::volume;

/// The note of the root file system itself.
const OWN: &str = "image";
/// Sizes of notes are bounded by the number of layers; this is far beyond.
const LONGEST: u64 = 1 << 20;

/// Notes what a root file system, or with `volume` a volume of it, stands on. A note of an earlier release has no directories.
pub(crate) fn note<'a>(
    folder: &Path,
    image: &ImageId,
    volume: bool,
    layers: impl IntoIterator<Item = &'a Path>,
) -> io::Result<()> {
    let name = if volume { volume::note_name(image) } else { OWN.to_owned() };
    let mut text = format!("{image}\n");
    for layer in layers {
        text.push_str(&layer.file_name().unwrap_or_default().to_string_lossy());
        text.push('\n');
    }
    std::fs::write(folder.join(name), text)
}

/// The image of a note.
pub(crate) fn image(note: &Path) -> Option<ImageId> {
    ImageId::parse(text(note)?.lines().next()?).ok()
}

/// The directories of layers that a root file system and its volumes stand on; none if one of them did not note them.
pub(crate) fn read(folder: &Path) -> Option<Vec<String>> {
    let mut directories = directories(&folder.join(OWN))?;
    for entry in std::fs::read_dir(folder).ok()?.flatten() {
        if volume::is_note(&entry.file_name()) {
            directories.extend(self::directories(&entry.path())?);
        }
    }
    Some(directories)
}

fn directories(note: &Path) -> Option<Vec<String>> {
    let text = text(note)?;
    // The first line, which an earlier release wrote without its end, is the image.
    let (_, layers) = text.split_once('\n')?;
    Some(layers.lines().map(str::to_owned).collect())
}

fn text(note: &Path) -> Option<String> {
    let is_small = std::fs::metadata(note).ok()?.len() <= LONGEST;
    is_small.then(|| std::fs::read_to_string(note).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_says_all_or_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let image = |byte: u8| ImageId::of_config(model::digest::Digest::sha256([byte; 32]));
        assert_eq!(read(folder.path()), None);
        note(folder.path(), &image(1), false, [Path::new("/x/a"), Path::new("/x/b")]).unwrap();
        note(folder.path(), &image(2), true, [Path::new("/x/c")]).unwrap();
        let mut found = read(folder.path()).unwrap();
        found.sort();
        assert_eq!(found, ["a", "b", "c"]);
        assert_eq!(super::image(&folder.path().join(OWN)), Some(image(1)));
        // As an earlier release wrote it.
        std::fs::write(folder.path().join(volume::note_name(&image(3))), image(3).as_str()).unwrap();
        assert_eq!(read(folder.path()), None);
        assert_eq!(super::image(&folder.path().join(volume::note_name(&image(3)))), Some(image(3)));
    }
}
