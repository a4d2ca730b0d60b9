//! From the packed blob to the archive: gzip, zstd or neither, told by the first bytes, hashed on both sides.

use std::io::{self, BufReader, Chain, Cursor, Read, Write};

use model::digest::Digest;

use distribution::Hasher;

use super::frames::Frames;
use super::members::Members;
use super::{Counted, UnpackError};
use crate::config::Limits;

/// Large enough that a read costs nothing beside what is done with it.
const BUFFER: usize = 128 << 10;

/// Zstandard may ask for a window this large, as an exponent: 128 MiB, its own default limit.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// The packed stream with its first bytes, which were looked at, put back.
type Packed<R> = BufReader<Chain<Cursor<Vec<u8>>, Counted<R>>>;

enum Decoder<R: Read> {
    Plain(Box<Packed<R>>),
    Gzip(Box<Members<Packed<R>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Frames<Packed<R>>>>),
}

/// The archive as a stream.
pub(super) struct Archive<R: Read> {
    decoder: Decoder<R>,
    hasher: Hasher,
    count: u64,
    limits: Limits,
    /// Why reading ended, where it is not the archive's fault; an `io::Error` cannot carry it through the tar reader.
    exceeded: Option<UnpackError>,
    failure: Option<String>,
}

/// The digests of a stream that was read to its end.
pub(super) struct Finished {
    pub packed: Digest,
    pub packed_size: u64,
    pub archive: Digest,
}

/// Looks at the first bytes of a blob. The media type does not matter: the configuration says what has to come out.
pub(super) fn open<R: Read>(
    mut packed: Counted<R>,
    like: &Digest,
    limits: &Limits,
) -> Result<Archive<R>, UnpackError> {
    let mut magic = Vec::with_capacity(4);
    (&mut packed).take(4).read_to_end(&mut magic).map_err(|error| {
        if packed.failed { UnpackError::Aborted } else { UnpackError::Compression(error.to_string()) }
    })?;
    let is_gzip = magic.starts_with(&[0x1f, 0x8b]);
    let is_zstd = match magic.as_slice() {
        [0x28, 0xb5, 0x2f, 0xfd] => true,
        // A frame to be skipped, as tools for lazy pulling put in front.
        [first, 0x2a, 0x4d, 0x18] => first & 0xf0 == 0x50,
        _ => false,
    };
    let stream = BufReader::with_capacity(BUFFER, Cursor::new(magic).chain(packed));
    let decoder = if is_gzip {
        Decoder::Gzip(Box::new(Members::new(stream)))
    } else if is_zstd {
        let failed = |error: io::Error| UnpackError::Compression(error.to_string());
        let mut decoder = zstd::stream::read::Decoder::with_buffer(Frames::new(stream)).map_err(failed)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(failed)?;
        Decoder::Zstd(Box::new(decoder))
    } else {
        Decoder::Plain(Box::new(stream))
    };
    Ok(Archive {
        decoder,
        hasher: Hasher::like(like),
        count: 0,
        limits: limits.clone(),
        exceeded: None,
        failure: None,
    })
}

impl<R: Read> Archive<R> {
    /// Whether the stream below failed.
    pub(super) fn aborted(&self) -> bool {
        self.packed().is_some_and(|packed| packed.failed)
    }

    /// The reason for a failed read that the tar reader could only pass on as "something failed".
    pub(super) fn reason(&mut self) -> Option<UnpackError> {
        if self.aborted() {
            return Some(UnpackError::Aborted);
        }
        self.exceeded.take().or_else(|| self.failure.take().map(UnpackError::Compression))
    }

    /// Reads whatever is left into `rest`, and gives the digests.
    pub(super) fn finish(mut self, mut rest: impl Write) -> Result<Finished, UnpackError> {
        let read = io::copy(&mut self, &mut rest);
        if let Err(error) = read {
            return Err(self.reason().unwrap_or_else(|| UnpackError::Compression(error.to_string())));
        }
        let archive = self.hasher.finish();
        let stream = match self.decoder {
            Decoder::Plain(stream) => Some(*stream),
            Decoder::Gzip(members) => members.into_packed(),
            Decoder::Zstd(decoder) => Some(decoder.finish().into_packed()),
        };
        let Some(stream) = stream else {
            return Err(UnpackError::Compression("the stream ended between two members".into()));
        };
        let packed = stream.into_inner().into_inner().1;
        Ok(Finished { packed: packed.hasher.finish(), packed_size: packed.count, archive })
    }

    /// The packed stream; none between two members of one.
    fn packed(&self) -> Option<&Counted<R>> {
        let stream = match &self.decoder {
            Decoder::Plain(stream) => stream,
            Decoder::Gzip(members) => members.packed()?,
            Decoder::Zstd(decoder) => decoder.get_ref().packed(),
        };
        Some(stream.get_ref().get_ref().1)
    }

    /// Whether so much has come out that only a bomb has it.
    fn excess(&self) -> Option<UnpackError> {
        let limits = &self.limits;
        if self.count > limits.layer_bytes {
            return Some(UnpackError::TooLarge(limits.layer_bytes));
        }
        let packed = self.packed().map_or(1, |packed| packed.count.max(1));
        let bomb = self.count > limits.ratio_floor_bytes && self.count / packed > limits.ratio;
        bomb.then_some(UnpackError::Bomb(limits.ratio))
    }
}

impl<R: Read> Read for Archive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.decoder {
            Decoder::Plain(stream) => stream.read(buffer),
            Decoder::Gzip(decoder) => decoder.read(buffer),
            Decoder::Zstd(decoder) => decoder.read(buffer),
        };
        let read = match read {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                self.failure = Some(error.to_string());
                return Err(error);
            }
        };
        self.hasher.update(&buffer[..read]);
        self.count += read as u64;
        if let Some(excess) = self.excess() {
            let error = io::Error::other(excess.to_string());
            self.exceeded = Some(excess);
            return Err(error);
        }
        Ok(read)
    }
}
