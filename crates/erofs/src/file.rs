//! A regular file that is being written: its data goes straight into the window.

use crate::format::{self, BLOCK, INODE, Inode, Kind, Layout, SLOT};
use crate::tree::Directory;
use crate::window::Place;
use crate::{Attributes, Error, Output, Writer};

/// Takes the data of one file. Whole blocks come first; what is left over stands behind the inode, if both fit into a block.
#[derive(Debug)]
pub struct FileWriter<'a, O> {
    writer: &'a mut Writer<O>,
    parent: Directory,
    name: &'a [u8],
    attributes: &'a Attributes,
    xattrs: Vec<u8>,
    size: u64,
    /// Bytes that were not asked for yet: in whole blocks, and behind the inode.
    blocks: u64,
    tail: usize,
    /// The first block of its data.
    first: u32,
    /// The inode's number, once it is written.
    inode: Option<u64>,
    /// What the caller is filling.
    present: Option<Place>,
}

impl<'a, O: Output> FileWriter<'a, O> {
    pub(crate) fn new(
        writer: &'a mut Writer<O>,
        parent: Directory,
        name: &'a [u8],
        attributes: &'a Attributes,
        size: u64,
    ) -> Result<Self, Error> {
        let xattrs = format::xattr_body(&attributes.xattrs)?;
        let rest = (size % BLOCK as u64) as usize;
        let tail = if INODE + xattrs.len() + rest <= BLOCK { rest } else { 0 };
        let blocks = size - tail as u64;
        let (inode, present) = (None, None);
        Ok(FileWriter {
            writer,
            parent,
            name,
            attributes,
            xattrs,
            size,
            blocks,
            tail,
            first: 0,
            inode,
            present,
        })
    }

    /// Room for the next bytes of the data; none is left once there are as many as the file has.
    ///
    /// # Errors
    /// What the output says, or [`Error::TooLarge`].
    pub fn room(&mut self) -> Result<Option<&mut [u8]>, Error> {
        let place = match self.present {
            Some(place) if !place.is_empty() => place,
            _ => match self.next()? {
                Some(place) => place,
                None => return Ok(None),
            },
        };
        self.present = Some(place);
        Ok(Some(self.writer.window.bytes(place)))
    }

    /// Says how many bytes of the room were filled.
    pub fn filled(&mut self, bytes: usize) {
        self.present = self.present.map(|place| place.after(bytes));
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// What the output says, [`Error::Memory`] or [`Error::Name`].
    pub fn finish(mut self) -> Result<(), Error> {
        let inode = match self.inode {
            Some(inode) => inode,
            None => self.write_inode(0)?.0,
        };
        // What stands behind an inode counts as a block: replaced again and again, it is worth counting too.
        let blocks = self.size.div_ceil(BLOCK as u64);
        self.writer.blocks += blocks;
        let blocks = u32::try_from(blocks).map_err(|_| Error::TooLarge)?;
        self.writer.tree.insert(self.parent, self.name, Kind::File, inode, blocks)
    }

    fn is_inline(&self) -> bool {
        let rest = (self.size % BLOCK as u64) as usize;
        rest > 0 && INODE + self.xattrs.len() + rest <= BLOCK
    }

    fn next(&mut self) -> Result<Option<Place>, Error> {
        if self.blocks > 0 {
            let place = self.writer.window.extend(self.blocks)?;
            if self.first == 0 {
                let block = self.writer.window.offset(place) / BLOCK as u64;
                self.first = u32::try_from(block).map_err(|_| Error::TooLarge)?;
            }
            self.blocks -= place.len() as u64;
            return Ok(Some(place));
        }
        if self.tail > 0 {
            let (inode, place) = self.write_inode(self.tail)?;
            (self.inode, self.tail) = (Some(inode), 0);
            return Ok(Some(place));
        }
        Ok(None)
    }

    /// The inode, with room for so many bytes behind it.
    fn write_inode(&mut self, tail: usize) -> Result<(u64, Place), Error> {
        let number = self.writer.number();
        let length = INODE + self.xattrs.len();
        let inode = Inode {
            kind: Kind::File,
            layout: if self.is_inline() { Layout::Inline } else { Layout::Plain },
            size: self.size,
            data: self.first,
            number,
            links: 1,
            attributes: self.attributes,
            xattrs: &self.xattrs,
        };
        let window = &mut self.writer.window;
        let place = window.place(length + tail)?;
        inode.write(window.bytes(place));
        Ok((window.offset(place) / SLOT as u64, place.after(length)))
    }
}
