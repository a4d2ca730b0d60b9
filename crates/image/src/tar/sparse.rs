//! Which parts of a sparse file are stored: GNU's old header, and the three versions within pax.

use std::io::Read;

use super::header::number;
use super::pax::{SparseRecords, decimal};
use super::{BLOCK, TarError};

/// More parts than this no honest file has.
const PARTS_MAX: usize = 1 << 20;

/// Parts of a file that are stored, as offset and length, in order; between them are holes.
pub(super) type Parts = Vec<(u64, u64)>;

/// Checks that the parts are in order, do not overlap, lie within the file and are together what is stored.
pub(super) fn check(parts: Parts, real_size: u64, stored: u64) -> Result<Parts, TarError> {
    let (mut end, mut sum) = (0u64, 0u64);
    for &(offset, length) in &parts {
        let next = offset.checked_add(length).ok_or(TarError::Sparse)?;
        if offset < end || next > real_size {
            return Err(TarError::Sparse);
        }
        end = next;
        // Cannot overflow: it is at most `end`.
        sum += length;
    }
    if sum != stored {
        return Err(TarError::Sparse);
    }
    Ok(parts)
}

/// The parts of a header of type `S`, whose further blocks follow it in the stream.
pub(super) fn gnu(header: &[u8; BLOCK], stream: &mut impl Read) -> Result<Parts, TarError> {
    let mut parts = Parts::new();
    pairs(&header[386..482], &mut parts)?;
    let mut more = header[482] != 0;
    while more {
        let mut block = [0; BLOCK];
        stream.read_exact(&mut block)?;
        pairs(&block[..504], &mut parts)?;
        more = block[504] != 0;
    }
    Ok(parts)
}

fn pairs(bytes: &[u8], parts: &mut Parts) -> Result<(), TarError> {
    for pair in bytes.chunks_exact(24) {
        // An unused pair is all zeros; the end of the file may be marked by one with an offset and no length.
        if pair[0] == 0 {
            break;
        }
        let field = |range: std::ops::Range<usize>| {
            number(&pair[range]).and_then(|n| u64::try_from(n).ok()).ok_or(TarError::Sparse)
        };
        parts.push((field(0..12)?, field(12..24)?));
        if parts.len() > PARTS_MAX {
            return Err(TarError::Sparse);
        }
    }
    Ok(())
}

/// The parts that pax records name. For version 1.0 they stand at the beginning of the data; the second value says how much of it that was.
pub(super) fn pax(
    records: &SparseRecords,
    stream: &mut impl Read,
    size: u64,
) -> Result<(Parts, u64), TarError> {
    match (records.major, records.minor) {
        (Some(1), Some(0)) => in_data(stream, size),
        (None | Some(0), None | Some(0 | 1)) => {
            let map = records.map.as_deref().unwrap_or_default();
            if !map.len().is_multiple_of(2) || map.len() / 2 > PARTS_MAX {
                return Err(TarError::Sparse);
            }
            Ok((map.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect(), 0))
        }
        _ => Err(TarError::Sparse),
    }
}

/// A count and then numbers in pairs, each on its line, padded to a whole block.
fn in_data(stream: &mut impl Read, size: u64) -> Result<(Parts, u64), TarError> {
    let mut lines = Lines { stream, block: [0; BLOCK], at: BLOCK, taken: 0, size };
    let count = usize::try_from(lines.next()?).map_err(|_| TarError::Sparse)?;
    if count > PARTS_MAX {
        return Err(TarError::Sparse);
    }
    // Grown as it is read, not by what the archive claims.
    let mut parts = Parts::new();
    for _ in 0..count {
        let offset = lines.next()?;
        parts.push((offset, lines.next()?));
    }
    Ok((parts, lines.taken))
}

struct Lines<'a, R> {
    stream: &'a mut R,
    block: [u8; BLOCK],
    at: usize,
    taken: u64,
    size: u64,
}

impl<R: Read> Lines<'_, R> {
    fn next(&mut self) -> Result<u64, TarError> {
        let mut digits = Vec::with_capacity(20);
        loop {
            if self.at == BLOCK {
                if self.taken + BLOCK as u64 > self.size {
                    return Err(TarError::Sparse);
                }
                self.stream.read_exact(&mut self.block)?;
                self.taken += BLOCK as u64;
                self.at = 0;
            }
            let byte = self.block[self.at];
            self.at += 1;
            match byte {
                b'\n' => return decimal(&digits).map_err(|_| TarError::Sparse),
                _ if digits.len() < 20 => digits.push(byte),
                _ => return Err(TarError::Sparse),
            }
        }
    }
}
