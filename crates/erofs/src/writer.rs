//! The writer: directories that are filled, and the image at the end.

use std::collections::{HashMap, HashSet};

use crate::directories::{self, Listing};
use crate::file::FileWriter;
use crate::format::{self, BLOCK, INODE, Inode, Kind, Layout, SLOT, Superblock};
use crate::tree::{Directory, Tree};
use crate::window::Window;
use crate::{Attributes, Error, Output};

/// Dead bytes that never matter.
const WASTE: u64 = 64 << 20;

/// What is said of an image beforehand.
#[derive(Debug, Clone)]
pub struct Options {
    /// Tells the image from all others; the kernel wants that of file systems that are stacked.
    pub uuid: [u8; 16],
    /// How the root looks until [`Writer::set_attributes`] is called for it.
    pub root: Attributes,
    /// Bytes of memory for names, directories and links.
    pub memory: usize,
}

/// What there is under a name.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    Directory(Directory),
    /// A symbolic link and where it leads.
    Symlink(&'a [u8]),
    /// A character device 0/0.
    Whiteout,
    Other,
}

/// What is no file, directory or link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// With major and minor number. 0/0 is a whiteout of overlayfs.
    Character(u32, u32),
    Block(u32, u32),
    Fifo,
    Socket,
}

/// An image that was written, but for its first block.
#[derive(Debug)]
pub struct Finished<O> {
    pub output: O,
    /// To be written at the beginning, once everything else is where it has to be.
    pub first_block: Box<[u8; BLOCK]>,
    /// Bytes of the whole image.
    pub size: u64,
    pub inodes: u64,
}

/// Writes one image.
#[derive(Debug)]
pub struct Writer<O> {
    pub(crate) window: Window<O>,
    pub(crate) tree: Tree,
    uuid: [u8; 16],
    /// Inodes that got a further name at some time.
    linked: HashSet<u64>,
    /// Inodes that were written.
    count: u32,
    /// Blocks of files, also of those that were replaced.
    pub(crate) blocks: u64,
}

impl<O: Output> Writer<O> {
    /// Begins an image.
    pub fn new(output: O, options: Options) -> Writer<O> {
        Writer {
            window: Window::new(output),
            tree: Tree::new(options.root, options.memory),
            uuid: options.uuid,
            linked: HashSet::new(),
            count: 1,
            blocks: 0,
        }
    }

    /// The directory that everything is in.
    pub fn root(&self) -> Directory {
        Directory(0)
    }

    /// What a directory has under a name.
    pub fn find(&self, directory: Directory, name: &[u8]) -> Option<Found<'_>> {
        let entry = self.tree.find(directory, name)?;
        Some(match entry.kind {
            Kind::Directory => Found::Directory(Directory(entry.target as u32)),
            Kind::Symlink => Found::Symlink(self.tree.link(entry.target)),
            Kind::Whiteout => Found::Whiteout,
            _ => Found::Other,
        })
    }

    /// Makes a directory. What was under the name is replaced, as in all these calls.
    ///
    /// # Errors
    /// [`Error::Memory`], [`Error::Attribute`], [`Error::Name`].
    pub fn directory(
        &mut self,
        parent: Directory,
        name: &[u8],
        attributes: Attributes,
    ) -> Result<Directory, Error> {
        format::xattr_body(&attributes.xattrs)?;
        let directory = self.tree.folder(attributes)?;
        self.tree.insert(parent, name, Kind::Directory, directory.0.into(), 0)?;
        Ok(directory)
    }

    /// Changes how a directory looks; whether it is opaque stays.
    ///
    /// # Errors
    /// [`Error::Memory`], [`Error::Attribute`].
    pub fn set_attributes(&mut self, directory: Directory, attributes: Attributes) -> Result<(), Error> {
        format::xattr_body(&attributes.xattrs)?;
        self.tree.set_attributes(directory, attributes)
    }

    /// Makes overlayfs hide what lower layers have in a directory.
    pub fn set_opaque(&mut self, directory: Directory) {
        self.tree.folders[directory.0 as usize].opaque = true;
    }

    /// Makes a regular file of this size, which gets its data from the caller. The image is of no use if that is not completed.
    ///
    /// # Errors
    /// [`Error::Attribute`], [`Error::Name`], [`Error::TooLarge`].
    pub fn file<'a>(
        &'a mut self,
        parent: Directory,
        name: &'a [u8],
        attributes: &'a Attributes,
        size: u64,
    ) -> Result<FileWriter<'a, O>, Error> {
        FileWriter::new(self, parent, name, attributes, size)
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// As for the other calls.
    pub fn symlink(
        &mut self,
        parent: Directory,
        name: &[u8],
        attributes: &Attributes,
        to: &[u8],
    ) -> Result<(), Error> {
        let xattrs = format::xattr_body(&attributes.xattrs)?;
        let length = INODE + xattrs.len() + to.len();
        let (layout, data) = if length <= BLOCK {
            (Layout::Inline, 0)
        } else {
            let place = self.window.extend(BLOCK as u64)?;
            self.window.bytes(place)[..to.len()].copy_from_slice(to);
            (Layout::Plain, (self.window.offset(place) / BLOCK as u64) as u32)
        };
        let mode = Attributes { mode: 0o777, ..attributes.clone() };
        let size = to.len() as u64;
        let number = self.number();
        let inode = Inode {
            kind: Kind::Symlink,
            layout,
            size,
            data,
            number,
            links: 1,
            attributes: &mode,
            xattrs: &xattrs,
        };
        let target = self.inode(&inode, if layout == Layout::Inline { to } else { b"" })?;
        self.tree.insert(parent, name, Kind::Symlink, target, 0)?;
        self.tree.set_link(target, to)
    }

    /// Makes a device, FIFO or socket.
    ///
    /// # Errors
    /// As for the other calls.
    pub fn device(
        &mut self,
        parent: Directory,
        name: &[u8],
        attributes: &Attributes,
        device: Device,
    ) -> Result<(), Error> {
        let (kind, data) = match device {
            Device::Character(0, 0) => (Kind::Whiteout, 0),
            Device::Character(major, minor) => (Kind::Character, format::device(major, minor)),
            Device::Block(major, minor) => (Kind::Block, format::device(major, minor)),
            Device::Fifo => (Kind::Fifo, 0),
            Device::Socket => (Kind::Socket, 0),
        };
        let xattrs = format::xattr_body(&attributes.xattrs)?;
        let (layout, number) = (Layout::Plain, self.number());
        let inode = Inode { kind, layout, size: 0, data, number, links: 1, attributes, xattrs: &xattrs };
        let target = self.inode(&inode, b"")?;
        self.tree.insert(parent, name, kind, target, 0)
    }

    /// Gives what is under a name a further one. False if there is nothing, or a directory.
    ///
    /// # Errors
    /// [`Error::Memory`], [`Error::Name`].
    pub fn link(&mut self, from: (Directory, &[u8]), to: (Directory, &[u8])) -> Result<bool, Error> {
        let entry = match self.tree.find(from.0, from.1) {
            Some(entry) if entry.kind != Kind::Directory => entry,
            _ => return Ok(false),
        };
        self.linked.insert(entry.target);
        self.tree.insert(to.0, to.1, entry.kind, entry.target, entry.blocks)?;
        Ok(true)
    }

    /// Removes what is under a name.
    pub fn remove(&mut self, directory: Directory, name: &[u8]) {
        self.tree.remove(directory, name);
    }

    /// Bytes of memory for names and directories.
    pub fn memory(&self) -> usize {
        self.tree.memory() + self.linked.capacity() * 9
    }

    /// Writes the directories, and says what is to stand at the beginning.
    ///
    /// # Errors
    /// [`Error::Waste`] if most of the image is of files that were replaced; else as for the other calls.
    pub fn finish(mut self) -> Result<Finished<O>, Error> {
        let listing = Listing::new(&mut self.tree);
        let files = self.relink(&listing)?;
        let dead = (self.blocks - files.blocks) * BLOCK as u64;
        if dead > WASTE.max(files.blocks * BLOCK as u64) {
            return Err(Error::Waste { dead, all: self.blocks * BLOCK as u64 });
        }
        let mut first_block = Box::new([0; BLOCK]);
        directories::write(&mut self.window, &self.tree, &listing, self.count, &mut first_block)?;
        let size = self.window.end();
        let inodes = files.inodes + listing.order.len() as u64;
        let superblock = Superblock { inodes, blocks: (size / BLOCK as u64) as u32, uuid: self.uuid };
        superblock.write(&mut first_block);
        Ok(Finished { output: self.window.finish()?, first_block, size, inodes })
    }

    /// Writes the inodes again that turned out to have several names, with their number, and counts what is reachable.
    fn relink(&mut self, listing: &Listing) -> Result<Files, Error> {
        let mut names: HashMap<u64, u32> = HashMap::new();
        let mut files = Files { inodes: 0, blocks: 0 };
        for index in listing.files(&self.tree) {
            let entry = &self.tree.entries[index];
            let count = match self.linked.contains(&entry.target) {
                true => names.entry(entry.target).or_default(),
                false => &mut 0,
            };
            *count += 1;
            if *count == 1 {
                files.inodes += 1;
                files.blocks += u64::from(entry.blocks);
            }
        }
        names.retain(|_, count| *count > 1);
        if names.is_empty() {
            return Ok(files);
        }
        // In the order of the names, so that the image does not depend on hashes.
        let mut moved: HashMap<u64, u64> = HashMap::new();
        for index in listing.files(&self.tree) {
            let old = self.tree.entries[index].target;
            let Some(&count) = names.get(&old) else { continue };
            let new = match moved.get(&old) {
                Some(&new) => new,
                None => self.copy_inode(old, count)?,
            };
            moved.insert(old, new);
            self.tree.entries[index].target = new;
        }
        Ok(files)
    }

    fn copy_inode(&mut self, number: u64, links: u32) -> Result<u64, Error> {
        let offset = number * SLOT as u64;
        let mut head = [0; INODE];
        self.window.read_back(offset, &mut head)?;
        let mut whole = vec![0; format::whole_length(&head)];
        self.window.read_back(offset, &mut whole)?;
        format::set_links(&mut whole, links);
        let place = self.window.place(whole.len())?;
        self.window.bytes(place).copy_from_slice(&whole);
        Ok(self.window.offset(place) / SLOT as u64)
    }

    /// Writes an inode with what stands behind it, and gives its number.
    fn inode(&mut self, inode: &Inode<'_>, tail: &[u8]) -> Result<u64, Error> {
        let length = INODE + inode.xattrs.len();
        let place = self.window.place(length + tail.len())?;
        inode.write(self.window.bytes(place));
        self.window.bytes(place.after(length)).copy_from_slice(tail);
        Ok(self.window.offset(place) / SLOT as u64)
    }

    /// A number for the next inode, of those that only 32-bit programs see.
    pub(crate) fn number(&mut self) -> u32 {
        self.count = self.count.wrapping_add(1);
        self.count
    }
}

/// What is reachable beside directories.
struct Files {
    inodes: u64,
    blocks: u64,
}
