//! What can be made to go wrong with one answer, and with which: plain data.

use std::time::Duration;

use bytes::Bytes;

use crate::Asked;

/// A fault of one answer.
#[derive(Debug, Clone)]
pub enum Fault {
    /// This status with these headers and this body, whatever was asked.
    Answer { status: u16, headers: Vec<(String, String)>, body: Vec<u8> },
    /// The right answer, with these headers in place of its own: a lie about type, length, range or digest.
    Headers(Vec<(String, String)>),
    /// The right headers, and the bytes of something else. Of a range of it, what lies there in that.
    Body(Bytes),
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
    /// Status 200, and a body of blanks that never ends.
    Endless,
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

    /// Too many requests, or too much to do; `retry_after` is a number of seconds or a date of HTTP.
    pub fn busy(status: u16, retry_after: &str) -> Fault {
        let headers = vec![("Retry-After".into(), retry_after.into())];
        Fault::Answer { status, headers, body: Vec::new() }
    }

    /// The right answer with another value of one header.
    pub fn header(name: &str, value: &str) -> Fault {
        Fault::Headers(vec![(name.into(), value.into())])
    }

    /// A page for people, as portals that want a login send it.
    pub fn page(body: &str) -> Fault {
        let headers = vec![("Content-Type".into(), "text/html".into())];
        Fault::Answer { status: 200, headers, body: body.into() }
    }
}

/// Which answers a fault spoils.
#[derive(Debug, Clone)]
pub struct Rule {
    /// What path or query have in them.
    pub target: String,
    /// Only the first so many answers to each target.
    pub first: usize,
    pub fault: Fault,
}

impl Rule {
    /// Spoils every answer to targets that contain `target`.
    pub fn always(target: &str, fault: Fault) -> Rule {
        Rule::first(usize::MAX, target, fault)
    }

    /// Spoils the first `first` answers to each target that contains `target`.
    pub fn first(first: usize, target: &str, fault: Fault) -> Rule {
        Rule { target: target.to_owned(), first, fault }
    }

    pub(crate) fn spoils(&self, asked: &Asked) -> bool {
        asked.before < self.first && asked.target.contains(&self.target)
    }
}
