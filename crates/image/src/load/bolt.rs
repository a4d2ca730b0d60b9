//! Reading a bbolt database, in which containerd keeps its names, without opening it as one: the whole file is read into memory, and of
//! its pages those that lead to what is asked. Nothing in it is trusted: every offset is checked, and no walk visits more pages than there are.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
const PAGE_HEADER: usize = 16;
const ELEMENT: usize = 16;
const BUCKET: usize = 16;
const META_SUMMED: usize = 56;
const BRANCH: u16 = 1;
const LEAF: u16 = 2;
const IS_BUCKET: u32 = 1;
/// The largest database that is read. A node's names take some megabytes.
const LARGEST: u64 = 512 << 20;
/// How often it is read again because somebody wrote meanwhile.
const TRIES: usize = 8;
/// How deep a tree of pages may be: each level has at least two, and there are no more than 2^48.
const DEEPEST: usize = 48;

/// A database as it was at one moment.
#[derive(Debug)]
pub(super) struct Bolt {
    bytes: Vec<u8>,
    page_size: usize,
    root: u64,
}

/// A bucket of it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Bucket<'a> {
    Page(u64),
    Inline(&'a [u8]),
}

/// What a key leads to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Item<'a> {
    Value(&'a [u8]),
    Bucket(Bucket<'a>),
}

fn malformed(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

impl Bolt {
    /// Reads a database that another process may be writing. Its pages are never changed in place: they are reused only two transactions
    /// later, so that a copy during which at most none was committed is whole.
    pub(super) fn read(mut file: File) -> io::Result<Bolt> {
        for _ in 0..TRIES {
            file.seek(SeekFrom::Start(0))?;
            let mut bytes = Vec::new();
            (&mut file).take(LARGEST + 1).read_to_end(&mut bytes)?;
            if bytes.len() as u64 > LARGEST {
                return Err(malformed("it is larger than 512 MiB"));
            }
            let bolt = Bolt::of(bytes)?;
            let mut metas = vec![0; 2 * bolt.page_size];
            file.seek(SeekFrom::Start(0))?;
            file.read_exact(&mut metas)?;
            if metas == bolt.bytes[..metas.len()] {
                return Ok(bolt);
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "it is written to all the time; try again"))
    }

    fn of(bytes: Vec<u8>) -> io::Result<Bolt> {
        // The first meta page tells the size of pages; if it is the damaged one, they are most likely of the usual size.
        let size = number(&bytes, PAGE_HEADER + 8, 4).filter(|size| (1024..=65536).contains(size));
        let page_size = size.unwrap_or(4096) as usize;
        let metas = [0, page_size].into_iter().filter_map(|at| meta(&bytes, at));
        let (_, root, said) =
            metas.max().ok_or_else(|| malformed("it is no bbolt database, or a damaged one"))?;
        match said as usize == page_size && bytes.len() >= 2 * page_size {
            true => Ok(Bolt { bytes, page_size, root }),
            false => Err(malformed("its pages are of an unknown size")),
        }
    }

    /// The bucket at the top.
    pub(super) fn top(&self) -> Bucket<'_> {
        Bucket::Page(self.root)
    }

    /// The bucket that some keys lead to; none if there is none.
    pub(super) fn at<'a>(&'a self, path: &[&[u8]]) -> io::Result<Option<Bucket<'a>>> {
        let mut bucket = self.top();
        for key in path {
            match self.entries(bucket)?.into_iter().find(|(known, _)| known == key) {
                Some((_, Item::Bucket(found))) => bucket = found,
                _ => return Ok(None),
            }
        }
        Ok(Some(bucket))
    }

    /// Everything in a bucket, in order.
    pub(super) fn entries<'a>(&'a self, bucket: Bucket<'a>) -> io::Result<Vec<(&'a [u8], Item<'a>)>> {
        let mut found = Vec::new();
        match bucket {
            Bucket::Inline(page) => self.leaf(page, &mut found)?,
            Bucket::Page(number) => {
                let mut left = self.bytes.len() / self.page_size;
                self.walk(number, DEEPEST, &mut left, &mut found)?;
            }
        }
        Ok(found)
    }

    fn walk<'a>(
        &'a self,
        page: u64,
        depth: usize,
        left: &mut usize,
        found: &mut Vec<(&'a [u8], Item<'a>)>,
    ) -> io::Result<()> {
        if depth == 0 || *left == 0 {
            return Err(malformed("its pages lead in circles"));
        }
        *left -= 1;
        let bytes = self.page(page)?;
        match kind(bytes)? {
            LEAF => self.leaf(bytes, found),
            BRANCH => {
                for index in 0..count(bytes)? {
                    let at = PAGE_HEADER + index * ELEMENT + 8;
                    let child = number(bytes, at, 8).ok_or_else(|| malformed("a page is cut off"))?;
                    self.walk(child, depth - 1, left, found)?;
                }
                Ok(())
            }
            _ => Err(malformed("a page is of an unknown kind")),
        }
    }

    fn page(&self, page: u64) -> io::Result<&[u8]> {
        let cut = || malformed("a page is cut off");
        let begin = usize::try_from(page).ok().and_then(|page| page.checked_mul(self.page_size));
        let begin = begin.ok_or_else(cut)?;
        let overflow = number(&self.bytes, begin.saturating_add(12), 4).ok_or_else(cut)? as usize;
        let length = (overflow + 1).checked_mul(self.page_size).ok_or_else(cut)?;
        self.bytes.get(begin..begin.saturating_add(length)).ok_or_else(cut)
    }

    fn leaf<'a>(&'a self, page: &'a [u8], found: &mut Vec<(&'a [u8], Item<'a>)>) -> io::Result<()> {
        let cut = || malformed("a page is cut off");
        if kind(page)? != LEAF {
            return Err(malformed("a page is of an unknown kind"));
        }
        for index in 0..count(page)? {
            let at = PAGE_HEADER + index * ELEMENT;
            let field = |offset| number(page, at + offset, 4).map(|value| value as usize).ok_or_else(cut);
            let (flags, place, key, value) = (field(0)?, field(4)?, field(8)?, field(12)?);
            let begin = at + place;
            let middle = begin.checked_add(key).ok_or_else(cut)?;
            let end = middle.checked_add(value).ok_or_else(cut)?;
            let (key, value) =
                (page.get(begin..middle).ok_or_else(cut)?, page.get(middle..end).ok_or_else(cut)?);
            let item = match flags as u32 & IS_BUCKET {
                0 => Item::Value(value),
                _ => match number(value, 0, 8).ok_or_else(cut)? {
                    0 => Item::Bucket(Bucket::Inline(value.get(BUCKET..).ok_or_else(cut)?)),
                    root => Item::Bucket(Bucket::Page(root)),
                },
            };
            found.push((key, item));
        }
        Ok(())
    }
}

/// Transaction, root page and page size of a meta page; none if it is damaged.
/// Walks all buckets of a database whose pages are these bytes, from the third on; for fuzzers.
#[cfg(any(test, fuzzing))]
pub(crate) fn walk_all(pages: &[u8]) {
    let bolt = Bolt { bytes: pages.to_vec(), page_size: 1024, root: 2 };
    let mut todo = vec![bolt.top()];
    for _ in 0..200 {
        let Some(bucket) = todo.pop() else { return };
        let entries = bolt.entries(bucket).unwrap_or_default();
        todo.extend(entries.into_iter().filter_map(|(_, item)| match item {
            Item::Bucket(bucket) => Some(bucket),
            Item::Value(_) => None,
        }));
    }
}

fn meta(bytes: &[u8], at: usize) -> Option<(u64, u64, u64)> {
    let meta = bytes.get(at + PAGE_HEADER..at + PAGE_HEADER + META_SUMMED + 8)?;
    let sum = meta[..META_SUMMED].iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let good = number(meta, 0, 4)? == u64::from(MAGIC)
        && number(meta, 4, 4)? == u64::from(VERSION)
        && number(meta, META_SUMMED, 8)? == sum;
    good.then_some((number(meta, 48, 8)?, number(meta, 16, 8)?, number(meta, 8, 4)?))
}

fn kind(page: &[u8]) -> io::Result<u16> {
    number(page, 8, 2).map(|kind| kind as u16).ok_or_else(|| malformed("a page is cut off"))
}

fn count(page: &[u8]) -> io::Result<usize> {
    number(page, 10, 2).map(|count| count as usize).ok_or_else(|| malformed("a page is cut off"))
}

/// A little-endian number of so many bytes.
fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(length)?)?;
    Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn put(bytes: &mut [u8], at: usize, value: u64, length: usize) {
        bytes[at..at + length].copy_from_slice(&value.to_le_bytes()[..length]);
    }

    fn leaf(page: &mut [u8], entries: &[(&[u8], &[u8], u32)]) {
        put(page, 8, LEAF.into(), 2);
        put(page, 10, entries.len() as u64, 2);
        let mut place = PAGE_HEADER + entries.len() * ELEMENT;
        for (index, (key, value, flags)) in entries.iter().enumerate() {
            let at = PAGE_HEADER + index * ELEMENT;
            put(page, at, (*flags).into(), 4);
            put(page, at + 4, (place - at) as u64, 4);
            put(page, at + 8, key.len() as u64, 4);
            put(page, at + 12, value.len() as u64, 4);
            page[place..place + key.len()].copy_from_slice(key);
            page[place + key.len()..place + key.len() + value.len()].copy_from_slice(value);
            place += key.len() + value.len();
        }
    }

    /// A database of a branch over two leaves, the second with a bucket within.
    fn made() -> Vec<u8> {
        let mut bytes = vec![0; 6 * 4096];
        for (page, transaction) in [(0, 7), (1, 8)] {
            let at = page * 4096 + PAGE_HEADER;
            put(&mut bytes, at, MAGIC.into(), 4);
            put(&mut bytes, at + 4, 2, 4);
            put(&mut bytes, at + 8, 4096, 4);
            put(&mut bytes, at + 16, if page == 1 { 2 } else { 5 }, 8);
            put(&mut bytes, at + 48, transaction, 8);
            let sum = bytes[at..at + META_SUMMED].iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
                (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
            });
            put(&mut bytes, at + META_SUMMED, sum, 8);
        }
        let branch = &mut bytes[2 * 4096..3 * 4096];
        put(branch, 8, BRANCH.into(), 2);
        put(branch, 10, 2, 2);
        put(branch, PAGE_HEADER + 8, 3, 8);
        put(branch, PAGE_HEADER + ELEMENT + 8, 4, 8);
        leaf(&mut bytes[3 * 4096..4 * 4096], &[(b"a", b"1", 0), (b"b", b"22", 0)]);
        let mut inline = vec![0; BUCKET + 64];
        leaf(&mut inline[BUCKET..], &[(b"digest", b"sha256:x", 0)]);
        leaf(&mut bytes[4 * 4096..5 * 4096], &[(b"v1", &inline, IS_BUCKET)]);
        bytes
    }

    #[test]
    fn the_newer_of_two_states_is_read_and_buckets_are_found() {
        let bolt = Bolt::of(made()).unwrap();
        let keys: Vec<_> =
            bolt.entries(bolt.top()).unwrap().into_iter().map(|(key, _)| key.to_vec()).collect();
        assert_eq!(keys, [&b"a"[..], b"b", b"v1"]);
        let bucket = bolt.at(&[b"v1"]).unwrap().unwrap();
        let entries = bolt.entries(bucket).unwrap();
        assert!(matches!(entries[0], (b"digest", Item::Value(b"sha256:x"))));
        assert!(bolt.at(&[b"v2"]).unwrap().is_none());
        assert!(bolt.at(&[b"a"]).unwrap().is_none(), "a value is no bucket");
    }

    #[test]
    fn circles_and_cuts_are_errors() {
        let mut circle = made();
        put(&mut circle, 2 * 4096 + PAGE_HEADER + 8, 2, 8);
        let bolt = Bolt::of(circle).unwrap();
        assert!(bolt.entries(bolt.top()).is_err());
        assert!(Bolt::of(b"no database".to_vec()).is_err());
        let cut = made()[..3 * 4096].to_vec();
        let bolt = Bolt::of(cut).unwrap();
        assert!(bolt.entries(bolt.top()).is_err());
    }

    proptest! {
        #[test]
        fn no_damage_panics(at in 2 * 4096usize..6 * 4096, to: u8, also in 2 * 4096usize..2 * 4096 + 64, value: u8) {
            let mut bytes = made();
            bytes[at] = to;
            bytes[also] = value;
            if let Ok(bolt) = Bolt::of(bytes) {
                let _ = bolt.entries(bolt.top());
                let _ = bolt.at(&[b"v1"]).map(|found| found.map(|bucket| bolt.entries(bucket).map(|all| all.len())));
            }
        }
    }
}
