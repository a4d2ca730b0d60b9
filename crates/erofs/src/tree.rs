//! The names of an image while it is written: compact, since they are all that is kept of it in memory.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use crate::format::Kind;
use crate::{Attributes, Error};

const NONE: u32 = u32::MAX;

/// A directory of the image that is being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Directory(pub(crate) u32);

/// A name in a directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    /// An inode's number, or a directory.
    pub target: u64,
    pub parent: u32,
    name: u32,
    /// Of a file's data.
    pub blocks: u32,
    length: u8,
    pub kind: Kind,
}

/// A directory, which is written at the end: what it has, and how it looks, may change until then.
#[derive(Debug)]
pub(crate) struct Folder {
    pub attributes: Attributes,
    /// Whether overlayfs is to hide what lower layers have in it.
    pub opaque: bool,
}

/// Entries are found by a table of hashes and are never taken out of it: one that is removed is [`Kind::Gone`], and one that is replaced
/// says something else. What was in a directory that went stays unreachable.
#[derive(Debug)]
pub(crate) struct Tree {
    pub folders: Vec<Folder>,
    pub entries: Vec<Entry>,
    names: Vec<u8>,
    table: Vec<u32>,
    hasher: RandomState,
    /// Where symbolic links lead, by inode, in `names`.
    links: HashMap<u64, (u32, u16)>,
    /// Bytes of attributes.
    attributes: usize,
    limit: usize,
}

impl Tree {
    pub(crate) fn new(root: Attributes, limit: usize) -> Tree {
        Tree {
            folders: vec![Folder { attributes: root, opaque: false }],
            entries: Vec::new(),
            names: Vec::new(),
            table: vec![NONE; 64],
            hasher: RandomState::new(),
            links: HashMap::new(),
            attributes: 0,
            limit,
        }
    }

    /// Bytes that all of it takes, nearly.
    pub(crate) fn memory(&self) -> usize {
        self.folders.capacity() * size_of::<Folder>()
            + self.entries.capacity() * size_of::<Entry>()
            + self.names.capacity()
            + self.table.capacity() * size_of::<u32>()
            + self.links.capacity() * (size_of::<(u64, (u32, u16))>() + 1)
            + self.attributes
    }

    pub(crate) fn name(&self, entry: &Entry) -> &[u8] {
        &self.names[entry.name as usize..][..usize::from(entry.length)]
    }

    /// What the directory has under this name.
    pub(crate) fn find(&self, directory: Directory, name: &[u8]) -> Option<Entry> {
        let index = self.table[self.slot(directory.0, name)];
        self.entries.get(index as usize).copied().filter(|entry| entry.kind != Kind::Gone)
    }

    /// Puts something under a name, instead of whatever is there.
    pub(crate) fn insert(
        &mut self,
        directory: Directory,
        name: &[u8],
        kind: Kind,
        target: u64,
        blocks: u32,
    ) -> Result<(), Error> {
        let slot = self.slot(directory.0, name);
        if let Some(entry) = self.entries.get_mut(self.table[slot] as usize) {
            (entry.kind, entry.target, entry.blocks) = (kind, target, blocks);
            return Ok(());
        }
        let length = u8::try_from(name.len()).map_err(|_| Error::Name)?;
        let start = self.keep(name)?;
        self.table[slot] = self.entries.len() as u32;
        self.entries.push(Entry { target, parent: directory.0, name: start, blocks, length, kind });
        if self.entries.len() * 4 > self.table.len() * 3 {
            self.widen();
        }
        self.check()
    }

    pub(crate) fn remove(&mut self, directory: Directory, name: &[u8]) {
        let slot = self.slot(directory.0, name);
        if let Some(entry) = self.entries.get_mut(self.table[slot] as usize) {
            entry.kind = Kind::Gone;
        }
    }

    /// A new directory without a name.
    pub(crate) fn folder(&mut self, attributes: Attributes) -> Result<Directory, Error> {
        let directory = Directory(self.folders.len() as u32);
        self.attributes += attributes.memory();
        self.folders.push(Folder { attributes, opaque: false });
        self.check()?;
        Ok(directory)
    }

    pub(crate) fn set_attributes(
        &mut self,
        directory: Directory,
        attributes: Attributes,
    ) -> Result<(), Error> {
        self.attributes += attributes.memory();
        let folder = &mut self.folders[directory.0 as usize];
        self.attributes -= folder.attributes.memory();
        folder.attributes = attributes;
        self.check()
    }

    /// Remembers where a symbolic link leads.
    pub(crate) fn set_link(&mut self, inode: u64, to: &[u8]) -> Result<(), Error> {
        let length = u16::try_from(to.len()).map_err(|_| Error::Name)?;
        let start = self.keep(to)?;
        self.links.insert(inode, (start, length));
        self.check()
    }

    pub(crate) fn link(&self, inode: u64) -> &[u8] {
        self.links.get(&inode).map_or(&[], |&(at, length)| &self.names[at as usize..][..usize::from(length)])
    }

    /// Sorts the entries by directory and name, after which nothing is found any more, and says where each directory's begin. One number
    /// more is the end.
    pub(crate) fn sort(&mut self) -> Vec<u32> {
        self.table = Vec::new();
        self.entries.retain(|entry| entry.kind != Kind::Gone);
        let names = std::mem::take(&mut self.names);
        let name = |entry: &Entry| &names[entry.name as usize..][..usize::from(entry.length)];
        self.entries.sort_unstable_by(|a, b| a.parent.cmp(&b.parent).then_with(|| name(a).cmp(name(b))));
        self.names = names;
        let mut starts = Vec::with_capacity(self.folders.len() + 1);
        let mut at = 0;
        for folder in 0..self.folders.len() as u32 {
            starts.push(at as u32);
            while self.entries.get(at).is_some_and(|entry| entry.parent == folder) {
                at += 1;
            }
        }
        starts.push(at as u32);
        starts
    }

    /// The slot that has an entry, or that is free for it.
    fn slot(&self, parent: u32, name: &[u8]) -> usize {
        let mask = self.table.len() - 1;
        let mut slot = self.hasher.hash_one((parent, name)) as usize & mask;
        loop {
            let index = self.table[slot];
            let Some(entry) = self.entries.get(index as usize) else { return slot };
            if entry.parent == parent && self.name(entry) == name {
                return slot;
            }
            slot = (slot + 1) & mask;
        }
    }

    fn widen(&mut self) {
        self.table = vec![NONE; self.table.len() * 2];
        for index in 0..self.entries.len() {
            let entry = self.entries[index];
            // It is in no slot yet, so that this is a free one.
            let slot = self.slot(entry.parent, self.name(&entry));
            self.table[slot] = index as u32;
        }
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<u32, Error> {
        let start = u32::try_from(self.names.len()).map_err(|_| self.too_much())?;
        self.names.extend_from_slice(bytes);
        Ok(start)
    }

    fn check(&self) -> Result<(), Error> {
        if self.memory() > self.limit { Err(self.too_much()) } else { Ok(()) }
    }

    fn too_much(&self) -> Error {
        Error::Memory { limit: self.limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_thousand_names_take_few_megabytes() {
        let mut tree = Tree::new(Attributes::default(), usize::MAX);
        let mut directory = Directory(0);
        for number in 0..100_000u64 {
            if number % 100 == 0 {
                directory = tree.folder(Attributes::default()).unwrap();
            }
            tree.insert(
                directory,
                format!("a-name-of-some-length-{number}").as_bytes(),
                Kind::File,
                number,
                1,
            )
            .unwrap();
        }
        assert_eq!(tree.find(directory, b"a-name-of-some-length-99999").unwrap().target, 99_999);
        assert!(tree.find(Directory(1), b"a-name-of-some-length-99999").is_none());
        assert!(tree.memory() < 12 << 20, "{} bytes", tree.memory());
    }

    #[test]
    fn names_meet_a_limit() {
        let mut tree = Tree::new(Attributes::default(), 1 << 20);
        let full = (0..1_000_000u64)
            .find_map(|number| tree.insert(Directory(0), &number.to_le_bytes(), Kind::File, number, 1).err());
        assert!(matches!(full, Some(Error::Memory { .. })));
        assert!(tree.memory() < 3 << 20);
    }
}
