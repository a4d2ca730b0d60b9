//! What can be made to go wrong with one answer.

use std::time::Duration;

/// A fault of one answer.
#[derive(Debug, Clone)]
pub enum Fault {
    /// This status with these headers and this body, whatever was asked.
    Answer { status: u16, headers: Vec<(String, String)>, body: Vec<u8> },
    /// The right answer with one bit of the body turned over.
    Corrupt,
    /// The right headers, then only so many bytes of the body, then the connection closes.
    Truncate(usize),
    /// The right headers and so many bytes, then nothing more for ever.
    Stall(usize),
    /// The right answer, so many bytes at a time with a pause between them.
    Trickle { bytes: usize, pause: Duration },
    /// The whole body from its beginning, although a range was asked for.
    IgnoreRange,
    /// Nothing at all: the connection closes before the answer.
    HangUp,
}

impl Fault {
    /// An answer with only a status.
    pub fn status(status: u16) -> Fault {
        Fault::Answer { status, headers: Vec::new(), body: Vec::new() }
    }

    /// A temporary redirect.
    pub fn redirect(to: &str) -> Fault {
        Fault::Answer { status: 307, headers: vec![("Location".into(), to.into())], body: Vec::new() }
    }
}
