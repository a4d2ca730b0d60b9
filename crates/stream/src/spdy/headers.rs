//! Header blocks: names and values, compressed with one state per direction for the life of a connection.

use std::sync::LazyLock;

use bytes::{Buf, BufMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::dictionary::dictionary;
use super::frame::Broken;

static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(dictionary);

/// What a header block may be at most when it is inflated. A client's has a few hundred bytes.
pub(crate) const MAX_BLOCK: usize = 64 * 1024;
/// How much a block is inflated by at a time.
const STEP: usize = 4 * 1024;

/// The headers of a stream. Names are in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Headers(pub(crate) Vec<(Vec<u8>, Vec<u8>)>);

impl Headers {
    /// The (first) value of a header, if it is text.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes()))?;
        let first = value.split(|byte| *byte == 0).next()?;
        std::str::from_utf8(first).ok()
    }

    fn parse(mut block: &[u8]) -> Result<Headers, Broken> {
        let count = block.try_get_u32().map_err(|_| Broken::Headers)?;
        let mut found: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for _ in 0..count {
            let name = text(&mut block)?;
            let value = text(&mut block)?;
            if name.is_empty() || found.iter().any(|(known, _)| known == name) {
                return Err(Broken::Headers);
            }
            found.push((name.to_vec(), value.to_vec()));
        }
        if block.is_empty() { Ok(Headers(found)) } else { Err(Broken::Headers) }
    }
}

/// A length and as many bytes.
fn text<'a>(block: &mut &'a [u8]) -> Result<&'a [u8], Broken> {
    let length = block.try_get_u32().map_err(|_| Broken::Headers)? as usize;
    let (text, rest) = block.split_at_checked(length).ok_or(Broken::Headers)?;
    *block = rest;
    Ok(text)
}

/// The state of the direction from the client.
pub(crate) struct Inflater(Decompress);

impl Inflater {
    pub(crate) fn new() -> Inflater {
        Inflater(Decompress::new(true))
    }

    /// The headers in the next block.
    pub(crate) fn headers(&mut self, compressed: &[u8]) -> Result<Headers, Broken> {
        Headers::parse(&self.inflate(compressed)?)
    }

    fn inflate(&mut self, mut input: &[u8]) -> Result<Vec<u8>, Broken> {
        let mut block = Vec::new();
        loop {
            if block.len() >= MAX_BLOCK {
                return Err(Broken::BlockTooLarge);
            }
            block.reserve_exact(STEP);
            let (read, written) = (self.0.total_in(), self.0.total_out());
            let room = block.capacity();
            match self.0.decompress_vec(input, &mut block, FlushDecompress::Sync) {
                Ok(Status::Ok | Status::BufError) => {}
                // A connection's compressed stream has no end.
                Ok(Status::StreamEnd) => return Err(Broken::Compression),
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&DICTIONARY).map_err(|_| Broken::Compression)?;
                }
                Err(_) => return Err(Broken::Compression),
            }
            input = &input[(self.0.total_in() - read) as usize..];
            let stuck = self.0.total_in() == read && self.0.total_out() == written;
            if input.is_empty() && (block.len() < room || stuck) {
                return Ok(block);
            }
            if stuck && block.len() < room {
                return Err(Broken::Compression);
            }
        }
    }
}

/// The state of the direction to the client.
pub(crate) struct Deflater(Compress);

impl Deflater {
    pub(crate) fn new() -> Deflater {
        let mut compress = Compress::new(Compression::fast(), true);
        // It fails in the middle of a stream only.
        let _checksum = compress.set_dictionary(&DICTIONARY);
        Deflater(compress)
    }

    /// The next block, compressed.
    pub(crate) fn headers(&mut self, headers: &Headers) -> Vec<u8> {
        let mut block = Vec::new();
        block.put_u32(headers.0.len() as u32);
        for (name, value) in &headers.0 {
            for text in [name, value] {
                block.put_u32(text.len() as u32);
                block.put_slice(text);
            }
        }
        let mut input = &block[..];
        let mut compressed = Vec::new();
        loop {
            compressed.reserve(STEP);
            let read = self.0.total_in();
            let room = compressed.capacity();
            let outcome = self.0.compress_vec(input, &mut compressed, FlushCompress::Sync);
            input = &input[(self.0.total_in() - read) as usize..];
            if outcome.is_err() || (input.is_empty() && compressed.len() < room) {
                return compressed;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        Headers(
            pairs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect(),
        )
    }

    #[test]
    fn blocks_share_one_state_in_each_direction() {
        let (mut deflater, mut inflater) = (Deflater::new(), Inflater::new());
        for round in 0..50 {
            let sent = headers(&[("streamtype", "data"), ("port", "80"), ("requestid", &round.to_string())]);
            assert_eq!(inflater.headers(&deflater.headers(&sent)), Ok(sent));
        }
        let empty = deflater.headers(&Headers::default());
        assert!(empty.len() < 20, "{}", empty.len());
        assert_eq!(inflater.headers(&empty), Ok(Headers::default()));
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_large() {
        let (mut deflater, mut inflater) = (Deflater::new(), Inflater::new());
        let bomb = deflater.headers(&headers(&[("a", &"x".repeat(16 << 20))]));
        assert!(bomb.len() < 200_000, "{}", bomb.len());
        assert_eq!(inflater.headers(&bomb), Err(Broken::BlockTooLarge));
    }

    #[test]
    fn exactly_what_fits_passes() {
        for size in [STEP, 2 * STEP, MAX_BLOCK - 1] {
            let (mut deflater, mut inflater) = (Deflater::new(), Inflater::new());
            let sent = headers(&[("a", &"x".repeat(size - 13))]);
            assert_eq!(inflater.headers(&deflater.headers(&sent)), Ok(sent));
        }
    }

    #[test]
    fn a_value_may_be_a_list() {
        assert_eq!(headers(&[("a", "x\0y")]).get("A"), Some("x"));
        assert_eq!(headers(&[("a", "x\0y")]).get("b"), None);
    }
}
