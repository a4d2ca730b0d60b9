//! Reading tar archives: ustar, GNU and pax, in a stream and in bounded memory; and writing them. Pure: it knows no file system.
//!
//! Where formats contradict each other it does what Go's archive/tar does, since that wrote nearly every image: an archive must not
//! have two readings. A pax size counts for the entry it stands before; links, directories and devices have no data whatever they claim.

mod header;
pub(crate) mod outline;
mod pax;
mod reader;
mod sparse;
mod tap;
mod writer;

pub(crate) use reader::{Entry, Kind, Reader};
pub use writer::{Metadata, Writer};

use std::io;
use std::sync::Arc;

/// The longest pax or GNU long-name header that is read, as in Go.
const SPECIAL_MAX: u64 = 1 << 20;
const BLOCK: usize = 512;

/// What is wrong with an archive.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TarError {
    #[error("the archive ends in the middle of an entry")]
    Truncated,
    #[error("a header has a wrong checksum")]
    Checksum,
    #[error("the field {0} of a header is not a number in range")]
    Number(&'static str),
    #[error("a pax header has a malformed record")]
    Pax,
    #[error("an extended header is larger than 1 MiB")]
    SpecialTooLarge,
    #[error("the map of a sparse file is malformed")]
    Sparse,
    #[error("an entry has the type {0:?}, which is not known")]
    Kind(char),
    #[error("after one block of zeros comes something else than the end")]
    End,
    #[error("{0}")]
    Io(Arc<io::Error>),
}

impl From<io::Error> for TarError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => TarError::Truncated,
            _ => TarError::Io(Arc::new(error)),
        }
    }
}
