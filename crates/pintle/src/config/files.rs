//! Which files make up the configuration, and what is in them.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::error::Problem;

/// No configuration is as long as this; a device or a wrong file is.
const LIMIT: u64 = 1 << 20;

/// The file itself, then each `*.toml` of the folder `config.d` beside it, by name.
pub(super) fn all(main: &Path, must_exist: bool, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let mut files = Vec::new();
    match main.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !must_exist => {}
        // Any other trouble is told by reading it.
        _ => files.push(main.to_owned()),
    }
    let folder = main.with_file_name("config.d");
    match drop_ins(&folder) {
        Ok(more) => files.extend(more),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => problems.push(Problem::Unreadable { file: folder, why: error.to_string() }),
    }
    files
}

fn drop_ins(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The text of a file, without a byte order mark.
pub(super) fn text(file: &Path) -> Result<String, Box<Problem>> {
    let unreadable = |why: String| Box::new(Problem::Unreadable { file: file.to_owned(), why });
    let metadata = file.metadata().map_err(|error| unreadable(error.to_string()))?;
    // Opening a FIFO would wait for ever.
    if !metadata.is_file() {
        return Err(unreadable("it is not a regular file".into()));
    }
    let mut bytes = Vec::new();
    let open = File::open(file).and_then(|open| open.take(LIMIT + 1).read_to_end(&mut bytes));
    open.map_err(|error| unreadable(error.to_string()))?;
    if bytes.len() as u64 > LIMIT {
        return Err(Box::new(Problem::TooLong { file: file.to_owned(), limit: LIMIT }));
    }
    decode(bytes).map_err(|why| Box::new(Problem::NotText { file: file.to_owned(), why }))
}

fn decode(bytes: Vec<u8>) -> Result<String, String> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err("it begins like UTF-16".into());
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("line {line} has bytes that no character has")
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}
