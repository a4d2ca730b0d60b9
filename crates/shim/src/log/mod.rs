//! A container's log in the format the kubelet reads (CRI): one record a line, whole records only, cut at 16 KiB.

mod file;
mod record;
mod timestamp;

pub use file::{LogFile, OpenLogError};
pub use record::{MAX_CONTENT, Record, Rest, Tag, finish, split};
pub use timestamp::{STAMP_BYTES, stamp};

use std::io::IoSlice;

/// Which of a container's outputs a record came from. A terminal has only `Stdout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static [u8; 6] {
        match self {
            Stream::Stdout => b"stdout",
            Stream::Stderr => b"stderr",
        }
    }
}

/// The part of a line that has arrived on one stream and is not in the file yet. It outlives a reopening of the file.
#[derive(Debug)]
pub struct Line {
    stream: Stream,
    terminal: bool,
    held: Vec<u8>,
}

impl Line {
    pub fn new(stream: Stream, terminal: bool) -> Line {
        Line { stream, terminal, held: Vec::new() }
    }

    /// Writes the records that `bytes` complete to `file`, stamped with `now_ns` (nanoseconds since 1970).
    pub fn feed(&mut self, bytes: &[u8], now_ns: i64, file: &mut LogFile) {
        let held = std::mem::take(&mut self.held);
        let mut batch = Batch::new(self.stream, now_ns, file);
        let rest = split(&held, bytes, self.terminal, |record| batch.push(record));
        batch.flush();
        self.held = rest.join(held, bytes);
    }

    /// The stream has ended: what is held becomes a last, partial record.
    pub fn finish(&mut self, now_ns: i64, file: &mut LogFile) {
        let held = std::mem::take(&mut self.held);
        let mut batch = Batch::new(self.stream, now_ns, file);
        finish(&held, |record| batch.push(record));
        batch.flush();
    }
}

/// Slices of one record: prefix, the held part, the new part, the newline.
const SLICES: usize = 4;
/// Records that go into one write.
const RECORDS: usize = 64;
const PREFIX_BYTES: usize = STAMP_BYTES + 10;

/// Gathers records for one write.
struct Batch<'a, 'f> {
    full: [u8; PREFIX_BYTES],
    partial: [u8; PREFIX_BYTES],
    records: [Record<'a>; RECORDS],
    used: usize,
    file: &'f mut LogFile,
}

impl<'a, 'f> Batch<'a, 'f> {
    fn new(stream: Stream, now_ns: i64, file: &'f mut LogFile) -> Batch<'a, 'f> {
        let mut full = [b' '; PREFIX_BYTES];
        full[..STAMP_BYTES].copy_from_slice(&stamp(file.monotone(now_ns)));
        full[STAMP_BYTES + 1..STAMP_BYTES + 7].copy_from_slice(stream.name());
        let mut partial = full;
        full[PREFIX_BYTES - 2] = b'F';
        partial[PREFIX_BYTES - 2] = b'P';
        Batch { full, partial, records: [Record::EMPTY; RECORDS], used: 0, file }
    }

    fn push(&mut self, record: Record<'a>) {
        self.records[self.used] = record;
        self.used += 1;
        if self.used == RECORDS {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let mut slices = [IoSlice::new(&[]); SLICES * RECORDS];
        let records = &self.records[..self.used];
        for (record, slices) in records.iter().zip(slices.chunks_exact_mut(SLICES)) {
            let prefix = match record.tag {
                Tag::Full => &self.full,
                Tag::Partial => &self.partial,
            };
            slices[0] = IoSlice::new(prefix);
            slices[1] = IoSlice::new(record.head);
            slices[2] = IoSlice::new(record.body);
            slices[3] = IoSlice::new(b"\n");
        }
        if self.used > 0 {
            self.file.append(&slices[..self.used * SLICES], SLICES);
        }
        self.used = 0;
    }
}

#[cfg(test)]
mod tests;
