//! Writes tar archives entry by entry, the odd and the hostile ones too: nothing in an entry is checked.

/// One entry of an archive, in the words of ustar and pax.
#[derive(Debug, Clone)]
pub struct Entry {
    pub name: Vec<u8>,
    /// The type flag: `b'0'` a file, `b'5'` a directory, `b'2'` a symbolic and `b'1'` a hard link, `b'3'`, `b'4'`, `b'6'` devices and FIFO.
    pub kind: u8,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: u64,
    pub link: Vec<u8>,
    pub device: (u32, u32),
    pub data: Vec<u8>,
    /// Records of a pax header in front of the entry.
    pub pax: Vec<(String, Vec<u8>)>,
    /// The size that the header claims, if it is not the data's.
    pub claimed_size: Option<u64>,
}

impl Entry {
    fn new(name: &str, kind: u8, mode: u32) -> Entry {
        Entry {
            name: name.as_bytes().to_vec(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: 1_600_000_000,
            link: Vec::new(),
            device: (0, 0),
            data: Vec::new(),
            pax: Vec::new(),
            claimed_size: None,
        }
    }

    /// A regular file.
    pub fn file(name: &str, mode: u32, data: impl Into<Vec<u8>>) -> Entry {
        Entry { data: data.into(), ..Entry::new(name, b'0', mode) }
    }

    /// A directory.
    pub fn directory(name: &str, mode: u32) -> Entry {
        Entry::new(name, b'5', mode)
    }

    /// A symbolic link.
    pub fn symlink(name: &str, to: &str) -> Entry {
        Entry { link: to.as_bytes().to_vec(), ..Entry::new(name, b'2', 0o777) }
    }

    /// A hard link.
    pub fn hard_link(name: &str, to: &str) -> Entry {
        Entry { link: to.as_bytes().to_vec(), ..Entry::new(name, b'1', 0o644) }
    }

    /// A character device.
    pub fn device(name: &str, major: u32, minor: u32) -> Entry {
        Entry { device: (major, minor), ..Entry::new(name, b'3', 0o600) }
    }

    /// A FIFO.
    pub fn fifo(name: &str) -> Entry {
        Entry::new(name, b'6', 0o600)
    }

    /// The same with another owner.
    pub fn owner(self, uid: u64, gid: u64) -> Entry {
        Entry { uid, gid, ..self }
    }

    /// The same with another time of change, in seconds since 1970.
    pub fn mtime(self, mtime: u64) -> Entry {
        Entry { mtime, ..self }
    }

    /// The same with a pax record.
    pub fn pax(mut self, key: &str, value: impl Into<Vec<u8>>) -> Entry {
        self.pax.push((key.to_owned(), value.into()));
        self
    }

    /// The same with an extended attribute.
    pub fn xattr(self, name: &str, value: impl Into<Vec<u8>>) -> Entry {
        self.pax(&format!("SCHILY.xattr.{name}"), value)
    }
}

/// The archive of these entries, with its end.
pub fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        append(&mut out, entry);
    }
    out.extend_from_slice(&[0; 1024]);
    out
}

/// Appends one entry without the end of the archive.
pub fn append(out: &mut Vec<u8>, entry: &Entry) {
    let mut pax = entry.pax.clone();
    if entry.name.len() > 100 {
        pax.push(("path".to_owned(), entry.name.clone()));
    }
    if entry.link.len() > 100 {
        pax.push(("linkpath".to_owned(), entry.link.clone()));
    }
    for (key, id) in [("uid", entry.uid), ("gid", entry.gid)] {
        if id > 0o7777777 {
            pax.push((key.to_owned(), id.to_string().into_bytes()));
        }
    }
    if !pax.is_empty() {
        let body: Vec<u8> = pax.iter().flat_map(|(key, value)| record(key, value)).collect();
        header(out, b"PaxHeaders/entry", b'x', &Entry::new("", b'x', 0o644), body.len() as u64);
        padded(out, &body);
    }
    let size = entry.claimed_size.unwrap_or(entry.data.len() as u64);
    header(out, &entry.name, entry.kind, entry, size);
    padded(out, &entry.data);
}

/// The same bytes, with the right checksum in everything that looks like a header of ustar or GNU.
pub fn with_checksums(archive: &[u8]) -> Vec<u8> {
    let mut bytes = archive.to_vec();
    for block in bytes.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].copy_from_slice(b"        ");
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    bytes
}

/// `length key=value\n`, where the length counts itself.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    let mut out = format!("{length} {key}=").into_bytes();
    out.extend_from_slice(value);
    out.push(b'\n');
    out
}

fn header(out: &mut Vec<u8>, name: &[u8], kind: u8, entry: &Entry, size: u64) {
    let mut block = [0u8; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &name[..name.len().min(100)]);
    put(100, format!("{:07o}", entry.mode & 0o7777777).as_bytes());
    put(108, format!("{:07o}", entry.uid & 0o7777777).as_bytes());
    put(116, format!("{:07o}", entry.gid & 0o7777777).as_bytes());
    put(124, format!("{:011o}", size & 0o77777777777).as_bytes());
    put(136, format!("{:011o}", entry.mtime & 0o77777777777).as_bytes());
    put(148, b"        ");
    put(156, &[kind]);
    put(157, &entry.link[..entry.link.len().min(100)]);
    put(257, b"ustar\x0000");
    put(329, format!("{:07o}", entry.device.0 & 0o7777777).as_bytes());
    put(337, format!("{:07o}", entry.device.1 & 0o7777777).as_bytes());
    let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.extend_from_slice(&block);
}

fn padded(out: &mut Vec<u8>, data: &[u8]) {
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(512), 0);
}
