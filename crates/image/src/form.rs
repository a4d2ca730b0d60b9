//! The forms that a layer has on disk, and the checksum of one that is a file.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rustix::fs::Advice;
use sys::file::begin_writeback;

use crate::checksum::Content;

/// How the name of a layer that is a file ends.
pub(crate) const ENDING: &str = ".erofs";
/// What recorded checksums of files begin with. A way of computing that gives another number has another one.
const KIND: &str = "file-1:";
const BLOCK: usize = erofs::BLOCK_SIZE;
/// So much of a file is sent on its way to the disk at once, while the next is unpacked.
pub(crate) const WRITEBACK: u64 = 8 << 20;

/// What a layer is on disk, which its name shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A directory, as overlayfs takes it.
    Directory,
    /// A directory of which copies are made, where overlayfs is not possible: what is to be gone may be marked in ways that it does not know.
    Tree,
    /// A file with an EROFS image, which is mounted first.
    Erofs,
}

impl Form {
    /// The form of the layer at `path`, which need not be there.
    pub(crate) fn of(path: &Path) -> Form {
        let ends = |form: Form| path.as_os_str().as_encoded_bytes().ends_with(form.ending().as_bytes());
        [Form::Erofs, Form::Tree].into_iter().find(|form| ends(*form)).unwrap_or(Form::Directory)
    }

    /// Whether what is at `path` is what its name says.
    pub(crate) fn is_at(path: &Path) -> bool {
        match Form::of(path) {
            Form::Directory | Form::Tree => path.is_dir(),
            Form::Erofs => path.is_file(),
        }
    }

    /// What the name of a layer of this form ends with.
    pub(crate) fn ending(self) -> &'static str {
        match self {
            Form::Directory => "",
            Form::Tree => ".tree",
            Form::Erofs => ENDING,
        }
    }
}

/// The checksum of a layer's file: of its blocks in the order in which they are written, that is, with the first one last. It notices
/// damage, as that of a directory does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileSum(u128);

impl FileSum {
    /// The sum that a record says, if it is of this kind.
    pub(crate) fn parse(text: &str) -> Option<FileSum> {
        u128::from_str_radix(text.strip_prefix(KIND)?, 16).ok().map(FileSum)
    }

    /// The sum of a file that is there, as far as the kernel lets go of what it has in memory read from the disk.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn of(file: File) -> io::Result<FileSum> {
        let mut first_block = [0; BLOCK];
        let mut buffer = vec![0; 256 << 10];
        let mut content = Content::new();
        let file: OwnedFd = file.into();
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
        let file: File = file.into();
        file.read_exact_at(&mut first_block, 0)?;
        let mut at = BLOCK as u64;
        loop {
            match file.read_at(&mut buffer, at) {
                Ok(0) => break,
                Ok(read) => {
                    content.update(&buffer[..read]);
                    at += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        content.update(&first_block);
        Ok(FileSum(content.finish()))
    }
}

impl fmt::Display for FileSum {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{KIND}{:032x}", self.0)
    }
}

/// A layer's file while it is written: what goes out is summed up.
pub(crate) struct LayerFile {
    file: File,
    end: u64,
    /// Up to where it is on its way to the disk.
    under_way: u64,
    content: Content,
}

impl LayerFile {
    pub(crate) fn new(file: File) -> LayerFile {
        let end = BLOCK as u64;
        LayerFile { file, end, under_way: end, content: Content::new() }
    }

    /// Writes the first block, with which it becomes an image, and gives its checksum and the bytes that it takes on disk.
    pub(crate) fn seal(mut self, first_block: &[u8; BLOCK]) -> io::Result<(FileSum, u64)> {
        self.file.write_all_at(first_block, 0)?;
        self.content.update(first_block);
        // Not everything may have its place yet.
        let stored = (self.file.metadata()?.blocks() * 512).max(self.end);
        Ok((FileSum(self.content.finish()), stored))
    }
}

impl erofs::Output for LayerFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.end)?;
        self.content.update(bytes);
        self.end += bytes.len() as u64;
        if self.end - self.under_way >= WRITEBACK {
            begin_writeback(self.file.as_fd(), self.under_way, self.end - self.under_way);
            self.under_way = self.end;
        }
        Ok(())
    }

    fn read_back(&mut self, offset: u64, to: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(to, offset)
    }
}
