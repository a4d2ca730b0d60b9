//! Header blocks: names and values, compressed with one state per direction for the life of a connection.

use std::sync::LazyLock;

use bytes::{Buf, BufMut};
use flate2::{Decompress, FlushDecompress, Status};

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

/// The state of the direction to the client. Its blocks are few and empty, so they are stored as they are: a compressor's state would be
/// the largest part of a connection.
#[derive(Default)]
pub(crate) struct Deflater {
    begun: bool,
}

impl Deflater {
    /// The next block, without any headers.
    pub(crate) fn empty(&mut self) -> Vec<u8> {
        let mut block = Vec::with_capacity(16);
        if !self.begun {
            // The head of a zlib stream that needs no dictionary (RFC 1950).
            block.put_u16(0x7801);
            self.begun = true;
        }
        // A stored block of four bytes (RFC 1951, section 3.2.4), which say that there are no headers.
        block.put_u8(0);
        block.put_u16_le(4);
        block.put_u16_le(!4);
        block.put_u32(0);
        // And an empty one, with which a compressor ends what is to be read at once; Go's waits for it.
        block.put_u8(0);
        block.put_u16_le(0);
        block.put_u16_le(!0);
        block
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compress, Compression, FlushCompress};

    use super::*;

    /// As a client compresses, with the dictionary.
    struct Client(Compress);

    impl Client {
        fn new() -> Client {
            let mut compress = Compress::new(Compression::best(), true);
            compress.set_dictionary(&DICTIONARY).unwrap();
            Client(compress)
        }

        fn headers(&mut self, headers: &Headers) -> Vec<u8> {
            let mut block = (headers.0.len() as u32).to_be_bytes().to_vec();
            for text in headers.0.iter().flat_map(|(name, value)| [name, value]) {
                block.extend((text.len() as u32).to_be_bytes());
                block.extend(text);
            }
            let mut compressed = Vec::with_capacity(block.len() / 64 + 1024);
            self.0.compress_vec(&block, &mut compressed, FlushCompress::Sync).unwrap();
            assert!(compressed.len() < compressed.capacity(), "all of it");
            compressed
        }
    }

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        Headers(
            pairs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect(),
        )
    }

    #[test]
    fn blocks_share_one_state() {
        let (mut deflater, mut inflater) = (Client::new(), Inflater::new());
        for round in 0..50 {
            let sent = headers(&[("streamtype", "data"), ("port", "80"), ("requestid", &round.to_string())]);
            assert_eq!(inflater.headers(&deflater.headers(&sent)), Ok(sent));
        }
    }

    #[test]
    fn our_blocks_are_read_by_zlib() {
        let (mut deflater, mut inflater) = (Deflater::default(), Inflater::new());
        for _ in 0..5 {
            let block = deflater.empty();
            assert!(block.ends_with(&[0, 0, 0, 0xff, 0xff]));
            assert_eq!(inflater.headers(&block), Ok(Headers::default()));
        }
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_large() {
        let (mut deflater, mut inflater) = (Client::new(), Inflater::new());
        let bomb = deflater.headers(&headers(&[("a", &"x".repeat(16 << 20))]));
        assert!(bomb.len() < 200_000, "{}", bomb.len());
        assert_eq!(inflater.headers(&bomb), Err(Broken::BlockTooLarge));
    }

    #[test]
    fn exactly_what_fits_passes() {
        for size in [STEP, 2 * STEP, MAX_BLOCK - 1] {
            let (mut deflater, mut inflater) = (Client::new(), Inflater::new());
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
