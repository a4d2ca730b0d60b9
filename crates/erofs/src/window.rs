//! The part of the image that is being written: it goes out in one sequence of large pieces, and as long as a piece has not gone, what
//! is small fills the gaps that were left in it.

use crate::format::{BLOCK, INODE, SLOT};
use crate::{Error, Output};

/// How much is written at once.
const SIZE: usize = 1 << 20;

/// Free room at the end of a block.
#[derive(Debug, Clone, Copy)]
struct Gap {
    at: usize,
    length: usize,
}

#[derive(Debug)]
pub(crate) struct Window<O> {
    output: O,
    /// Where in the image the buffer begins: at a block. Its length is that of whole blocks.
    base: u64,
    buffer: Vec<u8>,
    gaps: Vec<Gap>,
}

impl<O: Output> Window<O> {
    /// The image from its second block on; the first is written last.
    pub(crate) fn new(output: O) -> Window<O> {
        Window { output, base: BLOCK as u64, buffer: Vec::with_capacity(SIZE + 2 * BLOCK), gaps: Vec::new() }
    }

    /// The offset in the image where the next block will be.
    pub(crate) fn end(&self) -> u64 {
        self.base + self.buffer.len() as u64
    }

    /// Zeros for up to `want` bytes at the end of the image, in whole blocks. They are at least one block.
    pub(crate) fn extend(&mut self, want: u64) -> Result<Place, Error> {
        self.flush_if_full()?;
        let room = SIZE.saturating_sub(self.buffer.len()).max(BLOCK);
        let length = usize::try_from(want).unwrap_or(room).min(room);
        let at = self.buffer.len();
        self.grow(length)?;
        Ok(Place { at, length })
    }

    /// Zeros for something that is not cut by the end of a block, or that begins at one if it is longer; inodes may be there.
    pub(crate) fn place(&mut self, length: usize) -> Result<Place, Error> {
        self.flush_if_full()?;
        let fitting = self.gaps.iter().enumerate().filter(|(_, gap)| gap.length >= length);
        let gap = match fitting.min_by_key(|(_, gap)| gap.length) {
            Some((index, _)) => self.gaps.swap_remove(index),
            None => {
                let at = self.buffer.len();
                self.grow(length)?;
                Gap { at, length: self.buffer.len() - at }
            }
        };
        let used = length.next_multiple_of(SLOT);
        let left = gap.length.saturating_sub(used);
        if left >= INODE {
            self.gaps.push(Gap { at: gap.at + used, length: left });
        }
        Ok(Place { at: gap.at, length })
    }

    /// The bytes of a place that was given last, or since which nothing else was asked for.
    pub(crate) fn bytes(&mut self, place: Place) -> &mut [u8] {
        &mut self.buffer[place.at..place.at + place.length]
    }

    /// Where a place is in the image.
    pub(crate) fn offset(&self, place: Place) -> u64 {
        self.base + place.at as u64
    }

    /// Zeros from `offset` on, which lies behind everything; what is between is left as it is.
    pub(crate) fn place_at(&mut self, offset: u64, length: usize) -> Result<Place, Error> {
        self.gaps.clear();
        let begun = usize::try_from(offset - self.base).unwrap_or(usize::MAX);
        if begun >= SIZE {
            // The block that it is in may have something in it already.
            let whole = (begun / BLOCK * BLOCK).min(self.buffer.len());
            self.output.append(&self.buffer[..whole]).map_err(Error::Output)?;
            self.base += whole as u64;
            self.buffer.drain(..whole);
        }
        let at = usize::try_from(offset - self.base).unwrap_or(usize::MAX);
        if at + length > self.buffer.len() {
            self.grow(at + length - self.buffer.len())?;
        }
        Ok(Place { at, length })
    }

    /// Reads what was written before.
    pub(crate) fn read_back(&mut self, offset: u64, to: &mut [u8]) -> Result<(), Error> {
        match offset.checked_sub(self.base) {
            // What is in the buffer begins and ends there: a place is given out whole.
            Some(at) => to.copy_from_slice(&self.buffer[at as usize..at as usize + to.len()]),
            None => self.output.read_back(offset, to).map_err(Error::Output)?,
        }
        Ok(())
    }

    /// Sends away what is there once it is enough. Places that were given before are gone then.
    fn flush_if_full(&mut self) -> Result<(), Error> {
        if self.buffer.len() >= SIZE { self.flush() } else { Ok(()) }
    }

    /// Writes the rest and gives the output back.
    pub(crate) fn finish(mut self) -> Result<O, Error> {
        self.flush()?;
        Ok(self.output)
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.output.append(&self.buffer).map_err(Error::Output)?;
        self.base += self.buffer.len() as u64;
        self.buffer.clear();
        self.gaps.clear();
        Ok(())
    }

    fn grow(&mut self, length: usize) -> Result<(), Error> {
        let length = (self.buffer.len() + length).next_multiple_of(BLOCK);
        // A block's address has 32 bits.
        if (self.base + length as u64) / BLOCK as u64 > u64::from(u32::MAX) {
            return Err(Error::TooLarge);
        }
        self.buffer.resize(length, 0);
        Ok(())
    }
}

/// Some bytes of the window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    at: usize,
    length: usize,
}

impl Place {
    /// The part of it after the first `by` bytes.
    pub(crate) fn after(self, by: usize) -> Place {
        let by = by.min(self.length);
        Place { at: self.at + by, length: self.length - by }
    }

    pub(crate) fn len(self) -> usize {
        self.length
    }

    pub(crate) fn is_empty(self) -> bool {
        self.length == 0
    }
}
