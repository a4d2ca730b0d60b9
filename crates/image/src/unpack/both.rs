//! The two forms of a layer are the same tree: random archives are unpacked both ways, the file is mounted, and everything is compared.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use model::digest::Digest;
use proptest::prelude::*;
use registry::make::sha256;
use registry::tar::{Entry, archive};

use super::*;
use crate::checksum::{self, Source};
use crate::form::FileSum;
use crate::mounts::Mounts;

const MTIME: u64 = 1_500_000_000;

fn name() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        6 => Just("a"), 6 => Just("b"), 4 => Just("c"), 2 => Just(".."), 1 => Just("."), 1 => Just(""),
        1 => Just(".wh.a"), 1 => Just(".wh.b"), 1 => Just(".wh..wh..opq"), 1 => Just(".wh..wh.x"),
    ];
    (any::<bool>(), proptest::collection::vec(part, 1..5))
        .prop_map(|(absolute, parts)| format!("{}{}", if absolute { "/" } else { "" }, parts.join("/")))
}

fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut value = vec![2, 0, 0, 0];
    for (tag, allowed, id) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(allowed.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

fn with_xattrs(entry: Entry, choice: u32) -> Entry {
    let none = u32::MAX;
    match choice % 24 {
        0 => entry.xattr("user.note", format!("value {choice}")),
        1 => entry.xattr("user.a", b"1".to_vec()).xattr("user.b", vec![b'x'; (choice % 300) as usize]),
        2 => entry.xattr("security.capability", [&[1, 0, 0, 2][..], &[9; 16]].concat()),
        3 if choice.is_multiple_of(5) => entry.xattr("security.capability", b"no capability".to_vec()),
        4 => {
            entry.xattr("trusted.overlay.opaque", b"y".to_vec()).xattr("user.overlay.redirect", b"/".to_vec())
        }
        5 => entry.xattr(
            "system.posix_acl_access",
            acl(&[(1, 7, none), (2, 5, 1000), (4, 1, none), (16, 3, none), (32, 4, none)]),
        ),
        6 => entry.xattr("system.posix_acl_access", acl(&[(1, 6, none), (4, 2, none), (32, 0, none)])),
        7 if entry.kind == b'5' || choice.is_multiple_of(5) => {
            entry.xattr("system.posix_acl_default", acl(&[(1, 7, none), (4, 5, none), (32, 5, none)]))
        }
        8 if choice.is_multiple_of(5) => entry.xattr("system.posix_acl_access", acl(&[(1, 6, none)])),
        _ => entry,
    }
}

fn entry() -> impl Strategy<Value = Entry> {
    (0..10, name(), name(), any::<u32>(), any::<u32>()).prop_map(|(kind, name, target, mode, more)| {
        let size = (more % 9000) as usize;
        let entry = match kind {
            0..4 => Entry::file(&name, mode & 0o7777, vec![(more % 251) as u8; size]),
            4 | 5 => Entry::directory(&name, mode & 0o7777),
            6 => Entry::symlink(&name, &target),
            7 => Entry::hard_link(&name, &target),
            8 => Entry::device(&name, more % 3, mode % 3),
            _ if more % 7 == 0 => Entry::file(&name, 0o600, b"abcdefgh".to_vec())
                .pax("GNU.sparse.map", b"0,4,5000,4".to_vec())
                .pax("GNU.sparse.size", b"9000".to_vec()),
            _ => Entry::fifo(&name),
        };
        with_xattrs(
            entry.owner(u64::from(mode % 9), u64::from(more % 70_000)).mtime(MTIME + u64::from(more % 99)),
            more / 99,
        )
    })
}

/// What there is to know of one path.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    mode: u32,
    owner: (u32, u32),
    /// None: the time of the unpacking.
    mtime: Option<(i64, i64)>,
    links: u64,
    device: u64,
    contents: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

fn look(top: &Path, path: &Path, into: &mut BTreeMap<Vec<u8>, Seen>) {
    let metadata = std::fs::symlink_metadata(path).unwrap();
    let kind = metadata.file_type();
    let contents = if kind.is_file() {
        let mut bytes = Vec::new();
        File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    } else if kind.is_symlink() {
        std::fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec()
    } else {
        Vec::new()
    };
    let mut names = vec![0; 64 << 10];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let xattrs = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(|name| {
        let mut value = vec![0; 64 << 10];
        let size = rustix::fs::lgetxattr(path, std::ffi::OsStr::from_bytes(name), &mut value[..]).unwrap();
        (name.to_vec(), value[..size].to_vec())
    });
    let explicit = metadata.mtime() < MTIME as i64 + 100;
    let is_device = metadata.mode() & 0o170_000 == 0o020_000;
    let seen = Seen {
        mode: metadata.mode(),
        owner: (metadata.uid(), metadata.gid()),
        mtime: explicit.then(|| (metadata.mtime(), metadata.mtime_nsec())),
        links: metadata.nlink(),
        device: if is_device { metadata.rdev() } else { 0 },
        contents,
        xattrs: xattrs.collect(),
    };
    into.insert(path.strip_prefix(top).unwrap().as_os_str().as_bytes().to_vec(), seen);
    if kind.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            look(top, &entry.unwrap().path(), into);
        }
    }
}

fn tree(top: &Path) -> BTreeMap<Vec<u8>, Seen> {
    let mut seen = BTreeMap::new();
    look(top, &top.canonicalize().unwrap_or(top.to_owned()), &mut seen);
    seen
}

/// A mount attached for this thread alone would show in no table, but neither could it be walked by path from here; its descriptor can.
fn tree_of(mount: &OwnedFd) -> BTreeMap<Vec<u8>, Seen> {
    let top = std::path::PathBuf::from(format!("/proc/self/fd/{}/.", mount.as_raw_fd()));
    let mut seen = BTreeMap::new();
    look(&top, &top, &mut seen);
    seen
}

fn check(entries: &[Entry], folder: &Path, mounts: &Mounts) -> Result<(), TestCaseError> {
    let root = folder.join("directory");
    std::fs::create_dir(&root).unwrap();
    std::fs::set_permissions(&root, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let packed = folder.join("layer.erofs");
    let bytes = archive(entries);
    let digest = Digest::parse(&sha256(&bytes)).unwrap();
    let expected =
        Expected { blob: digest.clone(), size: bytes.len() as u64, diff_id: digest.clone(), file: None };
    let options = Options { limits: Limits::default(), user_xattr: false, for_copies: false };
    let directory = File::open(&root).unwrap();
    let one = unpack(&bytes[..], Target::Directory(directory.as_fd()), &expected, &options);
    let file = File::options().read(true).write(true).create_new(true).open(&packed).unwrap();
    let other = unpack(&bytes[..], Target::Erofs(file), &expected, &options);
    let (one, other) = match (one, other) {
        (Ok(one), Ok(other)) => (one, other),
        (Err(one), Err(other)) => {
            prop_assert_eq!(one.to_string(), other.to_string());
            return Ok(());
        }
        (one, other) => {
            prop_assert!(false, "one can and the other cannot: {:?}, {:?}", one, other);
            return Ok(());
        }
    };
    let summed = checksum::of_tree(&directory.into(), &one.loose_ends, Source::Memory).unwrap();
    prop_assert_eq!(Some(summed.to_string()), one.checksum);
    prop_assert_eq!(one.loose_ends, other.loose_ends);
    prop_assert_eq!(one.outline, other.outline);
    let sum = FileSum::of(File::open(&packed).unwrap()).unwrap();
    prop_assert_eq!(Some(sum.to_string()), other.checksum);
    let mount = mounts.lower(&packed).unwrap().open().unwrap();
    let (directory, image) = (tree(&root), tree_of(&mount));
    mounts.forget(&packed);
    prop_assert_eq!(
        directory.keys().map(|path| show(path)).collect::<Vec<_>>(),
        image.keys().map(|path| show(path)).collect::<Vec<_>>()
    );
    for (path, seen) in &directory {
        prop_assert_eq!(seen, &image[path], "{}", show(path));
    }
    Ok(())
}

/// None, with a word about it, where this cannot be tried.
fn mounts(folder: &Path) -> Option<Mounts> {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: needs root to mount");
        return None;
    }
    let mounts = Mounts::new(folder);
    if let Err(error) = mounts.way() {
        println!("SKIPPED: the kernel mounts no EROFS image: {error}");
        return None;
    }
    Some(mounts)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_archives_give_the_same_tree(entries in proptest::collection::vec(entry(), 1..40)) {
        let folder = tempfile::tempdir().unwrap();
        let Some(mounts) = mounts(folder.path()) else { return Ok(()) };
        let whole = folder.path().join("whole");
        std::fs::create_dir(&whole).unwrap();
        // Most have an entry that is refused: it has to be the same one, and for the same reason.
        check(&entries, &whole, &mounts)?;
        let accepted = accepted(entries, folder.path());
        check(&accepted, folder.path(), &mounts)?;
    }
}

/// The entries without those that are refused after the ones before them.
fn accepted(entries: Vec<Entry>, folder: &Path) -> Vec<Entry> {
    let mut accepted = Vec::new();
    for entry in entries {
        accepted.push(entry);
        let bytes = archive(&accepted);
        let digest = Digest::parse(&sha256(&bytes)).unwrap();
        let expected =
            Expected { blob: digest.clone(), size: bytes.len() as u64, diff_id: digest, file: None };
        let options = Options { limits: Limits::default(), user_xattr: false, for_copies: false };
        let file = tempfile::tempfile_in(folder).unwrap();
        if unpack(&bytes[..], Target::Erofs(file), &expected, &options).is_err() {
            accepted.pop();
        }
    }
    accepted
}

#[test]
fn entries_that_are_likely_to_differ() {
    let long = "n".repeat(255);
    let folder = tempfile::tempdir().unwrap();
    let Some(mounts) = mounts(folder.path()) else { return };
    let cases: Vec<Vec<Entry>> = vec![
        vec![],
        vec![Entry::directory("./", 0o1777).owner(5, 6).mtime(MTIME).xattr("user.root", b"yes".to_vec())],
        vec![Entry::directory("d", 0o700).mtime(MTIME), Entry::directory("d", 0o711).mtime(MTIME + 9)],
        vec![Entry::file(&long, 0o644, vec![1; 100]), Entry::file(&format!("d/{long}x"), 0o644, vec![])],
        vec![Entry::symlink("l", &long), Entry::file("l/x", 0o644, vec![])],
        vec![Entry::symlink("l", &"y/".repeat(2000)), Entry::symlink("m", &"z".repeat(4095))],
        vec![Entry::file("d/x", 0o644, vec![7; 10]), Entry::hard_link("d", "d/x")],
        vec![
            Entry::file("a", 0o4755, vec![7; 5000]),
            Entry::hard_link("b", "a"),
            Entry::file("a", 0o600, vec![8; 10]),
        ],
        vec![
            Entry::file("a", 0o644, vec![]),
            Entry::hard_link("b", "a"),
            Entry::hard_link("c", "b"),
            Entry::symlink("b", "a"),
        ],
        vec![Entry::hard_link("own", "below/target"), Entry::file("own/x", 0o644, vec![])],
        vec![
            Entry::file("x", 0o644, vec![3; 12_345])
                .owner(4_000_000_000, 4_000_000_000)
                .xattr("user.large", vec![5; 3000]),
        ],
        vec![
            Entry::symlink("up", "../../a"),
            Entry::file("up/f", 0o644, vec![1]),
            Entry::file("a/g", 0o644, vec![]),
        ],
        vec![Entry::device("w", 0, 0), Entry::file("w/inside", 0o644, vec![]), Entry::device("w2", 0, 0)],
        vec![Entry::file("d/x", 0o644, vec![]), Entry::symlink("d", "e"), Entry::directory("d", 0o755)],
        vec![Entry::file("f", 0o644, vec![]).xattr("user.", b"".to_vec())],
    ];
    for (number, entries) in cases.iter().enumerate() {
        let folder = folder.path().join(number.to_string());
        std::fs::create_dir(&folder).unwrap();
        if let Err(error) = check(entries, &folder, &mounts) {
            panic!("case {number}: {error}");
        }
    }
}
