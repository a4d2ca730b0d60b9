//! The records of a pax header.

use super::TarError;

/// The records that stand before one entry.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<i64>,
    pub gid: Option<i64>,
    pub mtime: Option<(i64, u32)>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: SparseRecords,
}

/// What GNU tar says of sparse files, in its three versions.
#[derive(Debug, Default)]
pub(super) struct SparseRecords {
    pub major: Option<u64>,
    pub minor: Option<u64>,
    pub name: Option<Vec<u8>>,
    /// `realsize` or `size`.
    pub real_size: Option<u64>,
    /// Offsets and lengths in turn, of versions 0.0 and 0.1.
    pub map: Option<Vec<u64>>,
}

const XATTR: &[u8] = b"SCHILY.xattr.";

impl Pax {
    /// Takes the body of a header of type `x`.
    pub(super) fn parse(mut body: &[u8]) -> Result<Pax, TarError> {
        let mut pax = Pax::default();
        while !body.is_empty() {
            let space = body.iter().take(20).position(|&b| b == b' ').ok_or(TarError::Pax)?;
            let length = usize::try_from(decimal(&body[..space])?).map_err(|_| TarError::Pax)?;
            if length <= space + 1 || length > body.len() || body[length - 1] != b'\n' {
                return Err(TarError::Pax);
            }
            let record = &body[space + 1..length - 1];
            let equals = record.iter().position(|&b| b == b'=').ok_or(TarError::Pax)?;
            pax.take(&record[..equals], &record[equals + 1..])?;
            body = &body[length..];
        }
        Ok(pax)
    }

    /// A later record replaces an earlier one; an empty value takes it back.
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarError> {
        if key.is_empty() || key.contains(&0) {
            return Err(TarError::Pax);
        }
        if let Some(name) = key.strip_prefix(XATTR) {
            self.xattrs.retain(|(known, _)| known != name);
            self.xattrs.push((name.to_vec(), value.to_vec()));
            return Ok(());
        }
        let text = || if value.contains(&0) { Err(TarError::Pax) } else { Ok(value.to_vec()) };
        let unsigned = || if value.is_empty() { Ok(None) } else { decimal(value).map(Some) };
        match key {
            b"path" => self.path = Some(text()?).filter(|v| !v.is_empty()),
            b"linkpath" => self.link = Some(text()?).filter(|v| !v.is_empty()),
            b"size" => self.size = unsigned()?,
            b"uid" => self.uid = unsigned()?.map(signed).transpose()?,
            b"gid" => self.gid = unsigned()?.map(signed).transpose()?,
            b"mtime" => self.mtime = if value.is_empty() { None } else { Some(time(value)?) },
            b"GNU.sparse.major" => self.sparse.major = unsigned()?,
            b"GNU.sparse.minor" => self.sparse.minor = unsigned()?,
            b"GNU.sparse.name" => self.sparse.name = Some(text()?).filter(|v| !v.is_empty()),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.sparse.real_size = unsigned()?,
            // Version 0.0 repeats this pair of keys, the one place where a record does not replace an earlier one.
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                let map = self.sparse.map.get_or_insert_default();
                if map.len().is_multiple_of(2) != (key == b"GNU.sparse.offset") {
                    return Err(TarError::Sparse);
                }
                map.push(decimal(value)?);
            }
            b"GNU.sparse.map" => {
                let map: Result<Vec<u64>, _> = value.split(|&b| b == b',').map(decimal).collect();
                self.sparse.map = Some(map.map_err(|_| TarError::Sparse)?);
            }
            _ => {}
        }
        Ok(())
    }
}

fn signed(value: u64) -> Result<i64, TarError> {
    i64::try_from(value).map_err(|_| TarError::Pax)
}

/// Decimal digits and nothing else.
pub(super) fn decimal(text: &[u8]) -> Result<u64, TarError> {
    if text.is_empty() {
        return Err(TarError::Pax);
    }
    text.iter()
        .try_fold(0u64, |value, &digit| match digit {
            b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
            _ => None,
        })
        .ok_or(TarError::Pax)
}

/// Seconds with a fraction: `-1.5` is one and a half seconds before 1970, hence -2 s and 500,000,000 ns.
fn time(text: &[u8]) -> Result<(i64, u32), TarError> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |&b| b == b'.');
    let seconds = signed(decimal(parts.next().unwrap_or(b""))?)?;
    let mut nanoseconds = 0u32;
    if let Some(fraction) = parts.next() {
        if !fraction.iter().all(u8::is_ascii_digit) {
            return Err(TarError::Pax);
        }
        for place in 0..9 {
            nanoseconds = nanoseconds * 10 + u32::from(fraction.get(place).map_or(0, |digit| digit - b'0'));
        }
    }
    Ok(match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_by_their_length() {
        let pax = Pax::parse(b"13 path=a\nb=\n17 SCHILY.xattr.=\n").unwrap_err();
        assert!(matches!(pax, TarError::Pax));
        let pax = Pax::parse(b"12 path=a\nb\n20 mtime=1.250000000\n").unwrap_err();
        assert!(matches!(pax, TarError::Pax), "the second length is wrong");
        let pax = Pax::parse(b"12 path=a\nb\n15 mtime=-1.25\n10 size=7\n").unwrap();
        assert_eq!(pax.path.unwrap(), b"a\nb");
        assert_eq!(pax.mtime, Some((-2, 750_000_000)));
        assert_eq!(pax.size, Some(7));
    }

    #[test]
    fn malformed_records_are_refused() {
        for body in [
            &b"5 a=b"[..],
            b"6 a=b\nx",
            b"99 path=x\n",
            b"0 path=x\n",
            b"-1 path=x\n",
            b"x path=x\n",
            b"10 path-xx\n",
            b"11 path=x\0y\n",
            b"11 size=-12\n",
            b"34 size=99999999999999999999999\n",
        ] {
            assert!(Pax::parse(body).is_err(), "{:?}", String::from_utf8_lossy(body));
        }
    }
}
