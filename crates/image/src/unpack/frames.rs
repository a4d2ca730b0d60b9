//! A Zstandard stream as its decoder reads it, watched for how much memory its frames need (RFC 8878, section 3.1).
//!
//! A frame says how far back it may refer, and its decoder keeps that much in memory. What usual tools write needs 8 MiB at most. Layers
//! that need more, which may be up to 128 MiB, are unpacked one after the other, however many are pulled: memory stays bounded.

use std::io::{self, BufRead, Read};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The window that every decoder must be able to have, by section 3.1.1.1.2.
const USUAL_WINDOW: u64 = 8 << 20;
const MAGIC: u32 = 0xfd2f_b528;
/// The first of sixteen magic numbers of frames to be skipped.
const SKIPPABLE: u32 = 0x184d_2a50;

/// What comes next in the stream.
enum Next {
    Frame,
    Block {
        checksum: bool,
    },
    /// It is no frame, which the decoder will say.
    Anything,
}

/// The stream.
pub(super) struct Frames<R> {
    packed: R,
    next: Next,
    /// Bytes that are handed on without being looked at.
    left: u64,
    /// Bytes that were looked at, and how many of them were handed on.
    head: Vec<u8>,
    given: usize,
    wide: Option<Wide>,
}

impl<R: BufRead> Frames<R> {
    pub(super) fn new(packed: R) -> Frames<R> {
        Frames { packed, next: Next::Frame, left: 0, head: Vec::new(), given: 0, wide: None }
    }

    pub(super) fn packed(&self) -> &R {
        &self.packed
    }

    pub(super) fn into_packed(self) -> R {
        self.packed
    }

    /// Looks at the next header.
    fn look(&mut self) -> io::Result<()> {
        (self.head, self.given) = (Vec::new(), 0);
        match self.next {
            Next::Frame => self.frame(),
            Next::Block { checksum } => self.block(checksum),
            Next::Anything => {
                self.left = u64::MAX;
                Ok(())
            }
        }
    }

    fn frame(&mut self) -> io::Result<()> {
        let magic = number(self.take(4)?);
        if magic & 0xffff_fff0 == u64::from(SKIPPABLE) {
            self.left = number(self.take(4)?);
            return Ok(());
        }
        if magic != u64::from(MAGIC) {
            self.next = Next::Anything;
            return Ok(());
        }
        let descriptor = number(self.take(1)?);
        let is_single = descriptor & 0x20 != 0;
        let mut window = if is_single { 0 } else { window(number(self.take(1)?)) };
        self.take([0, 1, 2, 4][(descriptor & 3) as usize])?;
        let size_length = match descriptor >> 6 {
            0 => usize::from(is_single),
            length => 1 << length,
        };
        let size = number(self.take(size_length)?);
        if is_single {
            // Of two bytes, the values below 256 are not used.
            window = if size_length == 2 { size + 256 } else { size };
        }
        if window > USUAL_WINDOW && self.wide.is_none() {
            self.wide = Some(Wide::acquire());
        }
        self.next = Next::Block { checksum: descriptor & 4 != 0 };
        Ok(())
    }

    fn block(&mut self, checksum: bool) -> io::Result<()> {
        let header = number(self.take(3)?);
        let is_repeated_byte = header >> 1 & 3 == 1;
        self.left = if is_repeated_byte { 1 } else { header >> 3 };
        if header & 1 == 1 {
            self.left += if checksum { 4 } else { 0 };
            self.next = Next::Frame;
        }
        Ok(())
    }

    /// Reads so many bytes more of a header, or fewer at the end of the stream, where the decoder will miss them.
    fn take(&mut self, length: usize) -> io::Result<&[u8]> {
        let before = self.head.len();
        (&mut self.packed).take(length as u64).read_to_end(&mut self.head)?;
        Ok(&self.head[before..])
    }
}

/// The number that little-endian bytes are.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The window that the byte of that name stands for.
fn window(byte: u64) -> u64 {
    let base = 1u64 << (10 + (byte >> 3));
    base + base / 8 * (byte & 7)
}

impl<R: BufRead> BufRead for Frames<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        // A block may be empty; a header never is, but at the end.
        if self.given == self.head.len() && self.left == 0 {
            self.look()?;
        }
        if self.given < self.head.len() {
            return Ok(&self.head[self.given..]);
        }
        let bytes = self.packed.fill_buf()?;
        Ok(&bytes[..bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX))])
    }

    fn consume(&mut self, length: usize) {
        if self.given < self.head.len() {
            self.given += length;
        } else {
            self.packed.consume(length);
            self.left = self.left.saturating_sub(length as u64);
        }
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let length = bytes.len().min(buffer.len());
        buffer[..length].copy_from_slice(&bytes[..length]);
        self.consume(length);
        Ok(length)
    }
}

static IS_TAKEN: Mutex<bool> = Mutex::new(false);
static FREED: Condvar = Condvar::new();

/// The right to a large window, of which there is one.
struct Wide;

impl Wide {
    fn acquire() -> Wide {
        let mut taken = lock();
        while *taken {
            taken = FREED.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
        *taken = true;
        Wide
    }
}

impl Drop for Wide {
    fn drop(&mut self) {
        *lock() = false;
        FREED.notify_one();
    }
}

fn lock() -> MutexGuard<'static, bool> {
    IS_TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn packed(bytes: &[u8], window_log: u32, checksum: bool, sized: bool) -> Vec<u8> {
        let mut packer = zstd::Encoder::new(Vec::new(), 1).unwrap();
        packer.window_log(window_log).unwrap();
        packer.include_checksum(checksum).unwrap();
        packer.include_contentsize(sized).unwrap();
        if sized {
            packer.set_pledged_src_size(Some(bytes.len() as u64)).unwrap();
        }
        packer.write_all(bytes).unwrap();
        packer.finish().unwrap()
    }

    /// What passes through, and whether a large window was wanted.
    fn watched(bytes: &[u8], step: usize) -> (Vec<u8>, bool) {
        let mut frames = Frames::new(io::BufReader::with_capacity(step, bytes));
        let mut all = Vec::new();
        frames.read_to_end(&mut all).unwrap();
        (all, frames.wide.is_some())
    }

    #[test]
    fn everything_passes_unchanged_and_wide_frames_are_noticed() {
        let text: Vec<u8> = (0..600_000u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
        let skippable = [&[0x53, 0x2a, 0x4d, 0x18, 5, 0, 0, 0][..], b"12345"].concat();
        let usual = [
            packed(&text, 21, true, true),
            skippable.clone(),
            packed(&text, 23, false, false),
            packed(b"", 10, true, true),
            packed(&text[..300], 19, false, true),
            skippable.clone(),
        ]
        .concat();
        let wide = [usual.as_slice(), &packed(&text, 24, true, false)].concat();
        for (bytes, is_wide) in [(&usual, false), (&wide, true)] {
            for step in [1, 7, 128 << 10] {
                let (all, noticed) = watched(bytes, step);
                assert!(all == *bytes, "step {step}");
                assert_eq!(noticed, is_wide, "step {step}");
            }
        }
        let unpacked = zstd::decode_all(Frames::new(&wide[..])).unwrap();
        assert_eq!(unpacked.len(), text.len() * 3 + 300);
    }

    #[test]
    fn what_is_no_frame_passes_too() {
        for bytes in [&b""[..], b"\x28", b"\x28\xb5\x2f\xfd", b"no frame at all", b"\x28\xb5\x2f\xfd\xff\xff"]
        {
            assert_eq!(watched(bytes, 3).0, bytes);
        }
    }

    #[test]
    fn windows_are_read_as_the_specification_has_it() {
        assert_eq!(window(0), 1 << 10);
        assert_eq!(window(13 << 3), 8 << 20);
        assert_eq!(window(13 << 3 | 1), 9 << 20);
    }
}
