//! Writes file system images in the EROFS format, which the kernel mounts read-only, as their contents arrive: in one sequence, with little in
//! memory, and without making an inode anywhere.
//!
//! The inodes of files are written between their data, so that of a file only its name is remembered; directories come at the end. The first
//! block, which has the superblock, is written last: until then it is no image. Nothing is compressed. An image is the same for the same calls.
//!
//! It is pure: the image goes to an [`Output`].

mod directories;
mod file;
mod format;
mod tree;
mod window;
mod writer;

use std::io;

pub use file::FileWriter;
pub use tree::Directory;
pub use writer::{Device, Finished, Found, Options, Writer};

/// Bytes of a block. The image is a number of them.
pub const BLOCK_SIZE: usize = format::BLOCK;

/// Where an image goes.
pub trait Output {
    /// Appends to what was written, the first time at the offset [`BLOCK_SIZE`].
    ///
    /// # Errors
    /// What the output says.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Reads what was appended. The offset is one in the image.
    ///
    /// # Errors
    /// What the output says.
    fn read_back(&mut self, offset: u64, to: &mut [u8]) -> io::Result<()>;
}

/// How an inode looks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits with set-id and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    /// Whole names, in the namespaces `user`, `trusted`, `security` and of POSIX ACLs, with values.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Attributes {
    /// Bytes on the heap.
    fn memory(&self) -> usize {
        self.xattrs.iter().map(|(name, value)| name.capacity() + value.capacity() + 48).sum()
    }
}

/// Why an image could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("{0}")]
    Output(io::Error),
    #[error("its names and directories take more than {limit} bytes of memory")]
    Memory { limit: usize },
    #[error("most of it was replaced by later entries: {dead} bytes of {all} would lie there for nothing")]
    Waste { dead: u64, all: u64 },
    #[error(
        "the extended attribute {name:?} does not fit: it is too large, or of a namespace that images have not"
    )]
    Attribute { name: String },
    #[error("a name is longer than 255 bytes, or a link longer than 4095")]
    Name,
    #[error("it is larger than 16 TiB")]
    TooLarge,
}
