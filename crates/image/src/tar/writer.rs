//! Writing tar archives: ustar, with a pax header before what does not fit into it.

use std::io::{self, Read, Write};

use super::{BLOCK, Kind};

/// What a ustar header holds.
const NAME_FIELD: usize = 100;
const SIZE_FIELD: u64 = 0o77_777_777_777;
const ID_FIELD: u32 = 0o7_777_777;

/// What is said of an entry besides its content.
#[derive(Debug, Clone)]
pub struct Metadata {
    /// The permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970, and nanoseconds.
    pub mtime: (i64, u32),
    /// Extended attributes: names, in which no `=` can be, and values.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Metadata {
    /// A file that only root reads.
    pub fn private(mtime_secs: i64) -> Metadata {
        Metadata { mode: 0o600, uid: 0, gid: 0, mtime: (mtime_secs, 0), xattrs: Vec::new() }
    }
}

/// An archive on its way into `sink`.
#[derive(Debug)]
pub struct Writer<W> {
    sink: W,
}

/// What a header says beside the metadata.
struct Item<'a> {
    kind: Kind,
    path: &'a [u8],
    link: &'a [u8],
    size: u64,
    device: (u32, u32),
}

impl<W: Write> Writer<W> {
    pub fn new(sink: W) -> Writer<W> {
        Writer { sink }
    }

    /// A regular file of exactly `size` bytes.
    ///
    /// # Errors
    /// What the sink or the content says; `UnexpectedEof` if the content is shorter.
    pub fn file(
        &mut self,
        path: &[u8],
        metadata: &Metadata,
        size: u64,
        content: impl Read,
    ) -> io::Result<()> {
        self.header(metadata, &Item { kind: Kind::File, path, link: b"", size, device: (0, 0) })?;
        let copied = io::copy(&mut content.take(size), &mut self.sink)?;
        if copied < size {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{} became shorter while it was read", String::from_utf8_lossy(path)),
            ));
        }
        self.pad(size)
    }

    /// A regular file of exactly `size` bytes, which `content` writes.
    ///
    /// # Errors
    /// What the sink or `content` says; `InvalidData` if it wrote another number of bytes. The archive is of no use then.
    pub(crate) fn file_from(
        &mut self,
        path: &[u8],
        metadata: &Metadata,
        size: u64,
        content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        self.header(metadata, &Item { kind: Kind::File, path, link: b"", size, device: (0, 0) })?;
        let mut counted = Counted { sink: &mut self.sink, count: 0 };
        content(&mut counted)?;
        if counted.count != size {
            let why = format!("{} has {} bytes, not {size}", String::from_utf8_lossy(path), counted.count);
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        self.pad(size)
    }

    pub fn directory(&mut self, path: &[u8], metadata: &Metadata) -> io::Result<()> {
        let mut name = path.to_vec();
        name.push(b'/');
        self.header(
            metadata,
            &Item { kind: Kind::Directory, path: &name, link: b"", size: 0, device: (0, 0) },
        )
    }

    pub(crate) fn symlink(&mut self, path: &[u8], metadata: &Metadata, target: &[u8]) -> io::Result<()> {
        self.header(metadata, &Item { kind: Kind::Symlink, path, link: target, size: 0, device: (0, 0) })
    }

    pub(crate) fn hard_link(&mut self, path: &[u8], metadata: &Metadata, target: &[u8]) -> io::Result<()> {
        self.header(metadata, &Item { kind: Kind::HardLink, path, link: target, size: 0, device: (0, 0) })
    }

    /// A device or a FIFO.
    pub(crate) fn node(
        &mut self,
        kind: Kind,
        path: &[u8],
        metadata: &Metadata,
        device: (u32, u32),
    ) -> io::Result<()> {
        self.header(metadata, &Item { kind, path, link: b"", size: 0, device })
    }

    /// Writes the end of the archive and gives the sink back.
    pub fn finish(mut self) -> io::Result<W> {
        self.sink.write_all(&[0; 2 * BLOCK])?;
        Ok(self.sink)
    }

    fn header(&mut self, metadata: &Metadata, item: &Item<'_>) -> io::Result<()> {
        let records = pax(metadata, item);
        if !records.is_empty() {
            let plain = Metadata::private(0);
            let mut block = block(&plain, b"pax", b"", records.len() as u64, (0, 0));
            self.block(&mut block, b'x')?;
            self.sink.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        let mut block = block(metadata, item.path, item.link, item.size, item.device);
        let kind = match item.kind {
            Kind::File => b'0',
            Kind::HardLink => b'1',
            Kind::Symlink => b'2',
            Kind::Character => b'3',
            Kind::Block => b'4',
            Kind::Directory => b'5',
            Kind::Fifo => b'6',
        };
        self.block(&mut block, kind)
    }

    fn block(&mut self, block: &mut [u8; BLOCK], kind: u8) -> io::Result<()> {
        block[156] = kind;
        // The checksum counts its own field as spaces.
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.sink.write_all(block)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let over = (size % BLOCK as u64) as usize;
        if over == 0 { Ok(()) } else { self.sink.write_all(&[0; BLOCK][over..]) }
    }
}

/// A sink that counts.
struct Counted<'a, W> {
    sink: &'a mut W,
    count: u64,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.sink.write(bytes)?;
        self.count += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// A header as far as ustar can say it; what does not fit is cut, since a pax header says it.
fn block(metadata: &Metadata, path: &[u8], link: &[u8], size: u64, device: (u32, u32)) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, field: usize, bytes: &[u8]| {
        let length = bytes.len().min(field);
        block[at..at + length].copy_from_slice(&bytes[..length]);
    };
    put(0, NAME_FIELD, path);
    put(100, 8, format!("{:07o}", metadata.mode & 0o7777).as_bytes());
    put(108, 8, format!("{:07o}", metadata.uid.min(ID_FIELD)).as_bytes());
    put(116, 8, format!("{:07o}", metadata.gid.min(ID_FIELD)).as_bytes());
    put(124, 12, format!("{:011o}", if size > SIZE_FIELD { 0 } else { size }).as_bytes());
    let seconds = u64::try_from(metadata.mtime.0).unwrap_or(0).min(SIZE_FIELD);
    put(136, 12, format!("{seconds:011o}").as_bytes());
    put(157, NAME_FIELD, link);
    put(257, 8, b"ustar\x0000");
    put(329, 8, format!("{:07o}", device.0).as_bytes());
    put(337, 8, format!("{:07o}", device.1).as_bytes());
    block
}

/// The records for what ustar cannot say.
fn pax(metadata: &Metadata, item: &Item<'_>) -> Vec<u8> {
    let mut records = Vec::new();
    if item.path.len() > NAME_FIELD {
        record(&mut records, b"path", item.path);
    }
    if item.link.len() > NAME_FIELD {
        record(&mut records, b"linkpath", item.link);
    }
    if item.size > SIZE_FIELD {
        record(&mut records, b"size", item.size.to_string().as_bytes());
    }
    for (key, id) in [(&b"uid"[..], metadata.uid), (b"gid", metadata.gid)] {
        if id > ID_FIELD {
            record(&mut records, key, id.to_string().as_bytes());
        }
    }
    let (seconds, nanoseconds) = metadata.mtime;
    if nanoseconds != 0 || seconds < 0 {
        // A negative time counts back from its nanoseconds.
        let time = match (seconds, nanoseconds) {
            (seconds, 0) => format!("{seconds}"),
            (0.., _) => format!("{seconds}.{nanoseconds:09}"),
            (_, _) => format!("{seconds}"),
        };
        record(&mut records, b"mtime", time.as_bytes());
    }
    for (name, value) in &metadata.xattrs {
        record(&mut records, &[b"SCHILY.xattr.", &name[..]].concat(), value);
    }
    records
}

/// `length key=value\n`, where the length counts itself.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + rest.to_string().len();
    length = rest + length.to_string().len();
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::Reader;

    #[test]
    fn what_is_written_is_read_as_it_was() {
        let long = "d/".repeat(120) + "name";
        let metadata = Metadata {
            mode: 0o4755,
            uid: 3_000_000,
            gid: 7,
            mtime: (1_700_000_000, 5),
            xattrs: vec![(b"user.a".to_vec(), vec![0, 10, 255])],
        };
        let mut writer = Writer::new(Vec::new());
        writer.file(long.as_bytes(), &metadata, 700, &[7; 700][..]).unwrap();
        writer.directory(b"dir", &Metadata::private(1)).unwrap();
        writer.symlink(b"link", &Metadata::private(1), long.as_bytes()).unwrap();
        writer.node(Kind::Character, b"null", &Metadata::private(1), (1, 3)).unwrap();
        let bytes = writer.finish().unwrap();
        assert_eq!(bytes.len() % BLOCK, 0);
        let mut reader = Reader::new(&bytes[..]);
        let file = reader.next().unwrap().unwrap();
        assert_eq!((file.path.as_slice(), file.kind), (long.as_bytes(), Kind::File));
        assert_eq!((file.mode, file.uid, file.gid, file.mtime), (0o4755, 3_000_000, 7, (1_700_000_000, 5)));
        assert_eq!(file.xattrs, metadata.xattrs);
        assert_eq!(reader.next().unwrap().unwrap().kind, Kind::Directory);
        let link = reader.next().unwrap().unwrap();
        assert_eq!((link.kind, &link.link[..]), (Kind::Symlink, long.as_bytes()));
        assert_eq!(reader.next().unwrap().unwrap().kind, Kind::Character);
        assert!(reader.next().unwrap().is_none());
    }

    #[test]
    fn the_length_of_a_record_counts_itself() {
        for size in 80..1200 {
            let mut records = Vec::new();
            record(&mut records, b"k", &vec![b'v'; size]);
            let space = records.iter().position(|byte| *byte == b' ').unwrap();
            let said: usize = std::str::from_utf8(&records[..space]).unwrap().parse().unwrap();
            assert_eq!(said, records.len());
        }
    }

    #[test]
    fn content_that_shrinks_is_an_error() {
        let error = Writer::new(Vec::new()).file(b"x", &Metadata::private(0), 5, &b"abc"[..]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
