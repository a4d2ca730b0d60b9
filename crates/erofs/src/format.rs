//! The on-disk format of EROFS, as far as it is written: the superblock, inodes, directory entries and extended attributes.
//!
//! All numbers are little-endian. Source: the kernel's documentation, filesystems/erofs, and its description of the structures.

use crate::{Attributes, Error};

/// Every address is one of a block.
pub(crate) const BLOCK: usize = 4096;
/// An inode's number is its offset in slots.
pub(crate) const SLOT: usize = 32;
/// The extended form of an inode, without its attributes.
pub(crate) const INODE: usize = 64;
/// A directory entry without its name.
pub(crate) const DIRENT: usize = 12;

/// Where the superblock is, and the root's inode behind it: its number has 16 bits, so that it has to be near the beginning.
const SUPERBLOCK: usize = 1024;
pub(crate) const ROOT: usize = 1152;

const MAGIC: u32 = 0xE0F5_E1E2;
/// The superblock has a checksum; times are those of the last modification.
const COMPATIBLE: u32 = 0x1 | 0x2;

/// How an inode's data lies: in whole blocks, or the last part of it right behind the inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    Plain,
    Inline,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Nothing: it was here and was removed.
    Gone,
    File,
    Directory,
    Character,
    /// A character device with the number 0/0, by which overlayfs hides what is below.
    Whiteout,
    Block,
    Fifo,
    Socket,
    Symlink,
}

impl Kind {
    /// The type in a mode (inode(7)).
    pub(crate) fn mode(self) -> u16 {
        match self {
            Kind::Gone => 0,
            Kind::Fifo => 0o010_000,
            Kind::Character | Kind::Whiteout => 0o020_000,
            Kind::Directory => 0o040_000,
            Kind::Block => 0o060_000,
            Kind::File => 0o100_000,
            Kind::Symlink => 0o120_000,
            Kind::Socket => 0o140_000,
        }
    }

    /// The type in a directory entry.
    fn entry(self) -> u8 {
        match self {
            Kind::Gone => 0,
            Kind::File => 1,
            Kind::Directory => 2,
            Kind::Character | Kind::Whiteout => 3,
            Kind::Block => 4,
            Kind::Fifo => 5,
            Kind::Socket => 6,
            Kind::Symlink => 7,
        }
    }
}

/// An inode as it will be written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inode<'a> {
    pub kind: Kind,
    pub layout: Layout,
    pub size: u64,
    /// The first block of its data, or a device's number.
    pub data: u32,
    /// What 32-bit programs see as its number.
    pub number: u32,
    pub links: u32,
    pub attributes: &'a Attributes,
    /// From [`xattr_body`].
    pub xattrs: &'a [u8],
}

impl Inode<'_> {
    /// Writes it with its attributes to the beginning of `to`.
    pub(crate) fn write(&self, to: &mut [u8]) {
        let layout = if self.layout == Layout::Inline { 2 } else { 0 };
        put(to, 0, &(1u16 | (layout << 1)).to_le_bytes());
        put(to, 2, &xattr_count(self.xattrs.len()).to_le_bytes());
        let mode = self.kind.mode() | (self.attributes.mode & 0o7777) as u16;
        put(to, 4, &mode.to_le_bytes());
        put(to, 8, &self.size.to_le_bytes());
        put(to, 16, &self.data.to_le_bytes());
        put(to, 20, &self.number.to_le_bytes());
        put(to, 24, &self.attributes.uid.to_le_bytes());
        put(to, 28, &self.attributes.gid.to_le_bytes());
        put(to, 32, &self.attributes.mtime.0.to_le_bytes());
        put(to, 40, &self.attributes.mtime.1.to_le_bytes());
        put(to, 44, &self.links.to_le_bytes());
        put(to, INODE, self.xattrs);
    }
}

/// How long an inode is with its attributes and the data that is stored with it, by its first bytes.
pub(crate) fn whole_length(inode: &[u8; INODE]) -> usize {
    let number = |at: usize| usize::from(u16::from_le_bytes([inode[at], inode[at + 1]]));
    let xattrs = match number(2) {
        0 => 0,
        count => XATTR_HEADER + 4 * (count - 1),
    };
    let inline = (number(0) >> 1) & 7 == 2;
    // The low bits of the size say how much is in the last block.
    let tail = if inline { number(8) % BLOCK } else { 0 };
    INODE + xattrs + tail
}

/// Sets how many names an inode has.
pub(crate) fn set_links(inode: &mut [u8], links: u32) {
    put(inode, 44, &links.to_le_bytes());
}

/// A device's number as the kernel stores it.
pub(crate) fn device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

const XATTR_HEADER: usize = 12;
/// An inode counts its attributes' bytes in fours with 16 bits.
const XATTRS_MAX: usize = XATTR_HEADER + 4 * (u16::MAX as usize - 1);

fn xattr_count(length: usize) -> u16 {
    if length == 0 { 0 } else { ((length - XATTR_HEADER) / 4 + 1) as u16 }
}

/// The attributes as they stand behind the inode; empty: it has none.
pub(crate) fn xattr_body(xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<Vec<u8>, Error> {
    if xattrs.is_empty() {
        return Ok(Vec::new());
    }
    let mut body = vec![0; XATTR_HEADER];
    for (name, value) in xattrs {
        let refuse = || Error::Attribute { name: String::from_utf8_lossy(name).into_owned() };
        let (index, rest) = xattr_name(name).ok_or_else(refuse)?;
        let length = u8::try_from(rest.len()).map_err(|_| refuse())?;
        let size = u16::try_from(value.len()).map_err(|_| refuse())?;
        body.extend([length, index]);
        body.extend(size.to_le_bytes());
        body.extend(rest);
        body.extend(value);
        body.resize(body.len().next_multiple_of(4), 0);
        if body.len() > XATTRS_MAX {
            return Err(refuse());
        }
    }
    Ok(body)
}

/// A name's namespace and what is left of it.
fn xattr_name(name: &[u8]) -> Option<(u8, &[u8])> {
    const WHOLE: [(&[u8], u8); 2] = [(b"system.posix_acl_access", 2), (b"system.posix_acl_default", 3)];
    const PREFIXES: [(&[u8], u8); 3] = [(b"user.", 1), (b"trusted.", 4), (b"security.", 6)];
    if let Some((_, index)) = WHOLE.iter().find(|(whole, _)| *whole == name) {
        return Some((*index, b""));
    }
    let found = PREFIXES.iter().find_map(|(prefix, index)| Some((*index, name.strip_prefix(*prefix)?)));
    found.filter(|(_, rest)| !rest.is_empty())
}

/// One block of a directory: its entries, in order, as inode number, kind and name.
pub(crate) fn directory_block(entries: &[(u64, Kind, &[u8])], to: &mut [u8]) {
    let mut name_at = entries.len() * DIRENT;
    for (place, (number, kind, name)) in entries.iter().enumerate() {
        let at = place * DIRENT;
        put(to, at, &number.to_le_bytes());
        put(to, at + 8, &(name_at as u16).to_le_bytes());
        to[at + 10] = kind.entry();
        put(to, name_at, name);
        name_at += name.len();
    }
}

/// What the superblock says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Superblock {
    pub inodes: u64,
    pub blocks: u32,
    pub uuid: [u8; 16],
}

impl Superblock {
    /// Writes it into the first block, and sums that up: everything else in the block has to be there.
    pub(crate) fn write(&self, block: &mut [u8; BLOCK]) {
        let to = &mut block[SUPERBLOCK..];
        put(to, 0, &MAGIC.to_le_bytes());
        put(to, 4, &[0; 4]);
        put(to, 8, &COMPATIBLE.to_le_bytes());
        to[12] = BLOCK.trailing_zeros() as u8;
        put(to, 14, &((ROOT / SLOT) as u16).to_le_bytes());
        put(to, 16, &self.inodes.to_le_bytes());
        put(to, 36, &self.blocks.to_le_bytes());
        put(to, 48, &self.uuid);
        let sum = crc32c(to);
        put(to, 4, &sum.to_le_bytes());
    }
}

/// CRC-32C as the kernel computes it here: without the inversion at the end.
fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0x82F6_3B78 & (sum & 1).wrapping_neg()))
    })
}

fn put(to: &mut [u8], at: usize, bytes: &[u8]) {
    to[at..at + bytes.len()].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_standard_without_its_last_step() {
        assert_eq!(!crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn attributes_outside_the_known_namespaces_are_refused() {
        let body = |name: &str, size: usize| xattr_body(&[(name.into(), vec![0; size])]);
        assert!(body("user.a", 0).is_ok());
        assert!(body("user.", 0).is_err(), "no name in its namespace");
        assert!(body("system.nfs4_acl", 0).is_err());
        assert!(body("user.a", 65_535).is_ok());
        assert!(body("user.a", 65_536).is_err());
        assert!(
            xattr_body(&vec![(b"user.a".to_vec(), vec![0; 60_000]); 5]).is_err(),
            "more than 16 bits count"
        );
        assert!(body(&format!("user.{}", "x".repeat(255)), 0).is_ok());
        assert!(body(&format!("user.{}", "x".repeat(256)), 0).is_err());
    }

    #[test]
    fn an_inode_says_how_long_it_is() {
        let attributes = Attributes::default();
        let xattrs = xattr_body(&[(b"user.name".to_vec(), b"value".to_vec())]).unwrap();
        for (layout, size, tail) in [(Layout::Inline, 5000, 904), (Layout::Plain, 5000, 0)] {
            let inode = Inode {
                kind: Kind::File,
                layout,
                size,
                data: 7,
                number: 1,
                links: 1,
                attributes: &attributes,
                xattrs: &xattrs,
            };
            let mut bytes = vec![0; INODE + xattrs.len()];
            inode.write(&mut bytes);
            let head = bytes[..INODE].try_into().unwrap();
            assert_eq!(whole_length(&head), INODE + xattrs.len() + tail);
        }
    }
}
