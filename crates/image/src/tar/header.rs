//! One block of 512 bytes as a header.

use super::{BLOCK, TarError};

/// A header's block with its checksum verified.
pub(super) struct Header<'a>(pub &'a [u8; BLOCK]);

impl<'a> Header<'a> {
    /// Takes a block if its checksum is right, with bytes summed as unsigned or, as old programs did, as signed.
    pub(super) fn parse(block: &'a [u8; BLOCK]) -> Result<Header<'a>, TarError> {
        let stored = number(&block[148..156]).ok_or(TarError::Checksum)?;
        let bytes = || block.iter().enumerate().map(|(i, &b)| if (148..156).contains(&i) { b' ' } else { b });
        let unsigned: i64 = bytes().map(i64::from).sum();
        let signed: i64 = bytes().map(|b| i64::from(b as i8)).sum();
        if stored != unsigned && stored != signed {
            return Err(TarError::Checksum);
        }
        Ok(Header(block))
    }

    pub(super) fn kind(&self) -> u8 {
        self.0[156]
    }

    /// The name with the prefix that ustar and star split off.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = match (&self.0[257..263], &self.0[263..265]) {
            (b"ustar\0", b"00") if &self.0[508..512] == b"tar\0" => text(&self.0[345..476]),
            (b"ustar\0", _) => text(&self.0[345..500]),
            _ => b"",
        };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    pub(super) fn number(&self, field: Field) -> Result<i64, TarError> {
        let (name, range) = match field {
            Field::Mode => ("mode", 100..108),
            Field::Uid => ("uid", 108..116),
            Field::Gid => ("gid", 116..124),
            Field::Size => ("size", 124..136),
            Field::Mtime => ("mtime", 136..148),
            Field::Major => ("devmajor", 329..337),
            Field::Minor => ("devminor", 337..345),
            Field::RealSize => ("realsize", 483..495),
        };
        number(&self.0[range]).ok_or(TarError::Number(name))
    }

    /// Whether fields after the link's name exist: the oldest format ends there.
    pub(super) fn has_devices(&self) -> bool {
        &self.0[257..262] == b"ustar"
    }
}

#[derive(Clone, Copy)]
pub(super) enum Field {
    Mode,
    Uid,
    Gid,
    Size,
    Mtime,
    Major,
    Minor,
    /// Of GNU sparse files.
    RealSize,
}

/// Up to the first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|&b| b == 0).next().unwrap_or(b"")
}

/// Octal digits between blanks and NULs, or, with the highest bit set, a big-endian number in two's complement.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        let negative = first & 0x40 != 0;
        let mut value: i128 = if negative { -1 } else { 0 };
        for (i, &byte) in field.iter().enumerate() {
            let byte = match (i, negative) {
                (0, false) => byte & 0x7f,
                _ => byte,
            };
            value = (value << 8) | i128::from(byte);
            if value > i128::from(i64::MAX) || value < i128::from(i64::MIN) {
                return None;
            }
        }
        return i64::try_from(value).ok();
    }
    let is_blank = |b: &u8| *b == b' ' || *b == 0;
    let start = field.iter().position(|b| !is_blank(b)).unwrap_or(field.len());
    let digits = field[start..].split(is_blank).next().unwrap_or(b"");
    digits.iter().try_fold(0i64, |value, &digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_both_kinds() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"00006x4\0"), None);
        assert_eq!(number(b"-000644\0"), None);
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 1, 0]), Some(256));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(number(&[0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(number(b"77777777777\0"), Some(0o77777777777));
    }
}
