//! The end of an image: its directories, of which everything is known only then.

use std::iter::once;
use std::ops::Range;

use crate::format::{self, BLOCK, DIRENT, INODE, Inode, Kind, Layout, ROOT, SLOT};
use crate::tree::{Folder, Tree};
use crate::window::Window;
use crate::{Error, Output};

/// What makes a directory hide those below it.
const OPAQUE: (&[u8], &[u8]) = (b"trusted.overlay.opaque", b"y");

/// The directories that are reachable, each behind the one that it is in.
pub(crate) struct Listing {
    pub order: Vec<u32>,
    /// By directory.
    parents: Vec<u32>,
    /// Where each directory's entries begin, and one number more.
    starts: Vec<u32>,
}

impl Listing {
    pub(crate) fn new(tree: &mut Tree) -> Listing {
        let starts = tree.sort();
        let mut listing = Listing { order: vec![0], parents: vec![0; tree.folders.len()], starts };
        let mut next = 0;
        while let Some(&folder) = listing.order.get(next) {
            next += 1;
            for entry in &tree.entries[listing.range(folder)] {
                if entry.kind == Kind::Directory {
                    listing.parents[entry.target as usize] = folder;
                    listing.order.push(entry.target as u32);
                }
            }
        }
        listing
    }

    /// Indexes of the entries that are no directories.
    pub(crate) fn files(&self, tree: &Tree) -> Vec<usize> {
        let entries = self.order.iter().flat_map(|folder| self.range(*folder));
        entries.filter(|index| tree.entries[*index].kind != Kind::Directory).collect()
    }

    fn range(&self, folder: u32) -> Range<usize> {
        let at = |index: usize| self.starts[index] as usize;
        at(folder as usize)..at(folder as usize + 1)
    }

    /// What a directory lists, in order: targets are inodes or, for directories, these.
    fn items<'a>(&self, tree: &'a Tree, folder: u32) -> impl Iterator<Item = (u64, Kind, &'a [u8])> {
        let entries = &tree.entries[self.range(folder)];
        let before = |name: &[u8]| entries.partition_point(|entry| tree.name(entry) < name);
        let (one, two) = (before(b"."), before(b".."));
        let item = |entry| {
            let entry: &crate::tree::Entry = entry;
            (entry.target, entry.kind, tree.name(entry))
        };
        let here = (u64::from(folder), Kind::Directory, &b"."[..]);
        let up = (u64::from(self.parents[folder as usize]), Kind::Directory, &b".."[..]);
        let first = entries[..one].iter().map(item).chain(once(here));
        let second = entries[one..two].iter().map(item).chain(once(up));
        first.chain(second).chain(entries[two..].iter().map(item))
    }
}

/// Where a directory's data goes.
#[derive(Debug, Clone, Copy, Default)]
struct Shape {
    size: u64,
    /// Its first whole block.
    block: u32,
    /// Its inode's offset in the image.
    inode: u64,
    /// Whether what does not fill a block stands behind the inode.
    inline: bool,
    subdirectories: u32,
}

impl Shape {
    fn tail(&self) -> usize {
        if self.inline { (self.size % BLOCK as u64) as usize } else { 0 }
    }

    fn whole_blocks(&self) -> u64 {
        (self.size - self.tail() as u64).div_ceil(BLOCK as u64)
    }
}

/// Writes all directories: first what of them fills blocks, then the inodes, and the root's into the first block of the image.
pub(crate) fn write<O: Output>(
    window: &mut Window<O>,
    tree: &Tree,
    listing: &Listing,
    numbers_from: u32,
    first_block: &mut [u8; BLOCK],
) -> Result<(), Error> {
    let shapes = lay_out(window.end(), tree, listing)?;
    let target = |target: u64, kind: Kind| match kind {
        Kind::Directory => shapes[target as usize].inode / SLOT as u64,
        _ => target,
    };
    let mut block = Vec::new();
    let mut at = window.end();
    for pass in [Pass::Blocks, Pass::Inodes] {
        for (number, &folder) in listing.order.iter().enumerate() {
            let shape = &shapes[folder as usize];
            let mut used = 0;
            let mut index = 0;
            for (to, kind, name) in listing.items(tree, folder) {
                if used + DIRENT + name.len() > BLOCK {
                    put_block(window, &mut at, pass, &block)?;
                    block.clear();
                    (used, index) = (0, index + 1);
                }
                used += DIRENT + name.len();
                block.push((target(to, kind), kind, name));
            }
            let last_is_inline = index == shape.whole_blocks();
            if !last_is_inline {
                put_block(window, &mut at, pass, &block)?;
                block.clear();
            }
            if pass == Pass::Inodes {
                let number = numbers_from.wrapping_add(number as u32);
                let bytes = inode(&tree.folders[folder as usize], shape, number, &block)?;
                match folder {
                    0 => first_block[ROOT..ROOT + bytes.len()].copy_from_slice(&bytes),
                    _ => {
                        let place = window.place_at(shape.inode, bytes.len())?;
                        window.bytes(place).copy_from_slice(&bytes);
                    }
                }
            }
            block.clear();
        }
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    Blocks,
    Inodes,
}

/// A whole block of a directory, in the pass in which they are written.
fn put_block<O: Output>(
    window: &mut Window<O>,
    at: &mut u64,
    pass: Pass,
    block: &[(u64, Kind, &[u8])],
) -> Result<(), Error> {
    if pass == Pass::Blocks {
        let place = window.place_at(*at, BLOCK)?;
        format::directory_block(block, window.bytes(place));
        *at += BLOCK as u64;
    }
    Ok(())
}

fn inode(folder: &Folder, shape: &Shape, number: u32, tail: &[(u64, Kind, &[u8])]) -> Result<Vec<u8>, Error> {
    let xattrs = xattrs(folder)?;
    let mut bytes = vec![0; INODE + xattrs.len() + shape.tail()];
    let inode = Inode {
        kind: Kind::Directory,
        layout: if shape.inline { Layout::Inline } else { Layout::Plain },
        size: shape.size,
        data: shape.block,
        number,
        links: 2 + shape.subdirectories,
        attributes: &folder.attributes,
        xattrs: &xattrs,
    };
    inode.write(&mut bytes);
    format::directory_block(tail, &mut bytes[INODE + xattrs.len()..]);
    Ok(bytes)
}

fn xattrs(folder: &Folder) -> Result<Vec<u8>, Error> {
    if !folder.opaque {
        return format::xattr_body(&folder.attributes.xattrs);
    }
    let mut xattrs = folder.attributes.xattrs.clone();
    xattrs.push((OPAQUE.0.to_vec(), OPAQUE.1.to_vec()));
    format::xattr_body(&xattrs)
}

/// Gives every directory its places, from `from` on, which is where a block begins.
fn lay_out(from: u64, tree: &Tree, listing: &Listing) -> Result<Vec<Shape>, Error> {
    let mut shapes = vec![Shape::default(); tree.folders.len()];
    let mut at = from;
    for &folder in &listing.order {
        let (mut whole, mut used, mut subdirectories) = (0, 0, 0);
        for (_, kind, name) in listing.items(tree, folder) {
            let length = DIRENT + name.len();
            if used + length > BLOCK {
                (whole, used) = (whole + 1, 0);
            }
            used += length;
            subdirectories += u32::from(kind == Kind::Directory);
        }
        let room = if folder == 0 { BLOCK - ROOT } else { BLOCK };
        let head = INODE + xattrs(&tree.folders[folder as usize])?.len();
        if folder == 0 && head > room {
            return Err(Error::Attribute { name: "of the root".to_owned() });
        }
        let shape = &mut shapes[folder as usize];
        shape.size = whole * BLOCK as u64 + used as u64;
        shape.inline = head + used <= room && used < BLOCK;
        shape.block = u32::try_from(at / BLOCK as u64).map_err(|_| Error::TooLarge)?;
        // "." and ".." are not below it.
        shape.subdirectories = subdirectories - 2;
        at += shape.whole_blocks() * BLOCK as u64;
    }
    for &folder in &listing.order {
        let shape = &mut shapes[folder as usize];
        if folder == 0 {
            shape.inode = ROOT as u64;
            continue;
        }
        let length = INODE + xattrs(&tree.folders[folder as usize])?.len() + shape.tail();
        let left = BLOCK - (at % BLOCK as u64) as usize;
        if length > left && left < BLOCK {
            at += left as u64;
        }
        shape.inode = at;
        at = (at + length as u64).next_multiple_of(SLOT as u64);
    }
    Ok(shapes)
}
