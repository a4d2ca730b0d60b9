//! A saved archive as a folder, and a folder as an archive: for whoever has an OCI layout as a directory. It runs at the client, with the
//! client's rights.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::tar::{Kind, Metadata, Reader, Writer};

/// How many files a layout may have.
const MOST_FILES: usize = 100_000;

/// Writes an archive that [`crate::Saving`] made into a folder, which is made if it is absent. Files of these names that are there are
/// replaced; blobs are named by their digest.
///
/// # Errors
/// What the stream or the file system says; an entry that no layout has.
pub fn write_layout(archive: impl Read, folder: &Path) -> io::Result<()> {
    let mut reader = Reader::new(archive);
    while let Some(entry) = reader.next().map_err(io::Error::other)? {
        let name = std::str::from_utf8(&entry.path).unwrap_or_default();
        if entry.kind != Kind::File || !is_of_layout(name) {
            return Err(io::Error::other(format!("{name:?} does not belong into a layout")));
        }
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(folder))?;
        let mut file = File::create(&path)?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            match reader.read_data(&mut buffer).map_err(io::Error::other)? {
                0 => break,
                read => file.write_all(&buffer[..read])?,
            }
        }
    }
    Ok(())
}

/// Writes a layout's folder as an archive: first the index, then the blobs, small ones before large ones, since those say what comes.
///
/// # Errors
/// What the file system or the sink says; a folder that is no layout.
pub fn read_layout(folder: &Path, sink: impl Write) -> io::Result<()> {
    let mut writer = Writer::new(sink);
    for name in ["oci-layout", "index.json"] {
        add(&mut writer, folder, Path::new(name))?;
    }
    let mut blobs = Vec::new();
    for algorithm in ["sha256", "sha512"] {
        let place = Path::new("blobs").join(algorithm);
        let entries = match std::fs::read_dir(folder.join(&place)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries.take(MOST_FILES) {
            let entry = entry?;
            blobs.push((entry.metadata()?.len(), place.join(entry.file_name())));
        }
    }
    blobs.sort();
    blobs.iter().try_for_each(|(_, name)| add(&mut writer, folder, name))?;
    writer.finish()?.flush()
}

fn add(writer: &mut Writer<impl Write>, folder: &Path, name: &Path) -> io::Result<()> {
    let path: PathBuf = folder.join(name);
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let file = File::open(&path).map_err(named)?;
    let size = file.metadata().map_err(named)?.len();
    let metadata = Metadata { mode: 0o644, ..Metadata::private(0) };
    writer.file(name.as_os_str().as_encoded_bytes(), &metadata, size, file)
}

fn is_of_layout(name: &str) -> bool {
    let hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) && text.len() >= 64;
    let blob = name.strip_prefix("blobs/").and_then(|rest| rest.split_once('/'));
    matches!(name, "oci-layout" | "index.json" | "manifest.json")
        || blob.is_some_and(|(algorithm, digits)| matches!(algorithm, "sha256" | "sha512") && hex(digits))
}
