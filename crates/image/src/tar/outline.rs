//! The outline of an archive: all of it but the contents of its files. With the files it gives the archive back, byte for byte, so that
//! a layer that was unpacked can leave this machine under the digest that it came with.
//!
//! An outline is a zstd stream: a version, then pieces. A piece begins with a number (LEB128). If it is even, half of it is the length of
//! the bytes that follow, which stood in the archive. If it is odd, half of it is a number of runs of a file: there follow the length of
//! the file's path and the path as the archive has it, and of each run its offset in the file and its length.

use std::io::{self, Read, Write};

use zstd::stream::raw::CParameter;

/// The form's version.
const VERSION: u8 = 1;
/// Headers are alike, and the nearest ones the most: a higher level takes longer and saves little.
const LEVEL: i32 = 1;
/// What the encoder remembers, as an exponent: it is a part of what each layer that is unpacked takes in memory.
const WINDOW_LOG: u32 = 18;
/// Bytes that are gathered before they become a piece.
const LITERAL: usize = 32 << 10;
/// The largest outline, packed. Honest layers need some 15 bytes per entry.
const LARGEST: usize = 64 << 20;
/// The longest path that is read back: the longest that the reader takes.
const LONGEST_PATH: u64 = 1 << 20;

/// A finished outline.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Outline {
    /// Bytes of the archive.
    pub size: u64,
    /// The outline itself.
    #[serde(with = "in_base64")]
    pub packed: Vec<u8>,
}

/// Bytes as JSON can have them at a bearable length.
mod in_base64 {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// A run of a file: its offset and its length.
pub(crate) type Run = (u64, u64);

/// Makes an outline while an archive is read.
pub(crate) struct Recorder {
    /// None: it has become too large, and there will be no outline.
    encoder: Option<zstd::stream::write::Encoder<'static, Vec<u8>>>,
    literal: Vec<u8>,
    /// The file that contents belong to: its path, its stored parts if it has holes, and how many stored bytes were seen.
    file: (Vec<u8>, Option<Vec<Run>>, u64),
    size: u64,
}

impl Recorder {
    /// None if there is no memory for it.
    pub(crate) fn new() -> Option<Recorder> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), LEVEL).ok()?;
        encoder.set_parameter(CParameter::WindowLog(WINDOW_LOG)).ok()?;
        encoder.write_all(&[VERSION]).ok()?;
        Some(Recorder {
            encoder: Some(encoder),
            literal: Vec::with_capacity(LITERAL),
            file: (Vec::new(), None, 0),
            size: 0,
        })
    }

    /// Bytes that are no file's contents.
    pub(crate) fn literal(&mut self, bytes: &[u8]) {
        self.end_contents();
        self.size += bytes.len() as u64;
        if self.literal.len() + bytes.len() > LITERAL {
            self.flush();
        }
        match bytes.len() > LITERAL {
            true => self.piece(bytes),
            false => self.literal.extend_from_slice(bytes),
        }
    }

    /// What comes next as contents is this file's.
    pub(crate) fn file(&mut self, path: &[u8], parts: Option<&[Run]>) {
        self.end_contents();
        self.file.0.clear();
        self.file.0.extend_from_slice(path);
        self.file.1 = parts.map(<[Run]>::to_vec);
    }

    /// So many stored bytes of the file.
    pub(crate) fn contents(&mut self, length: u64) {
        self.size += length;
        self.file.2 += length;
    }

    /// The outline of all that was seen; none if it would be too large.
    pub(crate) fn finish(mut self) -> Option<Outline> {
        self.end_contents();
        self.flush();
        let packed = self.encoder?.finish().ok()?;
        (packed.len() <= LARGEST).then_some(Outline { size: self.size, packed })
    }

    fn end_contents(&mut self) {
        let seen = std::mem::take(&mut self.file.2);
        if seen == 0 {
            return;
        }
        self.flush();
        let runs = match &self.file.1 {
            None => vec![(0, seen)],
            Some(parts) => first(parts, seen),
        };
        let mut piece = Vec::with_capacity(self.file.0.len() + 32);
        number(&mut piece, (runs.len() as u64) << 1 | 1);
        number(&mut piece, self.file.0.len() as u64);
        piece.extend_from_slice(&self.file.0);
        for (offset, length) in runs {
            number(&mut piece, offset);
            number(&mut piece, length);
        }
        self.put(&piece);
    }

    fn flush(&mut self) {
        let literal = std::mem::take(&mut self.literal);
        if !literal.is_empty() {
            self.piece(&literal);
        }
        self.literal = literal;
        self.literal.clear();
    }

    fn piece(&mut self, bytes: &[u8]) {
        let mut length = Vec::with_capacity(10);
        number(&mut length, (bytes.len() as u64) << 1);
        self.put(&length);
        self.put(bytes);
    }

    fn put(&mut self, bytes: &[u8]) {
        let Some(encoder) = &mut self.encoder else { return };
        let written = encoder.write_all(bytes);
        if written.is_err() || encoder.get_ref().len() > LARGEST {
            self.encoder = None;
        }
    }
}

/// The first `length` bytes of some runs.
fn first(runs: &[Run], mut length: u64) -> Vec<Run> {
    let mut taken = Vec::new();
    for &(offset, run) in runs.iter().filter(|(_, run)| *run > 0) {
        let part = run.min(length);
        if part == 0 {
            break;
        }
        taken.push((offset, part));
        length -= part;
    }
    taken
}

fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A piece of an archive.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Literal(Vec<u8>),
    Contents { path: Vec<u8>, runs: Vec<Run> },
}

/// Reads an outline.
pub(crate) struct Pieces<R: Read> {
    stream: io::BufReader<R>,
}

impl<'a> Pieces<zstd::stream::read::Decoder<'static, io::BufReader<&'a [u8]>>> {
    /// # Errors
    /// It is no outline, or a newer release's.
    pub(crate) fn new(packed: &'a [u8]) -> io::Result<Self> {
        let mut stream = io::BufReader::with_capacity(64 << 10, zstd::stream::read::Decoder::new(packed)?);
        let mut version = [0];
        stream.read_exact(&mut version)?;
        match version {
            [VERSION] => Ok(Pieces { stream }),
            _ => Err(malformed("it has a form that a newer release wrote")),
        }
    }
}

impl<R: Read> Pieces<R> {
    /// The next piece; none at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Piece>> {
        let Some(head) = self.number()? else { return Ok(None) };
        let count = head >> 1;
        if head & 1 == 0 {
            return Ok(Some(Piece::Literal(self.bytes(count, 2 << 20)?)));
        }
        let length = self.needed()?;
        let path = self.bytes(length, LONGEST_PATH)?;
        let runs = (0..count).map(|_| Ok((self.needed()?, self.needed()?))).collect::<io::Result<_>>()?;
        Ok(Some(Piece::Contents { path, runs }))
    }

    fn bytes(&mut self, length: u64, most: u64) -> io::Result<Vec<u8>> {
        if length > most {
            return Err(malformed("a length in it is out of range"));
        }
        let mut bytes = vec![0; length as usize];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn needed(&mut self) -> io::Result<u64> {
        self.number()?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn number(&mut self) -> io::Result<Option<u64>> {
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let mut byte = [0];
            if self.stream.read(&mut byte)? == 0 {
                return if shift == 0 { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            if shift > 63 || (shift == 63 && byte[0] > 1) {
                return Err(malformed("a number in it is out of range"));
            }
            value |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] & 0x80 == 0 {
                return Ok(Some(value));
            }
            shift += 7;
        }
    }
}

fn malformed(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(packed: &[u8]) -> io::Result<Vec<Piece>> {
        let mut pieces = Pieces::new(packed)?;
        let mut found = Vec::new();
        while let Some(piece) = pieces.next()? {
            found.push(piece);
        }
        Ok(found)
    }

    #[test]
    fn pieces_come_back_in_order() {
        let mut recorder = Recorder::new().unwrap();
        recorder.literal(b"head");
        recorder.literal(b"er");
        recorder.file(b"a/b", None);
        recorder.contents(300);
        recorder.contents(4);
        recorder.literal(&[0; 208]);
        recorder.file(b"empty", None);
        recorder.literal(b"x");
        recorder.file(b"holes", Some(&[(10, 5), (100, 0), (200, 50)]));
        recorder.contents(25);
        recorder.literal(b"skipped");
        let outline = recorder.finish().unwrap();
        assert_eq!(outline.size, 6 + 304 + 208 + 1 + 25 + 7);
        let expected = [
            Piece::Literal(b"header".to_vec()),
            Piece::Contents { path: b"a/b".to_vec(), runs: vec![(0, 304)] },
            Piece::Literal([&[0; 208][..], b"x"].concat()),
            Piece::Contents { path: b"holes".to_vec(), runs: vec![(10, 5), (200, 20)] },
            Piece::Literal(b"skipped".to_vec()),
        ];
        assert_eq!(all(&outline.packed).unwrap(), expected);
    }

    #[test]
    fn what_is_no_outline_is_an_error() {
        assert!(all(b"").is_err());
        assert!(all(&zstd::encode_all(&b"\x02"[..], 1).unwrap()).is_err());
        assert!(all(&zstd::encode_all(&b"\x01\x09\x01a"[..], 1).unwrap()).is_err());
        assert!(all(&zstd::encode_all(&[&[1u8][..], &[0xfe; 11]].concat()[..], 1).unwrap()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = all(&zstd::encode_all(&[&[VERSION][..], &bytes].concat()[..], 1).unwrap());
        }
    }
}
