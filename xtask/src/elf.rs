//! Just enough of an ELF file's headers to know how it is linked.

use anyhow::{Result, bail};

/// How an executable is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Linking {
    /// It needs an interpreter, hence shared libraries.
    pub(crate) dynamic: bool,
    /// It may be loaded anywhere.
    pub(crate) position_independent: bool,
}

const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const PT_INTERP: u32 = 3;

/// Reads a 64-bit little-endian executable, by elf(5).
pub(crate) fn linking(file: &[u8]) -> Result<Linking> {
    let field = |at: usize, length: usize| file.get(at..at + length);
    let u16_at = |at| field(at, 2).and_then(|bytes| bytes.try_into().ok()).map(u16::from_le_bytes);
    let u32_at = |at| field(at, 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
    let u64_at = |at| field(at, 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
    if field(0, 6) != Some(b"\x7fELF\x02\x01") {
        bail!("it is not a 64-bit little-endian ELF file");
    }
    let (Some(kind), Some(table), Some(size), Some(count)) = (u16_at(16), u64_at(32), u16_at(54), u16_at(56))
    else {
        bail!("its header is cut short");
    };
    let headers = (0..usize::from(count)).map(|index| u32_at(table as usize + index * usize::from(size)));
    let dynamic = headers.into_iter().any(|kind| kind == Some(PT_INTERP));
    match kind {
        ET_EXEC => Ok(Linking { dynamic, position_independent: false }),
        ET_DYN => Ok(Linking { dynamic, position_independent: true }),
        other => bail!("it is not an executable (type {other})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_is_an_executable() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        linking(&own).unwrap();
    }

    #[test]
    fn what_is_none_is_refused() {
        for bytes in
            [&b""[..], b"#!/bin/sh\n", b"\x7fELF\x02\x01", &[0x7f, b'E', b'L', b'F', 2, 1, 0, 0, 9, 9, 9]]
        {
            assert!(linking(bytes).is_err());
        }
    }
}
