//! The entries of an archive one after the other.

use std::io::{self, Read};

use super::header::{Field, Header};
use super::outline::Recorder;
use super::pax::Pax;
use super::tap::Tap;
use super::{BLOCK, SPECIAL_MAX, TarError, header, sparse};

/// What an entry makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    Character,
    Block,
    Directory,
    Fifo,
}

/// An entry. Nothing in it is checked beyond its form: names are what the archive says.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub path: Vec<u8>,
    pub kind: Kind,
    /// Permission bits with set-id and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    pub link: Vec<u8>,
    pub device: (u32, u32),
    /// Of the file as it will be, with its holes.
    pub size: u64,
    /// The stored parts of a sparse file; none: the whole is stored.
    pub parts: Option<Vec<(u64, u64)>>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Reads an archive from a stream, which should be buffered.
pub(crate) struct Reader<R> {
    stream: Tap<R>,
    /// Stored bytes of the present entry that were not read yet, and the padding after them.
    left: u64,
    padding: u64,
}

impl<R: Read> Reader<R> {
    pub(crate) fn new(stream: R) -> Self {
        Reader::recorded(stream, None)
    }

    /// The same with the archive taken down: as contents, what is read with [`Reader::read_data`], and literally all else.
    pub(crate) fn recorded(stream: R, recorder: Option<Recorder>) -> Self {
        Reader { stream: Tap::new(stream, recorder), left: 0, padding: 0 }
    }

    /// The recorder, after the last entry. What follows it in the stream was not seen.
    pub(crate) fn into_recorder(self) -> Option<Recorder> {
        self.stream.into_recorder()
    }

    /// The next entry; none at the end. What was not read of the entry before is skipped.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, TarError> {
        let mut pax = Pax::default();
        let (mut long_name, mut long_link) = (None, None);
        loop {
            self.skip()?;
            let mut block = [0; BLOCK];
            if !self.block(&mut block)? {
                return Ok(None);
            }
            if block == [0; BLOCK] {
                return match self.block(&mut block)? {
                    true if block != [0; BLOCK] => Err(TarError::End),
                    _ => Ok(None),
                };
            }
            let header = Header::parse(&block)?;
            match header.kind() {
                b'x' | b'X' => pax = Pax::parse(&self.special(&header)?)?,
                // Global records and volume labels mean nothing to an image's layer.
                b'g' | b'V' => drop(self.special(&header)?),
                b'L' => long_name = Some(header::text(&self.special(&header)?).to_vec()),
                b'K' => long_link = Some(header::text(&self.special(&header)?).to_vec()),
                _ => return self.entry(&block, pax, long_name, long_link).map(Some),
            }
        }
    }

    /// Reads stored bytes of the present entry; 0 after the last.
    pub(crate) fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
        let size = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if size == 0 {
            return Ok(0);
        }
        loop {
            match self.stream.read_contents(&mut buffer[..size]) {
                Ok(0) => return Err(TarError::Truncated),
                Ok(read) => {
                    self.left -= read as u64;
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn entry(
        &mut self,
        block: &[u8; BLOCK],
        pax: Pax,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, TarError> {
        let header = Header(block);
        let path = long_name.or(pax.path).unwrap_or_else(|| header.name());
        let kind = match header.kind() {
            // Before there was a type for directories, a slash at the end was it.
            0 if path.last() == Some(&b'/') => Kind::Directory,
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Character,
            b'4' => Kind::Block,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => return Err(TarError::Kind(char::from(other))),
        };
        let stored = match pax.size {
            Some(size) => size,
            None => u64::try_from(header.number(Field::Size)?).map_err(|_| TarError::Number("size"))?,
        };
        let stored = if kind == Kind::File { stored } else { 0 };
        // Offsets of files are signed in every system call.
        i64::try_from(stored).map_err(|_| TarError::Number("size"))?;
        self.left = stored;
        self.padding = stored.wrapping_neg() % BLOCK as u64;
        let mut entry = Entry {
            path,
            kind,
            mode: (header.number(Field::Mode)? & 0o7777) as u32,
            uid: id("uid", pax.uid.map_or_else(|| header.number(Field::Uid), Ok)?)?,
            gid: id("gid", pax.gid.map_or_else(|| header.number(Field::Gid), Ok)?)?,
            mtime: match pax.mtime {
                Some(time) => time,
                None => (header.number(Field::Mtime)?, 0),
            },
            link: long_link.or(pax.link).unwrap_or_else(|| header.link()),
            device: (0, 0),
            size: stored,
            parts: None,
            xattrs: pax.xattrs,
        };
        if matches!(kind, Kind::Character | Kind::Block) && header.has_devices() {
            let part = |name, field| u32::try_from(header.number(field)?).map_err(|_| TarError::Number(name));
            entry.device = (part("devmajor", Field::Major)?, part("devminor", Field::Minor)?);
        }
        if header.kind() == b'S' {
            let parts = sparse::gnu(block, &mut self.stream)?;
            let size =
                u64::try_from(header.number(Field::RealSize)?).map_err(|_| TarError::Number("realsize"))?;
            self.set_sparse(&mut entry, parts, size)?;
        } else if kind == Kind::File && (pax.sparse.major.is_some() || pax.sparse.map.is_some()) {
            let (parts, taken) = sparse::pax(&pax.sparse, &mut self.stream, stored)?;
            self.left -= taken;
            if let Some(name) = pax.sparse.name {
                entry.path = name;
            }
            self.set_sparse(&mut entry, parts, pax.sparse.real_size.ok_or(TarError::Sparse)?)?;
        }
        if kind == Kind::File {
            self.stream.file(&entry.path, entry.parts.as_deref());
        }
        Ok(entry)
    }

    fn set_sparse(&self, entry: &mut Entry, parts: Vec<(u64, u64)>, size: u64) -> Result<(), TarError> {
        i64::try_from(size).map_err(|_| TarError::Number("realsize"))?;
        entry.parts = Some(sparse::check(parts, size, self.left)?);
        entry.size = size;
        Ok(())
    }

    /// The whole data of an extended header.
    fn special(&mut self, header: &Header<'_>) -> Result<Vec<u8>, TarError> {
        let size = u64::try_from(header.number(Field::Size)?).map_err(|_| TarError::Number("size"))?;
        if size > SPECIAL_MAX {
            return Err(TarError::SpecialTooLarge);
        }
        let mut body = vec![0; size as usize];
        self.stream.read_exact(&mut body)?;
        self.left = 0;
        self.padding = size.wrapping_neg() % BLOCK as u64;
        Ok(body)
    }

    fn skip(&mut self) -> Result<(), TarError> {
        let rest = self.left + self.padding;
        if rest > 0 {
            let skipped = io::copy(&mut (&mut self.stream).take(rest), &mut io::sink())?;
            // The last padding may be missing, as Go has it too.
            if skipped < self.left {
                return Err(TarError::Truncated);
            }
        }
        (self.left, self.padding) = (0, 0);
        Ok(())
    }

    /// A whole block, or false at the end of the stream.
    fn block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, TarError> {
        let mut filled = 0;
        while filled < BLOCK {
            match self.stream.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(TarError::Truncated),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }
}

/// chown(2) takes the largest 32-bit number for "leave it as it is", so no file can belong to it.
fn id(name: &'static str, value: i64) -> Result<u32, TarError> {
    u32::try_from(value).ok().filter(|&id| id != u32::MAX).ok_or(TarError::Number(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use registry::tar::{Entry as Made, archive};

    fn all(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
        let mut reader = Reader::new(bytes);
        let mut entries = Vec::new();
        while let Some(entry) = reader.next()? {
            let mut data = Vec::new();
            let mut buffer = [0; 100];
            loop {
                match reader.read_data(&mut buffer)? {
                    0 => break,
                    read => data.extend_from_slice(&buffer[..read]),
                }
            }
            entries.push((entry, data));
        }
        Ok(entries)
    }

    #[test]
    fn entries_come_as_they_were_made() {
        let long = "d/".repeat(150) + "file";
        let entries = all(&archive(&[
            Made::directory("etc/", 0o1755),
            Made::file("etc/a", 0o4644, b"hello".to_vec())
                .owner(3_000_000_000, 7)
                .xattr("user.x", b"\0=\n".to_vec()),
            Made::symlink("l", "../../x"),
            Made::hard_link(&long, "etc/a"),
            Made::device("n", 1, 3),
        ]))
        .unwrap();
        assert_eq!(entries.len(), 5);
        assert_eq!((entries[0].0.kind, entries[0].0.mode), (Kind::Directory, 0o1755));
        let (file, data) = &entries[1];
        assert_eq!(
            (file.uid, file.gid, file.mode, data.as_slice()),
            (3_000_000_000, 7, 0o4644, &b"hello"[..])
        );
        assert_eq!(file.xattrs, [(b"user.x".to_vec(), b"\0=\n".to_vec())]);
        assert_eq!(entries[2].0.link, b"../../x");
        assert_eq!(entries[3].0.path, long.as_bytes());
        assert_eq!(entries[4].0.device, (1, 3));
    }

    #[test]
    fn a_pax_size_counts_for_the_data_and_nothing_hides_in_it() {
        // The header claims no data, the pax record claims a block of it: what looks like an entry there is data.
        let hidden = archive(&[Made::file("hidden", 0o644, b"x".to_vec())]);
        let mut outer = Made::file("outer", 0o644, hidden[..1024].to_vec()).pax("size", b"1024".to_vec());
        outer.claimed_size = Some(0);
        let entries = all(&archive(&[outer, Made::fifo("after")])).unwrap();
        let names: Vec<_> = entries.iter().map(|(e, _)| e.path.as_slice()).collect();
        assert_eq!(names, [&b"outer"[..], b"after"]);
        assert_eq!(entries[0].1.len(), 1024);
    }

    #[test]
    fn links_and_directories_have_no_data() {
        let mut link = Made::symlink("l", "to");
        link.claimed_size = Some(512);
        assert_eq!(all(&archive(&[link, Made::fifo("after")])).unwrap().len(), 2);
    }

    #[test]
    fn ids_out_of_range_are_refused() {
        for bad in ["4294967295", "4294967296", "-1", "99999999999999999999", "0x0", "1:"] {
            let entry = Made::file("a", 0o644, b"".to_vec()).pax("uid", bad.as_bytes().to_vec());
            assert!(all(&archive(&[entry])).is_err(), "{bad}");
        }
    }

    #[test]
    fn sparse_maps_are_checked() {
        let made = |map: &str, size: &str| {
            Made::file("s", 0o644, b"abcdefgh".to_vec())
                .pax("GNU.sparse.map", map.as_bytes().to_vec())
                .pax("GNU.sparse.size", size.as_bytes().to_vec())
        };
        let good = all(&archive(&[made("0,4,100,4", "1000")])).unwrap();
        assert_eq!((good[0].0.size, good[0].0.parts.as_deref()), (1000, Some(&[(0, 4), (100, 4)][..])));
        for (map, size) in [
            ("0,4,2,4", "1000"),
            ("100,4,0,4", "1000"),
            ("0,4,998,4", "1000"),
            ("0,4", "1000"),
            ("0,4,100", "1000"),
            ("0,8", "18446744073709551615"),
            ("18446744073709551615,8", "1000"),
            ("a", "1000"),
        ] {
            assert!(all(&archive(&[made(map, size)])).is_err(), "{map} {size}");
        }
    }

    #[test]
    fn the_map_may_stand_in_the_data() {
        let mut data = b"2\n0\n4\n4096\n4\n".to_vec();
        data.resize(512, 0);
        data.extend_from_slice(b"headtail");
        let made = |data: Vec<u8>| {
            Made::file("GNUSparseFile.1/s", 0o644, data)
                .pax("GNU.sparse.major", b"1".to_vec())
                .pax("GNU.sparse.minor", b"0".to_vec())
                .pax("GNU.sparse.name", b"s".to_vec())
                .pax("GNU.sparse.realsize", b"8192".to_vec())
        };
        let entries = all(&archive(&[made(data), Made::fifo("after")])).unwrap();
        assert_eq!(entries[0].0.path, b"s");
        assert_eq!(entries[0].1, b"headtail");
        assert_eq!(entries.len(), 2);
        assert!(all(&archive(&[made(b"999999999999\n".to_vec())])).is_err());
    }

    #[test]
    fn endings_are_told_apart() {
        let whole = archive(&[Made::file("a", 0o644, b"12345".to_vec())]);
        assert_eq!(all(&whole[..1024]).unwrap().len(), 1, "no end marker");
        assert_eq!(all(b"").unwrap().len(), 0);
        assert!(matches!(all(&whole[..515]), Err(TarError::Truncated)));
        assert!(matches!(all(&whole[..100]), Err(TarError::Truncated)));
        let mut odd = whole[..1024].to_vec();
        odd.extend_from_slice(&[0; 512]);
        odd.extend_from_slice(&whole);
        assert!(matches!(all(&odd), Err(TarError::End)));
        let mut flipped = whole.clone();
        flipped[0] ^= 1;
        assert!(matches!(all(&flipped), Err(TarError::Checksum)));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
            let _ = all(&bytes);
        }

        #[test]
        fn no_damage_panics(at in 0usize..4096, to: u8, fix: bool) {
            let mut bytes = archive(&[
                Made::file("a", 0o644, vec![7; 600]).xattr("user.a", b"b".to_vec()).pax("mtime", b"1.5".to_vec()),
                Made::file("s", 0o644, b"abcdefgh".to_vec())
                    .pax("GNU.sparse.map", b"0,4,100,4".to_vec())
                    .pax("GNU.sparse.size", b"1000".to_vec()),
                Made::hard_link("b", "a"),
            ]);
            let at = at % bytes.len();
            bytes[at] = to;
            if fix {
                // With the checksum put right, the damage reaches the fields behind it.
                let start = at / 512 * 512;
                let block = &mut bytes[start..start + 512];
                block[148..156].copy_from_slice(b"        ");
                let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
                block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
            let _ = all(&bytes);
        }
    }
}
